"""A classifier of the world's pictures: object (left and right), material, scene, adjective.

Knows nothing of how pictures were made: it judges a renderer's pictures as it does toybox's own. Its weights come from
`recipes/tiny/oracle.py`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from toybox.adjectives import ADJECTIVES
from toybox.materials import MATERIALS
from toybox.objects import CATEGORIES
from toybox.scenes import SCENES

WEIGHTS = Path(__file__).parent / "oracle.safetensors"

HEADS: dict[str, tuple[str, ...]] = {  # the last class of every head, one more than its names, is "none"
    "object": tuple(CATEGORIES),
    "object_b": tuple(CATEGORIES),
    "material": tuple(MATERIALS),
    "material_b": tuple(MATERIALS),
    "scene": tuple(SCENES),
    "adjective": tuple(ADJECTIVES),
}


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.b = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.na, self.nb = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.nb(self.b(torch.relu(self.na(self.a(x))))))


class Oracle(nn.Module):
    """Pictures [B, 3, 96, 96] in 0..1 => logits by head. Keeps a 3 x 3 map to the end: left and right matter."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 96, 160)
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 4, stride=4, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for k, width in enumerate(widths):
            if k:
                layers += [
                    nn.Conv2d(widths[k - 1], width, 3, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
            layers.append(_Block(width))
        self.body = nn.Sequential(*layers)
        self.mix = nn.Linear(widths[-1] * 9, 256)
        self.heads = nn.ModuleDict({name: nn.Linear(256, len(names) + 1) for name, names in HEADS.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = torch.relu(self.mix(self.body(x * 2 - 1).flatten(1)))
        return {name: head(h) for name, head in self.heads.items()}

    @staticmethod
    def load(path: Path = WEIGHTS) -> Oracle:
        """The trained oracle; FileNotFoundError where its weights are not."""
        oracle = Oracle()
        oracle.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
        return oracle.eval()

    @torch.no_grad()
    def read(self, images: Tensor) -> list[dict[str, str]]:
        """uint8 [N, 3, 96, 96] => for each picture the most likely name by head ("" for none)."""
        rows: list[dict[str, str]] = []
        for batch in images.split(64):
            said = {k: v.argmax(1).tolist() for k, v in self(batch.float() / 255).items()}
            for i in range(len(batch)):
                rows.append({k: (*HEADS[k], "")[said[k][i]] for k in HEADS})
        return rows
