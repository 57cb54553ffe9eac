"""MagicMix (arXiv 2210.16056): a layout's shape early in denoising, a content's detail late.

Stock parts and one visible loop, as in the renderers. The loop keeps the latents in float32, whatever the network's
dtype is. Knows neither expressions nor CLIP's image tower: contents that are images come as embeddings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pops.diffusion.checks import check_finite, memory_told
from pops.diffusion.folders import pipeline_of, read_networks
from pops.diffusion.ip_adapter import ADAPTER, adapter_width
from pops.diffusion.loop import batches_of, native_size, pixels_per_latent
from pops.diffusion.scheduler import Scheduler, scheduler_of
from pops.diffusion.sizes import Sizes, enlarged, mix_sizes, sizes_of
from pops.diffusion.text import TextEncoders, tell_cut
from pops.errors import ModelError, ensure, suggest
from pops.files import expanded
from pops.images import read_rgb
from pops.magicmix.attention import hooks, weighing
from pops.magicmix.latents import decode, encode_photo, is_latent, load_latent, save_latent
from pops.magicmix.operands import (
    OUTPUTS,
    Content,
    ContentOperand,
    Layout,
    LayoutOperand,
    MixSettings,
    Size,
    content_of,
    is_photo,
    latent_layout,
    listed,
    photo_latent_input,
    working_size,
)
from pops.magicmix.progress import Progress
from pops.magicmix.prompt import Prompt
from pops.magicmix.rows import Rows, rows_of
from pops.magicmix.schedule import Nu, Run, check_nu, check_scheduler
from pops.progress import OnNote, OnPreview, OnStep
from pops.seeds import check_seed, generators, randn_items

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch import Tensor
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    from pops.diffusion.upscaler import Upscaler

logger = logging.getLogger("pops.magicmix")

MAX_IMAGES = 10_000  # of one call
Trio: TypeAlias = tuple[int, int, int]  # of an image: number of its layout, number of its content, seed


@dataclass(frozen=True)
class Job:
    """One image."""

    number: int
    layout: Layout
    content: Content
    seed: int

    @property
    def kind(self) -> tuple[tuple[int, int, int], int, int]:
        """What jobs have in common that can be denoised together: latents' shape, terms of layout and content."""
        return self.layout.grid, len(self.layout.moving), len(self.content)


class MagicMix:
    """Mixes with one pipeline's networks; a call leaves nothing behind on them, and threads may share them."""

    def __init__(
        self,
        *,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: Scheduler,
        text_encoder_2: CLIPTextModelWithProjection | None = None,
        tokenizer_2: CLIPTokenizer | None = None,
        empty_is_zero: bool = False,
        space: str | None = None,
        max_batch: int = 8,
        running: Callable[[], AbstractContextManager[None]] = nullcontext,
        upscaler: Upscaler | None = None,
    ) -> None:
        """Takes modules of diffusers and transformers on one device. Each call copies the scheduler's settings.

        space: of the embeddings that the UNet's IP-Adapter reads, None if unknown; empty_is_zero: whether an empty
        negative text is zeros, as in SDXL's pipelines; max_batch: images denoised together; running: keeps the
        networks on their device while a call runs, where they are not there all the time; upscaler: enlarges what comes
        out.
        """
        check_scheduler(scheduler)
        ensure(max_batch >= 1, f"max_batch must be 1 or more, got {max_batch}")
        self.unet, self.vae, self.scheduler = unet, vae, scheduler
        pairs = [(tokenizer, text_encoder), (tokenizer_2, text_encoder_2)]
        self.texts = TextEncoders(pairs, empty_is_zero=empty_is_zero)
        self.space, self.max_batch, self._running, self.upscaler = space, max_batch, running, upscaler
        self.factor = pixels_per_latent(vae)
        self.channels: int = unet.config.in_channels
        self.dim = adapter_width(unet)
        self.native = native_size(unet, self.factor)
        fits = self.channels == vae.config.latent_channels
        told = f"the UNet reads {self.channels} channels, the autoencoder gives {vae.config.latent_channels}"
        ensure(fits, f"{told} (is it for inpainting?); mixing needs a plain text-to-image pipeline", ModelError)
        distilled = getattr(unet.config, "time_cond_proj_dim", None) is not None
        ensure(not distilled, "this UNet has guidance distilled into it; mixing needs one without", ModelError)
        self._sdxl = getattr(unet.config, "addition_embed_type", None) == "text_time"
        told = "SDXL's UNet needs two text encoders, others need one"
        ensure(self._sdxl == (len(self.texts.pairs) == 2), told, ModelError)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str = "auto",
        dtype: torch.dtype | str | None = None,
        scheduler: str | Scheduler | None = None,
        max_batch: int = 8,
    ) -> MagicMix:
        """Reads a folder in Stable Diffusion's (1, 2 or XL) layout; ip_adapter/ip_adapter.safetensors, if it is there,
        lets images be contents.

        dtype: None for float32; scheduler: one of diffusers, by name (with the settings of the folder's own) or
        ready-made, None for the folder's own.
        """
        import torch

        where = expanded(folder)
        kind = pipeline_of(where)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        chosen = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.float32
        allowed = (torch.float32, torch.float16, torch.bfloat16)
        ensure(chosen in allowed, f"dtype is float32, float16 or bfloat16, got {dtype!r}")
        adapter = (where / ADAPTER).is_file()
        networks = read_networks(where, device=device, dtype=chosen, adapter=adapter, second="XL" in kind)
        parts = {**vars(networks), "scheduler": scheduler_of(networks.scheduler, scheduler)}
        return cls(**parts, max_batch=max_batch)

    def __call__(
        self,
        layout: LayoutOperand | Sequence[LayoutOperand],
        content: ContentOperand | Sequence[ContentOperand],
        *,
        seed: int | Sequence[int] = 0,
        num_images: int = 1,
        output: str = "pil",
        nu: Nu = MixSettings.nu,
        k_min: float = MixSettings.k_min,
        k_max: float = MixSettings.k_max,
        steps: int = MixSettings.steps,
        guidance: float = MixSettings.guidance,
        strength: float = MixSettings.strength,
        reach: str = MixSettings.reach,
        negative: str = MixSettings.negative,
        inject: str = MixSettings.inject,
        size: Size | None = MixSettings.size,
        preview_every: int = 0,
        on_step: OnStep | None = None,
        on_preview: OnPreview | None = None,
        on_note: OnNote | None = None,
    ) -> Any:
        """Mixes one image, or a list where layouts, contents or seeds are lists or num_images is above 1: all layouts
        with all contents, each with seeds s, s + 1, ... for every seed s.

        layout: a photo (path, PIL image), a text, an Embedding, or a latent as output="latent" gives it [C, h, w], or
        the file of one. content: a text ("tiger", with strengths "tiger:1.5 fur:-1"), an Embedding, several with
        weights ({"tiger": 0.7, "gold": 0.3}). output: "pil", "latent", or "both" (pairs of them). nu to size: see
        MixSettings. preview_every: network calls, 0 for no previews. on_note: None warns.
        Raises ConfigError for a setting, OperandError for an operand, PhotoError for a photo.
        """
        settings = MixSettings(nu, k_min, k_max, steps, guidance, strength, reach, negative, inject, size)
        progress = Progress(self.vae, on_step, on_preview, preview_every)
        ensure(num_images >= 1, f"num_images must be 1 or more, got {num_images}")
        given = seed if isinstance(seed, Sequence) else [seed]
        seeds = [check_seed(check_seed(s) + j) for s in given for j in range(num_images)]
        ensure(len(seeds) > 0, "the list of seeds is empty; give at least one")
        (layouts, many_layouts), (contents, many_contents) = listed(layout), listed(content)
        _check_count(len(layouts) * len(contents) * len(seeds))
        trios = [(i, j, s) for i in range(len(layouts)) for j in range(len(contents)) for s in seeds]
        results = self._images(layouts, contents, trios, settings, output, progress, on_note)
        many = many_layouts or many_contents or given is seed or num_images > 1
        return results if many else results[0]

    def each(
        self,
        layouts: Sequence[LayoutOperand],
        contents: Sequence[ContentOperand],
        *,
        seeds: Sequence[int],
        output: str = "pil",
        nu: Nu = MixSettings.nu,
        k_min: float = MixSettings.k_min,
        k_max: float = MixSettings.k_max,
        steps: int = MixSettings.steps,
        guidance: float = MixSettings.guidance,
        strength: float = MixSettings.strength,
        reach: str = MixSettings.reach,
        negative: str = MixSettings.negative,
        inject: str = MixSettings.inject,
        size: Size | None = MixSettings.size,
        upscale: int | None = None,
        on_step: OnStep | None = None,
        on_note: OnNote | None = None,
    ) -> list[Any]:
        """Mixes layout i with content i and seed i to image i, as a call with them does; all in few batches.

        An object that is in a list several times is encoded once. upscale: 1 leaves the upscaler out; None uses it
        where the images come out larger than what the networks draw.
        """
        settings = MixSettings(nu, k_min, k_max, steps, guidance, strength, reach, negative, inject, size)
        count = len(seeds)
        same = len(layouts) == len(contents) == count
        ensure(same, f"as many layouts, contents and seeds, got {len(layouts)}, {len(contents)} and {count}")
        _check_count(count)
        own_layouts, own_contents = ({id(one): one for one in many} for many in (layouts, contents))  # each object once
        i_of, j_of = ({key: n for n, key in enumerate(own)} for own in (own_layouts, own_contents))
        trios = [(i_of[id(x)], j_of[id(c)], check_seed(s)) for x, c, s in zip(layouts, contents, seeds, strict=True)]
        operands = list(own_layouts.values()), list(own_contents.values())
        return self._images(*operands, trios, settings, output, Progress(self.vae, on_step), on_note, upscale)

    def save_latent(self, latent: Tensor, path: str | Path, provenance: Mapping[str, Any] | None = None) -> None:
        """Writes a latent [C, h, w], as output="latent" gives it, to a .safetensors file that can be a layout."""
        save_latent(latent, path, vae=self.vae, provenance=provenance)

    def _images(
        self,
        layouts: Sequence[object],
        contents: Sequence[object],
        trios: Sequence[Trio],
        settings: MixSettings,
        output: str,
        progress: Progress,
        on_note: OnNote | None,
        upscale: int | None = None,
    ) -> list[Any]:
        """Mixes the image of each trio."""
        import torch

        # 1) Operands, checked before a network runs.
        known = output in OUTPUTS
        ensure(known, f"output must be {', '.join(map(repr, OUTPUTS))}, got {output!r}{suggest(output, OUTPUTS)}")
        read_contents = [content_of(c, role="content", width=self.dim, space=self.space) for c in contents]
        began = time.perf_counter()
        with self._running(), torch.no_grad(), memory_told(min(len(trios), self.max_batch)), hooks(self.unet):
            # 2) The jobs; those of one kind make batches.
            read_layouts = [self._layout(item, settings, upscale) for item in layouts]
            moving = [layout.moving for layout in read_layouts]
            prompts = [term.prompt for content in [*read_contents, *moving] for term in content]
            texts = dict.fromkeys(prompt.text for prompt in [*prompts, Prompt.of(settings.negative)])
            tell_cut(map(self.texts.encode, texts), on_note)
            if on_note and (lost := settings.lost()):
                on_note(lost)
            jobs = [Job(n, read_layouts[i], read_contents[j], seed) for n, (i, j, seed) in enumerate(trios)]
            alike = [list(run) for _, run in groupby(sorted(jobs, key=lambda job: job.kind), key=lambda job: job.kind)]
            batches = [run[i.start : i.stop] for run in alike for i in batches_of(len(run), self.max_batch)]
            probe = Run(self.scheduler, settings.steps, self.unet.device, settings.window.start)
            of_layout = self._layout_calls(probe, settings)
            progress.total = sum(len(probe.calls) + of_layout * bool(batch[0].layout.moving) for batch in batches)

            # 3) The images.
            results: list[Any] = [None] * len(jobs)
            for batch in batches:
                latents = self._denoise(batch, settings, progress)
                for job, result in zip(batch, self._finished(latents, batch, output), strict=True):
                    results[job.number] = result
        logger.debug("mixed %d images in %.2f s", len(jobs), time.perf_counter() - began)
        return results

    def _finished(self, latents: Tensor, jobs: Sequence[Job], output: str) -> list[Any]:
        """Returns the latents of a batch in the form that was asked for."""
        kept = list(latents.cpu())
        if output == "latent":
            return kept
        images = [
            image
            for image, job in zip(decode(self.vae, latents), jobs, strict=True)
            for image in enlarged([image], self.upscaler, job.layout.sizes or Sizes.of(image))
        ]
        return images if output == "pil" else list(zip(images, kept, strict=True))

    # arXiv 2210.16056 section 3: start at k_max from the noised layout, mix down to k_min, go on with the content.
    def _denoise(self, jobs: Sequence[Job], settings: MixSettings, progress: Progress) -> Tensor:
        """Samples the latents [B, C, h, w] of jobs of one kind, float32, in the VAE's scaled space."""
        import torch

        # 1) A scheduler of this call's own, one noise per image, and the layout at every call of the window.
        device, window, nus = self.unet.device, settings.window, check_nu(settings.nu)
        gens = generators([job.seed for job in jobs])
        run = Run(self.scheduler, settings.steps, device, window.start)
        noise = randn_items(jobs[0].layout.grid, gens).to(device)
        if jobs[0].layout.moving:
            kept = self._trajectory(jobs, settings, noise, gens, run, progress)
            layout_at: Callable[[int], Tensor] = kept.__getitem__
            x = kept[run.calls.start]
        else:
            x0 = torch.stack([job.layout.x0 for job in jobs if job.layout.x0 is not None]).to(device)
            layout_at = lambda call: run.noised(x0, noise, call)  # noqa: E731
            x = layout_at(run.calls.start) if run.calls else x0

        # 2) From k_max to the end. With inject "state" the mixed latents take the place of x; with "input" only the
        #    network reads them.
        rows = self._rows([job.content for job in jobs], settings, settings.strength, jobs[0].layout.grid)
        for call in run.calls:
            step = run.step_of(call)
            nu = None if step is None else window.nu(nus, step)
            seen = x if nu is None else nu * x + (1 - nu) * layout_at(call)
            out = self._predict(seen, call, run, rows)
            x, guess = run.step(out, call, seen if settings.inject == "state" else x, gens)
            progress(x if guess is None else guess)
        check_finite(x, self.unet.dtype)
        return x.float()

    # Section 3, text-text: the layout is sampled from noise, too, and its latents are the layout at each noise level.
    def _trajectory(
        self,
        jobs: Sequence[Job],
        settings: MixSettings,
        noise: Tensor,
        gens: Sequence[torch.Generator],
        to: Run,
        progress: Progress,
    ) -> dict[int, Tensor]:
        """Returns the layouts [B, C, h, w] before each call of the window that starts with `to`."""
        run = Run(self.scheduler, settings.steps, noise.device)
        rows = self._rows([job.layout.moving for job in jobs], settings, 1.0, jobs[0].layout.grid)
        x = run.prior(noise)
        kept: dict[int, Tensor] = {}
        count = self._layout_calls(to, settings)
        for call in run.calls[:count]:
            if call >= to.calls.start:
                kept[call] = x
            x, guess = run.step(self._predict(x, call, run, rows), call, x, gens)
            progress(x if guess is None else guess)
        kept[count] = x
        return kept

    @staticmethod
    def _layout_calls(run: Run, settings: MixSettings) -> int:
        """Returns the network calls until the last layout that is read; all of them if the content has no step."""
        if not run.calls:
            return run.calls.stop
        return max(settings.window.start, settings.window.end - 1) * run.order

    # Guidance, arXiv 2207.12598 Eq. 6; with several terms arXiv 2206.01714 Eq. 11, their weights as shares of it.
    def _predict(self, x: Tensor, call: int, run: Run, rows: Rows) -> Tensor:
        """Returns the network's output for x [B, C, h, w] at this call, guided, float32."""
        import torch

        branches = len(rows.hidden) // len(x)
        x_in = torch.cat([run.scaled(x, call)] * branches).to(self.unet.dtype)
        with weighing(rows.weights):
            out: Tensor = self.unet(
                x_in,
                run.timesteps[call],
                encoder_hidden_states=rows.hidden,
                added_cond_kwargs=rows.added,
                return_dict=False,
            )[0]
        uncond, *terms = out.float().chunk(branches)
        if not rows.guided:
            return uncond  # the one term's
        toward = sum(share * (cond - uncond) for share, cond in zip(rows.shares, terms, strict=True))
        guided: Tensor = uncond + rows.guidance * toward
        return guided

    def _rows(
        self, contents: Sequence[Content], settings: MixSettings, strength: float, grid: tuple[int, int, int]
    ) -> Rows:
        """Returns the conditions of B images whose latents have this shape."""
        size = (grid[1] * self.factor, grid[2] * self.factor) if self._sdxl else None
        return rows_of(contents, settings, strength, self.texts, dim=self.dim, size=size, like=self.unet)

    def _sizes(self, own: tuple[int, int], size: Size | None, upscale: int | None, *, photo: bool) -> Sizes:
        """Returns what is drawn for a layout of this (height, width), and what comes out.

        photo: whether `own` is that of a photo, which comes out as large as it is, or larger.
        """
        scale = 1 if self.upscaler is None else self.upscaler.scale
        if scale == 1 or upscale == 1:
            drawn, out = working_size(own, size, self.factor)
            return Sizes(drawn, sizes_of(drawn, upscale, self.native, self.factor, scale).factor, out)
        if isinstance(size, tuple):
            return sizes_of(size, upscale, self.native, self.factor, scale)
        drawn, out = working_size(own, size, self.factor)
        return mix_sizes(drawn, out if photo else None, sizes_of(None, upscale, drawn, self.factor, scale).factor)

    def _layout(self, operand: object, settings: MixSettings, upscale: int | None = None) -> Layout:
        """Returns a layout's latent, or the content that will draw it, given the layout as the user gave it."""
        import torch
        from PIL import Image

        if isinstance(operand, (str, Path)) and is_latent(operand):
            operand = load_latent(operand, vae=self.vae)
        if isinstance(operand, torch.Tensor):
            layout = latent_layout(operand, self.channels, self.factor, self.unet.device)
            drawn = (layout.grid[1] * self.factor, layout.grid[2] * self.factor)
            return replace(layout, sizes=self._sizes(drawn, None, upscale, photo=False))
        if isinstance(operand, (Image.Image, Path)) or (isinstance(operand, str) and is_photo(operand)):
            photo = read_rgb(operand.strip() if isinstance(operand, str) else operand)
            sizes = self._sizes((photo.height, photo.width), settings.size, upscale, photo=True)
            x0 = encode_photo(self.vae, photo_latent_input(photo, sizes.drawn))
            return Layout((len(x0), x0.shape[1], x0.shape[2]), x0, sizes=sizes)
        moving = content_of(operand, role="layout", width=self.dim, space=self.space)
        own = (settings.size, settings.size) if isinstance(settings.size, int) else settings.size or self.native
        asked = settings.size if isinstance(settings.size, tuple) else None
        sizes = self._sizes(own, asked, upscale, photo=False)
        grid = (self.channels, sizes.drawn[0] // self.factor, sizes.drawn[1] // self.factor)
        return Layout(grid, moving=moving, sizes=sizes)


def _check_count(count: int) -> None:
    """Raises ConfigError for too many images."""
    ensure(count <= MAX_IMAGES, f"{count} images at once, at most {MAX_IMAGES}; ask for fewer")
