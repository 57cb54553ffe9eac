"""Familiar: tells whether a model was trained on anything like a picture or a text.

A model's folder may hold familiar/: a small network that tells the pictures of its training from others, and the words
of its captions. Most models have none, and then nothing is unfamiliar. How tiny's was made: docs/familiar.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.errors import ModelError, ensure
from pops.files import read_json_object
from pops.loading.parts import AGAIN, check_files
from pops.tensors import read_tensors

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

FAMILIAR = "familiar"  # the name of the folder
CONFIG, WEIGHTS = "config.json", "model.safetensors"
STRIDE = 2  # of every layer
_BATCH = 64  # pictures through the network at once
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")  # letters of any script; weights (tiger:1.5) are no words


class Familiar:
    """What one model was trained on. Threads may share it.

    about: what that is, for messages ("drawings of toybox"); words: in lower case.
    """

    def __init__(
        self, tensors: dict[str, Tensor], *, side: int, threshold: float, about: str, words: Collection[str]
    ) -> None:
        self.side, self.threshold, self.about, self.words = side, threshold, about, frozenset(words)
        self._tensors = {name: tensor.float() for name, tensor in tensors.items()}
        self._layers = sum(name.startswith("conv.") and name.endswith(".weight") for name in tensors)

    @classmethod
    def load(cls, folder: Path) -> Familiar:
        """Reads the folder; ModelError where it is not what `recipes.tiny.familiar` writes."""
        check_files(folder, CONFIG, WEIGHTS)
        path = folder / CONFIG
        config = read_json_object(path, ModelError, AGAIN)
        side, threshold, about, words = (config.get(k) for k in ("side", "threshold", "about", "words"))
        for key, fine in {
            "side": isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= 1024,
            "threshold": isinstance(threshold, (int, float)) and not isinstance(threshold, bool),
            "about": isinstance(about, str),
            "words": isinstance(words, list) and all(isinstance(word, str) for word in words),
        }.items():
            ensure(fine, f"{path}: {key} cannot be {config.get(key)!r:.80}; {AGAIN}", ModelError)
        tensors, _ = read_tensors(folder / WEIGHTS)
        _check_shapes(tensors, folder / WEIGHTS)
        typed: Any = {"side": side, "threshold": threshold, "about": about, "words": words}
        return cls(tensors, **typed)

    def strangeness(self, images: Sequence[Image.Image]) -> Tensor:
        """Returns how unlike the pictures of the training each image is [n]; above 0 it is not one of them.

        Images are RGB and squashed to the square that the network reads.
        """
        import numpy as np
        import torch

        found: list[Tensor] = []
        size = (self.side, self.side)
        for start in range(0, len(images), _BATCH):
            some = [image if image.size == size else image.resize(size) for image in images[start : start + _BATCH]]
            pixels = torch.from_numpy(np.stack([np.asarray(image) for image in some])).permute(0, 3, 1, 2)
            found.append(strangeness_of(pixels, self._tensors, self._layers) - self.threshold)
        return torch.cat(found) if found else torch.zeros(0)

    def unfamiliar(self, images: Sequence[Image.Image]) -> list[bool]:
        """Returns for each image whether the model was trained on nothing like it."""
        return [value > 0 for value in self.strangeness(images).tolist()]

    def unknown(self, text: str) -> tuple[str, ...]:
        """Returns the words of a text that no caption of the training had, each once, as they were written."""
        found = {word.lower(): word for word in _WORD.findall(text)}
        return tuple(word for low, word in found.items() if not self._knows(low))

    def _knows(self, word: str) -> bool:
        """Whether a word in lower case is known, or another form of it: dogs, dog's, dot (of "polka dots")."""
        word = re.sub(r"['\u2019]s?$", "", word)
        forms = {word, f"{word}s", f"{word}es"}
        forms |= {word.removesuffix("s"), word.removesuffix("es")}
        if word.endswith("ies"):
            forms.add(f"{word.removesuffix('ies')}y")
        return not forms.isdisjoint(self.words)


def strangeness_of(pixels: Tensor, tensors: dict[str, Tensor], layers: int) -> Tensor:
    """Computes the network on pixels, uint8 [n, 3, side, side] => [n]: convolutions, then a score per place, averaged.

    A place sees a third of the picture's side: the network judges how things are drawn more than what they are.
    """
    import torch
    from torch.nn import functional

    with torch.no_grad():
        x = pixels.float() / 127.5 - 1
        for i in range(layers):
            weight = tensors[f"conv.{i}.weight"]
            x = functional.conv2d(x, weight, tensors[f"conv.{i}.bias"], STRIDE, weight.shape[-1] // 2).relu()
        score: Tensor = torch.einsum("nchw,c->nhw", x, tensors["head.weight"]).mean((1, 2)) + tensors["head.bias"]
        return score


def _check_shapes(tensors: dict[str, Tensor], path: Path) -> None:
    """Raises ModelError unless the tensors are a network of `strangeness_of`."""
    layers = sum(name.startswith("conv.") for name in tensors) // 2
    width, fine = 3, layers > 0
    wanted = {"head.weight", "head.bias", *(f"conv.{i}.{kind}" for i in range(layers) for kind in ("weight", "bias"))}
    fine = fine and set(tensors) == wanted
    for i in range(layers if fine else 0):
        shape, bias = tensors[f"conv.{i}.weight"].shape, tensors[f"conv.{i}.bias"].shape
        fine = fine and len(shape) == 4 and shape[1] == width and shape[2] == shape[3] and bias == shape[:1]
        width = shape[0]
    fine = fine and tensors["head.weight"].shape == (width,) and tensors["head.bias"].shape == ()
    ensure(fine, f"{path} does not hold the tensors of {FAMILIAR}/; {AGAIN}", ModelError)
