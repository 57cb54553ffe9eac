"""Texts: the strengths written behind words ("tiger:1.5 fur:-1"), and a pipeline's text encoders, one or two.

Knows no UNet and no schedule.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from pops.errors import ConfigError, OperandError, ensure

if TYPE_CHECKING:
    from torch import Tensor

MAX_STRENGTH = 2.0  # the paper's range is [-2, 2]
CACHED = 64  # texts kept encoded
# A word with a letter in it, a colon and a number; "5:30" is a time and no strength.
_WEIGHTED = re.compile(r"(?=[^:]*[^\W\d_])(.+?):([+-]?(?:\d+\.?\d*|\.\d+))([,.;!?]*)")


def check_strength(value: object, where: str = "strength") -> float:
    """A number from -2 to 2; ConfigError that says where it stands."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fine = number and -MAX_STRENGTH <= value <= MAX_STRENGTH  # type: ignore[operator]  # a number by then
    ensure(fine, f"{where} must be from -2 (the concept removed) to 2 (stronger), got {value!r}", ConfigError)
    return float(value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Prompt:
    """A text's words, and the strength each has of its own (None: the call's)."""

    words: tuple[str, ...]
    strengths: tuple[float | None, ...]

    @property
    def text(self) -> str:
        """What the encoder reads."""
        return " ".join(self.words)

    @staticmethod
    def of(text: str) -> Prompt:
        """ "tiger:1.5 fur:-1" -> the words and their strengths; ConfigError for a strength out of range."""
        words: list[str] = []
        strengths: list[float | None] = []
        for word in text.split():
            match = _WEIGHTED.fullmatch(word)
            if match is None:
                words.append(word)
                strengths.append(None)
            else:
                words.append(match[1] + match[3])
                strengths.append(check_strength(float(match[2]), f"the strength of {match[1]!r}"))
        return Prompt(tuple(words), tuple(strengths))


@dataclass(frozen=True)
class Encoded:
    """hidden [tokens, width]; pooled [width] of SDXL's second encoder; kept: tokens of each word that were read."""

    hidden: Tensor
    pooled: Tensor | None
    kept: tuple[int, ...] | None  # None: tokens cannot be told apart by words
    cut: str  # the words that the encoder did not read to their end
    limit: int  # tokens it reads


class TextEncoders:
    """One CLIP text encoder, or SDXL's two. Each text is encoded once. Threads may share it."""

    def __init__(self, pairs: Sequence[tuple[Any, Any]], *, empty_is_zero: bool = False) -> None:
        """pairs: (tokenizer, encoder), SDXL's second one behind."""
        self.pairs, self.empty_is_zero = tuple(pairs), empty_is_zero
        self._texts: dict[tuple[str, ...], Encoded] = {}
        self._lock = threading.Lock()

    def encode(self, prompt: Prompt, *, negative: bool = False) -> Encoded:
        """The words joined by spaces, encoded; negative: an empty text is zeros where the pipeline says so."""
        import torch

        key = (*prompt.words, "\0" if negative else "")
        with self._lock:
            if key in self._texts:
                return self._texts[key]
        with torch.no_grad():
            hidden, pooled = self._hidden(prompt.text)
        if negative and self.empty_is_zero and not prompt.text:
            hidden, pooled = torch.zeros_like(hidden), None if pooled is None else torch.zeros_like(pooled)
        encoded = Encoded(hidden, pooled, *self._words(prompt), self._limit(self.pairs[0]) - 2)
        with self._lock:
            if len(self._texts) >= CACHED:
                self._texts.pop(next(iter(self._texts)))
            self._texts[key] = encoded
        return encoded

    # One encoder: its last hidden states. Two (SDXL, arXiv 2307.01952 section 2.1): the last but one of both, side by
    # side, and the second one's pooled projection.
    def _hidden(self, text: str) -> tuple[Tensor, Tensor | None]:
        import torch

        found, pooled = [], None
        for tokenizer, encoder in self.pairs:
            limit = self._limit((tokenizer, encoder))
            ids = tokenizer(text, padding="max_length", max_length=limit, truncation=True, return_tensors="pt")
            device = next(encoder.parameters()).device
            masked = getattr(encoder.config, "use_attention_mask", False)
            out = encoder(
                ids.input_ids.to(device),
                attention_mask=ids.attention_mask.to(device) if masked else None,
                output_hidden_states=len(self.pairs) > 1,
            )
            found.append(out.hidden_states[-2] if len(self.pairs) > 1 else out[0])
            pooled = out[0] if len(self.pairs) > 1 else None
        return torch.cat(found, dim=-1)[0], None if pooled is None else pooled[0]

    @staticmethod
    def _limit(pair: tuple[Any, Any]) -> int:
        """Tokens that an encoder reads, the first and the last among them."""
        tokenizer, encoder = pair
        return int(min(tokenizer.model_max_length, encoder.config.max_position_embeddings))

    def _words(self, prompt: Prompt) -> tuple[tuple[int, ...] | None, str]:
        """Tokens of each word that fit, and the words that do not. CLIP's tokenizer splits at every space."""
        tokenizer = self.pairs[0][0]
        room = self._limit(self.pairs[0]) - 2  # between the first and the last token
        each = [list(tokenizer(word, add_special_tokens=False).input_ids) for word in prompt.words]
        ends = [0, *accumulate(len(ids) for ids in each)]
        kept = tuple(min(b, room) - min(a, room) for a, b in pairwise(ends))
        cut = " ".join(word for word, ids, n in zip(prompt.words, each, kept, strict=True) if n < len(ids))
        whole = tokenizer(prompt.text, truncation=True, max_length=room + 2).input_ids
        same = list(whole[1:-1]) == [i for ids in each for i in ids][:room]
        return (kept if same else None), cut


def token_strengths(prompt: Prompt, encoded: Encoded, strength: float) -> list[float] | None:
    """What each token's attention map is multiplied by: the word's own strength, or `strength`; 1 at the text's ends
    and in the padding. None where all are 1. OperandError where words cannot be found among the tokens."""
    each = [strength if own is None else own for own in prompt.strengths]
    if all(s == 1 for s in each):
        return None
    if encoded.kept is None:
        raise OperandError(f"the tokenizer does not split {prompt.text!r} at its spaces; leave strength at 1")
    tokens = [s for s, n in zip(each, encoded.kept, strict=True) for _ in range(n)]
    length = encoded.hidden.shape[0]
    return [1.0, *tokens, *[1.0] * (length - 1 - len(tokens))]


def reached(texts: TextEncoders, prompt: Prompt, encoded: Encoded, strength: float) -> tuple[Tensor, Tensor | None]:
    """The states [tokens, width] and the pooled text, with the strengths in what *other* tokens say because of a word.

    An encoder spreads a word's meaning over all that follows it, the text's end and the padding most of all. Words of
    strength s have these states h moved along what the words brought to them: h + (s - 1) (h - h of the text without
    them). 1 leaves them, 0 is the text without the words. The words' own tokens are `token_strengths`' matter.
    """
    import torch

    each = [strength if own is None else own for own in prompt.strengths]
    hidden, pooled = encoded.hidden.clone(), encoded.pooled
    for s in sorted(set(each) - {1.0}):
        stays = [own != s for own in each]
        less = texts.encode(Prompt(tuple(w for w, stay in zip(prompt.words, stays, strict=True) if stay), ()))
        if encoded.kept is None or less.kept is None:
            raise OperandError(f"the tokenizer does not split {prompt.text!r} at its spaces; leave strength at 1")
        here, there = _alike(encoded, less, stays)
        moved = encoded.hidden[here] - less.hidden[there]
        hidden.index_add_(0, torch.tensor(here, device=hidden.device), (s - 1) * moved)
        if pooled is not None and encoded.pooled is not None and less.pooled is not None:
            pooled = pooled + (s - 1) * (encoded.pooled - less.pooled)
    return hidden, pooled


def _alike(whole: Encoded, less: Encoded, stays: Sequence[bool]) -> tuple[list[int], list[int]]:
    """Places of the same tokens in a text and in the text of those of its words that stay: words, end and padding."""
    here, there = list[int](), list[int]()
    a, b, left = 1, 1, iter(less.kept or ())
    for n, stay in zip(whole.kept or (), stays, strict=True):
        m = next(left) if stay else 0
        here += range(a, a + min(n, m))
        there += range(b, b + min(n, m))
        a, b = a + n, b + m
    length = whole.hidden.shape[0]
    here += range(a, length)
    there += [min(b + k, length - 1) for k in range(length - a)]
    return here, there
