"""Trace: what a run of a plan came to, node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pops.embedding import Embedding
from pops.errors import PopsError, ensure
from pops.expression.nodes import Node, Photo
from pops.expression.plan import Plan

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

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


def _photo(node: Photo) -> Image.Image | None:
    """Returns a photo of the plan as its operator saw it, or None if it is no longer there."""
    from pops.images import load_photo

    try:
        return load_photo(node.path, size=2 * IMAGE)
    except PopsError:
        return None
