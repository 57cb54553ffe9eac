"""Training samples that lie in shards (pops.data): batches of them as EmbeddingData, nothing held but the texts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pops.errors import ConfigError, ensure
from pops.operators.spec import Role
from pops.training.data import EmbeddingData, seed_of

if TYPE_CHECKING:
    from torch import Tensor

    from pops.data import Shards
    from pops.data.shards import Rows


FEWEST_LISTED = 2  # columns of a list of operands


class ShardSamples:
    """Some rows of shards as samples of an operator: its images in order, then its text."""

    def __init__(self, shards: Shards, rows: Sequence[int], *, ragged: bool = False) -> None:
        """ragged: the operands are a list of any length (see `list_role`)."""
        import torch

        self.ragged = ragged
        self.shards, self.rows = shards, torch.as_tensor(list(rows), dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dim(self) -> int:
        """Width D of the embeddings."""
        return self.shards.dim

    @cached_property
    def fingerprint(self) -> str:
        """Name of these samples: sha256 of what the shards say of themselves and of the rows; 16 hex digits."""
        digest = hashlib.sha256(self.shards.about.to_json().encode())
        digest.update(self.rows.numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def has_text(self) -> bool:
        """Whether the last operand is a text."""
        return len(self.shards.text_roles) > 0

    def part(self, index: Tensor) -> EmbeddingData:
        """Returns the samples `index` [B] of these, with the tables that they refer to."""
        return self.of_rows(self.shards.batch(self.rows[index]))

    def targets(self, index: Tensor) -> Tensor:
        """Returns the targets of the samples `index` [B]: [B, D]."""
        return self.shards.batch(self.rows[index]).target

    def of_rows(self, rows: Rows) -> EmbeddingData:
        """Converts rows of the shards to samples."""
        import torch

        count = len(rows.target)
        images = [rows.images[name] for name in self.shards.images]
        present = [rows.present[name] for name in self.shards.images]
        operands = torch.stack(images, dim=1) if images else None
        there = torch.stack(present, dim=1) if present else None
        words = hidden = length = text = embeds = None
        if self.has_text:
            hidden, length = self._words
            index = rows.texts[self.shards.text_roles[0]]
            words = torch.where(index < 0, len(hidden) - 1, index)
        if rows.caption is not None:
            text, embeds = torch.arange(count), rows.caption
        return EmbeddingData(
            rows.target, operands, words, text, hidden, length, embeds, present=there, ragged=self.ragged
        )

    @cached_property
    def _words(self) -> tuple[Tensor, Tensor]:
        """The texts' hidden states and lengths, and after them a missing text: one zero token."""
        import torch

        table = self.shards.texts
        hidden = torch.cat([table.hidden, table.hidden.new_zeros(1, *table.hidden.shape[1:])])
        return hidden, torch.cat([table.length, torch.ones(1, dtype=table.length.dtype)])


def roles_of(columns: Sequence[Role]) -> tuple[Role, ...]:
    """Returns an operator's roles: the images in the order of the columns, then the text."""
    return (*(r for r in columns if r.kind == "image"), *(r for r in columns if r.kind == "text"))


def list_role(shards: Shards, rows: Sequence[int]) -> Role | None:
    """Returns the role that all operands share where they are a list: columns garment_1, garment_2, ... of which some
    rows fill fewer, the first ones. None where they are not.
    """
    import torch

    count, names = len(shards.images), [role.name for role in shards.roles]
    stem = names[0].removesuffix("_1")
    if count < FEWEST_LISTED or shards.text_roles or names != [f"{stem}_{k}" for k in range(1, count + 1)]:
        return None
    fewer = False
    for first in range(0, len(rows), 4096):
        batch = shards.batch(rows[first : first + 4096])
        there = torch.stack([batch.present[name] for name in names], dim=1)
        if not bool((there[:, 1:] <= there[:, :-1]).all()):
            return None
        fewer = fewer or not bool(there.all())
    return Role(stem) if fewer else None


def usable_rows(shards: Shards, split: str, *, captions: bool = False) -> list[int]:
    """Returns the rows of a split that say what their result is: by a picture, or (captions) by a caption."""
    rows: list[int] = []
    every = shards.rows(split)
    for first in range(every.start, every.stop, 4096):
        numbers = range(first, min(first + 4096, every.stop))
        batch = shards.batch(numbers)
        there = batch.target_present
        if captions and batch.caption_present is not None:
            there = batch.caption_present
        rows += [number for number, good in zip(numbers, there.tolist()) if good]
    return rows


def some_of(rows: Sequence[int], shots: int | None, seed: int) -> list[int]:
    """Returns `shots` of the rows, drawn by the seed, in order (None: all); ConfigError if there are fewer."""
    import torch

    if shots is None:
        return list(rows)
    ensure(shots <= len(rows), f"shots is {shots}, but there are {len(rows)} examples to train on", ConfigError)
    gen = torch.Generator().manual_seed(seed_of(seed, "shots", 0))
    return sorted(rows[i] for i in torch.randperm(len(rows), generator=gen)[:shots].tolist())


def plain_operands(shards: Shards, rows: Rows) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns each operand as an embedding [n, D], and where it is there [n]; of a text its text embedding."""
    found = {name: (rows.images[name], rows.present[name]) for name in shards.images}
    for name in shards.text_roles:
        index = rows.texts[name]
        found[name] = (shards.texts.embeds[index.clamp(min=0)].float(), index >= 0)
    return found


def average_of(operands: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
    """Returns the mean of the operands that are there: [n, D]; zeros where none is."""
    import torch

    values = torch.stack([value for value, _ in operands.values()], dim=1)
    there = torch.stack([present for _, present in operands.values()], dim=1).float()[..., None]
    return (values * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)
