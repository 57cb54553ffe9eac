"""Linear layers for inference, one form per precision: [n, in] => [n, out]. They know nothing of priors.

A denoising step has few rows (three per item and branch of guidance), so a layer cannot be faster than reading its
weights once. On a CPU it comes close to that if the weights lie in the order in which the matrix units take them: they
are reordered ("packed") once, at construction, by oneDNN, which torch's own linear does not do. Elsewhere: torch's own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from pops.errors import ConfigError, suggest
from pops.prior.int8 import products as int8

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Precision: TypeAlias = Literal["float32", "bfloat16", "float16", "int8"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
Linear: TypeAlias = "Callable[[Tensor, bool], Tensor]"  # (x [n, in], whether to apply GELU) -> [n, out]

# Fewer rows are padded with zeros to this many: oneDNN's kernels for fewer are slower, and the additional rows cost
# nothing while reading the weights takes longer than multiplying (benchmarks/linear_rows.py).
MIN_ROWS = 6


def check_precision(precision: str, device: str) -> None:
    """Raises ConfigError for an unknown precision, or one that this kind of device ("cpu", "cuda", ...) lacks."""
    if precision not in PRECISIONS:
        hint = suggest(precision, PRECISIONS)
        raise ConfigError(f"unknown precision {precision!r}{hint}; choose from {', '.join(PRECISIONS)}")
    if precision == "int8" and device != "cpu":
        raise ConfigError(f"int8 weights run on a CPU only, not on {device}; use bfloat16 there")


def compute_dtype(precision: Precision) -> torch.dtype:
    """Returns the type of the activations between layers; int8 layers take float32 and quantise it themselves."""
    import torch

    return torch.float32 if precision == "int8" else getattr(torch, precision)


def linear(weight: Tensor, bias: Tensor, precision: Precision, device: torch.device, *, fine: bool = False) -> Linear:
    """Returns the layer x W^T + b; weight [out, in] and bias [out] in any float type are not kept.

    fine: int8 layers quantise the activations to 16 bits instead of 8; other precisions ignore it.
    """
    dtype = compute_dtype(precision)
    if precision == "int8":
        make = _int8_vnni if int8.available() else _int8_onednn if _onednn_multiplies() else _int8_in_float
        return make(weight.float(), bias.float(), fine)
    weight, bias = weight.to(device=device, dtype=dtype), bias.to(device=device, dtype=dtype)
    if device.type == "cpu" and _onednn_packs(precision):
        return _packed(weight.contiguous(), bias)
    return _plain(weight, bias)


def _plain(weight: Tensor, bias: Tensor) -> Linear:
    from torch.nn import functional as F

    def layer(x: Tensor, gelu: bool) -> Tensor:
        y = F.linear(x, weight, bias)
        return F.gelu(y) if gelu else y

    return layer


@cache
def _onednn_packs(precision: str) -> bool:
    """Returns whether this torch has oneDNN's packed layers for the precision, and they work on this machine."""
    import torch

    dtype = getattr(torch, precision)
    try:
        if precision == "float32":
            good = torch.backends.mkldnn.is_available()
        else:
            here = {"bfloat16": "_is_mkldnn_bf16_supported", "float16": "_is_mkldnn_fp16_supported"}[precision]
            good = bool(getattr(torch.ops.mkldnn, here)())
        if good:
            layer = _packed(torch.ones(16, 16, dtype=dtype), torch.ones(16, dtype=dtype))
            good = bool((layer(torch.ones(2, 16, dtype=dtype), False) == 17).all())
        return bool(good)
    except (AttributeError, RuntimeError, NotImplementedError):  # this torch was built without the operation
        return False


def _packed(weight: Tensor, bias: Tensor) -> Linear:
    import torch

    run = torch.ops.mkldnn._linear_pointwise
    # The best order depends on the number of rows; MIN_ROWS stands for "few". Other numbers work on the same order.
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, MIN_ROWS)

    def layer(x: Tensor, gelu: bool) -> Tensor:
        n = len(x)
        post: tuple[object, ...] = ("gelu", [], "none") if gelu else ("none", [], "")  # fused; "none": erf, not tanh
        if n >= MIN_ROWS:
            y: Tensor = run(x, packed, bias, *post)
            return y
        y = run(_padded_rows(x), packed, bias, *post)
        return y[:n]

    return layer


def _int8_vnni(weight: Tensor, bias: Tensor, fine: bool) -> Linear:
    """Returns what `_int8_onednn` does, by our own kernel: a quarter less time per step."""
    q, scale = _quantised(weight)
    return int8.Product(q, scale, bias, fine)


def _int8_onednn(weight: Tensor, bias: Tensor, fine: bool) -> Linear:
    """Returns a layer with int8 weights (a scale per row of W) that quantises its activations as they come.

    Activations are uint8 with a range per row of x: x = low + step q, so x W^T = step (q W^T) + low sum(W). oneDNN
    computes q W^T in int32, where it is exact: in * 255 * 127 < 2^31 for in < 66,000.

    fine: 16 bits of activations as two digits, x = step (256 (q - 128) + (r - 128)) with q and r uint8. The digits are
    rows of one product, so that the weights are read once, and it is again exact in int32 for each.

    The steps between are few and in place: with so few rows, the overhead of a torch operation shows.
    """
    import torch
    from torch.nn import functional as F

    q, scale = _quantised(weight)
    sums = q.sum(1, dtype=torch.int32).float() * scale  # sum(W) of each output
    packed = torch.ops.onednn.qlinear_prepack(q, None)
    zeros = torch.zeros(len(q), dtype=torch.int32)
    shift = -128 * sums if fine else None  # as a bias: turns q and r into q - 128 and r - 128
    del q, weight

    def times(levels: Tensor) -> Tensor:
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            levels, 1.0, 0, packed, scale, zeros, shift, 1.0, 0, torch.float32, "none", [], ""
        )
        return y

    def finely(x: Tensor) -> Tensor:
        # 32639 = 127 * 257, the largest of 256 a + c with a, c <= 127. 128 * 257 makes both digits unsigned, and adding
        # 0.5 before truncation rounds, since all are then positive.
        step = x.abs().amax(1, keepdim=True).clamp_min_(1e-12).mul_(1 / 32639)
        level = x.div(step).add_(128 * 257 + 0.5).to(torch.int32)
        high, low = times(torch.cat([level >> 8, level]).to(torch.uint8)).chunk(2)  # to uint8 keeps the last 8 bits
        return torch.addcmul(bias, low.add_(high, alpha=256), step)

    def coarsely(x: Tensor) -> Tensor:
        low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
        step = high.sub_(low).mul_(1 / 255).clamp_min_(1e-12)
        level = x.sub(low).div_(step).add_(0.5).to(torch.int16)  # in two conversions: float to uint8 is slow
        return torch.addcmul(torch.addcmul(bias, low, sums), times(level.to(torch.uint8)), step)

    least, run = (MIN_ROWS // 2, finely) if fine else (MIN_ROWS, coarsely)  # fine: every row is two of the product

    def layer(x: Tensor, gelu: bool) -> Tensor:
        n = len(x)
        y = run(x if n >= least else _padded_rows(x))
        y = F.gelu(y) if gelu else y
        return y if len(y) == n else y[:n]

    return layer


@cache
def _onednn_multiplies() -> bool:
    """Returns whether oneDNN multiplies int8 on this machine, without overflow.

    Without VNNI it adds pairs of products in int16 (vpmaddubsw), which saturates at the largest ones: tried here.
    """
    import torch

    x = torch.ones(2, 64)
    x[:, 0] = 0  # the range is then 0 to 1, so that the ones become the highest level, 255
    try:
        layers = [_int8_onednn(torch.ones(16, 64), torch.zeros(16), fine) for fine in (False, True)]
        return all(bool(((layer(x, False) - 63).abs() < 0.1).all()) for layer in layers)
    except (AttributeError, RuntimeError, NotImplementedError):  # this torch was built without the operation
        return False


def _quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantises each row of W symmetrically: [out, in] => int8 [out, in] in -127 .. 127, and the scales [out]."""
    import torch

    scale = (weight.abs().amax(1) / 127).clamp_min(1e-12)
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def _int8_in_float(weight: Tensor, bias: Tensor, fine: bool) -> Linear:
    """Returns a slow layer where no kernel multiplies int8: the same weights in memory, the product in float32."""
    from torch.nn import functional as F

    q, scale = _quantised(weight)

    def layer(x: Tensor, gelu: bool) -> Tensor:
        y = F.linear(x.float(), q.float()) * scale + bias
        return F.gelu(y) if gelu else y

    return layer


def _padded_rows(x: Tensor) -> Tensor:
    from torch.nn.functional import pad

    return pad(x, (0, 0, 0, MIN_ROWS - len(x)))


@cache
def _trim() -> Callable[[int], object]:
    import ctypes
    import sys

    try:
        trim: Callable[[int], object] = ctypes.CDLL("libc.so.6").malloc_trim
        return trim if sys.platform == "linux" else (lambda _: None)
    except (OSError, AttributeError):  # not glibc
        return lambda _: None


def give_back_memory() -> None:
    """Returns freed memory to the system: glibc would keep what packing frees, 0.5 GB over a whole prior."""
    _trim()(0)
