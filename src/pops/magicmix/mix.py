"""MagicMix (arXiv 2210.16056): a layout's shape early in denoising, a content's detail late.

Stock parts and one visible loop, as in the renderers. The loop keeps the latents in float32 whatever the network
computes in. Knows nothing of expressions and of CLIP's image tower: contents that are pictures come as embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.diffusion.ip_adapter import adapter_width, pipeline_of, scheduler_of
from pops.errors import ModelError, PopsError, ensure, suggest
from pops.magicmix.attention import hooks, weighing
from pops.magicmix.latents import is_latent, load_latent, save_latent
from pops.magicmix.operands import (
    OUTPUTS,
    Content,
    Layout,
    MixSettings,
    content_of,
    is_photo,
    listed,
    photo_latent_input,
    working_size,
)
from pops.magicmix.pictures import decode, encode_photo, latent_layout, overflow, resized
from pops.magicmix.progress import OnNote, OnPreview, OnStep, Told, Watch, memory, tell_cut
from pops.magicmix.prompt import Prompt, TextEncoders
from pops.magicmix.rows import Rows, rows_of
from pops.magicmix.schedule import Run, check_nu, check_scheduler
from pops.seeds import check_seed, generators, randn_items

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_PICTURES = 10_000  # of one call


@dataclass(frozen=True)
class Job:
    """One picture."""

    number: int
    layout: Layout
    content: Content
    seed: int

    @property
    def kind(self) -> tuple[Any, ...]:
        """Jobs of one kind can be denoised together."""
        return self.layout.grid, len(self.layout.moving), len(self.content)


class MagicMix:
    """Mixes with one pipeline's networks; a call leaves nothing behind on them, and threads may share them."""

    def __init__(
        self,
        *,
        unet: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler: Any,
        text_encoder_2: Any = None,
        tokenizer_2: Any = None,
        empty_is_zero: bool = False,
        space: str | None = None,
        max_batch: int = 8,
        running: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """diffusers' and transformers' modules on one device; scheduler: a template, copied for each batch.

        space: of the embeddings that the UNet's IP-Adapter reads, None if unknown; empty_is_zero: as SDXL's
        pipelines treat an empty negative text; max_batch: pictures denoised together; running: what holds the
        networks on their device while a call runs, where they are not there all the time.
        """
        check_scheduler(scheduler)
        ensure(max_batch >= 1, f"max_batch must be 1 or more, got {max_batch}")
        self.unet, self.vae, self.scheduler = unet, vae, scheduler
        pairs = [(tokenizer, text_encoder)] + ([(tokenizer_2, text_encoder_2)] if text_encoder_2 is not None else [])
        self.texts = TextEncoders(pairs, empty_is_zero=empty_is_zero)
        self.space, self.max_batch, self._running = space, max_batch, running
        self.factor: int = 2 ** (len(vae.config.block_out_channels) - 1)  # pixels a latent
        self.channels: int = unet.config.in_channels
        self.dim = adapter_width(unet)
        sample = unet.config.sample_size or 64
        grid = (sample, sample) if isinstance(sample, int) else tuple(sample)
        self.native = (grid[0] * self.factor, grid[1] * self.factor)
        fits = self.channels == vae.config.latent_channels
        told = f"the UNet reads {self.channels} channels, the autoencoder gives {vae.config.latent_channels}"
        ensure(fits, f"{told} (is it for inpainting?); mixing needs a plain text-to-image pipeline", ModelError)
        distilled = getattr(unet.config, "time_cond_proj_dim", None) is not None
        ensure(not distilled, "this UNet has guidance distilled into it; mixing needs one that has not", ModelError)
        self._two = getattr(unet.config, "addition_embed_type", None) == "text_time"
        ensure(self._two == (len(pairs) == 2), "SDXL's UNet goes with two text encoders, others with one", ModelError)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str = "auto",
        dtype: torch.dtype | str | None = None,
        scheduler: str | Any = None,
        max_batch: int = 8,
    ) -> MagicMix:
        """A folder in Stable Diffusion's (1, 2 or XL) layout, with ip_adapter/ip_adapter.safetensors where images are
        to be mixed.

        dtype: None for float32; scheduler: one of diffusers, by name (with the settings of the folder's own) or
        ready-made, None for the folder's own.
        """
        import torch

        from pops.diffusion.folders import ADAPTER, read_networks
        from pops.files import expanded

        where = expanded(folder)
        kind = pipeline_of(where)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        chosen = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.float32
        allowed = (torch.float32, torch.float16, torch.bfloat16)
        ensure(chosen in allowed, f"dtype is float32, float16 or bfloat16, got {dtype!r}")
        read = read_networks(
            where, device=device, dtype=chosen, adapter=(where / ADAPTER).is_file(), second="XL" in kind
        )
        parts = {**vars(read), "scheduler": scheduler_of(read.scheduler, scheduler)}
        return cls(**parts, max_batch=max_batch)

    def __call__(
        self,
        layout: Any,
        content: Any,
        *,
        seed: int | Sequence[int] = 0,
        num_images: int = 1,
        output: str = "pil",
        preview_every: int = 0,
        on_step: OnStep | None = None,
        on_preview: OnPreview | None = None,
        on_note: OnNote | None = None,
        **how: Any,
    ) -> Any:
        """One picture, or a list where layouts, contents or seeds are lists or num_images is above 1: all layouts
        with all contents, each with seeds s, s + 1, ... for every seed s.

        layout: a photo (path, PIL image), a text, an Embedding, or a latent as output="latent" gives it [C, h, w], or
        the file of one. content: a text ("tiger", with strengths "tiger:1.5 fur:-1"), an Embedding, several with
        weights ({"tiger": 0.7, "gold": 0.3}). output: "pil", "latent", or "both" (pairs of them). how: nu, k_min,
        k_max, steps, guidance, strength, reach, negative, inject, size; see MixSettings. on_note: None warns.
        Raises ConfigError for a setting, OperandError for an operand, PhotoError for a photo.
        """
        settings, told = MixSettings.of(how), Told(on_step, on_preview, preview_every, on_note)
        ensure(num_images >= 1, f"num_images must be 1 or more, got {num_images}")
        many_seeds = isinstance(seed, (list, tuple, range))
        given: list[Any] = list(seed) if isinstance(seed, (list, tuple, range)) else [seed]
        seeds = [check_seed(check_seed(s) + j) for s in given for j in range(num_images)]
        ensure(len(seeds) > 0, "the list of seeds is empty; give at least one")
        (layouts, many_layouts), (contents, many_contents) = listed(layout), listed(content)
        _check_count(len(layouts) * len(contents) * len(seeds))
        trios = [(i, j, s) for i in range(len(layouts)) for j in range(len(contents)) for s in seeds]
        results = self._pictures(layouts, contents, trios, settings, output, told)
        many = many_layouts or many_contents or many_seeds or num_images > 1
        return results if many else results[0]

    def each(
        self,
        layouts: Sequence[Any],
        contents: Sequence[Any],
        *,
        seeds: Sequence[int],
        output: str = "pil",
        on_step: OnStep | None = None,
        on_note: OnNote | None = None,
        **how: Any,
    ) -> list[Any]:
        """Picture i of layout i with content i and seed i, as a call with them gives it; all in few batches.

        An object that stands in several places of a list is encoded once.
        """
        settings, count = MixSettings.of(how), len(seeds)
        same = len(layouts) == len(contents) == count
        ensure(same, f"as many layouts, contents and seeds, got {len(layouts)}, {len(contents)} and {count}")
        _check_count(count)
        own = {id(one): one for one in layouts}, {id(one): one for one in contents}  # each object once
        place = [{key: n for n, key in enumerate(objects)} for objects in own]
        trios = [
            (place[0][id(x)], place[1][id(c)], check_seed(s)) for x, c, s in zip(layouts, contents, seeds, strict=True)
        ]
        told = Told(on_step, on_note=on_note)
        return self._pictures(list(own[0].values()), list(own[1].values()), trios, settings, output, told)

    def save_latent(self, latent: Tensor, path: str | Path, provenance: Mapping[str, Any] | None = None) -> None:
        """Writes a latent [C, h, w] as output="latent" gives it (.safetensors), to be a layout."""
        save_latent(latent, path, vae=self.vae, provenance=provenance)

    def _pictures(
        self,
        layouts: Sequence[Any],
        contents: Sequence[Any],
        trios: Sequence[tuple[int, int, int]],
        how: MixSettings,
        output: str,
        told: Told,
    ) -> list[Any]:
        """trios: (number of a layout, number of a content, seed) of each picture."""
        import torch

        # 1) Operands, checked before a network runs.
        known = output in OUTPUTS
        ensure(known, f"output must be {', '.join(map(repr, OUTPUTS))}, got {output!r}{suggest(output, OUTPUTS)}")
        made = [content_of(c, role="content", width=self.dim, space=self.space) for c in contents]
        with self._running(), torch.no_grad(), memory(min(len(trios), self.max_batch)), hooks(self.unet):
            # 2) The jobs; those of one kind make batches.
            laid = [self._layout(item, how) for item in layouts]
            tell_cut(self.texts, [*made, *(item.moving for item in laid)], Prompt.of(how.negative), told.on_note)
            jobs = [Job(n, laid[i], made[j], seed) for n, (i, j, seed) in enumerate(trios)]
            alike = [list(run) for _, run in groupby(sorted(jobs, key=lambda job: job.kind), key=lambda job: job.kind)]
            batches = [run[i : i + self.max_batch] for run in alike for i in range(0, len(run), self.max_batch)]
            probe = Run(self.scheduler, how.steps, self.unet.device, how.window.start)
            calls = [len(probe.calls) + (self._layout_calls(probe, how) if b[0].layout.moving else 0) for b in batches]

            # 3) The pictures.
            results: list[Any] = [None] * len(jobs)
            for i, batch in enumerate(batches):
                latents = self._denoise(batch, how, Watch(self.vae, sum(calls[:i]), sum(calls), told))
                for job, result in zip(batch, self._finished(latents, batch, output), strict=True):
                    results[job.number] = result
        return results

    def _finished(self, latents: Tensor, jobs: Sequence[Job], output: str) -> list[Any]:
        """Latents of a batch as they were asked for."""
        kept = list(latents.cpu())
        if output == "latent":
            return kept
        pictures = [resized(x, job.layout.restored) for x, job in zip(decode(self.vae, latents), jobs, strict=True)]
        return pictures if output == "pil" else list(zip(pictures, kept, strict=True))

    # arXiv 2210.16056 section 3: start at k_max from the noised layout, mix down to k_min, go on with the content.
    def _denoise(self, jobs: Sequence[Job], how: MixSettings, watch: Watch) -> Tensor:
        """Jobs of one kind -> latents [B, C, h, w], float32, in the VAE's scaled space."""
        import torch

        # 1) A scheduler of this call's own, each picture's one noise, and the layout at every call of the window.
        device, window, nus = self.unet.device, how.window, check_nu(how.nu)
        gens = generators([job.seed for job in jobs])
        run = Run(self.scheduler, how.steps, device, window.start)
        noise = randn_items(jobs[0].layout.grid, gens).to(device)
        if jobs[0].layout.moving:
            kept = self._trajectory(jobs, how, noise, gens, run, watch)
            layout_at: Callable[[int], Tensor] = kept.__getitem__
            x = kept[run.calls.start]
        else:
            x0 = torch.stack([job.layout.x0 for job in jobs if job.layout.x0 is not None]).to(device)
            layout_at = lambda call: run.noised(x0, noise, call)  # noqa: E731
            x = layout_at(run.calls.start) if run.calls else x0

        # 2) From k_max to the end.
        rows = self._rows([job.content for job in jobs], how, how.strength, jobs[0].layout.grid)
        for call in run.calls:
            step = run.step_of(call)
            nu = None if step is None else window.nu(nus, step)
            seen = x if nu is None else nu * x + (1 - nu) * layout_at(call)
            out = self._predict(seen, call, run, rows)
            x, guess = run.step(out, call, seen if how.inject == "state" else x, gens)
            watch(x if guess is None else guess)
        ensure(bool(torch.isfinite(x).all()), overflow(self.unet.dtype), PopsError)
        return x.float()

    # Section 3, text-text: the layout's own way from noise; what it is at each level of the window is the layout.
    def _trajectory(
        self,
        jobs: Sequence[Job],
        how: MixSettings,
        noise: Tensor,
        gens: Sequence[torch.Generator],
        to: Run,
        watch: Watch,
    ) -> dict[int, Tensor]:
        """-> the layouts [B, C, h, w] before each call of the window that starts with `to`."""
        run = Run(self.scheduler, how.steps, noise.device)
        rows = self._rows([job.layout.moving for job in jobs], how, 1.0, jobs[0].layout.grid)
        x = run.prior(noise)
        kept: dict[int, Tensor] = {}
        for call in run.calls[: self._layout_calls(to, how)]:
            if call >= to.calls.start:
                kept[call] = x
            x, guess = run.step(self._predict(x, call, run, rows), call, x, gens)
            watch(x if guess is None else guess)
        kept[self._layout_calls(to, how)] = x
        return kept

    @staticmethod
    def _layout_calls(run: Run, how: MixSettings) -> int:
        """Network calls until the last layout that is looked at; all of them where the content has no step."""
        if not run.calls:
            return run.calls.stop
        return max(how.window.start, how.window.end - 1) * run.order

    # Guidance, arXiv 2207.12598 Eq. 6; with several terms arXiv 2206.01714 Eq. 11, their weights as shares of it.
    def _predict(self, x: Tensor, call: int, run: Run, rows: Rows) -> Tensor:
        """x [B, C, h, w] at this call -> the network's output, guided, float32."""
        import torch

        branches = len(rows.hidden) // len(x)
        seen = torch.cat([run.scaled(x, call)] * branches).to(self.unet.dtype)
        with weighing(rows.weights):
            out = self.unet(
                seen,
                run.timesteps[call],
                encoder_hidden_states=rows.hidden,
                added_cond_kwargs=rows.added,
                return_dict=False,
            )[0]
        first, *terms = out.float().chunk(branches)
        if not rows.guided:
            return first  # type: ignore[no-any-return]
        toward = sum(share * (term - first) for share, term in zip(rows.shares, terms, strict=True))
        guided: Tensor = first + rows.guidance * toward
        return guided

    def _rows(self, contents: Sequence[Content], how: MixSettings, strength: float, grid: tuple[int, int, int]) -> Rows:
        """Conditions of B pictures with these latents' shape."""
        size = (grid[1] * self.factor, grid[2] * self.factor) if self._two else None
        return rows_of(contents, how, strength, texts=self.texts, dim=self.dim, size=size, like=self.unet)

    # --- layouts and pictures
    # ------------------------------------------------------------------------------------------

    def _layout(self, operand: Any, how: MixSettings) -> Layout:
        """A layout as the user gave it -> its latent, or the content that will draw it."""
        import torch
        from PIL import Image

        from pops.images import read_rgb

        if isinstance(operand, (str, Path)) and is_latent(operand):
            operand = load_latent(operand, vae=self.vae)
        if isinstance(operand, torch.Tensor):
            return latent_layout(operand, self.channels, self.factor, self.unet.device)
        if isinstance(operand, (Image.Image, Path)) or (isinstance(operand, str) and is_photo(operand)):
            photo = read_rgb(operand.strip() if isinstance(operand, str) else operand)
            (height, width), out = working_size((photo.height, photo.width), how.size, self.factor)
            x0 = encode_photo(self.vae, photo_latent_input(photo, (height, width)))
            return Layout((len(x0), x0.shape[1], x0.shape[2]), x0, restored=(out[1], out[0]))
        moving = content_of(operand, role="layout", width=self.dim, space=self.space)
        own = (how.size, how.size) if isinstance(how.size, int) else how.size or self.native
        (height, width), out = working_size(own, own, self.factor)
        grid = (self.channels, height // self.factor, width // self.factor)
        return Layout(grid, moving=moving, restored=(out[1], out[0]))


def _check_count(count: int) -> None:
    ensure(count <= MAX_PICTURES, f"{count} pictures at once, at most {MAX_PICTURES}; ask for fewer")
