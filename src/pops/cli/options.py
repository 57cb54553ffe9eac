"""The command-line options that change a recipe: one table, and the decorator that adds them to a command.

An option's key in the table is the name of a recipe's setting (pops.recipe.Options). A command decorated with
`recipe_options` receives the options that were given as one mapping, `options`.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from pops.errors import ConfigError, ensure


def parse_size(text: str) -> tuple[int, int]:
    """Parses `96` or `96x128` into (height, width) in pixels; raises ConfigError for anything else."""
    match = re.fullmatch(r"(\d{1,5})(?:[xX×](\d{1,5}))?", text.strip())
    if match is None:
        raise ConfigError(f"--size is HEIGHTxWIDTH or one number, such as 96x128; got {text!r}")
    return int(match[1]), int(match[2] or match[1])


def named_paths(
    words: Sequence[str], option: str = "--operator", such_as: str = "texturing=learned_prior.pth"
) -> dict[str, str]:
    """Parses ["texturing=PATH", ...] into {"texturing": PATH}; raises ConfigError for anything else."""
    pairs = [word.partition("=") for word in words]
    for word, (name, _, path) in zip(words, pairs, strict=True):
        ensure(bool(name and path), f"{option} is NAME=PATH, such as {such_as}; got {word!r}")
    return {name: path for name, _, path in pairs}


def _seeds(text: str) -> list[int]:
    from pops.seeds import parse_seeds

    return parse_seeds(text)


def _embedding_scale(text: str) -> float | str:
    """Parses a number; returns anything else, the name of a preset, as it is."""
    return _number(text, text) if text[:1] in "+-.0123456789" else text


def _control_scale(words: Sequence[str]) -> float | dict[str, float] | None:
    """Parses ["0.5"], the scale of every control, or ["depth=0.5", ...], one per control."""
    if len(words) == 1 and "=" not in words[0]:
        return _number(words[0], words[0])
    pairs = named_paths(words, "--control-scale", "0.5, or depth=0.5")
    return {kind: _number(value, f"{kind}={value}") for kind, value in pairs.items()} or None


def _number(text: str, shown: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"a scale is a number such as 0.5, got {shown!r}") from None


Text, Texts, Number, Whole = str | None, list[str] | None, float | None, int | None

# Setting -> (type and help of its option, parser of the given value; None: it is used as it is).
OPTIONS: dict[str, tuple[Any, Callable[[Any], Any] | None]] = {
    "model": (
        Annotated[Text, typer.Option("--model", "-m", help="Model name, folder or hub id. [default: tiny]")],
        None,
    ),
    "decoder": (
        Annotated[Text, typer.Option("--decoder", help="Decoder folder or hub id, in place of the model's own.")],
        None,
    ),
    "precision": (
        Annotated[
            Text,
            typer.Option("--precision", help="Prior's precision: float32, bfloat16, float16, int8. [default: float32]"),
        ],
        None,
    ),
    "operators": (
        Annotated[
            Texts,
            typer.Option("--operator", help="NAME=PATH: an operator folder or a learned_prior.pth. Repeatable."),
        ],
        named_paths,
    ),
    "seed": (
        Annotated[Text, typer.Option("--seed", "-s", help="One seed or several: 0,1,2 or 0:4. [default: 0]")],
        _seeds,
    ),
    "num_images": (
        Annotated[Whole, typer.Option("--num-images", "-n", help="Images per seed. [default: 1]", min=1, max=1000)],
        None,
    ),
    "steps": (
        Annotated[Whole, typer.Option("--steps", help="Sampling steps of every operator.", min=1, max=1000)],
        None,
    ),
    "guidance": (Annotated[Number, typer.Option("--guidance", help="Guidance scale of every operator.", min=0)], None),
    "sampler": (
        Annotated[Text, typer.Option("--sampler", help="Sampler of every operator. [default: ancestral]")],
        None,
    ),
    "render_steps": (
        Annotated[Whole, typer.Option("--render-steps", help="Sampling steps of the renderer.", min=1, max=1000)],
        None,
    ),
    "render_guidance": (
        Annotated[Number, typer.Option("--render-guidance", help="Guidance scale of the renderer.", min=0)],
        None,
    ),
    "renderer": (
        Annotated[
            Text, typer.Option("--renderer", help="Renderer name, folder or hub id, in place of the model's own.")
        ],
        None,
    ),
    "library": (
        Annotated[
            Text, typer.Option("--library", help="Library of photos (pops index) that --renderer retrieval searches.")
        ],
        None,
    ),
    "adapter": (
        Annotated[Text, typer.Option("--adapter", help="IP-Adapter file, in place of the renderer's own.")],
        None,
    ),
    "scale": (
        Annotated[
            Text,
            typer.Option(
                "--embedding-scale",
                help="Weight of the embedding: 0.7; for SDXL also style, layout, style+layout. [default: 1]",
            ),
        ],
        _embedding_scale,
    ),
    "control": (
        Annotated[
            Texts,
            typer.Option("--control", help="depth=PHOTO, canny=PHOTO, or a finished map: depth=map:IMAGE. Repeatable."),
        ],
        lambda words: named_paths(words, "--control", "depth=photo.png"),
    ),
    "control_scale": (
        Annotated[
            Texts,
            typer.Option("--control-scale", help="Weight of the controls: 0.5, or depth=0.5. Repeatable. [default: 1]"),
        ],
        _control_scale,
    ),
    "controlnets": (
        Annotated[
            Texts,
            typer.Option("--controlnet", help="KIND=FOLDER: a ControlNet besides the renderer's own. Repeatable."),
        ],
        lambda words: named_paths(words, "--controlnet", "depth=FOLDER"),
    ),
    "offload": (
        Annotated[
            bool,
            typer.Option("--offload", help="Keep each network on the GPU only while it runs: less memory, slower."),
        ],
        lambda on: on or None,
    ),
    "fit": (
        Annotated[Text, typer.Option("--fit", help="How photos become square: squash, crop or pad. [default: squash]")],
        None,
    ),
    "size": (
        Annotated[Text, typer.Option("--size", help="Image size: HEIGHTxWIDTH in pixels, multiples of 8.")],
        parse_size,
    ),
    "enlarge": (
        Annotated[Whole, typer.Option("--scale", help="Enlarge the finished image N times.", min=1, max=16)],
        None,
    ),
    "prompt": (
        Annotated[Text, typer.Option("--prompt", help="Text prompt of the renderer, beside the embedding.")],
        None,
    ),
    "negative": (Annotated[Text, typer.Option("--negative", help="Negative prompt of the renderer.")], None),
    "device": (Annotated[Text, typer.Option("--device", help="auto, cpu, cuda or mps. [default: auto]")], None),
}
ALL = tuple(OPTIONS)


def recipe_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds these options to a command, which receives those that were given as `options`, for Recipe.changed."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "options"]
        first = [p for p in own if p.default is inspect.Parameter.empty or p.name == "out"]
        rest = [p for p in own if p not in first]
        added = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if name == "offload" else None,
                annotation=OPTIONS[name][0],
            )
            for name in names
        ]

        @functools.wraps(function)
        def wrapped(**arguments: Any) -> None:
            values = {name: arguments.pop(name) for name in names}
            given = {name: value for name, value in values.items() if value is not None and value != []}
            options = {name: parse(value) if (parse := OPTIONS[name][1]) else value for name, value in given.items()}
            function(options=options, **arguments)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*first, *added, *rest)]
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return decorate
