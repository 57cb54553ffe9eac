"""When a photo was taken, by its own EXIF. Decodes no pixels."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from PIL import Image

from pops.images.metadata import EXIF_IFD
from pops.images.opening import opened

_ORIGINAL, _DIGITIZED, _CHANGED = 0x9003, 0x9004, 0x0132
_DATE = re.compile(r"(\d{4})\D(\d\d)\D(\d\d)(?:\D(\d\d)\D(\d\d)(?:\D(\d\d))?)?")


def date_taken(source: str | Path) -> str:
    """Returns when a photo was taken, by the clock of its place, as in 2024-05-31T18:30:00; "" if it does not tell.

    PhotoError for a file that is no photo.
    """
    with opened(source) as (photo, beside):
        with suppress(Exception):  # odd EXIF tells nothing
            exif = Image.Exif()
            if beside.exif:
                exif.load(beside.exif)
            else:  # a TIFF's tags are its EXIF
                exif = photo.getexif()
            inner = exif.get_ifd(EXIF_IFD)
            for told in (inner.get(_ORIGINAL), inner.get(_DIGITIZED), exif.get(_CHANGED)):
                if date := _iso(told):
                    return date
        return ""


def _iso(told: object) -> str:
    """Returns EXIF's form of a date, 2024:05:31 18:30:00, as ISO's; "" for what is no date, such as 0000:00:00."""
    found = _DATE.match(told.strip()) if isinstance(told, str) else None
    try:
        return datetime(*(int(part or 0) for part in found.groups())).isoformat() if found else ""  # type: ignore[arg-type]
    except ValueError:
        return ""
