"""Checks of settings and of results; overflow and a full memory become errors in one line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeGuard

from pops.errors import ConfigError, PopsError, ensure

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def is_number(value: object) -> TypeGuard[float]:
    """Whether the value is a finite int or float; False for a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_guidance(guidance: object) -> None:
    """Raises ConfigError unless guidance is a finite number, 0 or more."""
    ensure(is_number(guidance) and guidance >= 0, f"guidance must be 0 or more, got {guidance!r}", ConfigError)


def check_pag(scale: object) -> None:
    """Raises ConfigError unless the scale of perturbed-attention guidance is a finite number, 0 or more."""
    ensure(is_number(scale) and scale >= 0, f"pag_scale must be 0 or more, got {scale!r}", ConfigError)


def check_rescale(share: object) -> None:
    """Raises ConfigError unless guidance_rescale is from 0 to 1."""
    ensure(is_number(share) and 0 <= share <= 1, f"guidance_rescale must be from 0 to 1, got {share!r}", ConfigError)


def check_interval(interval: object) -> None:
    """Raises ConfigError unless the interval of guidance is (start, stop), shares of the steps in order."""
    pair = isinstance(interval, (list, tuple)) and len(interval) == 2 and all(is_number(share) for share in interval)
    ensure(
        pair and 0 <= interval[0] < interval[1] <= 1,  # type: ignore[index]
        f"guidance_interval is (start, stop), 0 <= start < stop <= 1, such as (0.1, 0.8); got {interval!r:.60}",
        ConfigError,
    )


def check_finite(values: Tensor, dtype: torch.dtype | None = None) -> None:
    """Raises PopsError for NaN or infinity. dtype: the network's, where the values have another."""
    if not bool(values.isfinite().all()):
        used = str(dtype or values.dtype).removeprefix("torch.")
        advice = "give other operands" if used == "float32" else "load the model with dtype float32"
        raise PopsError(f"the network overflowed in {used}: its result holds NaN or infinity; {advice}")


@contextmanager
def memory_told(count: int, size: tuple[int, int] | None = None) -> Iterator[None]:
    """Turns an out-of-memory error into a one-line PopsError.

    count: images at once; size: theirs, (height, width) in pixels, if all have the same.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as e:  # torch.OutOfMemoryError is a RuntimeError
        if not (isinstance(e, MemoryError) or "memory" in str(e).lower()):
            raise
        images = f"{count} image{'s' * (count != 1)}" + (f" of {size[0]}x{size[1]}" if size else "")
        raise PopsError(f"not enough memory for {images} at once; ask for fewer or smaller images") from e
