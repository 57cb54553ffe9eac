"""The conditions of one network call: texts, images, guidance branches, and what re-weights their attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pops.magicmix.attention import Weights
from pops.magicmix.operands import Content, MixSettings
from pops.magicmix.prompt import Prompt, TextEncoders, reached, token_strengths

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Conditions of one network call for B pictures: with guidance B negatives first, then B rows a term."""

    hidden: Tensor  # [R, tokens, width]
    added: dict[str, Any] | None
    weights: Weights
    shares: Tensor  # [terms, B, 1, 1, 1] of the guidance
    guidance: float
    guided: bool  # False: one term, and its prediction as it is


def rows_of(
    contents: Sequence[Content],
    how: MixSettings,
    strength: float,
    *,
    texts: TextEncoders,
    dim: int | None,
    size: tuple[int, int] | None,
    like: Any,
) -> Rows:
    """Conditions of B pictures, each of as many terms; the negatives' attention is never re-weighted.

    dim: width of the UNet's IP-Adapter, None without one; size: (height, width) in pixels for SDXL, else None; like:
    the UNet, for its device and dtype.
    """
    import torch

    # 1) Rows: negatives, then all first terms, all second terms, ...
    device, dtype = like.device, like.dtype
    count, terms = len(contents), len(contents[0])
    shares = torch.tensor([[content[k].weight for content in contents] for k in range(terms)], device=device)
    guided = not (how.guidance == 1 and terms == 1 and bool((shares == 1).all()))
    negative = texts.encode(Prompt.of(how.negative), negative=True)
    rows = [content[k] for k in range(terms) for content in contents]
    encoded = [texts.encode(row.prompt) for row in rows]
    states = [(e.hidden, e.pooled) for e in encoded]
    if how.reach == "text":
        states = [reached(texts, row.prompt, e, strength) for row, e in zip(rows, encoded, strict=True)]
    both = [(negative.hidden, negative.pooled)] * count * guided + states

    # 2) The weights of tokens, and of the images: 0 is a UNet without its adapter, as texts alone have it.
    tokens = [token_strengths(row.prompt, e, strength) for row, e in zip(rows, encoded, strict=True)]
    ones = [1.0] * len(negative.hidden)
    text = None
    if any(tokens):
        text = torch.tensor([ones] * count * guided + [t or ones for t in tokens], device=device)
    image: Tensor | None = None
    added: dict[str, Any] = {}
    if dim is not None:
        nothing = torch.zeros(dim)
        has = [float(row.image is not None) for row in rows]
        image = torch.tensor(has[:count] * guided + [h * strength for h in has], device=device)
        vectors = [nothing] * count * guided + [nothing if row.image is None else row.image for row in rows]
        added["image_embeds"] = [torch.stack(vectors).to(device, dtype)[:, None]]

    # 3) SDXL's own: the pooled text, and the size (original, corner, target).
    if size is not None:
        added["text_embeds"] = torch.stack([pooled for _, pooled in both if pooled is not None]).to(device, dtype)
        added["time_ids"] = torch.tensor([[*size, 0, 0, *size]] * len(both), device=device, dtype=dtype)
    hidden = torch.stack([h for h, _ in both]).to(device, dtype)
    return Rows(hidden, added or None, Weights(text, image), shares[..., None, None, None], how.guidance, guided)
