"""The generative tree from left to right: every node once, with operators between."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

from pops.expression.grammar import number_text
from pops.expression.nodes import Node, Sum
from pops.expression.places import SUM, TEXT, inputs_of, operator_of, places_of
from pops.expression.plan import Plan
from pops.figures.canvas import LINE, QUIET, Canvas, colour_of, pill_width
from pops.figures.nodes import Captions, Images, caption_of, check_size, draw_caption, draw_node, resolved


def tree_figure(
    expression: Plan | Node, images: Images, *, captions: Captions | None = None, thumb: int = 160
) -> Image.Image:
    """Draws the generative tree from left to right: every node once with its image, with operators between.

    images: by resolved node (Plan.photos and so on, and the nodes of its jobs). captions: by node, instead of its
    file's name. thumb: the side of an image in pixels.
    """
    root, captions = resolved(expression), captions or {}
    check_size(root, "tree")
    columns, rows = places_of(root)
    made = [node for node in columns if inputs_of(node)]
    size, margin = thumb * 0.095, thumb * 0.3
    gap = max([thumb * 0.9, *(pill_width(operator_of(node), size) + thumb * 0.62 for node in made)])
    last, row_height = max(columns.values()), thumb * 1.34
    canvas = Canvas(
        last * (thumb + gap) + thumb + 2 * margin, max(rows.values()) * row_height + thumb * 1.16 + 2 * margin
    )
    at = {node: (margin + (last - columns[node]) * (thumb + gap), margin + rows[node] * row_height) for node in columns}
    for node in made:
        _draw_join(canvas, node, at, thumb, size)
    for node, spot in at.items():
        draw_node(canvas, node, spot, thumb, images)
        draw_caption(canvas, caption_of(node, captions), spot, thumb)
    return canvas.finish()


def _draw_join(canvas: Canvas, node: Node, at: Mapping[Node, tuple[float, float]], thumb: float, size: float) -> None:
    """Draws the curves from a node's operands to its operator's name, and on to its image."""
    name = operator_of(node)
    colour = QUIET if name in (SUM, TEXT) else colour_of(name)
    x, y = at[node][0], at[node][1] + thumb / 2
    half, width = pill_width(name, size) / 2, thumb * 0.0125
    centre = x - thumb * 0.16 - half
    weights = [weight for weight, _ in node.terms] if isinstance(node, Sum) else []
    for i, part in enumerate(inputs_of(node)):
        start = (at[part][0] + thumb, at[part][1] + thumb / 2)
        canvas.curve(start, (centre - half, y), width, LINE)
        if weights:
            side = size if y < start[1] - 1 else -size  # on the side away from the curve
            canvas.text(number_text(weights[i]), (start[0] + thumb * 0.05, start[1] + side), size, QUIET, "lm")
    canvas.line([(centre + half, y), (x, y)], width, LINE)
    canvas.pill((centre, y), name, size, colour)
