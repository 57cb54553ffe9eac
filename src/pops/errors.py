"""The errors of pops: one tree, and one clear line each (what is wrong, where, what to do).

PopsError                  exit code 1: a fault of pops or of the machine
 ├─ Cancelled              exit code 130: the user stopped it
 └─ UserError              exit code 2: something in the request must change
     ├─ ExpressionError    the text of an expression; carries the text and the span of the mistake
     ├─ OperandError       wrong number or kind of operands
     ├─ PhotoError         a file that is not a photo we can read
     ├─ EmbeddingError     a vector, or a file of vectors, that is not what it should be
     ├─ SpaceError         vectors of different spaces
     ├─ ModelError         an unknown, missing or incomplete model
     ├─ CheckpointError    weights that do not fit: missing, surplus or misshaped tensors
     ├─ ConfigError        a setting outside its range
     └─ MissingExtra       an optional package is not installed
"""

from __future__ import annotations

import ast
import difflib
import re
import unicodedata
from collections.abc import Iterable
from itertools import islice

_MEANT = re.compile(r"""\(did you mean ('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\?\)""")  # as `suggest` writes it
Span = tuple[int, int]  # [start, end) in characters of the expression's text
SHOWN = 200  # characters of anybody's input that a message quotes
MAX_MESSAGE = 1000  # characters of a message
_LINE = 160  # characters of a long line that are shown around a mistake
_COMPARED = 2000  # names that are compared with a mistyped one
_UNBROKEN = re.compile(rf"\S{{{SHOWN + 1},}}")


def shown(value: object, most: int = SHOWN) -> str:
    """Returns text for a message: on one line, with what cannot be printed escaped, and cut at `most` characters."""
    try:
        text = str(value)
    except (ValueError, RecursionError):  # Python writes no number of more than 4300 digits
        text = f"a very large {type(value).__name__}"
    if len(text) > most:
        text = text[: most - 1] + "…"
    return _printable(text)


def _printable(text: str) -> str:
    """Escapes what cannot be printed; lone surrogates stay, which are bytes of file names."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF else ascii(c)[1:-1] for c in text)


def _message(text: str) -> str:
    """Returns a message as it is told, whatever it quotes: one line, no longer than MAX_MESSAGE.

    What is too long loses its middle, for its end says what to do.
    """
    text = _UNBROKEN.sub(lambda run: f"{run[0][: SHOWN - 60]}…{run[0][-59:]}", text)
    if len(text) > MAX_MESSAGE:
        text = f"{text[: MAX_MESSAGE * 2 // 3]} … {text[3 - MAX_MESSAGE // 3 :]}"
    return _printable(text)


class PopsError(Exception):
    """Base of everything that pops raises on purpose.

    span: the characters of the expression's text that it is about, if any.
    """

    exit_code = 1

    def __init__(self, message: str, *, span: Span | None = None) -> None:
        super().__init__(_message(message))
        self.span = span

    @property
    def suggestion(self) -> str | None:
        """What was probably meant, where the message asks "did you mean ...?"."""
        found = _MEANT.search(str(self))
        return None if found is None else str(ast.literal_eval(found[1]))

    def pretty(self) -> str:
        """Returns what a terminal shows: one line, or more where a place in a text can be shown."""
        return str(self)


class Cancelled(PopsError):
    """The user stopped the work between two steps; nothing half-written remains."""

    exit_code = 130  # what a shell reports after Ctrl-C

    def __init__(self, message: str = "cancelled", *, span: Span | None = None) -> None:
        super().__init__(message, span=span)


class UserError(PopsError):
    """Something in the request must change."""

    exit_code = 2


class ExpressionError(UserError):
    """A mistake in an expression: `text` is the whole expression and `span` the characters that are wrong."""

    def __init__(self, message: str, text: str = "", span: Span | None = None) -> None:
        super().__init__(message, span=span)
        self.text = text

    def pretty(self) -> str:
        """Returns the message, the line of the text with the mistake, and carets under it."""
        return caret(str(self), self.text, self.span)


class OperandError(UserError):
    """Operands that do not fit the call: their number, kind or shape, or a value that overflows."""


class PhotoError(UserError):
    """A photo that cannot be read, or an image that cannot be written."""


class EmbeddingError(UserError):
    """Vectors of a wrong shape or with NaN, or a file without an embedding."""


class SpaceError(UserError):
    """Embeddings of different spaces used together, or a space's folder whose parts do not match."""


class ModelError(UserError):
    """An unknown model, one that is not on this machine, or an incomplete folder."""


class CheckpointError(UserError):
    """Weights that do not fit their model: missing, surplus or misshaped tensors."""


class ConfigError(UserError):
    """A setting outside its range."""


class MissingExtra(UserError):
    """An optional package is not installed; the message names the extra to install."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'pops-diffusion[{extra}]'")
        self.package, self.extra = package, extra


def ensure(condition: bool, message: str, kind: type[PopsError] = ConfigError) -> None:
    """Raises `kind(message)` unless the condition holds."""
    if not condition:
        raise kind(message)


def suggest(word: str, options: Iterable[str]) -> str:
    """Returns " (did you mean 'x'?)" for the most similar option, or "" if none is similar."""
    if len(word) > SHOWN:
        return ""
    by_lower = {option.lower(): option for option in islice(options, _COMPARED) if len(option) <= 2 * len(word) + 2}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean {by_lower[near[0]]!r}?)" if near else ""


def caret(message: str, text: str, span: Span | None) -> str:
    """Returns the message, the line of `text` in which the span begins, and carets under it, both indented by two.

    Of a long line only the part around the mistake is shown.
    """
    if span is None or not text:
        return message
    start = min(max(span[0], 0), len(text))
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", start)
    line = text[first : last if last >= 0 else len(text)]
    here = start - first
    end = min(max(span[1] - first, here + 1), max(len(line), here + 1))
    if len(line) > _LINE:
        left, right = max(0, here - _LINE // 3), min(len(line), here + _LINE * 2 // 3)
        line = "…" * (left > 0) + line[left:right] + "…" * (right < len(line))
        here, end = here - left + (left > 0), min(end, right) - left + (left > 0)
    line = "".join(c if c.isprintable() else " " for c in line)
    under = " " * _cells(line[:here]) + "^" * max(1, _cells(line[here:end]))
    return "\n  ".join([message, line, under])


def _cells(text: str) -> int:
    """Returns how many columns of a terminal the text takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)
