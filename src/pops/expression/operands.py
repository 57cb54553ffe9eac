"""What a Python value or a string stands for as an operand: the one place that decides it.

A string in an image role is a path, in a text role the text. Where both may stand (the operands of a mix) its look
decides: a call of a known operator, a weighted sum or a let is an expression; what ends like a photo or a file of
embeddings, or is the name of a file, is that file; all else is a text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pops.errors import OperandError, ensure
from pops.expression import Expression, grammar
from pops.expression.nodes import Given, Missing, Node, Sum, Word, has_path_suffix, path_node
from pops.files import expanded, is_file

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.embedding import Embedding
    from pops.expression.resolve import Kind

Operand: TypeAlias = "str | Path | Image.Image | Embedding | Expression | Node | Tensor | None"
# What a mix takes beside an Operand: several parts with weights, {"tiger": 0.7, "gold": 0.3} or (("tiger", 0.7), ...).
MixOperand: TypeAlias = "Operand | Mapping[str, float] | tuple[tuple[Operand, float], ...]"

# What begins like a call, a weighted sum or a let.
_EXPRESSION = re.compile(r"\s*(?:(?P<name>[A-Za-z_]\w*)\s*\(|-?[\d.]+\s*\*|let\s+\w+\s*=)")
_OF_THE_LANGUAGE = ("text", "photo", "saved", "word")


def operand_node(
    operand: MixOperand, kind: Kind, given: dict[str, object], where: str, operators: Collection[str] = ()
) -> Node:
    """Returns the node that an operand stands for.

    kind: of the role it is for; where: what errors call the place ("texturing"); operators: names whose calls make a
    string an expression, in a role of kind "any". Values that no text can name (PIL images, embeddings, latents) go
    into `given`, the same object under the same key, and become `$key`. Raises OperandError for what fits no role of
    this kind, ExpressionError for a broken expression.
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
            return _by_its_look(operand, operators)
        case str() | Path():
            return path_node(str(operand))
        case Mapping() | tuple() if kind == "any":
            return _weighted(operand, given, where, operators)
    if kind == "text":
        raise OperandError(f"{where} takes a word here, got a {type(operand).__name__}; give a string")
    usable = hasattr(operand, "vectors") or hasattr(operand, "getexif") or (kind == "any" and hasattr(operand, "ndim"))
    if not usable:
        also = ", a text, a latent" if kind == "any" else ""
        raise OperandError(
            f"{where} takes a photo{also and ', a text or a latent'} here, got a {type(operand).__name__}; "
            f"give a path, a PIL image, an Embedding{also or ' or None'}"
        )
    key = next((k for k, v in given.items() if v is operand), f"given{len(given) + 1}")
    given[key] = operand
    return Given(key)


def _by_its_look(text: str, operators: Collection[str]) -> Node:
    found = _EXPRESSION.match(text)
    if found and (found["name"] is None or found["name"] in operators or found["name"] in _OF_THE_LANGUAGE):
        return grammar.parse(text)
    bare = text.strip()
    if bare and (has_path_suffix(bare) or is_file(expanded(bare))):
        return path_node(bare)
    return Word(text)


def _weighted(
    parts: Mapping[str, float] | tuple[object, ...], given: dict[str, object], where: str, operators: Collection[str]
) -> Node:
    pairs: list[Any] = list(parts.items()) if isinstance(parts, Mapping) else list(parts)
    fine = bool(pairs) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs)
    ensure(fine, f"{where}: several parts are pairs (part, weight), at least one, got {parts!r}", OperandError)
    terms = []
    for part, weight in pairs:
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool) and weight != 0
        ensure(number, f"{where}: a weight is a number other than 0, got {weight!r}", OperandError)
        terms.append((float(weight), operand_node(part, "any", given, where, operators)))
    return Sum(tuple(terms))
