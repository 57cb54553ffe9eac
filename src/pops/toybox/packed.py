"""How the weights of oracle and silhouette reader are stored: large tensors as int8, half the size of float16."""

from __future__ import annotations

import torch
from torch import Tensor

LARGE = 10_000  # elements from which a weight is packed
_SCALE = ".scale"


def pack(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Packs a state dict for a file: large weights as int8 with a scale per output, the rest as float16."""
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        if value.numel() < LARGE:
            out[key] = value.half() if value.is_floating_point() else value
            continue
        scale = value.float().flatten(1).abs().amax(1).clamp_min(1e-8) / 127
        out[key] = (value.float() / _rows(scale, value)).round().to(torch.int8)
        out[key + _SCALE] = scale
    return out


def unpack(kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns what `pack` packed, as float32."""
    out: dict[str, Tensor] = {}
    for key, value in kept.items():
        if key + _SCALE in kept:
            out[key] = value.float() * _rows(kept[key + _SCALE], value)
        elif not key.endswith(_SCALE):
            out[key] = value.float() if value.is_floating_point() else value
    return out


def _rows(scale: Tensor, value: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (value.ndim - 1))
