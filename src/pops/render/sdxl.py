"""SDXL + IP-Adapter on image embeddings, with ControlNets: Stable Diffusion's loop with SDXL's conditions.

StableDiffusionXLPipeline and StableDiffusionXLControlNetPipeline give the same pixels (tests hold them together). The
published settings are the defaults: the embedding's scale 1, an empty prompt, 50 steps, and for guidance a negative
embedding and a negative text of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pops.diffusion.folders import read_networks
from pops.errors import ModelError, ensure
from pops.render.base import RendererOptions
from pops.render.stable_diffusion import StableDiffusionRenderer, Text

if TYPE_CHECKING:
    from torch import Tensor


class SDXLRenderer(StableDiffusionRenderer):
    """See StableDiffusionRenderer; with a second text encoder."""

    name = "sdxl"
    sdxl = True

    # The last but one hidden states of both encoders, side by side, and the second one's pooled projection: arXiv
    # 2307.01952 section 2.1.
    def _encoded(self, text: str, negative: bool) -> Text:
        """An empty negative text is zeros where model_index.json says force_zeros_for_empty_prompt."""
        import torch

        both = self.networks
        found: list[Tensor] = []
        for tokenizer, encoder in ((both.tokenizer, both.text_encoder), (both.tokenizer_2, both.text_encoder_2)):
            limit = tokenizer.model_max_length
            ids = tokenizer(text, padding="max_length", max_length=limit, truncation=True, return_tensors="pt")
            with self._running([encoder]):
                out = encoder(ids.input_ids.to(self.device), output_hidden_states=True)
            found.append(out.hidden_states[-2])
            pooled: Tensor = out[0].to(self.unet.dtype)  # the second one's stays
        hidden = torch.cat(found, dim=-1).to(self.unet.dtype)
        if negative and not text and both.empty_is_zero:
            hidden, pooled = torch.zeros_like(hidden), torch.zeros_like(pooled)
        return Text(hidden, pooled)

    # The picture is whole, and of the size it was asked for: arXiv 2307.01952 section 2.2.
    def _added(self, texts: Sequence[Text], size: tuple[int, int]) -> dict[str, Tensor]:
        """Pooled texts [1 or 2, P], and (original height, width, top, left, target height, width) [1 or 2, 6]."""
        import torch

        pooled = torch.cat([text.pooled for text in texts if text.pooled is not None])
        ids = torch.tensor([[*size, 0, 0, *size]] * len(texts), device=self.device, dtype=self.unet.dtype)
        return {"text_embeds": pooled, "time_ids": ids}

    def _unscaled(self, latents: Tensor) -> Tensor:
        """Some autoencoders say which mean and deviation their latents have."""
        import torch

        config = self.vae.config
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is None or std is None:
            return super()._unscaled(latents)
        mean, std = (torch.tensor(each).view(1, -1, 1, 1).to(latents) for each in (mean, std))
        unscaled: Tensor = latents * std / config.scaling_factor + mean
        return unscaled


def load(folder: Path | None, options: RendererOptions) -> SDXLRenderer:
    """Reads StableDiffusionXLPipeline's layout, with ip_adapter/ip_adapter.safetensors in it, or options.adapter.

    As pops.render.stable_diffusion.load.
    """
    if folder is None:
        raise ModelError("the sdxl renderer needs a folder with StableDiffusionXLPipeline's layout")
    second = (folder / "text_encoder_2").is_dir()  # looked for before gigabytes are read
    ensure(
        second, f"{folder} is no SDXL renderer: it has no text_encoder_2; give another folder (--renderer)", ModelError
    )
    place = "cpu" if options.offload else options.device
    read = read_networks(folder, device=place, dtype=options.dtype, adapter=options.adapter or True, second=True)
    return SDXLRenderer(read, options=options, folder=folder)
