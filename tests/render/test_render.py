"""Renderers: the same pixels as stock diffusers, no mixing in a batch, errors that leave nothing behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from folders import DIM, draw, pixels, vectors, write_renderer
from pops.diffusion.text import token_limit
from pops.errors import CheckpointError, ConfigError, ModelError, PopsError, SpaceError
from pops.render import Renderer, RendererOptions, SwatchRenderer, backend_of, get, names, register, registry
from pops.render.stable_diffusion import StableDiffusionRenderer, load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_renderer(tmp_path_factory.mktemp("renderer") / "sd")


@pytest.fixture(scope="module")
def renderer(folder: Path) -> StableDiffusionRenderer:
    return load(folder, RendererOptions("random-32", defaults={"size": 32, "steps": 3, "guidance": 2.0}))


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPImageProcessorPil

    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.register_modules(feature_extractor=CLIPImageProcessorPil())
    pipe.load_ip_adapter(
        str(folder), subfolder="ip_adapter", weight_name="ip_adapter.safetensors", image_encoder_folder=None
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


SCHEDULERS = (
    "DDIMScheduler",
    "PNDMScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "HeunDiscreteScheduler",
)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own, on numpy 2
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_equals_stock_diffusers(
    renderer: StableDiffusionRenderer,
    stock: Any,
    scheduler: str,
    guidance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import diffusers

    kind = getattr(diffusers, scheduler)
    config = {**kind().config, "steps_offset": 1} if "steps_offset" in kind().config else dict(kind().config)
    monkeypatch.setattr(renderer, "scheduler", kind.from_config(config, clip_sample=False))
    monkeypatch.setattr(stock, "scheduler", kind.from_config(config, clip_sample=False))
    e = vectors(1)
    embeds = torch.cat([torch.zeros(1, 1, DIM), e[None]]) if guidance > 1 else e[None]
    expected = stock(
        prompt="red tiger",
        negative_prompt="red",
        ip_adapter_image_embeds=[embeds],
        num_inference_steps=4,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(7),
    ).images
    got = draw(renderer, e, seeds=[7], steps=4, guidance=guidance, prompt="red tiger", negative="red")
    assert np.array_equal(pixels(got), pixels(expected))
    assert pixels(got).std() > 5, "a flat picture would equal anything"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own, on numpy 2
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_several_embeddings_of_an_image_equal_stock_diffusers(
    renderer: StableDiffusionRenderer, stock: Any, guidance: float
) -> None:
    e = vectors(2)
    embeds = torch.cat([torch.zeros(1, 2, DIM), e[None]]) if guidance > 1 else e[None]
    how = {"num_inference_steps": 3, "guidance_scale": guidance}
    generator = torch.Generator().manual_seed(7)
    expected = stock(prompt="", ip_adapter_image_embeds=[embeds], generator=generator, **how).images
    got = draw(renderer, e[None], seeds=[7], steps=3, guidance=guidance)
    assert np.array_equal(pixels(got), pixels(expected))
    assert not np.array_equal(pixels(got), pixels(draw(renderer, e[:1], seeds=[7], steps=3, guidance=guidance)))


@pytest.mark.parametrize("named", [True, False])
def test_outdated_settings_of_a_scheduler_are_replaced_as_stock_does(folder: Path, tmp_path: Path, named: bool) -> None:
    copy = shutil.copytree(folder, tmp_path / "old")
    path = copy / "scheduler" / "scheduler_config.json"
    config = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("steps_offset", "clip_sample")}
    path.write_text(json.dumps(config | ({"steps_offset": 0, "clip_sample": True} if named else {})))
    config = load(copy, RendererOptions("x")).scheduler.config
    assert (config.steps_offset, config.clip_sample) == (1, False)


@pytest.mark.parametrize("max_batch", [1, 2, 8])
def test_a_batch_equals_its_items(
    renderer: StableDiffusionRenderer, max_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer, "max_batch", max_batch)
    e, seeds = vectors(3), [5, 6, 5]
    batch = pixels(draw(renderer, e, seeds=seeds))
    alone = np.concatenate([pixels(draw(renderer, e[i : i + 1], seeds=seeds[i : i + 1])) for i in range(3)])
    assert np.abs(batch - alone).max() <= 1
    assert np.abs(batch[0] - batch[2]).mean() > 2, "the same seed and another embedding must give another picture"


def test_same_seed_same_picture_and_another_seed_another(renderer: StableDiffusionRenderer) -> None:
    e = vectors(1)
    first, again, other = (pixels(draw(renderer, e, seeds=[s])) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.abs(first - other).mean() > 2


@pytest.mark.parametrize(("guidance", "rows"), [(0.0, 1), (1.0, 1), (1.5, 2)])
def test_guidance_of_one_or_less_computes_one_branch(
    renderer: StableDiffusionRenderer, guidance: float, rows: int
) -> None:
    seen: list[int] = []
    hook = renderer.unet.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    try:
        draw(renderer, vectors(1), seeds=[0], steps=2, guidance=guidance)
    finally:
        hook.remove()
    assert seen == [rows, rows]


def test_each_text_is_encoded_once(folder: Path) -> None:
    fresh = load(folder, RendererOptions("x"))
    seen: list[int] = []
    fresh.text_encoder.register_forward_pre_hook(lambda module, args: seen.append(1))
    for seed in (0, 1):
        draw(fresh, vectors(1), seeds=[seed], steps=1, guidance=3.0)
    assert len(seen) == 1


def test_a_text_that_is_cut_is_told(renderer: StableDiffusionRenderer) -> None:
    told: list[str] = []
    how: dict[str, Any] = {"seeds": [0], "steps": 1, "prompt": "red " * 74 + "tiger zebra"}
    long = draw(renderer, vectors(1), negative="red " * 76, guidance=1.0, on_note=told.append, **how)
    unheard = "guidance 1 is none: the negative text has no effect"
    assert told == ["the text encoder reads 75 tokens; the text was cut before 'zebra'", unheard]
    assert np.array_equal(pixels(draw(renderer, vectors(1), guidance=1.0, on_note=told.append, **how)), pixels(long))
    with pytest.warns(UserWarning, match="cut before 'zebra'"):
        draw(renderer, vectors(1), guidance=1.0, **how)
    draw(renderer, vectors(1), seeds=[0], steps=1, prompt="red " * 75)  # just fits, and nothing is told


@pytest.mark.parametrize(("told", "reads"), [(77, 77), (40, 40), (10**30, 77), (None, 77)])
def test_how_many_tokens_an_encoder_reads(renderer: StableDiffusionRenderer, told: int | None, reads: int) -> None:
    tokenizer = SimpleNamespace(model_max_length=told) if told else SimpleNamespace()
    assert token_limit(tokenizer, renderer.text_encoder) == reads


def test_size_and_latents(renderer: StableDiffusionRenderer) -> None:
    (picture,) = draw(renderer, vectors(1), seeds=[0], size=(40, 24))
    assert (picture.height, picture.width) == (40, 24)
    (latent,) = draw(renderer, vectors(1), seeds=[0], output="latent")
    assert latent.shape == (4, 16, 16)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"size": (33, 32)}, "multiples of 8, got 33x32; the nearest that works is 32x32"),
        ({"size": (0, 32)}, "multiples of 8"),
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"guidance": -1.0}, "guidance must be 0 or more"),
        ({"seeds": [0, 1]}, "1 vectors need as many seeds, got 2"),
        ({"seeds": [-1]}, "-1"),
    ],
)
def test_bad_settings(renderer: StableDiffusionRenderer, how: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("(", r"\(")):
        draw(renderer, vectors(1), **{"seeds": [0], **how})


def test_vectors_of_another_width(renderer: StableDiffusionRenderer) -> None:
    with pytest.raises(SpaceError, match="width 32, got width 31"):
        draw(renderer, torch.zeros(1, 31), seeds=[0])


def test_progress_counts_all_batches_and_stops_when_told(
    renderer: StableDiffusionRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renderer, "max_batch", 2)
    seen: list[tuple[int, int]] = []
    before = pixels(draw(renderer, vectors(3), seeds=[0, 1, 2], on_step=lambda i, n: seen.append((i, n))))
    assert seen == [(i + 1, 6) for i in range(6)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(renderer, vectors(3), seeds=[0, 1, 2], on_step=stop)
    assert np.array_equal(before, pixels(draw(renderer, vectors(3), seeds=[0, 1, 2])))


def test_out_of_memory_and_overflow_say_what_to_do(renderer: StableDiffusionRenderer) -> None:
    def full(module: Any, args: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    hook = renderer.vae.decoder.register_forward_pre_hook(full)
    with pytest.raises(PopsError, match="not enough memory for 1 image of 32x32"):
        draw(renderer, vectors(1), seeds=[0])
    hook.remove()
    with pytest.raises(PopsError, match="overflowed"):
        draw(renderer, torch.full((1, DIM), float("nan")), seeds=[0])
    assert pixels(draw(renderer, vectors(1), seeds=[0])).std() > 5


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (lambda w: w.pop("ip_adapter.3.to_k_ip.weight"), CheckpointError, "missing .*3.to_k_ip.weight"),
        (
            lambda w: w.update({"ip_adapter.99.to_k_ip.weight": torch.zeros(1)}),
            CheckpointError,
            "surplus .*99.to_k_ip",
        ),
        (lambda w: w.update({"other": torch.zeros(1)}), CheckpointError, "other is neither"),
        (
            lambda w: w["ip_adapter.3.to_k_ip.weight"].fill_(float("nan")),
            CheckpointError,
            "3.to_k_ip.weight holds NaN",
        ),
        (lambda w: w.pop("image_proj.norm.weight"), CheckpointError, "image_proj"),
        (
            lambda w: w.update({"ip_adapter.1.to_k_ip.weight": torch.zeros(2, 2)}),
            CheckpointError,
            "does not fit",
        ),
    ],
)
def test_an_adapter_that_does_not_fit(folder: Path, tmp_path: Path, spoil: Any, kind: Any, says: str) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / "ip_adapter" / "ip_adapter.safetensors"
    weights = load_file(path)
    spoil(weights)
    save_file(weights, path)
    with pytest.raises(kind, match=says):
        load(copy, RendererOptions("x"))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
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
        load(copy, RendererOptions("x"))
    assert part in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "ip_adapter"])
def test_a_cut_file_of_weights(folder: Path, tmp_path: Path, part: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = next((copy / part).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match=part):
        load(copy, RendererOptions("x"))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler", "ip_adapter"])
def test_an_absent_part_is_named(folder: Path, tmp_path: Path, part: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(copy / part)
    with pytest.raises(ModelError, match=part):
        load(copy, RendererOptions("x"))


def test_what_is_read_is_logged_and_nothing_is_written(
    folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level("INFO", "pops"):
        load(folder, RendererOptions("x"))
    read = [record.getMessage() for record in caplog.records if record.name == "pops.diffusion"]
    assert len(read) == 3 and read[0].startswith(f"read UNet2DConditionModel from {folder / 'unet'} in ")
    assert capfd.readouterr() == ("", "")


def test_the_registry(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"stable-diffusion", "swatch"} <= set(names())
    assert backend_of(folder) == "stable-diffusion"
    with pytest.raises(ModelError, match="unknown renderer 'swach' .did you mean 'swatch'.*choose from kandinsky, "):
        get("swach")
    with pytest.raises(ModelError, match="model_index.json cannot be read"):
        backend_of(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "MyPipeline"}')
    with pytest.raises(ModelError, match="unknown pipeline 'MyPipeline' in .*; choose from Kandinsky"):
        backend_of(tmp_path)

    def mine(folder: Path | None, options: RendererOptions) -> Renderer:
        return SwatchRenderer(options.space, (4, 4))

    mine.reads = ("MyPipeline",)  # type: ignore[attr-defined]
    monkeypatch.setattr(registry, "_registered", {})
    register("mine", mine)
    assert "mine" in names() and backend_of(tmp_path) == "mine"
    assert get(backend_of(tmp_path))(None, RendererOptions("s")).capabilities.native == (4, 4)


def test_every_published_layout_is_read_by_an_installed_renderer() -> None:
    assert set(registry.LAYOUTS.values()) < set(names())


def test_finding_a_renderer_imports_no_other(folder: Path) -> None:
    code = f"""
import sys, pathlib, pops.render as r
print(r.get(r.backend_of(pathlib.Path({str(folder)!r}))).__module__)
print(sorted(m for m in sys.modules if m in ("torch", "diffusers", "pops.render.kandinsky", "pops.render.retrieval")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["pops.render.stable_diffusion", "[]"]


def test_the_fake_is_a_renderer_and_tells_embeddings_and_seeds_apart(
    renderer: StableDiffusionRenderer,
) -> None:
    fake = get("swatch")(None, RendererOptions("s"))
    assert isinstance(fake, Renderer) and isinstance(renderer, Renderer)
    colours = {
        p.getpixel((0, 0)) for p in draw(fake, torch.tensor([[0.0, 0, 0], [1, 2, 3], [0, 0, 0]]), seeds=[0, 0, 9])
    }
    assert len(colours) == 3
