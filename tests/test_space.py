"""Space: embeddings equal stock transformers', alone and in batches; folders are checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from folders import DIM, write_model
from pops.errors import CheckpointError, ModelError, OperandError, PopsError, SpaceError
from pops.space import ClipStats, Space, standardise, unstandardise

TEXTS = ["red tiger", "a very long text about tigers and other things", ""]


def pictures(n: int, side: int = 40) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 255, (side, side, 3), np.uint8)) for _ in range(n)]


@pytest.fixture(scope="module")
def space(random_model: Path) -> Space:
    return Space.load(random_model)


@pytest.fixture
def folder(random_model: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may spoil."""
    return shutil.copytree(random_model, tmp_path / "model")


def test_what_a_space_says_before_it_reads_weights(space: Space) -> None:
    fresh = Space.load(space.folder)
    assert (fresh.id, fresh.dim, fresh.image_size) == ("random-32", DIM, 32)
    assert "_image_tower" not in vars(fresh) and "_text_tower" not in vars(fresh)


def test_images_alone_never_read_the_text_tower(random_model: Path) -> None:
    fresh = Space.load(random_model)
    fresh.encode_images(pictures(1))
    assert "_image_tower" in vars(fresh) and "_text_tower" not in vars(fresh)


def test_images_equal_transformers_own(space: Space) -> None:
    from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

    tower = CLIPVisionModelWithProjection.from_pretrained(space.folder / "image_encoder")
    processor = CLIPImageProcessorPil.from_pretrained(space.folder / "image_processor")
    with torch.no_grad():
        expected = tower(**processor(images=pictures(2), return_tensors="pt")).image_embeds
    out = space.encode_images(pictures(2))
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    assert out.dtype == torch.float32 and not torch.allclose(out[0], out[1], atol=1e-2)


@pytest.mark.parametrize("n", [1, 3, 17])  # 17: more than one batch
def test_a_batch_of_images_equals_its_items(space: Space, n: int) -> None:
    together = space.encode_images(pictures(n))
    alone = torch.cat([space.encode_images([p]) for p in pictures(n)])
    assert together.shape == (n, DIM)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_texts_equal_transformers_own_padded_to_the_limit(space: Space) -> None:
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    tower = CLIPTextModelWithProjection.from_pretrained(space.folder / "text_encoder")
    tokens = CLIPTokenizer.from_pretrained(space.folder / "tokenizer")(
        TEXTS, padding="max_length", max_length=77, return_tensors="pt"
    )
    with torch.no_grad():
        expected = tower(input_ids=tokens.input_ids)
    out = space.encode_texts(TEXTS)
    torch.testing.assert_close(out.embeds, expected.text_embeds, rtol=1e-5, atol=1e-6)
    for hidden, row, mask in zip(out.hidden, expected.last_hidden_state, tokens.attention_mask, strict=True):
        torch.testing.assert_close(hidden, row[mask.bool()], rtol=1e-5, atol=1e-6)
    assert [len(h) for h in out.hidden][::2] == [4, 2]  # start, red, tiger, end; start, end
    assert out.truncated == [False, False, False]


def test_a_batch_of_texts_equals_its_items(space: Space) -> None:
    together = space.encode_texts(TEXTS * 6)
    for i in (0, 1, 2, 17):
        alone = space.encode_texts([TEXTS[i % 3]])
        torch.testing.assert_close(together.embeds[i : i + 1], alone.embeds, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(together.hidden[i], alone.hidden[0], rtol=1e-5, atol=1e-6)


def test_a_text_too_long_loses_its_end_and_says_so(space: Space) -> None:
    fits, over = "red " * 75, "red " * 76
    out = space.encode_texts([fits, over])
    assert out.truncated == [False, True] and [len(h) for h in out.hidden] == [77, 77]
    torch.testing.assert_close(out.embeds[0], out.embeds[1])


@pytest.mark.parametrize("texts", [[], [3], ["\ud800"]])
def test_what_are_no_texts(space: Space, texts: list[str]) -> None:
    with pytest.raises(OperandError):
        space.encode_texts(texts)


def test_no_pictures(space: Space) -> None:
    with pytest.raises(OperandError):
        space.encode_images([])


def test_the_zero_image_is_that_of_stock_kandinsky(space: Space) -> None:
    from diffusers import KandinskyV22PriorPipeline

    pipe = KandinskyV22PriorPipeline.from_pretrained(space.folder)
    torch.testing.assert_close(space.zero_image_embedding(), pipe.get_zero_embed(), rtol=1e-5, atol=1e-6)


def test_standardise_and_its_inverse() -> None:
    stats = ClipStats(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 4.0]))
    e = torch.tensor([[1.5, 2.0], [1.0, -2.0]])
    z = standardise(e, stats)
    assert z.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert torch.equal(unstandardise(z, stats), e)
    assert standardise(e.half(), stats).dtype == torch.float16


def test_numbers_that_overflow_are_told(random_model: Path) -> None:
    fresh = Space.load(random_model)
    with torch.no_grad():
        fresh._image_tower.visual_projection.weight.fill_(torch.inf)
    with pytest.raises(PopsError, match="overflowed"):
        fresh.encode_images(pictures(1))


# --- ids ---


def test_a_space_without_a_name_is_named_by_its_weights(folder: Path, tmp_path: Path) -> None:
    (folder / "pops.json").unlink()
    first = Space.load(folder).id
    assert first.startswith("clip-32-") and len(first) == len("clip-32-") + 12
    other = write_model(tmp_path / "other", seed=5, space=None, renderer=False)
    assert Space.load(other).id != first
    config = folder / "image_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "transformers_version": "9"}))
    assert Space.load(folder).id == first


def test_the_papers_space_is_known_by_its_sizes(tmp_path: Path) -> None:
    (tmp_path / "image_encoder").mkdir()
    config = {"projection_dim": 1280, "hidden_size": 1664, "image_size": 224}
    (tmp_path / "image_encoder" / "config.json").write_text(json.dumps(config))
    space = Space.load(tmp_path)
    assert (space.id, space.dim, space.image_size) == ("clip-vit-bigg-14", 1280, 224)


# --- folders that do not hold together ---


def test_folders_that_are_no_models(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json cannot be read \(No such file or directory\)"):
        Space.load(tmp_path)
    (folder / "pops.json").write_text("{torn")
    with pytest.raises(ModelError, match=r"pops\.json cannot be read"):
        Space.load(folder)
    (folder / "image_encoder" / "config.json").write_text('{"projection_dim": 32}')
    with pytest.raises(ModelError, match="no CLIP image encoder"):
        Space.load(folder)


def test_parts_that_are_absent_or_torn(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(ModelError, match="has no text_encoder"):
        Space.load(folder).encode_texts(["red"])
    weights = folder / "image_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="image_encoder.*cannot be read"):
        Space.load(folder).encode_images(pictures(1))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tokenizer/tokenizer.json tokenizer/merges.txt", r"tokenizer has no merges\.txt \(or tokenizer\.json\)"),
        ("tokenizer/tokenizer_config.json", "tokenizer has no tokenizer_config.json"),
        ("text_encoder/config.json", "text_encoder has no config.json"),
        ("text_encoder/model.safetensors", "text_encoder has no model.safetensors"),
        ("image_processor/preprocessor_config.json", "image_processor has no preprocessor_config.json"),
    ],
)
def test_a_file_that_a_library_would_fill_in_for_is_named(folder: Path, name: str, says: str) -> None:
    for each in name.split():
        (folder / each).unlink(missing_ok=True)
    space = Space.load(folder)
    with pytest.raises(ModelError, match=says):
        space.encode_images(pictures(1)) if "image" in name else space.encode_texts(["red"])


@pytest.mark.parametrize("part", ["image_encoder", "text_encoder"])
def test_pickles_are_never_opened(folder: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    path = folder / part / "model.safetensors"
    torch.save(load_file(path), folder / part / "pytorch_model.bin")
    path.unlink()
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    with pytest.raises(ModelError, match=rf"{part} holds its weights only as a pickle \(pytorch_model.bin\)") as told:
        space = Space.load(folder)
        space.encode_images(pictures(1)) if part == "image_encoder" else space.encode_texts(["red"])
    assert "python -c" in str(told.value) and "WithProjection as M" in str(told.value)


@pytest.mark.parametrize("change", ["missing", "surplus", "misshaped"])
def test_weights_that_do_not_fit_are_named(folder: Path, change: str) -> None:
    from safetensors.torch import load_file, save_file

    path, key = folder / "image_encoder" / "model.safetensors", "visual_projection.weight"
    weights = load_file(path)
    if change == "missing":
        del weights[key]
    elif change == "surplus":
        key = "another.weight"
        weights[key] = torch.ones(2)
    else:
        weights[key] = torch.ones(DIM, DIM + 1)
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        Space.load(folder).encode_images(pictures(1))
    assert "image_encoder" in str(caught.value) and key in str(caught.value)
    assert "\n" not in str(caught.value)


def test_towers_of_two_models(folder: Path) -> None:
    path = folder / "image_encoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "projection_dim": DIM + 1}))
    space = Space.load(folder)
    with pytest.raises(SpaceError, match="belong to different models"):
        space.encode_texts(["red"])


def test_a_processor_for_other_pixels_is_told(random_model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(random_model, tmp_path / "copy")
    (copy / "image_processor" / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ModelError, match="images of 224x224, the image encoder reads 32x32"):
        Space.load(copy).encode_images([Image.new("RGB", (8, 8))])
