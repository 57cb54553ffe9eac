"""MagicMix: one image with the shape of a layout and the look of a content, with any Stable Diffusion."""
