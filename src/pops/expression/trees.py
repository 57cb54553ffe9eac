"""Converts expressions to plain data (for YAML and JSON) and back.

    {texturing: [teapot.png, tiger.png], seed: 3, guidance: 4}
    {sum: [[0.3, a.png], [0.7, b.png]]}
    {text: "a marble rabbit"}
    {let: {t: {union: [a.png, b.png]}}, in: {union: [t, t@7]}}

A string with a slash or a known suffix is a file, `_` (or null) a missing operand, `t@7` and `$key` as in the
language, a single bare word a name (or a text, in a text role), any other string a text. {photo: ...}, {word: ...}
and {saved: ...} state the kind explicitly. `from_tree(to_tree(node)) == node` for every node.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias, cast

from pops.errors import ExpressionError
from pops.expression.grammar import from_bare, from_quoted
from pops.expression.nodes import (
    MAX_DEPTH,
    Call,
    Given,
    Let,
    Missing,
    Name,
    Node,
    Option,
    Photo,
    Saved,
    Sum,
    Text,
    Word,
    is_bare,
)

Tree: TypeAlias = "str | dict[str, object]"  # what json.dumps and yaml.dump take
_SEEDED = re.compile(r"(.+)@(\d{1,300})", re.DOTALL)
_LEAVES: dict[str, type[Photo] | type[Saved] | type[Word]] = {"photo": Photo, "saved": Saved, "word": Word}


# --- data to nodes ---------------------------------------------------------------------------------


def from_tree(tree: object) -> Node:
    """Returns the node of plain data; raises ExpressionError, naming the place of the mistake: in.union[1]."""
    try:
        return _node(tree, "", 0)
    except _Mistake as mistake:
        raise ExpressionError(str(mistake)) from None


class _Mistake(Exception):
    """A mistake at a place in the data; `from_tree` turns it into an ExpressionError."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"in the tree at {where.lstrip('.') or 'its root'}: {what}")


def operand(text: str) -> Node:
    """Returns the node of a string in a tree."""
    if text == "_":
        return Missing()
    if re.fullmatch(r"\$\w+", text):
        return Given(text[1:])
    seeded = _SEEDED.fullmatch(text)
    if seeded and is_bare(seeded[1]) and isinstance(from_bare(seeded[1]), Name):
        return Name(seeded[1], int(seeded[2]))
    return from_bare(text) if is_bare(text) else from_quoted(text)


def _node(tree: object, where: str, depth: int) -> Node:
    """Returns the node of plain data; where: its place in the whole tree, for errors."""
    if depth > MAX_DEPTH:
        raise _Mistake("", f"nested deeper than {MAX_DEPTH} levels; split it up")
    if tree is None:
        return Missing()
    try:
        if isinstance(tree, str):
            return operand(tree)
        if isinstance(tree, Mapping):
            return _mapping(tree, where, depth)
    except ExpressionError as error:
        raise _Mistake(where, str(error)) from None
    raise _Mistake(where, f"expected a string, null or a mapping, got {_brief(tree)}")


def _mapping(data: Mapping[object, object], where: str, depth: int) -> Node:
    """Returns the node of a mapping: a let, a sum, a text, a leaf of explicit kind, or a call."""
    tree = {key: value for key, value in data.items() if isinstance(key, str)}
    if len(tree) != len(data):
        raise _Mistake(where, f"keys must be strings, got {_brief(list(data))}")
    if "let" in tree:
        _only(tree, {"let", "in"}, where)
        lets = tree["let"]
        if not isinstance(lets, Mapping) or "in" not in tree:
            raise _Mistake(where, "write {let: {name: ...}, in: ...}")
        names = tuple((str(name), _node(lets[name], f"{where}.let.{name}", depth + 1)) for name in lets)
        return Let(names, _node(tree["in"], f"{where}.in", depth + 1))
    if "sum" in tree:
        _only(tree, {"sum"}, where)
        return _sum(tree["sum"], f"{where}.sum", depth)
    if "text" in tree:
        if not isinstance(tree["text"], str):
            raise _Mistake(where, f"text takes a string, got {_brief(tree['text'])}")
        return Text(tree["text"], *_options_and_seed(tree, "text", where))
    for key, kind in _LEAVES.items():
        if key in tree:
            _only(tree, {key}, where)
            value = tree[key]
            if not isinstance(value, str):
                raise _Mistake(where, f"{key} takes a string, got {_brief(value)}")
            return kind(value)
    return _call(tree, where, depth)


def _call(tree: Mapping[str, object], where: str, depth: int) -> Node:
    lists = {key: value for key, value in tree.items() if isinstance(value, (list, tuple))}
    if len(lists) != 1:
        got = f"got {len(lists)} ({', '.join(lists)})" if lists else f"got the keys {_brief(list(tree))}"
        raise _Mistake(where, f"a call has one operator with its list of operands, {{union: [a.png, b.png]}}; {got}")
    [(name, parts)] = lists.items()
    operands = tuple(_node(part, f"{where}.{name}[{i}]", depth + 1) for i, part in enumerate(parts))
    return Call(name, operands, *_options_and_seed(tree, name, where))


def _sum(rows: object, where: str, depth: int) -> Node:
    if not isinstance(rows, (list, tuple)):
        raise _Mistake(where, "a sum is a list of [weight, operand], for instance [[0.3, a.png], [0.7, b.png]]")
    terms = []
    for i, row in enumerate(rows):
        pair = isinstance(row, (list, tuple)) and len(row) == 2
        if not pair or isinstance(row[0], bool) or not isinstance(row[0], (int, float)):
            raise _Mistake(
                f"{where}[{i}]", f"a term is [weight, operand], for instance [0.3, a.png], got {_brief(row)}"
            )
        terms.append((float(row[0]), _node(row[1], f"{where}[{i}][1]", depth + 1)))
    return Sum(tuple(terms))


def _options_and_seed(tree: Mapping[str, object], name: str, where: str) -> tuple[tuple[Option, ...], int | None]:
    """Returns the options and the seed of the call or text `name`: the mapping's other keys."""
    options: list[Option] = []
    for key, value in tree.items():
        if key in (name, "seed"):
            continue
        if not isinstance(value, (int, float, str)) or isinstance(value, bool):
            raise _Mistake(where, f"the option '{key}' takes a number or a word, got {_brief(value)}")
        options.append((key, value))
    return tuple(options), cast("int | None", tree.get("seed"))  # the node checks the seed


def _only(tree: Mapping[str, object], known: set[str], where: str) -> None:
    """Raises _Mistake for a key that is not among the known ones."""
    surplus = [key for key in tree if key not in known]
    if surplus:
        beside = next(key for key in tree if key in known)
        raise _Mistake(where, f"the key '{surplus[0]}' does not go with '{beside}'; remove it")


def _brief(value: object) -> str:
    """Returns a value as error messages show it, shortened to 40 characters."""
    text = repr(value) if isinstance(value, (str, int, float, bool)) else type(value).__name__
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        text = ", ".join(value)
    return text if len(text) <= 40 else text[:37] + "..."


# --- nodes to data ---------------------------------------------------------------------------------


def to_tree(node: Node) -> Tree:
    """Returns the node as plain data (strings, numbers, lists, dicts), of which `from_tree` makes an equal node."""
    match node:
        case Missing():
            return "_"
        case Given(key):
            return f"${key}"
        case Name(name, seed):
            return name if seed is None else f"{name}@{seed}"
        case Photo(text) | Saved(text) | Word(text):
            return text if operand(text) == node else {type(node).__name__.lower(): text}
        case Text(prompt, options, seed):
            return {"text": prompt, **_setting_tree(options, seed)}
        case Call(operator, operands, options, seed):
            return {operator: [to_tree(part) for part in operands], **_setting_tree(options, seed)}
        case Sum(terms):
            return {"sum": [[float(weight), to_tree(part)] for weight, part in terms]}
        case Let(bindings, body):
            return {"let": {name: to_tree(value) for name, value in bindings}, "in": to_tree(body)}
    raise TypeError(f"expected a node of an expression, got a {type(node).__name__}")


def _setting_tree(options: tuple[Option, ...], seed: int | None) -> dict[str, object]:
    return {**dict(options), **({} if seed is None else {"seed": seed})}


# --- files -----------------------------------------------------------------------------------------


def load_expression(path: str | Path) -> Node:
    """Reads the expression in a .yaml, .yml or .json file; raises ExpressionError, naming the file, if it has none."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ExpressionError(f"{path} cannot be read ({why}); check the path") from None
    try:
        tree = _data(text, path.suffix.lower())
        if tree is None:
            raise ExpressionError("the tree is empty; write for instance {union: [a.png, b.png]}")
        return from_tree(tree)
    except RecursionError:
        raise ExpressionError(f"{path}: nested deeper than {MAX_DEPTH} levels; split it up") from None
    except ExpressionError as error:
        raise ExpressionError(f"{path}: {error}") from None


def _data(text: str, suffix: str) -> object:
    """Returns the data in a file's text."""
    if suffix == ".json":
        try:
            data: object = json.loads(text)
            return data
        except ValueError as error:
            raise ExpressionError(f"invalid JSON ({error})") from None
    if suffix not in (".yaml", ".yml"):
        raise ExpressionError(f"a tree file ends in .yaml or .json, got '{suffix}'; rename it")
    import yaml

    try:
        found: object = yaml.safe_load(text)
        return found
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise ExpressionError(f"invalid YAML{line} ({getattr(error, 'problem', error)})") from None
