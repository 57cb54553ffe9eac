"""A grid of images with labels: one row or column per value of a setting."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from pops.figures.canvas import INK, QUIET, Canvas, text_width, wrapped

CELL = 256  # pixels a cell's longer side has at most
LEAST = 160  # pixels that the longest side of a contact sheet's images has at least
MOST_IN_A_ROW = 5  # images of a contact sheet that is not broken into rows


def labels(name: str, values: Sequence[float]) -> list[str]:
    """Returns each value's label, with no more digits than tell them apart: nu 0.3 for 0.30000000000000004."""
    rounded = ([f"{value:.{digits}g}" for value in values] for digits in range(6, 17))
    exact = [str(value) for value in values]
    apart = next((texts for texts in rounded if len(set(texts)) == len(set(values))), exact)
    return [f"{name} {text}" for text in apart]


def grid_figure(images: Sequence[Image.Image], columns: Sequence[str], rows: Sequence[str] = ("",)) -> Image.Image:
    """Draws images row by row, each column's label above it and each row's to the left of it.

    images: len(rows) * len(columns) of one size; an empty row label takes no room.
    """
    scale = min(1.0, CELL / max(images[0].size))
    width, height = (max(24.0, side * scale) for side in images[0].size)
    text, gap = max(11.0, height / 14), max(4.0, height / 32)
    left = max((text_width(label, text) + 2 * gap if label else 0.0 for label in rows), default=0.0) or 2 * gap
    top = 2.2 * text
    canvas = Canvas(left + len(columns) * (width + gap), top + len(rows) * (height + gap))
    for i, label in enumerate(columns):
        size = min(text, text * width / max(1.0, text_width(label, text)))
        canvas.text(label, (left + i * (width + gap) + width / 2, top / 2), size, INK)
    for j, label in enumerate(rows):
        y = top + j * (height + gap)
        canvas.text(label, (left - gap, y + height / 2), text, QUIET, anchor="rm")
        for i in range(len(columns)):
            x = left + i * (width + gap)
            canvas.picture(images[j * len(columns) + i], (x, y, x + width, y + height))
    return canvas.finish()


def contact_sheet(
    images: Sequence[Image.Image], labels: Sequence[str], across: int | None = None, *, title: str = ""
) -> Image.Image:
    """Draws images row by row, each with its label below it.

    across: how many to a row, by default up to five in one row, else about as many as there are rows; title: below all.
    """
    count = len(images)
    columns = across or (count if count <= MOST_IN_A_ROW else math.ceil(math.sqrt(count)))
    scale = max(1.0, LEAST / max(max(image.size) for image in images))
    width, height = (scale * max(sides) for sides in zip(*(image.size for image in images), strict=True))
    gap, text = max(6.0, width / 24), max(11.0, width / 16)
    below = 1.9 * text
    rows = math.ceil(count / columns)
    whole = gap + columns * (width + gap)
    lines = wrapped(title, text, whole - 2 * gap)
    canvas = Canvas(whole, gap + rows * (height + below) + (len(lines) * 1.4 * text + gap if lines else 0))
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        x, y = gap + i % columns * (width + gap), gap + i // columns * (height + below)
        own = (scale * image.width, scale * image.height)
        left, top = x + (width - own[0]) / 2, y + (height - own[1]) / 2
        canvas.picture(image, (left, top, left + own[0], top + own[1]))
        size = min(text, text * width / max(1.0, text_width(label, text)))
        canvas.text(label, (x + width / 2, y + height + 0.85 * text), size, QUIET)
    for i, line in enumerate(lines):
        canvas.text(line, (gap, gap + rows * (height + below) + (0.7 + 1.4 * i) * text), text, INK, anchor="lm")
    return canvas.finish()
