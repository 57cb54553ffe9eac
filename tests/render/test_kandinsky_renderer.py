"""Kandinsky 2.2's renderer: the stock pipelines' pixels, and what they leave out at guidance 1; errors in one line."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from folders import DIM, draw, pixels, vectors, write_kandinsky_decoder, write_model
from pops.errors import CheckpointError, ConfigError, ModelError, PopsError, SpaceError
from pops.render import Control, Renderer, RendererOptions, backend_of
from pops.render.kandinsky import KandinskyRenderer, load

ZERO = torch.randn(1, DIM, generator=torch.Generator().manual_seed(99))
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "learned": ("DDPMScheduler", {"variance_type": "learned_range"}),
    "thresholded": ("DDPMScheduler", {"variance_type": "learned_range", "thresholding": True, "sample_max_value": 2.0}),
    "fixed": ("DDPMScheduler", {"variance_type": "fixed_small"}),
    "ddim": ("DDIMScheduler", {"set_alpha_to_one": False, "steps_offset": 1}),
}


def gens(seeds: list[int]) -> list[torch.Generator]:
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def scheduler_of(name: str) -> Any:
    import diffusers

    kind, settings = SCHEDULERS[name]
    return getattr(diffusers, kind)(
        beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, **settings
    )


def options(**how: Any) -> RendererOptions:
    defaults = {"steps": 3, "guidance": 2.0}
    return RendererOptions("random-32", **{"defaults": defaults, "extra": {"zero_image": lambda: ZERO}, **how})


def open_stock(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kandinsky_decoder(tmp_path_factory.mktemp("kandinsky") / "decoder")


@pytest.fixture(scope="module")
def depth_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kandinsky_decoder(tmp_path_factory.mktemp("kandinsky") / "depth", controlnet=True, seed=3)


@pytest.fixture
def renderer(folder: Path) -> KandinskyRenderer:
    return load(folder, options())


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    return open_stock(folder)


@pytest.fixture(scope="module")
def hint() -> Image.Image:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    return Image.fromarray(np.stack([np.tile(ramp, (64, 1))] * 3, axis=-1))


# --- the stock pipelines, tensor for tensor --------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [1.0, 1.5, 4.0])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_equals_stock(renderer: KandinskyRenderer, stock: Any, name: str, guidance: float) -> None:
    scheduler = scheduler_of(name)
    stock.register_modules(scheduler=scheduler)
    renderer = KandinskyRenderer(
        {None: type(renderer.decoder())(stock.unet, stock.movq, scheduler)}, options=options(), zero_image=lambda: ZERO
    )
    e, how = vectors(2), {"num_inference_steps": 4, "guidance_scale": guidance, "height": 16, "width": 24}
    want = stock(e[:1], ZERO, generator=gens([2**40])[0], **how).images
    got = pixels(draw(renderer, e[:1], seeds=[2**40], size=(16, 24), steps=4, guidance=guidance))
    assert np.array_equal(got, pixels(want)) and got.std() > 5
    together = stock(e, ZERO.expand(2, -1), generator=gens([7, 8]), **how).images
    got = pixels(draw(renderer, e, seeds=[7, 8], size=(16, 24), steps=4, guidance=guidance))
    assert np.array_equal(got, pixels(together))


@pytest.mark.parametrize("guidance", [1.0, 1.5, 4.0])
def test_equals_stock_with_a_hint(depth_folder: Path, hint: Image.Image, guidance: float) -> None:
    stock, renderer = open_stock(depth_folder), load(depth_folder, options())
    picture = torch.from_numpy(np.array(hint)).float().permute(2, 0, 1)[None] / 255
    e = vectors(1)
    want = stock(
        e, ZERO, picture, generator=gens([5])[0], num_inference_steps=3, guidance_scale=guidance, height=64, width=64
    ).images
    got = draw(renderer, e, seeds=[5], guidance=guidance, controls=(Control("depth", hint),))
    assert np.array_equal(pixels(got), pixels(want))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_equals_stock_in_half(folder: Path, dtype: torch.dtype) -> None:
    stock, renderer = open_stock(folder, dtype), load(folder, options(dtype=dtype))
    for network in (stock.unet, stock.movq):  # torch computes float16 layers that are to be trained in another order
        network.requires_grad_(False)
    assert renderer.decoder().unet.dtype == renderer.decoder().movq.dtype == dtype
    want = stock(
        vectors(1), ZERO, generator=gens([1])[0], num_inference_steps=3, guidance_scale=4.0, height=16, width=16
    ).images
    assert np.array_equal(pixels(draw(renderer, vectors(1), seeds=[1], guidance=4.0)), pixels(want))
    (plain,) = pixels(draw(renderer, vectors(1), seeds=[1], guidance=1.0))
    (full,) = pixels(draw(load(folder, options()), vectors(1), seeds=[1], guidance=1.0))
    assert np.abs(plain - full).mean() < 3, "stock takes no embedding of another type there"


def test_latents_equal_stock(renderer: KandinskyRenderer, stock: Any, folder: Path) -> None:
    stock.register_modules(scheduler=open_stock(folder).scheduler)
    how = {"num_inference_steps": 3, "guidance_scale": 2.0, "height": 16, "width": 16, "output_type": "latent"}
    want = stock(vectors(1), ZERO, generator=gens([1])[0], **how).images
    assert torch.equal(draw(renderer, vectors(1), seeds=[1], output="latent")[0], want[0])


def test_several_pictures_of_one_embedding_equal_stock(renderer: KandinskyRenderer, stock: Any, folder: Path) -> None:
    stock.register_modules(scheduler=open_stock(folder).scheduler)
    want = stock(
        vectors(2), ZERO.expand(2, -1), num_images_per_prompt=2, generator=gens([0, 1, 2, 3]), num_inference_steps=3,
        guidance_scale=2.0, height=16, width=16,
    ).images  # fmt: skip
    got = draw(renderer, vectors(2).repeat_interleave(2, dim=0), seeds=[0, 1, 2, 3])
    assert np.array_equal(pixels(got), pixels(want))


# --- an independent loop ---------------------------------------------------------------------------------------------


# DDPM's posterior with a learned variance: arXiv 2006.11239 Eq. 7, arXiv 2102.09672 Eq. 15.
def plain_loop(folder: Path, e: torch.Tensor, seed: int, steps: int, hint: torch.Tensor | None = None) -> np.ndarray:
    """Guidance 1 for one embedding, written out; no scheduler object."""
    pipe, g = open_stock(folder), torch.Generator().manual_seed(seed)
    abar = torch.cumprod(1 - torch.linspace(0.00085, 0.012, 1000), dim=0)
    size = 64 if hint is not None else 16
    side = size // 2 ** (len(pipe.movq.config.block_out_channels) - 1)
    x = torch.randn(1, 4, side, side, generator=g)
    added = {"image_embeds": e} | ({} if hint is None else {"hint": hint})
    stride = 1000 // steps
    for t in range(stride * (steps - 1), -1, -stride):
        a, a_next = abar[t], abar[t - stride] if t >= stride else torch.tensor(1.0)
        with torch.no_grad():
            noise, v = pipe.unet(x, t, None, added_cond_kwargs=added).sample.chunk(2, dim=1)
        alpha, beta = a / a_next, 1 - a / a_next
        x0 = (x - (1 - a).sqrt() * noise) / a.sqrt()
        x = (a_next.sqrt() * beta / (1 - a)) * x0 + (alpha.sqrt() * (1 - a_next) / (1 - a)) * x
        if t > 0:
            share = (v + 1) / 2
            log = share * beta.log() + (1 - share) * ((1 - a_next) / (1 - a) * beta).log()
            x = x + (0.5 * log).exp() * torch.randn(x.shape, generator=g)
    with torch.no_grad():
        unit = pipe.movq.decode(x, force_not_quantize=True).sample[0] / 2 + 0.5
    return np.round(unit.clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(int)


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_guidance_of_one_or_less_is_the_plain_loop(renderer: KandinskyRenderer, folder: Path, guidance: float) -> None:
    e, seeds = vectors(2), [3, 4, 3, 4]
    got = pixels(draw(renderer, e.repeat_interleave(2, dim=0), seeds=seeds, steps=5, guidance=guidance))
    want = [plain_loop(folder, e[i // 2 : i // 2 + 1], seeds[i], 5) for i in range(4)]
    assert np.abs(got - np.stack(want)).max() <= 1
    assert min(np.abs(got[0] - got[k]).mean() for k in (1, 2, 3)) > 2


def test_a_hint_without_guidance_is_the_plain_loop(depth_folder: Path, hint: Image.Image) -> None:
    picture = torch.from_numpy(np.array(hint)).float().permute(2, 0, 1)[None] / 255
    control = Control("depth", hint.resize((128, 128), Image.Resampling.NEAREST))
    renderer = load(depth_folder, options())
    (got, other) = pixels(
        draw(renderer, vectors(1).expand(2, -1), seeds=[3, 4], guidance=1.0, controls=(Control("depth", hint),))
    )
    want = plain_loop(depth_folder, vectors(1), 3, 3, picture)
    assert np.abs(got - want).max() <= 1 and np.abs(got - other).mean() > 1
    (resized,) = pixels(draw(renderer, vectors(1), seeds=[3], guidance=1.0, controls=(control,)))
    assert np.abs(got - resized).mean() < 4, "a control image of another size is fitted to the output's"
    flat = Control("depth", Image.new("L", (64, 64)))
    (without,) = pixels(draw(renderer, vectors(1), seeds=[3], guidance=1.0, controls=(flat,)))
    assert np.abs(got - without).mean() > 1, "the hint must have an effect"


def test_no_guidance_reads_no_zero_picture_and_guidance_reads_it_once(folder: Path) -> None:
    calls: list[int] = []
    fresh = load(folder, options(extra={"zero_image": lambda: calls.append(1) or ZERO}))
    seen: list[int] = []
    fresh.decoder().unet.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    draw(fresh, vectors(1), seeds=[0], steps=1, guidance=1.0)
    assert (calls, seen) == ([], [1])
    for seed in (0, 1):
        draw(fresh, vectors(1), seeds=[seed], steps=1, guidance=1.5)
    assert (calls, seen) == ([1], [1, 2, 2])
    without = load(folder, options(extra={}))
    with pytest.raises(ConfigError, match="zero_image.* or ask for guidance 1"):
        draw(without, vectors(1), seeds=[0], guidance=2.0)
    assert len(draw(without, vectors(1), seeds=[0], guidance=1.0)) == 1


# --- batches, progress, previews, cancelling -------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_batch_equals_singles(renderer: KandinskyRenderer, guidance: float) -> None:
    e = vectors(3)
    batch = pixels(draw(renderer, e, seeds=[4, 9, 4], guidance=guidance))
    singles = pixels([draw(renderer, e[i : i + 1], seeds=[s], guidance=guidance)[0] for i, s in enumerate((4, 9, 4))])
    assert np.abs(batch - singles).max() <= 1
    renderer.max_batch = 2
    assert np.abs(pixels(draw(renderer, e, seeds=[4, 9, 4], guidance=guidance)) - singles).max() <= 1
    assert np.abs(batch[0] - batch[2]).mean() > 2, "the same seed and another embedding must give another picture"


def test_progress_and_cancelling(renderer: KandinskyRenderer) -> None:
    renderer.max_batch = 2
    seen: list[tuple[int, int]] = []
    before = pixels(draw(renderer, vectors(3), seeds=[0, 1, 2], on_step=lambda i, n: seen.append((i, n))))
    assert seen == [(i + 1, 6) for i in range(6)]
    calls: list[int] = []
    renderer.decoder().unet.register_forward_pre_hook(lambda module, args: calls.append(1))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(renderer, vectors(3), seeds=[0, 1, 2], on_step=stop)
    assert len(calls) == 1
    assert np.array_equal(before, pixels(draw(renderer, vectors(3), seeds=[0, 1, 2])))


def test_previews_come_nearer_and_change_nothing(renderer: KandinskyRenderer) -> None:
    seen: list[tuple[int, int, int]] = []
    shown: list[np.ndarray] = []

    def show(pictures: list[Image.Image], done: int, total: int) -> None:
        seen.append((len(pictures), done, total))
        shown.append(pixels(pictures))

    renderer.max_batch = 2
    assert renderer.capabilities.previews
    how: dict[str, Any] = {"seeds": [0, 1, 2], "steps": 10}
    got = pixels(draw(renderer, vectors(3), on_preview=show, preview_every=4, **how))
    assert seen == [(2, 4, 20), (2, 8, 20), (1, 14, 20), (1, 18, 20)]
    assert np.array_equal(got, pixels(draw(renderer, vectors(3), **how)))
    assert np.abs(shown[1] - got[:2]).mean() < np.abs(shown[0] - got[:2]).mean()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(renderer, vectors(1), seeds=[0], on_preview=stop, preview_every=1)


def test_sizes_and_latents(renderer: KandinskyRenderer) -> None:
    (picture,) = draw(renderer, vectors(1), seeds=[0], size=(20, 12))
    assert (picture.height, picture.width) == (20, 12)
    (latent,) = draw(renderer, vectors(1), seeds=[0], output="latent")
    assert latent.shape == (4, 8, 8) and latent.device.type == "cpu"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"size": (18, 16)}, "multiples of 4, got 18x16; the nearest that works is 16x16"),
        ({"size": (0, 16)}, "multiples of 4"),
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"guidance": -1.0}, "guidance must be 0 or more"),
        ({"guidance": float("nan")}, "guidance must be 0 or more"),
        ({"seeds": [0, 1]}, "1 vectors need as many seeds, got 2"),
        ({"seeds": [-1]}, "-1"),
        ({"controls": (Control("depth", Image.new("RGB", (8, 8))),)}, "no depth control; it takes none"),
    ],
)
def test_bad_settings(renderer: KandinskyRenderer, how: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as told:
        draw(renderer, vectors(1), **{"seeds": [0], **how})
    assert "\n" not in str(told.value)


def test_vectors_of_another_width(renderer: KandinskyRenderer, folder: Path) -> None:
    with pytest.raises(SpaceError, match="width 32, got width 31"):
        draw(renderer, torch.zeros(1, 31), seeds=[0])
    odd = load(folder, options(extra={"zero_image": lambda: torch.zeros(1, 31)}))
    with pytest.raises(SpaceError, match="width 32, got width 31"):
        draw(odd, vectors(1), seeds=[0])


def test_out_of_memory_and_overflow_leave_it_usable(renderer: KandinskyRenderer) -> None:
    def full(module: Any, args: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")

    hook = renderer.decoder().movq.decoder.register_forward_pre_hook(full)
    with pytest.raises(PopsError, match="not enough memory for 1 image of 16x16"):
        draw(renderer, vectors(1), seeds=[0])
    hook.remove()
    with pytest.raises(PopsError, match="overflowed"):
        draw(renderer, torch.full((1, DIM), float("nan")), seeds=[0])
    assert pixels(draw(renderer, vectors(1), seeds=[0])).std() > 5


# --- offload ---------------------------------------------------------------------------------------------------------


def test_offload_moves_each_network_only_while_it_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is the CPU here, too; what is asked of torch is recorded."""
    want = pixels(draw(load(folder, options()), vectors(3), seeds=[0, 1, 2]))
    renderer = load(folder, options(offload=True, max_batch=2, device="cpu:0"))
    moves: list[tuple[str, str]] = []
    for network, name in ((renderer.decoder().unet, "unet"), (renderer.decoder().movq, "movq")):
        to = network.to
        monkeypatch.setattr(
            network, "to", lambda device, to=to, name=name: moves.append((name, str(device))) or to(device)
        )
    assert np.abs(pixels(draw(renderer, vectors(3), seeds=[0, 1, 2])) - want).max() <= 1
    whole = [("unet", "cpu:0"), ("unet", "cpu"), ("movq", "cpu:0"), ("movq", "cpu")]
    assert moves == whole
    moves.clear()
    draw(renderer, vectors(1), seeds=[0], on_preview=lambda *_: None, preview_every=2)
    assert moves == [whole[0], *whole[2:], whole[1], *whole[2:]]
    moves.clear()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(renderer, vectors(1), seeds=[0], on_step=stop)
    assert moves == whole[:2]
    assert np.abs(pixels(draw(renderer, vectors(1), seeds=[0])) - want[:1]).max() <= 1


@pytest.mark.parametrize("offload", [False, True])
def test_threads_may_share_it(folder: Path, offload: bool) -> None:
    renderer = load(folder, options(offload=offload))
    want = [pixels(draw(renderer, vectors(1), seeds=[s])) for s in range(4)]
    got: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda s=s: got.update({s: pixels(draw(renderer, vectors(1), seeds=[s]))}))
        for s in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(got[s], want[s]) for s in range(4))


# --- controls --------------------------------------------------------------------------------------------------------


def test_a_depth_decoder_beside_the_plain_one(
    folder: Path, depth_folder: Path, hint: Image.Image, tmp_path: Path
) -> None:
    alone = load(depth_folder, options())
    control = (Control("depth", hint),)
    want = pixels(draw(alone, vectors(1), seeds=[0], controls=control))
    with pytest.raises(ConfigError, match="draws only with a control image; give one of depth"):
        draw(alone, vectors(1), seeds=[0])
    plain = pixels(draw(load(folder, options()), vectors(1), seeds=[0]))
    both = shutil.copytree(folder, tmp_path / "both")
    shutil.copytree(depth_folder, both / "controlnets" / "depth")
    for renderer in (load(folder, options(controlnets={"depth": depth_folder})), load(both, options())):
        assert renderer.capabilities.controls == ("depth",)
        assert np.array_equal(pixels(draw(renderer, vectors(1), seeds=[0], controls=control, size=(64, 64))), want)
        assert np.array_equal(pixels(draw(renderer, vectors(1), seeds=[0])), plain)
    for controls, says in (
        ((Control("depth", hint, 0.5),), "control has no scale, got 0.5; leave it out"),
        (control * 2, "takes one control image, got 2"),
        ((Control("canny", hint),), "no canny control; it takes depth"),
    ):
        with pytest.raises(ConfigError, match=says):
            draw(alone, vectors(1), seeds=[0], controls=controls)


def test_a_depth_decoder_without_its_own_movq_takes_the_plain_ones(depth_folder: Path, tmp_path: Path) -> None:
    plain = shutil.copytree(depth_folder, tmp_path / "plain")
    bare = shutil.copytree(depth_folder, tmp_path / "bare")
    shutil.rmtree(bare / "movq")
    shutil.rmtree(bare / "scheduler")
    renderer = load(plain, options(controlnets={"depth": bare}))
    control = (Control("depth", Image.new("RGB", (64, 64), (90, 90, 90))),)
    want = pixels(draw(load(depth_folder, options()), vectors(1), seeds=[0], controls=control))
    assert np.array_equal(pixels(draw(renderer, vectors(1), seeds=[0], controls=control)), want)


def test_a_controlnet_that_is_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a decoder without a hint"):
        load(folder, options(controlnets={"depth": folder}))
    with pytest.raises(ModelError, match="unet/config.json cannot be read"):
        load(folder, options(controlnets={"depth": tmp_path}))


# --- folders ---------------------------------------------------------------------------------------------------------


def test_the_registry_finds_it(folder: Path, depth_folder: Path, tmp_path: Path) -> None:
    assert backend_of(folder) == backend_of(depth_folder) == "kandinsky"
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "model_index.json").unlink()
    assert backend_of(bare) == "kandinsky"
    assert isinstance(load(bare, options()), Renderer)
    with pytest.raises(ModelError, match="needs a folder with KandinskyV22Pipeline's layout"):
        load(None, options())


def edit(path: Path, **changes: Any) -> None:
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: shutil.rmtree(f / "unet"), "unet/config.json cannot be read"),
        (lambda f: shutil.rmtree(f / "movq"), "has no movq/"),
        (lambda f: shutil.rmtree(f / "scheduler"), r"has no scheduler/ \(scheduler_config.json\)"),
        (lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 99), "unet.*cannot be read"),
        (
            lambda f: (f / "movq" / "diffusion_pytorch_model.safetensors").rename(
                f / "movq" / "diffusion_pytorch_model.bin"
            ),
            r"movq holds its weights only as a pickle \(diffusion_pytorch_model.bin\)",
        ),
        (lambda f: edit(f / "unet" / "config.json", addition_embed_type="text_image"), "no UNet of a Kandinsky 2.2"),
        (lambda f: edit(f / "scheduler" / "scheduler_config.json", _class_name="Nothing"), "names no scheduler"),
    ],
)
def test_parts_that_are_absent_or_wrong(folder: Path, tmp_path: Path, spoil: Callable[[Path], Any], says: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    spoil(copy)
    with pytest.raises(ModelError, match=says) as told:
        load(copy, options())
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("part", ["unet", "movq"])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda w: w.pop(next(iter(w))), "missing: "),
        (lambda w: w.update({"other.bias": torch.zeros(1)}), "surplus: other.bias"),
        (lambda w: w.update({next(iter(w)): torch.zeros(1, 1)}), "misshaped: |does not load .*expected shape"),
        (lambda w: next(iter(w.values())).fill_(float("nan")), "not finite: "),
    ],
)
def test_weights_that_do_not_fit(folder: Path, tmp_path: Path, part: str, spoil: Any, says: str) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "copy")
    path = next((copy / part).glob("*.safetensors"))
    weights = load_file(path)
    spoil(weights)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises((CheckpointError, ModelError), match=says) as told:
        load(copy, options())
    assert part in str(told.value) and "\n" not in str(told.value)


def test_parts_that_do_not_go_together(folder: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    def with_unet(name: str, **changes: Any) -> Path:
        copy = shutil.copytree(folder, tmp_path / name)
        config = UNet2DConditionModel.load_config(copy / "unet")
        shutil.rmtree(copy / "unet")
        UNet2DConditionModel.from_config({**config, **changes}).save_pretrained(copy / "unet")
        return copy

    with pytest.raises(ModelError, match="reads 9 channels, and with this MoVQ there are 4; an inpainting decoder"):
        load(with_unet("inpaint", in_channels=9), options())
    with pytest.raises(ModelError, match="predicts 5 channels, not 4 or 8"):
        load(with_unet("odd", out_channels=5), options())
    plain = with_unet("plain", out_channels=4)
    with pytest.raises(ModelError, match="predicts 4 channels and no variance, which the scheduler"):
        load(plain, options())
    edit(plain / "scheduler" / "scheduler_config.json", variance_type="fixed_small")
    assert pixels(draw(load(plain, options()), vectors(1), seeds=[0])).std() > 5, "no learned variance at all"


# --- in a model ------------------------------------------------------------------------------------------------------


def test_a_model_renders_with_it(folder: Path, stock: Any, tmp_path: Path) -> None:
    import pops

    p = pops.load(write_model(tmp_path / "prior", renderer=False, space=None), decoder=folder, device="cpu")
    renderer = p.renderer()
    assert isinstance(renderer, KandinskyRenderer)
    assert (renderer.steps, renderer.guidance, renderer.native) == (50, 4.0, (16, 16)), "published, and the UNet's side"
    e = pops.Embedding(vectors(1), p.space.id)
    got = p.render(e, seed=5, num_images=2, steps=3)
    stock.register_modules(scheduler=open_stock(folder).scheduler)
    how = {"num_inference_steps": 3, "guidance_scale": 4.0, "height": 16, "width": 16}
    zero = p.space.zero_image_embedding()
    for seed, picture in ((5, got[0]), (6, got[1])):
        want = stock(e.vectors, zero, generator=gens([seed])[0], **how).images
        assert np.abs(pixels([picture]) - pixels(want)).max() <= 1
    assert got[0].info["pops"]["loading"]["decoder"] == str(folder)
    with pytest.raises(ConfigError, match="mixing needs a Stable Diffusion renderer, kandinsky is none"):
        p.mixer()
    with pytest.raises(ConfigError, match="kandinsky reads no text"):
        p.render(e, prompt="a tiger")
