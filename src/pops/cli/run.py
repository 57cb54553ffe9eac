"""pops run: an expression (text, tree file, or a picture that pops made) -> pictures."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pops.cli.shell import Debug, Device, Json, Quiet, command, parse_size, print_json, progress
from pops.errors import ConfigError, ensure
from pops.files import check_place, expanded, is_file

if TYPE_CHECKING:
    from PIL import Image

    from pops.cli.shell import OnProgress
    from pops.evaluation import Trace
    from pops.expression import Expression
    from pops.studio import Pops

TREES = (".yaml", ".yml", ".json")


@dataclass
class Request:
    """One command, settled: what a recipe gave, overridden by what the command line says."""

    expression: Expression
    model: str = "tiny"
    decoder: str | None = None
    precision: str | None = None
    operators: Mapping[str, str] = field(default_factory=dict)  # beside the model's own: name -> folder or file
    seeds: list[int] = field(default_factory=lambda: [0])
    num_images: int = 1
    picture: int | None = None  # only this one of all (a repeated recipe)
    making: dict[str, Any] = field(default_factory=dict)  # steps, guidance, sampler, fit
    rendering: dict[str, Any] = field(default_factory=dict)  # renderer, steps, guidance, size, ...
    scale: int = 1
    inputs: Mapping[str, str] = field(default_factory=dict)  # path -> digest, when the recipe was made


@command
def run(
    expression: Annotated[
        str,
        typer.Argument(
            help="An expression, a tree file (.yaml, .json), or a picture made by pops, to repeat it.",
            show_default=False,
            metavar="EXPR",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The picture; several become NAME-0.png, NAME-1.png, ...", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A model's name, its folder or a hub id. [default: tiny]"),
    ] = None,
    decoder: Annotated[
        str | None, typer.Option("--decoder", help="A decoder's folder or hub id, instead of the model's own.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="Of the prior: float32, bfloat16, float16, int8. [default: float32]"),
    ] = None,
    operator: Annotated[
        list[str] | None,
        typer.Option("--operator", help="NAME=PATH: an operator folder or a learned_prior.pth. Repeatable."),
    ] = None,
    seed: Annotated[str | None, typer.Option("--seed", "-s", help="0, or several: 0,1,2 or 0:4. [default: 0]")] = None,
    num_images: Annotated[
        int | None,
        typer.Option("--num-images", "-n", help="Pictures of each embedding. [default: 1]", min=1, max=1000),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps of every operator.", min=1, max=1000)] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", help="Guidance of every operator.", min=0)] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", help="How operators sample.")] = None,
    render_steps: Annotated[
        int | None, typer.Option("--render-steps", help="Steps of the renderer.", min=1, max=1000)
    ] = None,
    render_guidance: Annotated[
        float | None, typer.Option("--render-guidance", help="Guidance of the renderer.", min=0)
    ] = None,
    renderer: Annotated[str | None, typer.Option("--renderer", help="A renderer other than the model's own.")] = None,
    fit: Annotated[
        str | None,
        typer.Option("--fit", help="How photos become square: squash, crop or pad. [default: squash]"),
    ] = None,
    size: Annotated[str | None, typer.Option("--size", help="HEIGHTxWIDTH in pixels, multiples of 8.")] = None,
    scale: Annotated[
        int | None, typer.Option("--scale", help="Enlarge the finished picture N times.", min=1, max=16)
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="A text beside the embedding.")] = None,
    negative: Annotated[str | None, typer.Option("--negative", help="A text to keep away from.")] = None,
    save_embedding: Annotated[
        Path | None, typer.Option("--save-embedding", help="Keep the embedding: .safetensors, .npy or .ipadpt.")
    ] = None,
    tree: Annotated[Path | None, typer.Option("--tree", help="Draw the tree, every node rendered.")] = None,
    equation: Annotated[Path | None, typer.Option("--equation", help="Draw the equation as a strip.")] = None,
    device: Device = "auto",
    json_output: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compute an expression and render it.

    Examples:

    \b
        pops run "texturing(teapot.png, tiger.png)" -o out.png
        pops run "scene(texturing(teapot.png, tiger.png), beach.png)" -o out.png
        pops run 'instruct(rabbit.png, "golden")' -o out.png --equation strip.png
        pops run 'text("a marble rabbit")' -o rabbit.png --num-images 4

    \b
        an open operand, four ideas; a weighted sum; a tree with every node rendered
        pops run "texturing(teapot.png, _)" --seed 0:4 -o idea.png
        pops run "0.5*dog.png + 0.5*hat.png" -o out.png --save-embedding e.safetensors
        pops run "union(dog.png, hat.png)" -o out.png --tree tree.png

    \b
        the same picture again, byte for byte, from the recipe inside it
        pops run out.png -o again.png
    """
    start = time.monotonic()
    gc.disable()  # imports make millions of objects that live on; collecting takes a tenth of a short run
    request = _settle(
        expression,
        model=model,
        decoder=decoder,
        precision=precision,
        operators=operator or [],
        seed=seed,
        num_images=num_images,
        scale=scale,
        making={"steps": steps, "guidance": guidance, "sampler": sampler, "fit": fit},
        rendering={
            "renderer": renderer,
            "steps": render_steps,
            "guidance": render_guidance,
            "size": parse_size(size) if size else None,
            "prompt": prompt,
            "negative": negative,
        },
    )
    from pops.studio import load

    pops = load(
        request.model,
        decoder=request.decoder,
        operators=request.operators,
        device=device,
        precision=request.precision,
    )
    plan = pops.plan(request.expression)
    if dry_run:
        if json_output:
            print_json({"ok": True, "expression": str(request.expression), "plan": str(plan)})
        else:
            typer.echo(str(plan))
        return
    _check_outputs(request, [*plan.photos, *plan.saved], out, save_embedding, tree, equation)

    with progress(quiet=quiet or json_output) as on_progress:
        trace = pops.trace(request.expression, seed=request.seeds, on_progress=on_progress, **request.making)
        gc.enable()
        _tell_changed(request, trace)
        written = _write_pictures(pops, request, trace, out, on_progress) if out else []
        if save_embedding:
            trace.result.save(save_embedding)
        if tree or equation:
            _write_figures(pops, request, trace, tree, equation, written, on_progress)
    if json_output:
        done = {"embedding": save_embedding, "tree": tree, "equation": equation}
        print_json(
            {
                "ok": True,
                "outputs": [str(path) for path in written],
                **{key: str(path) for key, path in done.items() if path},
                "expression": str(request.expression),
                "seeds": request.seeds,
                "model": pops.name,
                "seconds": round(time.monotonic() - start, 3),
            }
        )
    elif not quiet:
        for path in [*written, *filter(None, (save_embedding, tree, equation))]:
            typer.echo(str(path))


# --- from the command line to a request ----------------------------------------------------------------


def _settle(
    source: str,
    *,
    model: str | None,
    decoder: str | None,
    precision: str | None,
    operators: Sequence[str],
    seed: str | None,
    num_images: int | None,
    scale: int | None,
    making: Mapping[str, Any],
    rendering: Mapping[str, Any],
) -> Request:
    from pops.seeds import parse_seeds

    request = _read(source)
    if seed is not None or num_images is not None:
        request.picture = None
    if seed is not None:
        request.seeds = parse_seeds(seed)
    if model and model != request.model:  # what was said of another model goes with it
        request.model, request.decoder = model, None
    request.decoder = decoder or request.decoder
    request.precision = precision or request.precision
    request.operators = {**request.operators, **_named_paths(operators)}
    request.num_images = num_images or request.num_images
    request.scale = scale or request.scale
    request.making.update({k: v for k, v in making.items() if v is not None})
    request.rendering.update({k: v for k, v in rendering.items() if v is not None})
    return request


def _named_paths(words: Sequence[str]) -> dict[str, str]:
    """["texturing=PATH", ...] -> {"texturing": PATH}"""
    pairs = [word.partition("=") for word in words]
    for word, (name, _, path) in zip(words, pairs, strict=True):
        ensure(bool(name and path), f"--operator is NAME=PATH, such as texturing=learned_prior.pth; got {word!r}")
    return {name: path for name, _, path in pairs}


def _read(source: str) -> Request:
    """Text, a tree file, or the recipe in a picture."""
    from pops.expression import load as load_expression
    from pops.expression import parse
    from pops.images import PHOTO_SUFFIXES, find_recipe

    path = expanded(source)
    suffix = path.suffix.lower()
    if suffix in TREES and (is_file(path) or not set(source) & set("()*+")):
        return Request(load_expression(path))
    if suffix not in PHOTO_SUFFIXES or not is_file(path):
        return Request(parse(source))
    recipe = find_recipe(path)
    if recipe is None:
        typer.echo(f"pops: {source} carries no recipe of pops; it is taken as a photo", err=True)
        return Request(parse(source))
    try:
        made = dict(recipe["render"])
        size = made.get("size")
        request = Request(
            parse(recipe["expression"]),
            model=recipe["model"],
            decoder=recipe.get("decoder"),
            precision=recipe.get("precision"),
            operators=dict(recipe.get("operators", {})),
            seeds=[int(s) for s in recipe["seeds"]],
            num_images=int(made.pop("num_images")),
            picture=int(recipe["picture"]),
            making={k: recipe[k] for k in ("steps", "guidance", "sampler", "fit") if k in recipe},
            rendering={k: v for k, v in made.items() if k != "seeds"} | ({"size": tuple(size)} if size else {}),
            scale=int(recipe.get("scale", 1)),
            inputs=dict(recipe.get("inputs", {})),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise ConfigError(f"the recipe in {path} is incomplete ({e!r}); it cannot be repeated") from e
    return request


def _check_outputs(request: Request, operands: Sequence[Any], *outputs: Path | None) -> None:
    """Before anything is computed: an output at all, all different, writable, and none on top of an operand."""
    from pops.embedding import WRITTEN_SUFFIXES
    from pops.images import PICTURE_SUFFIXES

    out, embedding, tree, equation = outputs
    wanted = [path for path in outputs if path]
    ensure(bool(wanted), "say where the picture goes: -o out.png (or --save-embedding, --tree, --equation)")
    for picture in filter(None, (out, tree, equation)):
        fits = picture.suffix.lower() in PICTURE_SUFFIXES
        ensure(fits, f"{picture}: pictures are written as {', '.join(PICTURE_SUFFIXES)}; name one of them")
    ensure(
        embedding is None or embedding.suffix.lower() in WRITTEN_SUFFIXES,
        f"--save-embedding writes {', '.join(WRITTEN_SUFFIXES)}, got {embedding}; change the suffix",
    )
    if out:
        wanted = [*_names(out, _count(request)), *wanted[1:]]
    for path in wanted:
        check_place(path)
    places = [path.resolve() for path in wanted]
    ensure(len(set(places)) == len(places), "two outputs have one name; give each its own")
    inputs = {expanded(node.path).resolve(): node.path for node in operands}
    for place, path in zip(places, wanted, strict=True):
        ensure(place not in inputs, f"{path} is an operand of the expression; write to another file")


def _count(request: Request) -> int:
    return 1 if request.picture is not None else len(request.seeds) * request.num_images


def _names(out: Path, count: int) -> list[Path]:
    """out.png, or out-0.png, out-1.png, ..."""
    return [out] if count == 1 else [out.with_name(f"{out.stem}-{i}{out.suffix}") for i in range(count)]


def _tell_changed(request: Request, trace: Trace) -> None:
    now = trace.result.provenance["inputs"]
    changed = [path for path, digest in request.inputs.items() if now.get(path) != digest]
    if changed:
        told = f"{', '.join(changed)} changed since the recipe was made; the picture will differ"
        typer.echo(f"pops: {told}", err=True)


MOST_RESULTS = 8  # pictures right of an equation's =


# --- pictures and figures ------------------------------------------------------------------------------


def _write_pictures(
    pops: Pops, request: Request, trace: Trace, out: Path, on_progress: OnProgress | None
) -> list[Path]:
    """Renders every row, and writes each picture with its recipe."""
    from pops.images import save_picture

    pictures = pops.render(
        trace.result,
        seed=request.seeds,
        num_images=request.num_images,
        on_progress=on_progress,
        **request.rendering,
    )
    if request.picture is not None:
        ensure(request.picture < len(pictures), f"the recipe names picture {request.picture} of {len(pictures)}")
        pictures = [pictures[request.picture]]
    paths = _names(out, len(pictures))
    for path, picture in zip(paths, pictures, strict=True):
        recipe = dict(picture.info["pops"])
        if request.scale > 1:
            recipe["scale"] = request.scale
        save_picture(_enlarged(picture, request.scale), path, recipe)
    return paths


def _write_figures(
    pops: Pops,
    request: Request,
    trace: Trace,
    tree: Path | None,
    equation: Path | None,
    written: Sequence[Path],
    on_progress: OnProgress | None,
) -> None:
    """The tree with every node's picture; the equation with its operands' pictures and every picture written."""
    from PIL import Image

    from pops.expression.figure import equation_figure, tree_figure
    from pops.images import save_picture

    row = (request.picture or 0) // request.num_images
    seed = request.seeds[row if len(request.seeds) > 1 else 0] + (request.picture or 0) % request.num_images
    leaves = (*trace.plan.photos, *trace.plan.saved, *trace.plan.given)
    nodes = None if tree else [*leaves, trace.plan.root]
    pictures = pops.illustrate(trace, nodes, row=row, seed=seed, on_progress=on_progress, **request.rendering)
    if tree:
        save_picture(tree_figure(trace.plan, pictures), tree)
    if equation:
        results = [Image.open(path).convert("RGB") for path in written[:MOST_RESULTS]]
        save_picture(equation_figure(trace.plan, pictures, results=results), equation)


def _enlarged(picture: Image.Image, scale: int) -> Image.Image:
    from PIL import Image

    if scale == 1:
        return picture
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.LANCZOS)
