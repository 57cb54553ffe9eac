"""The rehearsal of a release: every Python that tries it gets a folder of its own, and two builds are compared."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tools import release


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A rehearsal that builds and installs nothing: contents of the two builds, and where each Python was tried."""
    told: dict[str, Any] = {"builds": [b"same", b"same"], "rooms": []}

    def built(commit: str, room: Path) -> list[Path]:
        room.mkdir()
        (room / "pops.whl").write_bytes(told["builds"].pop())
        return [room / "pops.whl"]

    def try_out(wheel: Path, python: str, room: Path) -> None:
        room.mkdir()  # fails where another Python was tried there
        told["rooms"].append((python, room))

    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(release, "run", lambda *command, **how: "")
    monkeypatch.setattr(release, "built", built)
    monkeypatch.setattr(release, "try_out", try_out)
    return told


def test_pythons_of_one_name_are_tried_apart(rehearsed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["release.py", "--python", "/a/bin/python3", "--python", "/b/bin/python3"])
    release.main()
    assert [python for python, _ in rehearsed["rooms"]] == [sys.executable, "/a/bin/python3", "/b/bin/python3"]
    assert len({room for _, room in rehearsed["rooms"]}) == 3


def test_builds_that_differ_end_it(rehearsed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsed["builds"] = [b"one", b"other"]
    monkeypatch.setattr(sys, "argv", ["release.py"])
    with pytest.raises(SystemExit, match="two builds of one commit differ"):
        release.main()
    assert rehearsed["rooms"] == []
