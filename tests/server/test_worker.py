"""The worker: what it tells of its progress."""

from __future__ import annotations

from typing import Any

import pytest

from pops.server import worker


class Told:
    """An inbox that keeps what is told."""

    def __init__(self, _: Any) -> None:
        self.messages: list[Any] = []
        self.tell = self.messages.append


@pytest.mark.parametrize(("watched", "count"), [(True, 30), (False, 2)])
def test_steps_are_told_to_those_who_follow_them(watched: bool, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "Inbox", Told)
    now = iter(range(0, 3000, 100))  # a step each .05 s: 30 of them in 1.45 s
    made, job = worker.Worker(), {"id": "j", "seconds": 100.0, "until": 1e9}
    if watched:
        made._watched.add("j")
    for step in range(30):
        time = 10 + next(now) / 2000
        monkeypatch.setattr("time.monotonic", lambda time=time: time)
        made._progress([job], step, 30, "rendering")
    told: Any = made.inbox
    assert len(told.messages) == count  # of one that nobody follows, a sign of life a second
    assert {message["event"] for message in told.messages} == {"progress"}
