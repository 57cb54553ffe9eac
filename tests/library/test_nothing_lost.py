"""Libraries: nothing is lost or taken in by a passing state, and names of any kind pass through the commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from library.test_library import embedding_of, found, index, photo
from pops.cli.main import app
from pops.errors import PhotoError
from pops.library import Library
from pops.library.tables import TABLES

pytest.importorskip("lancedb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(6):
        photo(tmp_path / "photos" / f"{'sub/' if i > 3 else ''}{i}.png", i)
    return tmp_path / "photos"


# --- what is passed over -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        "@eaDir/0.png", "sub/@eaDir/0.png", "#recycle", "$RECYCLE.BIN/S-1-5", "__MACOSX/photos", ".git/objects",
        ".thumbnails/large", "System Volume Information", "lost+found", "@Recycle", "#snapshot/daily", ".Trash-1000",
        "My.lrdata/0", "A.photoslibrary/resources/derivatives", "node_modules/x",
    ],
)  # fmt: skip
def test_folders_of_systems_are_passed_over(folder: Path, tmp_path: Path, place: str) -> None:
    photo(folder / place / "thumb.jpg", 90)
    report = index(folder, tmp_path / "lib")
    assert report.photos == 6 and not report.skipped and not report.others
    assert len(report.passed) == (0 if place.startswith(".") else 1)


def test_folders_of_like_names_are_not(folder: Path, tmp_path: Path) -> None:
    photo(folder / "recycle trip" / "a.png", 90)
    photo(folder / "A.photoslibrary" / "originals" / "a.png", 91)
    photo(folder / "@home" / "a.png", 92)
    assert index(folder, tmp_path / "lib").photos == 9


def test_excluded_names_and_paths(folder: Path, tmp_path: Path) -> None:
    assert index(folder, tmp_path / "a", exclude=["[01].png"]).photos == 4
    assert index(folder, tmp_path / "b", exclude=["sub/"]).photos == 4
    report = index(folder, tmp_path / "c", exclude=["sub/4*", "0.png"])
    assert report.photos == 4 and {Path(p).name for p in report.passed} == {"4.png", "0.png"}
    assert index(folder, tmp_path / "c").photos == 6
    assert index(folder, tmp_path / "c", exclude=["sub"]).removed == 2


# --- moved, unmounted, gone ----------------------------------------------------------------------------------------


def test_a_renamed_folder_leaves_no_dead_twins(folder: Path, tmp_path: Path) -> None:
    index(folder, tmp_path / "lib")
    (folder / "sub" / "5.png").unlink()
    folder.rename(tmp_path / "renamed")
    report = index(tmp_path / "renamed", tmp_path / "lib")
    assert (report.photos, report.encoded, report.removed) == (6, 0, 5), "what is nowhere else is kept"
    match = Library.open(tmp_path / "lib").search(embedding_of(tmp_path / "renamed" / "0.png"), 1)[0][0]
    assert (match.path, match.copies) == (str(tmp_path / "renamed" / "0.png"), ())


def test_living_paths_come_first(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "zz")
    index(folder, tmp_path / "lib")
    index(tmp_path / "zz", tmp_path / "lib")
    shutil.rmtree(folder)
    match = Library.open(tmp_path / "lib").search(embedding_of(tmp_path / "zz" / "0.png"), 1)[0][0]
    assert match.path == str(tmp_path / "zz" / "0.png") and match.copies == (str(folder / "0.png"),)


@pytest.mark.parametrize("left", [[], ["NOT MOUNTED.txt"], [".hidden"], ["@eaDir/a.png"]])
def test_an_empty_folder_throws_nothing_away(folder: Path, tmp_path: Path, left: list[str]) -> None:
    index(folder, tmp_path / "lib")
    folder.rename(tmp_path / "away")
    folder.mkdir()
    for name in left:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    with pytest.raises(PhotoError, match=r"holds no photo now, but .* has 6 of it, .* add --prune") as caught:
        index(folder, tmp_path / "lib")
    assert "\n" not in str(caught.value)
    shutil.rmtree(folder)
    (tmp_path / "away").rename(folder)
    assert index(folder, tmp_path / "lib").unchanged == 6
    shutil.rmtree(folder)
    folder.mkdir()
    assert index(folder, tmp_path / "lib", prune=True).photos == 0


def test_an_empty_folder_within_keeps_its_photos(folder: Path, tmp_path: Path) -> None:
    index(folder, tmp_path / "lib")
    (folder / "sub").rename(tmp_path / "away")
    (folder / "sub").mkdir()
    report = index(folder, tmp_path / "lib")
    assert (report.photos, report.kept, report.removed) == (6, 2, 0)
    assert index(folder, tmp_path / "lib", prune=True).photos == 4


def test_a_link_to_a_disk_that_is_away_keeps_its_photos(folder: Path, tmp_path: Path) -> None:
    (folder / "sub").rename(tmp_path / "disk")
    (folder / "sub").symlink_to(tmp_path / "disk")
    index(folder, tmp_path / "lib")
    (tmp_path / "disk").rename(tmp_path / "unplugged")
    assert index(folder, tmp_path / "lib").photos == 6


def test_heic_without_its_reader_and_raw_are_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for i in range(5):
        (folder / f"IMG_{i}.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200) + bytes([i]))
    (folder / "IMG.CR2").write_bytes(b"II*\0" + bytes(200))
    report = index(folder, tmp_path / "lib")
    whys = {Path(p).name: why for p, why in report.skipped.items()}
    assert len(whys) == 6 and not report.others
    assert "pops-diffusion[heif]" in whys["IMG_3.HEIC"] and "RAW file (CR2)" in whys["IMG.CR2"]


# --- power loss ----------------------------------------------------------------------------------------------------


def newest(lib: Path, count: int) -> list[Path]:
    return sorted((p for p in lib.rglob("*") if p.is_file() and p.name != ".lock"), key=lambda p: p.stat().st_mtime_ns)[
        -count:
    ]


@pytest.mark.parametrize("cut", [0, 7])
@pytest.mark.parametrize("which", range(1, 9))
def test_a_library_whose_newest_file_is_emptied_is_not_lost(folder: Path, tmp_path: Path, which: int, cut: int) -> None:
    lib = tmp_path / "lib"
    index(folder, lib)
    for i in range(3):
        photo(folder / f"more{i}.png", 40 + i)
        index(folder, lib)
    victim = newest(lib, which)[0]
    victim.write_bytes(victim.read_bytes()[:cut])
    got = Library.open(lib).search(embedding_of(folder / "0.png"), 10)[0]
    assert got[0].path == str(folder / "0.png") and len(got) >= 8, f"{victim}: at most the last interval is lost"
    assert index(folder, lib).photos == 9
    assert found(lib, folder / "more2.png") == [str(folder / "more2.png")]


def test_a_new_library_whose_header_is_emptied_is_not_lost(folder: Path, tmp_path: Path) -> None:
    index(folder, tmp_path / "lib")
    (tmp_path / "lib" / "library.json").write_text("")
    assert found(tmp_path / "lib", folder / "0.png") == [str(folder / "0.png")]


def test_what_is_written_is_on_the_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[str] = set()
    real = os.fsync

    def sync(fd: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{fd}").readlink()))
        real(fd)

    monkeypatch.setattr(os, "fsync", sync)
    index(folder, tmp_path / "lib")
    tables = [p for name in TABLES for p in (tmp_path / "lib" / f"{name}.lance").rglob("*") if p.is_file()]
    assert tables and {str(p) for p in tables} <= synced


def test_versions_do_not_pile_up(folder: Path, tmp_path: Path) -> None:
    for i in range(4):
        photo(folder / f"more{i}.png", 40 + i)
        index(folder, tmp_path / "lib")
        time.sleep(1.1 if i == 2 else 0)  # what was made within a second of the version kept is kept with it
    for name in TABLES:
        assert len(list((tmp_path / "lib" / f"{name}.lance" / "_versions").glob("*.manifest"))) <= 6


# --- names and streams ---------------------------------------------------------------------------------------------


def pops(*words: Any, env: dict[str, str] | None = None, **how: Any) -> subprocess.CompletedProcess[bytes]:
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    command = [sys.executable, "-m", "pops.cli.main", *words]
    return subprocess.run(command, env={**os.environ, **(env or {})}, check=False, **how)


def test_names_that_a_console_cannot_show_are_escaped(random_model: Path, tmp_path: Path) -> None:
    path = photo(tmp_path / "p" / "写真 🐶.png", 1)
    index_words = ["index", tmp_path / "p", "-o", tmp_path / "lib", "-m", random_model]
    assert CliRunner().invoke(app, [str(w) for w in index_words]).exit_code == 0
    search = ["search", path, "-l", tmp_path / "lib", "-m", random_model]
    done = pops(*search, env={"PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0 and done.stdout.strip().endswith(b"\\u5199\\u771f \\U0001f436.png")
    told = CliRunner().invoke(app, [*(str(w) for w in search), "--json"]).stdout
    assert told.isascii() and json.loads(told)["matches"][0]["path"] == str(path)


def test_names_that_are_no_unicode_are_one_line(random_model: Path, tmp_path: Path) -> None:
    photo(tmp_path / "p" / "0.png", 1)
    odd = os.fsencode(tmp_path) + b"/p/caf\xe9.png"
    Path(os.fsdecode(odd)).write_bytes((tmp_path / "p" / "0.png").read_bytes())
    done = pops("index", tmp_path / "p", "-o", tmp_path / "lib", "-m", random_model)
    assert done.returncode == 0 and b"not valid Unicode" in done.stderr
    for words in ((b"search", odd, b"-l", os.fsencode(tmp_path / "lib")), (b"show", odd)):
        for json_output in (True,):
            done = pops(*words, *((b"--json",) if json_output else ()))
            assert done.returncode in (0, 2) and b"internal" not in done.stderr and b"Traceback" not in done.stderr
            assert not json_output or json.loads(done.stdout) is not None


def test_closed_and_full_streams(tmp_path: Path) -> None:
    for closing in (">&-", "<&- >&- 2>&-"):
        for words, code in (("--version", 0), ("index nowhere -o x", 2)):
            line = f"{sys.executable} -m pops.cli.main {words} {closing}"
            done = subprocess.run(["bash", "-c", line], capture_output=True, check=False, cwd=tmp_path)
            assert done.returncode == code and b"Traceback" not in done.stderr, (words, closing, done.stderr)
    if Path("/dev/full").exists():
        with Path("/dev/full").open("wb") as full:
            done = pops("renderers", stdout=full)
            assert done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"cannot be written" in done.stderr
            assert pops("show", "nowhere", stderr=full).returncode == 2


def test_many_files_of_one_reason_take_one_line(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    photo(tmp_path / "p" / unicodedata.normalize("NFD", "é.png"), 1)
    for i in range(30):
        (tmp_path / "p" / f"IMG_{i}.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    words = ["index", str(tmp_path / "p"), "-o", str(tmp_path / "lib"), "-m", str(random_model)]
    done = CliRunner().invoke(app, [*words, "--exclude", "IMG_2?.HEIC"])
    assert done.exit_code == 0 and done.stderr.count("\n") == 1 and "20 files, such as" in done.stderr
    assert "pops-diffusion[heif]" in done.stderr
