"""Columns X_file_names: lists of pictures as the roles X_1, X_2, ..."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.examples import picture, write_metadata
from pops.data import Folder
from pops.errors import ConfigError


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_lists_become_roles(tmp_path: Path, suffix: str) -> None:
    rows = []
    for i, garments in enumerate((["hat", "boots"], ["scarf"], ["bag", "hat", "crown"])):
        names = [f"{i}-{garment}.png" for garment in garments]
        rows.append({"id": str(i), "garment_file_names": names, "target_file_name": f"{i}.png"})
        for k, name in enumerate((*names, f"{i}.png")):
            picture(tmp_path / name, 10 * i + k)
    write_metadata(tmp_path, rows, suffix)
    folder = Folder.read(tmp_path)
    assert folder.images == ("garment_1", "garment_2", "garment_3")
    by_id = {row.id: row.images for row in folder.rows()}
    assert by_id["1"] == {"garment_1": tmp_path / "1-scarf.png", "garment_2": None, "garment_3": None}
    assert [path.name for path in by_id["2"].values() if path] == ["2-bag.png", "2-hat.png", "2-crown.png"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a.png", "line 1 has a.png as garment_file_names; write a list of files"),
        ([3], "as garment_file_names; write a list of files"),
        (["a.png"] * 13, "has 13 pictures in garment_file_names, at most 12 are taken"),
        (["../a.png"], "names garment_1_file_name '../a.png', which is outside the folder"),
    ],
)
def test_bad_lists_are_one_line(tmp_path: Path, value: object, message: str) -> None:
    write_metadata(tmp_path, [{"id": "0", "garment_file_names": value, "target_file_name": "0.png"}])
    with pytest.raises(ConfigError) as caught:
        Folder.read(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
