"""Imports point down: in the syntax trees, those for type checking and inside functions included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"

# A part may import parts of a smaller number, and itself. A new module or package gets its floor here.
FLOORS = {
    "errors": 0,
    "files": 1, "pickles": 1, "weights": 1,
    "embedding": 2, "images": 2, "seeds": 2, "standardise": 2,
    "library": 3, "models": 3, "prior": 3, "diffusion": 3, "space": 3,
    "expression": 4, "magicmix": 4, "operators": 4, "render": 4,
    "rendering": 5, "request": 5, "figures": 5,
    "execute": 6, "mixing": 6,
    "models.model": 5,
    "studio": 7, "training": 7,
    "__init__": 8,
    "measure": 9,
    "cli": 10, "server": 10,
}  # fmt: skip


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Every module a file names in an import, with its line; relative imports made absolute."""
    package = path.relative_to(SRC).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def part(module: str) -> str:
    """`pops.prior.noise` -> `prior`; a name of `pops` itself -> `__init__`."""
    second = [*module.split("."), "__init__"][1]
    known = second == "__init__" or (SRC / "pops" / second).is_dir() or (SRC / "pops" / f"{second}.py").is_file()
    return second if known else "__init__"


def upward(path: Path) -> list[str]:
    """The imports of a file of pops that do not point down."""
    own = part("pops." + ".".join(path.relative_to(SRC / "pops").with_suffix("").parts))
    wrong = []
    for line, module in imported(path):
        if module in ("pops", "pops.__version__"):
            continue  # `from pops import errors` is judged by its `pops.errors`
        if module.split(".")[0] == "pops":
            other = part(module)
            if other != own and not FLOORS[other] < FLOORS[own]:
                wrong.append(f"{path.relative_to(SRC)}:{line} {own} imports {module}")
        if module.split(".")[0] == "toybox" and own not in ("cli", "bench"):
            wrong.append(f"{path.relative_to(SRC)}:{line} only cli and bench may import pops.toybox")
    return wrong


def test_imports_point_down() -> None:
    files = sorted((SRC / "pops").rglob("*.py"))
    assert len(files) > 20
    assert [line for path in files for line in upward(path)] == []


def test_toybox_knows_nothing_of_pops() -> None:
    files = sorted((SRC / "toybox").rglob("*.py"))
    assert files
    assert [(p.name, n) for p in files for n, module in imported(p) if module.split(".")[0] == "pops"] == []


def test_every_part_has_a_floor() -> None:
    parts = {p.stem for p in (SRC / "pops").iterdir() if (p.is_dir() and any(p.glob("*.py"))) or p.suffix == ".py"}
    assert parts - {"__pycache__", "__main__"} <= set(FLOORS)


@pytest.mark.parametrize(
    ("file", "line", "wrong"),
    [
        ("prior/a.py", "from pops.errors import ensure", False),
        ("prior/a.py", "from pops.prior import noise", False),
        ("prior/a.py", "from pops.space import Space", True),  # sideways
        ("prior/a.py", "from pops import studio", True),  # up
        ("prior/a.py", "def f():\n    import pops.studio", True),  # up, later
        ("prior/a.py", "from ..studio import Pops", True),  # up, relative
        ("prior/a.py", "from . import noise", False),
        ("prior/a.py", "from pops import load", True),  # the lazy names are above everything
        ("studio.py", "from pops.training import trainer", True),
        ("studio.py", "import pops.toybox", True),
        ("cli/bench/operators.py", "from pops.toybox import world", False),
    ],
)
def test_the_walk_sees_what_it_should(
    file: str, line: str, wrong: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "SRC", tmp_path)
    for name in ("prior/noise.py", "errors.py", "space.py", "studio.py", "training/trainer.py", file):
        (tmp_path / "pops" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pops" / name).write_text(line if name == file else "")
    assert bool(upward(tmp_path / "pops" / file)) is wrong
