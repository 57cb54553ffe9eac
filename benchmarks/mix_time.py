"""Time of a mix compared with diffusers' own image-to-image, with as many calls of the same networks."""

from __future__ import annotations

import statistics
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.machine import described, timed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

    from pops.magicmix.mix import MagicMix
    from pops.studio import Pops

STEPS, K_MAX = 50, 0.6
CONTENT = "a tiger"
K_MAXES = (0.3, 0.6, 1.0)  # noisier steps than k_max are not computed


def measure(p: Pops, *, rounds: int = 7, steps: int = STEPS) -> dict[str, Any]:
    """Times a mix and a stock run in turn, after an untimed one of each; returns seconds and the median ratio."""
    from pops.toybox.draw import render
    from pops.toybox.words import parse_caption

    mixer = p.mixer()
    side = int(p.model.files.info.get("size", mixer.native[0]))
    layout = render(parse_caption("a rabbit", seed=1), side)
    guidance = float(p.model.files.info.get("guidance", 7.5))
    how: dict[str, Any] = {"steps": steps, "k_max": K_MAX, "guidance": guidance, "size": side}
    stock = _stock(mixer)

    def ours() -> Any:
        return mixer(layout, CONTENT, **how)

    def theirs() -> Any:
        return stock(layout, guidance, steps)

    with _counted(mixer) as calls:
        ours()
        own = calls[0]
        theirs()
        public = calls[0] - own
    seconds: dict[str, list[float]] = {"mix": [], "stock": []}
    for _ in range(rounds):
        seconds["mix"].append(timed(ours, mixer.unet.device)[0])
        seconds["stock"].append(timed(theirs, mixer.unet.device)[0])
    ratios = [a / b for a, b in zip(seconds["mix"], seconds["stock"], strict=True)]
    return {
        "model": p.name,
        "steps": steps,
        "network_calls": {"mix": own, "stock": public},
        "seconds": {name: statistics.median(each) for name, each in seconds.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "k_max": [_at(mixer, layout, {**how, "k_max": k, "k_min": min(k, 0.3)}) for k in K_MAXES],
        "machine": described(mixer.unet.device),
    }


def _at(mixer: MagicMix, layout: Image.Image, how: dict[str, Any]) -> dict[str, Any]:
    with _counted(mixer) as calls:
        seconds, _ = timed(lambda: mixer(layout, CONTENT, **how), mixer.unet.device)
    return {"k_max": how["k_max"], "network_calls": calls[0], "seconds": seconds}


def _stock(mixer: MagicMix) -> Any:
    """Returns StableDiffusionImg2ImgPipeline on the mixer's own networks; an IP-Adapter, if any, gets zeros."""
    import torch
    from diffusers import StableDiffusionImg2ImgPipeline

    tokenizer, text_encoder = mixer.texts.pairs[0]
    pipe = StableDiffusionImg2ImgPipeline(
        unet=mixer.unet,
        vae=mixer.vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=type(mixer.scheduler).from_config(mixer.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    image: dict[str, Any] = {}
    if mixer.dim is not None:
        zeros = torch.zeros(2, 1, mixer.dim, device=mixer.unet.device, dtype=mixer.unet.dtype)
        image["ip_adapter_image_embeds"] = [zeros]

    def run(layout: Image.Image, guidance: float, steps: int) -> Any:
        return pipe(
            CONTENT, layout, strength=K_MAX, num_inference_steps=steps, guidance_scale=guidance, **image,
            generator=torch.Generator().manual_seed(0),
        ).images[0]  # fmt: skip

    return run


@contextmanager
def _counted(mixer: MagicMix) -> Iterator[list[int]]:
    """Counts the UNet's calls within the block, in a list of one number."""
    calls = [0]

    def count(module: Any, args: Any) -> None:
        calls[0] += 1

    handle = mixer.unet.register_forward_pre_hook(count)
    try:
        yield calls
    finally:
        handle.remove()


def table(found: dict[str, Any]) -> str:
    """Returns the report as Markdown."""
    seconds, calls = found["seconds"], found["network_calls"]
    lines = [
        f"One mix on `{found['model']}` at {found['steps']} steps compared with diffusers' image-to-image, in turn "
        f"({len(found['ratios'])} rounds):",
        "",
        "| | network calls | seconds (median) |",
        "|---|---|---|",
        f"| pops mix | {calls['mix']} | {seconds['mix']:.3f} |",
        f"| StableDiffusionImg2ImgPipeline | {calls['stock']} | {seconds['stock']:.3f} |",
        "",
        f"Median ratio {found['ratio']:.3f} (from {min(found['ratios']):.3f} to {max(found['ratios']):.3f}).",
        "",
        "| k_max | network calls | seconds |",
        "|---|---|---|",
        *(f"| {row['k_max']:g} | {row['network_calls']} | {row['seconds']:.3f} |" for row in found["k_max"]),
    ]
    return "\n".join(lines) + "\n"
