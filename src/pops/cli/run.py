"""pops run: an expression (text, tree file, or a picture that pops made) -> pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pops.cli import recipe as recipes
from pops.cli.mix_again import find_mix, repeat
from pops.cli.recipe import Request, named_paths, settle
from pops.cli.shell import (
    Debug,
    Decoder,
    Device,
    Json,
    Quiet,
    RendererName,
    command,
    parse_size,
    print_json,
    progress,
    uncollected,
)
from pops.errors import ensure
from pops.files import check_place, expanded

if TYPE_CHECKING:
    from PIL import Image

    from pops.cli.shell import OnProgress
    from pops.render.base import Control
    from pops.request import Trace
    from pops.studio import Pops


@command
@uncollected()
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
    decoder: Decoder = None,
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
    renderer: RendererName = None,
    library: Annotated[
        str | None, typer.Option("--library", help="Of photos (pops index), for --renderer retrieval: the nearest.")
    ] = None,
    adapter: Annotated[
        str | None, typer.Option("--adapter", help="The IP-Adapter's file, instead of the renderer's own.")
    ] = None,
    embedding_scale: Annotated[
        str | None, typer.Option("--embedding-scale", help="0.7, or of SDXL style, layout, style+layout. [default: 1]")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option("--control", help="depth=PHOTO, canny=PHOTO, or ready: depth=map:PICTURE. Repeatable."),
    ] = None,
    control_scale: Annotated[
        list[str] | None, typer.Option("--control-scale", help="0.5, or depth=0.5. Repeatable. [default: 1]")
    ] = None,
    controlnet: Annotated[
        list[str] | None, typer.Option("--controlnet", help="KIND=FOLDER, beside the renderer's own. Repeatable.")
    ] = None,
    save_control: Annotated[Path | None, typer.Option("--save-control", help="Keep the control picture.")] = None,
    offload: Annotated[bool, typer.Option("--offload", help="For a small GPU: networks on it as they run.")] = False,
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
        in the pose of another photo, by a depth ControlNet
        pops run "texturing(teapot.png, tiger.png)" --control depth=pose.png --control-scale 0.5 -o out.png

    \b
        the same picture again, byte for byte, from the recipe inside it
        pops run out.png -o again.png
    """
    start = time.monotonic()
    mixed = find_mix(expression)
    if mixed is not None:
        useless = {"--steps": steps, "--guidance": guidance, "--sampler": sampler, "--render-steps": render_steps,
                   "--render-guidance": render_guidance, "--fit": fit, "--size": size, "--scale": scale,
                   "--prompt": prompt, "--negative": negative, "--save-embedding": save_embedding, "--tree": tree,
                   "--equation": equation, "--dry-run": dry_run, "--adapter": adapter, "--control": control,
                   "--embedding-scale": embedding_scale, "--control-scale": control_scale,
                   "--controlnet": controlnet, "--save-control": save_control, "--offload": offload}  # fmt: skip
        loading = {"model": model, "decoder": decoder, "precision": precision, "operators": named_paths(operator or [])}
        repeat(
            mixed, out, seed=seed, num_images=num_images, loading={**loading, "device": device}, renderer=renderer,
            useless=useless, json_output=json_output, quiet=quiet,
        )  # fmt: skip
        return
    request = settle(
        expression,
        model=model,
        decoder=decoder,
        precision=precision,
        operators=operator or [],
        seed=seed,
        num_images=num_images,
        scale=scale,
        library=library,
        adapter=adapter,
        controlnets=controlnet or [],
        making={"steps": steps, "guidance": guidance, "sampler": sampler, "fit": fit},
        rendering={
            "renderer": renderer,
            "steps": render_steps,
            "guidance": render_guidance,
            "size": parse_size(size) if size else None,
            "prompt": prompt,
            "negative": negative,
            "scale": recipes.embedding_scale(embedding_scale),
            "control": named_paths(control or [], "--control", "depth=photo.png") or None,
            "control_scale": recipes.control_scale(control_scale or []),
        },
    )
    from pops.request import Settings
    from pops.studio import load

    Settings.of(request.making)  # a mistake is told now, also to a dry run
    pops = load(
        request.model,
        decoder=request.decoder,
        operators=request.operators,
        device=device,
        precision=request.precision,
        library=request.library,
        adapter=request.adapter,
        controlnets=request.controlnets,
        offload=offload,
    )
    from pops.expression.nodes import is_mix

    plan = pops.plan(request.expression)
    if dry_run:
        if json_output:
            print_json({"ok": True, "expression": str(request.expression), "plan": str(plan)})
        else:
            typer.echo(str(plan))
        return
    operands = [*plan.photos, *plan.saved, *_control_photos(request)]
    _check_outputs(request, operands, out, save_embedding, tree, equation, save_control)

    with progress(quiet=quiet or json_output) as on_progress:
        trace = pops.trace(
            request.expression,
            seed=request.seeds,
            num_images=request.num_images,
            renderer=request.rendering.get("renderer") if is_mix(plan.root) else None,
            on_progress=on_progress,
            **request.making,
        )
        _tell_changed(request, trace)
        if out and save_control:
            request.rendering["on_control"] = _keeper(request, save_control)
        written = _write_pictures(pops, request, trace, out, bool(tree), on_progress) if out else []
        request.rendering.pop("on_control", None)
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
                **({"found": request.found} if request.found else {}),
                "seconds": round(time.monotonic() - start, 3),
            }
        )
    elif not quiet:
        for path in [*written, *filter(None, (save_embedding, tree, equation))]:
            typer.echo(str(path))


# --- before anything is computed ----------------------------------------------------------------------


def _check_outputs(request: Request, operands: Sequence[Any], *outputs: Path | None) -> None:
    """Before anything is computed: an output at all, all different, writable, and none on top of an operand."""
    from pops.embedding import WRITTEN_SUFFIXES
    from pops.images import PICTURE_SUFFIXES

    out, embedding, tree, equation, control = outputs
    wanted = [path for path in outputs if path]
    ensure(bool(wanted), "say where the picture goes: -o out.png (or --save-embedding, --tree, --equation)")
    ensure(not control or bool(out and request.rendering.get("control")), "--save-control goes with --control and -o")
    for picture in filter(None, (out, tree, equation, control)):
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
    from pops.rendering import control_digests

    now = {**trace.result.provenance["inputs"], **control_digests(request.rendering.get("control", {}))}
    changed = [path for path, digest in request.inputs.items() if now.get(path) != digest]
    if changed:
        told = f"{', '.join(changed)} changed since the recipe was made; the picture will differ"
        typer.echo(f"pops: {told}", err=True)


def _control_photos(request: Request) -> list[Any]:
    """The photos of --control, as nodes."""
    from pops.expression.nodes import Photo
    from pops.render.controls import READY

    return [Photo(source.removeprefix(READY)) for source in request.rendering.get("control", {}).values()]


def _keeper(request: Request, path: Path) -> Callable[[Control], None]:
    """What writes a control picture; of several each with its kind in the name."""
    from pops.images import save_picture

    several = len(request.rendering["control"]) > 1

    def keep(control: Control) -> None:
        own = path.with_name(f"{path.stem}-{control.kind}{path.suffix}") if several else path
        save_picture(control.image, own)

    return keep


MOST_RESULTS = 8  # pictures right of an equation's =


# --- pictures and figures ------------------------------------------------------------------------------


def _write_pictures(
    pops: Pops, request: Request, trace: Trace, out: Path, tree: bool, on_progress: OnProgress | None
) -> list[Path]:
    """Renders every row (a mix is a picture already), and writes each picture with its recipe."""
    from pops.images import save_picture

    how = request.rendering
    if trace.mixed is not None and tree:  # then how to render is meant for the tree's other nodes
        how = {k: v for k, v in how.items() if k == "renderer"}
    pictures = pops.pictures(
        trace,
        seed=request.seeds,
        num_images=request.num_images,
        on_progress=on_progress,
        **how,
    )
    if request.picture is not None:
        ensure(request.picture < len(pictures), f"the recipe names picture {request.picture} of {len(pictures)}")
        pictures = [pictures[request.picture]]
    paths = _names(out, len(pictures))
    for path, picture in zip(paths, pictures, strict=True):
        recipe = dict(picture.info["pops"])
        if "found" in recipe:
            request.found.append({"output": str(path), **recipe["found"]})
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

    from pops.figures.equation import equation_figure
    from pops.figures.tree import tree_figure
    from pops.images import save_picture

    row = (request.picture or 0) // request.num_images
    seed = request.seeds[row if len(request.seeds) > 1 else 0] + (request.picture or 0) % request.num_images
    leaves = (*trace.plan.photos, *trace.plan.saved, *trace.plan.given)
    nodes = None if tree else [*leaves, trace.plan.root]
    pictures = pops.illustrate(trace, nodes, row=row, seed=seed, on_progress=on_progress, **request.rendering)
    if trace.mixed is not None and written:
        pictures[trace.plan.root] = Image.open(written[0]).convert("RGB")
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
