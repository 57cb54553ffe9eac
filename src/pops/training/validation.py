"""Figures of an operator on held-out samples, while it is trained and after: results in one step, from pure noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cosine_similarity

from pops.measure.figures import hits
from pops.seeds import generators, randn_items
from pops.standardise import unstandardise
from pops.training.config import TrainConfig
from pops.training.data import Samples, make_batch

if TYPE_CHECKING:
    from torch import Tensor

    from pops.prior.transformer import PriorModel
    from pops.training.trainable import Trainable

MOST = 1024  # samples of a validation
PART = 256  # of them at once


class Validation:
    """Held-out samples, ready to judge a prior that is being trained. Draws no random numbers but its own."""

    def __init__(self, samples: Samples, average: Tensor, base: PriorModel, truth: Tensor, constant: Tensor) -> None:
        """average, truth [n, D]: of each sample the operands' average and the true result; constant [D]: the mean of
        the results to train on."""
        self.average, self.truth, self.base, self.constant = average, truth, base, constant
        plain = TrainConfig(operator="plain", steps=1, batch_size=len(truth))
        gen = torch.Generator().manual_seed(0)
        self.condition = make_batch(
            samples, torch.arange(len(truth)), config=plain, stats=base.stats, gen=gen
        ).condition  # fmt: skip
        self.noise = randn_items((base.dim,), generators(range(len(truth))))

    def __call__(self, model: Trainable) -> dict[str, float]:
        """Returns cosine, recall_at_1, beats_average and their standard errors; score, which decides what is best."""
        device = next(model.parameters()).device
        last, clip = self.base.scheduler.train_steps - 1, self.base.scheduler.clip
        parts = []
        for first in range(0, len(self.truth), PART):
            rows = slice(first, first + PART)
            z, condition = self.noise[rows].to(device), self.condition[rows].to(device)
            x0 = model(z, torch.full((len(z),), last, device=device), condition).float().cpu()
            parts.append(x0 if clip is None else x0.clamp(-clip, clip))
        return figures(unstandardise(torch.cat(parts), self.base.stats), self.average, self.truth, self.constant)


def figures(result: Tensor, average: Tensor, truth: Tensor, constant: Tensor) -> dict[str, float]:
    """Returns the figures of results [n, D] against truths, against the operands' average, and against one constant
    guess [D], the mean result: who does not beat that has learnt nothing of the operands.
    """
    mine, theirs = cosine_similarity(result, truth), cosine_similarity(average, truth)
    found = {"cosine": mine, "recall_at_1": hits(result, truth).float(), "beats_average": (mine > theirs).float()}
    found["beats_constant"] = (mine > cosine_similarity(constant[None], truth)).float()
    means = {name: float(value.mean()) for name, value in found.items()}
    errors = {f"{name}_error": error_of(name, value) for name, value in found.items()}
    return {**means, **errors, "average_cosine": float(theirs.mean()), "score": means["cosine"]}


def standard_error(values: Tensor) -> float:
    """Returns the standard error of the mean of values [n]; infinite of fewer than two."""
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("inf")


def share_error(values: Tensor) -> float:
    """Returns the standard error of a share, values [n] of 0 and 1; by Laplace's rule: 5 of 5 is not certain."""
    share = (float(values.sum()) + 1) / (len(values) + 2)
    return float((share * (1 - share) / (len(values) + 2)) ** 0.5)


def error_of(name: str, values: Tensor) -> float:
    """Returns the standard error of a figure by its name: cosines are means, the others shares."""
    return standard_error(values) if name == "cosine" else share_error(values)
