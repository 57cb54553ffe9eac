"""CLIP's text encoders of a Stable Diffusion pipeline, one or SDXL's two: each text is encoded once and kept.

Knows no UNet. A text that is longer than an encoder reads is cut, and `tell_cut` says so.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from pops.loading.lock import TOKENIZING
from pops.progress import OnNote

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

CACHED = 64  # texts kept encoded
_SHOWN = 6  # words of what was cut, in a note


@dataclass(frozen=True)
class Text:
    """A text as a UNet reads it."""

    hidden: Tensor  # [tokens, width] hidden states
    pooled: Tensor | None  # [width] of SDXL's second encoder
    kept: tuple[int, ...] | None  # tokens read of each word; None where the tokenizer does not split at spaces
    cut: str  # the words that were not read to their end
    limit: int  # tokens that are read, without the first and the last


class TextEncoders:
    """Encodes texts with one CLIP text encoder, or with SDXL's two. Threads may share it."""

    def __init__(
        self,
        pairs: Sequence[tuple[CLIPTokenizer | None, CLIPTextModel | CLIPTextModelWithProjection | None]],
        *,
        empty_is_zero: bool = False,
        running: Callable[[Any], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """pairs: tokenizer and encoder, SDXL's second one last, or None; empty_is_zero: whether an empty negative text
        is zeros; running: keeps an encoder on its device inside, where it is not there all the time.
        """
        self.pairs = [(t, encoder) for t, encoder in pairs if t is not None and encoder is not None]
        self.empty_is_zero, self._running = empty_is_zero, running
        self._texts: dict[str, Text] = {}
        self._lock = threading.Lock()

    def encode(self, text: str, *, negative: bool = False) -> Text:
        """Returns the text encoded; with `negative`, zeros for an empty one where the pipeline has it so."""
        import torch

        with self._lock:
            found = self._texts.get(text)
        if found is None:
            with torch.no_grad():
                found = self._encoded(text)
            with self._lock:
                if len(self._texts) >= CACHED:
                    self._texts.pop(next(iter(self._texts)))
                self._texts[text] = found
        if not (negative and self.empty_is_zero and not text):
            return found
        pooled = None if found.pooled is None else torch.zeros_like(found.pooled)
        return replace(found, hidden=torch.zeros_like(found.hidden), pooled=pooled)

    # One encoder: its last hidden states. Two (SDXL, arXiv 2307.01952 section 2.1): the last but one of both, side by
    # side, and the second one's pooled projection.
    def _encoded(self, text: str) -> Text:
        import torch

        two = len(self.pairs) > 1
        hidden: list[Tensor] = []
        tokens: list[Sequence[int]] = []  # of each encoder, without padding
        pooled: Tensor | None = None
        for tokenizer, encoder in self.pairs:
            limit = token_limit(tokenizer, encoder)
            with TOKENIZING:
                ids = tokenizer(text, padding="max_length", max_length=limit, truncation=True, return_tensors="pt")
            masked = not two and getattr(encoder.config, "use_attention_mask", False)
            with self._running(encoder):
                device = next(encoder.parameters()).device
                mask = ids.attention_mask.to(device) if masked else None
                out = encoder(ids.input_ids.to(device), attention_mask=mask, output_hidden_states=two)
            hidden.append((out.hidden_states[-2] if two else out[0])[0])
            pooled = out[0][0] if two else None
            tokens.append(ids.input_ids[0][: int(ids.attention_mask.sum())].tolist())
        room = token_limit(*self.pairs[0]) - 2  # between the first and the last token
        return Text(torch.cat(hidden, dim=-1), pooled, *self._words(text, tokens[0][1:-1], room), room)

    def _words(self, text: str, read: Sequence[int], room: int) -> tuple[tuple[int, ...] | None, str]:
        """Returns how many tokens of each word were read, and the words that were not read to their end.

        read: the text's tokens without the first and the last. CLIP's tokenizer splits at every space, others may not.
        """
        words = text.split()
        with TOKENIZING:
            each = self.pairs[0][0](words, add_special_tokens=False).input_ids if words else []
        ends = [0, *accumulate(len(ids) for ids in each)]
        kept = tuple(min(b, room) - min(a, room) for a, b in pairwise(ends))
        cut = " ".join(word for word, ids, n in zip(words, each, kept, strict=True) if n < len(ids))
        same = list(read) == [i for ids in each for i in ids][:room]
        return (kept if same else None), cut


def token_limit(tokenizer: CLIPTokenizer, encoder: CLIPTextModel | CLIPTextModelWithProjection) -> int:
    """Returns how many tokens the encoder reads, the first and the last among them. A tokenizer's own limit may be
    absent, or a huge number that stands for none.
    """
    positions: int = encoder.config.max_position_embeddings
    return int(min(getattr(tokenizer, "model_max_length", None) or positions, positions))


def tell_cut(texts: Iterable[Text], on_note: OnNote | None) -> None:
    """Calls on_note with one line for each text that was cut; warns where there is no on_note."""
    for limit, cut in dict.fromkeys((text.limit, text.cut) for text in texts if text.cut):
        words = cut.split()
        start = " ".join(words[:_SHOWN]) + (" ..." if len(words) > _SHOWN else "")
        line = f"the text encoder reads {limit} tokens; the text was cut before {start!r}"
        if on_note:
            on_note(line)
        else:
            warnings.warn(line, stacklevel=4)
