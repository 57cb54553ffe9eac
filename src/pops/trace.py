"""Trace: what a run of a plan came to, node by node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pops.caution import Caution
from pops.embedding import Embedding
from pops.errors import PopsError, ensure
from pops.expression.nodes import Node, Photo
from pops.expression.plan import Plan

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.parts import Part

MOST_PHOTOS, IMAGE = 40, 104  # images in a notebook's tree, and the side of each in pixels


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

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: the tree, with the images of photos and mixes (of several rows the first)."""
        from pops.expression.svg import tree_svg
        from pops.notebook import BUDGET, ROOM, block, code, line, thumbnail

        known = {node: found[0] for node, found in self.images.items() if found}
        for node in self.plan.photos[: MOST_PHOTOS - len(known)]:
            photo = _photo(node)
            known |= {node: photo} if photo is not None else {}
        room = min(ROOM, BUDGET // max(1, len(known)))
        images = {node: thumbnail(image, 2 * IMAGE, room) for node, image in known.items()}
        made = None if self.embedding is None else self.embedding.provenance.get("expression")
        steps, rows = len(self.plan.jobs), self.rows
        space = "" if self.embedding is None else f"space {self.embedding.space}"
        facts = line(f"{steps} step{'' if steps == 1 else 's'}", f"{rows} row{'' if rows == 1 else 's'}", space)
        return block(f"<b>Trace</b>{facts}", code(made) if made else "", tree_svg(self.plan.root, images))


def _shared(parts: Sequence[Trace], own: Sequence[Sized], same: Callable[[Any, Any], bool]) -> bool:
    """Whether a node has one value for all rows: so it is in a part of several rows, or all parts of one agree."""
    of_many = [len(value) for part, value in zip(parts, own, strict=True) if part.rows > 1]
    return 1 in of_many if of_many else all(same(value, own[0]) for value in own)


def _equal(a: Embedding, b: Embedding) -> bool:
    return a.vectors.equal(b.vectors)


def _alike(a: Sequence[Image.Image], b: Sequence[Image.Image]) -> bool:
    return [image.tobytes() for image in a] == [image.tobytes() for image in b]


def _photo(node: Photo) -> Image.Image | None:
    """Returns a photo of the plan as its operator saw it, or None if it is no longer there."""
    from pops.images import load_photo

    try:
        return load_photo(node.path, size=2 * IMAGE)
    except PopsError:
        return None
