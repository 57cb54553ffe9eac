"""From photos to embedding: `Pops.apply` on a random folder against the published method.

The published method is written here with Pillow, transformers and diffusers only: 81 tokens, UnCLIPScheduler, one item.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import KandinskyV22PriorPipeline, PriorTransformer, UnCLIPScheduler
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

import pops
from folders import DIM, write_model
from pops.operators.checkpoint import save_operator
from pops.operators.spec import BUILTIN
from pops.prior.transformer import PriorModel

SIZES = [(700, 300), (40, 90), (512, 512)]  # photos, none of the processor's size
GARMENTS = [0, 1, 2] * 4  # twelve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a model whose operators are whole random priors, without the statistics, and whose clamp is 2."""
    folder = write_model(tmp_path_factory.mktemp("public") / "model", renderer=False, space=None)
    UnCLIPScheduler(prediction_type="sample", clip_sample_range=2.0).save_pretrained(folder / "scheduler")
    base = PriorModel.load(folder)
    for i, name in enumerate(BUILTIN):
        gen = torch.Generator().manual_seed(i)
        state = base.transformer.state_dict()
        weights = {k: v + 0.1 * torch.randn(v.shape, generator=gen) for k, v in state.items()}
        weights["proj_to_clip_embeddings.weight"] *= 0.4  # so that the clamp changes some numbers, not most
        weights["proj_in.weight"] *= 10  # so that every draw matters to the end
        save_operator(folder / "operators" / name, BUILTIN[name], weights, base=base, space=pops.load(folder).space.id)
    return folder


@pytest.fixture(scope="module")
def photos(folder: Path) -> list[Path]:
    paths = []
    for i, (width, height) in enumerate(SIZES):
        pixels = np.random.default_rng(i).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
        paths.append(folder / f"photo-{i}.png")
        Image.fromarray(pixels).resize((width, height)).save(paths[-1])
    return paths


def image_embedding(folder: Path, photo: Path) -> torch.Tensor:
    picture = Image.open(photo).convert("RGB").resize((512, 512))
    processor = CLIPImageProcessorPil.from_pretrained(folder / "image_processor")
    tower = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder").eval()
    return tower(processor(picture, return_tensors="pt").pixel_values).image_embeds


def word_rows(folder: Path, word: str) -> torch.Tensor:
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tower = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder").eval()
    tokens = tokenizer(word, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    return tower(tokens.input_ids).last_hidden_state[0, : int(tokens.attention_mask.sum())]


@torch.no_grad()
def published(
    folder: Path,
    own: dict[str, Tensor],
    operands: list[Path | str | None],
    *,
    seed: int,
    steps: int,
    guidance: float,
) -> Tensor:
    """Samples one item as the papers' code does; own: the operator's weights, without the statistics."""
    prior = PriorTransformer.from_pretrained(folder / "prior").eval()
    own = own | {k: v for k, v in prior.state_dict().items() if k in ("clip_mean", "clip_std")}
    prior.load_state_dict({k: v.float() for k, v in own.items()})
    rows = []
    for operand in operands:
        if operand is None:
            rows.append(torch.zeros(1, DIM))
        elif isinstance(operand, Path):
            rows.append((image_embedding(folder, operand) - prior.clip_mean) / prior.clip_std)
        else:
            rows.append(word_rows(folder, operand))
    used = torch.cat(rows)

    hidden, mask = torch.zeros(1, 77, DIM), torch.zeros(1, 77, dtype=torch.bool)
    hidden[0, : len(used)], mask[0, : len(used)] = used, True
    scheduler = UnCLIPScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(steps)
    gen, text = torch.Generator().manual_seed(seed), torch.zeros(1, DIM)
    z = torch.randn(1, DIM, generator=gen)
    for i, t in enumerate(scheduler.timesteps):
        x0 = prior(z, t, text, hidden, mask).predicted_image_embedding
        if guidance > 1:
            away = prior(z, t, text, torch.zeros_like(hidden), mask).predicted_image_embedding
            x0 = away + guidance * (x0 - away)
        after = scheduler.timesteps[i + 1] if i + 1 < steps else None
        z = scheduler.step(x0, t, z, prev_timestep=after, generator=gen).prev_sample
    return prior.post_process_latents(z)


@pytest.mark.parametrize(
    ("name", "operands", "how"),
    [
        ("texturing", [0, 1], {"seed": 18, "steps": 25, "guidance": 8.0}),
        ("texturing", [0, None], {"seed": 3, "steps": 25, "guidance": 8.0}),
        ("texturing", [None, 1], {"seed": 3, "steps": 2, "guidance": 1.5}),
        ("union", [2, 0], {"seed": 0, "steps": 7, "guidance": 8.0}),
        ("scene", [0, 2], {"seed": 1, "steps": 25, "guidance": 1.0}),
        ("instruct", [0, "red tiger"], {"seed": 5, "steps": 25, "guidance": 1.0}),
        ("instruct", [1, "a very large and rather melancholic tiger"], {"seed": 6, "steps": 10, "guidance": 3.0}),
        ("clothes", GARMENTS[:1], {"seed": 2, "steps": 10, "guidance": 4.0}),
        ("clothes", GARMENTS, {"seed": 2, "steps": 25, "guidance": 4.0}),
    ],
)
def test_apply_is_the_published_method(
    folder: Path, photos: list[Path], name: str, operands: list[Any], how: dict[str, Any]
) -> None:
    given = [photos[o] if isinstance(o, int) else o for o in operands]
    want = published(folder, load_file(folder / "operators" / name / "prior.safetensors"), given, **how)
    p = pops.load(folder, device="cpu")
    got = p.apply(name, *given, **how).vectors
    assert float((got - want).norm() / want.norm()) < 1e-5
    others = [how["seed"] + 1, how["seed"], how["seed"] + 2]
    batch = p.apply(name, *given, **{**how, "seed": others}).vectors
    assert float((batch[1] - want[0]).norm() / want.norm()) < 1e-5
    assert float((batch[0] - want[0]).norm() / want.norm()) > 3e-4


DTYPES = ["float32", "float16", "bfloat16"]


@pytest.fixture(scope="module")
def checkpoints(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Returns random weights as official checkpoints hold them, without the statistics; writes <dtype>.pth of them."""
    weights = load_file(folder / "operators" / "union" / "prior.safetensors")
    gen = torch.Generator().manual_seed(9)
    exact = {k: v.float() + 1e-4 * torch.randn(v.shape, generator=gen) for k, v in weights.items()}
    made = {dtype: {k: v.to(getattr(torch, dtype)) for k, v in exact.items()} for dtype in DTYPES}
    for dtype, stored in made.items():
        torch.save(stored, folder / f"{dtype}.pth")
    return made


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "operands", "how"),
    [
        ("texturing", [0, 1], {"seed": 18, "steps": 25, "guidance": 8.0}),
        ("texturing", [1, None], {"seed": 3, "steps": 25, "guidance": 1.0}),
        ("union", [None, 0], {"seed": 4, "steps": 5, "guidance": 8.0}),
        ("instruct", [2, "melancholic red tiger"], {"seed": 5, "steps": 25, "guidance": 1.0}),
        ("clothes", [0, None, 2], {"seed": 2, "steps": 7, "guidance": 4.0}),
    ],
)
def test_an_official_checkpoint_is_the_published_method(
    folder: Path,
    photos: list[Path],
    checkpoints: dict[str, dict[str, Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    name: str,
    operands: list[Any],
    how: dict[str, Any],
) -> None:
    monkeypatch.setenv("POPS_CACHE", str(folder / "cache"))
    given = [photos[o] if isinstance(o, int) else o for o in operands]
    want = published(folder, checkpoints[dtype], given, **how)
    p = pops.load(folder, operators={name: folder / f"{dtype}.pth"}, device="cpu")
    got = p.apply(name, *given, **how).vectors
    assert float((got - want).norm() / want.norm()) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1"])
def test_modes_of_photos_become_rgb_as_published(folder: Path, photos: list[Path], tmp_path: Path, mode: str) -> None:
    Image.open(photos[0]).convert(mode).save(tmp_path / "photo.png")
    want = image_embedding(folder, tmp_path / "photo.png")
    got = pops.load(folder, device="cpu").embed(tmp_path / "photo.png").vectors
    assert float((got - want).norm() / want.norm()) < 1e-5


@pytest.mark.parametrize("prompt", ["a red tiger", "", "red " * 30 + "tiger"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_text_is_the_stock_pipeline(folder: Path, prompt: str, guidance: float) -> None:
    pipe = KandinskyV22PriorPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    gen = torch.Generator().manual_seed(5)
    want = pipe(prompt, num_inference_steps=25, guidance_scale=guidance, generator=gen).image_embeds
    p = pops.load(folder, device="cpu")
    got = p.evaluate(f'text("{prompt}")', seed=[4, 5], steps=25, guidance=guidance).vectors[1:]
    assert float((got - want).norm() / want.norm()) < 1e-5
