"""The upscaler: a small network that makes a renderer's images larger, and sharp where the renderer is blurred.

A renderer's folder may hold one, in upscaler/: config.json, the arguments of Upscaler, and model.safetensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pops.errors import ModelError, ensure
from pops.files import read_json_object, shown
from pops.loading.parts import check_files
from pops.tensors import read_tensors
from pops.weights import check_shapes

if TYPE_CHECKING:
    from PIL import Image

FOLDER = "upscaler"  # in the renderer's
CONFIG, WEIGHTS = "config.json", "model.safetensors"
LIMITS = {"channels": 4, "width": 1024, "blocks": 128, "scale": 8}  # of what a config may ask for


class Upscaler(nn.Module):
    """Enlarges images [B, channels, H, W] in 0..1 => [B, channels, scale H, scale W], not clamped.

    Convolutions of 3 x 3 at the input's size: one into `width` channels, `blocks` residual pairs with PReLU, one out to
    scale^2 values a pixel and channel, which are shuffled into place (arXiv 1609.05158) and added to the
    nearest-neighbour enlargement. The last starts at zero, so that an untrained one gives that enlargement.
    """

    def __init__(self, channels: int = 3, width: int = 64, blocks: int = 8, scale: int = 4) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(blocks)
        )
        self.act = nn.PReLU(width)
        self.last = nn.Conv2d(width, channels * scale**2, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """See the class; x in float32, whatever the network's own type is."""
        h = self.first((x - 0.5).to(self.first.weight.dtype))
        for block in self.blocks:
            h = h + block(h)
        detail = F.pixel_shuffle(self.last(self.act(h)), self.scale)
        return detail.to(x.dtype) + F.interpolate(x, scale_factor=self.scale, mode="nearest")

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> Upscaler:
        """Reads an upscaler's folder, in float32 unless dtype says otherwise.

        Raises ModelError, naming the file, where that cannot be.
        """
        folder = Path(folder)
        check_files(folder, CONFIG, WEIGHTS)
        config = read_json_object(folder / CONFIG, ModelError)
        known = {name: config.get(name) for name in LIMITS}
        for name, value in known.items():
            fine = type(value) is int and 1 <= value <= LIMITS[name]
            told = f"{shown(folder / CONFIG)}: {name} is a whole number from 1 to {LIMITS[name]}, got {value!r:.40}"
            ensure(fine, f"{told}; fetch or make it again", ModelError)
        with torch.device("meta"):
            model = cls(**known)  # type: ignore[arg-type]  # checked
        tensors, _ = read_tensors(folder / WEIGHTS)
        wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        found = {name: tuple(value.shape) for name, value in tensors.items()}
        check_shapes(wanted, found, f"{shown(folder / WEIGHTS)} does not fit {CONFIG}")
        model.load_state_dict({name: value.to(dtype or torch.float32) for name, value in tensors.items()}, assign=True)
        model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub knows no such
        return model.eval().requires_grad_(False)

    def images(self, images: Sequence[Image.Image]) -> list[Image.Image]:
        """Enlarges RGB images, `scale` times both sides, one by one; what an image's `info` holds stays."""
        from pops.diffusion.loop import images_of

        made = []
        for image in images:
            pixels = pixels_of(image).to(self.last.weight.device, memory_format=torch.channels_last)
            with torch.no_grad():
                (large,) = images_of(2 * self(pixels) - 1)
            large.info = dict(image.info)
            made.append(large)
        return made


def pixels_of(image: Image.Image) -> Tensor:
    """Converts an RGB image to pixels [1, 3, height, width] in 0..1."""
    import numpy as np

    array = np.asarray(image.convert("RGB")).astype(np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1)[None]
