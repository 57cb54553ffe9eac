"""Kandinsky 2.2's decoder on image embeddings, plain or with a hint such as depth: stock parts, one visible loop.

The parts are diffusers' own (UNet2DConditionModel, VQModel, the folder's scheduler) and the loop is that of
KandinskyV22Pipeline and KandinskyV22ControlnetPipeline, written out: image for image they give the same pixels (tests
hold them together). Written out, because the stock ones repeat and cast embeddings and hints only when guidance
is above 1, draw a batch's noise from one generator, take another scheduler's input unscaled, and keep a call's state
on the shared object.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.diffusion.checks import check_finite, check_guidance, check_interval, memory_told
from pops.diffusion.folders import CONTROLNETS
from pops.diffusion.kandinsky_folder import Decoder, read_decoder, reads_hint
from pops.diffusion.loop import batches_of, guided_steps, images_of, on_device, preview_due
from pops.diffusion.scheduler import scheduler_of_call, step_arguments
from pops.errors import ConfigError, ModelError, SpaceError, ensure
from pops.loading.lock import LOADING
from pops.progress import steps_of_part
from pops.render.base import Capabilities, Control, RendererOptions, RenderOptions, check_request, useless_notes
from pops.seeds import generators, randn_items

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

logger = logging.getLogger("pops.render")

STEPS, GUIDANCE = 50, 4.0  # the papers', unless the model's own pops.json says otherwise


class KandinskyRenderer:
    """Loaded once; render() leaves nothing behind on it, so a failed or cancelled call has no effect on the next."""

    name = "kandinsky"

    def __init__(
        self,
        decoders: Mapping[str | None, Decoder | Callable[[], Decoder]],
        *,
        options: RendererOptions,
        zero_image: Callable[[], Tensor] | None = None,
    ) -> None:
        """decoders: kind of control -> its decoder, or the function that reads it on first use; None is the plain one.
        zero_image: returns [1, D], the image encoder's embedding of all-zero pixels; called when guidance is first
        used.
        """
        ensure(len(decoders) > 0, "the kandinsky renderer needs a decoder", ModelError)
        self._decoders: dict[str | None, Decoder | Callable[[], Decoder]] = dict(decoders)
        self._zero_image = zero_image
        self._zero: Tensor | None = None
        self._turn = threading.Lock()
        self.space, self.max_batch = options.space, options.max_batch
        self.device, self.offload = options.device, options.offload
        first = self.decoder(next(iter(decoders)))
        self.dim, self._multiple = first.dim, first.factor**2
        side = int(options.defaults.get("size", first.side))
        self.native = (side, side)
        self.steps = int(options.defaults.get("steps", STEPS))
        self.guidance = float(options.defaults.get("guidance", GUIDANCE))
        self.interval = tuple(options.defaults.get("guidance_interval", (0, 1)))

    @property
    def capabilities(self) -> Capabilities:
        """See Renderer.capabilities."""
        kinds = tuple(kind for kind in self._decoders if kind is not None)
        return Capabilities(
            self.space, self.native, self._multiple, controls=kinds, steps=True, guidance=True,
            guidance_interval=True, outputs=("pil", "latent"), previews=True,
        )  # fmt: skip

    def decoder(self, kind: str | None = None) -> Decoder:
        """Returns the plain decoder, or the one that reads this kind of control; read from its folder on first use."""
        ready = self._decoders[kind]
        if isinstance(ready, Decoder):  # without waiting for others that load
            return ready
        with LOADING:
            found = self._decoders[kind]
            if not isinstance(found, Decoder):
                found = self._decoders[kind] = found()
            return found

    def render(self, vectors: Tensor, seeds: Sequence[int], size: tuple[int, int], options: RenderOptions) -> list[Any]:
        """See Renderer.render. "latent": [C, height / 8, width / 8] each, as stock diffusers' output_type="latent".

        A preview is the MoVQ's image of what the sampler expects at the end, and costs about one step.
        """
        import torch

        # 1) What is asked for, refused before anything is computed.
        steps = self.steps if options.steps is None else options.steps
        guidance = self.guidance if options.guidance is None else options.guidance
        interval = self.interval if options.guidance_interval is None else options.guidance_interval
        check_guidance(guidance)
        check_interval(interval)
        control = self._control(options.controls)
        decoder = self.decoder(control.kind if control else None)
        dtype = decoder.unet.dtype
        check_request(vectors, seeds, steps, size, multiple=decoder.factor**2)
        check_width(vectors, decoder)

        # 2) The conditions, the same for every batch.
        hint = None if control is None else hint_of(control.image, size).to(self.device, dtype)
        uncond = None
        if guidance > 1 and guided_steps(interval, steps):
            uncond = check_width(self._zero_embedding(), decoder).to(self.device, dtype)
        elif options.on_note:
            for note in useless_notes(options, steps, guidance, interval):
                options.on_note(note)
        loop = Loop(decoder, steps, guidance, interval, uncond, hint, self.device, self.offload)

        # 3) All latents, then all images: with offload each network moves once.
        began = time.perf_counter()
        batches = batches_of(len(seeds), self.max_batch)
        turn = self._turn if self.offload else nullcontext()  # one call at a time may move networks
        with torch.no_grad(), memory_told(min(len(seeds), self.max_batch), size), turn:
            with on_device(decoder.unet, self.device, self.offload):
                latents = []
                for i, rows in enumerate(batches):
                    here = vectors[rows.start : rows.stop].to(self.device, dtype)
                    of_batch = [seeds[row] for row in rows]
                    latents.append(loop.run(here, of_batch, size, options, batch=i, batches=len(batches)))
            logger.debug("%s: %d images in %.2f s", self.name, len(seeds), time.perf_counter() - began)
            if options.output == "latent":
                return [latent for batch in latents for latent in batch.cpu()]
            with on_device(decoder.movq, self.device, self.offload):
                return [image for batch in latents for image in decode(decoder, batch)]

    def _control(self, controls: Sequence[Control]) -> Control | None:
        """Returns the one control of a call; ConfigError where the decoder takes none, needs one, or cannot scale
        it.
        """
        kinds = [kind for kind in self._decoders if kind is not None]
        if not controls:
            told = f"this decoder draws only with a control image; give one of {', '.join(kinds)}"
            ensure(None in self._decoders, told, ConfigError)
            return None
        told = f"Kandinsky's decoder takes one control image, got {len(controls)}; give one of them"
        ensure(len(controls) == 1, told, ConfigError)
        control = controls[0]
        told = f"the renderer kandinsky has no {control.kind} control; it takes {', '.join(kinds) or 'none'}"
        ensure(control.kind in kinds, told, ConfigError)
        told = f"Kandinsky's control has no scale, got {control.scale:g}; leave it out (1)"
        ensure(control.scale == 1, told, ConfigError)
        return control

    def _zero_embedding(self) -> Tensor:
        """Returns the embedding [1, D] of all-zero pixels, computed once."""
        with LOADING:
            if self._zero is None:
                if self._zero_image is None:
                    raise ConfigError(
                        "Kandinsky's guidance needs the embedding of an all-zero image; give its function as "
                        'RendererOptions.extra["zero_image"], or ask for guidance 1'
                    )
                self._zero = self._zero_image()
            return self._zero


@dataclass(frozen=True)
class Loop:
    """Samples the batches of one call; its fields are what they share."""

    decoder: Decoder
    steps: int
    guidance: float
    interval: tuple[float, float]  # of guidance, shares of the steps
    uncond: Tensor | None  # [1, D], the embedding of guidance's other branch; None for no guidance
    hint: Tensor | None  # [1, 3, H, W] in 0 .. 1
    device: str
    offload: bool

    # Classifier-free guidance on the noise, arXiv 2207.12598 Eq. 6; the variance that the UNet predicts beside it is
    # the condition's own, unguided, for schedulers that read one (arXiv 2102.09672 Eq. 15).
    def run(
        self,
        vectors: Tensor,
        seeds: Sequence[int],
        size: tuple[int, int],
        options: RenderOptions,
        *,
        batch: int,
        batches: int,
    ) -> Tensor:
        """Samples latents [B, C, h, w] for vectors [B, D], un-normalised and on the device, and B seeds."""
        import torch

        # 1) The conditions: B rows, or with guidance 2 B, uncond first; a step without it takes the last B.
        decoder, count = self.decoder, len(seeds)
        rows = vectors if self.uncond is None else torch.cat([self.uncond.expand(count, -1), vectors])
        added = {"image_embeds": rows}
        if self.hint is not None:
            added["hint"] = self.hint.expand(len(rows), -1, -1, -1)

        # 2) A scheduler of this batch's own, and each image's noise from its own CPU generator.
        scheduler = scheduler_of_call(decoder.scheduler, self.steps, self.device)
        gens = generators(seeds)
        grid = (decoder.channels, size[0] // decoder.factor, size[1] // decoder.factor)
        x: Tensor = randn_items(grid, gens).to(self.device, vectors.dtype) * scheduler.init_noise_sigma
        arguments = step_arguments(scheduler, gens)

        # 3) The loop.
        total = len(scheduler.timesteps)
        guided = range(0) if self.uncond is None else guided_steps(self.interval, total)
        on_step = steps_of_part(options.on_step, batch, batches)
        for done, t in enumerate(scheduler.timesteps, start=1):
            two = done - 1 in guided
            of_step = added if two else {name: value[-count:] for name, value in added.items()}
            x_in = scheduler.scale_model_input(torch.cat([x, x]) if two else x, t)
            out = decoder.unet(x_in, t, encoder_hidden_states=None, added_cond_kwargs=of_step, return_dict=False)[0]
            noise, variance = out[:, : decoder.channels], out[:, decoder.channels :]
            if two:
                uncond, cond = noise.chunk(2)
                noise = uncond + self.guidance * (cond - uncond)
                variance = variance[count:]
            model = torch.cat([noise, variance], dim=1) if decoder.learned_variance else noise
            stepped = scheduler.step(model, t, x, **arguments)
            x = stepped.prev_sample
            if on_step:
                on_step(done, total)
            if options.on_preview and preview_due(done, total, options.preview_every):
                expected = getattr(stepped, "pred_original_sample", None)
                rough = self._preview(x if expected is None else expected)
                options.on_preview(rough, batch * total + done, batches * total)
        check_finite(x)
        return x

    def _preview(self, latents: Tensor) -> list[Image.Image]:
        with on_device(self.decoder.movq, self.device, self.offload):
            return decode(self.decoder, latents)


def check_width(vectors: Tensor, decoder: Decoder) -> Tensor:
    """Returns the vectors; SpaceError unless they have the width that the decoder reads."""
    told = f"the renderer's decoder reads vectors of width {decoder.dim}, got width {vectors.shape[1]}"
    advice = "use the renderer of the model that made the embedding"
    ensure(vectors.shape[1] == decoder.dim, f"{told}; {advice}", SpaceError)
    return vectors


def decode(decoder: Decoder, latents: Tensor) -> list[Image.Image]:
    """Decodes latents [B, C, h, w] to B images (8-bit sRGB); not quantized, as in the stock pipeline."""
    pixels = decoder.movq.decode(latents, force_not_quantize=True, return_dict=False)[0]
    check_finite(pixels)
    return images_of(pixels)


def hint_of(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """Converts a control image to [1, 3, height, width] in 0 .. 1, resized to size (height, width) if need be."""
    import numpy as np
    import torch
    from PIL import Image

    rgb = image.convert("RGB")
    if rgb.size != size[::-1]:
        rgb = rgb.resize(size[::-1], Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float() / 255


def load(folder: Path | None, options: RendererOptions) -> KandinskyRenderer:
    """Reads KandinskyV22Pipeline's layout, or KandinskyV22ControlnetPipeline's, whose images need a depth control.

    Further decoders with a hint: options.controlnets, or the folder's own controlnets/<kind>/; each is read on its
    first use, and one without movq/ or scheduler/ takes this folder's. options.extra["zero_image"]: see
    KandinskyRenderer. Safetensors only. Raises ModelError for an absent part, CheckpointError for weights that do not
    fit.
    """
    if folder is None:
        raise ModelError("the kandinsky renderer needs a folder with KandinskyV22Pipeline's layout")
    main = folder
    place = "cpu" if options.offload else options.device

    def reader(where: Path, beside: Path | None) -> Callable[[], Decoder]:
        return lambda: read_decoder(where, device=place, dtype=options.dtype, beside=beside)

    own = "depth" if reads_hint(main) else None
    decoders: dict[str | None, Decoder | Callable[[], Decoder]] = {own: reader(main, None)}
    found = {path.parent.name: path.parent for path in sorted((main / CONTROLNETS).glob("*/unet"))}
    for kind, where in {**found, **options.controlnets}.items():
        told = f"{where} is a decoder without a hint; give that of a controlnet, such as kandinsky-2-2-controlnet-depth"
        ensure(reads_hint(where), told, ModelError)
        decoders[kind] = reader(where, main)
    return KandinskyRenderer(decoders, options=options, zero_image=options.extra.get("zero_image"))
