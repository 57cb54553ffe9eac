"""What makes examples: a teacher's protocol, and the table of teachers.

A teacher gives the samples of one item, a function of the item's seed and split alone, or rejects the attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from pops.errors import ensure, suggest

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Sample:
    """One row to be: pictures and texts by role, None for a missing picture; the result's picture, or a caption."""

    images: Mapping[str, Image.Image | None]
    texts: Mapping[str, str] = field(default_factory=dict)
    target: Image.Image | None = None
    caption: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Rejected(Exception):  # not an error: the attempt is made again with another seed
    """An attempt that a filter refused; the filter's name."""


class Teacher(Protocol):
    """Makes samples of operators. name: as in TEACHERS; operators: what it can make."""

    @property
    def name(self) -> str: ...

    @property
    def operators(self) -> Sequence[str]: ...

    def about(self, operator: str) -> Mapping[str, Any]:
        """Returns what the samples depend on beside the seed (models, sizes, filters), as JSON, for the data card."""
        ...

    def make(self, operator: str, seed: int, split: str) -> Sequence[Sample]:
        """Makes the samples of one item; Rejected if a filter refuses this seed."""
        ...


# Name -> the function that makes the teacher, given the options of the command.
TEACHERS: dict[str, tuple[str, str]] = {
    "toybox": ("pops.data.toybox", "load"),
    "diffusion": ("pops.data.published", "load"),
}


def teacher(name: str, **options: Any) -> Teacher:
    """Makes a teacher by its name; ConfigError for an unknown one."""
    told = f"unknown teacher {name!r}{suggest(name, TEACHERS)}; choose from {', '.join(TEACHERS)}"
    ensure(name in TEACHERS, told)
    module, function = TEACHERS[name]
    load: Callable[..., Teacher] = getattr(import_module(module), function)
    return load(**options)
