"""Manifests: an absent file and a flipped bit are told by name before anything is computed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import pytest

import pops
from pops.errors import ModelError, PopsError
from pops.loading import manifest
from pops.loading.manifest import MANIFEST, has_manifest, verify, write_manifest
from pops.models.hub import TINY

FILES = sorted(p.relative_to(TINY).as_posix() for p in TINY.rglob("*") if p.is_file())


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A copy of tiny whose files are links; `damaged` gives a file of its own to what it changes."""
    return Path(shutil.copytree(TINY, tmp_path / "tiny", copy_function=os.link))


def damaged(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.unlink()
    path.write_bytes(content)


def first_use(folder: Path) -> None:
    pops.load(folder, device="cpu").model.space  # noqa: B018  the first part: nothing is computed yet


def test_tiny_is_as_its_manifests_say() -> None:
    folders = [TINY, *sorted((TINY / "operators").iterdir())]
    listed = sum(verify(folder, whole=True) for folder in folders)
    assert listed == len(FILES) - len(folders), "every file but the manifests themselves is in one"


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_absent_is_named(tiny: Path, name: str) -> None:
    (tiny / name).unlink()
    with pytest.raises(PopsError, match=Path(name).name.replace(".", r"\.")) as told:
        first_use(tiny)
    assert str(tiny / name).removesuffix(MANIFEST) in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_named(tiny: Path, name: str) -> None:
    rng = random.Random(name)
    for _ in range(1 if name.endswith(".safetensors") else 4):
        whole = (tiny / name).read_bytes()
        damaged(tiny / name, rng)
        with pytest.raises(PopsError) as told:
            first_use(tiny)
        assert str((tiny / name).parent) in str(told.value) and "\n" not in str(told.value)
        (tiny / name).write_bytes(whole)


def test_an_operator_folder_goes_with_its_own_manifest(tiny: Path) -> None:
    shutil.rmtree(tiny / "operators" / "union")  # as where one is replaced, or taken away
    first_use(tiny)
    (tiny / "operators" / "scene" / "adapter.safetensors").unlink()
    with pytest.raises(ModelError, match=r"scene/adapter\.safetensors is missing"):
        pops.load(tiny)


def test_a_change_on_purpose_is_written_down(tiny: Path) -> None:
    about = json.loads((tiny / "pops.json").read_text())
    (tiny / "pops.json").unlink()
    (tiny / "pops.json").write_text(json.dumps({**about, "steps": 3}))
    with pytest.raises(ModelError, match=rf"pops\.json has .*python -m pops\.loading\.manifest {tiny}"):
        pops.load(tiny)
    write_manifest(tiny)
    first_use(tiny)


def test_another_programs_manifest_is_none(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"name": "a web page"}')
    assert not has_manifest(tmp_path) and verify(tmp_path) == 0


def test_a_file_is_hashed_once_per_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.bin").write_bytes(b"x" * 100)
    write_manifest(tmp_path)
    monkeypatch.setattr(hashlib, "sha256", None)
    assert manifest._sha256(tmp_path / "a.bin") and len(manifest._known) > 0


def test_a_large_file_is_hashed_where_all_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "HASHED", 50)
    (tmp_path / "a.bin").write_bytes(b"x" * 100)
    write_manifest(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"y" * 100)
    assert verify(tmp_path) == 1
    with pytest.raises(ModelError, match=r"a\.bin is damaged"):
        verify(tmp_path, whole=True)
