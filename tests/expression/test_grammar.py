"""The language: text to nodes and back, trees of plain data, and error messages."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pops.expression as expression
from pops.errors import ExpressionError
from pops.expression.grammar import MAX_LENGTH, parse, to_text
from pops.expression.nodes import (
    KEYS,
    MAX_DEPTH,
    Call,
    Given,
    Let,
    Missing,
    Name,
    Node,
    Photo,
    Saved,
    Sum,
    Text,
    Word,
    is_bare,
    is_bare_path,
    is_binding_name,
)
from pops.expression.trees import from_tree, load_expression, operand, to_tree
from pops.seeds import MAX_SEED

A, B = Photo("a.png"), Photo("b.png")

# --- generated trees -------------------------------------------------------------------------------

ODD = [
    "a b.png", "C:\\new\\x.png", "x.safetensors", "a/b", "~", "./x", "é.JPG", "a@2x.png", "0.3*a.png", "it's", '"',
    "\\", "\\'", "let", "_", "3", "1e5", "t@7", "$k", "-a", "photo", "text", "# no", "a\nb", "(", "in",
]  # fmt: skip
NUMBERS = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
WEIGHTS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1.0, -1.0, 0.0, -0.0, 0.3, 2.0])
SEEDS = st.none() | st.integers(0, MAX_SEED)
BOUND = st.sampled_from(["t", "u", "let2", "text", "très"]) | st.from_regex(r"[a-z]\w{0,3}", fullmatch=True)
OPERATORS = st.sampled_from(["f1", "texturing", "my-op", "union_2", "lets", "ö"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    any_text = st.text(min_size=1, max_size=8).filter(lambda text: bool(text.strip()))
    return draw(st.sampled_from(ODD) | any_text)


@st.composite
def bares(draw: st.DrawFn) -> str:
    any_bare = st.from_regex(r"[\w.:][\w.:-]{0,6}", fullmatch=True) | st.sampled_from(ODD)
    return draw(any_bare.filter(lambda text: is_bare(text) and not is_bare_path(text)))


@st.composite
def options(draw: st.DrawFn) -> tuple[tuple[str, int | float | str], ...]:
    key = BOUND.filter(lambda text: is_binding_name(text) and text not in KEYS)
    return tuple(draw(st.dictionaries(key, NUMBERS | texts() | st.just(""), max_size=3)).items())


@st.composite
def nodes(draw: st.DrawFn, depth: int = 2) -> Node:
    kinds = [Photo, Saved, Word, Given, Missing, Name, Text] + [Call, Sum, Let] * (3 if depth else 0)
    kind = draw(st.sampled_from(kinds))
    if kind in (Photo, Saved, Word):
        return kind(draw(texts()))
    if kind is Given:
        return Given(draw(st.from_regex(r"\w{1,4}", fullmatch=True)))
    if kind is Name:
        return Name(draw(bares()), draw(SEEDS))
    if kind is Text:
        return Text(draw(st.just("") | texts()), draw(options()), draw(SEEDS))
    if kind is Missing:
        return Missing()
    inner = nodes(depth - 1)
    if kind is Call:
        return Call(draw(OPERATORS), tuple(draw(st.lists(inner, max_size=4))), draw(options()), draw(SEEDS))
    if kind is Sum:
        return Sum(tuple(draw(st.lists(st.tuples(WEIGHTS, inner), min_size=1, max_size=3))))
    bindings = draw(st.dictionaries(BOUND.filter(is_binding_name), inner, min_size=1, max_size=3))
    return Let(tuple(bindings.items()), draw(inner))


@settings(max_examples=150, deadline=None)
@given(nodes())
def test_text_and_back(node: Node) -> None:
    text = to_text(node)
    assert parse(text) == node
    assert to_text(parse(text)) == text  # text in canonical form stays as it is


@settings(max_examples=80, deadline=None)
@given(nodes())
def test_tree_and_back(node: Node) -> None:
    tree = to_tree(node)
    assert from_tree(tree) == node
    assert from_tree(json.loads(json.dumps(tree))) == node


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab.png,()+-*@=;_\"'#$ 03let\n", max_size=30))
def test_any_text_parses_or_is_explained(text: str) -> None:
    try:
        assert parse(to_text(parse(text))) == parse(text)
    except ExpressionError as error:
        assert len(str(error)) > 10 and "\n" not in str(error).replace(text, "")


# --- single sentences ------------------------------------------------------------------------------

CANONICAL = {
    "scene(texturing(teapot.png, tiger.png), beach.png)": Call(
        "scene", (Call("texturing", (Photo("teapot.png"), Photo("tiger.png"))), Photo("beach.png"))
    ),
    "texturing(a.png, _, steps=10, guidance=8.0) @3": Call(
        "texturing", (A, Missing()), (("steps", 10), ("guidance", 8.0)), 3
    ),
    "0.3*a.png + 0.7*b.png": Sum(((0.3, A), (0.7, B))),
    "a.png - 2*b.png": Sum(((1.0, A), (-2.0, B))),
    "2*(a.png - b.png)": Sum(((2.0, Sum(((1.0, A), (-1.0, B)))),)),
    "-1*a.png": Sum(((-1.0, A),)),
    "let t = union(a.png, b.png); union(t, t@7)": Let(
        (("t", Call("union", (A, B))),), Call("union", (Name("t"), Name("t", 7)))
    ),
    "union((let t = a.png; t), b.png)": Call("union", (Let((("t", A),), Name("t")), B)),
    'instruct(~/a, "very golden")': Call("instruct", (Photo("~/a"), Word("very golden"))),
    "instruct('my photo.png', sky-blue)": Call("instruct", (Photo("my photo.png"), Name("sky-blue"))),
    'text("a \\"big\\" rabbit", steps=5) @1': Text('a "big" rabbit', (("steps", 5),), 1),
    "union(e.safetensors, $0)": Call("union", (Saved("e.safetensors"), Given("0"))),
    "photo('no suffix')": Photo("no suffix"),
    'word("a.png")': Word("a.png"),
    "C:\\pictures\\a.png": Photo("C:\\pictures\\a.png"),
}


@pytest.mark.parametrize("text", CANONICAL)
def test_canonical_text(text: str) -> None:
    assert parse(text) == CANONICAL[text]
    assert to_text(parse(text)) == text
    assert str(expression.parse(text)) == text


@pytest.mark.parametrize(
    ("loose", "canonical"),
    [
        (" union( a.png,b.png )@3  # note", "union(a.png, b.png) @3"),
        ("union(\n  'a.png',  # one\n  \"b.png\"\n)", "union(a.png, b.png)"),
        ("1*a.png + -0", None),
        ("-a.png + 1*b.png", "-1*a.png + b.png"),
        ("((a.png))", "a.png"),
        ("text( rabbit )", 'text("rabbit")'),
        ("union(steps=3, a.png, b.png)", "union(a.png, b.png, steps=3)"),
        ("a.png -b.png", "a.png - b.png"),
        ("letter.png", "letter.png"),
        ("let let2 = a.png; let2", "let let2 = a.png; let2"),
        (".5*a.png", "0.5*a.png"),
    ],
)
def test_loose_text(loose: str, canonical: str | None) -> None:
    if canonical is None:
        with pytest.raises(ExpressionError):
            parse(loose)
    else:
        assert to_text(parse(loose)) == canonical


def test_spans_point_at_the_node_and_do_not_matter_for_equality() -> None:
    text = "union( a.png , texturing(a.png, _) @3)"
    node = parse(text)
    assert isinstance(node, Call)
    spots = [text[slice(*part.span)] for part in (node, *node.operands) if part.span]
    assert spots == [text, "a.png", "texturing(a.png, _) @3"]
    assert node.operands[0] == A and hash(node.operands[0]) == hash(A) and node.operands[0].span != A.span


def test_equality_tells_kinds_apart() -> None:
    assert len({Photo("a"), Word("a"), Saved("a"), Name("a"), Name("a", 1), Text("a"), Given("a"), Photo("a")}) == 7
    assert Photo("a") != "a"


# --- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says", "spot"),
    [
        ("", "empty", None),
        ("texturing(dog#1.png, tiger.png)", "'#' starts a note here; put quotes", "dog#1.png, tiger.png)"),
        ("  # only a note", "empty", None),
        ("union(a.png, (b.png", "never closed; add a )", "("),
        ("union(a.png))", "unmatched ')'; remove it", ")"),
        ("union(a.png, 'b.png)", "quote is never closed", "'"),
        ("union(a.png b.png)", "put a comma", "b.png"),
        ("union(my photo.png, b.png)", "quotes around names with spaces", "photo.png"),
        ("union(a.png,)", "write _ to leave one open", ")"),
        ("union(, a.png)", "write _ to leave one open", ","),
        ("union[a.png]", "round brackets", "["),
        ("union(a.png; b.png)", "commas", ";"),
        ("(a.png, b.png)", "operands of a call", ","),
        ("a.png +", "ends too early: an operand is missing", ""),
        ("let t = a.png", "ends too early: end the let with ;", ""),
        ("let t = a.png;", "after the last ;", ""),
        ("let t = a.png; let t = b.png; t", "binds 't' twice", "let t = a.png; let t = b.png; t"),
        ("let _ = a.png; a.png", "cannot bind '_'", "let _ = a.png; a.png"),
        ("0.3 a.png", "a number is a weight", "a.png"),
        ("instruct(a.png, 3)", '"3"', ")"),
        ("a.png*0.3", "write a weight before its operand", "*"),
        ("a.png-0.5*b.png", "spaces around a minus", "*"),
        ("a.png@7", "takes no seed", "a.png@7"),
        ("a@2x.png", "quote a path that contains @", "@2x.png"),
        ("union(a.png, b.png) @1.5", "whole number", "@1.5"),
        ("union(a.png, b.png) @-1", "whole number", "@-1"),
        ("f(a.png) @9223372036854775808", "2**63 - 1", "f(a.png) @9223372036854775808"),
        ("f(a.png) @" + "9" * 5000, "whole number", "@" + "9" * 5000),
        ("f(a.png, seed=3)", "write the seed after the call", "f(a.png, seed=3)"),
        ("f(a.png, steps=3, steps=4)", "given twice", "f(a.png, steps=3, steps=4)"),
        ("sum(a.png, b.png)", "0.5*a + 0.5*b", "sum(a.png, b.png)"),
        ("1e999*a.png", "finite", "1e999*a.png"),
        ("a.png + !", "not expected", "!"),
    ],
)
def test_mistakes_are_shown_where_they_are(text: str, says: str, spot: str | None) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    error = caught.value
    assert says in str(error)
    assert (error.text[slice(*error.span)] if error.span else None) == spot
    if error.span and "\n" not in text:
        _, line, carets = error.pretty().split("\n")
        assert line.strip() == text.strip() or (len(text) > 160 and line.endswith("…") and len(line) < 170)
        assert set(carets.strip()) == {"^"}


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 2000])
@pytest.mark.parametrize("pair", [("f(", ")"), ("2*(", ")"), ("(let t = ", "; t)")])
def test_absurd_depth_is_one_line(depth: int, pair: tuple[str, str]) -> None:
    with pytest.raises(ExpressionError, match="deeper than 200"):
        parse(pair[0] * depth + "a.png" + pair[1] * depth)


def test_the_deepest_allowed_works_everywhere() -> None:
    node = parse("f(" * MAX_DEPTH + "a.png" + ")" * MAX_DEPTH)
    assert node.depth == MAX_DEPTH
    assert parse(to_text(node)) == node
    assert from_tree(to_tree(node)) == node
    assert node != parse("f(" * MAX_DEPTH + "b.png" + ")" * MAX_DEPTH)


def test_brackets_alone_may_be_deep() -> None:
    assert parse("(" * 5000 + "a.png" + ")" * 5000) == A


def test_absurd_length_is_one_line() -> None:
    with pytest.raises(ExpressionError, match="characters") as caught:
        parse("a.png + " * MAX_LENGTH)
    assert len(caught.value.pretty()) < 200


@pytest.mark.parametrize(
    "make",
    [
        lambda: Photo(""),
        lambda: Word(" "),
        lambda: Given("a b"),
        lambda: Name("a b"),
        lambda: Name("let"),
        lambda: Call("no way", ()),
        lambda: Call("f", (), (("steps", True),)),
        lambda: Call("f", (), (("steps", float("nan")),)),
        lambda: Call("f", (), (("f", 1),)),
        lambda: Call("f", (), (), -1),
        lambda: Sum(()),
        lambda: Sum(((float("inf"), A),)),
        lambda: Let((), A),
    ],
)
def test_nodes_that_cannot_be_written_cannot_be_made(make: object) -> None:
    with pytest.raises(ExpressionError):
        make()  # type: ignore[operator]


# --- trees of plain data ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({"texturing": ["teapot.png", "tiger.png"], "seed": 3, "guidance": 4},
         "texturing(teapot.png, tiger.png, guidance=4) @3"),
        ({"seed": 3, "texturing": ["teapot.png", None]}, "texturing(teapot.png, _) @3"),
        ({"sum": [[0.3, "a.png"], [0.7, "b.png"]]}, "0.3*a.png + 0.7*b.png"),
        ({"text": "a marble rabbit", "steps": 5}, 'text("a marble rabbit", steps=5)'),
        ({"let": {"t": {"union": ["a.png", "_"]}}, "in": {"union": ["t", "t@7"]}},
         "let t = union(a.png, _); union(t, t@7)"),
        ({"instruct": ["my photo.png", "very golden"]}, "instruct('my photo.png', \"very golden\")"),
        ({"instruct": [{"photo": "x"}, {"word": "a.png"}]}, "instruct(photo('x'), word(\"a.png\"))"),
        ("a.png", "a.png"),
    ],
)  # fmt: skip
def test_trees(tree: object, text: str) -> None:
    assert to_text(from_tree(tree)) == text
    assert from_tree(to_tree(parse(text))) == parse(text)


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        (3, "at its root: expected a string, null or a mapping, got 3"),
        ({"union": "a.png"}, "one operator with its list of operands"),
        ({}, "one operator with its list"),
        ({"union": ["a.png", {"sum": [["x", "a.png"]]}]}, r"at union\[1\].sum\[0\]: a term is"),
        ({"sum": [[0.3, "a.png"]], "seed": 3}, "'seed' does not go with 'sum'"),
        ({"let": {"t": "a.png"}}, "in: ..."),
        ({"let": {"no way": "a.png"}, "in": "a.png"}, "let cannot bind 'no way'"),
        ({"text": 3}, "text takes a string"),
        ({"union": ["a.png", "b.png"], "seed": "x"}, "whole number"),
        ({"union": ["a.png", "b.png"], "steps": None}, "takes a number or a word"),
        ({3: ["a.png"]}, "keys must be strings"),
    ],
)
def test_mistakes_in_trees_name_their_place(tree: object, says: str) -> None:
    with pytest.raises(ExpressionError, match=says):
        from_tree(tree)


def test_a_deep_tree_is_one_line() -> None:
    tree: object = "a.png"
    for _ in range(100_000):
        tree = {"f": [tree]}
    with pytest.raises(ExpressionError, match="deeper than 200"):
        from_tree(tree)


def test_operand_strings() -> None:
    assert [operand(text) for text in ("a.png", "_", "t@7", "t", "$0")] == [
        *(A, Missing(), Name("t", 7), Name("t"), Given("0"))
    ]
    assert [operand(text) for text in ("two words", "a@2x.png", "e.safetensors", "let")] == [
        *(Word("two words"), Photo("a@2x.png"), Saved("e.safetensors"), Word("let"))
    ]


def test_files(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("{texturing: [teapot.png, _], seed: 3}\n", encoding="utf-8")
    (tmp_path / "x.json").write_text('{"union": ["a.png", null]}', encoding="utf-8")
    assert to_text(load_expression(tmp_path / "x.yaml")) == "texturing(teapot.png, _) @3"
    assert str(expression.load(tmp_path / "x.json")) == "union(a.png, _)"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.yaml", "a: [b\n", "invalid YAML at line 2"),
        ("x.json", "{", "invalid JSON"),
        ("x.json", "[" * 50_000 + "]" * 50_000, "nested more than 800 deep"),
        ("x.yaml", "{f: [" * 400 + "a.png" + "]}" * 400, "deeper than 200"),
        ("x.yaml", "union: a.png", "list of operands"),
        ("x.yaml", "", "empty"),
        ("x.txt", "a.png", "ends in .yaml or .json"),
        ("absent.yaml", None, "cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ExpressionError, match=says) as caught:
        load_expression(tmp_path / name)
    assert name in str(caught.value)


# --- the page that explains it ---------------------------------------------------------------------

DOCS = (Path(__file__).parents[2] / "docs" / "expressions.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", DOCS, re.DOTALL)


def test_the_documentation_has_examples() -> None:
    assert len(blocks("pops")) >= 5 and len(blocks("yaml")) >= 2


@pytest.mark.parametrize("text", [part for block in blocks("pops") for part in block.strip().split("\n\n")])
def test_documented_expressions_parse(text: str) -> None:
    assert parse(to_text(parse(text))) == parse(text)


@pytest.mark.parametrize("text", [part for block in blocks("yaml") for part in block.strip().split("\n\n")])
def test_documented_trees_load(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    assert from_tree(to_tree(load_expression(tmp_path / "x.yaml")))
