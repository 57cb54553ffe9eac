"""Stable Diffusion + IP-Adapter on image embeddings: stock parts, one visible loop.

The parts are diffusers' own (UNet2DConditionModel with IP-Adapter attention, AutoencoderKL, the folder's
scheduler) and the loop is StableDiffusionPipeline's, written out: picture for picture the stock pipeline
gives the same pixels (a test holds the two together). Written out, because the stock pipeline mixes distinct
embeddings of one batch (huggingface/diffusers#9813), keeps a call's state on the shared object, and takes
another second to import.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.errors import ConfigError, ModelError, PopsError, SpaceError, ensure
from pops.render.base import Capabilities, OnStep, RendererOptions, RenderOptions, check_request
from pops.sd_folder import read_networks
from pops.seeds import generator, randn_items

if TYPE_CHECKING:
    import torch
    from PIL import Image

STEPS, GUIDANCE = 50, 5.0  # where the model's own pops.json says nothing


class StableDiffusionRenderer:
    """Loaded once; render() leaves nothing behind on it, so a failed or cancelled call changes nothing.

    unet, vae, text_encoder: diffusers' and transformers' modules on one device in one dtype; scheduler: a
    template, copied for each batch.
    """

    name = "stable-diffusion"

    def __init__(
        self,
        *,
        unet: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler: Any,
        options: RendererOptions,
    ) -> None:
        self.unet, self.vae = unet, vae
        self.text_encoder, self.tokenizer, self.scheduler = text_encoder, tokenizer, scheduler
        self.space, self.max_batch = options.space, options.max_batch
        self.factor: int = 2 ** (len(vae.config.block_out_channels) - 1)  # pixels a latent
        sample = unet.config.sample_size
        grid = (sample, sample) if isinstance(sample, int) else tuple(sample)
        side = options.defaults.get("size")
        self.native = (int(side), int(side)) if side else (grid[0] * self.factor, grid[1] * self.factor)
        self.steps = int(options.defaults.get("steps", STEPS))
        self.guidance = float(options.defaults.get("guidance", GUIDANCE))
        # Width of the embeddings: the IP-Adapter's projection is Linear(D, tokens * cross_attention_dim).
        self.dim: int = unet.encoder_hid_proj.image_projection_layers[0].image_embeds.in_features
        self._texts: dict[str, torch.Tensor] = {}

    @property
    def capabilities(self) -> Capabilities:
        """See Renderer.capabilities."""
        return Capabilities(self.space, self.native, multiple=max(8, self.factor), text=True, outputs=("pil", "latent"))

    def render(
        self, vectors: torch.Tensor, seeds: Sequence[int], size: tuple[int, int], options: RenderOptions
    ) -> list[Any]:
        """See Renderer.render. "latent": [C, height / 8, width / 8] each, as stock diffusers'
        output_type="latent".
        """
        import torch

        steps = self.steps if options.steps is None else options.steps
        guidance = self.guidance if options.guidance is None else options.guidance
        check_request(vectors, seeds, steps, size, multiple=max(8, self.factor))
        fine = math.isfinite(guidance) and guidance >= 0
        ensure(fine, f"the renderer's guidance must be 0 or more, got {guidance}", ConfigError)
        if vectors.shape[1] != self.dim:
            raise SpaceError(
                f"the renderer's IP-Adapter reads vectors of width {self.dim}, got width {vectors.shape[1]}; "
                "use the renderer of the model that made the embedding"
            )

        # The batch dimension is the pictures; each draws its noise from its own CPU generator.
        pictures: list[Any] = []
        chunks = [range(i, min(i + self.max_batch, len(seeds))) for i in range(0, len(seeds), self.max_batch)]
        try:
            with torch.no_grad():
                for done, rows in enumerate(chunks):
                    hook = _shifted(options.on_step, done, len(chunks))
                    latents = self._denoise(
                        vectors[list(rows)], [seeds[i] for i in rows], steps, guidance, size, options, hook
                    )
                    pictures += list(latents.cpu()) if options.output == "latent" else self._decode(latents)
        except (MemoryError, RuntimeError) as e:  # torch.OutOfMemoryError is a RuntimeError
            if isinstance(e, MemoryError) or "memory" in str(e).lower():
                raise PopsError(
                    f"not enough memory for {len(chunks[0])} pictures of {size[0]}x{size[1]} at once; "
                    "ask for fewer or smaller pictures"
                ) from e
            raise
        return pictures

    # Classifier-free guidance on the network's output, arXiv 2207.12598 Eq. 6; the guidance's other branch
    # has the negative text and, as IP-Adapter was trained, zeros for the image embedding (arXiv 2308.06721
    # section 3.2).
    def _denoise(
        self,
        vectors: torch.Tensor,
        seeds: Sequence[int],
        steps: int,
        guidance: float,
        size: tuple[int, int],
        options: RenderOptions,
        on_step: OnStep | None,
    ) -> torch.Tensor:
        """vectors [B, D] un-normalised, B seeds -> latents [B, C, h, w] in the VAE's scaled space."""
        import torch

        # 1) The conditions: [B] rows, or with guidance [2B] rows, the negatives first.
        device, dtype, count = self.unet.device, self.unet.dtype, len(seeds)
        two = guidance > 1 and self.unet.config.time_cond_proj_dim is None
        images = vectors.to(device, dtype)[:, None]
        text = self._encode(options.prompt).expand(count, -1, -1)
        if two:
            images = torch.cat([torch.zeros_like(images), images])
            text = torch.cat([self._encode(options.negative).expand(count, -1, -1), text])

        # 2) A scheduler of this call's own, and each picture's noise.
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(steps, device=device)
        gens = [generator(seed) for seed in seeds]
        grid = (self.unet.config.in_channels, size[0] // self.factor, size[1] // self.factor)
        x: torch.Tensor = randn_items(grid, gens).to(device, dtype) * scheduler.init_noise_sigma
        extra = _step_options(scheduler, gens)

        # 3) The loop.
        for i, t in enumerate(scheduler.timesteps):
            x_in = scheduler.scale_model_input(torch.cat([x, x]) if two else x, t)
            out = self.unet(
                x_in,
                t,
                encoder_hidden_states=text,
                added_cond_kwargs={"image_embeds": [images]},
                return_dict=False,
            )[0]
            if two:
                uncond, cond = out.chunk(2)
                out = uncond + guidance * (cond - uncond)
            x = scheduler.step(out, t, x, **extra, return_dict=False)[0]
            if on_step:
                on_step(i + 1, len(scheduler.timesteps))
        if not bool(torch.isfinite(x).all()):
            raise PopsError(f"the renderer's numbers overflowed in {dtype}; load the model with dtype float32")
        return x

    def _decode(self, latents: torch.Tensor) -> list[Image.Image]:
        """Latents [B, C, h, w] -> B pictures (8-bit sRGB), rounded as diffusers' VaeImageProcessor rounds."""
        from PIL import Image

        pixels = self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
        unit = (pixels * 0.5 + 0.5).clamp(0, 1)
        array = (unit.cpu().permute(0, 2, 3, 1).float().numpy() * 255).round().astype("uint8")
        return [Image.fromarray(a) for a in array]

    def _encode(self, text: str) -> torch.Tensor:
        """-> hidden rows [1, 77, width] of the renderer's own text encoder; each text is encoded once."""
        if text not in self._texts:
            ids = self.tokenizer(
                text,
                padding="max_length",
                max_length=self.tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            mask = ids.attention_mask if getattr(self.text_encoder.config, "use_attention_mask", False) else None
            device = self.unet.device
            rows = self.text_encoder(
                ids.input_ids.to(device), attention_mask=None if mask is None else mask.to(device)
            )[0]
            if len(self._texts) >= 64:
                self._texts.pop(next(iter(self._texts)))
            self._texts[text] = rows.to(self.unet.dtype)
        encoded: torch.Tensor = self._texts[text]
        return encoded


def _shifted(on_step: OnStep | None, batch: int, batches: int) -> OnStep | None:
    """The steps of one batch as steps of the whole call."""
    if on_step is None:
        return None
    return lambda done, total: on_step(batch * total + done, batches * total)


def _step_options(scheduler: Any, gens: list[torch.Generator]) -> dict[str, Any]:
    """What this scheduler's step() takes beside the sample: eta (DDIM's, 0), the generators."""
    takes = inspect.signature(scheduler.step).parameters
    return ({"eta": 0.0} if "eta" in takes else {}) | ({"generator": gens} if "generator" in takes else {})


def load(folder: Path | None, options: RendererOptions) -> StableDiffusionRenderer:
    """Reads StableDiffusionPipeline's layout with ip_adapter/ip_adapter.safetensors in it.

    Safetensors only. Raises ModelError for an absent part, CheckpointError for weights that do not fit.
    """
    if folder is None:
        raise ModelError("the stable-diffusion renderer needs a folder with StableDiffusionPipeline's layout")
    read = read_networks(folder, device=options.device, dtype=options.dtype)
    return StableDiffusionRenderer(
        unet=read.unet,
        vae=read.vae,
        text_encoder=read.text_encoder,
        tokenizer=read.tokenizer,
        scheduler=read.scheduler,
        options=options,
    )
