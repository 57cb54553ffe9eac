"""What a notebook shows of a value: small HTML with embedded thumbnails. Knows texts and images, no values of pops.

Every text is escaped. Colours are the page's own or translucent, so that light and dark pages both do, and styles stand
in the elements, for many viewers of notebooks drop <style>.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

MOST_TEXT = 2000  # characters of one text
MOST_PICTURES = 100  # of one gallery
BUDGET = 600_000  # bytes of all pictures of one value; embedded they take a third more
ROOM = 40_000  # bytes of one picture
GREY, EDGE = "rgba(128,128,128,.12)", "rgba(128,128,128,.4)"
QUIET = "opacity:.7;font-size:12px"
_CODE = "font-family:monospace;font-size:13px;white-space:pre-wrap;overflow-wrap:anywhere"
_GALLERY = "display:flex;flex-wrap:wrap;gap:10px;margin:6px 0"


def escaped(text: object, most: int = MOST_TEXT) -> str:
    """Returns text that is safe in HTML and its attributes, cut at `most` characters."""
    plain = str(text).encode("utf-8", "replace").decode()  # names of files may hold what UTF-8 cannot
    return html.escape(plain if len(plain) <= most else f"{plain[:most]} … ({len(plain)} characters)")


def block(*parts: str) -> str:
    """Returns the whole output: its parts, HTML already, one below the other."""
    return f'<div style="font-family:system-ui,sans-serif;font-size:13px;line-height:1.5">{"".join(parts)}</div>'


def line(*texts: object) -> str:
    """Returns one quiet line of facts, with dots between; empty ones are left out."""
    return f'<div style="{QUIET}">{" · ".join(escaped(text) for text in texts if str(text))}</div>'


def code(text: object) -> str:
    """Returns a text as it is written, such as an expression."""
    return f'<div style="{_CODE}">{escaped(text)}</div>'


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Returns a small table."""
    cell = "padding:1px 14px 1px 0;text-align:left;background:none;border:none"
    top = "".join(f'<th style="{cell};opacity:.7;font-weight:normal">{escaped(text)}</th>' for text in head)
    body = "".join(
        f'<tr style="background:none">{"".join(f"<td style={cell!r}>{escaped(text)}</td>" for text in row)}</tr>'
        for row in rows
    )
    style = "border-collapse:collapse;font-size:12px;margin:4px 0"
    return f'<table style="{style}"><tr style="background:none">{top}</tr>{body}</table>'


def gallery(pictures: Sequence[Image.Image], captions: Sequence[str], *, width: int | None = None) -> str:
    """Returns pictures side by side, each with its caption below; of very many the first, and how many more there are.

    width: of each on the page, in pixels; unless given, the fewer there are, the larger.
    """
    shown = pictures[:MOST_PICTURES]
    width = width or (256 if len(shown) == 1 else 192 if len(shown) <= 4 else 128)
    room = min(ROOM, BUDGET // max(1, len(shown)))
    cells = [
        f'<figure style="margin:0;width:{width}px;max-width:100%">'
        f'<img src="{thumbnail(picture, width * 2, room)}" alt="{escaped(caption)}" '
        f'style="width:100%;height:auto;border-radius:6px;margin:0;display:block">'
        f'<figcaption style="{QUIET};text-align:center">{escaped(caption, 60)}</figcaption></figure>'
        for picture, caption in zip(shown, captions)
    ]
    more = len(pictures) - len(shown)
    return f'<div style="{_GALLERY}">{"".join(cells)}</div>' + (line(f"and {more} more") if more else "")


def thumbnail(picture: Image.Image, side: int, room: int) -> str:
    """Returns the picture as a data URI of a WebP of at most `room` bytes, its longer side at most `side` pixels."""
    small = picture.convert("RGBA" if picture.mode in ("RGBA", "LA", "PA") else "RGB")
    small.thumbnail((side, side))
    while True:
        for how in ({"lossless": True}, {"quality": 85}, {"quality": 60}, {"quality": 30}):
            stream = io.BytesIO()
            small.save(stream, "WEBP", **how)
            if stream.tell() <= room or max(small.size) <= 16:
                return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
        small.thumbnail((max(16, max(small.size) // 2),) * 2)
