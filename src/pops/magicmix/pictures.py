"""Between pictures and latents: a layout's latent, and the pictures of finished ones. Knows no UNet and no text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pops.errors import OperandError, PopsError, ensure
from pops.magicmix.operands import Layout

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


def encode_photo(vae: Any, pixels: Tensor) -> Tensor:
    """[1, 3, height, width] from -1 to 1 => [C, h, w], float32: the mode, and no draw from the posterior."""
    encoded = vae.encode(pixels.to(vae.device, vae.dtype))
    mode = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    latent: Tensor = mode[0].float() * vae.config.scaling_factor
    return latent


def decode(vae: Any, latents: Tensor) -> list[Image.Image]:
    """Latents [B, C, h, w] -> B pictures (8-bit sRGB), rounded as diffusers' VaeImageProcessor rounds."""
    from PIL import Image

    latents = (latents / vae.config.scaling_factor).to(vae.dtype)
    pixels = vae.decode(latents, return_dict=False)[0].float()
    ensure(bool(pixels.isfinite().all()), overflow(vae.dtype), PopsError)
    array = ((pixels * 0.5 + 0.5).clamp(0, 1).cpu().permute(0, 2, 3, 1).numpy() * 255).round().astype("uint8")
    return [Image.fromarray(a) for a in array]


def latent_layout(given: Tensor, channels: int, factor: int, device: Any) -> Layout:
    """A latent [C, h, w] as output="latent" gives it, checked; factor: pixels a latent."""
    latent = given[0] if given.ndim == 4 and len(given) == 1 else given
    fits = latent.ndim == 3 and len(latent) == channels and min(latent.shape) >= 1
    wanted = f"[{channels}, height / {factor}, width / {factor}]"
    ensure(fits, f"a latent as layout is {wanted}, got {list(given.shape)}", OperandError)
    x0 = latent.detach().to(device).float()
    ensure(bool(x0.isfinite().all()), "the layout's latent holds NaN or infinity; make it again", OperandError)
    return Layout((len(x0), x0.shape[1], x0.shape[2]), x0)


def overflow(dtype: Any) -> str:
    """What is said of numbers that are none."""
    return f"the numbers of the mix overflowed in {dtype}; load the model with dtype float32"


def resized(picture: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """The picture in (width, height), None: as it is."""
    from PIL import Image

    if size is None or picture.size == size:
        return picture
    return picture.resize(size, Image.Resampling.LANCZOS)
