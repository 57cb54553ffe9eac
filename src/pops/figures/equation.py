"""The expression as an equation: images with signs between them, and the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from pops.expression.grammar import number_text
from pops.expression.nodes import Call, Node, Sum, Text
from pops.expression.plan import Plan
from pops.figures.canvas import INK, QUIET, Canvas, colour_of, text_width
from pops.figures.nodes import Captions, Images, caption_of, check_size, draw_caption, draw_node, resolved


@dataclass(frozen=True)
class _Part:
    """A piece of an equation: an image, or a sign: one of ( ) = + - *, a weight, or @ for an operator's."""

    sign: str = ""
    node: Node | None = None
    label: str = ""  # above an operator's sign
    note: str = ""  # below it
    image: Image.Image | None = None

    def width(self, thumb: float) -> float:
        if not self.sign:
            return thumb
        if self.sign in ("(", ")"):
            return thumb * 0.2
        if self.sign == "@":
            return max(thumb * 0.46, text_width(self.label, thumb * 0.1) + thumb * 0.16)
        if self.sign in ("=", "+", "-"):
            return thumb * 0.42
        if self.sign == "*":
            return thumb * 0.16
        return text_width(self.sign, thumb * 0.15) + thumb * 0.1


def _parts(node: Node, inside: bool = False) -> Iterator[_Part]:
    """Yields the node's parts from left to right; calls and sums that are operands are in brackets."""
    if inside and isinstance(node, (Call, Sum)):
        yield _Part("(")
    if isinstance(node, Call):
        note = "" if node.seed is None else f"seed {node.seed}"
        for i, operand in enumerate(node.operands):
            if i or len(node.operands) == 1:
                yield _Part("@", node, "" if i > 1 else node.operator, "" if i > 1 else note)
            yield from _parts(operand, True)
    elif isinstance(node, Sum):
        for i, (weight, part) in enumerate(node.terms):
            if i or weight < 0:
                yield _Part("-" if weight < 0 else "+")
            if abs(weight) != 1:
                yield _Part(number_text(abs(weight)))
                yield _Part("*")
            yield from _parts(part, True)
    else:
        yield _Part(node=node)
    if inside and isinstance(node, (Call, Sum)):
        yield _Part(")")


def _rows(parts: Sequence[_Part], thumb: float, max_width: float) -> list[list[_Part]]:
    """Breaks the parts into lines before signs, no wider than `max_width` if possible."""
    rows: list[list[_Part]] = [[]]
    width = 0.0
    chunk: list[_Part] = []
    for i, part in enumerate(parts):
        chunk.append(part)
        following = parts[i + 1].sign if i + 1 < len(parts) else "@"
        if following not in ("@", "=", "+", "-"):
            continue
        wide = sum(p.width(thumb) for p in chunk)
        if rows[-1] and width + wide > max_width:
            rows.append([])
            width = 0.0
        rows[-1] += chunk
        width += wide
        chunk = []
    return rows


def equation_figure(
    expression: Plan | Node,
    images: Images,
    *,
    results: Sequence[Image.Image] = (),
    captions: Captions | None = None,
    thumb: int = 160,
    max_width: int | None = None,
) -> Image.Image:
    """Draws the expression as an equation: images with signs between them, and after = the result.

    images: by resolved node; the root's is the result, unless `results` gives others (such as one per seed). captions:
    by node, instead of its file's name. thumb: the side of an image in pixels. max_width: of the figure in pixels, by
    default eleven times thumb.
    """
    root, captions = resolved(expression), captions or {}
    check_size(root, "equation")
    shown = list(results) or ([images[root]] if root in images else [])
    operands = {node: image for node, image in images.items() if not isinstance(node, Text)}
    parts = list(_parts(root))
    parts += [part for image in shown[:1] for part in (_Part("="), _Part(image=image))]
    parts += [part for image in shown[1:] for part in (_Part(" "), _Part(image=image))]
    margin, row_height = thumb * 0.25, thumb * 1.36
    rows = _rows(parts, thumb, (max_width or thumb * 11) - 2 * margin)
    width = max(sum(part.width(thumb) for part in row) for row in rows)
    canvas = Canvas(width + 2 * margin, len(rows) * row_height - thumb * 0.18 + 2 * margin)
    for i, row in enumerate(rows):
        x, y = margin, margin + i * row_height
        for part in row:
            wide = part.width(thumb)
            if part.image is not None:
                canvas.picture(part.image, (x, y, x + thumb, y + thumb))
            elif part.sign:
                _draw_sign(canvas, part, x + wide / 2, y + thumb / 2, thumb)
            elif part.node is not None:
                draw_node(canvas, part.node, (x, y), thumb, operands)
                draw_caption(canvas, caption_of(part.node, captions), (x, y), thumb)
            x += wide
    return canvas.finish()


def _draw_sign(canvas: Canvas, part: _Part, x: float, y: float, thumb: float) -> None:
    arm, stroke = thumb * 0.075, thumb * 0.02
    if part.sign == "@" and isinstance(part.node, Call):
        colour, radius = colour_of(part.node.operator), thumb * 0.1
        canvas.disc((x, y), radius, colour)
        for dx, dy in ((radius * 0.5, 0.0), (0.0, radius * 0.5)):
            canvas.line([(x - dx, y - dy), (x + dx, y + dy)], stroke, "#ffffff")
        canvas.text(part.label, (x, y - radius - thumb * 0.1), thumb * 0.1, colour)
        canvas.text(part.note, (x, y + radius + thumb * 0.09), thumb * 0.075, QUIET)
    elif part.sign in ("(", ")"):
        way = 1 if part.sign == "(" else -1
        bow = [
            (x + way * thumb * (0.05 - 0.09 * (1 - (t / 12) ** 2)), y + t / 12 * thumb * 0.5) for t in range(-12, 13)
        ]
        canvas.line(bow, thumb * 0.016, QUIET)
    elif part.sign == "=":
        for dy in (-0.5, 0.5):
            canvas.line([(x - arm, y + dy * arm), (x + arm, y + dy * arm)], stroke, INK)
    elif part.sign in ("+", "-"):
        canvas.line([(x - arm, y), (x + arm, y)], stroke, INK)
        if part.sign == "+":
            canvas.line([(x, y - arm), (x, y + arm)], stroke, INK)
    elif part.sign == "*":
        small, left = thumb * 0.03, x - thumb * 0.02
        for way in (-1, 1):
            canvas.line([(left - small, y - way * small), (left + small, y + way * small)], stroke * 0.7, INK)
    else:
        canvas.text(part.sign, (x, y), thumb * 0.15, INK)
