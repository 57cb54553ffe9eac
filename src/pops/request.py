"""What is asked of an evaluation, and what it gives back: settings, seeds, operands as users give them, the trace.

Knows no models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pops.errors import ConfigError, OperandError, ensure, suggest
from pops.expression.nodes import Given, Missing, Node, Word, path_node
from pops.expression.plan import Plan
from pops.expression.resolve import MAX_GUIDANCE, MAX_STEPS
from pops.files import digest
from pops.prior.samplers import check_sampler
from pops.seeds import check_seed

if TYPE_CHECKING:
    from PIL import Image

    from pops.embedding import Embedding
    from pops.expression import Expression

Operand: TypeAlias = "str | Path | Image.Image | Embedding | Expression | Node | None"
Seed: TypeAlias = "int | Sequence[int]"
OnStep: TypeAlias = Callable[[int, int], None]
OnProgress: TypeAlias = Callable[[int, int, str], None]  # (done, total, what); raising from it cancels


@dataclass(frozen=True)
class Settings:
    """How embeddings are made. None: each operator's own default. A node's own options come first."""

    steps: int | None = None
    guidance: float | None = None
    sampler: str = "ancestral"
    fit: str = "squash"  # how a photo becomes square: squash, crop or pad
    renderer: str | None = None  # whose networks mix; a recipe keeps it with what was rendered

    def __post_init__(self) -> None:
        ok = self.steps is None or 1 <= self.steps <= MAX_STEPS
        ensure(ok, f"steps must be from 1 to {MAX_STEPS}, got {self.steps}", ConfigError)
        ok = self.guidance is None or 0 <= self.guidance <= MAX_GUIDANCE
        ensure(ok, f"guidance must be from 0 to {MAX_GUIDANCE:g}, got {self.guidance}", ConfigError)
        check_sampler(self.sampler)

    @classmethod
    def of(cls, how: Mapping[str, Any]) -> Settings:
        """Settings by name, as keyword arguments gave them; TypeError for another name."""
        for name in how:
            if name not in cls.__dataclass_fields__:
                raise TypeError(f"there is no setting {name!r}{suggest(name, cls.__dataclass_fields__)}")
        return cls(**how)

    def given(self) -> dict[str, Any]:
        """What a recipe keeps."""
        return {k: v for k, v in vars(self).items() if v is not None and k != "renderer"}


def seed_list(seed: Seed) -> list[int]:
    """One seed or several, checked."""
    seeds = list(seed) if isinstance(seed, (list, tuple, range)) else [seed]
    ensure(len(seeds) > 0, "the list of seeds is empty; give at least one", ConfigError)
    return [check_seed(s) for s in seeds]


@dataclass(frozen=True)
class Trace:
    """One evaluation, whole: the plan, every node's embedding, the root's, and the pictures of its mixes."""

    plan: Plan
    values: Mapping[Node, Embedding]
    result: Embedding
    pictures: Mapping[Node, Sequence[Image.Image]] = field(default_factory=dict)  # of each mix, one or one a row

    @property
    def mixed(self) -> list[Image.Image] | None:
        """The pictures where the root is a mix: of every row as many as were asked for, row by row."""
        found = self.pictures.get(self.plan.root)
        return None if found is None else list(found)


def node_of(operand: Operand, kind: str, given: dict[str, Any], where: str) -> Node:
    """The node an operand stands for; Python values go into `given`, the same object under the same key."""
    match operand:
        case None:
            return Missing()
        case Node():
            return operand
        case str() if kind == "text":
            return Word(operand)
        case str() | Path():
            return path_node(str(operand))
    root = getattr(operand, "root", None)
    if isinstance(root, Node):
        return root
    if kind == "text":
        raise OperandError(f"{where} takes a word here, got a {type(operand).__name__}; give a string")
    if not hasattr(operand, "vectors") and not hasattr(operand, "getexif"):
        raise OperandError(
            f"{where} takes a photo here, got a {type(operand).__name__}; "
            "give a path, a PIL image, an Embedding or None"
        )
    key = next((k for k, v in given.items() if v is operand), f"given{len(given) + 1}")
    given[key] = operand
    return Given(key)


def inputs_of(layout: Plan) -> dict[str, str]:
    """The files an expression reads -> 16 hex digits of each one's sha256: has an operand changed since?"""
    paths = [*(photo.path for photo in layout.photos), *(saved.path for saved in layout.saved)]
    return {path: digest(path) for path in paths}
