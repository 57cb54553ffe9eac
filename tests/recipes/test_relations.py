"""Folders of new relations: every relation can be drawn, and is a good folder of examples."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageOps
from recipes.relations.__main__ import RELATIONS, write

from pops.data import Folder

ROLES = {
    "wearing": ["object", "like"], "together": ["left", "right", "place"], "made_of": ["object", "material"],
    "everything": ["object", "material", "place", "adjective"], "unrelated": ["one", "other"],
}  # fmt: skip


@pytest.mark.parametrize("name", RELATIONS)
def test_a_relation(name: str, tmp_path: Path) -> None:
    write(name, tmp_path / "f", 3, 16)
    folder = Folder.read(tmp_path / "f")
    assert len(folder) == 3 and [role.name for role in folder.roles] == ROLES.get(name, ["object"])
    write(name, tmp_path / "again", 1, 16)
    for path in (tmp_path / "again" / "pictures").iterdir():
        assert path.read_bytes() == (tmp_path / "f" / "pictures" / path.name).read_bytes()
    if name == "mirrored":
        row = folder.rows()[0]
        with Image.open(row.images["object"]) as one, Image.open(row.target) as other:  # type: ignore[arg-type]
            assert ImageOps.mirror(one).tobytes() == other.tobytes()
