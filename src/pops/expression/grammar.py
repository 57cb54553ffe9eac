"""Parses text into nodes and writes nodes as text. Knows no operators, no files and no tensors.

`parse(to_text(node)) == node` for every node, and `to_text(parse(text)) == text` for text in canonical form
(the form that `to_text` writes). The rules are in expression.lark; the terminals are built here, from the same
patterns with which nodes check their fields. docs/expressions.md describes the language.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

from pops.errors import ExpressionError, shown
from pops.expression.nodes import (
    BARE,
    NUMBER,
    Call,
    Given,
    Let,
    Missing,
    Name,
    Node,
    Option,
    Photo,
    Saved,
    Span,
    Sum,
    Text,
    Word,
    has_path_suffix,
    is_bare,
    is_bare_path,
    path_node,
)

if TYPE_CHECKING:
    from lark import Lark, Transformer_NonRecursive
    from lark.exceptions import UnexpectedInput
    from lark.tree import Meta

MAX_LENGTH = 100_000  # characters of an expression's text
MAX_TOKENS = 20_000  # words, texts, numbers and signs
MAX_WRITTEN = 10 * MAX_LENGTH  # characters of a text that is written
EXAMPLE = "texturing(teapot.png, tiger.png)"
STRING = r"'(?:\\.|[^'\\])*'" + r'|"(?:\\.|[^"\\])*"'
_EDGE = r"(?![\w./~\\:\udc80-\udcff-])"  # the bare token ends here
_TERMINALS = {  # the number after a dot is the terminal's priority
    "_LET.3": rf"let{_EDGE}",
    "_MISSING.3": rf"_{_EDGE}",
    "KIND.3": r"(text|photo|word|saved)(?=\s*\()",
    "NUMBER.2": NUMBER + _EDGE,
    "BARE": BARE,
    "GIVEN": r"\$\w+",
    "STRING": rf"(?s:{STRING})",
}
# A quote that is never closed takes the rest, so that no other one after it looks for its end.
_SCAN = re.compile(
    rf"(?P<skip>\s+|#[^\n]*)|(?P<string>{STRING})|(?P<open>['\"].*)|(?P<bare>{BARE})|(?P<mark>.)", re.DOTALL
)
_KINDS: dict[str, type[Photo] | type[Saved] | type[Word]] = {"photo": Photo, "saved": Saved, "word": Word}


# --- text to nodes ---------------------------------------------------------------------------------


def parse(text: str) -> Node:
    """Returns the tree of an expression; raises ExpressionError, with the place and what to do, if it is malformed."""
    from lark.exceptions import UnexpectedInput, VisitError

    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"the expression has {len(text)} characters, the limit is {MAX_LENGTH}; shorten it")
    if len(text) > MAX_TOKENS and sum(match.lastgroup != "skip" for match in _SCAN.finditer(text)) > MAX_TOKENS:
        told = f"the expression has more than {MAX_TOKENS} words and signs"
        raise ExpressionError(f"{told}; compute parts of it first, and save their embeddings")
    try:
        node: Node = _builder().transform(_parser().parse(text))
        return node
    except UnexpectedInput as error:
        _explain(text, error)
    except VisitError as error:
        if isinstance(error.orig_exc, ExpressionError):
            raise located(error.orig_exc, text) from None
        raise


def located(error: ExpressionError, text: str) -> ExpressionError:
    """Returns the error with the text that its span refers to."""
    return ExpressionError(str(error), text, error.span)


@lru_cache(maxsize=1)
def _parser() -> Lark:
    from lark import Lark

    rules = files("pops.expression").joinpath("expression.lark").read_text(encoding="utf-8")
    for name, pattern in _TERMINALS.items():
        rules += f"\n{name}: /{pattern.replace('/', chr(92) + '/')}/"
    return Lark(rules + "\n", parser="lalr", propagate_positions=True)


@lru_cache(maxsize=1)
def _builder() -> Transformer_NonRecursive[Any, Any]:
    """Returns the transformer from lark's tree to nodes: one callback per rule, called bottom up without recursion.

    Each callback receives `parts`: the tokens of its rule and what the callbacks of the rules inside it returned.
    """
    from lark import Token, Transformer_NonRecursive, v_args

    def value_of(token: Token) -> str:
        return _unquote(token) if token.type == "STRING" else str(token)

    @v_args(meta=True)
    class Builder(Transformer_NonRecursive):  # type: ignore[type-arg]
        def let(self, meta: Meta, parts: list[Any]) -> Node:
            return Let(tuple(parts[:-1]), parts[-1], span=_span(meta))

        def binding(self, meta: Meta, parts: list[Any]) -> tuple[str, Node]:
            return str(parts[0]), parts[1]

        def sum(self, meta: Meta, parts: list[Any]) -> Node:
            terms: list[tuple[float, Node]] = []
            sign = 1.0
            for part in parts:
                if isinstance(part, Token):
                    sign = -1.0 if part.type == "MINUS" else 1.0
                else:
                    weight, node = part if isinstance(part, tuple) else (1.0, part)
                    terms.append((sign * weight, node))
            alone = len(parts) == 1 and isinstance(parts[0], Node)
            return terms[0][1] if alone else Sum(tuple(terms), span=_span(meta))

        def weighted(self, meta: Meta, parts: list[Any]) -> tuple[float, Node]:
            return float(parts[0]), parts[1]

        def bare(self, meta: Meta, parts: list[Any]) -> Node:
            node = from_bare(str(parts[0]), _span(meta))
            if len(parts) == 1:
                return node
            if not isinstance(node, Name):
                what = f"'{_short(parts[0])}' takes no seed; only calls and names do"
                raise ExpressionError(what, span=_span(meta))
            return Name(node.name, parts[1], span=_span(meta))

        def quoted(self, meta: Meta, parts: list[Any]) -> Node:
            return from_quoted(_unquote(parts[0]), _span(meta))

        def given(self, meta: Meta, parts: list[Any]) -> Node:
            return Given(str(parts[0])[1:], span=_span(meta))

        def missing(self, meta: Meta, parts: list[Any]) -> Node:
            return Missing(span=_span(meta))

        def call(self, meta: Meta, parts: list[Any]) -> Node:
            seed = parts.pop() if isinstance(parts[-1], int) else None
            operands = tuple(part for part in parts[1:] if isinstance(part, Node))
            options = tuple(part for part in parts[1:] if isinstance(part, tuple))
            return Call(str(parts[0]), operands, options, seed, span=_span(meta))

        def special(self, meta: Meta, parts: list[Any]) -> Node:
            seed = parts.pop() if isinstance(parts[-1], int) else None
            options, content, span = tuple(parts[2:]), value_of(parts[1]), _span(meta)
            if parts[0] == "text":
                return Text(content, options, seed, span=span)
            if options or seed is not None:
                raise ExpressionError(f"{parts[0]}(...) takes no options and no seed; remove them", span=span)
            return _KINDS[parts[0]](content, span=span)

        def option(self, meta: Meta, parts: list[Any]) -> Option:
            return str(parts[0]), parts[1]

        def number(self, meta: Meta, parts: list[Any]) -> int | float:
            digits = "".join(parts)
            return int(digits) if re.fullmatch(r"-?\d{1,300}", digits) else float(digits)

        def plain(self, meta: Meta, parts: list[Any]) -> str:
            return str(parts[0])

        def string(self, meta: Meta, parts: list[Any]) -> str:
            return _unquote(parts[0])

        def seed(self, meta: Meta, parts: list[Any]) -> int:
            digits = "".join(parts)
            if not re.fullmatch(r"\d{1,300}", digits):
                hint = "; quote a path that contains @" if parts[-1].type == "BARE" else ""
                what = f"a seed must be a whole number, 0 or more, got {_short(digits)}{hint}"
                raise ExpressionError(what, span=_span(meta))
            return int(digits)

    return Builder()


def _span(meta: Meta) -> Span | None:
    return None if meta.empty else (meta.start_pos, meta.end_pos)


def _unquote(token: str) -> str:
    return re.sub(r"\\([\\'\"])", r"\1", token[1:-1])


def _quote(text: str, mark: str) -> str:
    return mark + text.replace("\\", "\\\\").replace(mark, "\\" + mark) + mark


# --- the meaning of bare and quoted tokens ---------------------------------------------------------


def from_bare(text: str, span: Span | None = None) -> Node:
    """Returns the node of a bare token: a file if it has a slash or a known suffix, otherwise a name."""
    return path_node(text, span) if is_bare_path(text) else Name(text, span=span)


def from_quoted(text: str, span: Span | None = None) -> Node:
    """Returns the node of a quoted token: a file by a known suffix or a leading ./, ~/ or /, otherwise a text."""
    rooted = re.match(r"\.{0,2}[/\\]|~[/\\]|[A-Za-z]:[/\\]", text) is not None
    return path_node(text, span) if rooted or has_path_suffix(text) else Word(text, span=span)


# --- error messages --------------------------------------------------------------------------------


def _explain(text: str, error: UnexpectedInput) -> NoReturn:
    """Raises ExpressionError for a syntax error of lark's: an unmatched bracket or quote, or the unexpected token."""
    scanned = list(_SCAN.finditer(text))
    tokens = [match for match in scanned if match.lastgroup != "skip"]
    for name, note in pairwise(scanned):  # dog#1.png: a name that was cut where a note begins
        if note.group().startswith("#") and name["bare"]:
            span = (name.start(), note.end())
            named = _short(name.group())
            what = f"'#' starts a note here; put quotes around a name with # in it: '{named}#...'"
            raise ExpressionError(what, text, span) from None
    if not tokens:
        raise ExpressionError(f"the expression is empty; write for instance {EXAMPLE}", text, None) from None
    _check_brackets(text, tokens)
    at = error.pos_in_stream if error.pos_in_stream is not None else len(text)
    here = next((m for m in tokens if m.start() <= at < m.end()), None)
    before = next((m for m in reversed(tokens) if m.end() <= at), None)
    if here is None or getattr(getattr(error, "token", None), "type", "") == "$END":
        end = tokens[-1].end()
        what = f"the expression ends too early: {_advice(tokens[-1], None)}"
        raise ExpressionError(what, text, (end, end + 1)) from None
    message = f"'{_short(here.group())}' is not expected here: {_advice(before, here)}"
    raise ExpressionError(message, text, here.span()) from None


def _check_brackets(text: str, tokens: list[re.Match[str]]) -> None:
    """Raises ExpressionError for an unmatched bracket or quote."""
    opened: list[re.Match[str]] = []
    for token in tokens:
        if token["open"]:
            what = "this quote is never closed; add the closing quote"
            raise ExpressionError(what, text, (token.start(), token.start() + 1)) from None
        if token["mark"] == "(":
            opened.append(token)
        elif token["mark"] == ")":
            if not opened:
                raise ExpressionError("unmatched ')'; remove it", text, token.span()) from None
            opened.pop()
    if opened:
        raise ExpressionError("this bracket is never closed; add a )", text, opened[-1].span()) from None


def _advice(before: re.Match[str] | None, here: re.Match[str] | None) -> str:
    """Returns what to do about the token `here`, which is not expected after `before`."""
    left = before.group() if before else ""
    right = here.group() if here else ""
    operand = (here is not None and here["mark"] is None) or right in ("(", "$")
    ends = before is not None and (before["mark"] is None or left == ")")
    if left == "let":
        return "write let name = expression; and then the expression to compute"
    if not right and left and left in ";":
        return "write the expression to compute after the last ;"
    if left and left in "(,=+-*@" and (not right or right in ",)+*;"):
        return "an operand is missing" + (" before it (write _ to leave one open)" if right else "")
    if right == ";":
        return "separate operands with commas; ; only ends a let"
    if right == ",":
        return "commas only separate the operands of a call"
    if right in ("[", "]", "{", "}"):
        return "put operands in round brackets"
    if re.fullmatch(NUMBER, left) and right != "*":
        return 'a number is a weight: write 0.3*a.png; to use a number as a text, quote it: "3"'
    if right == "*" and re.fullmatch(r".*-" + NUMBER, left):
        return "put spaces around a minus: a.png - 0.5*b.png"
    if right == "*":
        return "write a weight before its operand: 0.3*a.png"
    if ends and operand:
        return "put a comma, + or - between operands, and quotes around names with spaces"
    if right == "@":
        return "write a seed after a call or a name; quote a path that contains @"
    if right == "=":
        return "write key=value inside the brackets of a call, and let name = ...; at the beginning"
    if not right:
        return "end the let with ; and write the expression to compute after it"
    return f"write for instance {EXAMPLE}"


def _short(text: str) -> str:
    return shown(" ".join(text[:200].split()), 24)


# --- nodes to text ---------------------------------------------------------------------------------


def to_text(node: Node, names: Mapping[Node, str] | None = None) -> str:
    """Returns the node as text in canonical form, which parses back to an equal node.

    names: texts to write in place of some of the nodes below it. Raises ExpressionError for more than MAX_WRITTEN
    characters, as parts that are shared many times may take.
    """
    text = "".join(_pieces(node, names or {}, MAX_WRITTEN))
    if len(text) > MAX_WRITTEN:
        raise ExpressionError(f"the expression takes more than {MAX_WRITTEN} characters to write; share less of it")
    return text


def brief_text(node: Node, most: int = 60) -> str:
    """Returns at most `most` characters of the node's text, for a message; writes no more than these."""
    return shown("".join(_pieces(node, {}, most)), most)


def _pieces(root: Node, names: Mapping[Node, str], most: int) -> Iterator[str]:
    """Yields a node's text in pieces, with a stack of its own, until they are longer than `most`."""
    stack: list[Node | str] = [*reversed(_parts(root, names))]
    length = 0
    while stack and length <= most:
        part = stack.pop()
        if isinstance(part, Node):
            stack.extend(reversed(_parts(part, names)))
        else:
            length += len(part)
            yield part


def _parts(node: Node, names: Mapping[Node, str]) -> list[Node | str]:
    """Returns what a node's text is made of: pieces of text, and the nodes below it that have no name."""
    match node:
        case Photo(path):
            return [_token(node, path, "'", "photo")]
        case Saved(path):
            return [_token(node, path, "'", "saved")]
        case Word(text):
            return [_token(node, text, '"', "word")]
        case Name(name, seed):
            return [name + ("" if seed is None else f"@{seed}")]
        case Given(key):
            return [f"${key}"]
        case Text(prompt, options, seed):
            return ["text(", _quote(prompt, '"'), *_settings(options, seed, first=False)]
        case Call(operator, operands, options, seed):
            inner = [
                part for i, operand in enumerate(operands) for part in ([", "] if i else []) + _inner(operand, names)
            ]
            return [operator, "(", *inner, *_settings(options, seed, first=not operands)]
        case Sum(terms):
            parts: list[Node | str] = []
            for i, (weight, part) in enumerate(terms):
                parts += [_weight_text(i, weight, len(terms)), *_inner(part, names, Let, Sum)]
            return parts
        case Let(bindings, body):
            lets = [part for name, value in bindings for part in (f"let {name} = ", *_inner(value, names), "; ")]
            return [*lets, *_inner(body, names)]
    return ["_"]


def _token(node: Node, text: str, mark: str, kind: str) -> str:
    """Returns the shortest of text, "text" and kind("text") that parses back to the node."""
    if is_bare(text) and from_bare(text) == node:
        return text
    quoted = _quote(text, mark)
    return quoted if from_quoted(text) == node else f"{kind}({quoted})"


def _inner(node: Node, names: Mapping[Node, str], *wrapped: type[Node]) -> list[Node | str]:
    """Returns a node inside another's text: its name, or itself, in brackets if its type is one of `wrapped` (Let,
    unless given).
    """
    if written := names.get(node):
        return [written]
    return ["(", node, ")"] if isinstance(node, wrapped or Let) else [node]


def _settings(options: tuple[Option, ...], seed: int | None, *, first: bool) -> list[str]:
    """Returns the end of a call's text: its options, the bracket, its seed. first: no operand stands before."""
    written = ", ".join(f"{key}={_value_text(value)}" for key, value in options)
    return ["" if first or not options else ", ", written, ")", "" if seed is None else f" @{seed}"]


def _value_text(value: int | float | str) -> str:
    if isinstance(value, str):
        return value if is_bare(value) else _quote(value, '"')
    return repr(value)


def number_text(value: float) -> str:
    """Returns a number without a trailing .0: 1, 0.3, 1e-07."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _weight_text(index: int, weight: float, count: int) -> str:
    """Returns the text before a term of a sum: its sign, and its weight unless that is 1."""
    plain = abs(weight) == 1 and count > 1 and (index > 0 or weight > 0)
    sign = (" - " if weight < 0 else " + ") if index else ("-" if weight < 0 else "")
    return sign + ("" if plain else number_text(abs(weight)) + "*")
