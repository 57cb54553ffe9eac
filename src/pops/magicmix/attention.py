"""Re-weighted cross-attention: scales the attention maps of tokens, for one call, on a UNet that others share.

Multiplying the map of token j by s_j (after the softmax, without a new normalisation, as in the paper) gives
sum_j p_j s_j v_j: the same as attention with the value of token j times s_j. So the network keeps its attention
processors. A hook on each cross-attention's `to_v` scales rows of its output, which is exact with every processor,
fused kernels and IP-Adapter's included. IP-Adapter's image branch has values of its own (`to_v_ip`), with weights of
their own.

The hooks are installed while at least one call runs, and read the weights from a context variable. Another thread on
the same UNet, which has set none, sees an untouched network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from pops.errors import PopsError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor
    from torch.nn import Module
    from torch.utils.hooks import RemovableHandle

Hook: TypeAlias = "Callable[[Module, tuple[Tensor, ...], Tensor], Tensor | None]"


@dataclass(frozen=True)
class Weights:
    """The weights of one network call's rows. None for all ones."""

    text: Tensor | None = None  # [rows, tokens], of each token's attention map
    image: Tensor | None = None  # [rows], of all of IP-Adapter's image tokens; 0 is a UNet without the adapter


@dataclass
class _Hooked:
    """The hooks of one UNet, and how many calls use them."""

    users: int = 0
    handles: list[RemovableHandle] = field(default_factory=list)


_weights: ContextVar[Weights] = ContextVar("pops_attention_weights", default=Weights())  # noqa: B039  # frozen
_hooked: WeakKeyDictionary[Module, _Hooked] = WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def hooks(unet: UNet2DConditionModel) -> Iterator[None]:
    """Makes `weighing` have an effect on this UNet. Hooks are installed by the first user and removed by the last."""
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
    """Gives network calls inside, in this thread, these weights."""
    token = _weights.set(weights)
    try:
        yield
    finally:
        _weights.reset(token)


def cross_attentions(unet: UNet2DConditionModel) -> list[Any]:
    """Returns diffusers' Attention modules that read the text."""
    return [module for name, module in unet.named_modules() if name.endswith("attn2") and hasattr(module, "to_v")]


def _install(unet: UNet2DConditionModel) -> list[RemovableHandle]:
    """Hooks all cross-attentions, and IP-Adapter's values in them."""
    handles = []
    for attention in cross_attentions(unet):
        if getattr(attention, "fused_projections", False):  # keys and values by one layer
            handles.append(attention.to_kv.register_forward_hook(_on_text(keys_too=True)))
        else:
            handles.append(attention.to_v.register_forward_hook(_on_text(keys_too=False)))
        for layer in getattr(attention.processor, "to_v_ip", ()):
            handles.append(layer.register_forward_hook(_on_image))
    return handles


def _on_text(*, keys_too: bool) -> Hook:
    """Returns the hook that scales values [rows, tokens, width] by text [rows, tokens].

    keys_too: the layer's output is keys, then values.
    """

    def hook(module: Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
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


def _on_image(module: Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
    """Scales values [rows, ..., width] by image [rows]."""
    image = _weights.get().image
    if image is None:
        return None
    return out * image.to(out).view(-1, *[1] * (out.ndim - 1))
