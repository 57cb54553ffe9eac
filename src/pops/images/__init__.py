"""Photos in, images out: any photo becomes a square RGB image in sRGB, and an image carries its recipe.

What a file holds beside its pixels (EXIF, profiles, text) may be odd, damaged or huge, and never refuses the pixels.
What a photo costs is known from its header, before anything is decoded. Knows nothing of spaces, models or expressions;
a recipe is any JSON object.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from PIL import Image

from pops.errors import ensure, suggest
from pops.files import expanded, shown
from pops.images.dates import date_taken
from pops.images.metadata import ORIENTATION, TURNED, Beside, look_beside
from pops.images.opening import (
    HEIF_SUFFIXES,
    MAX_PIXELS,
    PHOTO_SUFFIXES,
    RAW_SUFFIXES,
    check_size,
    cost_of,
    opened,
    reading,
)
from pops.images.pixels import LARGE, Pixels
from pops.images.recipes import (
    PICTURE_SUFFIXES,
    Picture,
    check_png,
    check_recipe,
    find_recipe,
    picture_of,
    read_recipe,
    save_picture,
    with_recipe,
)

__all__ = [
    "FITS", "HEIF_SUFFIXES", "MAX_PIXELS", "MAX_SIDE", "PHOTO_SUFFIXES", "PICTURE_SUFFIXES", "Picture", "RAW_SUFFIXES",
    "check_png", "check_recipe", "date_taken", "find_recipe", "load_photo", "picture_of", "read_recipe", "read_rgb",
    "save_picture", "with_recipe",
]  # fmt: skip

MAX_SIDE = 4096  # pixels of an image that is made
FITS = ("squash", "crop", "pad")
_one_large = threading.Lock()


def load_photo(source: str | Path | Image.Image, *, fit: str = "squash", size: int = 512) -> Image.Image:
    """Reads a photo as RGB of size x size pixels in sRGB: the first frame, turned by its EXIF, transparency on white.

    fit: "squash" resizes both sides (the papers' way), "crop" keeps the middle square, "pad" adds white.
    Raises PhotoError, naming the file, for anything but a readable photo; ConfigError for fit or size.
    """
    ensure(fit in FITS, f"unknown fit {shown(fit)!r}{suggest(str(fit), FITS)}; choose from {', '.join(FITS)}")
    ensure(size >= 1, f"size must be at least 1 pixel, got {size}")
    with _pixels(source, whole=False) as pixels:
        return _to_square(pixels, fit, size)


def read_rgb(source: str | Path | Image.Image) -> Image.Image:
    """Reads a photo as RGB of its own size: as `load_photo`, without the square."""
    with _pixels(source, whole=True) as pixels:
        return pixels.whole()


@contextmanager
def _pixels(source: str | Path | Image.Image, *, whole: bool) -> Iterator[Pixels]:
    """Decodes a photo: of large ones, one at a time. whole: the RGB image of its own size is wanted."""
    if not isinstance(source, Image.Image):
        name = shown(source)
        with opened(source) as (photo, beside):
            cost, room = cost_of(photo, name, beside, expanded(source), whole)
            with _one_large if cost > LARGE else nullcontext():
                if photo.format == "TIFF":
                    photo.load_end = lambda: None  # type: ignore[attr-defined]  # it reads EXIF, and turns by a copy
                photo.load()
                yield Pixels(photo._new(photo.im), beside, name, room, ours=True)
        return
    where = f"the image {shown(getattr(source, 'filename', '') or 'given')}"
    with reading(where):
        check_size(source, where)
        source.load()
        beside = Beside()
        look_beside(source, beside)
        beside.read_turn()
        try:
            told = source.getexif().get(ORIENTATION, 1)
            beside.turn = told if told in TURNED else 1
        except Exception:  # odd EXIF; what was read leniently stays
            pass
        yield Pixels(source, beside, where, LARGE, ours=False)


def _to_square(pixels: Pixels, fit: str, size: int) -> Image.Image:
    """Makes a photo of any size square, size x size, with Pillow's default resampling (bicubic), as the papers do."""
    width, height = pixels.size
    box = (0, 0, width, height)
    if fit == "crop":
        side = min(pixels.size)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
    elif fit == "pad":
        scale = size / max(pixels.size)  # resized first: a white square around a long, thin photo may not fit in memory
        inner = pixels.resized(box, (max(1, round(width * scale)), max(1, round(height * scale))))
        square = Image.new("RGB", (size, size), "white")
        square.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
        return square
    return pixels.resized(box, (size, size))
