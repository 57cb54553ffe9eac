"""Linear layers for inference, one form a precision: [n, in] => [n, out]. They know nothing of priors.

On a CPU the weights are blocked once for the machine's matrix units (oneDNN), which torch's own linear does not do:
with the few rows of a denoising step a layer then costs what reading its weights costs. Elsewhere: torch's own.
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
Linear: TypeAlias = "Callable[[Tensor, bool], Tensor]"  # (x, whether gelu of the result is wanted)

FEW = 6  # rows: fewer are filled up with zeros, for oneDNN's kernels are slower for less (benchmarks/linear_rows.py)


def check_precision(precision: str, device: str) -> None:
    """ConfigError for a precision that there is not, or not on this kind of device."""
    if precision not in PRECISIONS:
        hint = suggest(precision, PRECISIONS)
        raise ConfigError(f"there is no precision {precision!r}{hint}; there is {', '.join(PRECISIONS)}")
    if precision == "int8" and device != "cpu":
        raise ConfigError(f"int8 weights run on a CPU only, not on {device}; use bfloat16 there")


def compute_dtype(precision: Precision) -> torch.dtype:
    """Of the activations between the layers; the int8 layers quantise theirs themselves."""
    import torch

    return torch.float32 if precision == "int8" else getattr(torch, precision)


def linear(weight: Tensor, bias: Tensor, precision: Precision, device: torch.device, *, fine: bool = False) -> Linear:
    """The layer x W^T + b; weight [out, in] and bias [out] in any float type, free to go afterwards.

    fine: where int8 activations would lose too much, 16 bits of them; other precisions know no difference.
    """
    dtype = compute_dtype(precision)
    if precision == "int8":
        make = _int8_own if int8.available() else _int8 if _multiplies() else _int8_slow
        return make(weight.float(), bias.float(), fine)
    weight, bias = weight.to(device=device, dtype=dtype), bias.to(device=device, dtype=dtype)
    if device.type == "cpu" and _packs(precision):
        return _packed(weight.contiguous(), bias)
    return _plain(weight, bias)


def _plain(weight: Tensor, bias: Tensor) -> Linear:
    from torch.nn import functional as F

    def layer(x: Tensor, gelu: bool) -> Tensor:
        y = F.linear(x, weight, bias)
        return F.gelu(y) if gelu else y

    return layer


@cache
def _packs(precision: str) -> bool:
    """Whether oneDNN's blocked layers are in this torch, and made for this machine."""
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
    except (AttributeError, RuntimeError, NotImplementedError):  # how torch says that it has no such layer
        return False


def _packed(weight: Tensor, bias: Tensor) -> Linear:
    import torch

    run = torch.ops.mkldnn._linear_pointwise
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, FEW)

    def layer(x: Tensor, gelu: bool) -> Tensor:
        n = len(x)
        how: tuple[object, ...] = ("gelu", [], "none") if gelu else ("none", [], "")
        if n >= FEW:
            y: Tensor = run(x, packed, bias, *how)
            return y
        y = run(_filled(x), packed, bias, *how)
        return y[:n]

    return layer


def _int8_own(weight: Tensor, bias: Tensor, fine: bool) -> Linear:
    """As `_int8`, by a kernel of our own: a quarter less time a step."""
    q, scale = _rounded(weight)
    return int8.Product(q, scale, bias, fine)


def _int8(weight: Tensor, bias: Tensor, fine: bool) -> Linear:
    """Weights as int8, a scale for each row of W; activations as uint8, a range for each row of x, as they come.

    x = low + step q, so x W^T = step (q W^T) + low sum(W): the product of whole numbers is exact in int32. fine: 16
    bits of activations for one reading of the weights, x = step (256 (q - 128) + (r - 128)), the digits q and r in rows
    of their own. Few operations, and quick ones: with so few rows each is felt.
    """
    import torch
    from torch.nn import functional as F

    q, scale = _rounded(weight)
    sums = q.sum(1, dtype=torch.int32).float() * scale
    packed = torch.ops.onednn.qlinear_prepack(q, None)
    zeros = torch.zeros(len(q), dtype=torch.int32)
    shift = -128 * sums if fine else None
    del q, weight

    def times(levels: Tensor) -> Tensor:
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            levels, 1.0, 0, packed, scale, zeros, shift, 1.0, 0, torch.float32, "none", [], ""
        )
        return y

    def finely(x: Tensor) -> Tensor:
        step = x.abs().amax(1, keepdim=True).clamp_min_(1e-12).mul_(1 / 32639)
        level = x.div(step).add_(128 * 257 + 0.5).to(torch.int32)
        high, low = times(torch.cat([level >> 8, level]).to(torch.uint8)).chunk(2)  # to uint8: the last 8 bits
        return torch.addcmul(bias, low.add_(high, alpha=256), step)

    def coarsely(x: Tensor) -> Tensor:
        low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
        step = high.sub_(low).mul_(1 / 255).clamp_min_(1e-12)
        level = x.sub(low).div_(step).add_(0.5).to(torch.int16)  # on the way: from float to uint8 is slow
        return torch.addcmul(torch.addcmul(bias, low, sums), times(level.to(torch.uint8)), step)

    few, run = (FEW // 2, finely) if fine else (FEW, coarsely)

    def layer(x: Tensor, gelu: bool) -> Tensor:
        n = len(x)
        y = run(x if n >= few else _filled(x))
        y = F.gelu(y) if gelu else y
        return y if len(y) == n else y[:n]

    return layer


@cache
def _multiplies() -> bool:
    """Whether oneDNN multiplies whole numbers here, and rightly: without VNNI the largest products overflow."""
    import torch

    x = torch.ones(2, 64)
    x[:, 0] = 0  # so that the ones are as many steps as there are
    try:
        layers = [_int8(torch.ones(16, 64), torch.zeros(16), fine) for fine in (False, True)]
        return all(bool(((layer(x, False) - 63).abs() < 0.1).all()) for layer in layers)
    except (AttributeError, RuntimeError, NotImplementedError):  # how torch says that it has no such layer
        return False


def _rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[out, in] => int8 [out, in] and the scale of each row [out]."""
    import torch

    scale = (weight.abs().amax(1) / 127).clamp_min(1e-12)
    return (weight / scale[:, None]).round_().to(torch.int8), scale


def _int8_slow(weight: Tensor, bias: Tensor, fine: bool) -> Linear:
    """The same weights where no kernel multiplies whole numbers: small in memory, float32 in the sums."""
    from torch.nn import functional as F

    q, scale = _rounded(weight)

    def layer(x: Tensor, gelu: bool) -> Tensor:
        y = F.linear(x.float(), q.float()) * scale + bias
        return F.gelu(y) if gelu else y

    return layer


def _filled(x: Tensor) -> Tensor:
    from torch.nn.functional import pad

    return pad(x, (0, 0, 0, FEW - len(x)))


@cache
def _trim() -> Callable[[int], object]:
    import ctypes
    import sys

    try:
        trim: Callable[[int], object] = ctypes.CDLL("libc.so.6").malloc_trim
        return trim if sys.platform == "linux" else (lambda _: None)
    except (OSError, AttributeError):  # another C library keeps no such holes, or cannot be asked
        return lambda _: None


def give_back_memory() -> None:
    """Lets the system have what packing freed: glibc keeps such holes, half a gigabyte over a whole prior."""
    _trim()(0)
