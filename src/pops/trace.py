"""Trace: what a run of a plan came to, node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pops.caution import Caution
from pops.embedding import Embedding
from pops.errors import ensure
from pops.expression.nodes import Node
from pops.expression.plan import Plan

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.parts import Part


@dataclass(frozen=True)
class Trace:
    """One run of a plan, whole: every node's embedding, the root's, and the images of mixes."""

    plan: Plan
    values: Mapping[Node, Embedding]
    embedding: Embedding | None  # of the root; None of a mix whose embedding nobody asked for
    rows: int
    images: Mapping[Node, Sequence[Image.Image]] = field(default_factory=dict)  # of each mix: one, or some per row
    latents: Sequence[Tensor] = ()  # of the root where it is a mix: one per image
    part: Part | None = None  # of a larger run
    unfamiliar: Mapping[Node, Caution] = field(default_factory=dict)  # operands unlike all that the model knows

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

    @classmethod
    def joined(cls, parts: Sequence[Trace]) -> Trace:
        """Returns the trace of a whole run, given those of its parts in order."""
        if len(parts) == 1:
            return parts[0]
        every, parts = parts, [part for part in parts if part.part is None or part.part.first]
        first, root, values = parts[0], parts[0].plan.root, {}
        for node in first.values:
            own = [part.values[node] for part in parts]
            values[node] = own[0] if _shared(parts, own, _equal) else Embedding.cat(own)
        images = {}
        for node in first.images:
            made = [part.images[node] for part in parts]
            images[node] = made[0] if _shared(parts, made, _alike) else [image for part in made for image in part]
        if root in images:  # of one row, parts have several images
            images[root] = [image for part in every for image in part.images[root]]
        whole = None if first.embedding is None else Embedding.cat([part.result for part in parts])
        latents = [latent for part in every for latent in part.latents]
        rows = sum(part.rows for part in parts)
        return cls(first.plan, values, whole, rows, images, latents, unfamiliar=first.unfamiliar)


def _shared(parts: Sequence[Trace], own: Sequence[Sized], same: Callable[[Any, Any], bool]) -> bool:
    """Whether a node has one value for all rows: so it is in a part of several rows, or all parts of one agree."""
    of_many = [len(value) for part, value in zip(parts, own, strict=True) if part.rows > 1]
    return 1 in of_many if of_many else all(same(value, own[0]) for value in own)


def _equal(a: Embedding, b: Embedding) -> bool:
    return a.vectors.equal(b.vectors)


def _alike(a: Sequence[Image.Image], b: Sequence[Image.Image]) -> bool:
    return [image.tobytes() for image in a] == [image.tobytes() for image in b]
