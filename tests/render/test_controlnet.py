"""ControlNets beside Stable Diffusion and SDXL: the same pixels as stock diffusers; read late, and strictly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from folders import DIM, draw, pixels, vectors, write_controlnet, write_renderer, write_sdxl
from pops.errors import CheckpointError, ConfigError, ModelError
from pops.render import Control, RendererOptions, backend_of, get
from pops.render.controlnets import ControlNets

# diffusers' own, on numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
OPTIONS = RendererOptions("random-32", defaults={"size": 32, "steps": 3, "guidance": 2.0})


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    noise = np.random.default_rng(seed).random((8, 8, 3)) * 255
    return Image.fromarray(noise.astype("uint8")).resize(size)


@pytest.fixture(scope="module", params=["sd", "xl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    write = {"sd": write_renderer, "xl": write_sdxl}[request.param]
    made = write(tmp_path_factory.mktemp("renderer") / request.param)
    write_controlnet(made / "controlnets" / "depth", made, seed=4)
    write_controlnet(made / "controlnets" / "canny", made, seed=5)
    return made


@pytest.fixture(scope="module")
def renderer(folder: Path) -> Any:
    return get(backend_of(folder))(folder, OPTIONS)


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    """The stock pipeline, whose ControlNets each test sets."""
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionXLControlNetPipeline

    nets = {kind: ControlNetModel.from_pretrained(folder / "controlnets" / kind) for kind in ("depth", "canny")}
    xl = (folder / "tokenizer_2").is_dir()
    pipeline = StableDiffusionXLControlNetPipeline if xl else StableDiffusionControlNetPipeline
    how: dict[str, Any] = {"add_watermarker": False} if xl else {"safety_checker": None}
    pipe = pipeline.from_pretrained(folder, controlnet=nets["depth"], **how)
    if not xl:
        from transformers import CLIPImageProcessorPil

        pipe.register_modules(feature_extractor=CLIPImageProcessorPil())
    where = {"subfolder": "ip_adapter", "weight_name": "ip_adapter.safetensors", "image_encoder_folder": None}
    pipe.load_ip_adapter(str(folder), **where)
    pipe.set_progress_bar_config(disable=True)
    pipe.nets = nets
    return pipe


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("kinds", [("depth",), ("depth", "canny")])
def test_equals_stock_diffusers(renderer: Any, stock: Any, kinds: tuple[str, ...], guidance: float) -> None:
    from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel

    e = vectors(1)
    scales, images = [0.7, 0.4][: len(kinds)], [picture(1, (50, 40)), picture(2)][: len(kinds)]
    nets = [stock.nets[kind] for kind in kinds]
    stock.controlnet = nets[0] if len(nets) == 1 else MultiControlNetModel(nets)
    expected = stock(
        prompt="red tiger",
        image=images if len(nets) > 1 else images[0],
        controlnet_conditioning_scale=scales if len(nets) > 1 else scales[0],
        negative_prompt="red",
        ip_adapter_image_embeds=[torch.cat([torch.zeros(1, 1, DIM), e[None]]) if guidance > 1 else e[None]],
        num_inference_steps=3,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(7),
        height=40,
        width=32,
    ).images
    controls = tuple(Control(k, i, s) for k, i, s in zip(kinds, images, scales, strict=True))
    how: dict[str, Any] = {"guidance": guidance, "prompt": "red tiger", "negative": "red", "size": (40, 32)}
    got = pixels(draw(renderer, e, seeds=[7], controls=controls, **how))
    assert np.array_equal(got, pixels(expected))
    assert np.abs(got - pixels(draw(renderer, e, seeds=[7], **how))).mean() > 1, "the control must be seen"


def test_a_batch_equals_its_items_under_control(renderer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    controls = (Control("depth", picture(1)),)
    e, seeds = vectors(3), [5, 6, 5]
    alone = [pixels(draw(renderer, e[i : i + 1], seeds=[seeds[i]], controls=controls)) for i in range(3)]
    for most in (2, 8):
        monkeypatch.setattr(renderer, "max_batch", most)
        batch = pixels(draw(renderer, e, seeds=seeds, controls=controls))
        assert np.abs(batch - np.concatenate(alone)).max() <= 1
    assert np.abs(alone[0] - alone[2]).mean() > 1


def test_a_scale_of_zero_is_no_control(renderer: Any) -> None:
    off = draw(renderer, vectors(1), seeds=[1], controls=(Control("depth", picture(1), 0.0),))
    assert np.array_equal(pixels(off), pixels(draw(renderer, vectors(1), seeds=[1])))


def test_networks_are_read_when_they_are_asked_for(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "controlnets" / "canny" / "diffusion_pytorch_model.safetensors").write_bytes(b"broken")
    fresh = get(backend_of(copy))(copy, OPTIONS)
    assert fresh.capabilities.controls == ("canny", "depth")
    draw(fresh, vectors(1), seeds=[0], steps=1, controls=(Control("depth", picture(1)),))
    with pytest.raises(ModelError, match="canny.*cannot be read"):
        draw(fresh, vectors(1), seeds=[0], steps=1, controls=(Control("canny", picture(1)),))
    with pytest.raises(ConfigError, match="unknown ControlNet 'pose'; choose from canny, depth"):
        draw(fresh, vectors(1), seeds=[0], controls=(Control("pose", picture(1)),))
    given = RendererOptions("x", controlnets={"pose": folder / "controlnets" / "depth"}, defaults=OPTIONS.defaults)
    other = get(backend_of(copy))(copy, given)
    assert set(other.capabilities.controls) == {"canny", "depth", "pose"}
    assert draw(other, vectors(1), seeds=[0], steps=1, controls=(Control("pose", picture(1)),))


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        ({"cross_attention_dim": 8}, (CheckpointError, ModelError), "depth"),
        ({"global_pool_conditions": True}, ModelError, "guess mode"),
        ({"_class_name": "ControlNetXSAdapter"}, ModelError, "holds a ControlNetXSAdapter"),
        ("{", ModelError, "config.json cannot be read"),
    ],
)
def test_networks_that_do_not_fit(
    folder: Path, tmp_path: Path, renderer: Any, spoil: Any, kind: Any, says: str
) -> None:
    copy = shutil.copytree(folder / "controlnets" / "depth", tmp_path / "depth")
    config = copy / "config.json"
    config.write_text(spoil if isinstance(spoil, str) else json.dumps({**json.loads(config.read_text()), **spoil}))
    nets = ControlNets(None, RendererOptions("x", controlnets={"depth": copy}), renderer.unet, renderer.factor)
    with pytest.raises(kind, match=says):
        nets.network("depth")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda w: w.pop("conv_in.weight"), "missing: conv_in.weight"),
        (lambda w: w.update({"other.bias": torch.zeros(1)}), "surplus: other.bias"),
        (lambda w: w["conv_in.weight"].fill_(float("inf")), "not finite: conv_in.weight"),
    ],
)
def test_weights_that_do_not_fit(folder: Path, tmp_path: Path, renderer: Any, spoil: Any, says: str) -> None:
    copy = shutil.copytree(folder / "controlnets" / "depth", tmp_path / "depth")
    path = copy / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    spoil(weights)
    save_file(weights, path, metadata={"format": "pt"})
    nets = ControlNets(None, RendererOptions("x", controlnets={"depth": copy}), renderer.unet, renderer.factor)
    with pytest.raises(CheckpointError, match=says):
        nets.network("depth")


def test_a_network_of_another_unet(folder: Path, tmp_path: Path, renderer: Any) -> None:
    other = write_renderer(tmp_path / "sd") if renderer.sdxl else write_sdxl(tmp_path / "xl")
    net = write_controlnet(tmp_path / "net", other)
    nets = ControlNets(None, RendererOptions("x", controlnets={"depth": net}), renderer.unet, renderer.factor)
    with pytest.raises(CheckpointError, match="is for another UNet"):
        nets.network("depth")
    nets = ControlNets(folder, RendererOptions("x"), renderer.unet, 8)
    with pytest.raises(CheckpointError, match="2 pixels per latent, this renderer has 8"):
        nets.network("depth")
