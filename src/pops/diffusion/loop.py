"""What the loops of renderers and of mixing share: batches, offload, previews, latents and pixels.

Knows no network and no folder; every function takes what it works on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pops.diffusion.checks import check_finite

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from PIL import Image
    from torch import Tensor


def batches_of(count: int, most: int) -> list[range]:
    """Returns the rows 0 .. count - 1 of a call in batches of at most `most`, in order."""
    return [range(i, min(i + most, count)) for i in range(0, count, most)]


@contextmanager
def on_device(network: Any, device: str | torch.device, offload: bool) -> Iterator[Any]:
    """Yields the network on the device; with offload it is there only inside, and goes back to the CPU."""
    if not offload:
        yield network
        return
    network.to(device)
    try:
        yield network
    finally:
        network.to("cpu")


def preview_due(done: int, total: int, every: int) -> bool:
    """Whether a preview is shown after step `done` of a batch's `total`: after every few steps, not after the last."""
    return done < total and done % max(1, every) == 0


def pixels_per_latent(vae: AutoencoderKL) -> int:
    """Returns how many pixels of a side one latent stands for."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def native_size(unet: UNet2DConditionModel, factor: int) -> tuple[int, int]:
    """Returns the (height, width) in pixels that the UNet was trained for. factor: pixels per latent."""
    sample = unet.config.sample_size or 64
    height, width = (sample, sample) if isinstance(sample, int) else sample
    return height * factor, width * factor


# The image is whole, and of the size it was asked for: arXiv 2307.01952 section 2.2.
def time_ids(size: tuple[int, int], rows: int, device: str | torch.device, dtype: torch.dtype) -> Tensor:
    """Returns SDXL's size condition [rows, 6]: original (height, width), corner (top, left), target (height, width)."""
    import torch

    return torch.tensor([[*size, 0, 0, *size]] * rows, device=device, dtype=dtype)


# The embedding of w - 1 that latent consistency distillation adds to the timestep's: arXiv 2310.04378 section 4.3, in
# the arithmetic of diffusers' get_guidance_scale_embedding.
def guidance_embedding(guidance: float, width: int) -> Tensor:
    """Returns the guidance scale as a distilled UNet reads it [1, width], float32."""
    import torch

    half = width // 2
    w = torch.tensor(guidance - 1).repeat(1) * 1000.0
    rate = torch.exp(torch.arange(half, dtype=torch.float32) * -(torch.log(torch.tensor(10000.0)) / (half - 1)))
    angles = w.to(torch.float32)[:, None] * rate[None, :]
    embedding = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
    return torch.nn.functional.pad(embedding, (0, 1)) if width % 2 else embedding


# Guidance in a limited interval, arXiv 2404.07724: at the beginning it costs variety, at the end it changes little. The
# interval is counted in steps, as diffusers' guiders count theirs.
def guided_steps(interval: tuple[float, float], total: int) -> range:
    """Returns which of `total` steps are guided, from 0. interval: (start, stop), shares of the steps."""
    start, stop = interval
    return range(int(start * total), int(stop * total))


# --- latents and pixels


def scaled(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Brings what the autoencoder encoded to the UNet's scaled space."""
    known, factor = _statistics(vae, latents), float(vae.config.scaling_factor)
    return (latents - known[0]) * factor / known[1] if known else latents * factor


def decoded(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decodes latents [B, C, h, w] of the UNet's scaled space to pixels [B, 3, H, W] in -1 .. 1."""
    known, factor = _statistics(vae, latents), float(vae.config.scaling_factor)
    unscaled = latents * known[1] / factor + known[0] if known else latents / factor  # in the order of stock diffusers
    pixels: Tensor = vae.decode(unscaled.to(vae.dtype), return_dict=False)[0]
    check_finite(pixels)
    return pixels


def images_of(pixels: Tensor) -> list[Image.Image]:
    """Converts pixels [B, 3, H, W] in -1 .. 1 to B images (8-bit sRGB), rounded as diffusers rounds."""
    from PIL import Image

    unit = (pixels * 0.5 + 0.5).clamp(0, 1)
    array = (unit.cpu().permute(0, 2, 3, 1).float().numpy() * 255).round().astype("uint8")
    return [Image.fromarray(a) for a in array]


def _statistics(vae: AutoencoderKL, like: Tensor) -> tuple[Tensor, Tensor] | None:
    """Returns the mean and the standard deviation [1, C, 1, 1] of the latents, which some autoencoders of SDXL name."""
    import torch

    mean, std = getattr(vae.config, "latents_mean", None), getattr(vae.config, "latents_std", None)
    if mean is None or std is None:
        return None
    return torch.tensor(mean).view(1, -1, 1, 1).to(like), torch.tensor(std).view(1, -1, 1, 1).to(like)
