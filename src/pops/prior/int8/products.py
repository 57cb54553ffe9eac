"""int8 layers for few rows: weights read once, as fast as the memory gives them. Linux on x86 with AVX-512 VNNI.

The quick twin of pops.prior.linear's int8 layers, and of pops.prior.attention between them; what it compiles is in
vnni.py. Layout of the weights: blocks of 32 outputs, in the order of reading, [out / 32, in / 4, 32, 4]. Levels
of the activations: [groups, in / 4, tile, 4], a tile being the rows whose sums fit the registers: the weights pass by
once for up to 12 rows, and further groups find their block in the cache. A thread takes runs of half its share, long
enough for the memory to run ahead.

Threads are torch's own, by the OpenMP that torch has loaded: a second pool, numba's, spins against them.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any

from pops.prior.attention import within

if TYPE_CHECKING:
    from torch import Tensor

FEW = 8  # tokens that `Attention` takes; for 16 of them torch's products are quicker
KEPT = 1 << 20  # bytes that a thread keeps to work in
PAGE, LARGE, HUGE = 4096, 1 << 21, 14  # of Linux: bytes of a page, of a large one, and its advice to use them

_own = threading.local()


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

    fine: 16 bits of activations in place of 8. Threads share it. Called with gelu it returns gelu of the result.
    AttributeError where torch's OpenMP is not GNU's.
    """

    def __init__(self, q: Tensor, scale: Tensor, bias: Tensor, fine: bool) -> None:
        import torch

        from pops.prior.int8.vnni import JOB, product

        self.parallel, self.code, self.numbers = _parallel(), product.address, ctypes.c_int64 * JOB
        column = q.sum(1, dtype=torch.int32).float() * scale
        self.constants = (_blocked(q), *(_filled(v) for v in (scale, column, bias)))
        self.addresses = tuple(t.data_ptr() for t in self.constants)
        self.outputs, self.inputs = q.shape
        self.plan = lru_cache(maxsize=64)(partial(_plan, self.outputs, self.inputs, fine))

    def __call__(self, x: Tensor, gelu: bool = False) -> Tensor:
        import torch

        x, n, threads = x.contiguous(), x.shape[0], torch.get_num_threads()
        y = x.new_empty(n, self.outputs)
        if n == 0:
            return y
        starts, size, sizes = self.plan(n, threads)
        room = _room(size)
        at = room.data_ptr()
        places = [at + start for start in starts]
        job = self.numbers(x.data_ptr(), *places, *self.addresses, y.data_ptr(), *sizes, gelu)
        self.parallel(self.code, job, threads, 0)
        return y


class Attention:
    """`pops.prior.attention.within` for few tokens in float32, in one call. Threads share it."""

    def __init__(self) -> None:
        from pops.prior.int8.vnni import ATTENTION, attention

        self.parallel, self.code, self.numbers = _parallel(), attention.address, ctypes.c_int64 * ATTENTION

    def __call__(self, qkv: Tensor, kv: Tensor, mask: Tensor, queries: int) -> Tensor:
        import torch

        n, tokens, wide = qkv.shape
        if tokens > FEW or not kv.is_contiguous():
            return within(qkv, kv, mask, queries)
        heads, slots, width = kv.shape[2:]
        qkv, mask, threads = qkv.contiguous(), mask.contiguous(), torch.get_num_threads()
        y, room = qkv.new_empty(n, queries, wide // 3), _room(threads * -(-slots // 16) * 64)
        keys, mask_row = kv.data_ptr(), 0 if mask.numel() == tokens * slots else tokens * slots
        addresses = (qkv.data_ptr(), keys, keys + kv.stride(0) * 4, mask.data_ptr(), room.data_ptr(), y.data_ptr())
        job = self.numbers(*addresses, n, heads, tokens, slots, width, queries, mask_row)
        self.parallel(self.code, job, threads, 0)
        return y


def _room(size: int) -> Tensor:
    """So many bytes to work in: while few, a thread's own from call to call, for what was just used is in the cache."""
    import torch

    if size > KEPT:
        return torch.empty(size, dtype=torch.uint8)
    if not hasattr(_own, "room"):
        _own.room = torch.empty(KEPT, dtype=torch.uint8)
    room: Tensor = _own.room
    return room


@cache
def _parallel() -> Any:
    """(function, its argument, threads, 0): runs it in so many threads of torch's."""
    run = ctypes.CDLL(None).GOMP_parallel  # torch loads its libraries for all to see
    run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    run.restype = None
    return run


def _plan(outputs: int, inputs: int, fine: bool, n: int, threads: int) -> tuple[list[int], int, tuple[int, ...]]:
    """Where digits, levels, steps, middles, totals and sums start in one piece of memory, its bytes, a job's sizes."""
    from pops.prior.int8.vnni import MOST, OWN, TILES, UNROLL, WIDE

    rows, blocks, padded = n * (2 if fine else 1), -(-outputs // WIDE), -(-inputs // (4 * UNROLL)) * 4 * UNROLL
    groups = -(-rows // MOST)
    tile = next(t for t in TILES if t * groups >= rows)
    ends = [0]
    for size in (rows * padded, groups * tile * padded, 4 * n, 4 * n, 4 * rows, threads * OWN):
        ends.append(ends[-1] + -(-size // 64) * 64)
    sizes = (n, inputs, padded, outputs, int(fine), tile, groups, -(-blocks // (2 * threads)))
    return ends[:-1], ends[-1], sizes


def _blocked(q: Tensor) -> Tensor:
    """int8 [out, in] => q + 128 as [out / 32, in / 4, 32, 4], filled up, in large pages where the system has them."""
    import torch
    from torch.nn.functional import pad

    from pops.prior.int8.vnni import UNROLL, WIDE

    n, k = q.shape
    q = pad(q, (0, -k % (4 * UNROLL), 0, -n % WIDE)) if k % (4 * UNROLL) or n % WIDE else q
    blocks = q.view(-1, WIDE, q.shape[1] // 4, 4).transpose(1, 2)
    weights = torch.empty(blocks.shape, dtype=torch.int8)
    start = -(-weights.data_ptr() // PAGE) * PAGE
    if weights.numel() > LARGE:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(weights.numel() - PAGE), HUGE)
    return weights.copy_(blocks).bitwise_xor_(-128)


def _filled(x: Tensor) -> Tensor:
    """Zeros up to a whole number of blocks."""
    from torch.nn.functional import pad

    from pops.prior.int8.vnni import WIDE

    return pad(x, (0, -len(x) % WIDE)).contiguous()


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
