"""Composed image search where the truth is known: scene(texturing(A, B), C) in a library of toybox's images.

Every query's exact answer is in the library, among images that share its object, material or scene. Searching with the
expression's embedding is compared with searching with the average of its three operands.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pops.errors import ConfigError, ensure

if TYPE_CHECKING:
    from torch import Tensor

    from pops.embedding import Embedding
    from pops.library import Library
    from pops.progress import OnProgress
    from pops.studio import Pops
    from pops.toybox.pairs import Family
    from pops.toybox.world import MaterialSpec, SceneSpec

SIDE = 96  # pixels of the images
GRID = 4  # materials, and scenes, in which the library shows each object
TOP = 10
ASKED = ("object", "material", "scene")
EXPRESSION = "scene(texturing($a, $b), $c)"


@dataclass
class Report:
    """By method, shares of the queries (see `figures`); photos: number of images in the library."""

    model: str
    photos: int
    queries: int
    seed: int
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)


def measure(
    p: Pops,
    *,
    count: int = 10_000,
    queries: int = 200,
    seed: int = 0,
    cache: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Measures `queries` held-out combinations in a library of `count` images.

    cache: a folder that keeps images and library, so that a stopped run resumes; None: they are temporary. ConfigError
    for fewer than 2 images per query.
    """
    ensure(queries >= 1, f"queries must be at least 1, got {queries}", ConfigError)
    ensure(count >= 2 * queries, f"{queries} queries need at least {2 * queries} images, got {count}", ConfigError)
    if cache is None:
        with TemporaryDirectory(prefix="pops-bench-") as folder:
            return _measured(p, count, queries, seed, Path(folder), on_progress)
    return _measured(p, count, queries, seed, cache, on_progress)


def _measured(p: Pops, count: int, queries: int, seed: int, folder: Path, on_progress: OnProgress | None) -> Report:
    from pops.embedding import Embedding
    from pops.library import Library, index_folder

    # 1) The library: drawn, then indexed as any folder is.
    pictures = folder / f"{count}-{queries}-{seed}"
    labels = draw_library(pictures, count, queries, seed, on_progress)
    where = folder / f"{pictures.name}-{p.space.fingerprint}.library"
    side = p.model.photo_side
    index_folder(pictures, where, p.space, side=side, on_progress=on_progress)

    # 2) The queries: operands drawn and encoded, the expression evaluated, one row per query; the operands' average.
    operands = draw_operands(p, queries, seed, on_progress)
    space = p.space.id
    given = {name: Embedding(operands[:, i], space) for i, name in enumerate("abc")}
    seeds = [seed + k for k in range(queries)]
    result = p.trace(EXPRESSION, given=given, seed=seeds, on_progress=on_progress).result
    ways = {"result": result, "average": Embedding(operands.mean(1), space), "operand a": given["a"]}

    # 3) What each finds.
    library = Library.open(where)
    report = Report(p.name, len(labels), queries, seed)
    truths = [_name(k, 0) for k in range(queries)]
    for name, e in ways.items():
        report.methods[name] = figures(found(library, pictures, e), truths, labels)
    return report


# --- the world of the library ----------------------------------------------------------------------------------------


def query(k: int, seed: int) -> Family:
    """Returns the family of query k: A is its `studio`, B its `swatch`, C its `empty`, the true result its `textured`.

    The combination of A's object and B's material is held out.
    """
    from pops.toybox.pairs import family

    return family(seed + k, "test", "texturing")


def specs(k: int, seed: int, count: int) -> list[SceneSpec]:
    """Returns the library's images for query k, the truth first.

    Then its object in other materials and scenes, and other objects in its material and scene, and in others.
    """
    from pops.toybox.world import CORE, named_material, sample_camera, sample_object, sample_setting

    f, rng = query(k, seed), random.Random(f"library {seed} {k}")
    truth = f.textured
    made: list[SceneSpec] = []
    while len(made) < count:
        # 1) An object: the query's own first, then another one from another viewpoint.
        own = not made
        others = [c for c in CORE.categories if c != truth.objects[0].category]
        thing = truth.objects[0] if own else sample_object(rng, rng.choice(others))
        camera = truth.camera if own else sample_camera(rng)

        # 2) Materials and scenes, the truth's first; never the studio, which is operand A's own image.
        names = [m for m in CORE.materials if m != truth.objects[0].material.name]
        materials = [truth.objects[0].material, *(named_material(m, rng) for m in rng.sample(names, GRID - 1))]
        if own:
            materials[1] = f.base.objects[0].material
        places = [s for s in CORE.scenes if s not in ("studio", truth.scene)]
        scenes = [(truth.scene, truth.setting), *(sample_setting(rng, s) for s in rng.sample(places, GRID - 1))]

        # 3) Their combinations, those with the truth's scene or material before the others.
        pairs = sorted(((s, m) for s in range(GRID) for m in range(GRID)), key=lambda p: (p[0] * p[1] > 0, sum(p)))
        for s, m in pairs:
            one = replace(thing, material=materials[m])
            made.append(replace(truth, objects=(one,), scene=scenes[s][0], setting=scenes[s][1], camera=camera))
    return made[:count]


def draw_library(
    folder: Path, count: int, queries: int, seed: int, on_progress: OnProgress | None = None
) -> dict[str, dict[str, str]]:
    """Draws the images that are not there yet; returns what every image shows, by its name."""
    from pops.toybox.draw import to_image

    labels: dict[str, dict[str, str]] = {}
    for k in range(queries):
        listed = specs(k, seed, count // queries + (k < count % queries))
        names = [_name(k, i) for i in range(len(listed))]
        for name, spec in zip(names, listed, strict=True):
            thing = spec.objects[0]
            labels[name] = {"object": thing.category, "material": _material(thing.material), "scene": spec.scene}
        if not all((folder / name).is_file() for name in names):
            (folder / names[0]).parent.mkdir(parents=True, exist_ok=True)
            for name, picture in zip(names, _drawn(listed), strict=True):
                to_image(picture).save(folder / name)
        if on_progress:
            on_progress(k + 1, queries, "drawing the library")
    return labels


def _drawn(listed: Sequence[SceneSpec]) -> list[Tensor]:
    """Draws images uint8 [3, SIDE, SIDE]; traces each geometry once, and lights it once per scene."""
    import torch

    from pops.toybox.draw import light, object_paints, paint, setting_of
    from pops.toybox.shot import shoot

    shots: dict[Any, Any] = {}
    lits: dict[Any, Any] = {}
    pictures = []
    with torch.no_grad():
        for spec in listed:
            thing = spec.objects[0]
            shape = (replace(thing, material=listed[0].objects[0].material), spec.camera)
            if shape not in shots:
                shots[shape] = shoot((thing,), spec.camera, SIDE)
            place = (shape, spec.scene, spec.setting)
            if place not in lits:
                lits[place] = light(shots[shape], setting_of(spec.scene, spec.setting))
            pictures.append(paint(lits[place], [object_paints(thing)]))
    return pictures


def draw_operands(p: Pops, queries: int, seed: int, on_progress: OnProgress | None = None) -> Tensor:
    """Draws and encodes A, B and C of each query => [queries, 3, D]."""
    from pops.toybox.draw import draw, draw_swatch, to_image

    images = []
    for k in range(queries):
        f = query(k, seed)
        images += [to_image(x) for x in (draw(f.studio, SIDE), draw_swatch(f.swatch, SIDE), draw(f.empty, SIDE))]
        if on_progress:
            on_progress(k + 1, queries, "drawing the operands")
    vectors: Tensor = p.embed(images).vectors
    return vectors.view(queries, 3, -1)


def _name(k: int, i: int) -> str:
    return f"{k:05d}/{i:03d}.png"


def _material(spec: MaterialSpec) -> str:
    return spec.name or f"{spec.kind} {spec.seed} {spec.rgb}"


# --- what was found --------------------------------------------------------------------------------------------------


def found(library: Library, pictures: Path, e: Embedding) -> list[list[str]]:
    """Returns the names of every row's nearest images; images with equal bytes count as one."""
    root = pictures.resolve()
    return [[Path(m.path).relative_to(root).as_posix() for m in row] for row in library.search(e, TOP)]


def figures(names: Sequence[Sequence[str]], truths: Sequence[str], labels: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Returns recall_at_1 and recall_at_10 of the true image, in_top_10 and of_top_10, all as shares.

    in_top_10: of the queries for which some image of the ten has the true object, material, scene, or all of them;
    of_top_10: of the ten images that have, mean over queries.
    """
    rows = []
    for top, truth in zip(names, truths, strict=True):
        right = [[labels[n][k] == labels[truth][k] for k in ASKED] for n in top]
        rows.append([[*row, all(row)] for row in right])
    n = len(truths)
    keys = (*ASKED, "all")
    return {
        "recall_at_1": sum(top[0] == truth for top, truth in zip(names, truths, strict=True)) / n,
        "recall_at_10": sum(truth in top for top, truth in zip(names, truths, strict=True)) / n,
        "in_top_10": {k: sum(any(r[i] for r in row) for row in rows) / n for i, k in enumerate(keys)},
        "of_top_10": {k: sum(sum(r[i] for r in row) / len(row) for row in rows) / n for i, k in enumerate(keys)},
    }


def markdown(report: Report) -> str:
    """Returns the report as a Markdown table of percentages."""
    about = f"{report.photos} images, {report.queries} queries, seed {report.seed}; percent of the queries."
    lines = [
        f"Model `{report.model}`, `scene(texturing(A, B), C)` in a library of {about}",
        "",
        "| searched with | recall@1 | recall@10 | in the top 10: object | material | scene | all three | share of the "
        "10: object | material | scene | all three |",
        "|---|" + "---|" * 10,
    ]
    for name, row in report.methods.items():
        shares = [row["recall_at_1"], row["recall_at_10"], *row["in_top_10"].values(), *row["of_top_10"].values()]
        lines.append(f"| {name} | " + " | ".join(f"{100 * share:.1f}" for share in shares) + " |")
    return "\n".join(lines) + "\n"
