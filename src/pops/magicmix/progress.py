"""What a mix reports while it runs: network calls done, and previews."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pops.errors import ensure
from pops.magicmix.latents import decode
from pops.progress import OnPreview, OnStep

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from torch import Tensor


class Progress:
    """Counts the network calls of a mix, as its steps; reports them, and shows previews."""

    def __init__(
        self,
        vae: AutoencoderKL,
        on_step: OnStep | None = None,
        on_preview: OnPreview | None = None,
        preview_every: int = 0,
    ) -> None:
        """preview_every: network calls; 0 for no previews. `total` is set when it is known."""
        ensure(preview_every >= 0, f"preview_every must be 0 (none) or more steps, got {preview_every}")
        self.vae, self.on_step, self.on_preview, self.every = vae, on_step, on_preview, preview_every
        self.done = self.total = 0

    def __call__(self, guess: Tensor) -> None:
        """Counts one more call. guess [B, C, h, w]: the latents at the end, as the scheduler expects them."""
        self.done += 1
        if self.on_preview and self.every and self.done % self.every == 0:
            self.on_preview(decode(self.vae, guess.float()), self.done, self.total)
        if self.on_step:
            self.on_step(self.done, self.total)
