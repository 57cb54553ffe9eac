"""The public face: the names are deliberate, each can be had, and having them costs no torch."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import pops
from pops.errors import PopsError

PUBLIC_NAMES = [
    "CheckpointError",
    "ConfigError",
    "Embedding",
    "EmbeddingError",
    "Expression",
    "ExpressionError",
    "MagicMix",
    "ModelError",
    "OperandError",
    "Operator",
    "OperatorSpec",
    "PhotoError",
    "Pops",
    "PopsError",
    "Recipe",
    "Renderer",
    "Result",
    "SpaceError",
    "load",
    "parse",
]
HEAVY = ("torch", "diffusers", "transformers", "accelerate", "numpy")
ROOT = Path(__file__).parent.parent


def test_public_names_are_deliberate() -> None:
    assert sorted(pops.__all__) == PUBLIC_NAMES


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_every_public_name_can_be_had(name: str) -> None:
    value = getattr(pops, name)
    assert value.__name__ == name and value.__doc__
    assert name in dir(pops)


def test_other_names_are_told_apart() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Magic'"):
        pops.Magic  # noqa: B018


def test_the_kinds_of_errors_are_one_tree() -> None:
    assert all(issubclass(getattr(pops, name), PopsError) for name in PUBLIC_NAMES if name.endswith("Error"))


def test_one_version() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert pops.__version__ == declared == version("pops-diffusion")


def test_renderers_are_registered() -> None:
    names = {e.name for e in entry_points(group="pops.renderers")}
    assert {"stable-diffusion", "swatch"} <= names
    assert all(callable(e.load()) for e in entry_points(group="pops.renderers"))


@pytest.mark.parametrize("statement", ["import pops", "import pops.cli.main", "import pops; pops.parse('a.png')"])
def test_imports_are_light(statement: str) -> None:
    code = f"import sys; {statement}; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
