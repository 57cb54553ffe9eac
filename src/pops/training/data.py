"""Training samples as precomputed embeddings, in memory, and batches of them. Knows no model."""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pops.errors import EmbeddingError, ensure
from pops.training.shards import check_samples, check_tables, read_folder, write_shard, write_tables

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pops.prior.condition import Condition
    from pops.standardise import ClipStats
    from pops.training.config import TrainConfig

logger = logging.getLogger("pops.training")

__all__ = ["Batch", "EmbeddingData", "Order", "Samples", "make_batch", "seed_of", "write_shard", "write_tables"]


@dataclass(frozen=True, eq=False)
class EmbeddingData:
    """All samples of one task, on the CPU: the tensors that `shards` names; `words` and `text` as [N, C].

    present [N, k] bool: False for a missing operand, a zero token; None: all are there. ragged: what is missing is left
    out instead, since the operator takes any number of operands.
    """

    target: Tensor
    operands: Tensor | None = None
    words: Tensor | None = None
    text: Tensor | None = None
    word_hidden: Tensor | None = None
    word_length: Tensor | None = None
    text_embeds: Tensor | None = None
    empty: Tensor | None = None
    pool: Tensor | None = None
    present: Tensor | None = None
    ragged: bool = False

    def __post_init__(self) -> None:
        every = {f.name: getattr(self, f.name) for f in fields(self)}
        check_tables(every, "the tables")
        check_samples(every, "the samples", every)
        for key in ("words", "text"):
            value = every[key]
            if value is not None and value.dim() == 1:
                object.__setattr__(self, key, value[:, None])
        if self.words is not None and self.text is not None:
            same = self.words.shape == self.text.shape
            ensure(same, "'words' and 'text' need the same columns: a sample draws one for both", EmbeddingError)

    @classmethod
    def load(cls, folder: str | Path) -> EmbeddingData:
        """Loads the samples of a folder. EmbeddingError names the file and the row of a broken record."""
        begun = time.perf_counter()
        tensors: dict[str, Any] = dict(read_folder(folder))
        data = cls(**tensors)
        logger.info("read %d samples from %s in %.1f s", len(data), folder, time.perf_counter() - begun)
        return data

    def __len__(self) -> int:
        return int(self.target.shape[0])

    @property
    def dim(self) -> int:
        """Width D of the embeddings."""
        return int(self.target.shape[1])

    def part(self, rows: Tensor) -> EmbeddingData:
        """Returns the samples `rows` [B], with all tables."""
        of_samples = ("target", "operands", "words", "text", "present")
        chosen: dict[str, Any] = {n: None if getattr(self, n) is None else getattr(self, n)[rows] for n in of_samples}
        return replace(self, **chosen)

    def targets(self, rows: Tensor) -> Tensor:
        """Returns the targets of the samples `rows` [B]: [B, D]."""
        return self.target[rows]

    def stats(self) -> ClipStats:
        """Returns mean and std [D] of all targets and the pool, float32, for a new base prior's space."""
        import torch

        from pops.standardise import ClipStats

        every = self.target if self.pool is None else torch.cat([self.target, self.pool.to(self.target.dtype)])
        std, mean = torch.std_mean(every.double(), dim=0)
        return ClipStats(mean.float(), std.float().clamp(min=1e-4))

    @cached_property
    def fingerprint(self) -> str:
        """Name of these samples: sha256 of shapes and evenly spaced values; 16 hex digits."""
        digest = hashlib.sha256()
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None and f.name != "ragged":
                flat = value.reshape(-1)
                digest.update(f"{f.name}{tuple(value.shape)}".encode())
                digest.update(flat[:: max(1, len(flat) // 4096)].double().numpy().tobytes())
        return digest.hexdigest()[:16]


# -- batches ---------------------------------------------------------------------------------------


def seed_of(seed: int, what: str, index: int) -> int:
    """Returns a seed in 0 .. 2**63 - 1 for one purpose of a run, e.g. ("step", 17)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{what}/{index}".encode()).digest()[:8], "big") >> 1


class Order:
    """Which samples each step takes: endless shuffled epochs, a function of (seed, step) alone."""

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._epoch = -1
        self._order: Tensor | None = None

    def rows(self, step: int) -> Tensor:
        """Returns the samples of a step: int64 [batch_size]."""
        import torch

        first, parts = step * self.batch_size, []
        last = first + self.batch_size
        while first < last:
            epoch, position = divmod(first, self.count)
            taken = min(self.count - position, last - first)
            parts.append(self._permutation(epoch)[position : position + taken])
            first += taken
        return torch.cat(parts)

    def _permutation(self, epoch: int) -> Tensor:
        import torch

        if self._order is None or epoch != self._epoch:
            gen = torch.Generator().manual_seed(seed_of(self.seed, "epoch", epoch))
            self._epoch, self._order = epoch, torch.randperm(self.count, generator=gen)
        return self._order


@dataclass(frozen=True, eq=False)
class Batch:
    """The samples of one step: target [B, D] standardised, its condition, text [B, D] for loss "instruct"."""

    target: Tensor
    condition: Condition
    text: Tensor | None


class Samples(Protocol):
    """Where samples come from: EmbeddingData, or shards on disk."""

    @property
    def dim(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    def __len__(self) -> int: ...
    def part(self, rows: Tensor, /) -> EmbeddingData: ...
    def targets(self, rows: Tensor, /) -> Tensor: ...


def make_batch(samples: Samples, rows: Tensor, *, config: TrainConfig, stats: ClipStats, gen: torch.Generator) -> Batch:
    """Builds the batch of samples `rows` [B], standardised, with the run's dropout; `gen` draws in a fixed order."""
    import torch

    from pops.prior.condition import Condition
    from pops.standardise import standardise

    b, d, data = len(rows), samples.dim, samples.part(rows)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=gen)

    # 1) Targets and image operands, standardised; noise on the operands.
    target = standardise(data.target.float(), stats)
    k = 0 if data.operands is None else data.operands.shape[1]
    images = target.new_zeros(b, 0, d) if data.operands is None else standardise(data.operands.float(), stats)
    if config.operand_noise:
        images = images + config.operand_noise * torch.randn(images.shape, generator=gen)

    if config.blend_share:
        target, images = _blended(data, target, images, config.blend_share, gen)

    present = data.present
    if config.any_order and k:
        order = uniform(b, k).argsort(dim=1)
        images = images.gather(1, order[..., None].expand(-1, -1, d))
        present = None if present is None else present.gather(1, order)

    # 2) Which operands are dropped: each independently, or all; the words are the last operand.
    parts = k + (data.words is not None)
    dropped = uniform(b, parts) < config.drop_each
    dropped |= uniform(b, 1) < config.drop_together

    # 3) Some targets become a random image, without operands, or with itself as operand 0.
    if config.random_share:
        chosen = uniform(b) < config.random_share
        lot = torch.randint(len(samples) if data.pool is None else len(data.pool), (b,), generator=gen)
        image = standardise((samples.targets(lot) if data.pool is None else data.pool[lot]).float(), stats)
        keeps = chosen & (uniform(b) < config.random_keeps_first)
        target = torch.where(chosen[:, None], image, target)
        dropped |= chosen[:, None]
        if k:
            images[:, 0] = torch.where(keeps[:, None], image, images[:, 0])
            dropped[:, 0] &= ~keeps
    if present is not None:
        dropped[:, :k] |= ~present
    images = images.masked_fill(dropped[:, :k, None], 0.0)

    # 4) The text: the word's hidden states after the images; for the base prior the caption, "" if it is dropped.
    columns = torch.zeros(b, dtype=torch.int64)
    wide = data.words if data.words is not None else data.text
    if wide is not None and wide.shape[1] > 1:
        columns = torch.randint(wide.shape[1], (b,), generator=gen)
    text = None if data.text is None else data.text[torch.arange(b), columns]
    if data.words is None or data.word_hidden is None or data.word_length is None:
        keep = present if data.ragged else None
        return Batch(target, Condition(images, keep), _look_up(data.text_embeds, text))
    word = data.words[torch.arange(b), columns]
    if config.operator == "prior":
        if data.empty is not None:
            word = torch.where(dropped[:, k], data.empty[0], word)
            text = None if text is None else torch.where(dropped[:, k], data.empty[1], text)
        dropped = torch.zeros_like(dropped)
    length = data.word_length[word]
    longest = int(length.max())
    real = torch.arange(longest) < length[:, None]
    hidden = data.word_hidden[word, :longest].float().masked_fill((dropped[:, k:] | ~real)[..., None], 0.0)
    keep = torch.cat([real.new_ones(b, k), real], dim=1)
    proj = _look_up(data.text_embeds, text) if config.operator == "prior" else None
    return Batch(target, Condition(torch.cat([images, hidden], dim=1), keep, proj), _look_up(data.text_embeds, text))


# mixup, arXiv 1710.09412 Eq. 1 with alpha = 1, on embeddings: between two examples an operator is nearly linear.
def _blended(
    data: EmbeddingData, target: Tensor, images: Tensor, share: float, gen: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Returns targets [B, D] and images [B, k, D], a share of them blended with those of another sample of the batch.

    Only samples with the same words and the same operands present are blended.
    """
    import torch

    b = len(target)
    order = torch.randperm(b, generator=gen)
    if data.words is not None:
        order = order[data.words[order, 0].argsort(stable=True)]
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    weight = torch.rand(b, generator=gen)
    alike = torch.rand(b, generator=gen) < share
    for value in (data.words, data.present):
        if value is not None:
            alike &= (value == value[other]).all(dim=1)
    weight = torch.where(alike, weight, 1.0)[:, None]
    images = weight[..., None] * images + (1 - weight[..., None]) * images[other]
    return weight * target + (1 - weight) * target[other], images


def _look_up(table: Tensor | None, index: Tensor | None) -> Tensor | None:
    return None if table is None or index is None else table[index].float()
