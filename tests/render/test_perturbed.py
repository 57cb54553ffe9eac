"""Perturbed-attention and rescaled guidance: stock diffusers' pixels, threads kept apart, every door."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pops
from folders import DIM, draw, pixels, vectors, write_controlnet, write_kandinsky_decoder, write_renderer, write_sdxl
from pops.errors import ConfigError, ModelError
from pops.render import Control, RendererOptions, backend_of, get

STEPS, GUIDANCE, SCALE = 4, 4.0, 3.0
WRITE: dict[str, Callable[[Path], Path]] = {"sd": write_renderer, "xl": write_sdxl}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own


@pytest.fixture(scope="module", params=WRITE)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WRITE[request.param](tmp_path_factory.mktemp("perturbed") / request.param)


def opened(folder: Path, **defaults: Any) -> Any:
    own = {"steps": STEPS, "guidance": GUIDANCE, **defaults}
    return get(backend_of(folder))(folder, RendererOptions("random-32", defaults=own))


def made(renderer: Any, e: torch.Tensor, seed: int = 5, **options: Any) -> np.ndarray:
    return pixels(draw(renderer, e, seeds=range(seed, seed + len(e)), size=(32, 32), **options))


def stock(folder: Path, e: torch.Tensor, guidance: float, layers: list[str], **options: Any) -> np.ndarray:
    """What diffusers' own pipelines for it draw."""
    from diffusers import StableDiffusionPAGPipeline, StableDiffusionXLPAGPipeline

    kind = StableDiffusionPAGPipeline if folder.name == "sd" else StableDiffusionXLPAGPipeline
    plain = {"safety_checker": None} if folder.name == "sd" else {}
    pipe = kind.from_pretrained(folder, pag_applied_layers=layers, **plain)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_ip_adapter(
        str(folder), subfolder="ip_adapter", weight_name="ip_adapter.safetensors", image_encoder_folder=None
    )
    embeds = torch.cat([torch.zeros(1, 1, DIM), e[None]]) if guidance > 1 else e[None]
    done = pipe(
        "", ip_adapter_image_embeds=[embeds], num_inference_steps=STEPS, guidance_scale=guidance,
        height=32, width=32, generator=torch.Generator().manual_seed(5), **{"pag_scale": SCALE, **options},
    )  # fmt: skip
    return pixels(done.images)


@pytest.mark.parametrize("guidance", [GUIDANCE, 1.0])
@pytest.mark.parametrize("layers", [None, ["down_blocks.1", "mid_block"]])
def test_equals_stock(folder: Path, guidance: float, layers: list[str] | None) -> None:
    renderer = opened(folder, **({"pag_layers": layers} if layers else {}))
    got = made(renderer, vectors(1), guidance=guidance, pag_scale=SCALE)
    assert np.abs(got - stock(folder, vectors(1), guidance, layers or ["mid_block"])).max() <= 1
    assert np.abs(got - made(renderer, vectors(1), guidance=guidance)).mean() > 0.2, "it must have an effect"


@pytest.mark.parametrize("share", [0.7, 1.0])
def test_rescaled_guidance_equals_stock(folder: Path, share: float) -> None:
    renderer = opened(folder)
    for scale in (0.0, SCALE):
        got = made(renderer, vectors(1), pag_scale=scale, guidance_rescale=share)
        want = stock(folder, vectors(1), GUIDANCE, ["mid_block"], guidance_rescale=share, pag_scale=scale)
        assert np.abs(got - want).max() <= 1
        assert np.abs(got - made(renderer, vectors(1), pag_scale=scale)).mean() > 0.2, "it must have an effect"
    plain = made(renderer, vectors(1), guidance=1.0)
    assert np.array_equal(made(renderer, vectors(1), guidance=1.0, guidance_rescale=share), plain)
    own = opened(folder, guidance_rescale=share)
    assert np.array_equal(made(own, vectors(1)), made(renderer, vectors(1), guidance_rescale=share))
    parts = [opened(folder, guidance_rescale=share, guidance_rescale_interval=i) for i in ([0, 0.5], [0.5, 1])]
    latents = [draw(r, vectors(1), seeds=[5], size=(32, 32), output="latent")[0] for r in (renderer, own, *parts)]
    assert all((a - b).abs().max() > 1e-4 for a, b in combinations(latents, 2)), "it acts in its part alone"


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "0.5", True])
def test_what_is_no_share_is_one_line(folder: Path, share: Any, random_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="guidance_rescale must be from 0 to 1, got"):
        made(opened(folder), vectors(1), guidance_rescale=share)
    shutil.copytree(random_model, tmp_path / "model")
    (tmp_path / "model" / "pops.json").write_text(json.dumps({"guidance_rescale": share}))
    with pytest.raises(ModelError, match=r"guidance_rescale is from 0 to 1, got|not JSON|cannot be read"):
        pops.load(tmp_path / "model")


def test_it_acts_at_every_step_and_leaves_nothing_behind(folder: Path) -> None:
    renderer, rows = opened(folder), []
    before = made(renderer, vectors(2))
    renderer.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    both = made(renderer, vectors(2), pag_scale=SCALE, guidance_interval=(0.25, 0.75))
    assert rows == [4, 6, 6, 4]
    for i in range(2):
        alone = made(renderer, vectors(2)[i : i + 1], seed=5 + i, pag_scale=SCALE, guidance_interval=(0.25, 0.75))
        assert np.abs(alone - both[i]).max() <= 1
    del rows[:]
    made(renderer, vectors(1), guidance=1.0, pag_scale=SCALE)
    assert rows == [2] * STEPS
    part, counts = opened(folder, pag_interval=[0, 0.5], pag_scale=SCALE, guidance_interval=[0.25, 0.75]), []
    part.unet.register_forward_pre_hook(lambda module, args: counts.append(len(args[0])))
    made(part, vectors(1))
    assert counts == [2, 3, 2, 1]
    notes: list[str] = []
    late = opened(folder, pag_interval=[0.6, 0.7])
    made(late, vectors(1), pag_scale=SCALE, on_note=notes.append)
    made(late, vectors(1), pag_scale=0, on_note=notes.append)
    assert notes == ["no step of 4 lies between 0.6 and 0.7 of the way: pag_scale has no effect"]
    assert np.array_equal(made(renderer, vectors(2)), before)
    assert np.array_equal(made(renderer, vectors(2), pag_scale=0), before)


def test_other_threads_do_not_see_it(folder: Path) -> None:
    renderer, found = opened(folder), dict[float, np.ndarray]()
    alone = {scale: made(renderer, vectors(1), pag_scale=scale) for scale in (0.0, SCALE)}
    start = threading.Barrier(2)

    def work(scale: float) -> None:
        start.wait()
        for _ in range(3):
            found[scale] = made(renderer, vectors(1), pag_scale=scale)

    threads = [threading.Thread(target=work, args=(scale,)) for scale in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[scale], alone[scale]) for scale in alone)


def test_a_control_goes_with_it(tmp_path: Path) -> None:
    folder = write_renderer(tmp_path / "sd")
    write_controlnet(folder / "controlnets" / "depth", folder, seed=4)
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    controls = (Control("depth", Image.fromarray(noise)),)
    renderer = opened(folder)
    plain = made(renderer, vectors(1), controls=controls)
    assert np.abs(made(renderer, vectors(1), controls=controls, pag_scale=SCALE) - plain).mean() > 0.2


@pytest.mark.parametrize("scale", [-1, float("nan"), True, "3"])
def test_what_is_no_scale_is_one_line(folder: Path, scale: Any) -> None:
    with pytest.raises(ConfigError, match="pag_scale must be 0 or more, got"):
        made(opened(folder), vectors(1), pag_scale=scale)


def test_a_layer_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(
        ModelError, match=r"no self-attention in 'mid_blocks'; it has some in down_blocks.1, .*mid_block, "
    ):
        opened(folder, pag_layers=["mid_blocks"])


@pytest.mark.parametrize("key", ["pag", "guidance", "guidance_rescale"])
def test_a_model_with_another_interval_is_refused(key: str, random_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(random_model, folder)
    (folder / "pops.json").write_text(json.dumps({f"{key}_interval": [0.5, 0.5]}))
    with pytest.raises(ModelError, match=rf"{key}_interval is \[start, stop\], 0 <= start < stop <= 1, got"):
        pops.load(folder)


@pytest.mark.parametrize("layers", ["mid_block", [], [1], None])
def test_a_model_with_other_layers_is_refused(layers: Any, random_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(random_model, folder)
    (folder / "pops.json").write_text(json.dumps({"pag_layers": layers}))
    with pytest.raises(ModelError, match="pag_layers is a list of layers such as mid_block, got"):
        pops.load(folder)


def test_a_recipe_and_a_renderer_without_it(random_model: Path, tmp_path: Path) -> None:
    p = pops.load(random_model)
    e = p.embed(Image.new("RGB", (8, 8), "teal"))
    image = p.render(e, steps=2, pag_scale=2.0)[0]
    assert image.info["pops"]["rendering"]["pag_scale"] == 2.0
    assert image.tobytes() != p.render(e, steps=2)[0].tobytes()
    with pytest.raises(ConfigError, match="the renderer swatch cannot rescale its guidance; leave --guidance-"):
        p.render(e, renderer="swatch", guidance_rescale=0.7)
    assert p.render(e, steps=2, guidance_rescale=0.7)[0].info["pops"]["rendering"]["guidance_rescale"] == 0.7
    with pytest.raises(ConfigError, match="the renderer swatch takes no perturbed-attention guidance"):
        p.render(e, renderer="swatch", pag_scale=2.0)
    kandinsky = write_kandinsky_decoder(tmp_path / "kandinsky")
    with pytest.raises(ConfigError, match="the renderer kandinsky takes no perturbed-attention guidance"):
        p.render(e, renderer=str(kandinsky), pag_scale=2.0)
