"""A prior of the real shape and random weights, for measurements: in memory, and as a folder. Knows no samplers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.prior.config import PriorConfig
from pops.prior.tensors import INDEX_FILE

if TYPE_CHECKING:
    from torch import Tensor

# Kandinsky 2.2's, but for the number of layers (20): 1.03 B parameters.
FULL: Mapping[str, Any] = {
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "embedding_dim": 1280,
    "num_embeddings": 77,
}


def settings(layers: int, shape: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns diffusers' config of a PriorTransformer with so many layers; shape: None for FULL."""
    return {"_class_name": "PriorTransformer", **(FULL if shape is None else shape), "num_layers": layers}


class RandomTensors(Mapping[str, "Tensor"]):
    """A prior's tensors by name, drawn when asked for, each from its own seed, as torch initialises its layers.

    Matrices and biases uniform in +-1 / sqrt(in), norms ones and zeros, positions and query normal with std 0.02, and
    the statistics of a standardised space.
    """

    def __init__(self, config: PriorConfig, seed: int = 0) -> None:
        self.shapes, self.seed = config.shapes, seed

    def __getitem__(self, name: str) -> Tensor:
        import torch

        from pops.training.data import seed_of

        shape = self.shapes[name]
        stem, _, leaf = name.rpartition(".")
        gen = torch.Generator().manual_seed(seed_of(self.seed, name, 0))
        if name == "clip_std" or (leaf == "weight" and len(shape) == 1):
            return torch.ones(shape)
        if name == "clip_mean" or (leaf == "bias" and len(self.shapes[f"{stem}.weight"]) == 1):
            return torch.zeros(shape)
        if leaf in ("weight", "bias"):
            bound = self.shapes[f"{stem}.weight"][1] ** -0.5
            return torch.empty(shape).uniform_(-bound, bound, generator=gen)
        return torch.empty(shape).normal_(std=0.02, generator=gen)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def count(config: PriorConfig) -> int:
    """Returns the number of parameters of a prior, its statistics included."""
    import math

    return sum(math.prod(shape) for shape in config.shapes.values())


def write_folder(config: Mapping[str, Any], folder: Path) -> None:
    """Writes the random prior in diffusers' layout, float32, one file per block, without holding it in memory."""
    from safetensors.torch import save_file

    tensors = RandomTensors(PriorConfig.of(config))
    parts: dict[str, list[str]] = {}
    for name in tensors:
        block = name.split(".")[1] if name.startswith("transformer_blocks.") else "ends"
        parts.setdefault(f"prior-{block}.safetensors", []).append(name)
    folder.mkdir(parents=True, exist_ok=True)
    for file, names in parts.items():
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
    where = {name: file for file, names in parts.items() for name in names}
    index = {"metadata": {"total_size": 4 * count(PriorConfig.of(config))}, "weight_map": where}
    (folder / INDEX_FILE).write_text(json.dumps(index), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
