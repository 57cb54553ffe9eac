"""Stable Diffusion + IP-Adapter on image embeddings, with ControlNets: stock parts, one visible loop.

The parts are diffusers' own (UNet2DConditionModel with IP-Adapter attention, AutoencoderKL, ControlNetModel, the
folder's scheduler) and the loop is that of StableDiffusionPipeline and StableDiffusionControlNetPipeline, written out:
picture for picture the stock pipelines give the same pixels (tests hold the two together). Written out, because the
stock pipelines mix distinct embeddings of one batch (huggingface/diffusers#9813), keep a call's state on the shared
object, and take another second to import. SDXL differs in its conditions alone: pops.render.sdxl.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.diffusion.folders import Networks, read_networks, right_adapter
from pops.diffusion.loop import (
    batches_of,
    check_finite,
    check_guidance,
    memory_told,
    on_device,
    pictures_of,
    preview_due,
    step_options,
    steps_of_call,
)
from pops.errors import ModelError, SpaceError, ensure
from pops.render.base import Capabilities, RendererOptions, RenderOptions, check_request
from pops.render.controlnets import ControlNets, Hint, residuals
from pops.render.scales import prepare, scales_of, scaling
from pops.seeds import generators, randn_items

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

STEPS, GUIDANCE = 50, 5.0  # where the model's own pops.json says nothing
PREVIEW_SIDE = 64  # latents; more are averaged, so that a preview of a large picture stays cheap
TEXTS = 64  # kept encoded


@dataclass(frozen=True)
class Text:
    """A text as the UNet reads it: hidden [1, tokens, width]; pooled [1, width] of SDXL."""

    hidden: Tensor
    pooled: Tensor | None = None


@dataclass(frozen=True)
class Call:
    """What all batches of one call share. Texts and what is added: of one picture, with guidance the negative first."""

    steps: int
    guidance: float
    guided: bool  # two branches
    size: tuple[int, int]  # (height, width) in pixels
    options: RenderOptions
    text: Tensor  # [1 or 2, tokens, width]
    added: Mapping[str, Tensor] = field(default_factory=dict)  # SDXL's text_embeds and time_ids, [1 or 2, ...]
    hints: Sequence[Hint] = ()


class StableDiffusionRenderer:
    """Loaded once; render() leaves nothing behind on it, so a failed or cancelled call changes nothing.

    unet, vae, text_encoder: diffusers' and transformers' modules in one dtype, on one device, or with offload on the
    CPU while nothing runs; scheduler: a template, copied for each batch.
    """

    name = "stable-diffusion"
    sdxl = False

    def __init__(self, networks: Networks, *, options: RendererOptions, folder: Path | None = None) -> None:
        """folder: the renderer's own, in which controlnets/ may lie."""
        self.networks = networks
        self.unet, self.vae = networks.unet, networks.vae
        self.text_encoder, self.tokenizer = networks.text_encoder, networks.tokenizer
        self.scheduler = networks.scheduler
        self.space, self.max_batch = options.space, options.max_batch
        self.device, self.offload = options.device, options.offload
        self.factor: int = 2 ** (len(self.vae.config.block_out_channels) - 1)  # pixels a latent
        sample = self.unet.config.sample_size
        grid = (sample, sample) if isinstance(sample, int) else tuple(sample)
        side = options.defaults.get("size")
        self.native = (int(side), int(side)) if side else (grid[0] * self.factor, grid[1] * self.factor)
        self.steps = int(options.defaults.get("steps", STEPS))
        self.guidance = float(options.defaults.get("guidance", GUIDANCE))
        # Width of the embeddings: the IP-Adapter's projection is Linear(D, tokens * cross_attention_dim).
        self.dim: int = self.unet.encoder_hid_proj.image_projection_layers[0].image_embeds.in_features
        self.controlnets = ControlNets(folder, options, self.unet, self.factor)
        self._texts: dict[tuple[str, bool], Text] = {}
        self._turn = threading.RLock()  # with offload: one call at a time may move networks
        prepare(self.unet)

    @property
    def capabilities(self) -> Capabilities:
        """See Renderer.capabilities."""
        return Capabilities(
            self.space,
            self.native,
            multiple=max(8, self.factor),
            controls=self.controlnets.kinds,
            text=True,
            scale=True,
            outputs=("pil", "latent"),
            previews=True,
        )

    def render(self, vectors: Tensor, seeds: Sequence[int], size: tuple[int, int], options: RenderOptions) -> list[Any]:
        """See Renderer.render. "latent": [C, height / 8, width / 8] each, as stock diffusers' output_type="latent".

        A preview is the picture that the sampler expects at the end, of 64 x 64 latents at most.
        """
        import torch

        # 1) What is asked for, refused before a network runs.
        steps = self.steps if options.steps is None else options.steps
        guidance = self.guidance if options.guidance is None else options.guidance
        check_request(vectors, seeds, steps, size, multiple=max(8, self.factor))
        check_guidance(guidance)
        self._check_width(vectors)
        scales = scales_of(self.unet, options.scale, sdxl=self.sdxl)

        # 2) The conditions, the same for every batch.
        turn = self._turn if self.offload else nullcontext()
        batches = batches_of(len(seeds), self.max_batch)
        with turn, torch.no_grad(), memory_told(min(len(seeds), self.max_batch), size), scaling(scales):
            guided = guidance > 1 and self.unet.config.time_cond_proj_dim is None
            texts = [self._text(options.negative, True)] * guided + [self._text(options.prompt, False)]
            text = torch.cat([each.hidden for each in texts])
            hints = self.controlnets.hints(options.controls, size, self.device)
            call = Call(steps, guidance, guided, size, options, text, self._added(texts, size), hints)

            # 3) All latents, then all pictures: with offload each network moves once.
            with self._running([self.unet, *(hint.network for hint in hints)]):
                latents = [
                    self._denoise(vectors[rows.start : rows.stop], [seeds[i] for i in rows], call, n, len(batches))
                    for n, rows in enumerate(batches)
                ]
            if options.output == "latent":
                return [latent for batch in latents for latent in batch.cpu()]
            with self._running([self.vae]):
                return [picture for batch in latents for picture in self._decode(batch)]

    # Classifier-free guidance on the network's output, arXiv 2207.12598 Eq. 6; the guidance's other branch has the
    # negative text and, as IP-Adapter was trained, zeros for the image embedding (arXiv 2308.06721 section 3.2).
    def _denoise(self, vectors: Tensor, seeds: Sequence[int], call: Call, batch: int, batches: int) -> Tensor:
        """vectors [B, D] un-normalised, B seeds -> latents [B, C, h, w] in the VAE's scaled space."""
        import torch

        # 1) The conditions: [B] rows, or with guidance [2B] rows, the negatives first.
        device, dtype, count = self.device, self.unet.dtype, len(seeds)
        images = vectors.to(device, dtype)[:, None]
        images = torch.cat([torch.zeros_like(images), images]) if call.guided else images
        text = call.text.repeat_interleave(count, dim=0)
        added = {name: rows.repeat_interleave(count, dim=0) for name, rows in call.added.items()}

        # 2) A scheduler of this batch's own, and each picture's noise from its own CPU generator.
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(call.steps, device=device)
        gens = generators(seeds)
        grid = (self.unet.config.in_channels, call.size[0] // self.factor, call.size[1] // self.factor)
        x: Tensor = randn_items(grid, gens).to(device, dtype) * scheduler.init_noise_sigma
        extra = step_options(scheduler, gens)

        # 3) The loop.
        options, total = call.options, len(scheduler.timesteps)
        on_step = steps_of_call(options.on_step, batch, batches)
        for done, t in enumerate(scheduler.timesteps, start=1):
            x_in = scheduler.scale_model_input(torch.cat([x, x]) if call.guided else x, t)
            out = self.unet(
                x_in,
                t,
                encoder_hidden_states=text,
                added_cond_kwargs={**added, "image_embeds": [images]},
                **residuals(call.hints, x_in, t, text, added),
                return_dict=False,
            )[0]
            if call.guided:
                uncond, cond = out.chunk(2)
                out = uncond + call.guidance * (cond - uncond)
            before, stepped = x, scheduler.step(out, t, x, **extra)
            x = stepped.prev_sample
            if on_step:
                on_step(done, total)
            if options.on_preview and preview_due(options, done, total):
                rough = self._preview(_expected(scheduler, stepped, out, t, before))
                options.on_preview(rough, batch * total + done, batches * total)
        check_finite(x)
        return x

    def _decode(self, latents: Tensor) -> list[Image.Image]:
        """Latents [B, C, h, w] -> B pictures (8-bit sRGB), rounded as diffusers' VaeImageProcessor rounds."""
        pixels = self.vae.decode(self._unscaled(latents.to(self.vae.dtype)), return_dict=False)[0]
        return pictures_of(pixels)

    def _preview(self, latents: Tensor) -> list[Image.Image]:
        import torch

        while min(latents.shape[-2:]) >= 2 and max(latents.shape[-2:]) > PREVIEW_SIDE:
            latents = torch.nn.functional.avg_pool2d(latents, 2)
        with self._running([self.vae]):
            return self._decode(latents)

    @contextmanager
    def _running(self, networks: Sequence[Any]) -> Iterator[None]:
        """With offload these networks are on the device inside, and nowhere else."""
        with ExitStack() as stack:
            for network in networks:
                stack.enter_context(on_device(network, self.device, self.offload))
            yield

    @contextmanager
    def running(self) -> Iterator[None]:
        """All networks on the device, for others that use them (MagicMix); with offload one call at a time."""
        encoders = [self.text_encoder, self.networks.text_encoder_2]
        turn = self._turn if self.offload else nullcontext()
        with turn, self._running([self.unet, self.vae, *(e for e in encoders if e is not None)]):
            yield

    def _check_width(self, vectors: Tensor) -> None:
        width = vectors.shape[1]
        if width != self.dim:
            raise SpaceError(
                f"the renderer's IP-Adapter reads vectors of width {self.dim}, got width {width}; give the right "
                f"adapter (--adapter): {right_adapter(width, sdxl=self.sdxl)}"
            )

    # --- what differs in SDXL
    # ------------------------------------------------------------------------------------------

    def _unscaled(self, latents: Tensor) -> Tensor:
        """From the scaled space of the UNet to what the VAE decodes."""
        unscaled: Tensor = latents / self.vae.config.scaling_factor
        return unscaled

    def _added(self, texts: Sequence[Text], size: tuple[int, int]) -> dict[str, Tensor]:
        """What the UNet is given beside texts and images: nothing."""
        return {}

    def _encoded(self, text: str, negative: bool) -> Text:
        ids = self.tokenizer(
            text,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        masked = getattr(self.text_encoder.config, "use_attention_mask", False)
        with self._running([self.text_encoder]):
            mask = ids.attention_mask.to(self.device) if masked else None
            return Text(self.text_encoder(ids.input_ids.to(self.device), attention_mask=mask)[0].to(self.unet.dtype))

    def _text(self, text: str, negative: bool) -> Text:
        """Each text is encoded once."""
        key = (text, negative and self.networks.empty_is_zero)
        if key not in self._texts:
            if len(self._texts) >= TEXTS:
                self._texts.pop(next(iter(self._texts)), None)
            self._texts[key] = self._encoded(text, negative)
        return self._texts[key]


# What the sampler expects at the end, given a network's output at x_t: arXiv 2010.02502 Eq. 9 for a prediction of the
# noise, arXiv 2202.00512 section 4 for one of the velocity.
def _expected(scheduler: Any, stepped: Any, out: Tensor, t: Any, x: Tensor) -> Tensor:
    """The scheduler's own guess [B, C, h, w]; computed for those that give none, where x_t has variance 1."""
    guess: Tensor | None = getattr(stepped, "pred_original_sample", None)
    if guess is not None:
        return guess
    kind = scheduler.config.get("prediction_type", "epsilon")
    if not hasattr(scheduler, "alphas_cumprod") or float(scheduler.init_noise_sigma) != 1:
        return stepped.prev_sample  # type: ignore[no-any-return]
    a: Tensor = scheduler.alphas_cumprod[int(t)].to(x)
    if kind == "v_prediction":
        return a.sqrt() * x - (1 - a).sqrt() * out
    return out if kind == "sample" else (x - (1 - a).sqrt() * out) / a.sqrt()


def load(folder: Path | None, options: RendererOptions) -> StableDiffusionRenderer:
    """Reads StableDiffusionPipeline's layout with ip_adapter/ip_adapter.safetensors in it, or options.adapter.

    ControlNets: the folder's controlnets/<kind>/ and options.controlnets, each read on its first use. Safetensors
    only. Raises ModelError for an absent part, CheckpointError for weights that do not fit.
    """
    if folder is None:
        raise ModelError("the stable-diffusion renderer needs a folder with StableDiffusionPipeline's layout")
    second = (folder / "text_encoder_2").is_dir()
    ensure(not second, f"{folder} is an SDXL renderer, by its text_encoder_2; use --renderer sdxl", ModelError)
    place = "cpu" if options.offload else options.device
    read = read_networks(folder, device=place, dtype=options.dtype, adapter=options.adapter or True)
    return StableDiffusionRenderer(read, options=options, folder=folder)
