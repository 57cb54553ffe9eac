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

import re
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from pops.errors import SHOWN, ExpressionError, shown
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
    is_finite,
    unrolled,
)
from pops.expression.reading import MAX_VALUES, read_data

Tree: TypeAlias = "str | dict[str, object]"  # what json.dumps and yaml.dump take
_SEEDED = re.compile(r"(.+)@(\d{1,300})", re.DOTALL)
_LEAVES: dict[str, type[Photo] | type[Saved] | type[Word]] = {"photo": Photo, "saved": Saved, "word": Word}


_Where: TypeAlias = "tuple[str | int, ...]"  # the place of a part of a tree: keys and numbers of rows
_Step: TypeAlias = "Generator[_Step, Node, Node]"  # yields the steps of the parts, receives their nodes


# --- data to nodes ---------------------------------------------------------------------------------


def from_tree(tree: object) -> Node:
    """Returns the node of plain data; raises ExpressionError, naming the place of the mistake: in.union[1]."""
    try:
        return unrolled(_Reading().node(tree, (), 0))
    except _Mistake as mistake:
        raise ExpressionError(str(mistake)) from None


class _Mistake(Exception):
    """A mistake at a place in the data; `from_tree` turns it into an ExpressionError."""

    def __init__(self, where: _Where, what: str) -> None:
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{shown(step, 40)}" for step in where)
        if len(steps) > SHOWN:
            steps = f"{steps[: SHOWN // 2]}…{steps[-SHOWN // 2 :]}"
        super().__init__(f"in the tree at {steps.lstrip('.') or 'its root'}: {what}")


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


class _Reading:
    """Reads one tree; its methods are steps (see nodes.unrolled). where: the place in the whole tree, for errors."""

    def __init__(self) -> None:
        self.parts = 0

    def node(self, tree: object, where: _Where, depth: int) -> _Step:
        """Returns the node of plain data."""
        self.parts += 1
        if self.parts > MAX_VALUES:  # of data in which one object stands in many places, as YAML's aliases make it
            raise _Mistake((), f"more than {MAX_VALUES} parts; name those that are used often with let")
        if depth > MAX_DEPTH:
            raise _Mistake((), f"nested deeper than {MAX_DEPTH} levels; split it up")
        if tree is None:
            return Missing()
        try:
            if isinstance(tree, str):
                return operand(tree)
            if isinstance(tree, Mapping):
                return (yield from self.mapping(tree, where, depth))
        except ExpressionError as error:
            raise _Mistake(where, str(error)) from None
        raise _Mistake(where, f"expected a string, null or a mapping, got {_brief(tree)}")

    def mapping(self, data: Mapping[object, object], where: _Where, depth: int) -> _Step:
        """Returns the node of a mapping: a let, a sum, a text, a leaf of explicit kind, or a call."""
        tree = {key: value for key, value in data.items() if isinstance(key, str)}
        if len(tree) != len(data):
            raise _Mistake(where, f"keys must be strings, got {_brief(list(data))}")
        if "let" in tree:
            return (yield from self.let(tree, where, depth))
        if "sum" in tree:
            _only(tree, {"sum"}, where)
            return (yield from self.sum(tree["sum"], (*where, "sum"), depth))
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
        return (yield from self.call(tree, where, depth))

    def let(self, tree: Mapping[str, object], where: _Where, depth: int) -> _Step:
        _only(tree, {"let", "in"}, where)
        lets = tree["let"]
        if not isinstance(lets, Mapping) or "in" not in tree:
            raise _Mistake(where, "write {let: {name: ...}, in: ...}")
        if not all(isinstance(name, str) for name in lets):
            raise _Mistake((*where, "let"), f"names must be strings, got {_brief(list(lets))}")
        bindings = []
        for name, value in lets.items():
            bindings.append((name, (yield self.node(value, (*where, "let", name), depth + 1))))
        return Let(tuple(bindings), (yield self.node(tree["in"], (*where, "in"), depth + 1)))

    def call(self, tree: Mapping[str, object], where: _Where, depth: int) -> _Step:
        lists = {key: value for key, value in tree.items() if isinstance(value, (list, tuple))}
        if len(lists) != 1:
            listed = shown(", ".join(lists), 60)
            got = f"got {len(lists)} ({listed})" if lists else f"got the keys {_brief(list(tree))}"
            raise _Mistake(
                where, f"a call has one operator with its list of operands, {{union: [a.png, b.png]}}; {got}"
            )
        [(name, parts)] = lists.items()
        operands = []
        for i, part in enumerate(parts):
            operands.append((yield self.node(part, (*where, name, i), depth + 1)))
        return Call(name, tuple(operands), *_options_and_seed(tree, name, where))

    def sum(self, rows: object, where: _Where, depth: int) -> _Step:
        if not isinstance(rows, (list, tuple)):
            raise _Mistake(where, "a sum is a list of [weight, operand], for instance [[0.3, a.png], [0.7, b.png]]")
        terms = []
        for i, row in enumerate(rows):
            pair = isinstance(row, (list, tuple)) and len(row) == 2
            number = pair and isinstance(row[0], (int, float)) and not isinstance(row[0], bool)
            if not number or not is_finite(row[0]):
                told = f"a term is [weight, operand], for instance [0.3, a.png], got {_brief(row)}"
                raise _Mistake((*where, i), told)
            terms.append((float(row[0]), (yield self.node(row[1], (*where, i, 1), depth + 1))))
        return Sum(tuple(terms))


def _options_and_seed(tree: Mapping[str, object], name: str, where: _Where) -> tuple[tuple[Option, ...], int | None]:
    """Returns the options and the seed of the call or text `name`: the mapping's other keys."""
    options: list[Option] = []
    for key, value in tree.items():
        if key in (name, "seed"):
            continue
        if not isinstance(value, (int, float, str)) or isinstance(value, bool):
            raise _Mistake(where, f"the option '{shown(key, 60)}' takes a number or a word, got {_brief(value)}")
        options.append((key, value))
    return tuple(options), cast("int | None", tree.get("seed"))  # the node checks the seed


def _only(tree: Mapping[str, object], known: set[str], where: _Where) -> None:
    """Raises _Mistake for a key that is not among the known ones."""
    surplus = [key for key in tree if key not in known]
    if surplus:
        beside = next(key for key in tree if key in known)
        raise _Mistake(where, f"the key '{shown(surplus[0], 60)}' does not go with '{beside}'; remove it")


def _brief(value: object) -> str:
    """Returns a value as error messages show it, shortened to 40 characters."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return shown(", ".join(value[:40]), 40)
    if isinstance(value, str):
        return shown(repr(value[:40]), 40)
    return shown(value, 40) if isinstance(value, (int, float)) else type(value).__name__


# --- nodes to data ---------------------------------------------------------------------------------


def to_tree(node: Node) -> Tree:
    """Returns the node as plain data (strings, numbers, lists, dicts), of which `from_tree` makes an equal node."""
    return unrolled(_tree(node))


def _tree(node: Node) -> Generator[Any, Any, Tree]:
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
            parts = []
            for part in operands:
                parts.append((yield _tree(part)))
            return {operator: parts, **_setting_tree(options, seed)}
        case Sum(terms):
            rows = []
            for weight, part in terms:
                rows.append([float(weight), (yield _tree(part))])
            return {"sum": rows}
        case Let(bindings, body):
            lets = {}
            for name, value in bindings:
                lets[name] = yield _tree(value)
            return {"let": lets, "in": (yield _tree(body))}
    raise TypeError(f"expected a node of an expression, got a {type(node).__name__}")


def _setting_tree(options: tuple[Option, ...], seed: int | None) -> dict[str, object]:
    return {**dict(options), **({} if seed is None else {"seed": seed})}


# --- files -----------------------------------------------------------------------------------------


def load_expression(path: str | Path) -> Node:
    """Reads the expression in a .yaml, .yml or .json file; raises ExpressionError, naming the file, if it has none."""
    try:
        tree = read_data(path)
        if tree is None:
            raise ExpressionError("the tree is empty; write for instance {union: [a.png, b.png]}")
        return from_tree(tree)
    except ExpressionError as error:
        raise ExpressionError(f"{shown(path)}: {error}") from None
