"""SDXL + IP-Adapter: the same pixels as stock diffusers, scales that one call alone sees, adapters that fit."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from folders import DIM, adapter_weights, draw, pixels, vectors, write_sdxl
from pops.errors import CheckpointError, ConfigError, ModelError, SpaceError
from pops.render import RendererOptions, backend_of
from pops.render.scales import LAYOUT, STYLE
from pops.render.sdxl import SDXLRenderer, load

SETTINGS = {"size": 32, "steps": 3, "guidance": 2.0}
# diffusers' own, on numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sdxl(tmp_path_factory.mktemp("renderer") / "xl")


@pytest.fixture(scope="module")
def renderer(folder: Path) -> SDXLRenderer:
    return load(folder, RendererOptions("random-32", defaults=SETTINGS))


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    where = {"subfolder": "ip_adapter", "weight_name": "ip_adapter.safetensors", "image_encoder_folder": None}
    pipe.load_ip_adapter(str(folder), **where)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stock_picture(pipe: Any, e: torch.Tensor, *, seed: int, guidance: float, negative: str = "", **how: Any) -> Any:
    embeds = torch.cat([torch.zeros(1, 1, DIM), e[None]]) if guidance > 1 else e[None]
    return pipe(
        prompt=how.pop("prompt", ""),
        negative_prompt=negative or None,
        ip_adapter_image_embeds=[embeds],
        num_inference_steps=3,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        **{"height": 32, "width": 32, **how},
    ).images


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize(("prompt", "negative"), [("", ""), ("red tiger", ""), ("red tiger", "red")])
def test_equals_stock_diffusers(
    renderer: SDXLRenderer, stock: Any, guidance: float, prompt: str, negative: str
) -> None:
    e = vectors(1)
    how: dict[str, Any] = {"guidance": guidance, "prompt": prompt, "negative": negative}
    expected = stock_picture(stock, e, seed=7, **how)
    got = pixels(draw(renderer, e, seeds=[7], **how))
    assert np.array_equal(got, pixels(expected))
    assert got.std() > 5, "a flat picture would equal anything"


@pytest.mark.parametrize(
    "scheduler", ["DDIMScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler"]
)
def test_equals_stock_with_other_schedulers_and_sizes(
    renderer: SDXLRenderer, stock: Any, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    for each in (renderer, stock):
        monkeypatch.setattr(each, "scheduler", getattr(diffusers, scheduler)())
    expected = stock_picture(stock, vectors(1), seed=3, guidance=3.0, height=40, width=24)
    got = draw(renderer, vectors(1), seeds=[3], guidance=3.0, size=(40, 24))
    assert np.array_equal(pixels(got), pixels(expected))


def test_an_empty_negative_is_zeros_only_where_the_folder_says_so(folder: Path, tmp_path: Path, stock: Any) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    index = copy / "model_index.json"
    text = index.read_text()
    index.write_text(text.replace('"force_zeros_for_empty_prompt": true', '"force_zeros_for_empty_prompt": false'))
    assert index.read_text() != text
    other = load(copy, RendererOptions("x", defaults=SETTINGS))
    got = pixels(draw(other, vectors(1), seeds=[1], guidance=4.0))
    how: dict[str, Any] = {"seed": 1, "guidance": 4.0}
    assert not np.array_equal(got, pixels(stock_picture(stock, vectors(1), **how)))
    try:
        stock.register_to_config(force_zeros_for_empty_prompt=False)
        assert np.array_equal(got, pixels(stock_picture(stock, vectors(1), **how)))
    finally:
        stock.register_to_config(force_zeros_for_empty_prompt=True)


def test_an_autoencoder_with_mean_and_deviation(renderer: SDXLRenderer, stock: Any) -> None:
    told = {"latents_mean": [0.5, -1.0, 0.2, 0.0], "latents_std": [2.0, 1.0, 3.0, 0.5]}
    before = pixels(draw(renderer, vectors(1), seeds=[1]))
    try:
        for vae in (renderer.vae, stock.vae):
            vae.register_to_config(**told)
        got = pixels(draw(renderer, vectors(1), seeds=[1], guidance=2.0))
        assert np.array_equal(got, pixels(stock_picture(stock, vectors(1), seed=1, guidance=2.0)))
        assert not np.array_equal(got, before)
    finally:
        for vae in (renderer.vae, stock.vae):
            vae.register_to_config(latents_mean=None, latents_std=None)


def test_half_precision_decodes_in_full(folder: Path, renderer: SDXLRenderer) -> None:
    half = load(folder, RendererOptions("x", dtype=torch.float16, defaults=SETTINGS))
    assert half.unet.dtype == torch.float16 and half.vae.dtype == torch.float32
    wide = load(folder, RendererOptions("x", dtype=torch.bfloat16, defaults=SETTINGS))
    got, full = (pixels(draw(each, vectors(1), seeds=[1])) for each in (wide, renderer))
    assert np.abs(got - full).mean() < 8, "bfloat16 is a little off, and no other picture"


@pytest.mark.parametrize("max_batch", [1, 2, 8])
def test_different_embeddings_of_one_call_never_mix(
    renderer: SDXLRenderer, max_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer, "max_batch", max_batch)
    e, seeds = vectors(3), [5, 6, 5]
    batch = pixels(draw(renderer, e, seeds=seeds, guidance=4.0))
    alone = np.concatenate([pixels(draw(renderer, e[i : i + 1], seeds=[seeds[i]], guidance=4.0)) for i in range(3)])
    assert np.abs(batch - alone).max() <= 1
    assert np.abs(batch[0] - batch[2]).mean() > 1, "the same seed and another embedding must give another picture"


# --- scales of blocks
# ------------------------------------------------------------------------------------------

SCALES = (
    (0.0, 0.0),
    (0.37, 0.37),
    ("style", {"up": {"block_0": [0.0, 1.0, 0.0]}}),
    ("layout", {"down": {"block_2": [0.0, 1.0]}}),
    ("style+layout", {**STYLE, **LAYOUT}),
    ({"mid": 0.3, "down": 0.7, "up": {"block_1": 1.5}}, {"mid": 0.3, "down": 0.7, "up": {"block_1": 1.5}}),
    ({"down": [0.2, 1.0], "up": {"block_0": [0.4]}}, {"down": [0.2, 1.0], "up": {"block_0": [0.4]}}),
)


@pytest.mark.parametrize(("ours", "theirs"), SCALES)
def test_scales_are_those_of_stock_bit_for_bit(renderer: SDXLRenderer, stock: Any, ours: Any, theirs: Any) -> None:
    e = vectors(1)
    plain = draw(renderer, e, seeds=[2], output="latent")[0]
    (got,) = draw(renderer, e, seeds=[2], scale=ours, output="latent")
    try:
        stock.set_ip_adapter_scale(theirs)
        expected = stock_picture(stock, e, seed=2, guidance=2.0, output_type="latent")[0]
    finally:
        stock.set_ip_adapter_scale(1.0)
    assert torch.equal(got, expected)
    assert not torch.equal(got, plain)
    assert torch.equal(plain, draw(renderer, e, seeds=[2], output="latent")[0]), "nothing of it stays"
    assert torch.equal(plain, draw(renderer, e, seeds=[2], scale=1.0, output="latent")[0])


def test_the_scale_of_one_thread_is_not_seen_by_another(renderer: SDXLRenderer) -> None:
    e = vectors(1)
    plain, styled = (draw(renderer, e, seeds=[2], scale=s, output="latent")[0] for s in (None, "style"))
    inside, go = threading.Event(), threading.Event()
    found: list[torch.Tensor] = []

    def wait(done: int, total: int) -> None:
        inside.set()
        assert go.wait(60)

    def work() -> None:
        found.extend(draw(renderer, e, seeds=[2], scale="style", output="latent", on_step=wait))

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(60)
    assert torch.equal(draw(renderer, e, seeds=[2], output="latent")[0], plain)
    go.set()
    thread.join()
    assert torch.equal(found[0], styled)


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        ("stile", "did you mean 'style'"),
        ({"upp": 1.0}, "'upp' .*did you mean 'up'"),
        ({"down": {"block_0": 1.0}}, "no down 'block_0'; its down blocks with attention are block_1, block_2"),
        ({"up": {"block_0": [1.0, 0.0]}}, "up block_0 has 3 attentions, got 2 numbers"),
        ({"mid": "much"}, "mid must be a number, got 'much'"),
        (float("nan"), "must be a number, got nan"),
    ],
)
def test_scales_that_fit_no_block(renderer: SDXLRenderer, scale: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        draw(renderer, vectors(1), seeds=[0], scale=scale)


# --- adapters
# ------------------------------------------------------------------------------------------


def test_an_adapter_of_another_width_names_the_right_one(folder: Path, tmp_path: Path) -> None:
    import diffusers

    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    path = tmp_path / "ip-adapter_sdxl_vit-h.safetensors"
    save_file(adapter_weights(unet, 1024), path)
    other = load(folder, RendererOptions("x", adapter=path, defaults=SETTINGS))
    assert other.dim == 1024
    with pytest.raises(SpaceError, match=r"width 1024, got width 1280; .*ip-adapter_sdxl\.safetensors of h94"):
        draw(other, torch.zeros(1, 1280), seeds=[0])
    assert draw(other, torch.ones(1, 1024), seeds=[0], steps=1)[0].size == (32, 32)


def test_adapters_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "ip_adapter" / "ip_adapter.safetensors").unlink()
    with pytest.raises(ModelError, match=r"there is no IP-Adapter .*ip-adapter_sdxl.safetensors for .* width 1280"):
        load(copy, RendererOptions("x"))
    pickle = tmp_path / "ip-adapter_sdxl.bin"
    pickle.write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"opens no pickles; get ip-adapter_sdxl\.safetensors"):
        load(copy, RendererOptions("x", adapter=pickle))
    weights = load_file(folder / "ip_adapter" / "ip_adapter.safetensors")
    small = {k: v for k, v in weights.items() if not k.startswith("ip_adapter.1.")}
    save_file(small, tmp_path / "sd15.safetensors")
    with pytest.raises(CheckpointError, match="is it for another UNet"):
        load(copy, RendererOptions("x", adapter=tmp_path / "sd15.safetensors"))
    plus = {k: v for k, v in weights.items() if not k.startswith("image_proj")} | {"image_proj.latents": torch.zeros(1)}
    save_file(plus, tmp_path / "plus.safetensors")
    with pytest.raises(CheckpointError, match="only the plain IP-Adapter"):
        load(copy, RendererOptions("x", adapter=tmp_path / "plus.safetensors"))


# --- practicalities
# ------------------------------------------------------------------------------------------


def test_the_folder_is_recognised_and_the_defaults_are_the_published_ones(folder: Path) -> None:
    assert backend_of(folder) == "sdxl"
    fresh = load(folder, RendererOptions("x"))
    assert (fresh.steps, fresh.guidance, fresh.native) == (50, 5.0, (32, 32))
    able = fresh.capabilities
    assert able.text and able.scale and able.previews and able.controls == ()


@pytest.mark.parametrize("scheduler", ["EulerDiscreteScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_previews_are_the_expected_end_and_change_nothing(
    renderer: SDXLRenderer, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    monkeypatch.setattr(renderer, "scheduler", getattr(diffusers, scheduler)())
    seen: list[tuple[list[Any], int, int]] = []
    how: dict[str, Any] = {"seeds": [0, 1], "steps": 6, "preview_every": 2}
    got = draw(renderer, vectors(2), on_preview=lambda p, i, n: seen.append((p, i, n)), **how)
    assert [(len(p), i, n) for p, i, n in seen] == [(2, 2, 6), (2, 4, 6)]
    assert np.array_equal(pixels(got), pixels(draw(renderer, vectors(2), **how)))
    off = [np.abs(pixels(p) - pixels(got)).mean() for p, _, _ in seen]
    assert off[1] < off[0], "the later the nearer"
    monkeypatch.setattr("pops.render.stable_diffusion.PREVIEW_SIDE", 8)
    draw(renderer, vectors(2), on_preview=lambda p, i, n: seen.append((p, i, n)), **how)
    assert seen[-1][0][0].size == (16, 16)


def test_offload_keeps_each_network_on_the_device_only_while_it_runs(
    folder: Path, renderer: SDXLRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    expected = pixels(draw(renderer, vectors(1), seeds=[4]))
    away = load(folder, RendererOptions("x", offload=True, defaults=SETTINGS))
    parts = {id(getattr(away, n)): n for n in ("unet", "vae", "text_encoder")}
    parts[id(away.networks.text_encoder_2)] = "text_encoder_2"
    here: set[str] = set()
    log: list[str] = []

    @contextmanager
    def lend(network: Any, device: Any, offload: bool) -> Any:
        assert offload and device == "cpu"
        log.append(parts[id(network)])
        here.add(parts[id(network)])
        yield network
        here.discard(parts[id(network)])

    def runs(name: str) -> Any:
        return lambda *args: None if here == {name} else pytest.fail(f"{name} runs with {here} on the device")

    monkeypatch.setattr("pops.render.stable_diffusion.on_device", lend)
    for module, name in ((away.unet, "unet"), (away.vae.decoder, "vae"), (away.text_encoder, "text_encoder")):
        module.register_forward_pre_hook(runs(name))
    got = pixels(draw(away, vectors(1), seeds=[4]))
    assert log == ["text_encoder", "text_encoder_2", "unet", "vae"] and not here
    assert np.array_equal(got, expected)
    with away.running():
        assert here == set(parts.values()), "MagicMix has all of them there"
    assert not here


def test_cancelling_stops_within_a_step_and_leaves_the_renderer_usable(renderer: SDXLRenderer) -> None:
    before = pixels(draw(renderer, vectors(1), seeds=[0]))
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(renderer, vectors(1), seeds=[0], scale="style", on_step=stop)
    assert seen == [1]
    assert np.array_equal(before, pixels(draw(renderer, vectors(1), seeds=[0])))


def test_a_folder_of_the_other_kind_is_refused_before_it_is_read(folder: Path, tmp_path: Path) -> None:
    from pops.render.stable_diffusion import load as load_sd

    with pytest.raises(ModelError, match="is an SDXL renderer"):
        load_sd(folder, RendererOptions("x"))
    with pytest.raises(ModelError, match="no text_encoder_2"):
        load(tmp_path, RendererOptions("x"))
