"""SDXL + IP-Adapter on image embeddings, with ControlNets: Stable Diffusion's loop with SDXL's conditions.

StableDiffusionXLPipeline and StableDiffusionXLControlNetPipeline give the same pixels (tests hold them together). The
published settings are the defaults: the embedding's scale 1, an empty prompt, 50 steps, and for guidance a negative
embedding and a negative text of zeros.
"""

from __future__ import annotations

from pathlib import Path

from pops.diffusion.folders import read_networks
from pops.errors import ModelError, ensure
from pops.render.base import RendererOptions
from pops.render.stable_diffusion import StableDiffusionRenderer


class SDXLRenderer(StableDiffusionRenderer):
    """See StableDiffusionRenderer; with a second text encoder."""

    name = "sdxl"
    sdxl = True


def load(folder: Path | None, options: RendererOptions) -> SDXLRenderer:
    """Reads StableDiffusionXLPipeline's layout, with ip_adapter/ip_adapter.safetensors in it, or options.adapter.

    As pops.render.stable_diffusion.load.
    """
    if folder is None:
        raise ModelError("the sdxl renderer needs a folder with StableDiffusionXLPipeline's layout")
    second = (folder / "text_encoder_2").is_dir()  # looked for before gigabytes are read
    told = f"{folder} is no SDXL renderer: it has no text_encoder_2; give another folder (--renderer)"
    ensure(second, told, ModelError)
    place = "cpu" if options.offload else options.device
    networks = read_networks(folder, device=place, dtype=options.dtype, adapter=options.adapter or True, second=True)
    return SDXLRenderer(networks, options=options, folder=folder)
