"""Files: names found as people see them, JSON with limits, and writes that are whole, durable and leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from pops.errors import ConfigError, PopsError
from pops.files import expanded, parse_json, read_json, read_json_object, shown, write_whole


def names(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir()]


# --- names ---


@pytest.mark.parametrize(
    ("there", "asked"),
    [
        (unicodedata.normalize("NFD", "café.png"), unicodedata.normalize("NFC", "café.png")),
        (unicodedata.normalize("NFC", "café.png"), unicodedata.normalize("NFD", "café.png")),
        (unicodedata.normalize("NFD", "é/ü.png"), unicodedata.normalize("NFC", "é/ü.png")),
        ("Screenshot 3.45.12\u202fPM.png", "Screenshot 3.45.12 PM.png"),
        ("a\u00a0b.png", "a b.png"),
    ],
)
def test_names_that_read_the_same_are_found(tmp_path: Path, there: str, asked: str) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    assert expanded(tmp_path / asked) == tmp_path / there
    assert expanded(tmp_path / "other é.png") == tmp_path / "other é.png", "what is nowhere stays as it was"


def test_of_two_alike_none_is_guessed_and_an_exact_name_wins(tmp_path: Path) -> None:
    for name in ("a\u00a0b.png", "a\u2009b.png"):
        (tmp_path / name).touch()
    assert expanded(tmp_path / "a b.png") == tmp_path / "a b.png"
    (tmp_path / "a b.png").touch()
    assert expanded(tmp_path / "a b.png") == tmp_path / "a b.png"


def test_what_is_shown_is_short_and_on_one_line() -> None:
    assert shown("x" * 10_000) == "x" * 199 + "…"
    assert shown("a\nb\x1b[31m\u202e") == "a\\nb\\x1b[31m\\u202e"
    assert shown(Path("写真.png")) == "写真.png"


# --- JSON ---


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "nested more than 100 deep"),
        ("[" * 200 + "]" * 200, "nested more than 100 deep"),
        ('{"a":' * 300 + "1" + "}" * 300, "nested more than 100 deep"),
        ("1" * 400, "a number of 400 digits"),
        ("[-" + "9" * 5000 + "]", "a number of 5001 digits"),
        ("[1e999]", "too large or too long"),
        ("[0." + "1" * 5000 + "]", "too large or too long"),
        ("{torn", "no JSON: .* at line 1, column 2"),
        ("", "no JSON"),
        (b"\xff\xfe\xfd", "."),
    ],
)
def test_json_of_anyone_is_one_line(tmp_path: Path, text: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse_json(text)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    begun = time.monotonic()
    with pytest.raises(ConfigError, match="a.json cannot be read .*; fetch or make it again") as told:
        read_json(path)
    assert "\n" not in str(told.value) and time.monotonic() - begun < 1


def test_json_within_the_limits_is_what_json_reads(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, -2.5e3, "x", null, true, -Infinity]}')
    assert read_json_object(tmp_path / "a.json") == {"a": [1, -2500.0, "x", None, True, float("-inf")]}
    deep: Any = parse_json("[" * 100 + "]" * 100)
    for _ in range(99):
        deep = deep[0]
    assert deep == []


def test_json_of_any_size_and_kind_of_file_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('"' + "x" * 5000 + '"')
    with pytest.raises(ConfigError, match="larger than"):
        read_json(tmp_path / "a.json", most=1000)
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="no regular file"):
            read_json(path)


# --- writing ---


def test_a_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    before = os.umask(0o027)
    try:
        with write_whole(tmp_path / "a.safetensors") as temporary:
            save_file({"a": torch.zeros(2)}, temporary)  # makes files of mode 0600
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["a.safetensors"]


def test_content_is_on_the_disk_before_the_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(str(Path(f"/proc/self/fd/{fd}").readlink())), sync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append("rename"), replace(self, to))[1])
    with write_whole(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("whole")
    assert done == [str(temporary), "rename", str(tmp_path / "new"), str(tmp_path)]


def test_what_killed_writes_left_is_swept(tmp_path: Path) -> None:
    """Also of writers that make a file of their own beside the one they are told, as safetensors does."""
    code = (
        "import os, signal, sys; from pops.files import write_whole\n"
        "with write_whole(sys.argv[1]) as t:\n"
        "    t.write_text('half'); (t.parent / '.tmpXY').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "a.txt"
    path.write_text("old")
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL and path.read_text() == "old" and len(names(tmp_path)) == 2
    (tmp_path / ".a.txt-not-ours").mkdir()
    with write_whole(tmp_path / "b.txt") as temporary:
        temporary.write_text("b")
    assert len(names(tmp_path)) == 4, "another file's is left to it"
    with write_whole(path) as temporary:
        with write_whole(path) as other:  # a living writer's stays
            other.write_text("other")
        temporary.write_text("new")
    assert path.read_text() == "new" and sorted(names(tmp_path)) == [".a.txt-not-ours", "a.txt", "b.txt"]


def test_leftovers_of_other_machines_go_after_a_day(tmp_path: Path) -> None:
    old, young = tmp_path / ".a.txt-abcdef-1-aaaaaa", tmp_path / ".a.txt-abcdef-1-bbbbbb"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (1, 1))
    with write_whole(tmp_path / "a.txt") as temporary:
        temporary.touch()
    assert sorted(names(tmp_path)) == [young.name, "a.txt"]


def test_a_failed_write_leaves_the_old_file_and_no_folders(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    for place in (tmp_path / "a.txt", tmp_path / "x" / "y" / "a.txt"):
        with pytest.raises(KeyError), write_whole(place) as temporary:
            temporary.write_text("half")
            raise KeyError
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_disk_that_fails_to_sync_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(PopsError, match="could not be written .No space left"),
        write_whole(tmp_path / "a") as temporary,
    ):
        temporary.write_text("x")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["x" * 240 + ".png", "é" * 120 + ".png", "a." + "b" * 200])
def test_long_names(tmp_path: Path, name: str) -> None:
    with write_whole(tmp_path / name) as temporary:
        temporary.write_text("x")
    assert names(tmp_path) == [name]


def test_messages_quote_little_of_a_long_path() -> None:
    with pytest.raises(ConfigError) as caught:
        read_json("x" * 100_000)
    assert len(str(caught.value)) < 600
