"""Drawings of expressions: the equation as a strip, and the generative tree with a picture at every node.

PIL only. Pictures come in a mapping keyed by resolved nodes (those of a plan); files are not read here, and a
node without a picture gets a plain card.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from PIL import Image

from pops.expression.grammar import number_text
from pops.expression.nodes import Call, Given, Let, Missing, Name, Node, Photo, Saved, Sum, Text, Word, walk
from pops.expression.plan import Plan, plan
from pops.expression.sheet import (
    INK,
    LINE,
    QUIET,
    Sheet,
    colour_of,
    pill_width,
    shortened,
    text_width,
)

Pictures: TypeAlias = Mapping[Node, Image.Image]
Captions: TypeAlias = Mapping[Node, str]
SUM, TEXT = "sum", "text"


def _resolved(expression: Plan | Node) -> Node:
    if isinstance(expression, Plan):
        return expression.root
    named = any(isinstance(node, (Let, Name)) for node in walk(expression))
    return plan(expression, None).root if named else expression


def _caption(node: Node, captions: Captions) -> str:
    if node in captions:
        return captions[node]
    match node:
        case Photo(path) | Saved(path):
            name = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
            return re.sub(r"(?<=.)\.\w{1,11}$", "", name)
        case Given(key):
            return f"${key}"
        case Missing():
            return "missing"
        case Call(_, _, _, seed) | Text(_, _, seed) if seed is not None:
            return f"seed {seed}"
    return ""


def _draw_node(sheet: Sheet, node: Node, at: tuple[float, float], thumb: float, pictures: Pictures) -> None:
    """The node's picture (or card) with its upper left corner at `at`."""
    box = (at[0], at[1], at[0] + thumb, at[1] + thumb)
    if node in pictures:
        sheet.picture(pictures[node], box)
    elif isinstance(node, Missing):
        sheet.empty(box)
    elif isinstance(node, Word):
        sheet.card(node.text, box)
    elif isinstance(node, Text):
        sheet.card(node.prompt, box)
    else:
        sheet.card("", box)


def _draw_caption(sheet: Sheet, text: str, at: tuple[float, float], thumb: float) -> None:
    """Centred below the picture whose upper left corner is at `at`."""
    size = thumb * 0.085
    line = shortened(text, size, thumb * 0.98)
    sheet.text(line, (at[0] + thumb / 2, at[1] + thumb + size * 1.25), size, QUIET)


# --- the equation --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """A piece of an equation: a picture, or a sign: one of ( ) = + - *, a weight, or @ for an operator's."""

    sign: str = ""
    node: Node | None = None
    label: str = ""  # above an operator's sign
    note: str = ""  # below it
    picture: Image.Image | None = None

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
    """The node from left to right; calls and sums that are operands stand in brackets."""
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
    """Lines no wider than `max_width` where that can be; a line breaks before a sign."""
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
    pictures: Pictures,
    *,
    results: Sequence[Image.Image] = (),
    captions: Captions | None = None,
    thumb: int = 160,
    max_width: int | None = None,
) -> Image.Image:
    """The expression as an equation: pictures with signs between them, and after = the result.

    pictures: by resolved node; the root's is the result, unless `results` gives others (one a seed, say).
    captions: what stands below a node instead of its file's name. thumb: the side of a picture in pixels.
    max_width: of the figure in pixels, by default eleven times thumb.
    """
    root, captions = _resolved(expression), captions or {}
    shown = list(results) or ([pictures[root]] if root in pictures else [])
    operands = {node: picture for node, picture in pictures.items() if not isinstance(node, Text)}
    parts = list(_parts(root))
    parts += [part for picture in shown[:1] for part in (_Part("="), _Part(picture=picture))]
    parts += [part for picture in shown[1:] for part in (_Part(" "), _Part(picture=picture))]
    margin, row_height = thumb * 0.25, thumb * 1.36
    rows = _rows(parts, thumb, (max_width or thumb * 11) - 2 * margin)
    width = max(sum(part.width(thumb) for part in row) for row in rows)
    sheet = Sheet(width + 2 * margin, len(rows) * row_height - thumb * 0.18 + 2 * margin)
    for i, row in enumerate(rows):
        x, y = margin, margin + i * row_height
        for part in row:
            wide = part.width(thumb)
            if part.picture is not None:
                sheet.picture(part.picture, (x, y, x + thumb, y + thumb))
            elif part.sign:
                _draw_sign(sheet, part, x + wide / 2, y + thumb / 2, thumb)
            elif part.node is not None:
                _draw_node(sheet, part.node, (x, y), thumb, operands)
                _draw_caption(sheet, _caption(part.node, captions), (x, y), thumb)
            x += wide
    return sheet.finish()


def _draw_sign(sheet: Sheet, part: _Part, x: float, y: float, thumb: float) -> None:
    arm, stroke = thumb * 0.075, thumb * 0.02
    if part.sign == "@" and isinstance(part.node, Call):
        colour, radius = colour_of(part.node.operator), thumb * 0.1
        sheet.disc((x, y), radius, colour)
        for dx, dy in ((radius * 0.5, 0.0), (0.0, radius * 0.5)):
            sheet.line([(x - dx, y - dy), (x + dx, y + dy)], stroke, "#ffffff")
        sheet.text(part.label, (x, y - radius - thumb * 0.1), thumb * 0.1, colour)
        sheet.text(part.note, (x, y + radius + thumb * 0.09), thumb * 0.075, QUIET)
    elif part.sign in ("(", ")"):
        way = 1 if part.sign == "(" else -1
        bow = [
            (x + way * thumb * (0.05 - 0.09 * (1 - (t / 12) ** 2)), y + t / 12 * thumb * 0.5) for t in range(-12, 13)
        ]
        sheet.line(bow, thumb * 0.016, QUIET)
    elif part.sign == "=":
        for dy in (-0.5, 0.5):
            sheet.line([(x - arm, y + dy * arm), (x + arm, y + dy * arm)], stroke, INK)
    elif part.sign in ("+", "-"):
        sheet.line([(x - arm, y), (x + arm, y)], stroke, INK)
        if part.sign == "+":
            sheet.line([(x, y - arm), (x, y + arm)], stroke, INK)
    elif part.sign == "*":
        small, left = thumb * 0.03, x - thumb * 0.02
        for way in (-1, 1):
            sheet.line([(left - small, y - way * small), (left + small, y + way * small)], stroke * 0.7, INK)
    else:
        sheet.text(part.sign, (x, y), thumb * 0.15, INK)


# --- the tree ------------------------------------------------------------------------------------


def _inputs(node: Node) -> tuple[Node, ...]:
    """What the tree shows left of a node; a text's prompt stands there as a card."""
    return (Word(node.prompt or " "),) if isinstance(node, Text) and node.prompt.strip() else node.children()


def _operator(node: Node) -> str:
    return node.operator if isinstance(node, Call) else SUM if isinstance(node, Sum) else TEXT


def _ordered(root: Node) -> list[Node]:
    """Every node once, operands first."""
    order: dict[Node, None] = {}
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.setdefault(node)
        elif node not in order:
            stack.append((node, True))
            stack += [(part, False) for part in reversed(_inputs(node))]
    return list(order)


def _places(root: Node) -> tuple[dict[Node, int], dict[Node, float]]:
    """Column (0 is the root's, counted to the left) and row of every node, at least 1 apart in a column."""
    order = _ordered(root)
    columns = {root: 0}
    for node in reversed(order):
        for part in _inputs(node):
            columns[part] = max(columns.get(part, 0), columns[node] + 1)
    rows: dict[Node, float] = {}
    leaves = 0
    for node in order:
        inputs = _inputs(node)
        if inputs:
            rows[node] = sum(rows[part] for part in inputs) / len(inputs)
        else:
            rows[node], leaves = float(leaves), leaves + 1
    for column in range(max(columns.values()) + 1):  # push apart what shared operands drew together
        members = sorted((node for node in order if columns[node] == column), key=rows.__getitem__)
        before = sum(rows[node] for node in members)
        for above, below in pairwise(members):
            rows[below] = max(rows[below], rows[above] + 1)
        shift = (sum(rows[node] for node in members) - before) / len(members)
        for node in members:
            rows[node] -= shift
    top = min(rows.values())
    return columns, {node: row - top for node, row in rows.items()}


def tree_figure(
    expression: Plan | Node, pictures: Pictures, *, captions: Captions | None = None, thumb: int = 160
) -> Image.Image:
    """The generative tree from left to right: every node once with its picture, operators on the way.

    pictures: by resolved node (Plan.photos and so on, and the nodes of its jobs). captions: what stands below
    a node instead of its file's name. thumb: the side of a picture in pixels.
    """
    root, captions = _resolved(expression), captions or {}
    columns, rows = _places(root)
    made = [node for node in columns if _inputs(node)]
    size, margin = thumb * 0.095, thumb * 0.3
    gap = max([thumb * 0.9, *(pill_width(_operator(node), size) + thumb * 0.62 for node in made)])
    last, row_height = max(columns.values()), thumb * 1.34
    sheet = Sheet(
        last * (thumb + gap) + thumb + 2 * margin, max(rows.values()) * row_height + thumb * 1.16 + 2 * margin
    )
    at = {node: (margin + (last - columns[node]) * (thumb + gap), margin + rows[node] * row_height) for node in columns}
    for node in made:
        _draw_join(sheet, node, at, thumb, size)
    for node, spot in at.items():
        _draw_node(sheet, node, spot, thumb, pictures)
        _draw_caption(sheet, _caption(node, captions), spot, thumb)
    return sheet.finish()


def _draw_join(sheet: Sheet, node: Node, at: Mapping[Node, tuple[float, float]], thumb: float, size: float) -> None:
    """The curves from a node's operands to its operator's name, and on to its picture."""
    name = _operator(node)
    colour = QUIET if name in (SUM, TEXT) else colour_of(name)
    x, y = at[node][0], at[node][1] + thumb / 2
    half, width = pill_width(name, size) / 2, thumb * 0.0125
    centre = x - thumb * 0.16 - half
    weights = [weight for weight, _ in node.terms] if isinstance(node, Sum) else []
    for i, part in enumerate(_inputs(node)):
        start = (at[part][0] + thumb, at[part][1] + thumb / 2)
        sheet.curve(start, (centre - half, y), width, LINE)
        if weights:
            side = size if y < start[1] - 1 else -size  # away from where the curve goes
            sheet.text(number_text(weights[i]), (start[0] + thumb * 0.05, start[1] + side), size, QUIET, "lm")
    sheet.line([(centre + half, y), (x, y)], width, LINE)
    sheet.pill((centre, y), name, size, colour)
