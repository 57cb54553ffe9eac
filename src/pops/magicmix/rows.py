"""The conditions of one network call: texts, images, guidance branches, and what re-weights their attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pops.diffusion.loop import time_ids
from pops.magicmix.attention import Weights
from pops.magicmix.operands import Content, MixSettings
from pops.magicmix.prompt import Prompt, reached, token_strengths

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor

    from pops.diffusion.text import TextEncoders


@dataclass(frozen=True)
class Rows:
    """The conditions of one network call for B images: with guidance B uncond rows first, then B rows per term."""

    hidden: Tensor  # [R, tokens, width] hidden states
    added: dict[str, Any] | None  # added_cond_kwargs of the UNet
    weights: Weights  # of attention
    shares: Tensor  # [terms, B, 1, 1, 1] of the guidance
    guidance: float
    guided: bool  # False for one term, whose prediction is taken as it is


def rows_of(
    contents: Sequence[Content],
    settings: MixSettings,
    strength: float,
    texts: TextEncoders,
    *,
    dim: int | None,
    size: tuple[int, int] | None,
    like: UNet2DConditionModel,
) -> Rows:
    """Returns the conditions of B images, each of equally many terms; attention of the uncond rows keeps its weights.

    dim: width of the UNet's IP-Adapter, None without one; size: (height, width) in pixels for SDXL, else None; like:
    the UNet, for its device and dtype.
    """
    import torch

    # 1) Rows: uncond, then all first terms, all second terms, ...
    device, dtype = like.device, like.dtype
    count, terms = len(contents), len(contents[0])
    shares = torch.tensor([[content[k].weight for content in contents] for k in range(terms)], device=device)
    guided = not (settings.guidance == 1 and terms == 1 and bool((shares == 1).all()))
    uncond = texts.encode(Prompt.of(settings.negative).text, negative=True)
    rows = [content[k] for k in range(terms) for content in contents]
    encoded = [texts.encode(row.prompt.text) for row in rows]
    states = [(e.hidden, e.pooled) for e in encoded]
    if settings.reach == "text":
        states = [reached(texts, row.prompt, e, strength) for row, e in zip(rows, encoded, strict=True)]
    both = [(uncond.hidden, uncond.pooled)] * count * guided + states

    # 2) The weights of tokens, and of image embeddings: 0 is a UNet without its adapter, as for texts alone.
    tokens = [token_strengths(row.prompt, e, strength) for row, e in zip(rows, encoded, strict=True)]
    ones = [1.0] * len(uncond.hidden)
    text = None
    if any(tokens):
        text = torch.tensor([ones] * count * guided + [t or ones for t in tokens], device=device)
    image: Tensor | None = None
    added: dict[str, Any] = {}
    if dim is not None:
        zeros = torch.zeros(dim)
        has = [float(row.image is not None) for row in rows]
        image = torch.tensor(has[:count] * guided + [h * strength for h in has], device=device)
        vectors = [zeros] * count * guided + [zeros if row.image is None else row.image for row in rows]
        added["image_embeds"] = [torch.stack(vectors).to(device, dtype)[:, None]]

    # 3) SDXL's own: the pooled text, and the size.
    if size is not None:
        added["text_embeds"] = torch.stack([pooled for _, pooled in both if pooled is not None]).to(device, dtype)
        added["time_ids"] = time_ids(size, len(both), device, dtype)
    hidden = torch.stack([h for h, _ in both]).to(device, dtype)
    return Rows(hidden, added or None, Weights(text, image), shares[..., None, None, None], settings.guidance, guided)
