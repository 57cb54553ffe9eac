"""What a mix is asked for: its settings, and layouts and contents as users give them, checked and in one form.

Knows no network; widths and sizes are handed to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pops.diffusion.checks import check_guidance, is_number
from pops.diffusion.sizes import Sizes
from pops.embedding import UNKNOWN_SPACE, Embedding
from pops.errors import ConfigError, OperandError, SpaceError, ensure, suggest
from pops.files import expanded, is_file
from pops.images import MAX_SIDE, PHOTO_SUFFIXES
from pops.magicmix.prompt import Prompt, check_strength
from pops.magicmix.schedule import Nu, Window, check_fraction, check_nu
from pops.prior.options import MAX_STEPS

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

INJECT = ("state", "input")
REACH = ("words", "text")
OUTPUTS = ("pil", "latent", "both")
Size: TypeAlias = "int | tuple[int, int]"  # (height, width) in pixels, or the side of a square of that area
# A content: a text, an embedding, or several with weights. A layout: any of them, a photo, or a latent.
ContentOperand: TypeAlias = (
    "str | Prompt | Embedding | Mapping[str, float] | tuple[tuple[str | Prompt | Embedding, float], ...]"
)
LayoutOperand: TypeAlias = "ContentOperand | Path | Image.Image | Tensor"


@dataclass(frozen=True)
class MixSettings:
    """How one mix is made; the defaults are the paper's."""

    nu: Nu = (
        0.9  # weight of the content in the window: 0 for the layout, 1 for plain image-to-image; several: a schedule
    )
    k_min: float = 0.3  # fractions of the steps, counted from the end: mixing stops here ...
    k_max: float = 0.6  # ... and starts here
    steps: int = 50
    guidance: float = 7.5
    strength: float = 1.0  # of the content's tokens in cross-attention, from -2 to 2
    reach: str = "words"  # what strength acts on: the words' own tokens, or with "text" also what they add to others
    negative: str = ""
    inject: str = "state"  # what is mixed: the latents between two steps, or only the network's "input"
    size: Size | None = None

    def __post_init__(self) -> None:
        check_nu(self.nu)
        low, high = check_fraction("k_min", self.k_min), check_fraction("k_max", self.k_max)
        ensure(low <= high, f"k_min must not be above k_max, got k_min {low:g} and k_max {high:g}; swap them")
        whole = isinstance(self.steps, int) and not isinstance(self.steps, bool)
        ensure(whole and 1 <= self.steps <= MAX_STEPS, f"steps must be from 1 to {MAX_STEPS}, got {self.steps!r}")
        check_guidance(self.guidance)
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
    def of(cls, settings: Mapping[str, Any]) -> MixSettings:
        """Returns settings given by name; TypeError for an unknown name."""
        for name in settings:
            if name not in cls.__dataclass_fields__:
                raise TypeError(f"mixing has no setting {name!r}{suggest(name, cls.__dataclass_fields__)}")
        return cls(**settings)

    @property
    def window(self) -> Window:
        """The steps in which layout and content are mixed."""
        return Window.of(self.k_min, self.k_max, self.steps)

    def lost(self) -> str | None:
        """Says in a line which settings have no effect because fractions of few steps are no step; None for none."""
        window, few = self.window, f"{self.steps} step{'s' * (self.steps != 1)}"
        if self.k_max > 0 and window.start == self.steps:
            told = f"k_max {self.k_max:g} of {few} is less than one step: the content has no effect"
            return f"{told}; give more steps or a larger k_max"
        given = any(getattr(self, name) != getattr(MixSettings, name) for name in ("nu", "k_min", "k_max"))
        if given and self.k_min < self.k_max and window.end - window.start < 2:
            told = f"k_min {self.k_min:g} to k_max {self.k_max:g} of {few} leaves no step to mix: nu has no effect"
            return f"{told}; give more steps or a wider window"
        return None


def with_defaults(given: Mapping[str, Any], info: Mapping[str, Any], native: tuple[int, int]) -> dict[str, Any]:
    """Returns the settings that are given over a model's own steps, guidance and size.

    info: the model's pops.json, whose mix_steps and mix_guidance come before its steps and guidance; native: (height,
    width) in pixels.
    """
    own = {name: info.get(f"mix_{name}", info.get(name, getattr(MixSettings, name))) for name in ("steps", "guidance")}
    return {**own, "size": info.get("size", native[0]), **given}


@dataclass(frozen=True)
class Term:
    """One condition of the network."""

    weight: float  # its share of the guidance
    prompt: Prompt
    image: Tensor | None = None  # [D] un-normalised, for IP-Adapter


Content: TypeAlias = tuple[Term, ...]


@dataclass(frozen=True)
class Layout:
    """A finished latent, or a content whose own latents, from step to step, are the layout."""

    grid: tuple[int, int, int]  # [C, h, w] of its latents
    x0: Tensor | None = None  # [C, h, w]
    moving: Content = ()
    sizes: Sizes | None = None  # of the images; None for a latent's own


def listed(operand: object) -> tuple[list[object], bool]:
    """Returns the operands as a flat list, and whether several were meant: a list, or an embedding of several rows."""
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


def content_of(operand: object, *, role: str, width: int | None, space: str | None) -> Content:
    """Reads a text, an Embedding, or several with weights: {"tiger": 0.7, "gold": 0.3}, (("tiger", 0.7), (e, 0.3)).

    role: what a message calls it; width: of the embeddings that IP-Adapter reads, None without one; space: theirs, None
    if unknown. A Prompt is never taken for a file. Raises OperandError, or SpaceError for another space.
    """
    several: list[tuple[object, object]]
    if isinstance(operand, Mapping):
        several = list(operand.items())
    elif isinstance(operand, tuple):
        pairs = all(isinstance(pair, tuple) and len(pair) == 2 for pair in operand)
        ensure(pairs, f"a {role} of several parts is made of pairs (part, weight), got {operand!r}", OperandError)
        several = list(operand)
    else:
        several = [(operand, 1.0)]
    ensure(len(several) > 0, f"the {role} is empty; give at least one part", OperandError)
    weights: list[float] = []
    for _, weight in several:
        if not is_number(weight) or weight == 0:
            raise OperandError(f"a weight in the {role} is a number other than 0, got {weight!r}")
        weights.append(weight)
    total = math.fsum(map(abs, weights))
    return tuple(_term(part, w / total, role, width, space) for (part, _), w in zip(several, weights, strict=True))


def _term(part: object, weight: float, role: str, width: int | None, space: str | None) -> Term:
    """Reads one part of a content, with its share of the guidance."""
    if isinstance(part, Prompt) and part.words:
        return Term(weight, part)
    if isinstance(part, str):
        told = f"{part} is a photo; as a part of a {role} give its embedding, such as p.embed({part!r})"
        ensure(not is_photo(part), told, OperandError)
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


def latent_layout(given: Tensor, channels: int, factor: int, device: torch.device) -> Layout:
    """Reads a latent [C, h, w] as output="latent" gives it. factor: pixels per latent. Raises OperandError."""
    latent = given[0] if given.ndim == 4 and len(given) == 1 else given
    fits = latent.ndim == 3 and len(latent) == channels and min(latent.shape) >= 1
    wanted = f"[{channels}, height / {factor}, width / {factor}]"
    ensure(fits, f"a latent as layout is {wanted}, got {list(given.shape)}", OperandError)
    x0 = latent.detach().to(device).float()
    ensure(bool(x0.isfinite().all()), "the layout's latent holds NaN or infinity; make it again", OperandError)
    return Layout((len(x0), x0.shape[1], x0.shape[2]), x0)


def working_size(own: tuple[int, int], size: Size | None, grid: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the (height, width) that is denoised, a multiple of `grid`, and the one that comes out.

    own: (height, width) of the photo; size: None for the photo's own, two numbers for these; for one number the photo's
    aspect with the area of that square is denoised, and the photo's own size comes out.
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
        raise ConfigError(f"{snapped[0]}x{snapped[1]} pixels are more than {MAX_SIDE} per side; give a smaller size")
    return snapped, out


def _snapped(pixels: float, grid: int) -> int:
    """Returns the nearest multiple of `grid`, at least one."""
    return max(1, round(pixels / grid)) * grid


def photo_latent_input(photo: Image.Image, size: tuple[int, int]) -> Tensor:
    """Converts an RGB photo to pixels [1, 3, height, width] in -1 .. 1, resized to size (height, width)."""
    import numpy as np
    import torch

    array = torch.from_numpy(np.asarray(resized(photo, (size[1], size[0]))).astype(np.float32) / 255)
    return array.permute(2, 0, 1)[None] * 2 - 1


def resized(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """Returns the image at size (width, height); as it is where that is its size, or None."""
    from PIL import Image

    return image if size in (None, image.size) else image.resize(size, Image.Resampling.LANCZOS)
