"""Does a result stand where its control says? Silhouettes of toybox, with and without a depth control.

A case: `texturing(A, B)` on a held-out object and material, and a photo C of the same object in another pose, of
another material, in a studio. The result is rendered once freely and once with C's depth, which is estimated from C's
pixels as it is for a user's photo. Its silhouette, read from its pixels, is compared with the exact one of C.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pops.errors import ConfigError, ensure

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.progress import OnProgress
    from pops.studio import Pops

SIDE = 96  # pixels that toybox's oracle and silhouette reader take
ANOTHER = 0.5  # intersection over union of A's and C's exact silhouettes below which their poses differ
GOOD = 0.7  # intersection over union from which a silhouette counts as C's


@dataclass(frozen=True)
class Case:
    """Images uint8 [3, SIDE, SIDE]; what the oracle ought to read; C's exact silhouette, bool [SIDE, SIDE]."""

    object: Tensor
    swatch: Tensor
    pose: Tensor
    silhouette: Tensor
    answer: Mapping[str, str]


@dataclass(frozen=True)
class Figure:
    """Mean intersection over union with C's silhouette, share of cases above GOOD, shares the oracle read right."""

    iou: float
    good: float
    object: float
    material: float


@dataclass(frozen=True)
class Report:
    """free, controlled: of the renderings; ceiling: mean intersection over union of the images C themselves."""

    model: str
    count: int
    seed: int
    free: Figure
    controlled: Figure
    ceiling: float

    def figures(self) -> dict[str, Any]:
        """Returns the report as `--json` prints it."""
        return asdict(self)


def draw_case(seed: int) -> Case:
    """Draws a held-out texturing, and its object in another pose."""
    import random

    from pops.toybox.draw import draw, draw_swatch, light, object_paints, paint, setting_of
    from pops.toybox.pairs import family
    from pops.toybox.poses import posed
    from pops.toybox.shot import shoot
    from pops.toybox.silhouette import iou
    from pops.toybox.world import plain_material

    f = family(seed, "test", "texturing")
    rng = random.Random(seed)
    first = posed(f.base, rng)
    silhouette = shoot(first.objects, first.camera, SIDE).mask > 0.5
    while True:
        second = posed(replace(f.studio, objects=f.base.objects), rng)
        shot = shoot(second.objects, second.camera, SIDE)
        if float(iou(silhouette[None], shot.mask[None] > 0.5)) < ANOTHER:
            break
    thing = second.objects[0]
    other = replace(second, objects=(replace(thing, material=plain_material(thing.category, rng)),))
    lit = light(shot, setting_of(other.scene, other.setting))
    return Case(
        draw(first, SIDE),
        draw_swatch(f.swatch, SIDE),
        paint(lit, [object_paints(o) for o in other.objects]),
        shot.mask > 0.5,
        {"object": thing.category, "material": f.textured.objects[0].material.name},
    )


def measure(
    p: Pops,
    *,
    count: int = 100,
    seed: int = 0,
    scale: float = 1.0,
    steps: int | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Measures `count` cases from `seed`. scale: of the control; steps: of the renderer, None for its default."""
    import torch

    from pops.toybox.oracle import Oracle
    from pops.toybox.silhouette import Silhouette, iou

    ensure(count >= 1, f"count must be 1 or more, got {count}", ConfigError)
    able = p.renderer().capabilities.controls
    ensure("depth" in able, f"the renderer of {p.name} has no depth control; choose another model", ConfigError)
    reader, oracle = Silhouette.load(), Oracle.load()
    cases, pictures = [], {"free": [], "controlled": []}  # type: ignore[var-annotated]
    for k in range(count):
        with torch.no_grad():
            case = draw_case(seed + k)
        a, b, c = (_image(x) for x in (case.object, case.swatch, case.pose))
        e = p.apply("texturing", a, b, seed=seed + k)
        options: dict[str, Any] = {"seed": seed + k, "steps": steps}
        pictures["free"].append(_array(p.render(e, **options)[0]))
        pictures["controlled"].append(_array(p.render(e, control={"depth": c}, control_scale=scale, **options)[0]))
        cases.append(case)
        if on_progress is not None:
            on_progress(k + 1, count, "cases")
    exact = torch.stack([case.silhouette for case in cases])
    figures = {}
    for name, rows in pictures.items():
        images = torch.stack(rows)
        shared = iou(reader.read(images), exact)
        read = oracle.read(images)
        right = {
            what: sum(r[what] == c.answer[what] for r, c in zip(read, cases, strict=True)) / count
            for what in ("object", "material")
        }
        figures[name] = Figure(float(shared.mean()), float((shared >= GOOD).float().mean()), **right)
    true = iou(reader.read(torch.stack([case.pose for case in cases])), exact)
    return Report(p.name, count, seed, **figures, ceiling=float(true.mean()))


def _image(image: Tensor) -> Image.Image:
    from PIL import Image

    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def _array(image: Image.Image) -> Tensor:
    import numpy as np
    import torch
    from PIL.Image import Resampling

    small = image.convert("RGB").resize((SIDE, SIDE), Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)


def markdown(report: Report) -> str:
    """Returns the report as a Markdown table of percentages."""
    rows = [
        "| | silhouette shared with C | cases above 70 % | object read | material read |",
        "|---|---|---|---|---|",
    ]
    for name, f in (("without control", report.free), ("with C's depth", report.controlled)):
        cells = (f.iou, f.good, f.object, f.material)
        rows.append(f"| {name} | " + " | ".join(f"{100 * v:.1f}" for v in cells) + " |")
    rows.append(f"| C itself, by the same reader | {100 * report.ceiling:.1f} | | | |")
    return "\n".join(rows) + "\n"
