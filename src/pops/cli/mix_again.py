"""pops run on a picture that pops mix made: the same mix, or grid of mixes, again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from pops.cli.mix import Sweep, check_places, write_grid, write_pictures
from pops.cli.shell import print_json, progress
from pops.errors import ConfigError, ensure
from pops.files import expanded, is_file


@dataclass(frozen=True)
class Mixed:
    """A mix's recipe, as `pops mix` and Pops.mix put it into a picture."""

    source: str
    layout: Any
    content: Any
    model: str
    seeds: list[int]
    num_images: int
    picture: int
    how: dict[str, Any]  # of Pops.mix: nu, k_min, ..., fit, renderer
    axes: list[Sweep]
    loading: dict[str, Any]  # of pops.load: decoder, operators, precision, ...
    inputs: dict[str, str] = field(default_factory=dict)


def find_mix(source: str) -> Mixed | None:
    """The recipe in a picture that a mix made, None for whatever else; ConfigError where it cannot be repeated."""
    from pops.images import PHOTO_SUFFIXES, find_recipe

    path = expanded(source)
    if path.suffix.lower() not in PHOTO_SUFFIXES or not is_file(path):
        return None
    recipe = find_recipe(path)
    if recipe is None or "mix" not in recipe or "expression" in recipe:
        return None
    try:
        made = dict(recipe["mix"])
        for operand in made.pop("in_python", ()):
            raise ConfigError(f"the {operand} of this mix was given in Python, and {source} does not hold it; mix anew")
        layout, content, num_images = (made.pop(name) for name in ("layout", "content", "num_images"))
        if isinstance(made.get("size"), list):
            made["size"] = tuple(made["size"])
        return Mixed(
            source,
            layout,
            content,
            recipe["model"],
            [int(s) for s in recipe["seeds"]],
            int(num_images),
            int(recipe["picture"]),
            made,
            [Sweep(name, tuple(values)) for name, values in recipe.get("sweep", {}).items()],
            {k: recipe[k] for k in ("decoder", "operators", "precision", "library") if k in recipe},
            dict(recipe.get("inputs", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise ConfigError(f"the recipe in {source} is incomplete ({e!r}); it cannot be repeated") from e


def repeat(
    made: Mixed,
    out: Path | None,
    *,
    seed: str | None,
    num_images: int | None,
    loading: Mapping[str, Any],
    renderer: str | None,
    useless: Mapping[str, Any],
    json_output: bool,
    quiet: bool,
) -> None:
    """Mixes again, with other seeds or another model where the command says so, and writes the pictures.

    useless: options of `pops run` that a mix has not, by their names; loading: of pops.load, None is the recipe's.
    """
    from pops.seeds import parse_seeds
    from pops.studio import load

    # 1) What the command changes.
    start = time.monotonic()
    ensure(out is not None, "say where the picture goes: -o out.png")
    for option, value in useless.items():
        ensure(value is None or value is False, f"{option} says nothing of a mix; run pops mix with what it should be")
    assert out is not None
    same = seed is None and num_images is None
    seeds = made.seeds if seed is None else parse_seeds(seed)
    each = num_images or made.num_images
    changed = {k: v for k, v in loading.items() if v}
    model = changed.pop("model", made.model)
    own = made.loading if model == made.model else {}  # what was said of another model goes with it
    how = {**made.how, **({"renderer": renderer} if renderer else {})}
    operands = [one for one in _flat([made.layout, made.content]) if isinstance(one, str)]
    check_places(made.axes, 1 if same else len(seeds) * each, out, operands)

    # 2) The pictures.
    pops = load(model, **{**own, **changed})
    told: list[str] = []
    with progress(quiet=quiet or json_output) as on_progress:
        common = {**how, "on_note": told.append}
        if made.axes:
            written = [write_grid(pops, made.layout, made.content, made.axes, seeds[0], common, out, on_progress)]
        else:
            pictures = pops.mix(
                made.layout, made.content, seed=seeds, num_images=each, on_progress=on_progress, **common
            )
            written = write_pictures(pictures[made.picture : made.picture + 1] if same else pictures, out)

    # 3) What is told.
    from pops.images import read_recipe

    now = read_recipe(written[0]).get("inputs", {})
    other = [path for path, digest in made.inputs.items() if now.get(path) != digest]
    if other:
        told.append(f"{', '.join(other)} changed since the recipe was made; the picture will differ")
    for line in dict.fromkeys(told):
        typer.echo(f"pops: {line}", err=True)
    if json_output:
        seconds = round(time.monotonic() - start, 3)
        print_json(
            {"ok": True, "outputs": [str(p) for p in written], "seeds": seeds, "model": pops.name, "seconds": seconds}
        )
    elif not quiet:
        for path in written:
            typer.echo(str(path))


def _flat(operands: list[Any]) -> list[Any]:
    return [one for item in operands for one in (_flat(item) if isinstance(item, list) else [item])]
