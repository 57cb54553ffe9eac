"""A classifier of the world's images: object (left and right), material, scene, adjective.

Knows nothing of how images are made: it reads a renderer's images as it does toybox's own. Its weights come from
`recipes/tiny/oracle.py`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pops.toybox.adjectives import ADJECTIVES
from pops.toybox.materials import MATERIALS
from pops.toybox.objects import CATEGORIES
from pops.toybox.packed import unpack
from pops.toybox.scenes import SCENES

WEIGHTS = Path(__file__).parent / "oracle.safetensors"

HEADS: dict[str, tuple[str, ...]] = {  # the last class of every head, one more than its names, is "none"
    "object": tuple(CATEGORIES),
    "object_b": tuple(CATEGORIES),
    "material": tuple(MATERIALS),
    "material_b": tuple(MATERIALS),
    "scene": tuple(SCENES),
    "adjective": tuple(ADJECTIVES),
}


_PLACED = ("object", "object_b")  # heads that look at where things are


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.b = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.na, self.nb = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.nb(self.b(torch.relu(self.na(self.a(x))))))


def _step(inputs: int, width: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, width, kernel, stride, padding, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def _reader(inputs: int, outputs: int) -> nn.Module:
    """Returns a head with one hidden layer, since how a material looks depends on the object that has it."""
    return nn.Sequential(nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, outputs))


class Oracle(nn.Module):
    """Images [B, 3, 96, 96] in 0..1 => logits by head.

    The objects are read from a coarse map, since left and right matter; materials from averages and maxima over the
    image, so that a material is recognised on an object that never had it in training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(*_step(3, 48, 6, 4, 1), _Block(48), *_step(48, 96, 3, 2, 1), _Block(96), _Block(96))
        self.coarse = nn.Sequential(*_step(96, 160, 3, 2, 1), _Block(160), _Block(160))
        self.place = nn.Linear(160 * 9, 256)
        self.drop = nn.Dropout(0.2)
        looks = 2 * 96 + 2 * 160
        self.heads = nn.ModuleDict(
            {
                name: nn.Linear(256, len(names) + 1) if name in _PLACED else _reader(256 + looks, len(names) + 1)
                for name, names in HEADS.items()
            }
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.fine(x * 2 - 1)
        coarse = self.coarse(fine)
        place = torch.relu(self.place(nn.functional.adaptive_avg_pool2d(coarse, 3).flatten(1)))
        looks = torch.cat([fine.mean((2, 3)), fine.amax((2, 3)), coarse.mean((2, 3)), coarse.amax((2, 3)), place], 1)
        place, looks = self.drop(place), self.drop(looks)
        return {name: head(place if name in _PLACED else looks) for name, head in self.heads.items()}

    @staticmethod
    def load(path: Path = WEIGHTS) -> Oracle:
        """Returns the trained oracle; FileNotFoundError if its weights are missing."""
        oracle = Oracle()
        oracle.load_state_dict(unpack(load_file(path)))
        return oracle.eval()

    @torch.no_grad()
    def read(self, images: Tensor) -> list[dict[str, str]]:
        """Reads uint8 [N, 3, 96, 96] => for each image the most likely name by head ("" for none)."""
        rows: list[dict[str, str]] = []
        for batch in images.split(64):
            found = {k: v.argmax(1).tolist() for k, v in self(batch.float() / 255).items()}
            for i in range(len(batch)):
                rows.append({k: (*HEADS[k], "")[found[k][i]] for k in HEADS})
        return rows
