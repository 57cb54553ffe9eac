"""Times attention of a step's three queries on a CPU: torch's fused kernel against two products and a softmax.

    python -m benchmarks.small_attention

The figures behind `attend` in pops.prior.attention: microseconds per block at full size (32 heads of 64, 6 slots).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pops.prior.attention import attend


def median_us(run: Callable[[], Tensor], rounds: int = 200) -> float:
    for _ in range(20):
        run()
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return sorted(times)[rounds // 2] * 1e6


@torch.no_grad()
def main() -> None:
    print("| type | rows | fused, us | written out, us |\n|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        for rows in (2, 16, 64):
            q, k, v = (torch.randn(rows, 32, n, 64).to(dtype) for n in (3, 6, 6))
            mask = torch.zeros(1, 1, 3, 6).to(dtype)
            fused = median_us(partial(scaled_dot_product_attention, q, k, v, attn_mask=mask))
            ours = median_us(partial(attend, q, k, v, mask))
            print(f"| {str(dtype).removeprefix('torch.')} | {rows} | {fused:.0f} | {ours:.0f} |", flush=True)


if __name__ == "__main__":
    main()
