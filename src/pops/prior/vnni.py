"""What pops.prior.int8 runs, compiled: int8 weights times few rows, the weights read once and from end to end.

Needs numba (the extra `int8`), which keeps what it compiled, and a CPU with AVX-512 VNNI: vpdpbusd multiplies four
unsigned bytes with four signed ones and adds them to an int32, in each of 16 lanes. Weights lie as q + 128, unsigned,
so that the signed bytes are the activations', of which a word of four goes into all lanes on its way from memory.
Knows no tensors: a job is numbers and addresses.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

WIDE = 32  # outputs of a block
TILES = (2, 4, 6, 8, 12)  # rows at once: 24 sums of 16 lanes at most, of 32 registers
MOST = TILES[-1]
AHEAD = 2048  # bytes that weights are fetched before their use
UNROLL = 4  # words of activations in a turn of the inner loop: inputs are filled up to 16
FAST = {"nsz", "contract", "reassoc"}  # liberties with float32 that keep a NaN one

# A job, int64: addresses, sizes, and the counters that threads share (rows and blocks taken, threads so far).
_X, _DIGITS, _LEVELS, _STEP, _MIDDLE, _TOTAL, _SUMS, _WEIGHTS, _SCALE, _COLUMN, _BIAS, _OUT = range(12)
_N, _INPUTS, _PADDED, _OUTPUTS, _FINE, _TILE, _GROUPS, _RUN, _ROWS_TAKEN, _BLOCKS_TAKEN, _THREADS = range(12, 23)
JOB = 23

# --- what numba has no words for --------------------------------------------------------------------------------------

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_LANES = ir.VectorType(_I32, 16)


def _dots(rows: int) -> Any:
    """(weights, levels, words, sums): a block [words, 32, 4] times levels [words, rows, 4] => int32 [rows, 32]."""

    def code(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        weights, levels, words, out = arguments

        def at(base: Any, offset: int, kind: Any) -> Any:
            return b.inttoptr(b.add(base, _I64(offset)), kind.as_pointer())

        def function(name: str, result: Any, *kinds: Any) -> Any:
            return get_or_insert_function(b.module, ir.FunctionType(result, kinds), name)

        dot = function("llvm.x86.avx512.vpdpbusd.512", _LANES, _LANES, _LANES, _LANES)
        fetch = function("llvm.prefetch.p0", ir.VoidType(), _I8.as_pointer(), _I32, _I32, _I32)
        none, zeros = ir.Constant(_LANES, ir.Undefined), ir.Constant(_LANES, [0] * 16)
        before, loop, after = b.block, b.append_basic_block("words"), b.append_basic_block("sums")
        b.branch(loop)

        b.position_at_end(loop)
        w, x, left = b.phi(_I64), b.phi(_I64), b.phi(_I64)
        first = [b.phi(_LANES) for _ in range(2 * rows)]
        sums = list(first)
        for u in range(UNROLL):
            halves = [b.load(at(w, (2 * u + h) * 64, _LANES), align=64) for h in (0, 1)]
            for h in (0, 1):
                b.call(fetch, [at(w, (2 * u + h) * 64 + AHEAD, _I8), _I32(0), _I32(3), _I32(1)])
            for r in range(rows):
                word = b.load(at(x, (u * rows + r) * 4, _I32))
                lanes = b.shuffle_vector(b.insert_element(none, word, _I32(0)), none, zeros)
                for h in (0, 1):
                    sums[2 * r + h] = b.call(dot, [sums[2 * r + h], halves[h], lanes])
        rest = b.sub(left, _I64(UNROLL))
        phis = [(w, weights, b.add(w, _I64(128 * UNROLL))), (x, levels, b.add(x, _I64(4 * rows * UNROLL)))]
        phis += [(left, words, rest), *((phi, zeros, y) for phi, y in zip(first, sums))]
        for phi, start, later in phis:
            phi.add_incoming(start, before)
            phi.add_incoming(later, loop)
        b.cbranch(b.icmp_signed(">", rest, _I64(0)), loop, after)

        b.position_at_end(after)
        for i, y in enumerate(sums):
            b.store(y, at(out, i * 64, _LANES), align=64)
        return context.get_dummy_value()

    @intrinsic
    def dots(typing: Any, weights: Any, levels: Any, words: Any, out: Any) -> Any:
        return types.void(types.int64, types.int64, types.int64, types.int64), code

    return dots


def _array(kind: Any) -> Any:
    """(address) -> the pointer that carray takes."""

    @intrinsic
    def pointer(typing: Any, address: Any) -> Any:
        def code(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
            return b.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), code

    return pointer


@intrinsic
def _take(typing: Any, address: Any, amount: Any) -> Any:
    """Adds to a counter that threads share => what it was."""

    def code(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.atomic_rmw("add", b.inttoptr(arguments[0], _I64.as_pointer()), arguments[1], "monotonic")

    return types.int64(types.int64, types.int64), code


_dots2, _dots4, _dots6, _dots8, _dots12 = map(_dots, TILES)
_floats, _int32s, _int8s = map(_array, (types.float32, types.int32, types.int8))
_F, _I = np.float32, np.int32
_job = types.CPointer(types.int64)
_inner = numba.njit(error_model="numpy", fastmath=FAST)
_threads = numba.cfunc(types.void(_job), error_model="numpy", fastmath=FAST, cache=True)


# --- the two halves of a product, each run by all threads at once -----------------------------------------------------


@numba.njit(error_model="numpy", fastmath=True)
def _range(x: Any) -> Any:
    low = high = x[0]
    for v in x:
        low, high = min(low, v), max(high, v)
    return low, high


@_inner
def _coarse(x: Any, levels: Any) -> Any:
    """x = middle + step a, a in -128 ... 127 from the lowest to the highest => step, middle, sum of a."""
    low, high = _range(x)
    step = max((high - low) * _F(1 / 255), _F(1e-12))
    total, seen = _I(0), _F(0)
    for k in range(len(x)):
        a = _I((x[k] - low) / step + _F(0.5)) - _I(128)
        levels[k] = a
        total += a
        seen += x[k]
    return step, low + _F(128) * step + seen * _F(0), total  # NaN where x has one, or an infinity


@_inner
def _finely(x: Any, high: Any, low: Any) -> Any:
    """x = step (256 a + c), both digits in -128 ... 127 => step, sums of a and of c."""
    least, most = _range(x)
    step = max(max(-least, most), _F(1e-12)) * _F(1 / 32639)
    totals, seen = (_I(0), _I(0)), _F(0)
    for k in range(len(x)):
        level = _I(np.floor(x[k] / step + _F(0.5)))
        a = (level + _I(128)) >> _I(8)
        c = level - (a << _I(8))
        high[k], low[k] = a, c
        totals = (totals[0] + a, totals[1] + c)
        seen += x[k]
    return step + seen * _F(0), totals[0], totals[1]


@_threads
def quantise(address: Any) -> None:
    """Rows of x into levels, the words of a tile's rows side by side."""
    job = carray(address, JOB)
    n, inputs, padded, tile, fine = job[_N], job[_INPUTS], job[_PADDED], job[_TILE], job[_FINE]
    digits, words, counter = 1 + fine, padded // 4, job.ctypes.data + 8 * _ROWS_TAKEN
    step, middle = carray(_floats(job[_STEP]), n), carray(_floats(job[_MIDDLE]), n)
    total = carray(_int32s(job[_TOTAL]), n * digits)
    while True:
        i = _take(counter, 1)
        if i >= n:
            return
        x = carray(_floats(job[_X] + 4 * i * inputs), inputs)
        row = carray(_int8s(job[_DIGITS] + i * digits * padded), (digits, padded))
        if fine:
            step[i], total[2 * i], total[2 * i + 1] = _finely(x, row[0], row[1])
        else:
            step[i], middle[i], total[i] = _coarse(x, row[0])
        for d in range(digits):
            row[d, inputs:] = 0
            r = digits * i + d
            word = carray(_int32s(job[_DIGITS] + r * padded), words)
            into = carray(_int32s(job[_LEVELS] + (r // tile) * tile * padded), (words, tile))
            for k in range(words):
                into[k, r % tile] = word[k]


@_threads
def multiply(address: Any) -> None:
    """Levels times weights, and what the whole numbers mean: x W^T + b."""
    job = carray(address, JOB)
    n, padded, outputs, tile, fine = job[_N], job[_PADDED], job[_OUTPUTS], job[_TILE], job[_FINE]
    digits, words, counters = 1 + fine, padded // 4, job.ctypes.data
    blocks, rows = (outputs + WIDE - 1) // WIDE, n * digits
    step, middle = carray(_floats(job[_STEP]), n), carray(_floats(job[_MIDDLE]), n)
    total = carray(_int32s(job[_TOTAL]), rows)
    own = job[_SUMS] + _take(counters + 8 * _THREADS, 1) * (MOST * WIDE * 4)
    sums = carray(_int32s(own), (MOST, WIDE))
    while True:
        start = _take(counters + 8 * _BLOCKS_TAKEN, job[_RUN])
        if start >= blocks:
            return
        for j in range(start, min(blocks, start + job[_RUN])):
            weights, at = job[_WEIGHTS] + j * WIDE * padded, j * WIDE
            wide = min(WIDE, outputs - at)
            scale, bias = carray(_floats(job[_SCALE] + 4 * at), wide), carray(_floats(job[_BIAS] + 4 * at), wide)
            column = carray(_floats(job[_COLUMN] + 4 * at), wide)
            for g in range(job[_GROUPS]):
                levels = job[_LEVELS] + g * tile * padded
                if tile == 2:
                    _dots2(weights, levels, words, own)
                elif tile == 4:
                    _dots4(weights, levels, words, own)
                elif tile == 6:
                    _dots6(weights, levels, words, own)
                elif tile == 8:
                    _dots8(weights, levels, words, own)
                else:
                    _dots12(weights, levels, words, own)
                for r in range(0, min(tile, rows - g * tile), digits):
                    k = g * tile + r
                    i = k // digits
                    y = carray(_floats(job[_OUT] + 4 * (i * outputs + at)), wide)
                    over = total[k] * _I(128)  # for the weights are q + 128
                    if fine:
                        below = total[k + 1] * _I(128)
                        for c in range(wide):
                            whole = _F(sums[r, c] - over) * _F(256) + _F(sums[r + 1, c] - below)
                            y[c] = bias[c] + whole * (step[i] * scale[c])
                    else:
                        for c in range(wide):
                            whole = _F(sums[r, c] - over)
                            y[c] = bias[c] + middle[i] * column[c] + whole * (step[i] * scale[c])
