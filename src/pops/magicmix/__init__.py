"""MagicMix: layout semantics and content semantics into one picture, with any Stable Diffusion."""
