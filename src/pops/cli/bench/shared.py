"""What the commands of pops bench share: options, lists of numbers, and how figures are told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pops.cli.shell import print_json
from pops.errors import ConfigError, ensure
from pops.files import write_whole

Operators = Annotated[str, typer.Option("--operators", help="Which, with commas.", show_default="all four")]
Count = Annotated[int, typer.Option("--count", "-n", help="Held-out triplets of each operator.", min=2)]
First = Annotated[int, typer.Option("--seed", "-s", help="The first triplet.", min=0)]
NoRender = Annotated[bool, typer.Option("--no-render", help="Embeddings only: no pictures, no oracle.")]
Guidance = Annotated[
    float | None, typer.Option("--guidance", help="Of the operators.", min=0, show_default="each's own")
]
RenderSteps = Annotated[
    int | None, typer.Option("--render-steps", help="Of the renderer.", min=1, show_default="the model's")
]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write the table here, too.")]


def tell(table: str, figures: dict[str, Any], markdown: Path | None, *, as_json: bool) -> None:
    """The figures on stdout, as a table or a JSON object, and the table in a file if one was named."""
    if markdown is not None:
        with write_whole(markdown) as temporary:
            temporary.write_text(table, encoding="utf-8")
    if as_json:
        print_json(figures)
    else:
        typer.echo(table)


def whole_numbers(text: str, option: str, example: str) -> list[int]:
    """Numbers of at least 1, with commas."""
    names = listed(text, option, example)
    fine = all(n.isascii() and n.isdigit() and int(n) >= 1 for n in names)
    ensure(fine, f"{option} takes whole numbers of at least 1 with commas, such as {example}; got {text!r}")
    return [int(n) for n in names]


def numbers(text: str, option: str, example: str) -> list[float]:
    """Numbers of at least 0, with commas."""
    told = f"{option} takes numbers with commas, such as {example}; got {text!r}"
    try:
        numbers = [float(n) for n in listed(text, option, example)]
    except ValueError:
        raise ConfigError(told) from None
    ensure(all(0 <= n < float("inf") for n in numbers), told)
    return numbers


def listed(text: str, option: str, example: str) -> list[str]:
    """The names of an option that takes several, with commas."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    ensure(bool(names), f"{option} names none; write for instance {example}")
    return names
