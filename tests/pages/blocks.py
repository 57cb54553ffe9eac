"""The blocks of code on a page of the documentation, in their order, each with what it is marked with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_WHY = re.compile(r"<!-- no-run: (?P<why>.+?) -->")
TRAINING = (ROOT / "docs/tutorials/operator.md", ROOT / "docs/training.md")  # tests/training/test_tutorial.py runs them


@dataclass(frozen=True)
class Block:
    """One block: its kind ("sh", "python", ...), the line it begins at, and why it is not run, or None."""

    kind: str
    text: str
    line: int
    why: str | None


def pages() -> list[Path]:
    """Returns the README and the pages of the site, but for the diary and those that are made from the code."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if page.stem != "log" and not {"log", "made"} & set(page.parts)]


def first() -> list[Path]:
    """Returns the pages that a newcomer reads: the README and the tutorials."""
    return [page for page in pages() if page.name == "README.md" or page.parent.name == "tutorials"]


def blocks(page: Path) -> list[Block]:
    """Returns the blocks of code of a page; a directive of the site ({toctree}, ...) is none."""
    found: list[Block] = []
    begin: int | None = None
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if begin is None:
            begin = number
            continue
        kind = lines[begin][3:].strip()
        why = _WHY.fullmatch(lines[begin - 1]) if begin else None
        if not kind.startswith("{"):
            text = "".join(f"{each}\n" for each in lines[begin + 1 : number])
            found.append(Block(kind, text, begin + 1, why and why["why"]))
        begin = None
    return found


def commands(text: str) -> list[str]:
    """Returns the command lines of a block for a shell, continued lines joined, notes left out."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def prose(page: Path) -> str:
    """Returns a page without its blocks of code and the rules of its tables."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"\|[-|: ]*", " ", text)
