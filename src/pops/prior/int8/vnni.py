"""The compiled kernels of pops.prior.int8: a linear layer with int8 weights for few rows, attention for few queries.

Both read their large input (weights; keys and values) once, from end to end, and finish each result (scales, bias,
GELU) while it is in the cache. Knows no tensors: a job is an array of int64, addresses and sizes; products.py writes it
and owns the memory.

Needs numba (the extra `int8`), which caches the compiled code on disk, and a CPU with AVX-512 VNNI. Its vpdpbusd adds
to each of 16 int32 lanes the four products of four *unsigned* bytes of one register with four *signed* bytes of another
operand. Only the signed operand can come from memory with one word of four bytes broadcast to all lanes, and that is
what an activation needs; so activations are signed, and weights q are stored unsigned, as q + 128. The kernel takes the
128 times the activations' sum off again. All of it is exact in int32: |sum| <= in * 255 * 128 < 2^31 for in < 65,793,
and vpdpbusd adds without saturation. Rounding begins with the conversion of the final sum to float32.

Work is shared out by counters in the job, which threads increase atomically ("taken"): whoever is ready takes the next
rows, blocks or heads. No sum is ever divided among threads, so results do not depend on how many there are.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

WIDE = 32  # outputs of a block: two registers of 16 lanes
# Rows whose sums are in registers at once. 12 rows are 24 of the 32 registers, two more hold weights, and the rest is
# left to the compiler; the activation is a memory operand. Even, so that both digits of a `fine` row are in one tile.
TILES = (2, 4, 6, 8, 12)
MOST = TILES[-1]
AHEAD = 2048  # bytes by which weights are prefetched: 32 cache lines, 16 words of a block
UNROLL = 4  # words of activations (4 inputs each) per turn of the inner loop: inputs are padded to a multiple of 16
# What the compiler may do to float32 sums: reorder them into lanes, fuse multiply-add, ignore the sign of zero. Not
# "nnan" or "ninf": NaN must reach the result (see `seen` below), so it must not be assumed away.
FAST = {"nsz", "contract", "reassoc"}

# A product's job, int64: addresses, sizes, and the counters (rows taken, blocks taken, threads that have begun).
_X, _DIGITS, _LEVELS, _STEP, _MIDDLE, _TOTAL, _SUMS, _WEIGHTS, _SCALE, _COLUMN, _BIAS, _OUT = range(12)
_N, _INPUTS, _PADDED, _OUTPUTS, _FINE, _TILE, _GROUPS, _RUN, _GELU, _ROWS_TAKEN, _BLOCKS_TAKEN, _THREADS = range(12, 24)
JOB = 24
# Bytes of a thread's own: its sums [MOST, WIDE] int32 and one row of results. A multiple of 64, so that its sums are
# aligned to registers and no two threads write to one cache line.
OWN = 4 * (MOST + 1) * WIDE

# A job of attention: addresses, sizes, and the counters (heads taken, threads that have begun).
_QKV, _KEYS, _VALUES, _MASK, _SCRATCH, _ANSWER = range(6)
_ROWS, _HEADS, _TOKENS, _SLOTS, _WIDTH, _QUERIES, _MASK_ROW, _HEADS_TAKEN, _THREADS_BEGUN = range(6, 15)
ATTENTION = 15

# --- what numba cannot express, as LLVM instructions -----------------------------------------------------------------
#
# numba calls `code` with untyped LLVM objects (its context, an IRBuilder `b`, values): hence Any.

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_LANES = ir.VectorType(_I32, 16)


def _dots(rows: int) -> Any:
    """Returns the inner kernel for a tile: (addresses of weights, levels; words; address of sums).

    Multiplies a block of weights [words, 32, 4] with levels [words, rows, 4] and stores the sums, int32 [rows, 32].
    Written as LLVM instructions, because the sums must stay in registers through the whole loop, as phi nodes.
    """

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
            # One word of inputs: 32 outputs of 4 bytes, two cache lines, which are two registers. Beyond the end of the
            # block the prefetch reaches the next one, which this thread takes next; past the last it has no effect.
            halves = [b.load(at(w, (2 * u + h) * 64, _LANES), align=64) for h in (0, 1)]
            for h in (0, 1):  # (address, 0: for reading, 3: into all levels of the cache, 1: data)
                b.call(fetch, [at(w, (2 * u + h) * 64 + AHEAD, _I8), _I32(0), _I32(3), _I32(1)])
            # Each row's word goes to all lanes. LLVM folds the load and the shuffle into vpdpbusd's memory operand.
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
    """Returns (address) -> the typed pointer that numba.carray takes."""

    @intrinsic
    def pointer(typing: Any, address: Any) -> Any:
        def code(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
            return b.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), code

    return pointer


@intrinsic
def _take(typing: Any, address: Any, amount: Any) -> Any:
    """Adds to a counter that threads share and returns what it was before.

    Monotonic (relaxed) order: only the counter itself must be consistent; data pass between threads at `_meet`.
    """

    def code(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.atomic_rmw("add", b.inttoptr(arguments[0], _I64.as_pointer()), arguments[1], "monotonic")

    return types.int64(types.int64, types.int64), code


@intrinsic
def _meet(typing: Any) -> Any:
    """Waits for all threads of the OpenMP region."""

    def code(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        b.call(get_or_insert_function(b.module, ir.FunctionType(ir.VoidType(), []), "GOMP_barrier"), [])
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def _float(typing: Any, bits: Any) -> Any:
    """Reinterprets the bits of an int32 as float32."""

    def code(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), code


@intrinsic
def _order(typing: Any, bits: Any) -> Any:
    """Maps a float32's bits to an int32 that orders as the floats do, and back: it is its own inverse.

    The bits of positive floats are in order already; those of negative ones in reverse, so all but their sign flips.
    """

    def code(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        bits = arguments[0]
        return b.xor(bits, b.lshr(b.ashr(bits, _I32(31)), _I32(1)))

    return types.int32(types.int32), code


_dots2, _dots4, _dots6, _dots8, _dots12 = map(_dots, TILES)
_floats, _int32s, _int8s = map(_array, (types.float32, types.int32, types.int8))
_F, _I = np.float32, np.int32
_job = types.CPointer(types.int64)
_inner = numba.njit(error_model="numpy", fastmath=FAST)
_threads = numba.cfunc(types.void(_job), error_model="numpy", fastmath=FAST, cache=True)


# --- functions of one number, without branches or calls, so that LLVM vectorises the loops around them ---------------


# e^v = 2^n e^f with f in +-ln(2) / 2, where Taylor's polynomial of degree 7 is exact to float32.
@_inner
def _exp(v: Any) -> Any:
    """Returns e^v for v <= 88, to a few units of the last place; 0 below -87 (no denormals), NaN for NaN."""
    low = v < _F(-87)
    v = _F(-87) if low else v
    n = np.floor(v * _F(1.4426950408889634) + _F(0.5))
    f = v - n * _F(0.6931471805599453)
    p = _F(1 / 5040)
    for c in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        p = p * f + _F(c)
    return _F(0) if low else p * _float(_I((_I(n) + 127) << 23))  # 2^n, made from the bits of its exponent


# x Phi(x); 2 Phi(-|x|) = erfc(|x| / sqrt 2) by Abramowitz & Stegun 7.1.26, which is right to 1.5e-7.
@_inner
def _gelu(x: Any) -> Any:
    v = abs(x) * _F(0.7071067811865476)
    t = _F(1) / (_F(1) + _F(0.3275911) * v)
    p = _F(1.061405429)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        p = p * t + _F(c)
    beyond = _F(0.5) * x * p * t * _exp(-v * v)
    return beyond if x < 0 else x - beyond


# --- a product, run by all threads at once ----------------------------------------------------------------------------


@_inner
def _range(bits: Any) -> Any:
    """Returns the lowest and the highest of float32 numbers, given as bits.

    Compared as integers: a minimum of floats that may be NaN depends on their order, which LLVM must keep, so it would
    not vectorise the loop.
    """
    low = high = _order(bits[0])
    for k in range(len(bits)):
        v = _order(bits[k])
        low = v if v < low else low
        high = v if v > high else high
    return _float(_order(low)), _float(_order(high))


@_inner
def _coarse(x: Any, bits: Any, levels: Any) -> Any:
    """Quantises a row to 8 bits: x = middle + step a, a in -128 .. 127 => step, middle, sum of a.

    `seen` is the row's sum; times 0 it is 0, or NaN if x has a NaN or an infinity, which thus reaches the whole row.
    """
    low, high = _range(bits)
    step = max((high - low) * _F(1 / 255), _F(1e-12))
    total, seen = _I(0), _F(0)
    for k in range(len(x)):
        a = _I((x[k] - low) / step + _F(0.5)) - _I(128)
        levels[k] = a
        total += a
        seen += x[k]
    return step, low + _F(128) * step + seen * _F(0), total


@_inner
def _finely(x: Any, bits: Any, high: Any, low: Any) -> Any:
    """Quantises a row to 16 bits, two digits: x = step (256 a + c), a and c in -128 .. 127 => step, sums of a and c.

    32639 = 127 * 257 is the highest level whose digits are both at most 127. NaN and infinity as in `_coarse`.
    """
    least, most = _range(bits)
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


@_inner
def _quantise(job: Any) -> None:
    """Quantises rows of x and stores their levels so that the words of a tile's rows are side by side.

    A thread takes one row at a time. Rows that fill up the last tile are never written: what the kernel computes from
    them is not read.
    """
    n, inputs, padded, tile, fine = job[_N], job[_INPUTS], job[_PADDED], job[_TILE], job[_FINE]
    digits, words, counter = 1 + fine, padded // 4, job.ctypes.data + 8 * _ROWS_TAKEN
    step, middle = carray(_floats(job[_STEP]), n), carray(_floats(job[_MIDDLE]), n)
    total = carray(_int32s(job[_TOTAL]), n * digits)
    while True:
        i = _take(counter, 1)
        if i >= n:
            return
        at = job[_X] + 4 * i * inputs
        x, bits = carray(_floats(at), inputs), carray(_int32s(at), inputs)
        row = carray(_int8s(job[_DIGITS] + i * digits * padded), (digits, padded))
        if fine:
            step[i], total[2 * i], total[2 * i + 1] = _finely(x, bits, row[0], row[1])
        else:
            step[i], middle[i], total[i] = _coarse(x, bits, row[0])
        for d in range(digits):
            row[d, inputs:] = 0
            # Scattered word by word: [padded / 4] of this row -> its place in [padded / 4, tile].
            r = digits * i + d
            word = carray(_int32s(job[_DIGITS] + r * padded), words)
            into = carray(_int32s(job[_LEVELS] + (r // tile) * tile * padded), (words, tile))
            for k in range(words):
                into[k, r % tile] = word[k]


@_inner
def _multiply(job: Any) -> None:
    """Multiplies levels with weights and turns the integers into x W^T + b, or GELU of it.

    With column = scale sum(q) and total = sum(a), for each row and output:
    coarse: sum (middle + step a) scale q = middle column + step scale (sum a (q + 128) - 128 total)
    fine:   sum step (256 a + c) scale q = step scale (256 (sum a (q + 128) - 128 total_a) + the same of c)
    """
    n, padded, outputs, tile, fine = job[_N], job[_PADDED], job[_OUTPUTS], job[_TILE], job[_FINE]
    digits, words, counters = 1 + fine, padded // 4, job.ctypes.data
    blocks, rows = (outputs + WIDE - 1) // WIDE, n * digits
    step, middle = carray(_floats(job[_STEP]), n), carray(_floats(job[_MIDDLE]), n)
    total = carray(_int32s(job[_TOTAL]), rows)
    own = job[_SUMS] + _take(counters + 8 * _THREADS, 1) * OWN
    sums, aside = carray(_int32s(own), (MOST, WIDE)), own + 4 * MOST * WIDE
    while True:
        start = _take(counters + 8 * _BLOCKS_TAKEN, job[_RUN])
        if start >= blocks:
            return
        for j in range(start, min(blocks, start + job[_RUN])):
            weights, at = job[_WEIGHTS] + j * WIDE * padded, j * WIDE
            wide = min(WIDE, outputs - at)  # outputs of this block that exist: the last may have fewer
            scale, bias = carray(_floats(job[_SCALE] + 4 * at), WIDE), carray(_floats(job[_BIAS] + 4 * at), WIDE)
            column = carray(_floats(job[_COLUMN] + 4 * at), WIDE)
            for g in range(job[_GROUPS]):
                levels = job[_LEVELS] + g * tile * padded
                if tile == 2:  # one compiled kernel per tile: its registers are fixed
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
                    out = job[_OUT] + 4 * (i * outputs + at)
                    y = carray(_floats(out if wide == WIDE else aside), WIDE)  # whole blocks, for vector code
                    over = total[k] * _I(128)  # since the weights are q + 128
                    if fine:
                        below = total[k + 1] * _I(128)
                        for c in range(WIDE):
                            whole = _F(sums[r, c] - over) * _F(256) + _F(sums[r + 1, c] - below)
                            y[c] = bias[c] + whole * (step[i] * scale[c])
                    else:
                        for c in range(WIDE):
                            whole = _F(sums[r, c] - over)
                            y[c] = bias[c] + middle[i] * column[c] + whole * (step[i] * scale[c])
                    if job[_GELU]:
                        for c in range(WIDE):
                            y[c] = _gelu(y[c])
                    if wide < WIDE:
                        carray(_floats(out), wide)[:] = y[:wide]


@_threads
def product(address: Any) -> None:
    """Runs a job (JOB int64 numbers at the address): every thread quantises, then every thread multiplies."""
    job = carray(address, JOB)
    _quantise(job)
    _meet()  # every block needs the levels of all rows
    _multiply(job)


# --- attention, run by all threads at once ----------------------------------------------------------------------------


@_threads
def attention(address: Any) -> None:
    """Computes softmax(q k^T / sqrt(width) + mask) v; a thread takes one head of one row at a time.

    First the tokens' own keys and values are copied into the last slots. The logits of one query are the only
    intermediate, in the thread's scratch memory.
    """
    job = carray(address, ATTENTION)
    heads, tokens, slots, width = job[_HEADS], job[_TOKENS], job[_SLOTS], job[_WIDTH]
    queries, counters, scale = job[_QUERIES], job.ctypes.data, _F(1 / np.sqrt(job[_WIDTH]))
    first = tokens - queries
    scratch = job[_SCRATCH] + (slots + 15) // 16 * 64 * _take(counters + 8 * _THREADS_BEGUN, 1)  # whole cache lines
    weights = carray(_floats(scratch), slots)
    while True:
        i = _take(counters + 8 * _HEADS_TAKEN, 1)
        if i >= job[_ROWS] * heads:
            return
        row, head = i // heads, i % heads
        own = carray(_floats(job[_QKV] + 4 * width * (row * tokens * 3 * heads + head)), (tokens, 3, heads * width))
        keys = carray(_floats(job[_KEYS] + 4 * i * slots * width), (slots, width))
        values = carray(_floats(job[_VALUES] + 4 * i * slots * width), (slots, width))
        mask = carray(_floats(job[_MASK] + 4 * row * job[_MASK_ROW]), (tokens, slots))
        answer = carray(_floats(job[_ANSWER] + 4 * width * (row * queries * heads + head)), (queries, heads * width))
        for t in range(tokens):
            for c in range(width):
                keys[slots - tokens + t, c] = own[t, 1, c]
                values[slots - tokens + t, c] = own[t, 2, c]
        for t in range(first, tokens):
            most = _F(-np.inf)
            for s in range(slots):
                dot = _F(0)
                for c in range(width):
                    dot += own[t, 0, c] * keys[s, c]
                weights[s] = dot * scale + mask[t, s]
                most = max(most, weights[s])
            total = _F(0)
            for s in range(slots):
                weights[s] = _exp(weights[s] - most)
                total += weights[s]
            for c in range(width):
                answer[t - first, c] = 0
            for s in range(slots):
                share = weights[s] / total
                for c in range(width):
                    answer[t - first, c] += share * values[s, c]
