"""A grid of images with labels: one row or column per value of a setting."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from pops.figures.canvas import INK, QUIET, Canvas, text_width

CELL = 256  # pixels a cell's longer side has at most


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
