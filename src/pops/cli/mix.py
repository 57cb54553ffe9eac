"""pops mix: a layout's shape with a content's look, by MagicMix; or a grid of them over one or two settings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pops.cli.shell import (
    Debug,
    Decoder,
    Device,
    Json,
    ModelName,
    Quiet,
    RendererName,
    command,
    parse_size,
    print_json,
    progress,
    uncollected,
)
from pops.errors import ConfigError, ensure, suggest
from pops.files import check_place, expanded

if TYPE_CHECKING:
    from PIL import Image

    from pops.cli.shell import OnProgress
    from pops.studio import Pops

SWEPT = ("nu", "k_min", "k_max", "strength", "guidance", "steps")
MAX_CELLS = 400  # of one grid
CELL = 256  # pixels a cell's longer side has at most


@dataclass(frozen=True)
class Sweep:
    """One axis of a grid."""

    name: str
    values: tuple[float, ...]

    @staticmethod
    def of(text: str) -> Sweep:
        """`nu=0.1:0.9:5`: five values from 0.1 to 0.9; ConfigError for anything else."""
        name, _, numbers = text.partition("=")
        name = name.strip().replace("-", "_")
        ensure(name in SWEPT, f"--sweep takes {', '.join(SWEPT)}, got {name!r}{suggest(name, SWEPT)}")
        try:
            first, last, count = numbers.split(":")
            low, high, n = float(first), float(last), int(count)
        except ValueError:
            raise ConfigError(f"--sweep is NAME=FIRST:LAST:COUNT, such as nu=0.1:0.9:5; got {text!r}") from None
        ensure(1 <= n <= MAX_CELLS, f"--sweep {name}: the count must be from 1 to {MAX_CELLS}, got {n}")
        each = [low + (high - low) * i / max(1, n - 1) for i in range(n)]
        return Sweep(name, tuple(round(v) if name == "steps" else round(v, 6) for v in each))


@command
@uncollected()
def mix(
    layout: Annotated[
        str,
        typer.Argument(
            help="The shape: a photo, a text, an expression, the file of an embedding or a latent.",
            show_default=False,
            metavar="LAYOUT",
        ),
    ],
    content: Annotated[
        str,
        typer.Argument(
            help='The look: a text ("tiger", "tiger:1.5 fur:-1"), a photo, an embedding\'s file or an expression.',
            show_default=False,
            metavar="CONTENT",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="The picture; several become NAME-0.png, NAME-1.png, ...", show_default=False),
    ],
    nu: Annotated[
        str | None,
        typer.Option("--nu", help="0 the layout, 1 plain image-to-image; 0.9,0.5 changes over the window. [0.9]"),
    ] = None,
    k_min: Annotated[
        float | None, typer.Option("--k-min", help="Mixing stops here, counted from the end. [0.3]")
    ] = None,
    k_max: Annotated[float | None, typer.Option("--k-max", help="Mixing starts here. [0.6]")] = None,
    strength: Annotated[
        float | None, typer.Option("--strength", help="Of the content's words, from -2 (removed) to 2. [1]")
    ] = None,
    reach: Annotated[
        str | None,
        typer.Option("--reach", help="Strength is of the words alone, or of all the text says by them: text."),
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps of the denoising. [50]")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", help="Guidance. [the model's own]")] = None,
    seed: Annotated[str, typer.Option("--seed", "-s", help="0, or several: 0,1,2 or 0:4.")] = "0",
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="Pictures of each seed.", min=1, max=1000)] = 1,
    negative: Annotated[str | None, typer.Option("--negative", help="A text to keep away from.")] = None,
    inject: Annotated[
        str | None, typer.Option("--inject", help="state (the paper's) or input (diffusers' community's). [state]")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="style, object, breed or remove: settings to begin with.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option("--sweep", help="nu=0.1:0.9:5: one labelled grid over it; twice for two axes."),
    ] = None,
    save_latent: Annotated[
        Path | None, typer.Option("--save-latent", help="Keep the latent (.safetensors), as a layout for other mixes.")
    ] = None,
    size: Annotated[str | None, typer.Option("--size", help="HEIGHTxWIDTH, or one number for a square's area.")] = None,
    fit: Annotated[
        str, typer.Option("--fit", help="How a photo as content becomes square: squash, crop, pad.")
    ] = "squash",
    model: ModelName = "tiny",
    decoder: Decoder = None,
    renderer: RendererName = None,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Mix the shape of one thing with the look of another (MagicMix).

    Examples:

    \b
        pops mix rabbit.png tiger -o out.png
        pops mix rabbit.png "tiger:1.5" -o out.png --nu 0.7 --k-max 0.7
        pops mix "a teapot" "a cactus" -o out.png --preset object
        pops mix rabbit.png "texturing(teapot.png, tiger.png)" -o out.png

    \b
        a grid over two settings; a mix of a mix, without decoding between; the same again
        pops mix rabbit.png tiger -o grid.png --sweep nu=0.1:0.9:5 --sweep k_max=0.4:0.8:3
        pops mix rabbit.png tiger -o out.png --save-latent mixed.safetensors
        pops mix mixed.safetensors "a cactus" -o second.png
        pops run out.png -o again.png
    """
    start = time.monotonic()
    from pops.magicmix.operands import MixSettings
    from pops.magicmix.presets import preset as preset_of
    from pops.magicmix.schedule import parse_nu
    from pops.seeds import parse_seeds

    # 1) The settings: the preset's, and over them what the command says.
    settled = {
        "nu": None if nu is None else parse_nu(nu),
        "k_min": k_min,
        "k_max": k_max,
        "strength": strength,
        "reach": reach,
        "steps": steps,
        "guidance": guidance,
        "negative": negative,
        "inject": inject,
        "size": _size(size),
    }
    how: dict[str, Any] = dict(preset_of(preset)) if preset else {}
    how |= {k: v for k, v in settled.items() if v is not None}
    if preset == "remove":
        _check_removal(content, how.get("strength", 1.0))
    axes, seeds = [Sweep.of(text) for text in sweep or []], parse_seeds(seed)
    count = len(seeds) * num_images
    latents = _latents(save_latent, count, bool(axes))
    check_places(axes, count, out, (layout, content), *latents)
    for cell in _cells(axes):
        MixSettings.of({**how, **cell})

    # 2) The pictures.
    from pops.studio import load

    pops = load(model, decoder=decoder, device=device)
    told: list[str] = []
    common = {"fit": fit, "renderer": renderer, "on_note": told.append, **how}
    with progress(quiet=quiet or json_output) as on_progress:
        if axes:
            written = [write_grid(pops, layout, content, axes, seeds[0], common, out, on_progress)]
        else:
            common |= {"output": "both" if latents else "pil", "on_progress": on_progress}
            made = pops.mix(layout, content, seed=seeds, num_images=num_images, **common)
            written = write_pictures([one[0] for one in made] if latents else made, out)
            for path, (picture, latent) in zip(latents, made if latents else (), strict=True):
                pops.mixer(renderer).save_latent(latent, path, picture.info["pops"])

    # 3) What is told.
    for line in dict.fromkeys(told):
        typer.echo(f"pops: {line}", err=True)
    if json_output:
        seconds = round(time.monotonic() - start, 3)
        about = {"layout": layout, "content": content, "seeds": seeds, "model": pops.name, "seconds": seconds}
        kept = {"latents": [str(path) for path in latents]} if latents else {}
        print_json({"ok": True, "outputs": [str(path) for path in written], **kept, **about})
    elif not quiet:
        for path in [*written, *latents]:
            typer.echo(str(path))


def _check_removal(content: str, strength: float) -> None:
    from pops.magicmix.prompt import Prompt

    least = min((strength if own is None else own for own in Prompt.of(content).strengths), default=strength)
    ensure(
        least <= 0,
        f"nothing in {content!r} is marked to go; say what the picture shows, with a strength of 0 or less on that: "
        '"a zebra:0 rabbit"',
        ConfigError,
    )


def _size(text: str | None) -> int | tuple[int, int] | None:
    if text is None:
        return None
    both = parse_size(text)
    return both[0] if text.strip().isdigit() else both


def _latents(place: Path | None, count: int, grid: bool) -> list[Path]:
    """Where latents are written, one a picture."""
    if place is None:
        return []
    ensure(not grid, "a grid has many latents; leave --save-latent out, or mix without --sweep")
    ensure(place.suffix.lower() == ".safetensors", f"--save-latent {place}: a latent's file ends in .safetensors")
    return _names(place, count)


def _cells(axes: Sequence[Sweep]) -> list[dict[str, float]]:
    """Every combination, the first axis slowest."""
    return [dict(zip((a.name for a in axes), values, strict=True)) for values in product(*(a.values for a in axes))]


def check_places(axes: Sequence[Sweep], count: int, out: Path, operands: Sequence[str], *others: Path) -> None:
    """Before anything is computed: a name that can be written, not an operand's, and a grid that makes sense."""
    from pops.images import PICTURE_SUFFIXES

    fits = out.suffix.lower() in PICTURE_SUFFIXES
    ensure(fits, f"{out}: pictures are written as {', '.join(PICTURE_SUFFIXES)}; name one of them")
    ensure(len(axes) <= 2, f"a grid has one --sweep or two, got {len(axes)}")
    ensure(len({axis.name for axis in axes}) == len(axes), "both --sweep name the same setting; give another")
    ensure(not axes or count == 1, "a grid shows one picture a cell; give one --seed and --num-images 1")
    for path in (*_names(out, count), *others):
        check_place(path)
        for operand in operands:
            same = path.resolve() == expanded(operand).absolute()
            ensure(not same, f"{path} is an operand of the mix; write to another file")


def _names(out: Path, count: int) -> list[Path]:
    """out.png, or out-0.png, out-1.png, ..."""
    return [out] if count == 1 else [out.with_name(f"{out.stem}-{i}{out.suffix}") for i in range(count)]


def write_pictures(pictures: Sequence[Image.Image], out: Path) -> list[Path]:
    """Each picture with its recipe."""
    from pops.images import save_picture

    paths = _names(out, len(pictures))
    for path, picture in zip(paths, pictures, strict=True):
        save_picture(picture, path, picture.info["pops"])
    return paths


def write_grid(
    pops: Pops,
    layout: Any,
    content: Any,
    axes: Sequence[Sweep],
    seed: int,
    common: dict[str, Any],
    out: Path,
    on_progress: OnProgress | None,
) -> Path:
    """A cell for every combination: the first axis to the right, the second downwards."""
    from pops.images import save_picture

    cells = _cells(axes)
    ensure(len(cells) <= MAX_CELLS, f"a grid has at most {MAX_CELLS} cells, this one {len(cells)}; sweep fewer values")
    pictures: list[Image.Image] = []
    for i, cell in enumerate(cells):
        shown = None if on_progress is None else _shifted(on_progress, i, len(cells))
        pictures.append(pops.mix(layout, content, seed=seed, on_progress=shown, **{**common, **cell}))
    recipe = dict(pictures[0].info["pops"])
    recipe["mix"] = {k: v for k, v in recipe["mix"].items() if k not in {axis.name for axis in axes}}
    recipe["sweep"] = {axis.name: list(axis.values) for axis in axes}
    across, down = axes[0], axes[1] if len(axes) > 1 else Sweep("", (0.0,))
    columns = [pictures[i * len(down.values) + j] for j in range(len(down.values)) for i in range(len(across.values))]
    save_picture(_grid(columns, across, down), out, recipe)
    return out


def _shifted(on_progress: OnProgress, cell: int, cells: int) -> OnProgress:
    """One cell's steps as steps of the grid."""
    return lambda done, total, what: on_progress(cell * total + done, cells * total, what)


def _grid(pictures: Sequence[Image.Image], across: Sweep, down: Sweep) -> Image.Image:
    """The pictures row by row, the axes' values above and to the left."""
    from pops.figures.canvas import INK, QUIET, Canvas, text_width

    scale = min(1.0, CELL / max(pictures[0].size))
    width, height = (max(24.0, side * scale) for side in pictures[0].size)
    text, gap = max(11.0, height / 14), max(4.0, height / 32)
    labels = [f"{down.name} {value:g}" for value in down.values] if down.name else []
    left = max((text_width(label, text) for label in labels), default=0.0) + 2 * gap
    top = 2.2 * text
    canvas = Canvas(left + len(across.values) * (width + gap), top + len(down.values) * (height + gap))
    for i, value in enumerate(across.values):
        label = f"{across.name} {value:g}"
        size = min(text, text * width / text_width(label, text))
        canvas.text(label, (left + i * (width + gap) + width / 2, top / 2), size, INK)
    for j in range(len(down.values)):
        y = top + j * (height + gap)
        if labels:
            canvas.text(labels[j], (left - gap, y + height / 2), text, QUIET, anchor="rm")
        for i in range(len(across.values)):
            x = left + i * (width + gap)
            canvas.picture(pictures[j * len(across.values) + i], (x, y, x + width, y + height))
    return canvas.finish()
