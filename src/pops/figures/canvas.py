"""A white canvas for figures, with PIL only: images, cards, signs, curves and captions in smooth lines.

Everything is drawn larger and reduced at the end. Coordinates are pixels of the finished figure. Knows nothing of
expressions.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from pops.figures.vector import STROKES, Box, Point, Strokes

INK, QUIET, LINE, CARD = "#23252b", "#858a96", "#c6cad3", "#f5f4f1"
COLOURS = ("#c0663f", "#3f7d74", "#4b6cb0", "#8a5ba0", "#a8842c", "#b24c66", "#5f8a3e")
MAX_AREA = 60_000_000  # pixels drawn; a larger figure is drawn with less oversampling


def colour_of(name: str) -> str:
    """Returns a muted colour, always the same for a name."""
    return COLOURS[zlib.crc32(name.encode() + b"9") % len(COLOURS)]


@lru_cache(maxsize=64)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def text_width(text: str, size: float) -> float:
    """Returns the width of the text at this size, in pixels."""
    return float(_font(64).getlength(text)) * size / 64


def shortened(text: str, size: float, width: float) -> str:
    """Returns the text, without its middle if it is wider than `width`."""
    if text_width(text, size) <= width:
        return text
    for keep in range(min(len(text), 400) - 1, 1, -1):
        short = text[: math.ceil(keep / 2)].rstrip() + "…" + text[len(text) - keep // 2 :].lstrip()
        if text_width(short, size) <= width:
            return short
    return text[:1] + "…"


def wrapped(text: str, size: float, width: float) -> list[str]:
    """Returns the text in lines, broken between words; a word that is too wide is shortened."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(shortened(word, size, width))
    return lines


class Canvas:
    """A canvas of width x height pixels; `finish` returns the image."""

    def __init__(self, width: float, height: float) -> None:
        self.size = (max(1, round(width)), max(1, round(height)))
        area = self.size[0] * self.size[1]
        self.scale = next((s for s in (3, 2) if area * s * s <= MAX_AREA), 1)
        self.image = Image.new("RGB", (self.size[0] * self.scale, self.size[1] * self.scale), "white")
        self.draw = ImageDraw.Draw(self.image, "RGBA")
        self.strokes = Strokes(self.size)

    def finish(self) -> Image.Image:
        """Returns the figure; info["strokes"] has what it was drawn by."""
        image = self.image.resize(self.size, Image.Resampling.LANCZOS) if self.scale > 1 else self.image
        image.info[STROKES] = self.strokes
        return image

    def _box(self, box: Box) -> Box:
        x0, y0, x1, y1 = (round(v * self.scale) for v in box)
        return x0, y0, x1 - 1, y1 - 1

    def picture(self, image: Image.Image, box: Box) -> None:
        """Draws an image in the box, cropped to its shape, with round corners and a thin edge."""
        x0, y0, x1, y1 = self._box(box)
        size = (int(x1 - x0) + 1, int(y1 - y0) + 1)
        if image.mode != "RGB":
            rgba = image.convert("RGBA")
            white = Image.new("RGBA", rgba.size, "white")
            image = Image.alpha_composite(white, rgba).convert("RGB")
        mask = Image.new("L", size, 0)
        radius = self._radius(box)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius, fill=255)
        self.image.paste(ImageOps.fit(image, size, Image.Resampling.LANCZOS), (int(x0), int(y0)), mask)
        self.draw.rounded_rectangle((x0, y0, x1, y1), radius, outline="#00000020", width=self.scale)
        self.strokes.note("picture", image, box, radius / self.scale)
        self.strokes.note("rect", box, radius / self.scale, None, "#00000020")

    def _radius(self, box: Box) -> float:
        return 0.07 * (box[2] - box[0]) * self.scale

    def card(self, text: str, box: Box) -> None:
        """Draws a plain card with the text in its middle, as large as fits."""
        self.draw.rounded_rectangle(self._box(box), self._radius(box), fill=CARD)
        self.draw.rounded_rectangle(self._box(box), self._radius(box), outline="#00000014", width=self.scale)
        self.strokes.note("rect", box, self._radius(box) / self.scale, CARD, "#00000014")
        width = box[2] - box[0]
        sizes = [width * share for share in (0.19, 0.165, 0.145, 0.125, 0.11, 0.095)]
        inside = width * 0.82
        whole = [s for s in sizes if all(text_width(word, s) <= inside for word in text.split())]
        fits = [s for s in whole if len(wrapped(text, s, inside)) * s * 1.25 <= inside]
        size = fits[0] if fits else sizes[-1]
        lines = wrapped(text, size, inside)
        room = max(1, int(inside / (size * 1.25)))
        if len(lines) > room:
            lines = [*lines[: room - 1], lines[room - 1] + " …"]
        top = (box[1] + box[3]) / 2 - (len(lines) - 1) * size * 0.625
        for i, line in enumerate(lines):
            self.text(line, ((box[0] + box[2]) / 2, top + i * size * 1.25), size, INK)

    def empty(self, box: Box) -> None:
        """Draws a dashed outline, for a missing operand."""
        inset = 1.0
        x0, y0, x1, y1 = box[0] + inset, box[1] + inset, box[2] - inset, box[3] - inset
        radius = self._radius(box) / self.scale
        corners = ((x1 - radius, y0 + radius, -90), (x1 - radius, y1 - radius, 0))
        corners += ((x0 + radius, y1 - radius, 90), (x0 + radius, y0 + radius, 180))  # type: ignore[assignment]
        outline: list[Point] = []
        for cx, cy, start in corners:
            for step in range(13):
                angle = math.radians(start + step * 7.5)
                outline.append((cx + radius * math.cos(angle), cy + radius * math.sin(angle)))
        self.dashes([*outline, outline[0]], dash=(box[2] - box[0]) * 0.045)

    def dashes(self, points: Sequence[Point], dash: float) -> None:
        """Draws a dashed line through the points; dashes divide its length evenly."""
        lengths = [math.dist(a, b) for a, b in pairwise(points)]
        period = sum(lengths) / max(1, round(sum(lengths) / (2 * dash)))
        walked, run = 0.0, [points[0]]
        for (a, b), length in zip(pairwise(points), lengths):
            pieces = max(1, math.ceil(length))
            for i in range(1, pieces + 1):
                spot = (a[0] + (b[0] - a[0]) * i / pieces, a[1] + (b[1] - a[1]) * i / pieces)
                walked += length / pieces
                if walked % period < period / 2:
                    run.append(spot)
                else:
                    self.line(run, 1.6, "#a9aeb9")
                    run = [spot]
        self.line(run, 1.6, "#a9aeb9")

    def line(self, points: Sequence[Point], width: float, colour: str) -> None:
        """Draws a line through the points, with round ends."""
        if len(points) < 2:
            return
        self.strokes.note("line", list(points), width, colour)
        half = max(width * self.scale, 1.0) / 2
        scaled = [(x * self.scale, y * self.scale) for x, y in points]
        left, right = [], []
        for i, (x, y) in enumerate(scaled):  # as one polygon, since PIL's own wide lines are uneven
            (ax, ay), (bx, by) = scaled[max(i - 1, 0)], scaled[min(i + 1, len(scaled) - 1)]
            length = math.hypot(bx - ax, by - ay) or 1.0
            nx, ny = half * (ay - by) / length, half * (bx - ax) / length
            left.append((x + nx, y + ny))
            right.append((x - nx, y - ny))
        self.draw.polygon([*left, *reversed(right)], fill=colour)
        for x, y in (scaled[0], scaled[-1]):
            self.draw.ellipse((x - half, y - half, x + half, y + half), fill=colour)

    def curve(self, a: Point, b: Point, width: float, colour: str) -> None:
        """Draws a curve from a to b, horizontal at both ends."""
        bend = max(abs(b[0] - a[0]) * 0.5, 1.0)
        p = (a, (a[0] + bend, a[1]), (b[0] - bend, b[1]), b)
        points = []
        for i in range(49):
            t = i / 48
            w = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            points.append((sum(f * q[0] for f, q in zip(w, p)), sum(f * q[1] for f, q in zip(w, p))))
        self.line(points, width, colour)

    def disc(self, centre: Point, radius: float, colour: str) -> None:
        x, y = centre
        self.draw.ellipse(self._box((x - radius, y - radius, x + radius, y + radius)), fill=colour)
        self.strokes.note("disc", centre, radius, colour)

    def pill(self, centre: Point, text: str, size: float, colour: str) -> None:
        """Draws a name in a pale capsule of its colour, `pill_width` wide."""
        half, tall, (x, y) = pill_width(text, size) / 2, size * 0.95, centre
        around = (x - half, y - tall, x + half, y + tall)
        box = self._box(around)
        self.draw.rounded_rectangle(box, tall * self.scale, fill="white")
        self.draw.rounded_rectangle(box, tall * self.scale, fill=colour + "22", outline=colour + "55", width=self.scale)
        self.strokes.note("rect", around, tall, "#ffffff", None)
        self.strokes.note("rect", around, tall, colour + "22", colour + "55")
        self.text(text, centre, size, colour)

    def text(self, text: str, at: Point, size: float, colour: str, anchor: str = "mm") -> None:
        """Draws one line; `anchor` as in PIL, but with the middle of an x as vertical middle, so that lines align."""
        x, y = at[0] * self.scale, at[1] * self.scale
        font = _font(max(1, round(size * self.scale)))
        if anchor[1] == "m":
            top, bottom = font.getbbox("x", anchor="ls")[1::2]
            y, anchor = y - (top + bottom) / 2 + size * self.scale * 0.06, anchor[0] + "s"
        self.draw.text((x, y), text, font=font, fill=colour, anchor=anchor)
        at, width = (x / self.scale, y / self.scale), text_width(text, size)
        self.strokes.note("text", text, at, size, colour, anchor[0], width)


def pill_width(text: str, size: float) -> float:
    return text_width(text, size) + size * 1.7
