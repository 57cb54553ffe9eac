"""Folders of examples: every format of metadata gives the same, and every fault its own line."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.examples import rows_of, write_examples, write_metadata
from pops.data import Folder
from pops.data.splits import drawn_splits
from pops.errors import ConfigError
from pops.operators.spec import Role

ROLES = (Role("object"), Role("texture"), Role("word", "text"))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_every_format_gives_the_same(tmp_path: Path, suffix: str) -> None:
    splits = ["train"] * 8 + ["val", "validation", "test", "Test"]
    folder = Folder.read(write_examples(tmp_path, suffix=suffix, split=splits, license="CC0-1.0", seed=7))
    assert folder.roles == ROLES and not folder.made_split
    assert folder.counts == {"train": 8, "validation": 2, "test": 2}
    first = folder.rows("train")[0]
    assert first.id == "e0" and first.texts == {"word": "red"} and first.caption is None and first.split == "train"
    assert first.images == {"object": tmp_path / "object/0.png", "texture": tmp_path / "texture/0.png"}
    assert first.target == tmp_path / "target/0.png"
    assert first.extra["license"] == "CC0-1.0" and str(first.extra["seed"]) == "7"
    assert [e.id for e in folder.rows()] == [f"e{i}" for i in range(12)]


def test_a_folder_for_each_split(tmp_path: Path) -> None:
    for name, count in (("train", 3), ("valid", 2)):
        write_examples(tmp_path / name, count)
    with pytest.raises(ConfigError, match="e0"):
        Folder.read(tmp_path)  # the same ids twice
    for name in ("train", "valid"):
        rows = rows_of(tmp_path / name)
        write_metadata(
            tmp_path / name, [{k: v for k, v in row.items() if k != "id"} | {"id": name + row["id"]} for row in rows]
        )
    folder = Folder.read(tmp_path)
    assert folder.counts == {"train": 3, "validation": 2, "test": 0}
    assert folder.rows("validation")[1].target == tmp_path / "valid/target/1.png"


def test_missing_operands_and_captions(tmp_path: Path) -> None:
    write_examples(tmp_path, 2)
    one, two = rows_of(tmp_path)
    one |= {"texture_file_name": None, "word": ""}
    del two["target_file_name"]
    two["caption"] = "a red thing"
    write_metadata(tmp_path, [one, two])
    a, b = Folder.read(tmp_path).rows("train")
    assert a.images["texture"] is None and a.texts == {"word": ""} and a.target is not None
    assert b.target is None and b.caption == "a red thing" and b.id not in ("", a.id)


def test_file_name_is_the_target(tmp_path: Path) -> None:
    write_metadata(tmp_path, [{"file_name": "t.png", "photo_file_name": "p.png"}])
    folder = Folder.read(tmp_path)
    assert folder.roles == (Role("photo"),) and folder.rows()[0].target == tmp_path / "t.png"


def test_rows_without_ids_may_share_a_target(tmp_path: Path) -> None:
    write_metadata(tmp_path, [{"file_name": "t.png", "a_file_name": f"{i}.png"} for i in range(40)])
    folder = Folder.read(tmp_path)
    assert len({e.id for e in folder.rows()}) == 40
    assert len({e.split for e in folder.rows()}) == 1  # one result lies in one split
    write_metadata(tmp_path, [{"file_name": "t.png", "a_file_name": "0.png"}] * 3)
    with pytest.raises(ConfigError, match="line 3 says the same as .*line 1|says the same as"):
        Folder.read(tmp_path)


def test_drawn_splits_are_stable_and_hold_some_out() -> None:
    keys = [f"k{i}" for i in range(1000)]
    split = drawn_splits(keys)
    counts = {name: split.count(name) for name in ("train", "validation", "test")}
    assert 760 < counts["train"] < 840 and min(counts.values()) > 70
    longer = drawn_splits([*keys, *(f"n{i}" for i in range(500))])
    assert longer[:1000] == split
    for few in (12, 30, 60, 100):
        small = drawn_splits(keys[:few])
        assert min(small.count("validation"), small.count("test")) >= min(8, few // 6)
        assert small.count("train") >= few * 0.6
    assert set(drawn_splits(["a"])) == {"train"}


ROW = {"id": "1", "object_file_name": "o.png", "target_file_name": "t.png"}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"object_file_name": "/etc/passwd"}, "line 2 names object_file_name '/etc/passwd', an absolute path"),
        ({"object_file_name": "a/../../o.png"}, "is outside the folder"),
        ({"object_file_name": "C:\\o.png"}, "an absolute path"),
        ({"object_file_name": 3}, "which is no file's name"),
        ({"target_file_name": ["t.png"]}, "which is no file's name"),
        ({"split": "trian"}, "has split 'trian' (did you mean 'train'?)"),
        ({"word": 3.5}, "has 3.5 as word; write a text"),
        ({"id": "0"}, "has id '0', as has"),
        ({"object_file_name": None}, "has no operand at all"),
        ({"target_file_name": None}, "has no result"),
        ({"target_file_name": None, "caption": "c", "object_file_name": None, "word": "red"}, "has no result"),
    ],
)
def test_each_fault_names_its_row(tmp_path: Path, row: dict[str, object], told: str) -> None:
    first = {**ROW, "id": "0", "word": "red"}
    if row.get("object_file_name", 1) is None and "word" not in row:
        first = {**ROW, "id": "0"}
    write_metadata(tmp_path, [first, {**ROW, **row}])
    with pytest.raises(ConfigError) as caught:
        Folder.read(tmp_path)
    assert told in str(caught.value) and "metadata.jsonl, line 2" in str(caught.value)
    read = Folder.read(tmp_path, strict=False)
    assert len(read) == 1 and len(read.faults) == 1 and told in str(read.faults[0])


@pytest.mark.parametrize("line", ['{"id": 1', "[1]", '{"id": ' + "[" * 200 + "]" * 200 + "}", '{"id": 1e999}'])
def test_a_line_that_is_no_row(tmp_path: Path, line: str) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"a_file_name": "a.png", "file_name": "t.png"}\n' + line + "\n")
    with pytest.raises(ConfigError, match="metadata.jsonl, line 2 is no row"):
        Folder.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a_file_name,a_file_name,file_name\n1,2,3\n", "must name the columns, each once"),
        ("a_file_name,file_name\n1,2\n1,2,3\n", "line 3 has 3 cells"),
        ('a_file_name,file_name\n"1,2\n', "no CSV"),
        ("a_file_name,file_name\n", "holds no example"),
    ],
)
def test_bad_csv(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "metadata.csv").write_text(content)
    with pytest.raises(ConfigError) as caught:
        Folder.read(tmp_path)
    assert told in str(caught.value)


def test_bad_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        Folder.read(tmp_path / "none")
    with pytest.raises(ConfigError, match="has no metadata.jsonl"):
        Folder.read(tmp_path)
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ConfigError, match="is no readable Parquet file"):
        Folder.read(tmp_path)
    (tmp_path / "metadata.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ConfigError, match="metadata.jsonl and metadata.parquet; keep one"):
        Folder.read(tmp_path)
    (tmp_path / "metadata.parquet").unlink()
    with pytest.raises(ConfigError, match="is no UTF-8 text"):
        Folder.read(tmp_path)
    with pytest.raises(ConfigError, match="is not a folder"):
        Folder.read(tmp_path / "metadata.jsonl")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"id": "1", "file_name": "t.png"}, "has nothing for operands"),
        ({"word": "red", "file_name": "t.png"}, "has only texts (word) for operands"),
        ({"a_file_name": "a.png"}, "does not say what the result is"),
        ({"a_file": "a.png", "file_name": "t.png"}, "has a column a_file that names pictures; call it a_file_name"),
        ({"a_file_name": "a.png", "file_name": "t.png", "word": "x", "mood": "y"}, "has 2 text roles (word, mood)"),
        ({f"r{i}_file_name": "a.png" for i in range(13)} | {"file_name": "t.png"}, "13 image roles"),
    ],
)
def test_columns_that_make_no_operator(tmp_path: Path, row: dict[str, str], told: str) -> None:
    write_metadata(tmp_path, [row])
    with pytest.raises(ConfigError) as caught:
        Folder.read(tmp_path)
    assert told in str(caught.value)
    assert told in str(Folder.read(tmp_path, strict=False).faults[0])


def test_columns_that_are_passed_through(tmp_path: Path) -> None:
    write_metadata(tmp_path, [{**ROW, "license": "MIT", "width": 3, "_mood": "y", "scores": [0.5], "word": "red"}])
    folder = Folder.read(tmp_path)
    assert folder.texts == ("word",)
    extra = {k: v for k, v in folder.rows()[0].extra.items() if k != "_where"}
    assert extra == {"license": "MIT", "width": 3, "_mood": "y", "scores": [0.5]}
