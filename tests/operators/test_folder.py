"""Operator folders are put in place by one rename: a killed write leaves the old operator or the new one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pops.errors import CheckpointError, ConfigError
from pops.loading.manifest import MANIFEST, verify
from pops.operators import folder as folders
from pops.operators.folder import write_folder

OWN = ("operator.json", "adapter.safetensors", "prior.safetensors")


def write(folder: Path, content: str, weights: str = "adapter.safetensors") -> None:
    with write_folder(folder, OWN) as temporary:
        (temporary / weights).write_text(content)
        (temporary / "operator.json").write_text("{}")


def held(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir() if p.name in (*OWN, "notes.txt")}


def test_a_folder_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    write(tmp_path / "op", "old", "prior.safetensors")
    (tmp_path / "op" / "notes.txt").write_text("mine")
    write(tmp_path / "op", "new")
    assert set(held(tmp_path / "op")) == {"operator.json", "adapter.safetensors", "notes.txt"}
    assert held(tmp_path / "op")["notes.txt"] == "mine" and held(tmp_path / "op")["adapter.safetensors"] == "new"
    assert verify(tmp_path / "op") == 2 and [p.name for p in tmp_path.iterdir()] == ["op"]


@pytest.mark.parametrize("how", ["folder inside", "working folder", "no exchange"])
def test_a_folder_that_cannot_be_exchanged(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "op", "old", "prior.safetensors")
    if how == "folder inside":
        (tmp_path / "op" / "logs").mkdir()
    elif how == "working folder":
        monkeypatch.chdir(tmp_path / "op")
    else:
        monkeypatch.setattr(folders, "_exchanged", lambda *_: False)
    write(tmp_path / "op" if how != "working folder" else Path(), "new")
    assert held(tmp_path / "op").keys() == {"operator.json", "adapter.safetensors"}
    assert verify(tmp_path / "op") == 2 and [p.name for p in tmp_path.iterdir()] == ["op"]


def test_an_exception_leaves_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "op", "old")
    for place in (tmp_path / "op", tmp_path / "new" / "deep"):
        with pytest.raises(ZeroDivisionError), write_folder(place, OWN) as temporary:
            (temporary / "prior.safetensors").write_text("half")
            raise ZeroDivisionError
    assert held(tmp_path / "op")["adapter.safetensors"] == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["op"]


KILLED = r"""
import os, sys
from pathlib import Path
from pops.operators import folder
calls = int(sys.argv[2])

def counting(name):
    own = getattr(os, name)
    def call(*args, **how):
        global calls
        calls -= 1
        if calls < 0:
            os._exit(9)
        return own(*args, **how)
    return call

import pathlib
for name in ("rename", "replace", "mkdir", "unlink", "link", "fsync", "rmdir"):
    setattr(os, name, counting(name))
exchanged = folder._exchanged
def exchange(*paths):
    global calls
    calls -= 1
    if calls < 0:
        os._exit(9)
    done = exchanged(*paths)
    calls -= 1
    if calls < 0:
        os._exit(9)
    return done
folder._exchanged = exchange
with folder.write_folder(sys.argv[1], ("operator.json", "adapter.safetensors", "prior.safetensors")) as temporary:
    (temporary / "prior.safetensors").write_text("new")
    (temporary / "operator.json").write_text('{"of": "new"}')
"""


def test_a_killed_write_leaves_one_operator_whole(tmp_path: Path) -> None:
    seen = set()
    for calls in range(60):
        place = tmp_path / f"{calls}" / "op"
        with write_folder(place, OWN) as temporary:
            (temporary / "adapter.safetensors").write_text("old")
            (temporary / "operator.json").write_text('{"of": "old"}')
        command = [sys.executable, "-c", KILLED, str(place), str(calls)]
        code = subprocess.run(command, check=False).returncode
        found = held(place)
        weights = found.get("adapter.safetensors", "") + found.get("prior.safetensors", "")
        assert f'"of": "{weights}"' in found["operator.json"] and verify(place) == 2
        seen.add(weights)
        write(place, "later")
        assert [p.name for p in place.parent.iterdir()] == ["op"], "what was left is swept"
        if code == 0:
            break
        assert code == 9
    assert seen == {"old", "new"} and code == 0


def test_the_sweep_leaves_alone_what_another_process_writes(tmp_path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        with write_folder(tmp_path / "op", OWN) as temporary:
            inside.set()
            go_on.wait(60)
            (temporary / "operator.json").write_text("{}")

    thread = threading.Thread(target=slow)
    thread.start()
    inside.wait(60)
    write(tmp_path / "op", "other")
    go_on.set()
    thread.join(60)
    assert held(tmp_path / "op") == {"operator.json": '{\n  "manifest": "manifest.json"\n}\n'}


def test_the_old_folder_comes_back_where_there_is_no_exchange(tmp_path: Path) -> None:
    write(tmp_path / "op", "old")
    (tmp_path / "op").rename(tmp_path / ".op-0123abcd.old")  # killed between the two renames
    with pytest.raises(ZeroDivisionError), write_folder(tmp_path / "op", OWN):
        raise ZeroDivisionError
    assert held(tmp_path / "op")["adapter.safetensors"] == "old"


def test_no_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(ConfigError, match="op cannot be written"):
        write(tmp_path / "op", "new")
    assert MANIFEST and not (tmp_path / "op").exists()


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("name", [*OWN[:2], MANIFEST])
def test_an_operator_whose_file_is_cut_off_is_told_and_written_again(tmp_path: Path, name: str, cut: int) -> None:
    """As when the power fails: the file is there by name, and its content is not."""
    write(tmp_path / "op", "old")
    path = tmp_path / "op" / name
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=name):
        verify(tmp_path / "op", error=CheckpointError)
    write(tmp_path / "op", "new")
    assert verify(tmp_path / "op") == 2 and held(tmp_path / "op")["adapter.safetensors"] == "new"
