"""Rendering through pops compared with the bare call of diffusers' own pipeline, on the same networks, in turn.

Both sides use the same modules, so that neither memory nor weights differ; their images are compared, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchmarks.machine import described, timed
from pops.errors import ConfigError, ensure

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from pops.progress import OnProgress
    from pops.render.base import Renderer
    from pops.render.kandinsky import KandinskyRenderer
    from pops.studio import Pops

ASKED = 1.03  # the largest ratio to the bare call's time that is acceptable
SPACE = "random-kandinsky"
# Kandinsky 2.2's decoder, narrower and shallower, at 128 x 128 pixels.
MIDDLING: Mapping[str, Any] = MappingProxyType(
    {"dim": 1280, "sample_size": 16, "unet": (96, 192, 288, 384), "cross": 768, "head": 32, "movq": (32, 64, 64, 128)}
)


@dataclass(frozen=True)
class Row:
    """One backend. pops, bare: seconds of every round; apart: the largest difference of a pixel value (of 255)."""

    name: str
    size: tuple[int, int]
    steps: int
    pictures: int
    pops: list[float]
    bare: list[float]
    apart: int

    @property
    def ratio(self) -> float:
        """Median over rounds of pops / bare; both times of a round are measured next to each other."""
        return median(ours / theirs for ours, theirs in zip(self.pops, self.bare, strict=True))


@dataclass(frozen=True)
class Report:
    """machine: see benchmarks.machine.described."""

    rounds: int
    machine: dict[str, Any]
    rows: list[Row]


@dataclass(frozen=True)
class Case:
    """A renderer through pops (ours), and the bare call that makes the same image: (steps, seed) -> image."""

    renderer: Renderer
    ours: Callable[[int, int], Image.Image]
    bare: Callable[[int, int], Image.Image]


def measure(
    p: Pops,
    *,
    steps: int = 10,
    rounds: int = 7,
    decoder: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Measures p's own renderer (Stable Diffusion), and a random Kandinsky decoder on p's device.

    decoder: its shape, None for MIDDLING. A round is one image each way, in alternating order, after an untimed one.
    """
    import torch

    ensure(steps >= 1 and rounds >= 1, f"steps and rounds must be 1 or more, got {steps} and {rounds}", ConfigError)
    device, rows = torch.device(p.model.device), []
    machine = described(device)
    cases = [stable_diffusion(p), kandinsky(p.model.device, decoder or MIDDLING)]
    for k, case in enumerate(cases):
        spent: dict[str, list[float]] = {"ours": [], "bare": []}
        apart = 0
        for turn in range(rounds + 1):
            made = {}
            for side in ("ours", "bare") if turn % 2 else ("bare", "ours"):
                seconds, made[side] = timed(partial(getattr(case, side), steps, turn), device)
                if turn:
                    spent[side].append(seconds)
            apart = max(apart, _apart(made["ours"], made["bare"]))
            if on_progress:
                on_progress(k * (rounds + 1) + turn + 1, len(cases) * (rounds + 1), case.renderer.name)
        size = made["ours"].size[::-1]
        rows.append(Row(case.renderer.name, size, steps, 1, spent["ours"], spent["bare"], apart))
    return Report(rounds, machine, rows)


def stable_diffusion(p: Pops) -> Case:
    """Returns the model's Stable Diffusion renderer, and StableDiffusionPipeline with the same modules."""
    import torch
    from diffusers import StableDiffusionPipeline

    renderer: Any = p.renderer()
    message = f"this measures a Stable Diffusion renderer, {p.name} has {renderer.name}; use tiny"
    ensure(renderer.name == "stable-diffusion", message, ConfigError)
    names = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    parts = {name: getattr(renderer.networks, name) for name in names}
    pipe = StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False, image_encoder=None
    )
    pipe.set_progress_bar_config(disable=True)
    vectors = _vector(p.space.dim)
    height, width = renderer.capabilities.native
    embeds = torch.cat([torch.zeros_like(vectors), vectors])[:, None].to(renderer.unet.device, renderer.unet.dtype)
    guidance = max(renderer.guidance, 1.5)  # both branches

    def bare(steps: int, seed: int) -> Image.Image:
        made: Image.Image = pipe(
            prompt="",
            ip_adapter_image_embeds=[embeds],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator("cpu").manual_seed(seed),
            height=height,
            width=width,
        ).images[0]
        return made

    return Case(renderer, _through(renderer, vectors, guidance), bare)


def kandinsky(device: str, shape: Mapping[str, Any]) -> Case:
    """Returns a random decoder of this shape, and KandinskyV22Pipeline with the same modules."""
    import torch
    from diffusers import KandinskyV22Pipeline

    renderer = random_kandinsky(device, shape)
    decoder, guidance = renderer.decoder(), renderer.guidance
    pipe = KandinskyV22Pipeline(unet=decoder.unet, movq=decoder.movq, scheduler=decoder.scheduler)
    pipe.set_progress_bar_config(disable=True)
    vectors, negative = _vector(decoder.dim), torch.zeros(1, decoder.dim)
    height, width = renderer.capabilities.native

    def bare(steps: int, seed: int) -> Image.Image:
        made: Image.Image = pipe(
            vectors,
            negative,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator("cpu").manual_seed(seed),
            height=height,
            width=width,
        ).images[0]
        return made

    return Case(renderer, _through(renderer, vectors, guidance), bare)


def random_kandinsky(device: str, shape: Mapping[str, Any]) -> KandinskyRenderer:
    """Returns a renderer with a decoder of random weights, the same every time."""
    import torch
    from diffusers import DDPMScheduler, UNet2DConditionModel, VQModel

    from pops.diffusion.kandinsky_folder import Decoder
    from pops.render.base import RendererOptions
    from pops.render.kandinsky import KandinskyRenderer

    levels, movq_levels = len(shape["unet"]), len(shape["movq"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=shape["sample_size"],
            in_channels=4,
            out_channels=8,
            addition_embed_type="image",
            down_block_types=("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * (levels - 1),
            up_block_types=("SimpleCrossAttnUpBlock2D",) * (levels - 1) + ("ResnetUpsampleBlock2D",),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            block_out_channels=shape["unet"],
            layers_per_block=1,
            encoder_hid_dim=shape["dim"],
            encoder_hid_dim_type="image_proj",
            cross_attention_dim=shape["cross"],
            attention_head_dim=shape["head"],
            resnet_time_scale_shift="scale_shift",
        )
        movq = VQModel(
            block_out_channels=shape["movq"],
            down_block_types=("DownEncoderBlock2D",) * (movq_levels - 1) + ("AttnDownEncoderBlock2D",),
            up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (movq_levels - 1),
            latent_channels=4,
            layers_per_block=1,
            num_vq_embeddings=64,
            vq_embed_dim=4,
            norm_type="spatial",
        )
    scheduler = DDPMScheduler(
        beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, variance_type="learned_range"
    )
    for network in (unet, movq):
        network.to(device).eval().requires_grad_(False)
    decoder = Decoder(unet, movq, scheduler)
    options = RendererOptions(SPACE, device)
    return KandinskyRenderer({None: decoder}, options=options, zero_image=lambda: torch.zeros(1, shape["dim"]))


def _through(renderer: Renderer, vectors: torch.Tensor, guidance: float) -> Callable[[int, int], Image.Image]:
    """Returns what Pops.render does with an embedding, checks and recipe included."""
    from pops.embedding import Embedding
    from pops.recipe import Rendering
    from pops.rendering import render_rows

    embedding = Embedding(vectors, renderer.capabilities.space)

    def ours(steps: int, seed: int) -> Image.Image:
        asked = Rendering(steps=steps, guidance=guidance, guidance_interval=(0, 1))  # as the stock one
        made: Image.Image = render_rows(renderer, embedding, asked, (), seeds=[seed], copies=range(1))[0]
        return made

    return ours


def _vector(dim: int) -> torch.Tensor:
    import torch

    return torch.randn(1, dim, generator=torch.Generator().manual_seed(0))


def _apart(a: Image.Image, b: Image.Image) -> int:
    import numpy as np

    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


# --- the report ----------------------------------------------------------------------------------------------------


def figures(report: Report) -> dict[str, Any]:
    """Returns the report as plain values, each row with its ratio."""
    rows = [{**asdict(row), "ratio": row.ratio} for row in report.rows]
    return {"rounds": report.rounds, "machine": report.machine, "rows": rows}


def markdown(report: Report) -> str:
    """Returns the report as a Markdown table: medians in seconds, and the ratio."""
    m = report.machine
    lines = [
        "One image through pops (checks and recipe included) compared with the bare call of diffusers' pipeline, the",
        f"same networks on both sides, in turn in one run: medians of {report.rounds} rounds, and of their ratios; the",
        f"goal is a ratio of at most {ASKED:.2f}. {m['processor']}, {m['device']}, threads: {m['threads']}; torch",
        f"{m['torch']}, diffusers {m['diffusers']}.",
        "",
        "| renderer | size | steps | bare, s | pops, s | ratio | pixels differ by |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report.rows:
        size = f"{row.size[0]} x {row.size[1]}"
        times = f"{median(row.bare):.3f} | {median(row.pops):.3f} | {row.ratio:.3f}"
        lines.append(f"| {row.name} | {size} | {row.steps} | {times} | {row.apart} of 255 |")
    return "\n".join(lines) + "\n"
