"""Prompts: the strengths written behind words ("tiger:1.5 fur:-1"), and what they do to an encoded text.

Knows no UNet and no schedule.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pops.diffusion.checks import is_number
from pops.errors import ConfigError, OperandError

if TYPE_CHECKING:
    from torch import Tensor

    from pops.diffusion.text import Text, TextEncoders

MAX_STRENGTH = 2.0  # the paper's range is [-2, 2]
# A word with a letter in it, a colon and a number; "5:30" is a time and no strength.
_WEIGHTED = re.compile(r"(?=[^:]*[^\W\d_])(.+?):([+-]?(?:\d+\.?\d*|\.\d+))([,.;!?]*)")


def check_strength(value: object, name: str = "strength") -> float:
    """Returns the value as a number from -2 to 2; ConfigError, with the setting's name, for anything else."""
    if not is_number(value) or abs(value) > MAX_STRENGTH:
        raise ConfigError(f"{name} must be from -2 (the concept removed) to 2 (stronger), got {value!r}")
    return float(value)


@dataclass(frozen=True)
class Prompt:
    """The words of a text, and each one's own strength; None for that of the call."""

    words: tuple[str, ...]
    strengths: tuple[float | None, ...]

    @property
    def text(self) -> str:
        """The words without their strengths, as the text encoder reads them."""
        return " ".join(self.words)

    @staticmethod
    def of(text: str) -> Prompt:
        """Reads "tiger:1.5 fur:-1"; ConfigError for a strength out of range."""
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

    def resolved(self, strength: float) -> list[float]:
        """Returns each word's strength, given the call's."""
        return [strength if own is None else own for own in self.strengths]


def token_strengths(prompt: Prompt, encoded: Text, strength: float) -> list[float] | None:
    """Returns the factor of each token's attention map: its word's strength; 1 at the text's ends and in the padding.

    None where all are 1. Raises OperandError where words cannot be told apart among the tokens.
    """
    each = prompt.resolved(strength)
    if all(s == 1 for s in each):
        return None
    tokens = [s for s, n in zip(each, _kept(prompt, encoded), strict=True) for _ in range(n)]
    return [1.0, *tokens, *[1.0] * (len(encoded.hidden) - 1 - len(tokens))]


def reached(texts: TextEncoders, prompt: Prompt, encoded: Text, strength: float) -> tuple[Tensor, Tensor | None]:
    """Returns hidden states [tokens, width] and pooled text, with strengths applied to what a word adds to *other*
    tokens.

    An encoder spreads a word's meaning over all tokens after it, most of all over the text's end and the padding. For
    words of strength s these hidden states h become h + (s - 1) (h - h of the text without the words): 1 leaves them
    as they are, 0 gives the text without the words. The words' own tokens are left to `token_strengths`.
    """
    import torch

    each = prompt.resolved(strength)
    hidden, pooled = encoded.hidden.clone(), encoded.pooled
    for s in sorted(set(each) - {1.0}):
        stays = [own != s for own in each]
        rest = Prompt(tuple(word for word, stay in zip(prompt.words, stays, strict=True) if stay), ())
        less = texts.encode(rest.text)
        here, there = _alike(_kept(prompt, encoded), _kept(prompt, less), len(encoded.hidden), stays)
        added = encoded.hidden[here] - less.hidden[there]
        hidden.index_add_(0, torch.tensor(here, device=hidden.device), (s - 1) * added)
        if pooled is not None and encoded.pooled is not None and less.pooled is not None:
            pooled = pooled + (s - 1) * (encoded.pooled - less.pooled)
    return hidden, pooled


def _kept(prompt: Prompt, encoded: Text) -> tuple[int, ...]:
    """Returns how many tokens of each word were read; OperandError where the tokenizer does not split at spaces."""
    if encoded.kept is None:
        raise OperandError(f"the tokenizer does not split {prompt.text!r} at its spaces; leave strength at 1")
    return encoded.kept


def _alike(
    whole: Sequence[int], less: Sequence[int], length: int, stays: Sequence[bool]
) -> tuple[list[int], list[int]]:
    """Returns the places of the same tokens in a text and in the text of the words that stay: words, end and padding.

    whole, less: tokens read of each word of the two texts; length: tokens of an encoded text.
    """
    here, there = list[int](), list[int]()
    a, b, left = 1, 1, iter(less)
    for n, stay in zip(whole, stays, strict=True):
        m = next(left) if stay else 0
        here += range(a, a + min(n, m))
        there += range(b, b + min(n, m))
        a, b = a + n, b + m
    here += range(a, length)
    there += [min(b + k, length - 1) for k in range(length - a)]
    return here, there
