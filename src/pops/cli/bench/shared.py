"""Shared by the commands of pops bench: options, parsers of lists, and the output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pops.cli.shell import print_json
from pops.errors import ConfigError, ensure
from pops.files import write_whole

Operators = Annotated[
    str, typer.Option("--operators", help="Operators to measure, with commas.", show_default="all four")
]
Count = Annotated[int, typer.Option("--count", "-n", help="Held-out triplets per operator.", min=2)]
First = Annotated[int, typer.Option("--seed", "-s", help="Seed of the first triplet.", min=0)]
NoRender = Annotated[bool, typer.Option("--no-render", help="Measure embeddings only: no images, no oracle.")]
Guidance = Annotated[
    float | None,
    typer.Option("--guidance", help="Guidance scale of the operators.", min=0, show_default="each one's own"),
]
Strength = Annotated[
    float | None,
    typer.Option("--strength", help="Strength of the operators.", min=0, max=10, show_default="each one's own"),
]
RenderSteps = Annotated[
    int | None,
    typer.Option("--render-steps", help="Sampling steps of the renderer.", min=1, show_default="the model's"),
]
Markdown = Annotated[Path | None, typer.Option("--markdown", help="Also write the table to this file.")]


def tell(table: str, figures: dict[str, Any], markdown: Path | None, *, title: str, as_json: bool) -> None:
    """Prints the figures as a table or a JSON object; writes table and title to `markdown`, unless that is None."""
    if markdown is not None:
        with write_whole(markdown) as temporary:
            temporary.write_text(f"# {title}\n\n{table}", encoding="utf-8")
    if as_json:
        print_json(figures)
    else:
        typer.echo(table)


def whole_numbers(text: str, option: str, example: str) -> list[int]:
    """Parses whole numbers of at least 1, with commas; raises ConfigError for anything else."""
    names = listed(text, option, example)
    fine = all(n.isascii() and n.isdigit() and int(n) >= 1 for n in names)
    ensure(fine, f"{option} takes whole numbers of at least 1 with commas, such as {example}; got {text!r}")
    return [int(n) for n in names]


def numbers(text: str, option: str, example: str) -> list[float]:
    """Parses numbers of at least 0, with commas; raises ConfigError for anything else."""
    message = f"{option} takes numbers with commas, such as {example}; got {text!r}"
    try:
        numbers = [float(n) for n in listed(text, option, example)]
    except ValueError:
        raise ConfigError(message) from None
    ensure(all(0 <= n < float("inf") for n in numbers), message)
    return numbers


def listed(text: str, option: str, example: str) -> list[str]:
    """Parses names with commas; raises ConfigError if there are none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    ensure(bool(names), f"{option} is empty; write for instance {example}")
    return names
