"""MagicMix: equal to a plain loop and to stock image-to-image, re-weighted as the formula says, nothing left behind."""

from __future__ import annotations

import copy
import inspect
import json
import threading
from contextlib import ExitStack
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from folders import DIM, draw, text_tower, write_renderer
from pops.diffusion.scheduler import scheduler_of
from pops.embedding import Embedding
from pops.errors import ConfigError, ModelError, OperandError, PhotoError, PopsError, SpaceError
from pops.magicmix.attention import Weights, cross_attentions, hooks, weighing
from pops.magicmix.latents import decode, encode_photo
from pops.magicmix.mix import MagicMix
from pops.magicmix.operands import MixSettings, is_photo, photo_latent_input, working_size
from pops.magicmix.presets import PRESETS, preset
from pops.magicmix.prompt import Prompt, reached
from pops.magicmix.schedule import Window, check_scheduler

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_renderer(tmp_path_factory.mktemp("mix") / "sd")


@pytest.fixture(scope="module")
def mix(folder: Path) -> MagicMix:
    return MagicMix.load(folder, device="cpu")


@pytest.fixture(scope="module")
def stock(folder: Path) -> Any:
    """Stock diffusers, without the IP-Adapter."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def scheduler(name: str, **config: Any) -> Any:
    import diffusers

    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    kind = getattr(diffusers, name)
    known = {**settings, "clip_sample": False, "skip_prk_steps": True, **config}
    return kind(**{k: v for k, v in known.items() if k in kind().config})


def vector(seed: int = 0) -> Embedding:
    return Embedding(torch.randn(1, DIM, generator=torch.Generator().manual_seed(seed)), "random-32")


def latent_of(stock: Any, photo: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(np.asarray(photo).astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        return stock.vae.encode(pixels).latent_dist.mode() * stock.vae.config.scaling_factor


def plain_loop(
    stock: Any,
    own: Any,
    x0: torch.Tensor,
    *,
    steps: int,
    nu: float,
    k: tuple[float, float],
    inject: str,
    guidance: float,
) -> torch.Tensor:
    """PAPERS.md's indices, with nothing of ours: "tiger" away from "red", seed 7."""
    with torch.no_grad():
        texts = torch.cat(stock.encode_prompt("tiger", "cpu", 1, True, "red")[::-1])
        own.set_timesteps(steps)
        levels = own.timesteps
        tmax, tmin = steps - int(k[1] * steps), steps - int(k[0] * steps)
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(7))
        at = [own.add_noise(x0, eps, t[None]) for t in levels]
        x = at[tmax]
        if hasattr(own, "set_begin_index"):
            own.set_begin_index(tmax)
        for i in range(tmax, len(levels)):
            seen = nu * x + (1 - nu) * at[i] if tmax < i < tmin else x
            if inject == "state":
                x = seen
            both = own.scale_model_input(torch.cat([seen, seen]), levels[i])
            uncond, cond = stock.unet(both, levels[i], texts).sample.chunk(2)
            x = own.step(uncond + guidance * (cond - uncond), levels[i], x).prev_sample
    return x[0]


# --- the loop
# ------------------------------------------------------------------------------------------


@quiet
@pytest.mark.parametrize("inject", ["state", "input"])
@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"]
)
def test_equals_a_plain_loop(
    mix: MagicMix, stock: Any, name: str, inject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mix, "scheduler", scheduler(name))
    how: dict[str, Any] = {"steps": 10, "nu": 0.6, "inject": inject, "guidance": 3.0}
    expected = plain_loop(stock, scheduler(name), latent_of(stock, PHOTO), k=(0.3, 0.8), **how)
    got = mix(PHOTO, "tiger", negative="red", seed=7, k_min=0.3, k_max=0.8, output="latent", **how)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    other = "input" if inject == "state" else "state"
    how["inject"] = other
    assert (
        mix(PHOTO, "tiger", negative="red", seed=7, k_min=0.3, k_max=0.8, output="latent", **how) - got
    ).std() > 0.01


@quiet
@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "PNDMScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler",
             "EulerAncestralDiscreteScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"]
)  # fmt: skip
def test_nu_of_one_is_stock_image_to_image(
    mix: MagicMix, stock: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import StableDiffusionImg2ImgPipeline

    monkeypatch.setattr(mix, "scheduler", scheduler(name))
    pipe = StableDiffusionImg2ImgPipeline(
        **{**stock.components, "scheduler": scheduler(name)}, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    x0 = latent_of(stock, PHOTO)
    expected = pipe(
        "tiger", x0, strength=0.6, num_inference_steps=6, guidance_scale=2.5, negative_prompt="red",
        generator=torch.Generator().manual_seed(3), output_type="latent",
    ).images[0]  # fmt: skip
    how: dict[str, Any] = {"k_max": 0.6, "steps": 6, "guidance": 2.5, "negative": "red", "seed": 3, "output": "latent"}
    torch.testing.assert_close(mix(x0, "tiger", nu=1.0, **how), expected, rtol=1e-4, atol=1e-4)


def test_degenerate_settings(mix: MagicMix, stock: Any) -> None:
    how: dict[str, Any] = {"steps": 10, "guidance": 2.0, "output": "latent"}
    plain = mix(PHOTO, "tiger", nu=1.0, k_max=0.6, **how)
    assert torch.equal(mix(PHOTO, "tiger", nu=0.0, k_min=0.6, k_max=0.6, **how), plain)
    # nu = 0: the layout to the end of the window, so that only what follows counts.
    last = mix(PHOTO, "tiger", nu=1.0, k_min=0.0, k_max=0.31, **how)
    torch.testing.assert_close(mix(PHOTO, "tiger", nu=0.0, k_min=0.2, k_max=0.6, **how), last)
    torch.testing.assert_close(mix(PHOTO, "tiger", k_min=0.0, k_max=0.05, **how), latent_of(stock, PHOTO)[0])
    for k in (0.0, 0.5, 1.0):
        assert mix(PHOTO, "tiger", k_min=k, k_max=1.0, **{**how, "steps": 1}).isfinite().all()


def test_the_window_and_nu() -> None:
    assert Window.of(0.3, 0.6, 50) == Window(50, 20, 35)
    window = Window(10, 2, 7)
    assert [window.nu((0.5,), i) for i in (2, 3, 6, 7)] == [None, 0.5, 0.5, None]
    assert [window.nu((1.0, 0.0), i) for i in (3, 4, 5, 6)] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert [window.nu((0.0, 1.0, 0.0), i) for i in (3, 6)] == [0, 0]
    assert Window(10, 2, 4).nu((0.2, 0.8), 3) == 0.2


def test_steps_above_k_max_cost_nothing_and_a_guidance_of_one_no_negatives(mix: MagicMix) -> None:
    seen: list[int] = []
    handle = mix.unet.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    with ExitStack() as stack:
        stack.callback(handle.remove)
        mix(PHOTO, "tiger", steps=10, k_max=0.4, guidance=2.0)
        mix(PHOTO, "tiger", steps=10, k_max=0.4, guidance=1.0)
        mix("red", "tiger", steps=10, k_min=0.3, k_max=0.4, guidance=1.0)
    assert seen == [2] * 4 + [1] * 4 + [1] * (6 + 4)


def test_a_text_as_layout_is_its_own_way_from_noise(mix: MagicMix, stock: Any) -> None:
    own = scheduler("DDIMScheduler")
    mix_in: dict[str, Any] = {"nu": 0.4, "k_min": 0.2, "k_max": 0.6, "steps": 10}
    with torch.no_grad():
        own.set_timesteps(10)
        texts = {t: torch.cat(stock.encode_prompt(t, "cpu", 1, True, "")[::-1]) for t in ("red", "tiger")}

        def step(x: torch.Tensor, t: Any, text: str) -> torch.Tensor:
            uncond, cond = stock.unet(torch.cat([x, x]), t, texts[text]).sample.chunk(2)
            return own.step(uncond + 2 * (cond - uncond), t, x).prev_sample

        way = [torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5))]
        for t in own.timesteps:
            way.append(step(way[-1], t, "red"))
        x = way[4]
        for i in range(4, 10):
            x = 0.4 * x + 0.6 * way[i] if 4 < i < 8 else x
            x = step(x, own.timesteps[i], "tiger")
    got = mix("red", "tiger", seed=5, guidance=2.0, output="latent", **mix_in)
    torch.testing.assert_close(got, x[0], rtol=1e-5, atol=1e-5)


def test_an_embedding_as_layout_is_what_the_renderer_draws(folder: Path, mix: MagicMix) -> None:
    from pops.render import RendererOptions
    from pops.render.stable_diffusion import load as load_renderer

    e = vector()
    (expected,) = draw(
        load_renderer(folder, RendererOptions("random-32")),
        e.vectors,
        seeds=[4],
        steps=5,
        guidance=2.0,
        output="latent",
    )
    got = mix(e, "tiger", seed=4, steps=5, guidance=2.0, k_min=0.0, k_max=0.0, output="latent")
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_contents_of_several_parts(mix: MagicMix) -> None:
    how: dict[str, Any] = {"steps": 4, "output": "latent", "guidance": 2.0}
    one = mix(PHOTO, "tiger", **how)
    torch.testing.assert_close(mix(PHOTO, {"tiger": 3.0}, **how), one)
    torch.testing.assert_close(mix(PHOTO, {"tiger": 1, "tiger:1": 2}, **how), one, rtol=1e-4, atol=1e-4)
    both = mix(PHOTO, (("tiger", 0.5), (vector(), 0.5)), **how)
    assert (both - one).std() > 1e-3
    assert (mix(PHOTO, vector(), **how) - mix(PHOTO, vector(1), **how)).std() > 1e-3


@quiet
@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_a_batch_equals_its_items(mix: MagicMix, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mix, "scheduler", scheduler(name))
    layouts: list[Any] = [PHOTO, "red", PHOTO.resize((40, 24))]
    contents: list[Any] = ["tiger", "red:2 tiger", vector()]
    how: dict[str, Any] = {"steps": 3, "k_max": 0.7, "output": "latent", "guidance": 2.0, "strength": 0.5}
    batch = mix(layouts, contents, seed=[1, 8], **how)
    assert len(batch) == 18
    alone = [mix(*pair, seed=s, **how) for *pair, s in product(layouts, contents, [1, 8])]
    for a, b in zip(batch, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(mix, "max_batch", 1)
    again = mix(PHOTO, "tiger", seed=1, num_images=8, **how)
    assert torch.equal(again[0], alone[0]) and torch.equal(again[7], alone[1])


@quiet
def test_every_scheduler_works_or_is_refused_in_one_line(
    folder: Path, mix: MagicMix, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    works = set()
    own = mix.scheduler
    for name in [n for n in dir(diffusers) if n.endswith("Scheduler")]:
        try:
            chosen = scheduler_of(own, name)
            check_scheduler(chosen)
            monkeypatch.setattr(mix, "scheduler", chosen)
            got = mix(PHOTO, "tiger", steps=4, k_min=0.2, k_max=0.7, guidance=1.0, output="latent", seed=[0, 1])
            assert got[0].isfinite().all() and (got[0] - got[1]).std() > 1e-3
            works.add(name.removesuffix("Scheduler"))
        except ConfigError as e:
            assert "\n" not in str(e) and name in str(e)
    ours = (
        "DDIM DDPM PNDM EulerDiscrete EulerAncestralDiscrete HeunDiscrete KDPM2Discrete KDPM2AncestralDiscrete LCM TCD"
    )
    assert works >= {
        *ours.split(),
        "DPMSolverMultistep",
        "DPMSolverSinglestep",
        "DEISMultistep",
        "UniPCMultistep",
        "SASolver",
    }


@pytest.mark.parametrize(
    "name", ["DDIMInverseScheduler", "FlowMatchEulerDiscreteScheduler", "NoScheduler", "Scheduler"]
)
def test_other_schedulers_are_refused_when_loaded(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        MagicMix.load(folder, scheduler=name)


# --- attention
# ------------------------------------------------------------------------------------------


class WrittenOut:
    """Cross-attention as the formula has it; text's maps times `weights` [rows, tokens], the image's times `image`."""

    def __init__(self, weights: torch.Tensor, image: torch.Tensor | None, was: Any) -> None:
        self.weights, self.was = weights, was
        self.image: Any = image

    def __call__(
        self,
        attn: Any,
        hidden_states: Any,
        encoder_hidden_states: Any = None,
        attention_mask: Any = None,
        temb: Any = None,
    ) -> Any:
        x, text = hidden_states, encoder_hidden_states
        tokens: Any = []
        if isinstance(text, tuple):
            text, tokens = text
        rows = attn.to_q(x).shape[0]

        def heads(y: Any) -> Any:
            return y.view(rows, -1, attn.heads, y.shape[-1] // attn.heads).transpose(1, 2)

        def maps(q: Any, k: Any) -> Any:
            return (q @ k.transpose(-1, -2) * attn.scale).softmax(-1)

        q = heads(attn.to_q(x))
        out = maps(q, heads(attn.to_k(text))) * self.weights[:, None, None, :] @ heads(attn.to_v(text))
        for i, token in enumerate(tokens):
            image = maps(q, heads(self.was.to_k_ip[i](token))) @ heads(self.was.to_v_ip[i](token))
            out = out + self.was.scale[i] * image * self.image[:, None, None, None]
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def request(rows: int = 3) -> dict[str, Any]:
    gen = torch.Generator().manual_seed(0)
    return {
        "sample": torch.randn(rows, 4, 16, 16, generator=gen),
        "timestep": 400,
        "encoder_hidden_states": torch.randn(rows, 77, DIM, generator=gen),
        "added_cond_kwargs": {"image_embeds": [torch.randn(rows, 1, DIM, generator=gen)]},
    }


@pytest.mark.parametrize("kind", ["plain", "adapter", "fused", "sliced"])
def test_re_weighting_is_the_formula(folder: Path, kind: str) -> None:
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import SlicedAttnProcessor

    unet = MagicMix.load(folder).unet if kind == "adapter" else UNet2DConditionModel.from_pretrained(folder / "unet")
    text = torch.ones(3, 77)
    text[1, 1:4], text[2, 2] = -1.5, 2.0
    image = torch.tensor([1.0, 0.0, 0.5]) if kind == "adapter" else None
    crossing = cross_attentions(unet)
    assert len(crossing) == 4
    before = [module.processor for module in crossing]
    with torch.no_grad():
        plain = unet(**request()).sample
        for module in crossing:
            was = module.processor
            if isinstance(was, torch.nn.Module):
                module._modules.pop("processor")
            module.processor = WrittenOut(text, image, was)
        expected = unet(**request()).sample
        for module, was in zip(crossing, before, strict=True):
            del module.processor
            module.processor = was
        if kind == "fused":
            unet.fuse_qkv_projections()
        if kind == "sliced":
            unet.set_attn_processor(SlicedAttnProcessor(2))
        with hooks(unet), weighing(Weights(text, image)):
            got = unet(**request()).sample
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(unet(**request()).sample, plain, rtol=1e-4, atol=1e-5)
    assert (got[0] - plain[0]).abs().max() < 1e-5 and (got[1] - plain[1]).std() > 1e-4


def test_strength_reaches_the_words_and_no_negatives(mix: MagicMix, monkeypatch: pytest.MonkeyPatch) -> None:
    import pops.magicmix.mix as module

    seen: list[Weights] = []
    monkeypatch.setattr(module, "weighing", lambda w: seen.append(w) or weighing(w))
    how: dict[str, Any] = {"steps": 1, "k_max": 1.0, "k_min": 1.0, "output": "latent", "negative": "red"}
    by_word = mix(PHOTO, "red:-1 zebra tiger:2", strength=0.5, **how)
    text = seen[0].text
    assert text is not None and text.shape == (2, 77)
    assert text[0].eq(1).all()
    letters = len("zebra")  # the test's tokenizer has no word "zebra": letters, and merges among them if any
    middle = text[1, 1:-1]
    assert text[1, 0] == 1 and middle[0] == -1
    assert middle[1 : 1 + letters].eq(0.5).all() and middle[1 + letters] == 2 and text[1, 3 + letters :].eq(1).all()
    assert (by_word - mix(PHOTO, "red zebra tiger", **how)).std() > 1e-4
    assert seen[-1].text is None
    torch.testing.assert_close(mix(PHOTO, "tiger", strength=-2, **how), mix(PHOTO, "tiger:-2", **how), rtol=0, atol=0)


def test_strength_reaches_what_other_tokens_say(mix: MagicMix) -> None:
    def states(text: str, strength: float = 1.0) -> torch.Tensor:
        prompt = Prompt.of(text)
        return reached(mix.texts, prompt, mix.texts.encode(prompt.text), strength)[0]

    whole, less, nothing = (states(text) for text in ("red zebra tiger", "zebra tiger", ""))
    n = len("zebra")  # letters: the test's tokenizer does not know the word
    gone = states("red:0 zebra tiger")
    torch.testing.assert_close(gone[:2], whole[:2])  # the start, and the word's own token
    torch.testing.assert_close(gone[2 : 3 + n], less[1 : 2 + n])  # the other words, as if it were not there
    torch.testing.assert_close(gone[3 + n :], less[2 + n : -1])  # the end and the padding
    assert (whole[2:] - gone[2:]).abs().amax() > 1e-3
    torch.testing.assert_close(states("red:-1.5 zebra tiger")[2:], whole[2:] - 2.5 * (whole[2:] - gone[2:]))

    one_by_one = states("red:0 zebra tiger") + states("red zebra tiger:2") - whole
    torch.testing.assert_close(states("red:0 zebra tiger:2"), one_by_one)
    all_gone = states("red zebra tiger", 0.0)
    torch.testing.assert_close(all_gone[: 3 + n], whole[: 3 + n])
    torch.testing.assert_close(all_gone[3 + n :][:9], nothing[1:10])


def test_reach_is_of_the_words_unless_asked(mix: MagicMix) -> None:
    how: dict[str, Any] = {"steps": 2, "k_max": 1.0, "output": "latent", "guidance": 2.0}
    assert torch.equal(mix(PHOTO, "red tiger", reach="text", **how), mix(PHOTO, "red tiger", **how))
    words, text = (mix(PHOTO, "red:0 tiger", reach=reach, **how) for reach in ("words", "text"))
    assert torch.equal(mix(PHOTO, "red:0 tiger", **how), words)
    assert (words - text).std() > 1e-4


def test_nothing_is_left_behind(mix: MagicMix) -> None:
    before = dict(mix.unet.attn_processors)
    expected = mix(PHOTO, "tiger", steps=4, output="latent")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mix(PHOTO, "tiger", steps=4, strength=2, on_step=stop)
    assert not any(module._forward_hooks for module in mix.unet.modules())
    assert all(mix.unet.attn_processors[name] is was for name, was in before.items())
    assert torch.equal(mix(PHOTO, "tiger", steps=4, output="latent"), expected)


def test_threads_share_a_network(mix: MagicMix) -> None:
    strengths = [1.0, 2.0, -1.0, 0.0]
    how: dict[str, Any] = {"steps": 6, "output": "latent", "guidance": 2.0}
    alone = [mix(PHOTO, "tiger red", strength=s, seed=i, **how) for i, s in enumerate(strengths)]
    plain = mix.unet(**request()).sample.detach()
    together: list[Any] = [None] * 4
    untouched: list[float] = []

    def work(i: int) -> None:
        together[i] = mix(PHOTO, "tiger red", strength=strengths[i], seed=i, **how)

    def watch() -> None:  # a renderer on the same UNet
        for _ in range(6):
            untouched.append(float((mix.unet(**request()).sample.detach() - plain).abs().max()))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)] + [threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(untouched) == 0
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_words_and_their_strengths() -> None:
    prompt = Prompt.of("a tiger:1.5, with fur:-1 at 5:30 http://x")
    assert prompt.words == ("a", "tiger,", "with", "fur", "at", "5:30", "http://x")
    assert prompt.strengths == (None, 1.5, None, -1.0, None, None, None)
    with pytest.raises(ConfigError, match="the strength of 'fur' must be from -2"):
        Prompt.of("fur:2.5")


def test_a_text_that_is_too_long_is_told(mix: MagicMix) -> None:
    told: list[str] = []
    mix(PHOTO, "tiger " * 74 + "red zebra", steps=2, on_note=told.append)
    assert told == ["the text encoder reads 75 tokens; the text was cut before 'zebra'"]
    with pytest.warns(UserWarning, match="cut before"):
        mix(PHOTO, "tiger " * 80, steps=2)
    mix(PHOTO, "tiger " * 75, steps=2)  # just fits, and nothing is told


# --- pictures, settings and mistakes
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_photos_of_any_kind_and_size_come_back_in_their_size(mix: MagicMix, mode: str) -> None:
    photo = Image.effect_noise((31, 45), 90).convert(mode) if mode != "I;16" else Image.new(mode, (31, 45), 9)
    picture = mix(photo, "tiger", steps=2)
    assert picture.size == (31, 45) and picture.mode == "RGB"


def test_sizes() -> None:
    assert working_size((45, 31), None, 8) == ((48, 32), (45, 31))
    assert working_size((512, 1024), 96, 8) == ((64, 136), (512, 1024))
    assert working_size((45, 31), (30, 50), 8) == ((32, 48), (30, 50))
    assert working_size((1, 1000), None, 8) == ((8, 1000), (1, 1000))
    with pytest.raises(ConfigError, match="more than 4096 per side"):
        working_size((5000, 5000), None, 8)


def test_size_is_kept(mix: MagicMix) -> None:
    assert mix(PHOTO, "tiger", steps=2, size=(21, 50)).size == (50, 21)
    assert mix(PHOTO.resize((64, 32)), "tiger", steps=2, size=16).size == (64, 32)
    assert mix("red", "tiger", steps=2, size=24).size == (24, 24)
    assert mix("red", "tiger", steps=2).size == (32, 32)


def test_progress_and_previews(mix: MagicMix) -> None:
    steps: list[tuple[int, int]] = []
    shown: list[tuple[int, int, int]] = []
    mix(
        [PHOTO, "red"], "tiger", steps=5, k_min=0.2, seed=[0, 1], preview_every=3,
        on_step=lambda i, n: steps.append((i, n)), on_preview=lambda p, i, n: shown.append((len(p), i, n)),
    )  # fmt: skip
    # Two pictures from a photo: 3 calls; two from a text: 3 of the layout until its last one, and 3.
    assert steps == [(i + 1, 9) for i in range(9)]
    assert shown == [(2, 3, 9), (2, 6, 9), (2, 9, 9)]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"nu": 1.2}, "nu must be from 0"),
        ({"nu": [0.5, -1]}, "nu must be from 0"),
        ({"nu": []}, "nu is an empty list"),
        ({"nu": "high"}, "nu must be from 0"),
        ({"k_min": 0.7, "k_max": 0.6}, "k_min must not be above k_max"),
        ({"k_max": 1.5}, "k_max is a fraction"),
        ({"k_min": float("nan")}, "k_min is a fraction"),
        ({"strength": 2.1}, "strength must be from -2"),
        ({"reach": "word"}, "did you mean 'words'"),
        ({"steps": 0}, "steps must be from 1"),
        ({"steps": 2.5}, "steps must be from 1"),
        ({"guidance": -1}, "guidance must be 0 or more"),
        ({"guidance": float("inf")}, "guidance must be 0 or more"),
        ({"inject": "stat"}, "did you mean 'state'"),
        ({"output": "np"}, "output must be"),
        ({"size": (0, 8)}, "size is"),
        ({"num_images": 0}, "num_images"),
        ({"seed": -1}, "a seed is a whole number"),
        ({"seed": []}, "list of seeds is empty"),
        ({"negative": None}, "negative is a text"),
    ],
)
def test_bad_settings(mix: MagicMix, how: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as told:
        mix(PHOTO, "tiger", **how)
    assert "\n" not in str(told.value)


def test_settings_are_named_and_have_the_paper_s_defaults(mix: MagicMix) -> None:
    with pytest.raises(TypeError, match="kmax"):
        mix(PHOTO, "tiger", kmax=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean 'k_max'"):
        MixSettings.of({"kmax": 1})
    for call in (MagicMix.__call__, MagicMix.each):
        named = inspect.signature(call).parameters
        assert {field.name: named[field.name].default for field in fields(MixSettings)} == vars(MixSettings())


@pytest.mark.parametrize(
    ("layout", "content", "kind", "says"),
    [
        (PHOTO, "", OperandError, "the content is an empty text"),
        ("  ", "tiger", OperandError, "the layout is an empty text"),
        ([], "tiger", OperandError, "list of operands is empty"),
        (PHOTO, PHOTO, OperandError, "a content is a text or an Embedding here"),
        (PHOTO, "a.png", OperandError, "p.embed"),
        (PHOTO, {"tiger": 0}, OperandError, "a number other than 0"),
        (PHOTO, {}, OperandError, "the content is empty"),
        (PHOTO, ("tiger", "red"), OperandError, "made of pairs"),
        (3, "tiger", OperandError, "a layout is a text or an Embedding here, got a int"),
        ("nowhere.png", "tiger", PhotoError, "there is no file nowhere.png"),
        (torch.zeros(3, 8, 8), "tiger", OperandError, r"a latent as layout is \[4"),
        (torch.full((4, 8, 8), torch.nan), "tiger", OperandError, "NaN"),
        (PHOTO, Embedding(torch.zeros(1, 31), "x"), SpaceError, "width 32, got width 31"),
    ],
)
def test_bad_operands(mix: MagicMix, layout: Any, content: Any, kind: Any, says: str) -> None:
    with pytest.raises(kind, match=says) as told:
        mix(layout, content)
    assert "\n" not in str(told.value)


def test_overflow_and_a_full_memory_say_what_to_do(mix: MagicMix) -> None:
    def full(module: Any, args: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with ExitStack() as stack:
        stack.callback(mix.unet.register_forward_pre_hook(full).remove)
        with pytest.raises(PopsError, match="not enough memory for 1 image at once"):
            mix(PHOTO, "tiger", steps=2)
    with ExitStack() as stack:
        stack.callback(mix.unet.register_forward_hook(lambda m, a, out: (out[0] * torch.nan,)).remove)
        with pytest.raises(PopsError, match="overflowed in float32: its result holds NaN"):
            mix(PHOTO, "tiger", steps=2)


def test_a_photo_or_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PHOTO.save("thing", "PNG")
    assert is_photo("x.JPG") and is_photo("thing") and is_photo(Path("y"))
    assert not is_photo("a tiger") and not is_photo("version 1.0") and not is_photo("x" * 5000)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(folder: Path, mix: MagicMix, dtype: str) -> None:
    half = MagicMix.load(folder, dtype=dtype)
    how: dict[str, Any] = {"steps": 4, "output": "latent", "guidance": 2.0, "strength": 1.5}
    assert half.unet.dtype == getattr(torch, dtype)
    got, expected = half(PHOTO, "tiger", **how), mix(PHOTO, "tiger", **how)
    assert (got - expected).norm() < 0.1 * expected.norm()


# --- other pipelines
# ------------------------------------------------------------------------------------------


def test_a_tiny_autoencoder(mix: MagicMix) -> None:
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    shape: dict[str, Any] = {f"{part}_block_out_channels": (8, 8) for part in ("encoder", "decoder")}
    shape |= {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    vae = AutoencoderTiny(**shape, latent_channels=4).eval()
    tokenizer, text_encoder = mix.texts.pairs[0]
    parts = {"unet": mix.unet, "scheduler": mix.scheduler, "tokenizer": tokenizer, "text_encoder": text_encoder}
    small = MagicMix(**parts, vae=vae)
    pixels = torch.from_numpy(np.asarray(PHOTO).astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = vae.encode(pixels).latents[0]
    torch.testing.assert_close(small(PHOTO, "tiger", k_min=0, k_max=0, output="latent"), expected)
    assert small(PHOTO, "tiger", steps=2).size == (32, 32)
    with pytest.raises(ModelError, match="the UNet reads 4 channels, the autoencoder gives 12"):
        MagicMix(**parts, vae=AutoencoderTiny(**shape, latent_channels=12))


def test_an_autoencoder_that_names_its_latents_statistics(mix: MagicMix) -> None:
    named = copy.deepcopy(mix.vae)
    named.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.5, 2.0, 1.0])
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (named.config.latents_mean, named.config.latents_std))
    pixels = photo_latent_input(PHOTO, (32, 32))
    with torch.no_grad():
        plain, latent = encode_photo(mix.vae, pixels), encode_photo(named, pixels)
        torch.testing.assert_close(latent, plain / std - mean * named.config.scaling_factor / std)
        images = [np.asarray(decode(vae, x[None])[0]).astype(int) for vae, x in ((mix.vae, plain), (named, latent))]
    assert np.abs(images[0] - images[1]).max() <= 1


def test_folders_that_do_not_mix(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model_index.json cannot be read"):
        MagicMix.load(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "KandinskyV22Pipeline"}')
    with pytest.raises(ModelError, match="holds a KandinskyV22Pipeline; mixing works with"):
        MagicMix.load(tmp_path)
    with pytest.raises(ConfigError, match="dtype is float32"):
        MagicMix.load(folder, dtype="int8")


def test_without_an_adapter(folder: Path, mix: MagicMix, tmp_path: Path) -> None:
    import shutil

    bare = shutil.copytree(folder, tmp_path / "plain", ignore=shutil.ignore_patterns("ip_adapter"))
    plain = MagicMix.load(bare)
    assert plain.dim is None
    how: dict[str, Any] = {"steps": 3, "output": "latent"}
    torch.testing.assert_close(plain(PHOTO, "tiger", **how), mix(PHOTO, "tiger", **how), rtol=1e-5, atol=1e-5)
    with pytest.raises(OperandError, match="needs an IP-Adapter"):
        plain(PHOTO, vector())


@quiet
def test_sdxl_is_stock_image_to_image(folder: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline, UNet2DConditionModel

    base = MagicMix.load(folder)
    tokenizer = base.texts.pairs[0][0]
    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(16, 32), layers_per_block=1, attention_head_dim=8, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * DIM, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=DIM + 6 * 8,
    )  # fmt: skip
    parts = {"unet": unet, "vae": base.vae, "scheduler": base.scheduler}
    parts |= {"tokenizer": tokenizer, "text_encoder": text_tower(tokenizer, projection=False)}
    parts |= {"tokenizer_2": tokenizer, "text_encoder_2": text_tower(tokenizer, projection=True)}
    StableDiffusionXLPipeline(**parts).save_pretrained(tmp_path / "xl")
    mix = MagicMix.load(tmp_path / "xl", device="cpu")
    x0 = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    pipe = StableDiffusionXLImg2ImgPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    how: dict[str, Any] = {"k_max": 0.6, "steps": 5, "guidance": 2.5, "seed": 3, "output": "latent", "nu": 1.0}
    for negative in ("", "red"):
        expected = pipe(
            "tiger", image=x0, strength=0.6, num_inference_steps=5, guidance_scale=2.5,
            negative_prompt=negative or None, generator=torch.Generator().manual_seed(3), output_type="latent",
        ).images[0]  # fmt: skip
        torch.testing.assert_close(mix(x0, "tiger", negative=negative, **how), expected, rtol=1e-4, atol=1e-4)
    assert (mix(x0, "tiger", strength=2, **how) - mix(x0, "tiger", **how)).std() > 1e-4


# --- Pops and the command line
# ------------------------------------------------------------------------------------------


def test_pops_mixes_with_the_renderer_s_networks(random_model: Path, tmp_path: Path) -> None:
    from pops import load

    p = load(random_model, device="cpu")
    assert p.mixer().unet is p.renderer().unet and p.mixer() is p.mixer()  # type: ignore[attr-defined]
    photo, saved = tmp_path / "a.png", tmp_path / "e.safetensors"
    PHOTO.save(photo)
    vector().save(saved)
    picture = p.mix(str(photo), "tiger", steps=2, seed=3)
    recipe = picture.info["pops"]
    assert recipe["expression"] == f'mix({photo}, "tiger", steps=2)' and recipe["seeds"] == [3]
    assert list(recipe["inputs"]) == [str(photo)]
    json.dumps(recipe)
    how: dict[str, Any] = {"steps": 2, "output": "latent"}
    e = p.embed(photo)
    assert torch.equal(p.mix("red", photo, **how), p.mix("red", e, **how))
    assert torch.equal(p.mix("red", str(saved), **how), p.mix("red", vector(), **how))
    # An expression has an embedding for each seed.
    words = p.mix(PHOTO, 'text("red")', seed=[0, 1], num_images=2, **how)
    for s in (0, 1):
        e = p.evaluate('text("red")', seed=s)
        torch.testing.assert_close(words[2 * s], p.mix(PHOTO, e, seed=s, **how), rtol=1e-4, atol=1e-5)
    assert len(words) == 4


def test_the_command(random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from pops.cli.main import app
    from pops.images import read_recipe

    monkeypatch.chdir(tmp_path)
    PHOTO.save("a.png")

    def pops(*words: str) -> Any:
        return CliRunner().invoke(app, ["mix", *words, "--model", str(random_model), "--steps", "2"])

    done = pops("a.png", "tiger:0", "-o", "out.png", "--seed", "0,1", "--preset", "remove", "--nu", "0.5,1", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["outputs"] == ["out-0.png", "out-1.png"]
    made = read_recipe("out-1.png")["expression"]
    assert made == 'mix(a.png, "tiger:0", k_max=0.9, k_min=0.3, nu="0.5,1", reach=text, steps=2)'
    grid = pops("a.png", "tiger", "-o", "grid.png", "--sweep", "nu=0.1:0.9:3", "--sweep", "k-max=0.5:1:2")
    assert grid.exit_code == 0, grid.output
    sweep = [{"name": "nu", "values": [0.1, 0.5, 0.9]}, {"name": "k_max", "values": [0.5, 1.0]}]
    assert read_recipe("grid.png")["sweep"] == sweep
    for words, says in {
        ("a.png", "tiger", "-o", "a.png"): "a.png is an operand of the expression",
        ("a.png", "tiger", "-o", "b.txt"): "images are written as",
        ("a.png", "tiger", "-o", "b.png", "--nu", "2"): "nu must be from 0",
        ("a.png", "tiger", "-o", "b.png", "--preset", "stile"): "did you mean 'style'",
        ("a.png", "tiger", "-o", "b.png", "--preset", "remove"): "'tiger' has no words to remove",
        ("a.png", "tiger", "-o", "b.png", "--sweep", "k_mx=0:1:2"): "did you mean 'k_max'",
        ("a.png", "tiger", "-o", "b.png", "--sweep", "nu=0:2:2"): "nu must be from 0",
        ("a.png", "tiger", "-o", "b.png", "--sweep", "nu"): "--sweep is NAME=FIRST:LAST:COUNT",
        ("nope.png", "tiger", "-o", "b.png"): "there is no file nope.png",
    }.items():
        failed = pops(*words)
        assert failed.exit_code == 2 and says in failed.stderr, failed.output
        assert len(failed.stderr.strip().splitlines()) == 1 and not Path("b.png").exists()


def test_presets_are_settings() -> None:
    for name in PRESETS:
        MixSettings.of(preset(name))
