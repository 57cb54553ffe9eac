"""Guidance in a limited interval of the steps: which steps it is, stock diffusers' pixels, and the work it saves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance
from PIL import Image

from folders import DIM, draw, pixels, vectors, write_controlnet, write_kandinsky_decoder, write_renderer, write_sdxl
from pops.diffusion.loop import guided_steps
from pops.errors import ConfigError, ModelError
from pops.models.layout import read_folder
from pops.render import Control, RendererOptions, backend_of, get

ZERO = torch.randn(1, DIM, generator=torch.Generator().manual_seed(99))
NONE = 1 + 1e-12  # a guidance that stock diffusers computes with two branches, and that changes nothing
STEPS, GUIDANCE, INTERVAL = 6, 4.0, (0.2, 0.7)  # of six steps those of number 1, 2 and 3
WRITE: dict[str, Callable[[Path], Path]] = {
    "sd": write_renderer, "xl": write_sdxl, "kandinsky": write_kandinsky_decoder,
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own


@pytest.fixture(scope="module", params=WRITE)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WRITE[request.param](tmp_path_factory.mktemp("interval") / request.param)


def opened(folder: Path, **defaults: Any) -> Any:
    own = {"steps": STEPS, "guidance": GUIDANCE, **defaults}
    return get(backend_of(folder))(
        folder, RendererOptions("random-32", defaults=own, extra={"zero_image": lambda: ZERO})
    )


def unet_of(renderer: Any) -> Any:
    return renderer.unet if hasattr(renderer, "unet") else renderer.decoder().unet


def stock_pixels(folder: Path, e: torch.Tensor, seed: int) -> np.ndarray:
    """What a stock pipeline draws whose guidance is changed after every step."""
    from diffusers import DiffusionPipeline

    plain = {"safety_checker": None} if folder.name == "sd" else {}
    pipe = DiffusionPipeline.from_pretrained(folder, **plain)
    pipe.set_progress_bar_config(disable=True)
    guided = guided_steps(INTERVAL, STEPS)

    def change(pipe: Any, step: int, t: Any, given: dict[str, Any]) -> dict[str, Any]:
        pipe._guidance_scale = GUIDANCE if step + 1 in guided else NONE
        return given

    how: dict[str, Any] = {
        "num_inference_steps": STEPS, "guidance_scale": GUIDANCE if 0 in guided else NONE, "height": 32, "width": 32,
        "generator": torch.Generator().manual_seed(seed), "callback_on_step_end": change,
    }  # fmt: skip
    if folder.name == "kandinsky":
        return pixels(pipe(e, ZERO, **how).images)
    where = {"subfolder": "ip_adapter", "weight_name": "ip_adapter.safetensors", "image_encoder_folder": None}
    pipe.load_ip_adapter(str(folder), **where)
    return pixels(pipe("", ip_adapter_image_embeds=[torch.cat([torch.zeros(1, 1, DIM), e[None]])], **how).images)


@pytest.mark.parametrize("total", [1, 2, 7, 10, 50])
def test_the_steps_are_those_of_diffusers_guiders(total: int) -> None:
    shares = [0.0, 0.1, 0.29, 0.5, 0.7, 0.8, 1.0]
    for start, stop in [*pairwise(shares), (0.0, 1.0), (0.1, 0.8)]:
        guider = ClassifierFreeGuidance(guidance_scale=3.0, start=start, stop=stop)
        wanted = []
        for step in range(total):
            guider.set_state(step=step, num_inference_steps=total, timestep=torch.tensor(0))
            if guider.num_conditions == 2:
                wanted.append(step)
        assert list(guided_steps((start, stop), total)) == wanted


def test_equals_stock_with_a_guidance_that_changes(folder: Path) -> None:
    renderer, e = opened(folder), vectors(1)
    got = pixels(draw(renderer, e, seeds=[5], size=(32, 32), guidance_interval=INTERVAL))
    assert np.abs(got - stock_pixels(folder, e, 5)).max() <= 1
    everywhere = pixels(draw(renderer, e, seeds=[5], size=(32, 32)))
    assert np.abs(got - everywhere).mean() > 1, "the interval must have an effect"
    assert np.array_equal(everywhere, pixels(draw(renderer, e, seeds=[5], size=(32, 32), guidance_interval=(0.0, 1.0))))


def test_steps_without_guidance_compute_one_branch(folder: Path) -> None:
    renderer, rows = opened(folder, guidance_interval=list(INTERVAL)), []
    unet_of(renderer).register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    both = pixels(draw(renderer, vectors(2), seeds=[1, 2], size=(32, 32)))
    assert rows == [2, 4, 4, 4, 2, 2]  # the model's own interval
    for i in range(2):
        alone = pixels(draw(renderer, vectors(2)[i : i + 1], seeds=[i + 1], size=(32, 32)))
        assert np.abs(alone - both[i]).max() <= 1
    del rows[:]
    draw(renderer, vectors(1), seeds=[1], size=(32, 32), guidance=1.0)
    assert rows == [1] * STEPS


@pytest.mark.parametrize("name", ["sd", "xl"])
def test_a_control_is_computed_for_the_same_branches(name: str, tmp_path: Path) -> None:
    folder = WRITE[name](tmp_path / name)
    write_controlnet(folder / "controlnets" / "depth", folder, seed=4)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    how: dict[str, Any] = {"seeds": [3], "size": (32, 32), "controls": (Control("depth", Image.fromarray(noise)),)}
    renderer = opened(folder, guidance=20.0)

    def made(**more: Any) -> np.ndarray:
        return pixels(draw(renderer, vectors(1), **how, **more))

    whole, part, none = made(), made(guidance_interval=INTERVAL), made(guidance=NONE)
    assert min(np.abs(a - b).mean() for a, b in ((whole, part), (part, none), (none, whole))) > 1
    assert np.array_equal(made(guidance_interval=(0, 1)), whole)
    assert np.abs(made(guidance_interval=(0, 0.1)) - none).max() <= 1  # a tenth of six steps is no step


@pytest.mark.parametrize(
    "interval", [(0.5, 0.5), (0.8, 0.1), (-0.1, 1), (0, 1.1), (0.1,), "ab", (0, float("nan")), 0.5]
)
def test_what_is_no_interval_is_one_line(folder: Path, interval: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"guidance_interval is \(start, stop\), 0 <= start < stop <= 1, such as \(0.1, 0.8\); got"
    ):
        draw(opened(folder), vectors(1), seeds=[0], guidance_interval=interval)


@pytest.mark.parametrize("interval", [[0.5], [0.8, 0.1], "0.1,0.8", [0, 2], [True, 1], None])
def test_a_model_with_another_interval_is_refused(interval: Any, random_model: Path, tmp_path: Path) -> None:
    import json
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(random_model, folder)
    about = json.loads((folder / "pops.json").read_text()) if (folder / "pops.json").exists() else {}
    (folder / "pops.json").write_text(json.dumps({**about, "guidance_interval": interval}))
    with pytest.raises(
        ModelError, match=r"pops.json: guidance_interval is \[start, stop\], 0 <= start < stop <= 1, got"
    ):
        read_folder(folder)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (
            {"guidance_interval": (0.1, 0.12)},
            ["no step of 6 lies between 0.1 and 0.12 of the way: the guidance interval"],
        ),
        ({"guidance": 1.0, "guidance_interval": INTERVAL}, ["guidance 1 is none: the guidance interval has no effect"]),
        ({"guidance_interval": INTERVAL}, []),
        ({"guidance": 1.0}, []),
    ],
)
def test_an_interval_without_effect_is_told(folder: Path, how: dict[str, Any], told: list[str]) -> None:
    notes: list[str] = []
    draw(opened(folder), vectors(1), seeds=[0], on_note=notes.append, **how)
    assert len(notes) == len(told) and all(note.startswith(text) for note, text in zip(notes, told, strict=True))
