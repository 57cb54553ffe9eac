"""What a mix tells while it runs: network calls done, previews, texts that were cut, a memory that is full."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pops.errors import PopsError, ensure
from pops.magicmix.pictures import decode

if TYPE_CHECKING:
    from torch import Tensor

    from pops.magicmix.operands import Content
    from pops.magicmix.prompt import Prompt, TextEncoders

OnStep = Callable[[int, int], None]  # (network calls done, in all); raising from it stops the mix
OnPreview = Callable[[int, list[Any]], None]  # (network calls done, the pictures of this batch as they look by then)
OnNote = Callable[[str], None]  # one line for the user


@dataclass(frozen=True)
class Told:
    """Who hears of a mix's progress; on_note None: texts that are cut become warnings."""

    on_step: OnStep | None = None
    on_preview: OnPreview | None = None
    preview_every: int = 0
    on_note: OnNote | None = None

    def __post_init__(self) -> None:
        every = self.preview_every
        ensure(every >= 0, f"preview_every must be 0 (none) or more steps, got {every}")


class Watch:
    """Counts network calls, tells progress, and shows previews."""

    def __init__(self, vae: Any, before: int, total: int, told: Told) -> None:
        self.vae, self.done, self.total, self.told = vae, before, total, told

    def __call__(self, guess: Tensor) -> None:
        """One more call is done; guess [B, C, h, w]: the latents as the scheduler guesses them."""
        self.done += 1
        told = self.told
        if told.on_preview and told.preview_every and self.done % told.preview_every == 0:
            told.on_preview(self.done, decode(self.vae, guess.float()))
        if told.on_step:
            told.on_step(self.done, self.total)


def tell_cut(texts: TextEncoders, contents: Sequence[Content], negative: Prompt, on_note: OnNote | None) -> None:
    """One line for each text that the encoder does not read to its end."""
    prompts = [term.prompt for content in contents for term in content] + [negative]
    for prompt in dict.fromkeys(prompts):
        encoded = texts.encode(prompt)
        if encoded.cut:
            line = f"the text encoder reads {encoded.limit} tokens; it was cut before {_start(encoded.cut)!r}"
            if on_note:
                on_note(line)
            else:
                warnings.warn(line, stacklevel=4)


@contextmanager
def memory(count: int) -> Iterator[None]:
    """A full memory becomes one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as e:  # torch.OutOfMemoryError is a RuntimeError
        if isinstance(e, MemoryError) or "memory" in str(e).lower():
            raise PopsError(f"not enough memory to mix {count} pictures at once; ask for fewer or smaller ones") from e
        raise


def _start(text: str) -> str:
    """The first words of what was left out."""
    words = text.split()
    return " ".join(words[:6]) + (" ..." if len(words) > 6 else "")
