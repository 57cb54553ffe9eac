"""The engine's layers by name, and the prior's parameters in each. Knows no weights."""

from __future__ import annotations

from pops.prior.config import PriorConfig

# The engine's layer -> the stems of its parameters. Several stems: one matrix, their rows stacked.
_ENDS = {
    "time1": ("time_embedding.linear_1",),
    "time2": ("time_embedding.linear_2",),
    "noisy": ("proj_in",),
    "token": ("encoder_hidden_states_proj",),
    "text": ("embedding_proj",),
    "out": ("proj_to_clip_embeddings",),
}
_BLOCK = {
    "qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "mix": ("attn1.to_out.0",),
    "up": ("ff.net.0.proj",),
    "down": ("ff.net.2",),
}

# Layers whose activations 8 bits would round too coarsely: with 16 bits there, the prediction's error falls from 2.5 %
# to 1.7 % (docs/log.md).
FINE = (*_ENDS, "qkv", "mix")


def layers(config: PriorConfig) -> dict[str, tuple[str, ...]]:
    """Returns every matrix of the engine by name ("time1", "3.qkv", ...) -> the stems of its parameters."""
    blocks = {
        f"{i}.{name}": tuple(f"transformer_blocks.{i}.{stem}" for stem in stems)
        for i in range(config.layers)
        for name, stems in _BLOCK.items()
    }
    return {**_ENDS, **blocks}
