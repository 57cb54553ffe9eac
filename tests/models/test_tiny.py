"""The shipped model: it composes, repeats itself byte for byte, and stock diffusers loads every part of it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pops
from pops.embedding import Embedding
from pops.errors import ExpressionError
from pops.models.hub import resolve
from pops.operators import operator
from pops.prior.samplers import SAMPLERS
from pops.seeds import generators
from pops.studio import Pops

ROOT = Path(__file__).resolve().parents[2]
OBJECTS, TEXTURES, SCENES = (ROOT / "examples" / k for k in ("objects", "textures", "scenes"))
FAST: dict[str, Any] = {"render_steps": 4}


@pytest.fixture(scope="module")
def tiny() -> Pops:
    return pops.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def folder() -> Path:
    return resolve("tiny").folder


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    "expression",
    [
        f"texturing({OBJECTS}/teapot.png, {TEXTURES}/tiger.png)",
        f"union({OBJECTS}/dog.png, {OBJECTS}/hat.png)",
        f"scene({OBJECTS}/car.png, {SCENES}/beach.png)",
        f'instruct({OBJECTS}/rabbit.png, "golden")',
        f"scene(texturing({OBJECTS}/elephant.png, {TEXTURES}/brick.png), {SCENES}/snow.png)",
        'text("a marble rabbit")',
        f"0.5*{OBJECTS}/teapot.png + 0.5*{OBJECTS}/pumpkin.png",
    ],
)
def test_every_form_gives_a_picture(tiny: Pops, expression: str) -> None:
    picture = tiny(expression, seed=0, **FAST)[0]
    assert picture.size == (512, 512)
    assert np.ptp(np.asarray(picture.convert("L")).astype(int)) > 40


def test_missing_operand_differs_by_seed(tiny: Pops) -> None:
    e = tiny.apply("texturing", str(OBJECTS / "mug.png"), None, seed=[0, 1, 2, 3])
    assert e.n == 4
    assert all(relative(e.vectors[i], e.vectors[j]) > 1e-2 for i in range(4) for j in range(i))


def test_same_seed_same_bytes(tiny: Pops) -> None:
    e = tiny.apply("texturing", str(OBJECTS / "teapot.png"), str(TEXTURES / "zebra.png"), seed=5)
    a, b = (tiny.render(e, seed=3, steps=4)[0] for _ in range(2))
    assert a.tobytes() == b.tobytes()
    assert a.tobytes() != tiny.render(e, seed=4, steps=4)[0].tobytes()


def test_a_batch_equals_its_items(tiny: Pops) -> None:
    expression = f"texturing({OBJECTS}/teapot.png, _)"
    together = tiny.evaluate(expression, seed=[0, 1, 2])
    pictures = {upscale: tiny.render(together, seed=[0, 1, 2], steps=4, upscale=upscale) for upscale in (1, 4)}
    for k in range(3):
        alone = tiny.evaluate(expression, seed=k)
        assert relative(together.vectors[k], alone.vectors[0]) < 1e-5
        for upscale, most in ((1, 1), (4, 2)):  # the upscaler is told of a grey level, and may make two of it
            picture = tiny.render(alone, seed=k, steps=4, upscale=upscale)[0]
            assert _grey_levels_apart(pictures[upscale][k], picture) <= most


def _grey_levels_apart(a: Image.Image, b: Image.Image) -> int:
    import numpy as np

    return int(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).max())


def test_operators_beat_the_average_on_held_out_triplets(tiny: Pops) -> None:
    from pops.measure.operators import measure

    report = measure(tiny, operators=["texturing", "scene", "clothes"], count=8, render=False, audited=0)
    assert all(row["beats_average"] > 0.8 for row in report.operators.values())


def test_clothes_takes_up_to_twelve_garments_in_any_order(tiny: Pops) -> None:
    from pops.measure.operators import draw_cases

    cases = draw_cases(tiny, "clothes", 6, 0)
    most = max(cases.operands, key=len)
    names = {f"g{k}": Embedding(most[k % len(most)][None], tiny.space.id) for k in range(12)}
    given = [f"g{k}" for k in range(len(most))]
    there = tiny.evaluate(f"clothes({', '.join(f'${g}' for g in given)})", given=names).vectors
    back = tiny.evaluate(f"clothes({', '.join(f'${g}' for g in reversed(given))})", given=names).vectors
    assert float(torch.nn.functional.cosine_similarity(there, back)[0]) > 0.9
    assert tiny.evaluate(f"clothes({', '.join(f'${g}' for g in names)})", given=names).vectors.isfinite().all()
    with pytest.raises(ExpressionError, match="clothes takes 1 to 12 operands"):
        tiny.evaluate(f"clothes({', '.join(f'${g}' for g in [*names, 'g0'])})", given=names)


def test_pictures_of_some_triplets_are_judged(tiny: Pops) -> None:
    from pops.measure.operators import markdown, measure

    report = measure(tiny, operators=["scene"], count=6, pictures=2, audited=3, render_steps=2)
    judged, looks = report.operators["scene"]["oracle"], report.operators["scene"]["images"]
    assert 0.1 < looks["result"]["sharpness"] < 2 and looks["round_trip"]["fidelity"] > 0.3
    assert set(report.operators["scene"]["audit"]) >= {"answered_by_one", "hard", "average_hard", "hard_operand_a"}
    assert judged["true_pictures"]["object"] in (0, 0.5, 1) and set(judged) >= {"object", "scene", "all", "round_trip"}
    assert "6 held-out triplets" in markdown(report) and "Images of the first 2." in markdown(report)


def test_what_is_judged_is_what_the_model_makes(tiny: Pops) -> None:
    from pops.measure.operators import rendered

    e = tiny.embed(str(OBJECTS / "teapot.png"))
    (image,) = rendered(tiny, e.vectors, 3, 2, "", None)
    assert image.size == (512, 512)
    assert image.tobytes() == tiny.render(e, seed=3, steps=2)[0].tobytes()


def test_stock_kandinsky_prior_pipeline_loads_and_runs(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import KandinskyV22PriorPipeline

        pipe = KandinskyV22PriorPipeline.from_pretrained(folder)
        pipe.set_progress_bar_config(disable=True)
        out = pipe("a marble rabbit", num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    assert out.image_embeds.shape == (1, 256)
    assert bool(torch.isfinite(out.image_embeds).all())


def test_stock_stable_diffusion_loads_and_runs_as_ours(folder: Path, tiny: Pops) -> None:
    e = tiny.embed(str(OBJECTS / "teapot.png"))
    plain: dict[str, Any] = {"guidance_interval": (0, 1), "guidance_rescale": 0, "pag_scale": 0}
    mine = tiny.render(e, seed=0, steps=3, guidance=2.0, upscale=1, **plain)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import StableDiffusionPipeline

        pipe = StableDiffusionPipeline.from_pretrained(folder / "renderer", safety_checker=None, dtype=torch.float32)
        pipe.load_ip_adapter(
            str(folder / "renderer"),
            subfolder="ip_adapter",
            weight_name="ip_adapter.safetensors",
            image_encoder_folder=None,
        )
        pipe.set_progress_bar_config(disable=True)
        both = torch.cat([torch.zeros_like(e.vectors), e.vectors])[:, None]
        latents = torch.randn(1, pipe.unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(0))
        stock = pipe(
            "", ip_adapter_image_embeds=[both], latents=latents, num_inference_steps=3, guidance_scale=2.0,
            height=128, width=128,
        ).images[0]  # fmt: skip
    assert _grey_levels_apart(mine, stock) <= 1


def test_without_an_embedding_the_adapter_adds_nothing(tiny: Pops) -> None:
    """tiny's projection maps a zero embedding to zero tokens: text alone works with and without the adapter."""
    zero = torch.zeros(1, 1, 256)
    unet = tiny.renderer().unet  # type: ignore[attr-defined]
    tokens = unet.encoder_hid_proj([zero])[0]
    assert float(tokens.abs().max()) == 0.0


def test_it_is_small(folder: Path) -> None:
    weights = [p for p in folder.rglob("*") if p.is_file()]
    assert not [p for p in weights if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    assert sum(p.stat().st_size for p in weights if p.suffix == ".safetensors") < 64e6
    assert json.loads((folder / "pops.json").read_text())["name"] == "tiny"


@pytest.mark.parametrize("name", ["texturing", "union", "scene", "instruct"])
def test_the_engine_is_the_whole_forward(tiny: Pops, name: str) -> None:
    made = tiny.operator(name)
    gen = torch.Generator().manual_seed(0)
    rows = [torch.randn(tiny.space.dim, generator=gen) for _ in range(14)]
    words = tiny.space.encode_texts(["golden", "on fire, and made of ice"]).hidden
    second = rows[7:] if name != "instruct" else [words[k % 2] for k in range(7)]
    jobs: list[list[torch.Tensor | None]] = [[a, b] for a, b in zip(rows[:7], second, strict=True)]
    jobs[3][0] = None  # a missing operand
    for some in (jobs[:1], jobs):
        condition = made.encode(some)
        for sampler in SAMPLERS:
            for guidance in (1.0, 4.0):
                seeds = range(len(some))
                fast, slow = (
                    made.sample(condition, generators(seeds), steps=3, guidance=guidance, sampler=sampler, full=full)
                    for full in (False, True)
                )
                assert relative(fast, slow) < 1e-5, (sampler, guidance, len(some))


def test_operators_of_one_base_share_a_batch(tiny: Pops, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    plain = operator.sample

    def counted(tasks: Any, gens: Any, **how: Any) -> torch.Tensor:
        batches.append(len(gens))
        return plain(tasks, gens, **how)

    a, b, c = f"{OBJECTS}/dog.png", f"{TEXTURES}/tiger.png", f"{SCENES}/snow.png"
    apart = [tiny.evaluate(f"texturing({a}, {b})"), tiny.evaluate(f"scene({a}, {c})")]
    monkeypatch.setattr(operator, "sample", counted)
    trace = tiny.trace(f'union(texturing({a}, {b}), scene({a}, {c})) + instruct({a}, "golden")')
    assert batches == [3, 1], "texturing, scene and instruct, which has more tokens, at once; then union"
    for alone in apart:
        assert min(relative(e.vectors, alone.vectors) for e in trace.values.values()) < 1e-5
