"""The blocks of code on a page of the documentation, in their order, each with what it is marked with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(
    r"(?:^<!-- no-run: (?P<why>.+?) -->\n)?^```(?P<kind>[\w-]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
APART = ("log", "log.md", "training.md")  # a diary; a page whose commands a test of its own runs on smaller data


@dataclass(frozen=True)
class Block:
    """One block: its kind ("sh", "python", ...), the line it begins at, and why it is not run, or None."""

    kind: str
    text: str
    line: int
    why: str | None


def pages() -> list[Path]:
    """Returns the README and the pages of the site, but for those APART."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if not {page.name, page.parent.name} & set(APART) and "made" not in page.parts]


def blocks(page: Path) -> list[Block]:
    """Returns the blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(m["kind"], m["text"], text.count("\n", 0, m.start("kind")) + 1, m["why"]) for m in _BLOCK.finditer(text)
    ]


def commands(text: str) -> list[str]:
    """Returns the command lines of a block for a shell, continued lines joined, notes left out."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
