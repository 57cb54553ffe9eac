"""The command-line options that change a recipe: one table, and the decorator that adds them to a command.

An option's key in the table is the name of a recipe's setting (pops.recipe.Options). A command decorated with
`recipe_options` receives the options that were given as one mapping, `options`.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from pops.errors import ConfigError, ensure


def parse_size(text: str) -> tuple[int, int]:
    """Parses `96` or `96x128` into (height, width) in pixels; raises ConfigError for anything else."""
    match = re.fullmatch(r"(\d{1,5})(?:[xX×](\d{1,5}))?", text.strip())
    if match is None:
        raise ConfigError(f"--size is HEIGHTxWIDTH or one number, such as 96x128; got {text!r}")
    return int(match[1]), int(match[2] or match[1])


def _interval(text: str) -> tuple[float, float]:
    """Parses `0.1,0.8`."""
    try:
        start, stop = (float(part) for part in text.split(","))
    except ValueError:
        told = f"--render-guidance-interval is START,STOP, shares of the steps such as 0.1,0.8; got {text!r}"
        raise ConfigError(told) from None
    return start, stop


def named_paths(
    words: Sequence[str], option: str = "--operator", such_as: str = "texturing=learned_prior.pth"
) -> dict[str, str]:
    """Parses ["texturing=PATH", ...] into {"texturing": PATH}; raises ConfigError for anything else."""
    pairs = [word.partition("=") for word in words]
    for word, (name, _, path) in zip(words, pairs, strict=True):
        ensure(bool(name and path), f"{option} is NAME=PATH, such as {such_as}; got {word!r}")
    return {name: path for name, _, path in pairs}


def _area(text: str) -> int | tuple[int, int]:
    both = parse_size(text)
    return both[0] if text.strip().isdigit() else both


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


@dataclass(frozen=True)
class Option:
    """One option of a command: its type, flags and help, what parses its value, and the value's bounds."""

    kind: Any
    flags: str
    help: str
    parse: Callable[[Any], Any] | None = None
    bounds: tuple[float | None, float | None] = (None, None)

    def parameter(self, name: str) -> inspect.Parameter:
        """Returns the option as a parameter of a command, which typer reads."""
        low, high = self.bounds
        option = typer.Option(*self.flags.split(), help=self.help, min=low, max=high)
        annotation = Annotated[self.kind, option]  # type: ignore[name-defined]  # made at run time, for typer
        default = False if self.kind is bool else None
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _named(option: str, such_as: str) -> Callable[[Sequence[str]], dict[str, str]]:
    return lambda words: named_paths(words, option, such_as)


# Setting of a recipe -> its option.
OPTIONS: dict[str, Option] = {
    "model": Option(Text, "--model -m", "Model name, folder or hub id. [default: tiny]"),
    "decoder": Option(Text, "--decoder", "Decoder folder or hub id, in place of the model's own."),
    "dtype": Option(Text, "--dtype", "Type of the weights: float32, bfloat16, or (for GPUs) float16. [float32]"),
    "precision": Option(
        Text, "--precision", "Prior's precision: float32, bfloat16, float16, int8. [default: --dtype]"
    ),
    "operators": Option(
        Texts, "--operator", "NAME=PATH: an operator folder or a learned_prior.pth. Repeatable.", named_paths
    ),
    "seed": Option(Text, "--seed -s", "One seed or several: 0,1,2 or 0:4. [default: 0]", _seeds),
    "num_images": Option(Whole, "--num-images -n", "Images per seed. [default: 1]", bounds=(1, 1000)),
    "steps": Option(Whole, "--steps", "Sampling steps of every operator.", bounds=(1, 1000)),
    "guidance": Option(Number, "--guidance", "Guidance scale of every operator.", bounds=(0, None)),
    "strength": Option(
        Number, "--strength", "Strength of every operator: 0 the mean of its photos, 1 its result, 2 twice as far.",
        bounds=(0, 10),
    ),
    "sampler": Option(Text, "--sampler", "Sampler of every operator. [default: ancestral]"),
    "render_steps": Option(Whole, "--render-steps", "Sampling steps of the renderer.", bounds=(1, 1000)),
    "render_guidance": Option(Number, "--render-guidance", "Guidance scale of the renderer.", bounds=(0, None)),
    "render_guidance_interval": Option(
        Text, "--render-guidance-interval",
        "START,STOP: guides the renderer only between these shares of its steps.", _interval,
    ),
    "guidance_rescale": Option(
        Number, "--guidance-rescale", "Against colours that guidance makes too strong: 0 none, 1 all.", bounds=(0, 1)
    ),
    "pag_scale": Option(
        Number, "--pag-scale", "Perturbed-attention guidance of the renderer; 0: none.", bounds=(0, None)
    ),
    "renderer": Option(Text, "--renderer", "Renderer name, folder or hub id, in place of the model's own."),
    "library": Option(Text, "--library", "Library of photos (pops index) that --renderer retrieval searches."),
    "adapter": Option(Text, "--adapter", "IP-Adapter file, in place of the renderer's own."),
    "scale": Option(
        Text, "--embedding-scale",
        "Weight of the embedding: 0.7; for SDXL also style, layout, style+layout. [default: 1]", _embedding_scale,
    ),
    "control": Option(
        Texts, "--control", "depth=PHOTO, canny=PHOTO, or a finished map: depth=map:IMAGE. Repeatable.",
        _named("--control", "depth=photo.png"),
    ),
    "control_scale": Option(
        Texts, "--control-scale", "Weight of the controls: 0.5, or depth=0.5. Repeatable. [default: 1]", _control_scale
    ),
    "controlnets": Option(
        Texts, "--controlnet", "KIND=FOLDER: a ControlNet besides the renderer's own. Repeatable.",
        _named("--controlnet", "depth=FOLDER"),
    ),
    "offload": Option(
        bool, "--offload", "Keep each network on the GPU only while it runs: less memory, slower.",
        lambda on: on or None,
    ),
    "fit": Option(Text, "--fit", "How photos become square: squash, crop or pad. [default: squash]"),
    "size": Option(Text, "--size", "Image size: HEIGHTxWIDTH in pixels.", parse_size),
    "upscale": Option(
        Whole, "--upscale", "1: leave the upscaler out. [default: used where there is one]", bounds=(1, 16)
    ),
    "enlarge": Option(Whole, "--scale", "Enlarge the finished image N times.", bounds=(1, 16)),
    "prompt": Option(Text, "--prompt", "Text prompt of the renderer, beside the embedding."),
    "negative": Option(Text, "--negative", "Negative prompt of the renderer."),
    "device": Option(Text, "--device", "auto, cpu, cuda or mps. [default: auto]"),
}  # fmt: skip
ALL = tuple(OPTIONS)

# Setting of a mix -> its option.
MIX_OPTIONS: dict[str, Option] = {
    "nu": Option(Text, "--nu", "0: the layout, 1: image-to-image; 0.9,0.5: from 0.9 to 0.5 over the window. [0.9]"),
    "k_min": Option(Number, "--k-min", "Fraction of the steps, counted from the end, where mixing stops. [0.3]"),
    "k_max": Option(Number, "--k-max", "Fraction of the steps, counted from the end, where mixing starts. [0.6]"),
    "strength": Option(Number, "--strength", "Strength of the content's words, from -2 (removed) to 2. [1]"),
    "reach": Option(
        Text, "--reach", "What strength acts on: the words, or with text also what they add to others. [words]"
    ),
    "steps": Option(Whole, "--steps", "Denoising steps. [50]"),
    "guidance": Option(Number, "--guidance", "Guidance scale. [the model's own]"),
    "negative": Option(Text, "--negative", "Negative prompt."),
    "inject": Option(
        Text, "--inject", "What is mixed: the state (as the paper does) or the network's input. [state]"
    ),
    "size": Option(
        Text, "--size", "Image size: HEIGHTxWIDTH, or one number: the area of that square. [the model's own]", _area
    ),
}  # fmt: skip


def with_options(
    argument: str, table: Mapping[str, Option], names: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds options of a table (names: these; by default all) to a command, which receives those that were given in one
    mapping, as its `argument`.
    """
    chosen = list(names) or list(table)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != argument]
        first = [p for p in own if p.default is inspect.Parameter.empty or p.name == "out"]
        added = [table[name].parameter(name) for name in chosen]

        @functools.wraps(function)
        def wrapped(**arguments: Any) -> None:
            values = {name: arguments.pop(name) for name in chosen}
            given = {name: value for name, value in values.items() if value is not None and value != []}
            parsed = {name: parse(value) if (parse := table[name].parse) else value for name, value in given.items()}
            function(**{argument: parsed}, **arguments)

        parameters = [*first, *added, *(p for p in own if p not in first)]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return decorate
