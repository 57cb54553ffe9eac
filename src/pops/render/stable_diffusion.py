"""Stable Diffusion + IP-Adapter on image embeddings, with ControlNets: stock parts, one visible loop.

The parts are diffusers' own (UNet2DConditionModel with IP-Adapter attention, AutoencoderKL, ControlNetModel, the
folder's scheduler) and the loop is that of StableDiffusionPipeline and StableDiffusionControlNetPipeline, written out:
image for image the stock pipelines give the same pixels (tests hold the two together). Written out, because the stock
pipelines mix distinct embeddings of one batch (huggingface/diffusers#9813), keep a call's state on the shared object,
and take another second to import. SDXL differs in its conditions alone: pops.render.sdxl.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pops.diffusion.checks import check_finite, check_guidance, check_interval, check_pag, check_rescale, memory_told
from pops.diffusion.folders import Networks, read_networks
from pops.diffusion.ip_adapter import adapter_width, right_adapter
from pops.diffusion.loop import (
    batches_of,
    decoded,
    guidance_embedding,
    guided_steps,
    images_of,
    native_size,
    on_device,
    pixels_per_latent,
    preview_due,
    time_ids,
)
from pops.diffusion.scheduler import Scheduler, scheduler_of_call, step_arguments
from pops.diffusion.text import TextEncoders, tell_cut
from pops.errors import ModelError, SpaceError, ensure
from pops.progress import steps_of_part
from pops.render.base import Capabilities, RendererOptions, RenderOptions, check_request, useless_notes
from pops.render.controlnets import ControlNets, Hint, residuals
from pops.render.perturbed import LAYERS, perturbing
from pops.render.perturbed import prepare as prepare_perturbing
from pops.render.scales import prepare, scales_of, scaling
from pops.seeds import generators, randn_items

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

logger = logging.getLogger("pops.render")

STEPS, GUIDANCE = 50, 5.0  # unless the model's own pops.json says otherwise
PREVIEW_SIDE = 64  # latents; more are averaged, so that a preview of a large image stays cheap


@dataclass(frozen=True)
class Call:
    """What all batches of one call share. Conditions have a row for each branch: uncond, cond, perturbed."""

    steps: int
    guidance: float
    guided: bool  # there is an uncond branch
    rescale: float  # 0 to 1, of predictions that were guided
    pag_scale: float  # above 0 there is a perturbed branch
    interval: tuple[float, float]  # of guidance, shares of the steps
    size: tuple[int, int]  # (height, width) in pixels
    options: RenderOptions
    text: Tensor  # [1 to 3, tokens, width]
    added: Mapping[str, Tensor] = field(default_factory=dict)  # SDXL's text_embeds and time_ids, [1 to 3, ...]
    hints: Sequence[Hint] = ()
    timestep: Tensor | None = None  # [1, width], added to the timestep's embedding


class StableDiffusionRenderer:
    """Loaded once; render() leaves nothing behind on it, so a failed or cancelled call has no effect on the next.

    Its networks have one dtype and are on one device, or with offload on the CPU while none runs.
    """

    name = "stable-diffusion"
    pipeline = "StableDiffusionPipeline"  # whose layout it reads
    sdxl = False

    def __init__(self, networks: Networks, *, options: RendererOptions, folder: Path | None = None) -> None:
        """folder: the renderer's own, in which controlnets/ may lie."""
        self.networks = networks
        self.unet, self.vae, self.scheduler = networks.unet, networks.vae, networks.scheduler
        self.text_encoder = networks.text_encoder
        self.space, self.max_batch = options.space, options.max_batch
        self.device, self.offload = options.device, options.offload
        self.texts = TextEncoders(
            [(networks.tokenizer, networks.text_encoder), (networks.tokenizer_2, networks.text_encoder_2)],
            empty_is_zero=networks.empty_is_zero,
            running=lambda encoder: on_device(encoder, self.device, self.offload),
        )
        self.factor = pixels_per_latent(self.vae)
        side = options.defaults.get("size")
        self.native = (int(side), int(side)) if side else native_size(self.unet, self.factor)
        self.steps = int(options.defaults.get("steps", STEPS))
        self.guidance = float(options.defaults.get("guidance", GUIDANCE))
        self.interval = tuple(options.defaults.get("guidance_interval", (0, 1)))
        self.rescale = float(options.defaults.get("guidance_rescale", 0))
        self.rescale_interval = tuple(options.defaults.get("guidance_rescale_interval", (0, 1)))
        self.pag_scale = float(options.defaults.get("pag_scale", 0))
        self.pag_layers = tuple(options.defaults.get("pag_layers", LAYERS))
        self.pag_interval = tuple(options.defaults.get("pag_interval", (0, 1)))
        self.distilled: int | None = self.unet.config.time_cond_proj_dim  # guidance is an input of the UNet (LCM)
        width = adapter_width(self.unet)
        ensure(width is not None, "this UNet has no IP-Adapter, which reads the embedding; give one", ModelError)
        self.dim = int(width or 0)  # of the embeddings
        self.controlnets = ControlNets(folder, options, self.unet, self.factor)
        self._turn = threading.RLock()  # with offload: one call at a time may move networks
        prepare(self.unet)
        if self.pag_scale or "pag_layers" in options.defaults:
            prepare_perturbing(self.unet, self.pag_layers)

    @classmethod
    def load(cls, folder: Path | None, options: RendererOptions) -> Self:
        """Reads a pipeline's layout with ip_adapter/ip_adapter.safetensors in it, or options.adapter.

        ControlNets: the folder's controlnets/<kind>/ and options.controlnets, each read on its first use. Safetensors
        only. Raises ModelError for an absent part, CheckpointError for weights that do not fit.
        """
        if folder is None:
            raise ModelError(f"the {cls.name} renderer needs a folder with {cls.pipeline}'s layout")
        second = (folder / "text_encoder_2").is_dir()  # looked for before gigabytes are read
        told = f"{folder} is an SDXL renderer, by its text_encoder_2; use --renderer sdxl"
        ensure(cls.sdxl or not second, told, ModelError)
        told = f"{folder} is no SDXL renderer: it has no text_encoder_2; give another folder (--renderer)"
        ensure(second or not cls.sdxl, told, ModelError)
        place, adapter = "cpu" if options.offload else options.device, options.adapter or True
        networks = read_networks(folder, device=place, dtype=options.dtype, adapter=adapter, second=second)
        return cls(networks, options=options, folder=folder)

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
            steps=True,
            guidance=True,
            guidance_interval=True,
            guidance_rescale=True,
            pag_scale=True,
            outputs=("pil", "latent"),
            previews=True,
            several=True,
        )

    def render(self, vectors: Tensor, seeds: Sequence[int], size: tuple[int, int], options: RenderOptions) -> list[Any]:
        """See Renderer.render; vectors [n, m, D]: m embeddings of each image, whose tokens the adapter reads one after
        another, as stock diffusers does with several images. "latent": [C, height / 8, width / 8] each, as stock
        diffusers' output_type="latent".

        A preview is the image that the sampler expects at the end, of 64 x 64 latents at most.
        """
        import torch

        # 1) What is asked for, refused before a network runs.
        steps = self.steps if options.steps is None else options.steps
        guidance = self.guidance if options.guidance is None else options.guidance
        check_request(vectors, seeds, steps, size, multiple=max(8, self.factor), several=True)
        interval = self.interval if options.guidance_interval is None else options.guidance_interval
        check_guidance(guidance)
        check_interval(interval)
        rescale = self.rescale if options.guidance_rescale is None else options.guidance_rescale
        check_rescale(rescale)
        pag_scale = self.pag_scale if options.pag_scale is None else options.pag_scale
        check_pag(pag_scale)
        if pag_scale:
            prepare_perturbing(self.unet, self.pag_layers)
        self._check_width(vectors)
        scales = scales_of(self.unet, options.scale, sdxl=self.sdxl)

        # 2) The conditions, the same for every batch.
        began = time.perf_counter()
        turn = self._turn if self.offload else nullcontext()
        batches = batches_of(len(seeds), self.max_batch)
        with turn, torch.no_grad(), memory_told(min(len(seeds), self.max_batch), size), scaling(scales):
            guided = guidance > 1 and self.distilled is None and bool(guided_steps(interval, steps))
            uncond = [self.texts.encode(options.negative, negative=True)] if guided else []
            perturbed = pag_scale > 0 and bool(guided_steps(self.pag_interval, steps))
            texts = [*uncond, *[self.texts.encode(options.prompt)] * (2 if perturbed else 1)]
            tell_cut(texts, options.on_note)
            if options.on_note and not guided:
                distilled = self.distilled is not None
                for note in useless_notes(options, steps, guidance, interval, distilled=distilled):
                    options.on_note(note)
            if options.on_note and options.pag_scale and not perturbed:
                between = f"{self.pag_interval[0]:g} and {self.pag_interval[1]:g} of the way"
                options.on_note(f"no step of {steps} lies between {between}: pag_scale has no effect")
            dtype = self.unet.dtype
            text = torch.stack([each.hidden for each in texts]).to(dtype)
            pooled = [each.pooled.to(dtype) for each in texts if each.pooled is not None]
            added = {}
            if pooled:  # SDXL's
                ids = time_ids(size, len(texts), self.device, dtype)
                added = {"text_embeds": torch.stack(pooled), "time_ids": ids}
            hints = self.controlnets.hints(options.controls, size, self.device)
            scale, timestep = pag_scale if perturbed else 0.0, self._embedded(guidance)
            call = Call(steps, guidance, guided, rescale, scale, interval, size, options, text, added, hints, timestep)

            # 3) All latents, then all images: with offload each network moves once.
            with self._running([self.unet, *(hint.network for hint in hints)]):
                latents = [
                    self._denoise(vectors[rows.start : rows.stop], [seeds[i] for i in rows], call, n, len(batches))
                    for n, rows in enumerate(batches)
                ]
            logger.debug("%s: %d images in %.2f s", self.name, len(seeds), time.perf_counter() - began)
            if options.output == "latent":
                return [latent for batch in latents for latent in batch.cpu()]
            with self._running([self.vae]):
                return [image for batch in latents for image in self._decode(batch)]

    # Classifier-free guidance on the network's output, arXiv 2207.12598 Eq. 6; the uncond branch has the negative text
    # and, as IP-Adapter was trained, zeros for the image embedding (arXiv 2308.06721 section 3.2). Perturbed-attention
    # guidance, arXiv 2403.17377 section 4, is added to it: away from the cond branch without self-attention. What comes
    # out is brought part of the way back to the cond branch's spread, arXiv 2305.08891 Eq. 15 and 16.
    def _denoise(self, vectors: Tensor, seeds: Sequence[int], call: Call, batch: int, batches: int) -> Tensor:
        """Samples latents [B, C, h, w] in the VAE's scaled space, for vectors [B, (m,) D] un-normalised and B seeds."""
        import torch

        # 1) The conditions, B rows of each branch: uncond, cond, perturbed. A step takes those that it needs.
        device, dtype, count = self.device, self.unet.dtype, len(seeds)
        images = vectors.to(device, dtype).reshape(count, -1, self.dim)
        ahead, behind = int(call.guided), int(call.pag_scale > 0)  # branches before and after the cond one
        images = torch.cat([*[torch.zeros_like(images)] * ahead, *[images] * (1 + behind)])
        text = call.text.repeat_interleave(count, dim=0)
        added = {name: rows.repeat_interleave(count, dim=0) for name, rows in call.added.items()}
        timestep = None if call.timestep is None else call.timestep.expand(count, -1)

        # 2) A scheduler of this batch's own, and each image's noise from its own CPU generator.
        scheduler = scheduler_of_call(self.scheduler, call.steps, device)
        gens = generators(seeds)
        grid = (self.unet.config.in_channels, call.size[0] // self.factor, call.size[1] // self.factor)
        x: Tensor = randn_items(grid, gens).to(device, dtype) * scheduler.init_noise_sigma
        arguments = step_arguments(scheduler, gens)

        # 3) The loop.
        options, total = call.options, len(scheduler.timesteps)
        guided = guided_steps(call.interval, total) if call.guided else range(0)
        perturbed = guided_steps(self.pag_interval, total) if behind else range(0)
        rescaled = guided_steps(self.rescale_interval, total) if call.rescale else range(0)
        on_step = steps_of_part(options.on_step, batch, batches)
        for done, t in enumerate(scheduler.timesteps, start=1):
            uncond, away = done - 1 in guided, done - 1 in perturbed
            branches = uncond + 1 + away
            rows = slice((ahead - uncond) * count, (ahead + 1 + away) * count)
            of_step = {name: value[rows] for name, value in added.items()}
            x_in = scheduler.scale_model_input(torch.cat([x] * branches), t)
            hints = residuals(call.hints, x_in, t, text[rows], of_step)
            with perturbing(self.unet, self.pag_layers, branches if away else 1):
                out = self.unet(
                    x_in,
                    t,
                    encoder_hidden_states=text[rows],
                    timestep_cond=timestep,
                    added_cond_kwargs={**of_step, "image_embeds": [images[rows]]},
                    **hints,
                    return_dict=False,
                )[0]
            each = out.chunk(branches)
            out = cond = each[int(uncond)]
            if uncond:
                out = each[0] + call.guidance * (cond - each[0])
            if away:
                out = out + call.pag_scale * (cond - each[-1])
            if branches > 1 and done - 1 in rescaled:
                as_cond = out * (_spread(cond) / _spread(out))
                out = call.rescale * as_cond + (1 - call.rescale) * out
            before, stepped = x, scheduler.step(out, t, x, **arguments)
            x = stepped.prev_sample
            if on_step:
                on_step(done, total)
            if options.on_preview and preview_due(done, total, options.preview_every):
                rough = self._preview(_expected(scheduler, stepped, out, t, before))
                options.on_preview(rough, batch * total + done, batches * total)
        check_finite(x)
        return x

    def _embedded(self, guidance: float) -> Tensor | None:
        """Returns the guidance scale as a distilled UNet reads it [1, width]; None for any other UNet."""
        if self.distilled is None:
            return None
        return guidance_embedding(guidance, self.distilled).to(self.device, self.unet.dtype)

    def _decode(self, latents: Tensor) -> list[Image.Image]:
        """Decodes latents [B, C, h, w] to B images (8-bit sRGB)."""
        return images_of(decoded(self.vae, latents.to(self.vae.dtype)))

    def _preview(self, latents: Tensor) -> list[Image.Image]:
        """Decodes latents, averaged to at most PREVIEW_SIDE x PREVIEW_SIDE."""
        import torch

        while min(latents.shape[-2:]) >= 2 and max(latents.shape[-2:]) > PREVIEW_SIDE:
            latents = torch.nn.functional.avg_pool2d(latents, 2)
        with self._running([self.vae]):
            return self._decode(latents)

    @contextmanager
    def _running(self, networks: Sequence[Any]) -> Iterator[None]:
        """Keeps these networks on the device; with offload only inside."""
        with ExitStack() as stack:
            for network in networks:
                stack.enter_context(on_device(network, self.device, self.offload))
            yield

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keeps all networks on the device, for others that use them (MagicMix); with offload one call at a time."""
        turn = self._turn if self.offload else nullcontext()
        with turn, self._running([self.unet, self.vae, *(encoder for _, encoder in self.texts.pairs)]):
            yield

    def _check_width(self, vectors: Tensor) -> None:
        """Raises SpaceError for vectors that the IP-Adapter does not read."""
        width = vectors.shape[-1]
        told = f"the renderer's IP-Adapter reads vectors of width {self.dim}, got width {width}"
        advice = f"give the right adapter (--adapter): {right_adapter(width, sdxl=self.sdxl)}"
        ensure(width == self.dim, f"{told}; {advice}", SpaceError)


def _spread(x: Tensor) -> Tensor:
    """The standard deviation of each item [B, 1, 1, 1]."""
    return x.std(dim=(1, 2, 3), keepdim=True)


# What the sampler expects at the end, given a network's output at x_t: arXiv 2010.02502 Eq. 9 for a prediction of the
# noise, arXiv 2202.00512 section 4 for one of the velocity.
def _expected(scheduler: Scheduler, stepped: Any, out: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """Returns the scheduler's own guess [B, C, h, w]; computed for those without one, where x_t has variance 1."""
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


load = StableDiffusionRenderer.load
