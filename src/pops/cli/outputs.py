"""The files that a command writes: their names, what stands already, and what must not be overwritten.

A file that stands is never overwritten silently: the next free number is taken, unless --force or --resume says else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pops.errors import ConfigError, PopsError, ensure
from pops.files import check_place, expanded, shown

if TYPE_CHECKING:
    from pops.expression.plan import Plan
    from pops.parts import Shard
    from pops.recipe import Recipe
    from pops.studio import Pops

FIGURES: tuple[Literal["tree"], Literal["equation"], Literal["grid"]] = ("tree", "equation", "grid")

Force = Annotated[
    bool, typer.Option("--force", help="Overwrite files that exist. [default: take the next free number]")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with a run that was stopped: keep images that stand, make the rest.")
]
ShardOption = Annotated[
    str | None, typer.Option("--shard", help="2/8: make the second of eight shares, to run beside the others.")
]
Grid = Annotated[
    Path | None, typer.Option("--grid", help="Write a contact sheet of all images, labelled by their seeds.")
]


@dataclass(frozen=True)
class Outputs:
    """The files that a command writes; None for each that it does not."""

    out: Path | None = None  # the images
    tree: Path | None = None
    equation: Path | None = None
    grid: Path | None = None
    embedding: Path | None = None
    latent: Path | None = None
    control: Path | None = None
    recipe: bool = True  # write it into images
    force: bool = False  # overwrite what stands
    resume: bool = False  # keep images that stand
    shard: Shard | None = None  # make only a share
    ray: str | None = None  # a cluster that makes the images: "local", or host:port
    workers: int | None = None  # on it

    def pictures(self) -> list[Path]:
        """Returns the paths of the images and figures as they were given."""
        return [path for path in (self.out, self.tree, self.equation, self.grid, self.control) if path]

    def figures(self) -> list[Literal["tree", "equation", "grid"]]:
        """Returns the names of the figures that are asked for."""
        return [name for name in FIGURES if getattr(self, name)]


@dataclass(frozen=True)
class Places:
    """Where each file of a run goes. Images, and latents, by their number among all of the recipe's."""

    images: dict[int, Path] = field(default_factory=dict)
    latents: dict[int, Path] = field(default_factory=dict)
    controls: dict[str, Path] = field(default_factory=dict)  # by kind
    figures: dict[str, Path] = field(default_factory=dict)  # by name
    embedding: Path | None = None
    standing: frozenset[int] = frozenset()  # numbers of images that are there, and are not made again
    only: frozenset[int] | None = None  # numbers to make; None for all

    def all(self) -> list[Path]:
        """Returns every path."""
        some = [*self.images.values(), *self.latents.values(), *self.controls.values(), *self.figures.values()]
        return [*some, self.embedding] if self.embedding else some


def shard_of(text: str | None) -> Shard | None:
    """Reads "2/8"."""
    from pops.parts import Shard

    return None if text is None else Shard.parse(text)


def place_outputs(pops: Pops, recipe: Recipe, outputs: Outputs, given: dict[str, object]) -> Places:
    """Returns where the outputs go; raises ConfigError for one that cannot or must not be written. Computes nothing.

    Two outputs of one name and outputs that would overwrite an operand are refused, too.
    """
    # 1) What goes together, and endings.
    _check_asked(recipe, outputs)

    # 2) Names, one per image and latent, of control images one per kind.
    plan = pops.plan(recipe.expression)
    one = recipe.shows != "image" or bool(recipe.sweep)
    rows = pops.runner.rows(recipe, plan, given)
    numbers = [0] if one else recipe.numbers(rows)
    kinds = list(recipe.rendering.control)
    several = len(kinds) > 1
    control = outputs.control
    places = Places(
        images=_numbered(outputs.out, numbers),
        latents=_numbered(outputs.latent, numbers),
        controls={k: control.with_name(f"{control.stem}-{k}{control.suffix}") if several else control for k in kinds}
        if control
        else {},
        figures={name: getattr(outputs, name) for name in outputs.figures()},
        embedding=outputs.embedding,
    )

    # 3) Each can be written, and none lies on top of another or of what the recipe reads.
    _check_places(recipe, plan, places)

    # 4) What stands already: numbers that are free, or images that are kept.
    if outputs.shard is not None:
        ensure(len(numbers) > 1, "--shard shares many images, and this is one; leave it out", ConfigError)
        share = outputs.shard.of(pops.runner.parts(recipe, rows))
        places = replace(places, only=frozenset(number for part in share for number in part.numbers))
    if outputs.resume:
        places = _resumed(pops, recipe, places, rows)
    elif not outputs.force:
        places = _unused(places)
        _check_places(recipe, plan, places)
    if outputs.recipe:
        from pops.images import check_recipe

        settled = pops.runner.settled(recipe, plan, rows)
        whole = settled if one or plan.saved else settled.of_rows(range(min(rows, pops.model.max_batch)))
        for path in [*list(places.images.values())[:1], *places.figures.values()]:
            check_recipe(path, (settled if path in places.figures.values() else whole).to_data())
    return places


def place_remote(recipe: Recipe, plan: Plan, outputs: Outputs) -> Places:
    """Returns where images and figures go that a server makes, under the names that `place_outputs` gives them."""
    _check_asked(recipe, outputs)
    kept = (outputs.resume, outputs.shard, outputs.ray, outputs.embedding, outputs.latent, outputs.control)
    told = (
        "--resume, --shard, --ray, --save-embedding, --save-latent, --save-control work without --server; leave it out"
    )
    ensure(not any(kept), told, ConfigError)
    drawn = bool(outputs.tree or outputs.equation) or recipe.shows in ("tree", "equation")
    ensure(not drawn, "trees and equations show the names of photos, which a server does not know; leave --server out")
    one = recipe.shows != "image" or bool(recipe.sweep)
    numbers = [0] if one else recipe.numbers(len(recipe.seeds))
    figures: dict[str, Path] = {name: getattr(outputs, name) for name in outputs.figures()}
    places = Places(images=_numbered(outputs.out, numbers), figures=figures)
    _check_places(recipe, plan, places)
    if not outputs.force:
        places = _unused(places)
        _check_places(recipe, plan, places)
    return places


def _check_asked(recipe: Recipe, outputs: Outputs) -> None:
    from pops.embedding import WRITTEN_SUFFIXES
    from pops.images import PICTURE_SUFFIXES

    wanted = [*outputs.pictures(), *(path for path in (outputs.embedding, outputs.latent) if path)]
    ensure(bool(wanted), "no output given; add -o out.png (or --grid, --save-embedding, --tree, --equation)")
    controlled = not outputs.control or bool(outputs.out and recipe.rendering.control)
    ensure(controlled, "--save-control goes with --control and -o; add them")
    for path in outputs.pictures():
        fits = path.suffix.lower() in PICTURE_SUFFIXES
        ensure(fits, f"{path}: images are written as {', '.join(PICTURE_SUFFIXES)}; use one of these endings")
    ensure(
        outputs.embedding is None or outputs.embedding.suffix.lower() in WRITTEN_SUFFIXES,
        f"--save-embedding writes {', '.join(WRITTEN_SUFFIXES)}, got {outputs.embedding}; change the suffix",
    )
    if outputs.latent:
        ensure(not recipe.sweep, "a grid has no latent of its own; remove --save-latent or --sweep")
        fits = outputs.latent.suffix.lower() == ".safetensors"
        ensure(fits, f"--save-latent {outputs.latent}: a latent file ends in .safetensors; change the suffix")
    drawing = bool(outputs.figures() or outputs.embedding)
    ensure(not (recipe.sweep and drawing), "a grid has no tree, equation or embedding; take them of a single mix")
    ensure(not (outputs.force and outputs.resume), "--force makes all anew and --resume only what is missing; give one")
    if outputs.resume:
        ensure(outputs.out is not None, "--resume goes on with images; add -o out.png")
        ensure(outputs.recipe, "--resume goes by the recipes inside images; leave --no-recipe out")
        ensure(not recipe.sweep, "a grid over settings is one picture, made as a whole; leave --resume out")
    if outputs.shard is not None:
        ensure(outputs.out is not None, "--shard makes some of many images; add -o out.png")
        told = "--tree, --equation, --grid and --save-embedding are of the whole run; make them without --shard"
        ensure(not drawing, told)
    _check_shared(recipe, outputs, drawing)


def _check_shared(recipe: Recipe, outputs: Outputs, drawing: bool) -> None:
    """Refuses what workers on Ray do not make."""
    if outputs.ray is None:
        ensure(outputs.workers is None, "--workers is of --ray; add --ray local, or leave it out")
        return
    ensure(outputs.out is not None, "--ray makes many images; add -o out.png")
    one = recipe.shows != "image" or bool(recipe.sweep)
    told = "figures, --save-embedding and --save-control are of the whole run; make them without --ray"
    ensure(not (drawing or one or outputs.control), told)


def _numbered(path: Path | None, numbers: Sequence[int]) -> dict[int, Path]:
    """Returns the path of each image: out.png of one, else out-0.png, out-1.png, ..."""
    if path is None:
        return {}
    if len(numbers) == 1:
        return {numbers[0]: path}
    return {number: path.with_name(f"{path.stem}-{number}{path.suffix}") for number in numbers}


# --- what stands ---------------------------------------------------------------------------------


def _unused(places: Places) -> Places:
    """The places, moved on to names that are free; of a shard, whose names are fixed, none may stand."""
    if places.only is not None:
        for number in sorted(places.only):
            path = places.images[number]
            told = f"{shown(path)} exists; --resume keeps what stands, --force makes it anew"
            ensure(not path.exists(), told, ConfigError)
        return places
    start = max(_next_number(places.images), _next_number(places.latents))  # an image and its latent share it
    return replace(
        places,
        images=_counted(places.images, start),
        latents=_counted(places.latents, start),
        controls={kind: _free(path) for kind, path in places.controls.items()},
        figures={name: _free(path) for name, path in places.figures.items()},
        embedding=_free(places.embedding) if places.embedding else None,
    )


def _free(path: Path) -> Path:
    """Returns the path, or NAME-1, NAME-2, ... with the number after the highest that exists."""
    return _counted({0: path}, _next_number({0: path}))[0]


def _next_number(paths: Mapping[int, Path]) -> int:
    """Returns the number after the highest of such files that exist; 0 where none of these paths does."""
    if not any(path.exists() or path.is_symlink() for path in paths.values()):
        return 0
    first = next(iter(paths.values()))
    pattern = re.compile(re.escape(_stem(paths)) + r"-(\d{1,9})" + re.escape(first.suffix))
    return 1 + max(
        (int(match[1]) for entry in first.parent.iterdir() if (match := pattern.fullmatch(entry.name))), default=0
    )


def _counted(paths: Mapping[int, Path], start: int) -> dict[int, Path]:
    """Returns the paths with numbers from `start` on; as they are where that is 0."""
    if start == 0 or not paths:
        return dict(paths)
    stem = _stem(paths)
    return {n: path.with_name(f"{stem}-{start + i}{path.suffix}") for i, (n, path) in enumerate(paths.items())}


def _stem(paths: Mapping[int, Path]) -> str:
    stem = next(iter(paths.values())).stem
    return stem if len(paths) == 1 else stem.rpartition("-")[0]


def _resumed(pops: Pops, recipe: Recipe, places: Places, rows: int) -> Places:
    """The places, without what stands by its recipe; ConfigError for a file there that is another's."""
    settled = pops.runner.settled(recipe, pops.plan(recipe.expression), rows)
    numbers = list(places.images) if places.only is None else sorted(places.only)
    expected = pops.runner.recipes(settled, rows) if recipe.shows == "image" else {0: settled}
    standing = {number for number in numbers if _stands(places.images[number], expected[number])}
    standing -= {number for number in standing if number in places.latents and not places.latents[number].exists()}
    figures = {name: path for name, path in places.figures.items() if not _stands(path, settled.of_figure(name))}
    whole = places.embedding is not None and not places.embedding.exists()
    return replace(
        places,
        standing=frozenset(standing),
        only=frozenset(numbers) if whole else frozenset(numbers) - standing,
        figures=figures,
        controls={kind: path for kind, path in places.controls.items() if not path.exists()},
        embedding=places.embedding if whole else None,
    )


def _stands(path: Path, expected: Recipe) -> bool:
    """Whether a picture is there and has this recipe; ConfigError where it has another."""
    from pops.recipe import Recipe

    if not path.exists():
        return False
    try:
        found = Recipe.from_png(path)
        ours = expected.model_copy(update={"found": found.found})
        other = next(
            (f"its {name} differ{'s' * (name[-1] != 's')}" for name, v in ours if getattr(found, name) != v), ""
        )
    except PopsError:
        other = "it carries no recipe"
    told = f"{shown(path)} exists and is not of this run ({other}); choose another name, or --force"
    ensure(not other, told, ConfigError)
    return True


# --- places --------------------------------------------------------------------------------------


def _check_places(recipe: Recipe, plan: Plan, places: Places) -> None:
    paths = places.all()
    for path in paths:
        check_place(path)
    resolved = [path.resolve() for path in paths]
    ensure(len(set(resolved)) == len(resolved), "two outputs have the same name; give each its own")
    read = [*(node.path for node in plan.photos), *(node.path for node in plan.saved)]
    read += [source.removeprefix("map:") for source in recipe.rendering.control.values()]
    read += [*recipe.loading.operators.values(), *filter(None, [recipe.loading.adapter])]
    _refuse_inputs(paths, resolved, {expanded(path).resolve() for path in read})


def _refuse_inputs(paths: Sequence[Path], resolved: Sequence[Path], inputs: Collection[Path]) -> None:
    for target, path in zip(resolved, paths, strict=True):
        ensure(target not in inputs, f"{path} is an operand of the expression; write to another file")
