"""Tells plain words (a red teapot) from an expression. Touches no file and knows no operators."""

from __future__ import annotations

import re

from pops.errors import ExpressionError
from pops.expression.grammar import parse
from pops.expression.nodes import Name, Word, has_path_suffix

_SIGNS = set("()=*+@${}[]<>;|/\\~")  # of expressions and paths; with one of them, the parser's message is what helps
_FILE = re.compile(r"[^.]\.[A-Za-z][A-Za-z0-9]{1,7}$")  # how a file's name ends: tea.pgn


def plain_words(text: str) -> str | None:
    """Returns the words if a text is a description in plain words, else None: it is an expression, or a faulty one.

    Words are a text in quotes, a lone name, and what does not parse but has letters and neither the signs of the
    language nor a part that looks like a file's name.
    """
    words = " ".join(text.split())
    parts = [part.strip(",;:!?'\"") for part in words.split()]
    like_files = any(has_path_suffix(part) or _FILE.search(part) for part in parts)
    try:
        node = parse(text)
    except ExpressionError:
        plain = any(c.isalpha() for c in words) and not _SIGNS.intersection(words) and not like_files
        return words if plain else None
    match node:
        case Word(told):
            return told if told.strip() else None
        case Name(seed=None):
            return None if like_files else words
    return None
