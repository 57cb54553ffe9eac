"""What figures of expressions share: a node's image or card, and its caption.

PIL only. Images are given by resolved node (those of a plan); files are not read here, and a node without an image gets
a plain card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from PIL import Image

from pops.errors import ensure
from pops.expression.nodes import Call, Given, Let, Missing, Name, Node, Photo, Saved, Text, Word, walk
from pops.expression.plan import Plan, plan
from pops.figures.canvas import QUIET, Canvas, shortened

MOST = 300  # images in a figure
Images: TypeAlias = Mapping[Node, Image.Image]
Captions: TypeAlias = Mapping[Node, str]


def resolved(expression: Plan | Node) -> Node:
    """Returns the root of a plan, or a node with its names replaced by what they are bound to."""
    if isinstance(expression, Plan):
        return expression.root
    named = any(isinstance(node, (Let, Name)) for node in walk(expression))
    return plan(expression, None).root if named else expression


def check_size(root: Node, figure: str) -> None:
    """Raises ConfigError for an expression with more images than a figure is for: a tree shows each part once, an
    equation wherever it stands, which may be very often.
    """
    parts = sorted(walk(root), key=lambda node: node.depth)  # those below a node before it
    counts: dict[Node, int] = {}
    for node in parts:
        counts[node] = sum(counts[part] for part in node.children()) or 1
    count = counts[root] if figure == "equation" else len(counts)
    told = f"the {figure} would show more than {MOST} images; draw a part of the expression"
    ensure(count <= MOST, f"{told}{' or --tree' if figure == 'equation' and len(counts) <= MOST else ''}")


def caption_of(node: Node, captions: Captions) -> str:
    """Returns the caption given for a node, or by default its file's name, its key or its seed."""
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


def draw_node(canvas: Canvas, node: Node, at: tuple[float, float], thumb: float, images: Images) -> None:
    """Draws the node's image, or a card, with its upper left corner at `at`."""
    box = (at[0], at[1], at[0] + thumb, at[1] + thumb)
    if node in images:
        canvas.picture(images[node], box)
    elif isinstance(node, Missing):
        canvas.empty(box)
    elif isinstance(node, Word):
        canvas.card(node.text, box)
    elif isinstance(node, Text):
        canvas.card(node.prompt, box)
    else:
        canvas.card("", box)


def draw_caption(canvas: Canvas, text: str, at: tuple[float, float], thumb: float) -> None:
    """Draws the text centred below the image whose upper left corner is at `at`."""
    size = thumb * 0.085
    line = shortened(text, size, thumb * 0.98)
    canvas.text(line, (at[0] + thumb / 2, at[1] + thumb + size * 1.25), size, QUIET)
