"""What `pops run` is asked for: an expression, a tree file, or the recipe in a picture, settled with the options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from pops.errors import ConfigError, ensure
from pops.files import expanded, is_file

if TYPE_CHECKING:
    from pops.expression import Expression

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
    library: str | None = None  # of photos
    adapter: str | None = None  # the IP-Adapter's file
    controlnets: Mapping[str, str] = field(default_factory=dict)  # beside the renderer's own: kind -> folder or hub id
    found: list[dict[str, Any]] = field(default_factory=list)  # the photos that came of it, with their scores


def settle(
    source: str,
    *,
    model: str | None,
    decoder: str | None,
    precision: str | None,
    operators: Sequence[str],
    seed: str | None,
    num_images: int | None,
    scale: int | None,
    library: str | None,
    adapter: str | None,
    controlnets: Sequence[str],
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
        request.model, request.decoder, request.adapter, request.controlnets = model, None, None, {}
    request.decoder = decoder or request.decoder
    request.precision = precision or request.precision
    request.operators = {**request.operators, **named_paths(operators)}
    request.num_images = num_images or request.num_images
    request.scale = scale or request.scale
    request.library = library or request.library
    request.adapter = adapter or request.adapter
    request.controlnets = {**request.controlnets, **named_paths(controlnets, "--controlnet", "depth=FOLDER")}
    request.making.update({k: v for k, v in making.items() if v is not None})
    request.rendering.update({k: v for k, v in rendering.items() if v is not None})
    return request


def named_paths(
    words: Sequence[str], option: str = "--operator", such_as: str = "texturing=learned_prior.pth"
) -> dict[str, str]:
    """["texturing=PATH", ...] -> {"texturing": PATH}"""
    pairs = [word.partition("=") for word in words]
    for word, (name, _, path) in zip(words, pairs, strict=True):
        ensure(bool(name and path), f"{option} is NAME=PATH, such as {such_as}; got {word!r}")
    return {name: path for name, _, path in pairs}


def control_scale(words: Sequence[str]) -> float | dict[str, float] | None:
    """["0.5"] -> 0.5; ["depth=0.5", ...] -> {"depth": 0.5, ...}; None for nothing."""
    if len(words) == 1 and "=" not in words[0]:
        return _number(words[0], words[0])
    pairs = named_paths(words, "--control-scale", "0.5, or depth=0.5")
    return {kind: _number(value, f"{kind}={value}") for kind, value in pairs.items()} or None


def embedding_scale(word: str | None) -> float | str | None:
    """ "0.7" -> 0.7; "style" stays."""
    return None if word is None else _number(word, word) if word[:1] in "+-.0123456789" else word


def _number(text: str, shown: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"a scale is a number such as 0.5, got {shown!r}") from None


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
        for kind, source in made.get("control", {}).items():
            told = f"the {kind} control of {path} was given in Python, and its recipe does not hold it; render anew"
            ensure(source is not None, told)
        changing = {**recipe.get("inputs", {}), **made.pop("control_inputs", {})}
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
            inputs=changing,
            library=recipe.get("library"),
            adapter=recipe.get("adapter"),
            controlnets=dict(recipe.get("controlnets", {})),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise ConfigError(f"the recipe in {path} is incomplete ({e!r}); it cannot be repeated") from e
    return request
