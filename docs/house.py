"""Draws the map of the house from the code: each room on its floor, with its lines; imports point down.

python docs/house.py            # writes docs/pictures/house.svg
"""

from __future__ import annotations

import runpy
from collections import defaultdict
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "pops"
OUT = ROOT / "docs" / "pictures" / "house.svg"
WIDTH, ROW, GAP, PAD = 980, 46, 10, 24
STOREYS = (  # lowest floor of each storey, its name, its colour
    (11, "what people touch", "#f6d9c4"), (8, "runs and training", "#f3e6b3"), (6, "a model, an execution", "#d7e8c4"),
    (4, "the language, operators, renderers, mixing", "#c9e3e2"), (3, "networks, spaces, libraries", "#cfdcf1"),
    (0, "values and files", "#e0d8ee"),
)  # fmt: skip


def rooms() -> dict[float, list[str]]:
    """Returns the rooms of each floor, as tests/test_layers.py holds the code to them."""
    floors = runpy.run_path(str(ROOT / "tests" / "test_layers.py"))["FLOORS"]
    found: dict[float, list[str]] = defaultdict(list)
    for name, floor in floors.items():
        if not name.startswith("_") and "." not in name:
            found[floor].append(name)
    return found


def lines_of(room: str) -> int:
    """Returns the lines of Python in a room: a file or a package."""
    paths = [SRC / f"{room}.py"] if (SRC / f"{room}.py").is_file() else list((SRC / room).rglob("*.py"))
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def drawn() -> str:
    """Returns the map as SVG."""
    storeys: list[tuple[str, str, list[str]]] = []
    floors = rooms()
    above = 100.0
    for lowest, name, colour in STOREYS:
        inside = [room for floor in sorted(floors, reverse=True) if lowest <= floor < above for room in floors[floor]]
        storeys.append((name, colour, inside))
        above = lowest
    parts, y = [], PAD
    for name, colour, inside in storeys:
        x, top = PAD, y
        y += 26
        boxes = []
        for room in inside:
            label = f"{room}  {lines_of(room):,}"
            width = 26 + int(7.9 * len(label))
            if x + width > WIDTH - PAD:
                x, y = PAD, y + ROW
            boxes.append(
                f'<rect x="{x + 10}" y="{y}" width="{width}" height="{ROW - GAP}" rx="6" fill="#fff"/>'
                f'<text x="{x + 21}" y="{y + 23}"><tspan font-weight="600">{escape(room)}</tspan>'
                f'<tspan fill="#667" dx="6">{lines_of(room):,}</tspan></text>'
            )
            x += width + GAP
        y += ROW + 4
        parts.append(
            f'<rect x="{PAD}" y="{top}" width="{WIDTH - 2 * PAD}" height="{y - top}" rx="10" fill="{colour}"/>'
        )
        parts.append(f'<text x="{PAD + 12}" y="{top + 19}" fill="#445" font-style="italic">{escape(name)}</text>')
        parts += boxes
        y += 8
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + PAD - 8}"'
    font = 'font-family="system-ui, sans-serif" font-size="13" fill="#222"'
    return f'{head} {font}><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'


if __name__ == "__main__":
    OUT.write_text(drawn(), encoding="utf-8")
    print(OUT.relative_to(ROOT))
