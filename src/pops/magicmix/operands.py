"""What a mix is asked for: its settings, and layouts and contents as users give them, checked and in one form.

Knows no network but for the sizes it is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.embedding import UNKNOWN_SPACE, Embedding
from pops.errors import ConfigError, OperandError, SpaceError, ensure, suggest
from pops.files import expanded, is_file
from pops.images import PHOTO_SUFFIXES
from pops.magicmix.prompt import Prompt, check_strength
from pops.magicmix.schedule import MAX_STEPS, Nu, Window, check_fraction, check_nu

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

INJECT = ("state", "input")
REACH = ("words", "text")
OUTPUTS = ("pil", "latent", "both")
MAX_SIDE = 4096  # pixels denoised


@dataclass(frozen=True)
class MixSettings:
    """How one mix is made; the defaults are the paper's."""

    nu: Nu = 0.9  # weight of the content inside the window: 0 the layout, 1 plain image-to-image; several: a schedule
    k_min: float = 0.3  # fractions of the steps, from the end: mixing stops here ...
    k_max: float = 0.6  # ... and starts here
    steps: int = 50
    guidance: float = 7.5
    strength: float = 1.0  # of the content's tokens in cross-attention, from -2 to 2
    reach: str = "words"  # what strength acts on: the words' own tokens, or also what other tokens say because of them
    negative: str = ""
    inject: str = "state"  # what is mixed: the picture between two steps, or only what the network sees of it
    size: int | tuple[int, int] | None = None  # (height, width) in pixels, or the side of a square of that area

    def __post_init__(self) -> None:
        check_nu(self.nu)
        low, high = check_fraction("k_min", self.k_min), check_fraction("k_max", self.k_max)
        ensure(low <= high, f"k_min must not be above k_max, got k_min {low:g} and k_max {high:g}; exchange them")
        whole = isinstance(self.steps, int) and not isinstance(self.steps, bool)
        ensure(whole and 1 <= self.steps <= MAX_STEPS, f"steps must be from 1 to {MAX_STEPS}, got {self.steps!r}")
        number = isinstance(self.guidance, (int, float)) and math.isfinite(self.guidance)
        ensure(number and self.guidance >= 0, f"guidance must be 0 or more, got {self.guidance!r}")
        check_strength(self.strength)
        ensure(isinstance(self.negative, str), f"negative is a text, got a {type(self.negative).__name__}")
        known = self.inject in INJECT
        ensure(known, f'inject must be "state" or "input", got {self.inject!r}{suggest(str(self.inject), INJECT)}')
        known = self.reach in REACH
        ensure(known, f'reach must be "words" or "text", got {self.reach!r}{suggest(str(self.reach), REACH)}')
        if self.size is not None:
            sides = self.size if isinstance(self.size, (tuple, list)) else (self.size, self.size)
            fine = len(sides) == 2 and all(isinstance(s, int) and 1 <= s <= MAX_SIDE for s in sides)
            ensure(fine, f"size is (height, width) or one number, from 1 to {MAX_SIDE} pixels, got {self.size!r}")

    @classmethod
    def of(cls, how: Mapping[str, Any]) -> MixSettings:
        """Settings by name, as keyword arguments gave them; TypeError for another name."""
        for name in how:
            if name not in cls.__dataclass_fields__:
                raise TypeError(f"mixing has no setting {name!r}{suggest(name, cls.__dataclass_fields__)}")
        return cls(**how)

    @property
    def window(self) -> Window:
        """The steps in which layout and content are mixed."""
        return Window.of(self.k_min, self.k_max, self.steps)


def with_defaults(given: Mapping[str, Any], info: Mapping[str, Any], native: tuple[int, int]) -> dict[str, Any]:
    """Settings as given, over a model's own steps, guidance and size. info: its pops.json; native: (height, width)."""
    own = {"steps": info.get("steps", MixSettings.steps), "guidance": info.get("guidance", 7.5)}
    return {**own, "size": info.get("size", native[0]), **given}


@dataclass(frozen=True)
class Term:
    """One condition of the network, and its share of the guidance."""

    weight: float
    prompt: Prompt
    image: Tensor | None = None  # [D] un-normalised, for IP-Adapter


Content = tuple[Term, ...]


@dataclass(frozen=True)
class Layout:
    """A finished latent, or a content whose way through the noise levels is the layout."""

    grid: tuple[int, int, int]  # [C, h, w] of its latents
    x0: Tensor | None = None  # [C, h, w]
    moving: Content = ()
    restored: tuple[int, int] | None = None  # (width, height) of the pictures that come out, None: as they are


def listed(operand: Any) -> tuple[list[Any], bool]:
    """Operands of a batch, and whether it is one: a list, or an embedding of several rows."""
    if isinstance(operand, list):
        ensure(len(operand) > 0, "the list of operands is empty; give at least one", OperandError)
        return [one for item in operand for one in listed(item)[0]], True
    if isinstance(operand, Embedding) and operand.n > 1:
        return [replace(operand, vectors=row[None]) for row in operand.vectors], True
    return [operand], False


def is_photo(text: str | Path) -> bool:
    """Whether a string names a photo: by its suffix, or because there is such a file."""
    if isinstance(text, Path):
        return True
    words = len(text.split())
    return (words >= 1 and Path(text.strip()).suffix.lower() in PHOTO_SUFFIXES) or is_file(expanded(text))


def content_of(operand: Any, *, role: str, width: int | None, space: str | None) -> Content:
    """A text (a Prompt is never taken for a file), an Embedding, or several with weights: {"tiger": 0.7, "gold": 0.3},
    (("tiger", 0.7), (embedding, 0.3)).

    width: of the embeddings IP-Adapter reads, None without one; space: theirs, None if unknown.
    """
    several: list[tuple[Any, Any]]
    if isinstance(operand, Mapping):
        several = list(operand.items())
    elif isinstance(operand, tuple):
        pairs = all(isinstance(pair, tuple) and len(pair) == 2 for pair in operand)
        ensure(pairs, f"a {role} of several parts is made of pairs (part, weight), got {operand!r}", OperandError)
        several = list(operand)
    else:
        several = [(operand, 1.0)]
    ensure(len(several) > 0, f"the {role} is empty; give at least one part", OperandError)
    for _, weight in several:
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool) and math.isfinite(weight)
        ensure(number and weight != 0, f"a weight in the {role} is a number other than 0, got {weight!r}", OperandError)
    total = math.fsum(abs(weight) for _, weight in several)
    return tuple(_term(part, weight / total, role, width, space) for part, weight in several)


def _term(part: Any, weight: float, role: str, width: int | None, space: str | None) -> Term:
    if isinstance(part, Prompt) and part.words:
        return Term(weight, part)
    if isinstance(part, str):
        if is_photo(part):
            raise OperandError(
                f"{part} is a photo; as a part of a {role} give its embedding, such as p.embed({part!r})"
            )
        prompt = Prompt.of(part)
        ensure(prompt.text != "", f"the {role} is an empty text; say what it shows", OperandError)
        return Term(weight, prompt)
    if not isinstance(part, Embedding):
        raise OperandError(f"a {role} is a text or an Embedding here, got a {type(part).__name__}")
    if width is None:
        raise OperandError(f"an Embedding as {role} needs an IP-Adapter, and this pipeline has none; give a text")
    ensure(part.n == 1, f"a part of the {role} is one embedding, got {part.n} rows; pick one, e[0]", OperandError)
    if space not in (None, UNKNOWN_SPACE):
        part.require_space(str(space))
    if part.dim != width:
        raise SpaceError(f"the IP-Adapter reads vectors of width {width}, got width {part.dim}; use its own model's")
    return Term(weight, Prompt((), ()), part.vectors[0])


def working_size(
    own: tuple[int, int], size: int | Sequence[int] | None, grid: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """own: (height, width) of the photo. -> what is denoised, a multiple of `grid`, and what comes out.

    size None: the photo's own; one number: the photo's aspect with the area of that square, and the photo's own
    size comes out; two: those.
    """
    height, width = own
    if isinstance(size, int):
        scale = size / math.sqrt(height * width)
        wanted, out = (height * scale, width * scale), own
    elif size is not None:
        wanted = out = (size[0], size[1])
    else:
        wanted = out = own
    snapped = (_snapped(wanted[0], grid), _snapped(wanted[1], grid))
    if max(snapped) > MAX_SIDE:
        raise ConfigError(f"{snapped[0]}x{snapped[1]} pixels are more than {MAX_SIDE} a side; give a smaller size")
    return snapped, out


def _snapped(pixels: float, grid: int) -> int:
    return max(1, round(pixels / grid)) * grid


def photo_latent_input(photo: Image.Image, size: tuple[int, int]) -> Tensor:
    """RGB of any size -> [1, 3, height, width] from -1 to 1."""
    import numpy as np
    import torch
    from PIL import Image

    height, width = size
    if photo.size != (width, height):
        photo = photo.resize((width, height), Image.Resampling.LANCZOS)
    array = torch.from_numpy(np.asarray(photo).astype(np.float32) / 255)
    return array.permute(2, 0, 1)[None] * 2 - 1
