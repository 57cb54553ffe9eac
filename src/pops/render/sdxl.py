"""SDXL + IP-Adapter on image embeddings, with ControlNets: Stable Diffusion's loop with SDXL's conditions.

StableDiffusionXLPipeline and StableDiffusionXLControlNetPipeline give the same pixels (tests hold them together). The
published settings are the defaults: the embedding's scale 1, an empty prompt, 50 steps, and for guidance a negative
embedding and a negative text of zeros.
"""

from __future__ import annotations

from pops.render.stable_diffusion import StableDiffusionRenderer


class SDXLRenderer(StableDiffusionRenderer):
    """See StableDiffusionRenderer; with a second text encoder."""

    name = "sdxl"
    pipeline = "StableDiffusionXLPipeline"
    sdxl = True


load = SDXLRenderer.load
