"""int8 layers and attention for few rows, by the compiled kernels of vnni.py: Linux on x86 with AVX-512 VNNI.

The fast twin of the int8 layers of pops.prior.linear, and of pops.prior.attention between them. This module owns the
memory: it lays out the weights, plans the scratch memory of a call, and starts the kernels on all threads.

Weights are stored in blocks of 32 outputs, in the order in which they are read: [out / 32, in / 4, 32, 4] bytes, the
last axis being the four inputs that one lane of vpdpbusd multiplies. Quantised activations ("levels") are stored as
[groups, in / 4, tile, 4]. A tile is as many rows as have their sums in registers at once, so one pass over a block of
weights serves up to 12 rows; further groups of rows find the block in the cache (64 kB for 2048 inputs).

A kernel runs as an OpenMP region on torch's own threads, by the library that torch has loaded (libgomp): the workers
spin for a while after a region, so that a second pool, such as numba's, would compete with them for the cores.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING

from pops.prior.attention import within

if TYPE_CHECKING:
    from torch import Tensor

MAX_TOKENS = 8  # that `Attention` computes itself; from 16 torch's products are faster
SCRATCH = 1 << 20  # bytes that each thread keeps as scratch memory
LINE = 64  # bytes of a cache line, and of a vector register
PAGE, LARGE, HUGE = 4096, 1 << 21, 14  # of Linux: bytes of a page and of a huge page; MADV_HUGEPAGE

_thread = threading.local()


@cache
def available() -> bool:
    """Returns whether the kernels work here: numba, AVX-512 VNNI, GNU's OpenMP in torch, and exact products."""
    if sys.platform != "linux":
        return False
    try:
        from llvmlite.binding import get_host_cpu_features

        return bool(get_host_cpu_features().get("avx512vnni")) and _exact()
    except Exception:  # not installed, another version, no folder for numba's cache: oneDNN does the work then
        return False


class Product:
    """A layer [n, in] => [n, out], both float32: weights q int8 [out, in], their scales [out] and a bias [out].

    fine: quantises the activations to 16 bits instead of 8. Threads may share it. AttributeError if torch's OpenMP is
    not GNU's.
    """

    def __init__(self, q: Tensor, scale: Tensor, bias: Tensor, fine: bool) -> None:
        import torch

        from pops.prior.int8.vnni import JOB, product

        self.parallel, self.code, self.numbers = _parallel(), product.address, ctypes.c_int64 * JOB
        column = q.sum(1, dtype=torch.int32).float() * scale  # sum(W) of each output, for the middle of the range
        self.constants = (_blocked(q), *(_padded(v) for v in (scale, column, bias)))
        self.addresses = tuple(t.data_ptr() for t in self.constants)  # valid as long as self.constants lives
        self.outputs, self.inputs = q.shape
        self.plan = lru_cache(maxsize=64)(partial(_plan, self.outputs, self.inputs, fine))

    def __call__(self, x: Tensor, gelu: bool = False) -> Tensor:
        """Returns x W^T + b, or GELU of it."""
        import torch

        x, n, threads = x.contiguous(), x.shape[0], torch.get_num_threads()
        y = x.new_empty(n, self.outputs)
        if n == 0:
            return y
        starts, size, sizes = self.plan(n, threads)
        scratch = _scratch(size)
        at = scratch.data_ptr()
        places = [at + start for start in starts]
        # In the order of vnni's _X ... _GELU; ctypes sets the rest, the counters that threads share, to 0.
        job = self.numbers(x.data_ptr(), *places, *self.addresses, y.data_ptr(), *sizes, gelu)
        self.parallel(self.code, job, threads, 0)
        return y


class Attention:
    """`pops.prior.attention.within` for few tokens in float32, as one call. Threads may share it."""

    def __init__(self) -> None:
        from pops.prior.int8.vnni import ATTENTION, attention

        self.parallel, self.code, self.numbers = _parallel(), attention.address, ctypes.c_int64 * ATTENTION

    def __call__(self, qkv: Tensor, kv: Tensor, mask: Tensor, queries: int) -> Tensor:
        """Computes attention, as `within` does; calls it for many tokens and for keys that are not contiguous."""
        import torch

        n, tokens, wide = qkv.shape
        if tokens > MAX_TOKENS or not kv.is_contiguous():
            return within(qkv, kv, mask, queries)
        heads, slots, width = kv.shape[2:]
        qkv, mask, threads = qkv.contiguous(), mask.contiguous(), torch.get_num_threads()
        # Scratch: the weights of one query over all slots, for each thread, in whole cache lines (16 float32 each).
        y, scratch = qkv.new_empty(n, queries, wide // 3), _scratch(threads * -(-slots // 16) * LINE)
        keys, mask_row = kv.data_ptr(), 0 if mask.numel() == tokens * slots else tokens * slots  # 0: all rows share it
        addresses = (qkv.data_ptr(), keys, keys + kv.stride(0) * 4, mask.data_ptr(), scratch.data_ptr(), y.data_ptr())
        job = self.numbers(*addresses, n, heads, tokens, slots, width, queries, mask_row)
        self.parallel(self.code, job, threads, 0)
        return y


def _scratch(size: int) -> Tensor:
    """Returns scratch memory of `size` bytes or more, aligned to a cache line as all of torch's memory on a CPU is.

    Up to SCRATCH bytes it is the calling thread's own, the same from call to call: what was used last is in the cache.
    """
    import torch

    if size > SCRATCH:
        return torch.empty(size, dtype=torch.uint8)
    if not hasattr(_thread, "scratch"):
        _thread.scratch = torch.empty(SCRATCH, dtype=torch.uint8)
    scratch: Tensor = _thread.scratch
    return scratch


@cache
def _parallel() -> Callable[..., None]:
    """Returns GOMP_parallel(function, its argument, threads, flags): runs the function once on each of the threads.

    ctypes releases the GIL for the call, and the kernels never take it.
    """
    run = ctypes.CDLL(None).GOMP_parallel  # found because torch loads its libraries with their symbols global
    run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    run.restype = None
    return run


def _plan(outputs: int, inputs: int, fine: bool, n: int, threads: int) -> tuple[list[int], int, tuple[int, ...]]:
    """Plans a call with n rows: where each array starts in the scratch memory, its size in bytes, and a job's sizes.

    The arrays, each from a cache line on: digits int8 [rows, padded], levels int8 [groups, padded / 4, tile, 4], step
    and middle float32 [n], total int32 [rows], and OWN bytes for each thread. rows: n, or 2 n where fine (two digits).
    """
    from pops.prior.int8.vnni import MOST, OWN, TILES, UNROLL, WIDE

    rows, blocks, padded = n * (2 if fine else 1), -(-outputs // WIDE), -(-inputs // (4 * UNROLL)) * 4 * UNROLL
    # As few passes over the weights as 12 rows each allow, then the smallest tile that holds the rows in so many.
    groups = -(-rows // MOST)
    tile = next(t for t in TILES if t * groups >= rows)
    ends = [0]
    for size in (rows * padded, groups * tile * padded, 4 * n, 4 * n, 4 * rows, threads * OWN):
        ends.append(ends[-1] + -(-size // LINE) * LINE)
    # A thread takes half its share of the blocks at a time: long runs in the order of memory, for the prefetchers, and
    # still a second half to even out threads that are slower.
    run = -(-blocks // (2 * threads))
    sizes = (n, inputs, padded, outputs, int(fine), tile, groups, run)
    return ends[:-1], ends[-1], sizes


def _blocked(q: Tensor) -> Tensor:
    """Lays out weights: int8 [out, in] => q + 128 as unsigned bytes [out / 32, in / 4, 32, 4], padded with q = 0.

    In huge pages where the system has them: a layer is up to 16 MB, which is 4096 small pages and more than the TLB
    holds.
    """
    import torch
    from torch.nn.functional import pad

    from pops.prior.int8.vnni import UNROLL, WIDE

    n, k = q.shape
    q = pad(q, (0, -k % (4 * UNROLL), 0, -n % WIDE)) if k % (4 * UNROLL) or n % WIDE else q
    blocks = q.view(-1, WIDE, q.shape[1] // 4, 4).transpose(1, 2)
    weights = torch.empty(blocks.shape, dtype=torch.int8)
    start = -(-weights.data_ptr() // PAGE) * PAGE  # madvise takes whole pages: the first one begins after the start
    if weights.numel() > LARGE:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(weights.numel() - PAGE), HUGE)
    return weights.copy_(blocks).bitwise_xor_(-128)  # flips the sign bit, which as unsigned bytes adds 128


def _padded(x: Tensor) -> Tensor:
    """Pads a vector [out] with zeros to whole blocks of outputs."""
    from torch.nn.functional import pad

    from pops.prior.int8.vnni import WIDE

    return pad(x, (0, -len(x) % WIDE)).contiguous()


def _exact() -> bool:
    """Returns whether the kernel's products of integers are exact, including the largest, compared with float64."""
    import torch

    x = torch.arange(3 * 64).view(3, 64).mul(83).remainder(256).float()
    x[:, 0], x[:, 1], x[0, 2:] = 0, 255, 255  # both ends of the range in each row, so that a quantisation step is 1
    q = torch.arange(40 * 64).view(40, 64).mul(57).remainder(255).sub(127).to(torch.int8)
    q[0], q[1] = 127, -127
    ones, zeros = torch.ones(40), torch.zeros(40)
    x16 = x * 128 - 16320.0
    x16[:, 0] = 32639  # the highest level of 16 bits, so that a step is 1 there, too
    pairs = [(Product(q, ones, zeros, fine)(v), v.double() @ q.T.double()) for fine, v in ((False, x), (True, x16))]
    return all(bool(((y - truth).abs() <= 2 + truth.abs() * 1e-6).all()) for y, truth in pairs)
