"""Expressions and trees of anyone: read within seconds whatever they hold, or refused in one short line."""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pops.errors import ExpressionError, PopsError, suggest
from pops.expression import load, parse
from pops.expression.grammar import MAX_TOKENS, brief_text, to_text
from pops.expression.nodes import MAX_DEPTH, Call, Name, Node, Photo, Sum
from pops.expression.reading import MAX_VALUES, parse_yaml
from pops.expression.trees import from_tree, to_tree
from pops.operators.spec import BUILTIN

N = 99_990
LONG: dict[str, str] = {
    "an unclosed quote": "'" + "a" * N,
    "escaped quotes": "'" + "\\'" * (N // 2),
    "quotes of both kinds": "'\"\\" * (N // 3),
    "open brackets": "(" * N,
    "operands": "f(" + "a," * (N // 2 - 5) + "a)",
    "terms": "a.png" + "+a" * (N // 2 - 5),
    "options": "f(a," + ",".join(f"o{i}=1" for i in range(4000)) + ")",
    "lets": "".join(f"let a{i}=a{i + 1};" for i in range(N // 16)) + "a0",
    "a long name": "a" * N,
    "a long operator": "a" * N + "(b)",
    "a long text": "'" + "a b " * (N // 4) + "'",
    "a number": "9" * N + "*a.png",
    "a seed": "f(a.png) @" + "9" * N,
    "parts used twice, 150 times": "let a0=x.png+y.png;"
    + "".join(f"let a{i}=a{i - 1}+a{i - 1};" for i in range(1, 150))
    + "a149+_",
}
YAML: dict[str, str] = {
    "aliases": "let: {a0: &a0 {u: [x.png, x.png]}"
    + "".join(f", a{i}: &a{i} {{u: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 30))
    + "}\nin: *a29",
    "an alias in itself": "&a {u: [*a]}",
    "merge keys": "a: &a {x: 1}\nb: &b {<<: [*a, *a]}",
    "lists": "[" * N,
    "an unclosed quote": '{u: ["' + '\\"' * (N // 2),
    "a number": "{u: [a.png], steps: " + "9" * 5000 + "}",
    "a number in base 60": "{u: [a.png], s: " + "1:" * 40_000 + "1}",
    "no number": "{u: [a.png], s: !!int nine}",
    "infinity": "{sum: [[.inf, a.png]]}",
    "code": "!!python/object/apply:os.system [ls]",
    "bytes": "{u: [!!binary aaa]}",
    "a list as key": "{[a]: b}",
    "a key twice": "{u: [a.png], u: [b.png]}",
    "a control character": "\x01",
    "two documents": "--- a.png\n--- b.png\n",
    "an unknown alias": "{u: [*a]}",
    "a long place": "{" + "k" * 900 + ": [" + "a.png, " * 9000 + "1]}",
}  # fmt: skip


def told(read: Callable[[], object]) -> str:
    """Returns the one line that refuses the input; fails if it takes long to say, or says too much."""
    begun = time.process_time()
    with pytest.raises(PopsError) as caught:
        read()
    assert time.process_time() - begun < 5
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert len(caught.value.pretty()) < 1000
    return str(caught.value)


@pytest.mark.parametrize("name", LONG)
def test_a_long_expression_is_refused_soon_and_shortly(name: str) -> None:
    told(lambda: parse(LONG[name]).plan(BUILTIN))


@pytest.mark.parametrize("name", YAML)
def test_odd_yaml_is_refused_soon_and_shortly(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.yaml").write_text(YAML[name])
    assert "a.yaml" in told(lambda: load(tmp_path / "a.yaml"))


def test_what_yaml_may_say() -> None:
    text = "{let: {t: &t {union: [a.png, ~]}}, in: {sum: [[1, *t], [-0.5, 'b.png'], [0x10, *t]]}, d: 2026-01-01}"
    shared = {"union": ["a.png", None]}
    assert parse_yaml(text) == {
        "let": {"t": shared},
        "in": {"sum": [[1, shared], [-0.5, "b.png"], [16, shared]]},
        "d": "2026-01-01",
    }
    assert parse_yaml("") is None


def test_pipes_and_devices_are_no_trees(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / "large.yaml").write_text("a" * 2_000_000)
    (tmp_path / "latin.yaml").write_bytes(b"{u: [\xe9.png]}")
    for name, says in (("pipe.yaml", "no regular"), ("zero.json", "no regular"), ("large.yaml", "larger than 1 MB")):
        assert says in told(lambda name=name: load(tmp_path / name))  # type: ignore[misc]
    assert "no UTF-8 text at byte 5" in told(lambda: load(tmp_path / "latin.yaml"))


def nested(kind: str) -> Node:
    node: Node = Photo("a.png")
    for _ in range(MAX_DEPTH - 1):
        node = Sum(((0.5, node), (0.5, node))) if kind == "sum" else Call("f", (node, node))
    return node


def deeper(frames: int, action: Callable[[], Any]) -> Any:
    return action() if frames == 0 else deeper(frames - 1, action)


@pytest.mark.parametrize("kind", ["sum", "call"])
def test_deep_and_shared_parts_take_neither_time_nor_stack(kind: str) -> None:
    """Each level uses the one below twice: written out, it would be 2**199 parts."""
    one, other = nested(kind), nested(kind)
    frames = sys.getrecursionlimit() - 150 - len(inspect.stack(0))
    assert deeper(frames, lambda: one == other and hash(one) == hash(other))
    assert one != Sum(((0.5, one), (0.5, Photo("b.png"))))
    assert "share less" in told(lambda: to_text(one))
    assert len(brief_text(one)) == 60
    assert "more than" in told(lambda: from_tree({"u": shared(30)}))


def shared(levels: int) -> list[Any]:
    data: Any = "a.png"
    for _ in range(levels):
        data = {"u": [data, data]}
    return [data]


def test_the_deepest_is_read_and_written_on_a_short_stack() -> None:
    text = "f(" * MAX_DEPTH + "a.png" + ")" * MAX_DEPTH
    node = parse(text).root
    frames = sys.getrecursionlimit() - 150 - len(inspect.stack(0))
    assert deeper(frames, lambda: from_tree(to_tree(node)) == node and to_text(node) == text)


def test_numbers_that_no_float_holds() -> None:
    huge = 10**5000
    for data in ({"sum": [[huge, "a.png"]]}, {"u": ["a.png"], "k": huge}, {"u": ["a.png"], "seed": huge}, huge):
        told(lambda data=data: from_tree(data))  # type: ignore[misc]
    told(lambda: Sum(((huge, Photo("a.png")),)))
    told(lambda: Name("a", huge))


def test_the_limits_are_large_enough() -> None:
    text = "f(" + "a.png," * (MAX_TOKENS // 2 - 5) + "a.png)"
    assert len(parse(text).root.children()) == MAX_TOKENS // 2 - 4
    assert len(from_tree({"u": ["a.png"] * (MAX_VALUES - 1)}).children()) == MAX_VALUES - 1


def test_a_long_line_is_shown_around_the_mistake() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse("f(" + "a.png, " * 500 + "!" + ", b.png" * 500 + ")")
    _, line, under = caught.value.pretty().split("\n")
    assert len(line) < 170 and line.strip().startswith("…") and line.endswith("…")
    assert line[under.index("^")] == "!" and under.count("^") == 1


def test_a_message_quotes_little_whatever_it_is_given() -> None:
    assert len(str(PopsError("x" * 100_000 + "; do this"))) < 250
    assert (
        str(PopsError("a b " * 5000 + "; do this")).endswith("do this") and len(str(PopsError("a b " * 5000))) <= 1000
    )
    assert str(PopsError("a\nb\x1b[31m")) == "a\\nb\\x1b[31m"
    begun = time.process_time()
    assert suggest("x" * 100_000, ["x" * 99_999]) == ""
    suggest("abcdefgh", [f"abcd{i}" for i in range(50_000)])
    assert time.process_time() - begun < 1
