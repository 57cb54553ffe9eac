"""Is an operator's figure honest? How far one operand alone gets, and results against hard negatives.

A triplet is answered by one operand where the truth nearest to that operand, among all truths of the run, is the
triplet's own: then recall@1 says nothing of the operator. Hard negatives share one operand with the truth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pops.measure.figures import hits

if TYPE_CHECKING:
    from torch import Tensor

    from pops.progress import OnProgress
    from pops.studio import Pops


def shortcuts(result: Tensor, plain: Tensor, truth: Tensor, there: Tensor | None = None) -> dict[str, float]:
    """Returns the share of triplets that one operand alone answers, and recall@1 on the rest.

    result, truth [n, D], plain [n, k, D]: k operands; there [n, k]: False where one is missing, zeros (None: none is).
    Keys: answered_by_one, recall_at_1_of_rest, average_recall_at_1_of_rest (0 where there is no rest).
    """
    there = plain.new_ones(plain.shape[:2]).bool() if there is None else there
    answered = hits(plain[:, 0], truth) & there[:, 0]
    for k in range(1, plain.shape[1]):
        answered = answered | (hits(plain[:, k], truth) & there[:, k])
    rest = ~answered
    average = plain.sum(1) / there.sum(1, keepdim=True).clamp(min=1)

    def share(e: Tensor) -> float:
        return float(hits(e, truth)[rest].float().mean()) if bool(rest.any()) else 0.0

    return {
        "answered_by_one": float(answered.float().mean()),
        "recall_at_1_of_rest": share(result),
        "average_recall_at_1_of_rest": share(average),
    }


def hard_negatives(
    p: Pops,
    operator: str,
    average: Tensor,
    truths: Tensor,
    result: Tensor,
    seed: int,
    side: int,
    on_progress: OnProgress | None = None,
) -> dict[str, float]:
    """Returns how often the truth is the nearest among itself and its hard negatives, for the first len(result) cases.

    average (of the operands), truths [n, D], result [m, D]: of an operator's triplets from `seed`, drawn at `side`
    pixels.
    Keys: hard (all negatives), hard_operand_a and hard_operand_b (those that share that operand with the truth), and
    average_hard for the operands' average.
    """
    import torch
    from torch.nn.functional import normalize

    from pops.toybox.distractors import distractors
    from pops.toybox.draw import draw, to_image
    from pops.toybox.pairs import triplet

    count = len(result)
    kinds: list[Tensor] = []
    for k in range(count):
        of_a, of_b = distractors(triplet(operator, seed + k, "test"), seed + k)
        kinds.append(p.embed([to_image(draw(spec, side)) for spec in (*of_a, *of_b)]).vectors)
        if on_progress:
            on_progress(k + 1, count, f"{operator}: hard negatives")
    negatives = normalize(torch.stack(kinds), dim=-1)  # [m, 2 * each, D], those of operand a first
    each = negatives.shape[1] // 2
    truth = normalize(truths[:count], dim=-1)

    def nearest(e: Tensor, against: Tensor) -> float:
        e = normalize(e[:count], dim=-1)
        own, other = (e * truth).sum(-1), torch.einsum("md,mnd->mn", e, against).amax(1)
        return float((own > other).float().mean())

    return {
        "hard": nearest(result, negatives),
        "hard_operand_a": nearest(result, negatives[:, :each]),
        "hard_operand_b": nearest(result, negatives[:, each:]),
        "average_hard": nearest(average, negatives),
    }
