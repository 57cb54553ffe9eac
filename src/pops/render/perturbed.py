"""Perturbed-attention guidance (arXiv 2403.17377): away from what the network makes where self-attention sees nothing.

diffusers' own pipelines put other processors into the UNet's self-attention, for all threads and every later call. Here
each such processor is wrapped once, and does what it did but for rows that a context variable says are to be perturbed;
for these it calls diffusers' processors, and so the pixels are diffusers' own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pops.errors import ModelError, ensure

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor

LAYERS = ("mid_block",)  # as diffusers' pipelines have it


@dataclass(frozen=True)
class _Perturbed:
    """Of the running call: the UNet, which of its layers, and of how many equal parts of the batch the last one."""

    unet: int
    layers: tuple[str, ...]
    parts: int


_running: ContextVar[_Perturbed | None] = ContextVar("pops_perturbed_attention", default=None)


class _Perturbable:
    """A self-attention's processor that perturbs the rows which the running call says."""

    def __init__(self, own: Any, unet: int, name: str) -> None:
        from diffusers.models.attention_processor import (
            PAGCFGIdentitySelfAttnProcessor2_0,
            PAGIdentitySelfAttnProcessor2_0,
        )

        self.own, self.unet, self.name = own, unet, name
        self.of_parts = {2: PAGIdentitySelfAttnProcessor2_0(), 3: PAGCFGIdentitySelfAttnProcessor2_0()}

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """See diffusers' AttnProcessor2_0; hidden_states [rows, tokens, width]."""
        asked = _running.get()
        here = asked is not None and asked.unet == self.unet and _chosen(self.name, asked.layers)
        used = self.of_parts[asked.parts] if asked is not None and here else self.own
        made: Tensor = used(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        return made


def prepare(unet: UNet2DConditionModel, layers: Sequence[str]) -> None:
    """Makes `perturbing` have an effect on this UNet; nothing changes for calls outside of it.

    Raises ModelError for a layer that has no self-attention.
    """
    found = {
        f"{name}.attn1": block.attn1
        for name, block in unet.named_modules()
        if hasattr(block, "attn1") and not block.attn1.is_cross_attention
    }
    for layer in layers:
        known = sorted({name.split(".attentions")[0] for name in found})
        told = f"pag_layers: this UNet has no self-attention in {layer!r}; it has some in {', '.join(known) or 'none'}"
        ensure(any(_chosen(name, (layer,)) for name in found), told, ModelError)
    for name, attention in found.items():
        if not isinstance(attention.processor, _Perturbable):
            attention.processor = _Perturbable(attention.processor, id(unet), name)


@contextmanager
def perturbing(unet: UNet2DConditionModel, layers: Sequence[str], parts: int) -> Iterator[None]:
    """Of network calls inside, in this thread, the last of 2 or 3 equal parts of the batch is perturbed; of 1 none."""
    token = _running.set(_Perturbed(id(unet), tuple(layers), parts) if parts > 1 else None)
    try:
        yield
    finally:
        _running.reset(token)


def _chosen(name: str, layers: Sequence[str]) -> bool:
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)
