"""The silhouette reader: where things stand in an image of the world, read from the image alone.

Trained on toybox's images only (recipes/tiny/depth.py). It measures renderers' images, whose exact masks are not known.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pops.toybox.packed import unpack

WEIGHTS = Path(__file__).parent / "silhouette.safetensors"


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(4, outputs), nn.SiLU(inplace=True)
    )


class Silhouette(nn.Module):
    """Images [B, 3, S, S] in 0..1 => logits [B, 1, S, S]: is this pixel an object's. S a multiple of 16. A U-Net
    (arXiv 1505.04597).
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        w = width
        self.first = _layer(3, w, 2)
        self.down = nn.ModuleList([_layer(w, 2 * w, 2), _layer(2 * w, 3 * w, 2), _layer(3 * w, 4 * w, 2)])
        self.deep = nn.Sequential(_layer(4 * w, 4 * w), _layer(4 * w, 4 * w))
        self.up = nn.ModuleList([_layer(7 * w, 3 * w), _layer(5 * w, 2 * w), _layer(3 * w, w)])
        self.last = nn.Conv2d(w + 3, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        unit = x * 2 - 1
        kept = [self.first(unit)]
        for layer in self.down:
            kept.append(layer(kept[-1]))
        h = self.deep(kept.pop())
        for layer in self.up:
            h = layer(torch.cat([_twice(h), kept.pop()], 1))
        out: Tensor = self.last(torch.cat([_twice(h), unit], 1))
        return out

    @staticmethod
    def load(path: Path = WEIGHTS) -> Silhouette:
        """Returns the trained reader; FileNotFoundError if its weights are missing."""
        reader = Silhouette()
        reader.load_state_dict(unpack(load_file(path)))
        return reader.eval()

    @torch.no_grad()
    def read(self, images: Tensor) -> Tensor:
        """Reads uint8 [N, 3, S, S] => bool [N, S, S], True where an object is."""
        return torch.cat([self(batch.float() / 255)[:, 0] > 0 for batch in images.split(64)])


def _twice(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2, mode="bilinear")


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Returns intersection over union of silhouettes bool [N, S, S] => [N]; 1 where both are empty."""
    either = (a | b).sum((1, 2))
    return torch.where(either > 0, (a & b).sum((1, 2)) / either.clamp_min(1), torch.ones(()))
