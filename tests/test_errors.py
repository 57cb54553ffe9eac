"""The tree of errors, its exit codes, suggestions and carets; files written whole."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pops import errors
from pops.errors import ConfigError, ExpressionError, PhotoError, PopsError, UserError, ensure, suggest
from pops.files import write_whole


def kinds() -> list[type[PopsError]]:
    return [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, PopsError)]


def test_exit_codes_tell_whose_fault_it_was() -> None:
    assert PopsError("x").exit_code == 1
    assert {k for k in kinds() if k.exit_code == 2} == {k for k in kinds() if issubclass(k, UserError)}
    assert len([k for k in kinds() if issubclass(k, UserError)]) == 10


def test_ensure_raises_the_kind_asked_for() -> None:
    ensure(True, "fine")
    with pytest.raises(ConfigError, match="^too big$"):
        ensure(False, "too big")
    with pytest.raises(PhotoError, match="^torn$"):
        ensure(False, "torn", PhotoError)


def test_suggest_finds_the_nearest_and_keeps_its_spelling() -> None:
    assert suggest("texturng", ["union", "texturing"]) == " (did you mean 'texturing'?)"
    assert suggest("TEAPOT.PNG", ["Teapot.png"]) == " (did you mean 'Teapot.png'?)"
    assert suggest("zzz", ["union", "texturing"]) == ""


@pytest.mark.parametrize("word", ["texturing", "it's", "both \"' of them", "back\\slash"])
def test_what_was_meant_can_be_had_from_the_error(word: str) -> None:
    assert PopsError(f"unknown name{suggest(word, [word])}; choose another").suggestion == word
    assert PopsError("unknown name 'x'").suggestion is None


@pytest.mark.parametrize(
    ("text", "span", "shown"),
    [
        ("union(a, b)", (0, 5), "  union(a, b)\n  ^^^^^"),
        ("union(a, b)", (6, 7), "  union(a, b)\n        ^"),
        ("union(a,", (8, 9), "  union(a,\n          ^"),  # at the end of the text
        ("let t = a;\nunion(t, q)", (20, 21), "  union(t, q)\n           ^"),  # the second line only
        ("union(a\n, b)", (0, 12), "  union(a\n  ^^^^^^^"),  # a span over two lines ends with the first
        ("犬, b)", (3, 4), "  犬, b)\n      ^"),  # a wide letter takes two columns
        ("a\tb", (2, 3), "  a b\n    ^"),
    ],
)
def test_the_caret_stands_under_the_mistake(text: str, span: tuple[int, int], shown: str) -> None:
    error = ExpressionError("wrong", text, span)
    assert error.pretty() == f"wrong\n{shown}"
    assert str(error) == "wrong" and error.span == span


def test_without_a_place_there_is_no_caret() -> None:
    assert ExpressionError("wrong", "union(a)").pretty() == "wrong"
    assert ConfigError("wrong", span=(1, 2)).pretty() == "wrong"


def test_missing_extra_names_the_command() -> None:
    assert "pip install 'pops-diffusion[retrieval]'" in str(errors.MissingExtra("lancedb", "retrieval"))


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with write_whole(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent.parent == path.parent and temporary.suffix == ".txt" and not path.exists()
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), write_whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PopsError, match="could not be written"), write_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a folder"), write_whole(tmp_path):
        pass
    with pytest.raises(ConfigError, match="is not a folder"), write_whole(tmp_path / "file" / "a.txt"):
        pass


def test_folders_made_for_a_failed_write_are_removed(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with pytest.raises(RuntimeError), write_whole(tmp_path / "here" / "new" / "newer" / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.rglob("*")) == [tmp_path / "here"]
    with write_whole(tmp_path / "here" / "new" / "newer" / "a.txt") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "here" / "new" / "newer" / "a.txt").read_text() == "whole"
