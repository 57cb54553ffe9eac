"""Figures of embeddings and of images against their truths. Pure: tensors in, numbers out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Returns the cosine of each row: [n, D], [n, D] => [n]."""
    from torch.nn.functional import cosine_similarity

    return cosine_similarity(a, b, dim=-1)


def recall(e: Tensor, truth: Tensor) -> float:
    """Returns the share of rows whose nearest truth by cosine, among all, is their own."""
    return float(hits(e, truth).float().mean())


def hits(e: Tensor, truth: Tensor) -> Tensor:
    """Returns whether each row's nearest truth by cosine, among all, is its own: [n, D], [n, D] => bool [n]."""
    import torch
    from torch.nn.functional import normalize

    near = (normalize(e, dim=-1) @ normalize(truth, dim=-1).T).argmax(1)
    return near == torch.arange(len(e))


def sharpness(images: Tensor) -> Tensor:
    """Returns the mean luminance gradient of each image: uint8 [n, 3, S, S] => [n], grey levels a pixel.

    Luminance by ITU-R BT.601; the gradient's length from differences of neighbours.
    """
    rgb = images.float()
    grey = (rgb * rgb.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    dx, dy = grey[:, :-1, 1:] - grey[:, :-1, :-1], grey[:, 1:, :-1] - grey[:, :-1, :-1]
    return (dx.square() + dy.square()).sqrt().mean((1, 2))


# The kernel distance between two sets of features, unbiased: arXiv 1801.01401, section 4, with its cubic kernel.
def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Returns the squared maximum mean discrepancy of features a [n, D] and b [m, D], by their directions, times 1000;
    near 0 for independent sets of one distribution, and negative at times. 0 where a set has fewer than two.
    """
    from torch.nn.functional import normalize

    a, b = normalize(a.double(), dim=-1), normalize(b.double(), dim=-1)
    n, m = len(a), len(b)
    if min(n, m) < 2:
        return 0.0
    aa, bb, ab = ((x @ y.T + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    within_a = (aa.sum() - aa.diagonal().sum()) / (n * (n - 1))
    within_b = (bb.sum() - bb.diagonal().sum()) / (m * (m - 1))
    return 1000 * float(within_a + within_b - 2 * ab.mean())
