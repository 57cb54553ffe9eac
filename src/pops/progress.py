"""The callbacks that long work reports to, one signature each, and shares of a whole.

Raising from any of them stops the work; nothing half-written remains, and everything stays usable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from typing import Any

    from PIL import Image

OnProgress: TypeAlias = Callable[[int, int, str], None]  # (done, total, what is being done)
OnStep: TypeAlias = Callable[[int, int], None]  # (steps done, total)
OnPreview: TypeAlias = "Callable[[list[Image.Image], int, int], None]"  # (rough images of the batch, steps done, total)
OnImage: TypeAlias = "Callable[[int, Image.Image], None]"  # (number of the image, the image), as soon as it is finished
OnControl: TypeAlias = "Callable[[Any], None]"  # a pops.render.base.Control that was made of a photo
OnNote: TypeAlias = Callable[[str], None]  # one line that the user should read


@dataclass(frozen=True)
class Callbacks:
    """Who is told of a run; None: nobody."""

    progress: OnProgress | None = None
    image: OnImage | None = None
    preview: OnPreview | None = None
    control: OnControl | None = None
    note: OnNote | None = None


def steps_of_part(on_step: OnStep | None, part: int, parts: int) -> OnStep | None:
    """Reports the steps of part number `part`, of `parts` with equally many steps, as steps of the whole."""
    if on_step is None:
        return None
    return lambda done, total: on_step(part * total + done, parts * total)


def progress_of_part(on_progress: OnProgress | None, part: int, parts: int) -> OnProgress | None:
    """As `steps_of_part`, for a callback that is also told what is being done."""
    if on_progress is None:
        return None
    return lambda done, total, what: on_progress(part * total + done, parts * total, what)


def named_steps(on_progress: OnProgress | None, what: str) -> OnStep | None:
    """Reports steps to a callback that is told what is being done."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(done, total, what)
