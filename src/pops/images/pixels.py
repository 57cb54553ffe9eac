"""Pixels of a decoded photo as RGB in sRGB: turned, on white, resized, a band at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from PIL import Image, ImageCms

from pops.errors import PhotoError
from pops.images.metadata import MAX_PROFILE, METADATA, Beside

LARGE = 64 * 2**20  # bytes; of photos that take more, one is read at a time
_COPY = 50 * 2**20  # bytes of a copy in RGB, from which a photo is resized by Pillow in one go
_BAND = 2**18  # pixels that are converted at once

_Box = tuple[int, int, int, int]  # left, top, right, bottom

# Orientation -> how Pillow turns, and the box of the stored picture (w x h) that a box of the turned one comes from.
TURNS: dict[int, tuple[Any, Any]] = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, lambda a, b, c, d, w, h: (w - c, b, w - a, d)),
    3: (Image.Transpose.ROTATE_180, lambda a, b, c, d, w, h: (w - c, h - d, w - a, h - b)),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, lambda a, b, c, d, w, h: (a, h - d, c, h - b)),
    5: (Image.Transpose.TRANSPOSE, lambda a, b, c, d, w, h: (b, a, d, c)),
    6: (Image.Transpose.ROTATE_270, lambda a, b, c, d, w, h: (b, h - c, d, h - a)),
    7: (Image.Transpose.TRANSVERSE, lambda a, b, c, d, w, h: (w - d, h - c, w - b, h - a)),
    8: (Image.Transpose.ROTATE_90, lambda a, b, c, d, w, h: (w - d, a, w - b, c)),
}


class Pixels:
    """A decoded photo, from which RGB is made a box at a time: the whole is in memory once."""

    def __init__(self, photo: Image.Image, beside: Beside, where: str, room: int, *, ours: bool) -> None:
        self.photo, self.turn, self.ours, self.room = photo, beside.turn, ours, room
        w, h = photo.size
        self.size = (h, w) if self.turn >= 5 else (w, h)
        self.deep = photo.mode.startswith("I") or photo.mode == "F"
        self.see_through = photo.has_transparency_data or photo.mode in ("PA", "RGBa", "La")
        self.plain = photo.mode == "RGB" and self.turn not in TURNS and not self.see_through
        grey = self.deep or photo.mode in ("L", "LA", "La", "1")
        self.mode = photo.mode if photo.mode == "CMYK" else "L" if grey else "RGB"
        self.convert, self.srgb = to_srgb(beside.profile, self.mode)
        self.profile = beside.profile
        self.white = self._deep_white(where) if self.deep else 0.0

    def rgb(self, box: _Box) -> Image.Image:
        """Makes RGB of a box [left, top, right, bottom) of the turned picture."""
        if self.turn in TURNS:
            method, source = TURNS[self.turn]
            part = self.photo.crop(source(*box, *self.photo.size)).transpose(method)
        else:
            part = self.photo if box == (0, 0, *self.size) else self.photo.crop(box)
        if self.deep:
            part = self._grey(part)
        if self.see_through and not self.deep:
            part = part.convert("LA").convert("RGBA") if part.mode == "La" else part.convert("RGBA")
            if self.convert is not None and self.mode != "CMYK":
                alpha = part.getchannel("A")
                part = self._coloured(part.convert(self.mode))
                part.putalpha(alpha)
            white = Image.new("RGBA", part.size, "white")
            return Image.alpha_composite(white, part).convert("RGB")
        if self.convert is not None:
            return self._coloured(part if part.mode == self.mode else part.convert(self.mode))
        return part if part.mode == "RGB" else part.convert("RGB")

    def whole(self) -> Image.Image:
        """Makes all of it RGB; RGB that stands upright stays in its own memory, if that may be changed."""
        rgb = self.photo
        if not (self.plain and self.ours):
            rgb = self._copied((0, 0, *self.size), Image.new("RGB", self.size))
        elif self.convert is not None:
            rgb = self._copied((0, 0, *self.size), rgb)
        kept: dict[str | tuple[int, int], Any] = (
            {"icc_profile": self.profile} if self.srgb and self.mode == "RGB" else {}
        )
        rgb.info = {**{k: v for k, v in self.photo.info.items() if k not in METADATA}, **kept}
        return rgb

    def resized(self, box: _Box, size: tuple[int, int]) -> Image.Image:
        """Resizes a box as Pillow does (bicubic). A box too large for another copy is resized band by band, its rows
        first; a very tall one its columns first: Pillow's passes, but for their order and so some rounding.
        """
        width, height = size
        left, top, right, bottom = box
        w, h = right - left, bottom - top
        tall = 4 * width * h > LARGE // 2 and h > w
        if not tall and self.plain and self.convert is None and box == (0, 0, *self.size):
            return self.photo.resize(size)
        if not tall and 4 * w * h <= min(_COPY, self.room):
            return self._copied(box, Image.new("RGB", (w, h))).resize(size)
        half = Image.new("RGB", (w, height) if tall else (width, h))
        for a, b, c, d in _bands(box, columns=tall):
            part = self.rgb((a, b, c, d)).resize((c - a, height) if tall else (width, d - b))
            half.paste(part, (a - left, 0) if tall else (0, b - top))
        return half.resize(size)

    def _copied(self, box: _Box, to: Image.Image) -> Image.Image:
        for a, b, c, d in _bands(box):
            to.paste(self.rgb((a, b, c, d)), (a - box[0], b - box[1]))
        return to

    def _coloured(self, part: Image.Image) -> Image.Image:
        done = ImageCms.applyTransform(part, self.convert)
        assert done is not None  # not in place
        return done

    def _deep_white(self, where: str) -> float:
        """Returns the value that is white in grey of 16 or 32 bits or floats."""
        import numpy as np

        top = 0.0
        for part in _bands((0, 0, *self.photo.size)):
            values = np.asarray(self.photo.crop(part))
            if not np.isfinite(values).all():
                raise PhotoError(f"{where} has NaN or infinite pixels; save it as PNG or JPEG")
            top = max(top, float(values.max()))
        if self.photo.mode.startswith("I;16"):
            return 65535.0
        if self.photo.mode == "F" and top <= 1:
            return 1.0
        # The file does not say which value is white: take the narrowest usual range that holds its values.
        return next((limit for limit in (255.0, 65535.0) if top <= limit), top)

    def _grey(self, part: Image.Image) -> Image.Image:
        """Scales deep grey to 8 bits; Pillow's own conversion would clip at 255."""
        import numpy as np

        values = np.asarray(part).astype(np.float64)
        return Image.fromarray(np.rint(np.clip(values / self.white, 0, 1) * 255).astype(np.uint8))


def _bands(box: _Box, *, columns: bool = False) -> Iterator[_Box]:
    """Cuts a box into bands of whole rows (or columns) of at most _BAND pixels, or of one row."""
    left, top, right, bottom = box
    if columns:
        step = max(1, _BAND // (bottom - top))
        yield from ((x, top, min(right, x + step), bottom) for x in range(left, right, step))
    else:
        step = max(1, _BAND // (right - left))
        yield from ((left, y, right, min(bottom, y + step)) for y in range(top, bottom, step))


@lru_cache(maxsize=8)
def to_srgb(profile: bytes, mode: str) -> tuple[Any, bool]:
    """Returns the transform from a profile's colours to sRGB, and whether they are sRGB's, which needs none.

    mode: RGB, L or CMYK. A profile that is damaged, huge or of another kind has no transform.
    """
    if not 128 <= len(profile) <= MAX_PROFILE:
        return None, False
    try:
        read = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if read.profile.xcolor_space.strip() != {"L": "GRAY"}.get(mode, mode):
            return None, False
        intent = ImageCms.Intent.PERCEPTUAL if mode == "CMYK" else ImageCms.Intent.RELATIVE_COLORIMETRIC
        transform = ImageCms.buildTransform(read, ImageCms.createProfile("sRGB"), mode, "RGB", intent)
        if mode != "CMYK":
            steps = range(0, 256, 1 if mode == "L" else 32)
            probe = (
                bytes(steps)
                if mode == "L"
                else bytes(v for r in steps for g in steps for b in steps for v in (r, g, b))
            )
            plain = Image.frombytes(mode, (len(probe) // len(mode), 1), probe)
            done = ImageCms.applyTransform(plain, transform)
            assert done is not None
            pairs = zip(plain.convert("RGB").tobytes(), done.tobytes(), strict=True)
            if max(abs(a - b) for a, b in pairs) <= 2:
                return None, True
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError, AttributeError):
        return None, False
    return transform, False
