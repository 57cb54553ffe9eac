"""The shape of an unCLIP prior, from diffusers' `config.json` of a PriorTransformer, and the tensors it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pops.errors import ModelError, ensure

ADDED = 4  # slots after the condition's: text embedding, time, noisy embedding, query
STEP = 3  # of these, the last, which change from step to step


@dataclass(frozen=True)
class PriorConfig:
    """Sizes of a prior. dim: width of image embeddings; text_dim: of text embeddings; heads * head_dim: of blocks."""

    layers: int = 20
    heads: int = 32
    head_dim: int = 64
    dim: int = 1280
    text_dim: int = 1280
    slots: int = 77  # of the condition
    norm_in: bool = False
    text_norm: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str = "this prior") -> PriorConfig:
        """Reads diffusers' config; ModelError, naming `where`, unless it is of the unCLIP form."""
        get = config.get

        def number(key: str, default: int) -> int:
            try:
                value: Any = get(key)
                return default if value is None else int(value)
            except (ValueError, TypeError):
                raise ModelError(
                    f"{where}: {key} must be a number, got {get(key)!r}; fetch or export it again"
                ) from None

        good = (
            get("added_emb_type", "prd") == "prd"
            and get("encoder_hid_proj_type", "linear") == "linear"
            and get("additional_embeddings", ADDED) == ADDED
            and get("embedding_proj_norm_type") in (None, "layer")
            and get("norm_in_type") in (None, "layer")
        )
        ensure(
            good,
            f"{where} is not of the unCLIP form (learned query, linear condition tokens, 4 added slots); "
            "use a prior of Kandinsky 2.2's layout",
            ModelError,
        )
        dim = number("embedding_dim", 768)
        heads, head_dim = number("num_attention_heads", 32), number("attention_head_dim", 64)
        for key, usual in (("time_embed_dim", heads * head_dim), ("clip_embed_dim", dim)):
            ensure((get(key) or usual) == usual, f"{where}: {key} must be {usual}, got {get(key)}", ModelError)
        return cls(
            layers=number("num_layers", 20),
            heads=heads,
            head_dim=head_dim,
            dim=dim,
            text_dim=number("embedding_proj_dim", dim),
            slots=number("num_embeddings", 77),
            norm_in=get("norm_in_type") is not None,
            text_norm=get("embedding_proj_norm_type") is not None,
        )

    @property
    def width(self) -> int:
        """Width of the blocks."""
        return self.heads * self.head_dim

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter."""
        w = self.width

        def linear(stem: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
            return {f"{stem}.weight": (out, into), f"{stem}.bias": (out,)}

        def norm(stem: str, width: int) -> dict[str, tuple[int, ...]]:
            return {f"{stem}.weight": (width,), f"{stem}.bias": (width,)}

        out: dict[str, tuple[int, ...]] = {
            "positional_embedding": (1, self.slots + ADDED, w),
            "prd_embedding": (1, 1, w),
            "clip_mean": (1, self.dim),
            "clip_std": (1, self.dim),
            **linear("time_embedding.linear_1", w, w),
            **linear("time_embedding.linear_2", w, w),
            **linear("proj_in", w, self.dim),
            **(norm("embedding_proj_norm", self.text_dim) if self.text_norm else {}),
            **linear("embedding_proj", w, self.text_dim),
            **linear("encoder_hidden_states_proj", w, self.dim),
            **(norm("norm_in", w) if self.norm_in else {}),
            **norm("norm_out", w),
            **linear("proj_to_clip_embeddings", self.dim, w),
        }
        for i in range(self.layers):
            block = f"transformer_blocks.{i}."
            for stem in ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"):
                out |= linear(block + stem, w, w)
            out |= norm(block + "norm1", w) | norm(block + "norm3", w)
            out |= linear(block + "ff.net.0.proj", 4 * w, w) | linear(block + "ff.net.2", w, 4 * w)
        return out
