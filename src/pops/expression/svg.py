"""The tree of an expression as SVG for notebooks, from left to right: a card per node, with its kind and its image.

Files are not read here. Colours are the page's own or translucent; every text is escaped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from pops.expression.grammar import number_text
from pops.expression.nodes import Call, Given, Let, Missing, Name, Node, Option, Photo, Saved, Sum, Text, Word, is_mix
from pops.expression.places import inputs_of, places_of
from pops.notebook import EDGE, GREY, escaped

MOST_NODES = 120  # a larger tree is not drawn
WIDTH, HEIGHT, IMAGE, GAP = 136, 42, 104, 36  # of a card, without an image; of its image; between columns
LETTERS = 16  # of a card's name


def tree_svg(root: Node, images: Mapping[Node, str] | None = None) -> str:
    """Returns the tree as an <svg> element; "" for one of more than MOST_NODES nodes.

    images: by node, each a data URI.
    """
    images = images or {}
    columns, rows = places_of(root)
    if len(columns) > MOST_NODES:
        return ""
    step, last = _tall(bool(images)) + 14, max(columns.values())
    at = {node: (1 + (last - column) * (WIDTH + GAP), rows[node] * step) for node, column in columns.items()}
    top = min(y - _tall(node in images) / 2 for node, (_, y) in at.items()) - 1
    width = last * (WIDTH + GAP) + WIDTH + 2
    height = max(y + _tall(node in images) / 2 for node, (_, y) in at.items()) + 1 - top
    curves = "".join(_curve(node, i, part, at) for node in at for i, part in enumerate(inputs_of(node)))
    cards = "".join(_card(node, at[node], images.get(node)) for node in at)
    return (
        f'<div style="overflow-x:auto"><svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:.0f}" '
        f'viewBox="0 {top:.1f} {width} {height:.1f}" style="max-width:none;display:block;margin:6px 0" '
        f'font-family="system-ui,sans-serif" fill="currentColor" role="img">{curves}{cards}</svg></div>'
    )


def _tall(image: bool) -> int:
    return HEIGHT + (IMAGE + 8 if image else 0)


def _curve(node: Node, index: int, part: Node, at: Mapping[Node, tuple[float, float]]) -> str:
    """Returns the curve from an operand to the node that takes it, with its weight in a sum."""
    (x0, y0), (x1, y1) = at[part], at[node]
    x0 += WIDTH
    bend = (x1 - x0) / 2
    path = f"M{x0:.1f} {y0:.1f} C{x0 + bend:.1f} {y0:.1f} {x1 - bend:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
    drawn = f'<path d="{path}" fill="none" stroke="{EDGE}" stroke-width="1.5"/>'
    if isinstance(node, Sum):
        weight = escaped(number_text(float(f"{node.terms[index][0]:.3g}")))
        drawn += f'<text x="{x0 + 4:.1f}" y="{y0 - 5:.1f}" font-size="11" opacity=".8">{weight}</text>'
    return drawn


def _card(node: Node, at: tuple[float, float], image: str | None) -> str:
    """Returns a node's card, `at` the middle of its left side: the image if it has one, name and kind below."""
    name, kind = name_and_kind(node)
    tall = _tall(image is not None)
    x, y = at[0], at[1] - tall / 2
    dashed = ' stroke-dasharray="4 3"' if isinstance(node, Missing) else ""
    drawn = [
        f'<g><title>{escaped(f"{name} ({kind})", 300)}</title><rect x="{x:.1f}" y="{y:.1f}" width="{WIDTH}" '
        f'height="{tall}" rx="8" fill="{GREY}" stroke="{EDGE}"{dashed}/>'
    ]
    if image:
        drawn.append(
            f'<image href="{image}" x="{x + (WIDTH - IMAGE) / 2:.1f}" y="{y + 8:.1f}" '
            f'width="{IMAGE}" height="{IMAGE}"/>'
        )
    bold = ' font-weight="600"' if node.children() or isinstance(node, Text) else ""
    centre, foot = x + WIDTH / 2, y + tall
    drawn += [
        f'<text x="{centre:.1f}" y="{foot - 24:.1f}" font-size="13" text-anchor="middle"{bold}>'
        f"{escaped(_short(name))}</text>",
        f'<text x="{centre:.1f}" y="{foot - 9:.1f}" font-size="10.5" text-anchor="middle" opacity=".7">'
        f"{escaped(_short(kind, LETTERS + 5))}</text></g>",
    ]
    return "".join(drawn)


def name_and_kind(node: Node) -> tuple[str, str]:
    """Returns what a node is called, and what kind of node it is, with its options and its seed."""
    match node:
        case Photo(path) | Saved(path):
            base = re.split(r"[/\\]", path.rstrip("/\\"))[-1] or path
            return base, "photo" if isinstance(node, Photo) else "embedding"
        case Given(key):
            return f"${key}", "from Python"
        case Word(text):
            return f"“{text}”", "words"
        case Missing():
            return "_", "missing"
        case Text(_, options, seed):
            return "text", _with("base prior", options, seed)
        case Call(operator, _, options, seed):
            return operator, _with("mix" if is_mix(node) else "operator", options, seed)
        case Sum():
            return "sum", "weighted"
        case Name(name, seed):
            return name, _with("name", (), seed)
        case Let(bindings):
            return "let", ", ".join(name for name, _ in bindings)
    return type(node).__name__, ""


def _with(kind: str, options: tuple[Option, ...], seed: int | None) -> str:
    told = [f"{key}={value}" for key, value in options] + ([] if seed is None else [f"@{seed}"])
    return " ".join(told) or kind


def _short(text: str, most: int = LETTERS) -> str:
    """Returns the text without its middle if it is wider than `most` letters."""
    wide = [2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text[:400]]
    if len(text) <= 400 and sum(wide) <= most:
        return text
    keep = max(1, most * len(wide) // (2 * sum(wide)))
    return f"{text[:keep].rstrip()}…{text[-keep + 1 :].lstrip() if keep > 1 else ''}"
