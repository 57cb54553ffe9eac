"""What pops.prior.int8 runs, compiled: int8 weights times few rows, and attention of few queries.

The weights are read once and from end to end; what a layer does with its results is done while they are in the cache.

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

# A product's job, int64: addresses, sizes, and the counters that threads share (rows and blocks taken, threads so far).
_X, _DIGITS, _LEVELS, _STEP, _MIDDLE, _TOTAL, _SUMS, _WEIGHTS, _SCALE, _COLUMN, _BIAS, _OUT = range(12)
_N, _INPUTS, _PADDED, _OUTPUTS, _FINE, _TILE, _GROUPS, _RUN, _GELU, _ROWS_TAKEN, _BLOCKS_TAKEN, _THREADS = range(12, 24)
JOB = 24
OWN = 4 * (MOST + 1) * WIDE  # bytes of a thread: its sums, and a row of results

# A job of attention: addresses, sizes, and the counters (heads taken, threads so far).
_QKV, _KEYS, _VALUES, _MASK, _ROOM, _ANSWER = range(6)
_ROWS, _HEADS, _TOKENS, _SLOTS, _WIDTH, _QUERIES, _MASK_ROW, _HEADS_TAKEN, _THREADS_SO_FAR = range(6, 15)
ATTENTION = 15

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


@intrinsic
def _meet(typing: Any) -> Any:
    """Waits for the other threads of the region."""

    def code(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        b.call(get_or_insert_function(b.module, ir.FunctionType(ir.VoidType(), []), "GOMP_barrier"), [])
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def _float(typing: Any, bits: Any) -> Any:
    """The float32 of an int32's bits."""

    def code(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        return b.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), code


@intrinsic
def _order(typing: Any, bits: Any) -> Any:
    """A float32's bits -> an int32 that is in order where the floats are, and back."""

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


# --- functions of one number, of which the compiler makes vectors -----------------------------------------------------


# e^v = 2^n e^f with f in +-ln(2) / 2, where Taylor's polynomial of degree 7 is exact to float32.
@_inner
def _exp(v: Any) -> Any:
    """For v <= 88, to a few units of the last place; 0 below -87, NaN of NaN."""
    low = v < _F(-87)
    v = _F(-87) if low else v
    n = np.floor(v * _F(1.4426950408889634) + _F(0.5))
    f = v - n * _F(0.6931471805599453)
    p = _F(1 / 5040)
    for c in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        p = p * f + _F(c)
    return _F(0) if low else p * _float(_I((_I(n) + 127) << 23))


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
    """The lowest and the highest of float32s, by their bits: of whole numbers the compiler makes vectors."""
    low = high = _order(bits[0])
    for k in range(len(bits)):
        v = _order(bits[k])
        low = v if v < low else low
        high = v if v > high else high
    return _float(_order(low)), _float(_order(high))


@_inner
def _coarse(x: Any, bits: Any, levels: Any) -> Any:
    """x = middle + step a, a in -128 ... 127 from the lowest to the highest => step, middle, sum of a."""
    low, high = _range(bits)
    step = max((high - low) * _F(1 / 255), _F(1e-12))
    total, seen = _I(0), _F(0)
    for k in range(len(x)):
        a = _I((x[k] - low) / step + _F(0.5)) - _I(128)
        levels[k] = a
        total += a
        seen += x[k]
    return step, low + _F(128) * step + seen * _F(0), total  # NaN where x has one, or an infinity


@_inner
def _finely(x: Any, bits: Any, high: Any, low: Any) -> Any:
    """x = step (256 a + c), both digits in -128 ... 127 => step, sums of a and of c."""
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
    """Rows of x into levels, the words of a tile's rows side by side."""
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
            r = digits * i + d
            word = carray(_int32s(job[_DIGITS] + r * padded), words)
            into = carray(_int32s(job[_LEVELS] + (r // tile) * tile * padded), (words, tile))
            for k in range(words):
                into[k, r % tile] = word[k]


@_inner
def _multiply(job: Any) -> None:
    """Levels times weights, and what the whole numbers mean: x W^T + b, or gelu of it."""
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
            wide = min(WIDE, outputs - at)
            scale, bias = carray(_floats(job[_SCALE] + 4 * at), WIDE), carray(_floats(job[_BIAS] + 4 * at), WIDE)
            column = carray(_floats(job[_COLUMN] + 4 * at), WIDE)
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
                    out = job[_OUT] + 4 * (i * outputs + at)
                    y = carray(_floats(out if wide == WIDE else aside), WIDE)
                    over = total[k] * _I(128)  # for the weights are q + 128
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
    job = carray(address, JOB)
    _quantise(job)
    _meet()
    _multiply(job)


# --- attention, run by all threads at once ----------------------------------------------------------------------------


@_threads
def attention(address: Any) -> None:
    """softmax(q k^T / sqrt(width) + mask) v, head by head; the tokens' own keys and values take the last slots."""
    job = carray(address, ATTENTION)
    heads, tokens, slots, width = job[_HEADS], job[_TOKENS], job[_SLOTS], job[_WIDTH]
    queries, counters, scale = job[_QUERIES], job.ctypes.data, _F(1 / np.sqrt(job[_WIDTH]))
    first = tokens - queries
    room = job[_ROOM] + (slots + 15) // 16 * 64 * _take(counters + 8 * _THREADS_SO_FAR, 1)
    weights = carray(_floats(room), slots)
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
