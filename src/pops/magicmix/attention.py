"""Re-weighted cross-attention: the maps of some tokens times a number, for one call, on a UNet that others share.

Multiplying the map of token j by s (after the softmax, with no new normalisation, as the paper does) gives
sum_j p_j s_j v_j: the same as attention with the value of token j times s_j. So nothing replaces the network's
attention processors: a hook on each cross-attention's `to_v` scales rows of its output, which is exact with every
processor there is, fused kernels and IP-Adapter's included. IP-Adapter's image branch has values of its own
(`to_v_ip`), which get weights of their own.

The hooks are there while at least one call is, and read what they do from a context variable: another thread on the
same UNet, which set none, sees an untouched network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pops.errors import PopsError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """Of the rows of one network call. None: all ones."""

    text: Tensor | None = None  # [rows, tokens]: of each token's attention map
    image: Tensor | None = None  # [rows]: of all of IP-Adapter's image tokens; 0 is a UNet without the adapter


@dataclass
class _Hooked:
    users: int = 0
    handles: list[Any] = field(default_factory=list)


_weights: ContextVar[Weights] = ContextVar("pops_attention_weights", default=Weights())  # noqa: B039  # frozen
_hooked: WeakKeyDictionary[Any, _Hooked] = WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def hooks(unet: Any) -> Iterator[None]:
    """Inside, `weighing` has an effect on this UNet. Hooks go in with the first user and out with the last."""
    with _lock:
        here = _hooked.setdefault(unet, _Hooked())
        here.users += 1
        if here.users == 1:
            here.handles = _install(unet)
    try:
        yield
    finally:
        with _lock:
            here.users -= 1
            if here.users == 0:
                for handle in here.handles:
                    handle.remove()
                del _hooked[unet]


@contextmanager
def weighing(weights: Weights) -> Iterator[None]:
    """Network calls inside, in this thread, have these weights."""
    token = _weights.set(weights)
    try:
        yield
    finally:
        _weights.reset(token)


def cross_attentions(unet: Any) -> list[Any]:
    """diffusers' Attention modules that look at the text."""
    return [module for name, module in unet.named_modules() if name.endswith("attn2") and hasattr(module, "to_v")]


def _install(unet: Any) -> list[Any]:
    handles = []
    for attention in cross_attentions(unet):
        if getattr(attention, "fused_projections", False):  # keys and values by one layer
            handles.append(attention.to_kv.register_forward_hook(_on_text(keys_too=True)))
        else:
            handles.append(attention.to_v.register_forward_hook(_on_text(keys_too=False)))
        for layer in getattr(attention.processor, "to_v_ip", ()):
            handles.append(layer.register_forward_hook(_on_image))
    return handles


Hook = Callable[[Any, Any, "Tensor"], "Tensor | None"]


def _on_text(*, keys_too: bool) -> Hook:
    """values [rows, tokens, width] (behind as many keys) => the same, row j of item i times text[i, j]"""

    def hook(module: Any, args: Any, out: Tensor) -> Tensor | None:
        text = _weights.get().text
        if text is None:
            return None
        if text.shape != out.shape[:2]:
            raise PopsError(f"attention of {list(out.shape[:2])} (rows, tokens) got weights for {list(text.shape)}")
        each = text.to(out)[..., None]
        if not keys_too:
            return out * each
        keys, values = out.chunk(2, dim=-1)
        import torch

        return torch.cat([keys, values * each], dim=-1)

    return hook


def _on_image(module: Any, args: Any, out: Tensor) -> Tensor | None:
    """values [rows, ..., width] => the same, item i times image[i]"""
    image = _weights.get().image
    if image is None:
        return None
    return out * image.to(out).view(-1, *[1] * (out.ndim - 1))
