"""Trace: what a run of a plan came to, node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pops.caution import Caution
from pops.embedding import Embedding
from pops.errors import ensure
from pops.expression.nodes import Node
from pops.expression.plan import Plan

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


@dataclass(frozen=True)
class Trace:
    """One run of a plan, whole: every node's embedding, the root's, and the images of mixes."""

    plan: Plan
    values: Mapping[Node, Embedding]
    embedding: Embedding | None  # of the root; None of a mix whose embedding nobody asked for
    rows: int
    images: Mapping[Node, Sequence[Image.Image]] = field(default_factory=dict)  # of each mix: one, or some per row
    latents: Sequence[Tensor] = ()  # of the root where it is a mix: one per image
    unfamiliar: Mapping[Node, Caution] = field(
        default_factory=dict
    )  # operands unlike all that the model was trained on

    @property
    def result(self) -> Embedding:
        """The root's embedding, a row per seed."""
        ensure(self.embedding is not None, "this run kept no embedding of its mix; ask for it with embed=True")
        assert self.embedding is not None
        return self.embedding

    @property
    def mixed(self) -> list[Image.Image] | None:
        """The images where the root is a mix: as many per row as were asked for, row by row."""
        found = self.images.get(self.plan.root)
        return None if found is None else list(found)
