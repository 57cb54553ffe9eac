"""int8 layers for few rows: weights read once, as fast as the memory gives them. Linux on x86 with AVX-512 VNNI.

The quick twin of pops.prior.linear's int8 layers; what it compiles is in pops.prior.vnni. Layout of the weights: blocks
of 32 outputs, in the order of reading, [out / 32, in / 4, 32, 4]. Levels of the activations: [groups, in / 4, tile, 4],
a tile being the rows whose sums fit the registers: the weights pass by once for up to 12 rows, and further groups find
their block in the cache. A thread takes runs of half its share, long enough for the memory to run ahead.

Threads are torch's own, by the OpenMP that torch has loaded: a second pool, numba's, spins against them.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PAGE, LARGE, HUGE = 4096, 1 << 21, 14  # of Linux: bytes of a page, of a large one, and its advice to use them


@cache
def available() -> bool:
    """Whether numba is installed, the CPU has the instruction, torch's OpenMP is GNU's, and products are exact."""
    if sys.platform != "linux":
        return False
    try:
        from llvmlite.binding import get_host_cpu_features

        return bool(get_host_cpu_features().get("avx512vnni")) and _exact()
    except Exception:  # not installed, of another version, nowhere to keep what is compiled: oneDNN does without
        return False


class Product:
    """[n, in] => [n, out], both float32, by weights q int8 [out, in], a scale for each of their rows, and a bias [out].

    fine: 16 bits of activations in place of 8. Threads share it. AttributeError where torch's OpenMP is not GNU's.
    """

    def __init__(self, q: Tensor, scale: Tensor, bias: Tensor, fine: bool) -> None:
        import torch

        from pops.prior.vnni import JOB, multiply, quantise

        self.parallel = ctypes.CDLL(None).GOMP_parallel  # torch's: it loads its libraries for all to see
        self.parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self.parallel.restype = None
        self.halves, self.numbers = (quantise.address, multiply.address), ctypes.c_int64 * JOB
        weights, column = _blocked(q), q.sum(1, dtype=torch.int32).float() * scale
        self.constants = (weights, scale.contiguous(), column, bias.contiguous())
        self.addresses = tuple(t.data_ptr() for t in self.constants)
        self.outputs, self.inputs = q.shape
        self.plan = lru_cache(maxsize=64)(partial(_plan, self.outputs, self.inputs, fine))

    def __call__(self, x: Tensor) -> Tensor:
        import torch

        x, n, threads = x.contiguous(), len(x), torch.get_num_threads()
        y = x.new_empty(n, self.outputs)
        if n == 0:
            return y
        starts, size, sizes = self.plan(n, threads)
        room = torch.empty(size, dtype=torch.uint8)
        places = [room.data_ptr() + start for start in starts]
        job = self.numbers(x.data_ptr(), *places, *self.addresses, y.data_ptr(), *sizes)
        address = ctypes.addressof(job)
        for half in self.halves:
            self.parallel(half, address, threads, 0)
        return y


def _plan(outputs: int, inputs: int, fine: bool, n: int, threads: int) -> tuple[list[int], int, tuple[int, ...]]:
    """Where digits, levels, steps, middles, totals and sums start in one piece of memory, its bytes, a job's sizes."""
    from pops.prior.vnni import MOST, TILES, UNROLL, WIDE

    rows, blocks, padded = n * (2 if fine else 1), -(-outputs // WIDE), -(-inputs // (4 * UNROLL)) * 4 * UNROLL
    groups = -(-rows // MOST)
    tile = next(t for t in TILES if t * groups >= rows)
    ends = [0]
    for size in (rows * padded, groups * tile * padded, 4 * n, 4 * n, 4 * rows, 4 * threads * MOST * WIDE):
        ends.append(ends[-1] + -(-size // 64) * 64)
    sizes = (n, inputs, padded, outputs, int(fine), tile, groups, -(-blocks // (2 * threads)), 0, 0, 0)
    return ends[:-1], ends[-1], sizes


def _blocked(q: Tensor) -> Tensor:
    """int8 [out, in] => q + 128 as [out / 32, in / 4, 32, 4], filled up, in large pages where the system has them."""
    import torch
    from torch.nn.functional import pad

    from pops.prior.vnni import UNROLL, WIDE

    n, k = q.shape
    q = pad(q, (0, -k % (4 * UNROLL), 0, -n % WIDE)) if k % (4 * UNROLL) or n % WIDE else q
    blocks = q.view(-1, WIDE, q.shape[1] // 4, 4).transpose(1, 2)
    weights = torch.empty(blocks.shape, dtype=torch.int8)
    start = -(-weights.data_ptr() // PAGE) * PAGE
    if weights.numel() > LARGE:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(weights.numel() - PAGE), HUGE)
    return weights.copy_(blocks).bitwise_xor_(-128)


def _exact() -> bool:
    """Whether products of whole numbers come out whole, the largest ones too."""
    import torch

    x = torch.arange(3 * 64).view(3, 64).mul(83).remainder(256).float()
    x[:, 0], x[:, 1], x[0, 2:] = 0, 255, 255  # so that a step is 1
    q = torch.arange(40 * 64).view(40, 64).mul(57).remainder(255).sub(127).to(torch.int8)
    q[0], q[1] = 127, -127
    ones, zeros = torch.ones(40), torch.zeros(40)
    x16 = x * 128 - 16320.0
    x16[:, 0] = 32639
    pairs = [(Product(q, ones, zeros, fine)(v), v.double() @ q.T.double()) for fine, v in ((False, x), (True, x16))]
    return all(bool(((y - truth).abs() <= 2 + truth.abs() * 1e-6).all()) for y, truth in pairs)
