"""Times a layer for few rows: torch's own linear against the engine's, by precision.

    python -m benchmarks.linear_rows

The figures behind `MIN_ROWS` in pops.prior.linear: milliseconds of a step's layers at full size (20 blocks, 2048 wide).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pops.prior import linear as ours
from pops.prior.linear import Linear, Precision

SHAPES = [(6144, 2048), (2048, 2048), (8192, 2048), (2048, 8192)]
BLOCKS = 6  # of 20: more than any cache holds
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
ROWS = (1, 2, 3, 4, 6, 8, 12, 64)


def median_ms(layers: Sequence[Linear], x: Mapping[int, Tensor], rounds: int = 5) -> float:
    """Returns the median time of all layers in turn, scaled to 20 blocks; x: activations by width."""
    times = []
    for _ in range(rounds + 1):  # the first is a warm-up
        begun = time.perf_counter()
        for layer, (_, width) in zip(layers, SHAPES * BLOCKS, strict=True):
            layer(x[width], False)
        times.append(time.perf_counter() - begun)
    return sorted(times[1:])[rounds // 2] * 1000 * 20 / BLOCKS


@torch.no_grad()
def main() -> None:
    ours.MIN_ROWS = 1  # no padding: the kernels' own times
    device = torch.device("cpu")
    print("| precision | rows | torch's linear, ms | blocked, ms |\n|---|---|---|---|")
    for precision in PRECISIONS:
        dtype = ours.compute_dtype(precision)
        weights = [torch.randn(s).mul_(0.02).to(dtype) for _ in range(BLOCKS) for s in SHAPES]
        plain = [ours._plain(w, torch.zeros(len(w), dtype=dtype)) for w in weights]
        blocked = [ours.linear(w, torch.zeros(len(w)), precision, device) for w in weights]
        for rows in ROWS:
            x = {k: torch.randn(rows, k).to(dtype) for k in (2048, 8192)}
            print(f"| {precision} | {rows} | {median_ms(plain, x):.0f} | {median_ms(blocked, x):.0f} |", flush=True)


if __name__ == "__main__":
    main()
