"""The report on mixes for people: a table as Markdown, and the curves as an image (PIL only)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pops.measure.mix import ENOUGH, KINDS, Report

if TYPE_CHECKING:
    from PIL import Image

    from pops.figures.canvas import Canvas

CURVES = {"iou": ("IoU with the layout", "#4b6cb0"), "probability": ("content, probability", "#c0663f"),
          "right": ("content read right", "#5f8a3e")}  # fmt: skip
WIDTH, HEIGHT, MARGIN = 420, 260, 60  # pixels of one panel, and around it


def markdown(report: Report) -> str:
    """Returns one Markdown table per curve; IoU as a fraction, the rest in percent."""
    plain_settings = {k: v for k, v in report.settings.items() if isinstance(v, (int, float, str))}
    settings = ", ".join(f"{k} {v}" if isinstance(v, str) else f"{k} {v:g}" for k, v in plain_settings.items())
    top, plain = report.ceiling, report.layouts["all"]
    lines = [
        f"Model `{report.model}`, {report.count} pairs, seed {report.seed}; {settings}.",
        "",
        f"Silhouettes read in true images: IoU {top['true_pictures']:.3f} with the exact masks, after the "
        f"autoencoder {top['autoencoded']:.3f}. The layouts themselves: IoU {plain['iou']:.3f}, content read in "
        f"{100 * plain['right']:.1f} %.",
    ]
    for name, rows in report.curves.items():
        kinds = ("all", *KINDS)
        lines += ["", f"| {name} | " + " | ".join(f"{k}: IoU | probability | read right" for k in kinds) + " |"]
        lines.append("|---" * (1 + 3 * len(kinds)) + "|")
        for row in rows:
            cells = [
                f"{row[k]['iou']:.3f} | {100 * row[k]['probability']:.1f} | {100 * row[k]['right']:.1f}" for k in kinds
            ]
            lines.append(f"| {row['value']:g} | {' | '.join(cells)} |")
        way = report.monotone[name]
        lines += ["", f"IoU falls throughout: {_yes(way['iou_falls'])}; "
                      f"the content's probability rises throughout: {_yes(way['probability_rises'])}."]  # fmt: skip
    lines.append("")
    for kind, best in report.point.items():
        wanted = f"IoU >= {ENOUGH:g} and the content read right in >= {100 * ENOUGH:g} % ({kind})"
        found = "none" if best is None else (
            f"{best['over']} {best['value']:g}: IoU {best['iou']:.3f}, read right {100 * best['right']:.1f} %"
        )  # fmt: skip
        lines.append(f"- {wanted}: {found}")
    return "\n".join(lines) + "\n"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def plot(report: Report) -> Image.Image:
    """Draws two panels, over nu and over strength, of all pairs; each from 0 to 1."""
    from pops.figures.canvas import QUIET, Canvas

    panels = list(report.curves.items())
    canvas = Canvas(len(panels) * (WIDTH + MARGIN) + MARGIN, HEIGHT + 2 * MARGIN)
    for i, (name, rows) in enumerate(panels):
        _panel(canvas, name, rows, (MARGIN + i * (WIDTH + MARGIN), MARGIN))
    x = float(MARGIN)
    for label, colour in CURVES.values():
        canvas.disc((x + 6, MARGIN * 0.4), 5, colour)
        canvas.text(label, (x + 16, MARGIN * 0.4), 14, QUIET, anchor="lm")
        x += 190
    return canvas.finish()


def _panel(canvas: Canvas, name: str, rows: Sequence[dict[str, Any]], at: tuple[float, float]) -> None:
    from pops.figures.canvas import INK, LINE, QUIET

    low, high = rows[0]["value"], rows[-1]["value"]
    left, top = at

    def place(value: float, share: float) -> tuple[float, float]:
        return left + WIDTH * (value - low) / ((high - low) or 1), top + HEIGHT * (1 - share)

    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        canvas.line([place(low, share), place(high, share)], 1, LINE)
        canvas.text(f"{share:g}", (left - 8, place(low, share)[1]), 12, QUIET, anchor="rm")
    for row in rows:
        canvas.text(f"{row['value']:g}", (place(row["value"], 0)[0], top + HEIGHT + 14), 12, QUIET)
    canvas.text(name, (left + WIDTH / 2, top + HEIGHT + 36), 15, INK)
    for curve, (_, colour) in CURVES.items():
        points = [place(row["value"], row["all"][curve]) for row in rows]
        canvas.line(points, 2.5, colour)
        for point in points:
            canvas.disc(point, 4, colour)
