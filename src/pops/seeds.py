"""Random numbers: one CPU generator per item, so that a batch draws what its items draw alone, on any device.

Knows nothing of what the numbers are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pops.errors import ConfigError, ensure

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Seed: TypeAlias = "int | Sequence[int]"

MAX_SEED = 2**63 - 1
MAX_SEEDS = 10_000  # in one list on the command line


def check_seed(seed: object) -> int:
    """Returns the seed as an int; ConfigError unless it is a whole number from 0 to 2**63 - 1."""
    try:
        value = seed.__index__()  # type: ignore[attr-defined]  # int, numpy.int64 and the like, but no float
    except AttributeError:
        raise ConfigError(f"a seed is a whole number, got {seed!r}") from None
    ensure(not isinstance(seed, bool), f"a seed is a whole number, got {seed!r}")
    ensure(0 <= value <= MAX_SEED, f"a seed is a whole number from 0 to 2**63 - 1, got {value}")
    return int(value)


def seed_list(seed: Seed) -> list[int]:
    """Returns one seed or several as a list, checked."""
    several: Any = seed if hasattr(seed, "__len__") and not isinstance(seed, (str, bytes)) else [seed]
    seeds = list(several)
    ensure(len(seeds) > 0, "the list of seeds is empty; give at least one")
    return [check_seed(s) for s in seeds]


def generator(seed: int) -> torch.Generator:
    """Returns a CPU generator with this seed."""
    import torch

    return torch.Generator("cpu").manual_seed(check_seed(seed))


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """Returns one CPU generator per seed; equal seeds get separate generators in the same state."""
    return [generator(seed) for seed in seeds]


def randn_items(shape: Sequence[int], gens: Sequence[torch.Generator]) -> Tensor:
    """Draws normal numbers of `shape` from each generator => [len(gens), *shape], float32, on the CPU."""
    import torch

    ensure(len(gens) > 0, "no seeds to draw random numbers with; give at least one seed")
    return torch.stack([torch.randn(tuple(shape), generator=g, dtype=torch.float32) for g in gens])


def parse_seeds(text: str) -> list[int]:
    """Parses seeds as the command line writes them: `7`, `0,3`, and ranges without their end, `5:8` = 5,6,7.

    Raises ConfigError for anything else, for empty ranges and for more than 10,000 seeds.
    """
    advice = "write whole numbers and ranges, such as 0,3,5:8"
    seeds: list[int] = []
    for part in text.split(","):
        ends = [end.strip() for end in part.split(":")]
        numbers = len(ends) <= 2 and all(e.isascii() and e.isdigit() and len(e) < 40 for e in ends)
        ensure(numbers, f"{part.strip()!r} is not a seed; {advice}")
        first, *rest = (check_seed(int(end)) for end in ends)
        last = rest[0] if rest else first + 1
        ensure(first < last, f"the range {part.strip()!r} is empty; the second number must be larger")
        count = len(seeds) + last - first
        ensure(count <= MAX_SEEDS, f"{count} seeds, at most {MAX_SEEDS} at once; run them in parts")
        seeds.extend(range(first, last))
    return seeds
