"""Encoded examples: they equal what the encoder says, resume, grow, and refuse what does not belong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from data.examples import rows_of, write_examples, write_metadata
from pops.data import Folder, Shards
from pops.data import encode as module
from pops.data.encode import encode_folder
from pops.errors import ConfigError, EmbeddingError, PhotoError, PopsError, SpaceError
from pops.images import load_photo
from pops.space import Space

SPLIT = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2


@pytest.fixture(scope="module")
def space(random_model: Path) -> Space:
    return Space.load(random_model)


def encode(folder: Path, out: Path, space: Space, **how: Any) -> Any:
    return encode_folder(folder, out, space, model="random", side=64, **{"rows": 3, **how})


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}


def test_it_equals_the_encoder(tmp_path: Path, space: Space) -> None:
    write_examples(tmp_path / "f", split=SPLIT)
    rows = rows_of(tmp_path / "f")
    rows[1]["texture_file_name"] = None
    rows[2]["word"] = None
    rows[3] |= {"target_file_name": None, "caption": "a red tiger"}
    write_metadata(tmp_path / "f", rows)
    done = encode(tmp_path / "f", tmp_path / "s", space)
    shards = Shards.open(tmp_path / "s")
    assert done.about == shards.about and shards.counts == {"train": 8, "validation": 2, "test": 2}
    assert shards.space == "random-32" and shards.about.fit == "squash" and len(shards) == 12
    assert list(shards.rows("validation")) == [8, 9] and list(shards.rows("test")) == [10, 11]
    got = shards.batch([11, 0, 3, 2, 1, 8])
    assert got.ids == ["e11", "e0", "e3", "e2", "e1", "e8"]
    examples = list(Folder.read(tmp_path / "f").rows())

    def true(path: Path) -> torch.Tensor:
        return space.encode_images([load_photo(path, size=64)])[0]

    for place, i in enumerate([11, 0, 3, 2, 1, 8]):
        example = examples[i]
        for role in ("object", "texture"):
            path = example.images[role]
            assert bool(got.present[role][place]) is (path is not None)
            wanted = torch.zeros(32) if path is None else true(path)
            assert torch.allclose(got.images[role][place], wanted, atol=2e-3)
        assert bool(got.target_present[place]) is (example.target is not None)
        assert torch.allclose(got.target[place], true(example.target or example.images["object"]), atol=2e-3)  # type: ignore[arg-type]
        word = int(got.texts["word"][place])
        assert (shards.texts.texts[word] if word >= 0 else "") == example.texts["word"]
        assert got.caption is not None and got.caption_present is not None
        assert bool(got.caption_present[place]) is (example.caption is not None)
    encoding = space.encode_texts(["red", "tiger", "green", "a red tiger"])
    for text, hidden, embeds in zip(["red", "tiger", "green"], encoding.hidden, encoding.embeds):
        row = shards.texts.texts.index(text)
        assert int(shards.texts.length[row]) == len(hidden)
        assert torch.allclose(shards.texts.hidden[row, : len(hidden)].float(), hidden, atol=3e-3)
        assert torch.allclose(shards.texts.embeds[row].float(), embeds, atol=2e-3)
    assert got.caption is not None and torch.allclose(got.caption[2], encoding.embeds[3], atol=2e-3)


def test_a_stopped_run_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_examples(tmp_path / "f", split=SPLIT)
    encode(tmp_path / "f", tmp_path / "whole", space)
    real = module._Run._tensors
    calls = []

    def stopping(self: Any, rows: Any, digests: Any) -> Any:
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, rows, digests)

    monkeypatch.setattr(module._Run, "_tensors", stopping)
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path / "f", tmp_path / "s", space)
    with pytest.raises(ConfigError, match="is not encoded to its end; run pops data encode again"):
        Shards.open(tmp_path / "s")
    done = encode(tmp_path / "f", tmp_path / "s", space)
    assert len(calls) == 6 and done.written == 3  # two of five shards, and the texts, were kept
    assert files(tmp_path / "s") == files(tmp_path / "whole")
    again = encode(tmp_path / "f", tmp_path / "s", space)
    assert (again.written, again.pictures) == (0, 0)


def test_a_folder_that_grew_or_changed(tmp_path: Path, space: Space) -> None:
    write_examples(tmp_path / "f", 7, split="train")
    encode(tmp_path / "f", tmp_path / "s", space)
    write_examples(tmp_path / "f", 9, split="train")
    assert encode(tmp_path / "f", tmp_path / "s", space).written == 1  # the last shard alone
    assert len(Shards.open(tmp_path / "s")) == 9
    Image.new("RGB", (9, 9), "red").save(tmp_path / "f" / "target" / "4.png")
    assert encode(tmp_path / "f", tmp_path / "s", space).written == 1
    write_metadata(tmp_path / "f", rows_of(tmp_path / "f")[:3])
    encode(tmp_path / "f", tmp_path / "s", space)
    assert len(list((tmp_path / "s").glob("train-*"))) == 1 and len(Shards.open(tmp_path / "s")) == 3


def test_unfinished_changes_do_not_open(tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    write_examples(tmp_path / "f", 6, split="train")
    encode(tmp_path / "f", tmp_path / "s", space)
    Image.new("RGB", (9, 9), "red").save(tmp_path / "f" / "target" / "4.png")
    monkeypatch.setattr(module._Run, "_tensors", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path / "f", tmp_path / "s", space)
    with pytest.raises(ConfigError, match="not encoded to its end"):
        Shards.open(tmp_path / "s")


def test_spaces_do_not_mix(tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    write_examples(tmp_path / "f", 4)
    encode(tmp_path / "f", tmp_path / "s", space)
    shards = Shards.open(tmp_path / "s")
    shards.require_space(space.id, space.fingerprint)
    with pytest.raises(SpaceError, match="holds embeddings of space 'random-32', not 'other'"):
        shards.require_space("other")
    before = files(tmp_path / "s")
    monkeypatch.setattr(space, "id", "other")
    with pytest.raises(SpaceError, match="holds embeddings of space 'random-32', the model's is 'other'"):
        encode(tmp_path / "f", tmp_path / "s", space)
    (tmp_path / "s" / "about.json").unlink()  # what a stopped run leaves is as little mixed
    with pytest.raises(SpaceError, match="holds embeddings of space 'random-32'"):
        encode(tmp_path / "f", tmp_path / "s", space)
    assert {k: v for k, v in before.items() if k != "about.json"} == files(tmp_path / "s")


def test_crops_of_operands(tmp_path: Path, space: Space) -> None:
    write_examples(tmp_path / "f", split=SPLIT)
    encode(tmp_path / "f", tmp_path / "s", space, crops=3)
    shards = Shards.open(tmp_path / "s")
    assert shards.counts == {"train": 24, "validation": 2, "test": 2}
    got = shards.batch([0, 1, 2])
    assert got.ids == ["e0", "e0~1", "e0~2"]
    assert torch.equal(got.target[0], got.target[1]) and torch.equal(got.target[0], got.target[2])
    assert not torch.equal(got.images["object"][0], got.images["object"][1])
    assert not torch.equal(got.images["object"][1], got.images["object"][2])


def test_bad_pictures_name_their_row(tmp_path: Path, space: Space) -> None:
    write_examples(tmp_path / "f", 4)
    (tmp_path / "f/object/2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(PhotoError, match="metadata.jsonl, line 3: .*2.png.*pops data check"):
        encode(tmp_path / "f", tmp_path / "s", space)
    (tmp_path / "f/object/2.png").unlink()
    with pytest.raises(PhotoError, match="metadata.jsonl, line 3: there is no file .*2.png"):
        encode(tmp_path / "f", tmp_path / "new", space)
    with pytest.raises(ConfigError, match="not encoded to its end"):
        Shards.open(tmp_path / "new")


def test_texts_that_are_too_long(tmp_path: Path, space: Space) -> None:
    write_examples(tmp_path / "f", 4)
    rows = rows_of(tmp_path / "f")
    rows[1]["word"] = "red " * 100
    write_metadata(tmp_path / "f", rows)
    with pytest.raises(ConfigError, match="line 2: the text 'red red .*' is too long"):
        encode(tmp_path / "f", tmp_path / "s", space)
    rows[1] |= {"word": "red", "caption": "red " * 100}
    write_metadata(tmp_path / "f", rows)
    with pytest.raises(ConfigError, match="line 2: the text 'red red .*' is too long"):
        encode(tmp_path / "f", tmp_path / "s", space)


def test_a_full_disk_leaves_no_shard(tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    write_examples(tmp_path / "f", 4)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(PopsError, match="could not be written .No space left on device.; nothing was left behind"):
        encode(tmp_path / "f", tmp_path / "s", space)
    assert not list((tmp_path / "s").glob("*.safetensors"))


@pytest.mark.parametrize("cut", [10, 0.5])
def test_a_shard_cut_short(tmp_path: Path, space: Space, cut: float) -> None:
    write_examples(tmp_path / "f", 4)
    encode(tmp_path / "f", tmp_path / "s", space)
    path = tmp_path / "s" / "train-00000.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(cut if cut > 1 else cut * len(content))])
    with pytest.raises(EmbeddingError, match="train-00000.safetensors has .* bytes, it was written with"):
        Shards.open(tmp_path / "s")
    assert encode(tmp_path / "f", tmp_path / "s", space).written == 1
    assert path.read_bytes() == content


def test_damaged_in_place(tmp_path: Path, space: Space) -> None:
    write_examples(tmp_path / "f", 4)
    encode(tmp_path / "f", tmp_path / "s", space)
    path = tmp_path / "s" / "train-00000.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(EmbeddingError, match="train-00000.safetensors cannot be read"):
        Shards.open(tmp_path / "s").batch([0])


def test_places_that_are_not_for_shards(tmp_path: Path, space: Space) -> None:
    write_examples(tmp_path / "f", 4)
    with pytest.raises(ConfigError, match="holds other files, such as"):
        encode(tmp_path / "f", tmp_path / "f", space)
    with pytest.raises(ConfigError, match="holds no encoded examples; make them"):
        Shards.open(tmp_path / "f")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot be written"):
        encode(tmp_path / "f", tmp_path / "file", space)


@pytest.mark.parametrize("change", [{"version": 9}, {"shards": 3}, {"roles": [{"name": "x", "kind": "sound"}]}])
def test_about_of_another_version(tmp_path: Path, space: Space, change: dict[str, Any]) -> None:
    write_examples(tmp_path / "f", 4)
    encode(tmp_path / "f", tmp_path / "s", space)
    path = tmp_path / "s" / "about.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PopsError, match="about.json|a role's kind"):
        Shards.open(tmp_path / "s")


def test_rows_outside(tmp_path: Path, space: Space) -> None:
    write_examples(tmp_path / "f", 4)
    encode(tmp_path / "f", tmp_path / "s", space)
    for index in (-1, 4):
        with pytest.raises(IndexError, match="rows are numbered 0 to 3"):
            Shards.open(tmp_path / "s").batch([index])
