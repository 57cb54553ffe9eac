"""Imports point down: in the syntax trees, those for type checking and inside functions included."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src"

# A part may import parts of a smaller number, and itself. A new module or package gets its floor here; a module of a
# package may have a floor of its own ("models.model"), and then it is a part of its own.
FLOORS = {
    "caution": 0, "errors": 0, "progress": 0, "version": 0, "toybox": 0,
    "measure.figures": 0,
    "files": 1, "fleet": 1, "notebook": 1, "parts": 1, "pickles": 1, "weights": 1,
    "examples": 1.5, "tensors": 1.5,
    "embedding": 2, "images": 2, "loading": 2, "seeds": 2, "standardise": 2,
    "diffusion": 3, "library": 3, "models": 3, "prior": 3, "space": 3,
    "expression": 4, "magicmix": 4, "operators": 4, "render": 4,
    "figures": 5, "recipe": 5, "trace": 5,
    "models.model": 6,
    "judging": 6.5,
    "execute": 7, "illustrate": 7, "rendering": 7,
    "result": 6, "snippets": 6,
    "runner": 8,
    "data": 8, "studio": 9, "training": 9,
    "__init__": 10,
    "measure": 11, "server": 11,
    "cli": 12,
    "__main__": 13,
}  # fmt: skip
OF_TOYBOX = ("toybox", "data", "measure", "cli")  # who may import the procedural world


def imported(path: Path, base: Path | None = None) -> Iterator[tuple[int, str]]:
    """Every module a file names in an import, with its line; relative imports made absolute."""
    package = path.relative_to(base or SRC).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def part(module: str) -> str:
    """`pops.prior.noise` -> `prior`, `pops.models.model` -> `models.model`; a name of `pops` itself -> `__init__`."""
    steps = module.split(".")
    if ".".join(steps[1:3]) in FLOORS:
        return ".".join(steps[1:3])
    second = [*steps, "__init__"][1]
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
            if other == "toybox" and own not in OF_TOYBOX:
                wrong.append(f"{path.relative_to(SRC)}:{line} only {', '.join(OF_TOYBOX)} may import pops.toybox")
    return wrong


def test_imports_point_down() -> None:
    files = sorted((SRC / "pops").rglob("*.py"))
    assert len(files) > 20
    assert [line for path in files for line in upward(path)] == []


def test_toybox_knows_nothing_else_of_pops() -> None:
    files = sorted((SRC / "pops" / "toybox").rglob("*.py"))
    assert len(files) > 10
    wrong = [(p.name, n) for p in files for n, module in imported(p) if module.split(".")[0] == "pops"
             and not module.startswith("pops.toybox")]  # fmt: skip
    assert wrong == []


@pytest.mark.parametrize("package", ["src/pops", "recipes", "benchmarks"])
def test_no_modules_import_one_another_in_a_circle(package: str) -> None:
    """Those for type checking and inside functions included; a package's own __init__ is left out."""
    home = ROOT / package
    base = home.parent
    names = {".".join(p.relative_to(base).with_suffix("").parts): p for p in home.rglob("*.py") if p.stem != "__init__"}
    needs = {name: {m for _, m in imported(path, base) if m in names and m != name} for name, path in names.items()}
    assert len(needs) > 5
    order = graphlib.TopologicalSorter(needs)
    order.prepare()  # CycleError names the circle


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
        ("studio.py", "import pops.toybox", True),  # only measurements and commands know the world
        ("toybox/a.py", "from pops.errors import ensure", True),
        ("models/hub.py", "from pops.models.model import Model", True),  # up, within a package
        ("models/model.py", "from pops.models.hub import resolve", False),
        ("cli/bench/operators.py", "from pops.toybox import world", False),
    ],
)
def test_the_walk_sees_what_it_should(
    file: str, line: str, wrong: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "SRC", tmp_path)
    for name in ("prior/noise.py", "errors.py", "space.py", "studio.py", "training/trainer.py", "toybox/world.py",
                 "models/hub.py", "models/model.py", file):  # fmt: skip
        (tmp_path / "pops" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pops" / name).write_text(line if name == file else "")
    assert bool(upward(tmp_path / "pops" / file)) is wrong
