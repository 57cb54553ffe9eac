"""Latents: of photos, to images, and in files, where a mix is kept to be the layout of another. Knows no UNet.

A latent has a meaning only for the autoencoder that made it. So its file keeps the standard deviations of some of the
autoencoder's layers: the same in every precision, and different in another autoencoder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.diffusion.loop import decoded, images_of, scaled
from pops.errors import OperandError, PopsError, ensure, shown
from pops.files import expanded, is_file, parse_json, write_whole
from pops.tensors import opened

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from PIL import Image
    from torch import Tensor

FORMAT, VERSION, KEY, SUFFIX = "pops.latent", "1", "latent", ".safetensors"
SAME = 0.01  # two autoencoders are the same where the spreads of their layers differ by less; rounding is far below


def encode_photo(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Encodes pixels [1, 3, height, width] in -1 .. 1 to a latent [C, h, w], float32: the posterior's mode."""
    encoded = vae.encode(pixels.to(vae.device, vae.dtype))
    mode = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    return scaled(vae, mode.float())[0]


def decode(vae: AutoencoderKL, latents: Tensor) -> list[Image.Image]:
    """Decodes latents [B, C, h, w], float32, to B images (8-bit sRGB)."""
    return images_of(decoded(vae, latents).float())


def save_latent(
    latent: Tensor, path: str | Path, *, vae: AutoencoderKL, provenance: Mapping[str, Any] | None = None
) -> None:
    """Writes a latent [C, h, w] of this autoencoder; OperandError for another shape, NaN, or another suffix."""
    from safetensors.torch import save

    path = Path(path)
    ensure(path.suffix.lower() == SUFFIX, f"{path}: a latent's file ends in {SUFFIX}", OperandError)
    channels = vae.config.latent_channels
    fits = latent.ndim == 3 and len(latent) == channels and bool(latent.isfinite().all())
    told = f"a latent to save is [{channels}, h, w] of finite numbers, got {list(latent.shape)}"
    ensure(fits, told, OperandError)
    about = {"format": FORMAT, "version": VERSION, "spreads": json.dumps(spreads(vae))}
    about["provenance"] = json.dumps(dict(provenance or {}), default=str)
    content = save({KEY: latent.detach().float().cpu().contiguous()}, about)
    with write_whole(path) as temporary:
        temporary.write_bytes(content)


def is_latent(path: str | Path) -> bool:
    """Whether it is a file that `save_latent` wrote."""
    where = expanded(path)
    if where.suffix.lower() != SUFFIX or not is_file(where):
        return False
    try:
        with opened(where) as file:
            return file.metadata.get("format") == FORMAT
    except PopsError:
        return False


def load_latent(path: str | Path, *, vae: AutoencoderKL) -> Tensor:
    """Reads a latent [C, h, w], float32; OperandError for that of another autoencoder, or another shape."""
    with opened(path, OperandError, "save it again") as file:
        about, latent = file.metadata, file.read(KEY)
    try:
        theirs, made = parse_json(about["spreads"]), parse_json(about["provenance"])
        good = isinstance(theirs, list) and all(type(spread) in (int, float) for spread in theirs)
    except (KeyError, ValueError) as e:
        raise OperandError(f"{shown(path)} holds no latent that can be read ({e}); save it again") from e
    ensure(good and latent.is_floating_point(), f"{shown(path)} holds no latent of pops; save it again", OperandError)
    version = about.get("version")
    ensure(version == VERSION, f"{path} has version {version}, this pops reads {VERSION}; update pops", OperandError)
    channels = vae.config.latent_channels
    fits = latent.ndim == 3 and len(latent) == channels and latent.numel() > 0
    told = f"{path} holds a latent {list(latent.shape)}, this model's are [{channels}, h, w]"
    ensure(fits, f"{told}; use the model that made it{_named(made)}", OperandError)
    ours = spreads(vae)
    same = len(ours) == len(theirs) and all(math.isclose(a, b, rel_tol=SAME) for a, b in zip(ours, theirs))
    told = f"{path} holds a latent of another model's autoencoder{_named(made)}"
    ensure(same, f"{told}; use that model, or the image instead of the latent", OperandError)
    ensure(bool(latent.isfinite().all()), f"{shown(path)} holds NaN or infinity; save it again", OperandError)
    return latent


def spreads(vae: AutoencoderKL) -> list[float]:
    """Returns the standard deviations of four of the autoencoder's layers, the first and the last among them."""
    layers = [weight for weight in vae.parameters() if weight.ndim > 1]
    return [float(layers[(len(layers) - 1) * k // 3].detach().float().std()) for k in range(4)]


def _named(made: object) -> str:
    """Names the model that made a latent, for a message; "" if the file does not say."""
    return f" ({shown(made['model'], 60)})" if isinstance(made, Mapping) and made.get("model") else ""
