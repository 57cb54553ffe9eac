"""The worker: what it tells of its progress; and the logs of a server."""

from __future__ import annotations

import logging
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pops.errors import Cancelled, ModelError
from pops.server import worker
from pops.server.serving import logs_on_stderr


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


def test_one_who_comes_to_look_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "Inbox", Told)
    monkeypatch.setattr("time.monotonic", lambda: 10.0)
    made, job = worker.Worker(), {"id": "j", "seconds": 100.0, "until": 1e9}
    told: Any = made.inbox
    for step in range(3):
        made._progress([job], step, 9, "rendering")
    assert len(told.messages) == 1
    assert made._at_once({"do": "watch", "job": "j", "on": True})
    made._progress([job], 3, 9, "rendering")
    assert [message["data"]["done"] for message in told.messages] == [0, 3]
    made._at_once({"do": "cancel", "job": "j"})
    with pytest.raises(Cancelled):
        made._progress([job], 4, 9, "rendering")


@pytest.mark.parametrize("fails", [False, True])
def test_logs_on_stderr_end_with_the_server(fails: bool, capsys: pytest.CaptureFixture[str]) -> None:
    loggers = [logging.getLogger(name) for name in ("pops", "uvicorn")]
    before = [(list(logger.handlers), logger.propagate, logger.level) for logger in loggers]
    with suppress(ZeroDivisionError), logs_on_stderr():
        loggers[0].info("it listens")
        assert not fails or 1 / 0
    loggers[0].info("nobody listens")
    assert capsys.readouterr().err.count("it listens") == 1
    assert [(list(logger.handlers), logger.propagate, logger.level) for logger in loggers] == before


@pytest.mark.parametrize(
    ("option", "said"),
    [("--dtype", "dtype is float32, float16 or bfloat16, got 'bf16'"), ("--precision", "unknown precision 'bf16'")],
)
def test_a_worker_that_cannot_load_is_told_in_one_line(option: str, said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pops", "serve", option, "bf16", "--port", "0", "--data", str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == ModelError.exit_code
    assert "Traceback" not in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith(f"pops: {said}")
