"""A figure as SVG: the strokes of its canvas again, one element each, with its images inside."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from typing import TypeAlias

from PIL import Image, ImageOps

Point: TypeAlias = "tuple[float, float]"
Box: TypeAlias = "tuple[float, float, float, float]"

STROKES = "strokes"  # of an image's info: what it was drawn by
_ANCHORS = {"l": "start", "m": "middle", "r": "end"}
_FONT = "Aileron, Inter, Helvetica, Arial, sans-serif"


class Strokes:
    """What was drawn on a canvas, in order. Coordinates are pixels of the finished figure."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._drawn: list[tuple[str, tuple[object, ...]]] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Strokes) and (self.size, self._drawn) == (other.size, other._drawn)

    __hash__ = None  # type: ignore[assignment]  # as of all images

    def note(self, kind: str, *values: object) -> None:
        """Notes one stroke: kind is the name of a method of _Writer, values what that takes."""
        self._drawn.append((kind, values))

    def svg(self) -> str:
        """Returns the figure as an SVG document."""
        width, height = self.size
        writer = _Writer()
        inside = "\n".join(getattr(writer, kind)(*values) for kind, values in self._drawn)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="{_FONT}">\n'
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n{inside}\n</svg>\n'
        )


class _Writer:
    """Elements of SVG."""

    def __init__(self) -> None:
        self._clips = 0

    def picture(self, image: Image.Image, box: Box, radius: float) -> str:
        """An image, cropped to the box, with round corners."""
        x0, y0, x1, y1 = box
        size = (max(1, round(2 * (x1 - x0))), max(1, round(2 * (y1 - y0))))
        out = io.BytesIO()
        ImageOps.fit(image.convert("RGBA"), size, Image.Resampling.LANCZOS).save(out, "PNG")
        data = base64.b64encode(out.getvalue()).decode()
        self._clips += 1
        where = " ".join(_attributes(x=x0, y=y0, width=x1 - x0, height=y1 - y0))
        return (
            f'<clipPath id="c{self._clips}"><rect {where} rx="{radius:.2f}"/></clipPath>'
            f'<image {where} clip-path="url(#c{self._clips})" href="data:image/png;base64,{data}"/>'
        )

    def rect(self, box: Box, radius: float, fill: str | None, outline: str | None) -> str:
        """A rectangle with round corners."""
        x0, y0, x1, y1 = box
        where = " ".join(_attributes(x=x0, y=y0, width=x1 - x0, height=y1 - y0, rx=radius))
        return f"<rect {where} {_colour('fill', fill)} {_colour('stroke', outline)}/>"

    def line(self, points: list[Point], width: float, colour: str) -> str:
        """A line through points, with round ends."""
        places = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
        ends = 'stroke-linecap="round" stroke-linejoin="round"'
        return (
            f'<polyline points="{places}" fill="none" {_colour("stroke", colour)} stroke-width="{width:.2f}" {ends}/>'
        )

    def disc(self, centre: Point, radius: float, colour: str) -> str:
        """A disc."""
        where = " ".join(_attributes(cx=centre[0], cy=centre[1], r=radius))
        return f"<circle {where} {_colour('fill', colour)}/>"

    def text(self, text: str, at: Point, size: float, colour: str, anchor: str, width: float) -> str:
        """One line of text on its base line, as wide as the canvas drew it."""
        where = " ".join(_attributes(x=at[0], y=at[1]))
        fits = f'textLength="{width:.2f}" lengthAdjust="spacingAndGlyphs"' if width else ""
        how = f'font-size="{size:.2f}" text-anchor="{_ANCHORS[anchor]}" {_colour("fill", colour)} {fits}'
        return f"<text {where} {how}>{html.escape(_plain(text))}</text>"


def _plain(text: str) -> str:
    """The text without what XML cannot hold."""
    return "".join(c if c.isprintable() else " " for c in text)


def _attributes(**values: float) -> Iterator[str]:
    return (f'{name}="{value:.2f}"' for name, value in values.items())


def _colour(name: str, colour: str | None) -> str:
    """A colour as an attribute: of #rrggbbaa the last pair is how much of it covers what lies below."""
    if colour is None:
        return f'{name}="none"'
    if colour.startswith("#") and len(colour) == 9:
        return f'{name}="{colour[:7]}" {name}-opacity="{int(colour[7:], 16) / 255:.3f}"'
    return f'{name}="{colour}"'
