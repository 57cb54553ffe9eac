"""Checks of folders: each fault is found, alone, and good folders have none."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from data.examples import picture, rows_of, write_examples, write_metadata
from pops.data.check import Checked, check_folder
from pops.data.near import near_pairs
from pops.data.report import write_report

SPLIT = ["train"] * 40 + ["validation"] * 4 + ["test"] * 4


def check(folder: Path, roles: Sequence[str] | None = None) -> Checked:
    return check_folder(folder, too_long=lambda texts: [len(text) > 60 for text in texts], roles=roles)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_examples(tmp_path / "good", 48, split=SPLIT)


def change(folder: Path, number: int, **cells: Any) -> None:
    rows = rows_of(folder)
    rows[number] |= cells
    write_metadata(folder, rows)


def copy(folder: Path, source: str, target: str) -> None:
    (folder / target).write_bytes((folder / source).read_bytes())


def test_a_good_folder_has_nothing(good: Path) -> None:
    checked = check(good)
    assert checked.findings == [] and checked.pictures == 144 and checked.counts == {}
    assert dict(checked.sizes) == {(48, 48): 144}


def saved_again(folder: Path, source: str, target: str) -> None:
    with Image.open(folder / source) as image:
        image.convert("RGB").save(folder / "saved.jpg", quality=75)
    with Image.open(folder / "saved.jpg") as image:
        image.save(folder / target)
    (folder / "saved.jpg").unlink()


def turned(folder: Path, source: str, target: str) -> None:
    with Image.open(folder / source) as image:
        image.rotate(90).save(folder / target)


def by_exif(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(folder / "object/3.png") as image:
        image.save(folder / "object/3.png", exif=exif)


def operands_of_training(folder: Path) -> None:
    copy(folder, "object/1.png", "object/46.png")
    copy(folder, "texture/1.png", "texture/46.png")
    change(folder, 46, word="tiger")


def whole_row(folder: Path) -> None:
    for role in ("object", "texture", "target"):
        copy(folder, f"{role}/4.png", f"{role}/7.png")


@pytest.mark.parametrize(
    ("spoil", "fault", "notes", "told"),
    [
        (lambda f: (f / "object/3.png").unlink(), "missing", [], "line 4 (object) object/3.png does not exist"),
        (lambda f: (f / "object/3.png").write_bytes(b"GIF89a"), "broken", [], "object/3.png"),
        (lambda f: (f / "object/3.png").write_bytes(b""), "broken", [], "is empty (0 bytes)"),
        (lambda f: picture(f / "object/3.png", 77, 20), "tiny", [], "has 20 x 20 pixels; use one of 32 or more"),
        (lambda f: change(f, 3, word="red " * 30), "long", [], "line 4 has a word that is too long"),
        (lambda f: change(f, 3, caption="red " * 30), "long", [], "line 4 has a caption that is too long"),
        (lambda f: change(f, 3, object_file_name="../x.png"), "path", ["unused", "few"], "is outside the folder"),
        (lambda f: change(f, 3, split="trainn"), "split", ["unused", "few"], "has split 'trainn'"),
        (lambda f: change(f, 3, id="e2"), "id", ["unused", "few"], "has id 'e2', as has"),
        (lambda f: copy(f, "target/5.png", "target/47.png"), "leak", ["copy"], "line 48 (test) has the result of"),
        (lambda f: saved_again(f, "target/5.png", "target/41.png"), "leak", ["near"], "line 42 (validation) has"),
        (operands_of_training, "leak", ["copy", "copy"], "line 47 (test) has the operands of"),
        (whole_row, "duplicate", ["copy"] * 3, "line 8 (train) shows and says the same as"),
        (lambda f: change(f, 3, object_path="a.png"), "role", [], "column object_path that names pictures"),
        (lambda f: copy(f, "object/5.png", "object/9.png"), "", ["copy"], "has the same bytes as object/5.png"),
        (lambda f: saved_again(f, "object/5.png", "object/9.png"), "", ["near"], "object/9.png looks the same as"),
        (lambda f: turned(f, "object/5.png", "object/9.png"), "", ["turned"], "when it is turned by"),
        (by_exif, "", ["turned"], "is turned by its EXIF"),
        (lambda f: picture(f / "more.png", 77), "", ["unused"], "more.png: no row names it"),
        (lambda f: copy(f, "object/5.png", "target/47.png"), "", ["copy", "shared"], "has as its result an operand of"),
        (lambda f: write_metadata(f, rows_of(f)[:40]), "", ["unused", "few"], "no example is held out"),
    ],
)  # fmt: skip
def test_each_finding(good: Path, spoil: Any, fault: str, notes: list[str], told: str) -> None:
    spoil(good)
    checked = check(good)
    assert [f.kind for f in checked.faults] == ([fault] if fault else [])
    assert sorted(f.kind for f in checked.notes) == sorted(notes)
    assert any(told in str(f) for f in checked.findings), [str(f) for f in checked.findings]


def test_roles_of_the_operator(good: Path) -> None:
    assert check(good, ["object", "texture", "word"]).findings == []
    told = [str(f) for f in check(good, ["object", "textures", "word"]).faults]
    assert (
        "has a role 'texture' (did you mean 'textures'?)" in told[0] and "no column for the role 'textures'" in told[1]
    )


def test_alike_within_a_row_is_what_operators_do(good: Path) -> None:
    for i in range(40):
        copy(good, f"object/{i}.png", f"target/{i}.png")
    assert {f.kind for f in check(good).findings} == {"copy"}


def test_one_shared_operand_is_no_leak(good: Path) -> None:
    copy(good, "texture/1.png", "texture/46.png")
    assert [f.kind for f in check(good).findings] == ["copy"]


def test_near_pairs_of_turned_pictures() -> None:
    gen = torch.Generator().manual_seed(0)
    copies = torch.randint(256, (50, 8, 8, 3), generator=gen, dtype=torch.uint8)
    copies[7] = copies[3] // 2 * 2
    copies[9] = torch.rot90(copies[4], 1)
    assert near_pairs(copies) == [(3, 7)] and near_pairs(copies, first=torch.tensor([7, 9])) == [(3, 7)]
    assert near_pairs(copies, 90) == [(9, 4)] or near_pairs(copies, 90) == [(4, 9)]
    assert near_pairs(copies, 180) == [] and near_pairs(copies[:1]) == []


def test_the_report_needs_no_other_file(good: Path, tmp_path: Path) -> None:
    (good / "object/3.png").write_bytes(b"no")
    change(good, 0, word="<script>alert(1)</script>")
    write_report(check(good), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "1 fault" in page and "<script>" not in page and "&lt;script&gt;" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page) and page.count("data:image/jpeg") > 50


def test_the_command(good: Path, call: Any) -> None:
    done = call("data", "check", str(good), "-m", "$M", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["ok"] is True
    (good / "object/3.png").unlink()
    done = call("data", "check", str(good), "-m", "$M", "--json", "--report", "r.html")
    told = json.loads(done.stdout)
    assert done.exit_code == 1 and told["ok"] is False and told["found"] == {"missing": 1} and Path("r.html").is_file()
    assert told["counts"] == {"train": 40, "validation": 4, "test": 4} and told["faults"][0]["kind"] == "missing"
    assert told["roles"][2] == {"name": "word", "kind": "text"}
    done = call("data", "check", str(good), "-m", "$M")
    assert done.exit_code == 1 and "fault: pictures that are missing (1)" in done.stdout
    done = call("data", "check", "none", "-m", "$M")
    assert done.exit_code == 2 and done.stderr == "pops: there is no folder none; check the path\n"


def test_the_command_that_encodes(good: Path, call: Any) -> None:
    done = call("data", "encode", str(good), "-o", "s", "-m", "$M", "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == 0 and told["counts"] == {"train": 40, "validation": 4, "test": 4}
    assert told["space"] == "random-32" and told["pictures"] == 144 and Path("s/about.json").is_file()
    assert "48" not in call("data", "encode", str(good), "-o", "s", "-m", "$M", "--fit", "oval").stdout
