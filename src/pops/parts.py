"""Parts: a recipe's images in groups that are made together, so that a run of thousands holds only one group at a time.

What a part makes depends on the recipe alone, and not on what was made before it: an image that is made again in a part
of its own equals that of the whole run, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pops.errors import ConfigError, ensure

Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """Some rows of a run, and which of each row's images are made of them. Images are counted row by row, from 0."""

    rows: range
    copies: range
    each: int  # images of a row, in all parts

    @property
    def numbers(self) -> list[int]:
        """The numbers of its images in the whole run."""
        return [row * self.each + copy for row in self.rows for copy in self.copies]

    @property
    def first(self) -> bool:
        """Whether no earlier part has its rows."""
        return self.copies.start == 0

    def own(self, items: Sequence[Item]) -> list[Item]:
        """Returns its rows' items: one of each row, or the one that stands for all."""
        return list(items) if len(items) == 1 else list(items[self.rows.start : self.rows.stop])


def parts_of(rows: int, each: int, batch: int) -> list[Part]:
    """Returns the parts of a run: as many whole rows as make `batch` images, or one row's images in slices of `batch`.

    each: images of a row.
    """
    step = max(1, batch // each)
    of_rows = [range(start, min(rows, start + step)) for start in range(0, rows, step)]
    of_row = [range(start, min(each, start + batch)) for start in range(0, each, batch)]
    return [Part(some, copies, each) for some in of_rows for copies in of_row]


@dataclass(frozen=True)
class Shard:
    """A share of a run, counted from 1: shard 2 of 8 makes every eighth part, from the second on."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        told = f"a shard is NUMBER/COUNT, from 1/COUNT to COUNT/COUNT, got {self.number}/{self.count}"
        ensure(1 <= self.number <= self.count, told, ConfigError)

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads "2/8"; raises ConfigError for anything else."""
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and len(text) < 20):
            raise ConfigError(f"--shard is NUMBER/COUNT, such as 2/8, got {text!r:.60}")
        return cls(int(number), int(count))

    def of(self, parts: Iterable[Item]) -> list[Item]:
        """Returns this shard's share."""
        return list(parts)[self.number - 1 :: self.count]
