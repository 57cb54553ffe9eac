"""By what a recipe is known again: a key that equal ones share, and the words and operators that a search looks for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pops.errors import PopsError
from pops.expression import parse
from pops.expression.grammar import to_text
from pops.expression.nodes import Call, walk
from pops.version import __version__

_TOLD = ("expression", "inputs", "versions", "found")  # of a recipe: what changes no image, and what is canonical below
_NEUTRAL = ("model", "max_batch", "threads", "offload")  # of what is loaded: what changes no image, or is told apart


def key_of(model: str, version: str, recipe: Mapping[str, Any], loaded: Mapping[str, Any] | None = None) -> str:
    """Returns what two recipes have in common if they make the same images: digest of model, versions, recipe, and what
    is loaded.

    loaded: the fields of the worker's Loading, such as dtype, which act where a recipe names none.
    """
    rest = {name: value for name, value in recipe.items() if name not in _TOLD}
    own = {name: value for name, value in (loaded or {}).items() if name not in _NEUTRAL}
    told = [__version__, model, version, to_text(parse(recipe["expression"]).root), rest, own]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def words_of(expression: str, names: Mapping[str, str]) -> str:
    """Returns the text that a search looks into: the expression, and its photos' names; in small letters."""
    text = " ".join([expression, *names.values()]).lower()
    return text.encode("utf-8", "replace").decode()  # SQLite takes no lone surrogates


def operators_in(expression: str) -> list[str]:
    """Returns the names of the operators in an expression; none of one that cannot be read any more."""
    try:
        root = parse(expression).root
    except PopsError:
        return []
    return sorted({node.operator for node in walk(root) if isinstance(node, Call)})
