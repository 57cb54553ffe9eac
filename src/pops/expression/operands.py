"""Python values as operands: the one place that decides which node a value stands for.

A string is a path in an image role and a text in a text role. In a role that takes either (the operands of a mix),
a call of a known operator, a weighted sum or a let is parsed as an expression; a string with the suffix of a photo
or of an embedding, or the name of an existing file, is that file; any other string is a text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pops.errors import OperandError, ensure, shown
from pops.expression import Expression, grammar
from pops.expression.nodes import Given, Missing, Node, Sum, Word, has_path_suffix, is_finite, path_node
from pops.files import expanded, is_file

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.embedding import Embedding
    from pops.expression.resolve import Kind

Operand: TypeAlias = "str | Path | Image.Image | Embedding | Expression | Node | Tensor | None"
# A mix also takes several weighted parts: {"tiger": 0.7, "gold": 0.3} or (("tiger", 0.7), ...).
MixOperand: TypeAlias = "Operand | Mapping[str, float] | tuple[tuple[Operand, float], ...]"

# The beginning of a call, a weighted sum or a let.
_EXPRESSION = re.compile(r"\s*(?:(?P<name>[A-Za-z_]\w*)\s*\(|-?[\d.]+\s*\*|let\s+\w+\s*=)")
_KIND_CALLS = ("text", "photo", "saved", "word")


def operand_node(
    operand: MixOperand, kind: Kind, given: dict[str, object], where: str, operators: Collection[str] = ()
) -> Node:
    """Returns the node that a Python value stands for.

    kind: the kind of the operand's role; given: receives the values that text cannot express (PIL images, embeddings,
    latents), which become `$key` nodes, one key per object; where: the name of the call in error messages
    ("texturing"); operators: names that make a string an expression when it calls one of them (kind "any" only).
    Raises OperandError for a value of the wrong type, ExpressionError for a malformed expression.
    """
    match operand:
        case None:
            return Missing()
        case Expression():
            return operand.root
        case Node():
            return operand
        case str() if kind == "text":
            return Word(operand)
        case str() if kind == "any":
            return _text_or_path(operand, operators)
        case str() | Path():
            return path_node(str(operand))
        case Mapping() | tuple() if kind == "any":
            return _weighted(operand, given, where, operators)
    if kind == "text":
        raise OperandError(f"{where} takes a text here, got a {type(operand).__name__}; give a string")
    tensor = kind == "any" and hasattr(operand, "untyped_storage")
    usable = hasattr(operand, "vectors") or hasattr(operand, "getexif") or tensor
    if not usable:
        also = ", a text, a latent" if kind == "any" else ""
        raise OperandError(
            f"{where} takes a photo{also and ', a text or a latent'} here, got a {type(operand).__name__}; "
            f"give a path, a PIL image, an Embedding{also or ' or None'}"
        )
    key = next((k for k, v in given.items() if v is operand), f"given{len(given) + 1}")
    given[key] = operand
    return Given(key)


def _text_or_path(text: str, operators: Collection[str]) -> Node:
    """Returns the node of a string in a role that takes files and texts: an expression, a file or a text."""
    found = _EXPRESSION.match(text)
    if found and (found["name"] is None or found["name"] in operators or found["name"] in _KIND_CALLS):
        return grammar.parse(text)
    bare = text.strip()
    if bare and (has_path_suffix(bare) or is_file(expanded(bare))):
        return path_node(bare)
    return Word(text)


def _weighted(
    parts: Mapping[str, float] | tuple[object, ...], given: dict[str, object], where: str, operators: Collection[str]
) -> Node:
    """Returns the sum of (operand, weight) pairs, each operand of kind "any"."""
    items: Iterable[object] = parts.items() if isinstance(parts, Mapping) else parts
    pairs = [item for item in items if isinstance(item, tuple) and len(item) == 2]
    fine = len(pairs) == len(parts) > 0
    ensure(fine, f"{where}: expected at least one pair (operand, weight), got {shown(parts, 60)}", OperandError)
    terms = []
    for part, weight in pairs:
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool) and weight != 0 and is_finite(weight)
        ensure(number, f"{where}: a weight must be a finite number other than 0, got {shown(weight, 60)}", OperandError)
        terms.append((float(weight), operand_node(part, "any", given, where, operators)))
    return Sum(tuple(terms))
