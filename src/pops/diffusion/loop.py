"""What the diffusion renderers share: batches of one call, a scheduler's arguments, offload, previews, pixels.

Knows no network and no folder; every function takes what it works on.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pops.errors import ConfigError, PopsError, ensure
from pops.render.base import OnStep, RenderOptions

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor


def batches_of(count: int, most: int) -> list[range]:
    """The rows 0 .. count - 1 of a call in batches of at most `most`, in order."""
    return [range(i, min(i + most, count)) for i in range(0, count, most)]


def steps_of_call(on_step: OnStep | None, batch: int, batches: int) -> OnStep | None:
    """on_step of the whole call as on_step of its batch number `batch`, of `batches` with equally many steps."""
    if on_step is None:
        return None
    return lambda done, total: on_step(batch * total + done, batches * total)


def step_options(scheduler: Any, gens: Sequence[torch.Generator]) -> dict[str, Any]:
    """What this scheduler's step() takes beside the sample: eta (DDIM's, 0), a generator a picture."""
    takes = inspect.signature(scheduler.step).parameters
    return ({"eta": 0.0} if "eta" in takes else {}) | ({"generator": list(gens)} if "generator" in takes else {})


def check_guidance(guidance: float) -> None:
    """ConfigError unless it is a finite number, 0 or more."""
    fine = math.isfinite(guidance) and guidance >= 0
    ensure(fine, f"the renderer's guidance must be 0 or more, got {guidance}", ConfigError)


def check_finite(latents: Tensor) -> None:
    """PopsError for latents that overflowed, as those of a float16 network may."""
    import torch

    if not bool(torch.isfinite(latents).all()):
        raise PopsError(f"the renderer's numbers overflowed in {latents.dtype}; load the model with dtype float32")


@contextmanager
def memory_told(count: int, size: tuple[int, int]) -> Iterator[None]:
    """Says in one line that memory was too small for `count` pictures of `size` (height, width) at once."""
    try:
        yield
    except (MemoryError, RuntimeError) as e:  # torch.OutOfMemoryError is a RuntimeError
        if isinstance(e, MemoryError) or "memory" in str(e).lower():
            raise PopsError(
                f"not enough memory for {count} pictures of {size[0]}x{size[1]} at once; "
                "ask for fewer or smaller pictures"
            ) from e
        raise


@contextmanager
def on_device(network: Any, device: str | torch.device, offload: bool) -> Iterator[Any]:
    """The network on the device; with offload only inside, and back on the CPU whatever happens there."""
    if not offload:
        yield network
        return
    network.to(device)
    try:
        yield network
    finally:
        network.to("cpu")


def preview_due(options: RenderOptions, done: int, total: int) -> bool:
    """Whether on_preview is to be called after step `done` of a batch's `total`: every few, and not after the last."""
    return options.on_preview is not None and done < total and done % max(1, options.preview_every) == 0


def pictures_of(pixels: Tensor) -> list[Image.Image]:
    """Pixels [B, 3, h, w] in -1 .. 1 -> B pictures (8-bit sRGB), rounded as diffusers rounds."""
    from PIL import Image

    unit = (pixels * 0.5 + 0.5).clamp(0, 1)
    array = (unit.cpu().permute(0, 2, 3, 1).float().numpy() * 255).round().astype("uint8")
    return [Image.fromarray(a) for a in array]
