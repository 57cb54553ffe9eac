"""Tensors by name, each read or computed when it is asked for: files, and views of other tensors. Knows no models.

A full-size prior is four gigabytes: code that takes one tensor, packs it and drops it never holds a second copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pops.errors import ModelError, ensure
from pops.files import read_json_object
from pops.tensors import opened

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
INDEX_FILE = WEIGHTS_FILE + ".index.json"


class TensorFiles(Mapping[str, "Tensor"]):
    """The tensors of safetensors files; of several with one name, the first file's."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self._where: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in paths:
            with opened(path) as file:
                for name, shape in file.shapes.items():
                    if name not in self._where:
                        self._where[name] = path
                        self.shapes[name] = shape

    @classmethod
    def of_folder(cls, folder: Path) -> TensorFiles:
        """Opens a diffusers model's folder: one file, or the shards that its index names. ModelError without either."""
        if (folder / WEIGHTS_FILE).is_file():
            return cls(folder / WEIGHTS_FILE)
        index, again = folder / INDEX_FILE, "fetch or export the model again"
        ensure(index.is_file(), f"{folder} has no {WEIGHTS_FILE}; {again}", ModelError)
        weight_map = read_json_object(index, ModelError, again).get("weight_map")
        ensure(isinstance(weight_map, dict), f"{index} has no weight_map; {again}", ModelError)
        return cls(*(folder / name for name in sorted(set(map(str, dict(weight_map or {}).values())))))

    def __getitem__(self, name: str) -> Tensor:
        """Reads a tensor; a copy, since the file is mapped only while it is read."""
        with opened(self._where[name]) as file:
            return file.read(name).clone()

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


class Overlay(Mapping[str, "Tensor"]):
    """A view of tensors over others: the names of `under`, each with the tensor of `over` if there is one."""

    def __init__(self, over: Mapping[str, Tensor], under: Mapping[str, Tensor]) -> None:
        self.over, self.under = over, under

    def __getitem__(self, name: str) -> Tensor:
        return self.over[name] if name in self.over else self.under[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.under)

    def __len__(self) -> int:
        return len(self.under)


class Merged(Mapping[str, "Tensor"]):
    """The parameters that an adapter changes, in float32, each computed when it is asked for."""

    def __init__(self, base: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
        self.base, self.weights = base, weights
        self.names = {key.rpartition(".")[0] for key in weights}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        value, w = self.base[name], self.weights
        if f"{name}.delta" in w:
            return value.float() + w[f"{name}.delta"].to(value.device).float()
        return value.float() + (w[f"{name}.up"].float() @ w[f"{name}.down"].float()).to(value.device)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Joins tensors along the first axis; a single one is not copied."""
    import torch

    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Returns name -> shape, without reading a tensor of a file."""
    known: dict[str, tuple[int, ...]] | None = getattr(tensors, "shapes", None)
    return known if known is not None else {name: tuple(value.shape) for name, value in tensors.items()}
