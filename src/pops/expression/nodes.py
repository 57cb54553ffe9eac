"""The nodes of an expression: frozen values with equality and a hash, so that equal sub-expressions share one key.

Nodes check what can be written (valid names, reserved words, nesting depth). They know no operators, no files and
no tensors: whether `texturing` or `teapot.png` exists is checked later. A node's `span` (start, end: offsets into
the text it was parsed from) takes no part in equality.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias, TypeVar

from pops.embedding import READ_SUFFIXES
from pops.errors import ExpressionError, shown
from pops.images import PHOTO_SUFFIXES
from pops.seeds import MAX_SEED

Span: TypeAlias = "tuple[int, int]"
Option: TypeAlias = "tuple[str, int | float | str]"
T = TypeVar("T")

MAX_DEPTH = 200  # nested calls, sums and lets
RESERVED = frozenset({"let", "_"})  # not allowed as a bare token
KEYS = RESERVED | {"text", "photo", "word", "saved", "sum", "in", "seed"}  # not allowed as operator or option names

MIX = "mix"  # mix(layout, content): computed by MagicMix, no trained operator; its value is an image

_BYTES = r"\udc80-\udcff"  # bytes of a file's name that are no Unicode, as Python takes them into texts
BARE = rf"[\w./~\\:{_BYTES}][\w./~\\:{_BYTES}-]*"  # an unquoted path, name or word; a leading minus is a sign
NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_BARE = re.compile(BARE)
_NUMBER = re.compile(NUMBER)
_NAME = re.compile(r"[^\W\d]\w*")
_OPERATOR = re.compile(r"[^\W\d][\w-]*")
_KEY = re.compile(r"\w+")


def is_binding_name(text: str) -> bool:
    """Returns whether `let` can bind this name."""
    return _NAME.fullmatch(text) is not None and text not in RESERVED


def has_path_suffix(text: str) -> bool:
    """Returns whether the text ends with the suffix of a photo or of a saved embedding."""
    return text.lower().endswith((*READ_SUFFIXES, *PHOTO_SUFFIXES))


def path_node(text: str, span: Span | None = None) -> Photo | Saved:
    """Returns the node of a file: a saved embedding or a photo, by its suffix."""
    return (Saved if text.lower().endswith(READ_SUFFIXES) else Photo)(text, span=span)


def is_bare_path(text: str) -> bool:
    """Returns whether a bare token is a path: a known suffix, a slash or a leading ~."""
    return has_path_suffix(text) or "/" in text or "\\" in text or text.startswith("~")


def is_bare(text: str) -> bool:
    """Returns whether the text is one bare token, neither a number nor a reserved word."""
    return _BARE.fullmatch(text) is not None and _NUMBER.fullmatch(text) is None and text not in RESERVED


@dataclass(frozen=True, eq=False)
class Node:
    """Base of all nodes. `depth` is the number of nested calls, sums and lets below it; 0 for a leaf."""

    span: Span | None = field(default=None, kw_only=True, repr=False)
    depth: int = field(init=False, repr=False, default=0)
    _key: tuple[object, ...] = field(init=False, repr=False, default=())
    _hash: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        self._check()
        depth = max((child.depth for child in self.children()), default=-1) + 1
        if depth > MAX_DEPTH:  # no span: it would underline most of the text
            raise ExpressionError(f"the expression is nested deeper than {MAX_DEPTH} levels; split it up")
        key = tuple(getattr(self, f.name) for f in fields(self) if f.init and f.name != "span")
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_hash", hash((type(self).__name__, key)))  # cached, as the children's are

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Node):
            return NotImplemented
        if self is other:
            return True
        return self._hash == other._hash and all(_alike(one, two) for one, two in _pairs(self, other))

    def __hash__(self) -> int:
        return self._hash

    def children(self) -> tuple[Node, ...]:
        """Returns the nodes directly below this one."""
        return ()

    def own(self) -> tuple[object, ...]:
        """Returns what the node itself says, without its children."""
        return self._key

    def _check(self) -> None:
        """Raises ExpressionError if a field is invalid."""

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            raise ExpressionError(message, span=self.span)

    def _require_seed(self, seed: int | None) -> None:
        whole = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= MAX_SEED
        what = f"a seed is a whole number from 0 to 2**63 - 1, got {shown(seed, 40)}; write for instance @7"
        self._require(seed is None or whole, what)

    def _require_options(self, options: tuple[Option, ...]) -> None:
        seen: set[str] = set()
        for key, value in options:
            name = shown(key, 60)
            self._require(key != "seed", "'seed' is not an option; write the seed after the call, for instance @7")
            named = is_binding_name(key) and key not in KEYS
            self._require(
                named, f"'{name}' is not a valid option name; use letters, digits and _, and no reserved word"
            )
            self._require(key not in seen, f"the option '{name}' is given twice; keep one")
            seen.add(key)
            right = isinstance(value, (int, float, str)) and not isinstance(value, bool)
            self._require(right, f"the option '{name}' takes a number or a word, got {shown(value, 60)}")
            fine = isinstance(value, str) or is_finite(value)
            self._require(fine, f"the option '{name}' must be a finite number, got {shown(value, 60)}")


@dataclass(frozen=True, eq=False)
class Photo(Node):
    """A photo by its path as written; the file may not exist."""

    path: str

    def _check(self) -> None:
        self._require(bool(self.path), "the path of a photo is empty; write for instance a.png")


@dataclass(frozen=True, eq=False)
class Saved(Node):
    """A file of embeddings (.safetensors, .npy, .ipadpt, ...) by its path as written; the file may not exist."""

    path: str

    def _check(self) -> None:
        self._require(bool(self.path), "the path of an embedding is empty; write for instance e.safetensors")


@dataclass(frozen=True, eq=False)
class Given(Node):
    """A value passed from Python (a PIL image, an embedding, a latent), written `$key`."""

    key: str

    def _check(self) -> None:
        self._require(
            _KEY.fullmatch(self.key) is not None, f"invalid key '${shown(self.key, 60)}'; use letters, digits and _"
        )


@dataclass(frozen=True, eq=False)
class Word(Node):
    """A text operand of an operator: "golden"."""

    text: str

    def _check(self) -> None:
        self._require(bool(self.text.strip()), "the text is empty; write _ for a missing operand")


@dataclass(frozen=True, eq=False)
class Missing(Node):
    """`_`: a missing operand, which the operator fills in."""


@dataclass(frozen=True, eq=False)
class Text(Node):
    """text("..."): a prompt from which the base prior samples an embedding."""

    prompt: str
    options: tuple[Option, ...] = ()
    seed: int | None = None

    def _check(self) -> None:
        self._require_options(self.options)
        self._require_seed(self.seed)


@dataclass(frozen=True, eq=False)
class Call(Node):
    """A call of an operator: operator(operand, ..., key=value) @seed."""

    operator: str
    operands: tuple[Node, ...]
    options: tuple[Option, ...] = ()
    seed: int | None = None

    def children(self) -> tuple[Node, ...]:
        return self.operands

    def own(self) -> tuple[object, ...]:
        return self.operator, self.options, self.seed

    def _check(self) -> None:
        name = self.operator
        self._require(
            _OPERATOR.fullmatch(name) is not None,
            f"'{shown(name, 60)}' is not a valid operator name; use letters, digits, _ and -",
        )
        hint = "; write 0.5*a + 0.5*b" if name == "sum" else ""
        self._require(name not in KEYS, f"'{name}' is a reserved word, not an operator{hint}")
        self._require(name not in dict(self.options), f"an option of {shown(name, 60)} cannot have its name; rename it")
        self._require_options(self.options)
        self._require_seed(self.seed)


@dataclass(frozen=True, eq=False)
class Sum(Node):
    """A weighted sum of embeddings: 0.3*a + 0.7*b."""

    terms: tuple[tuple[float, Node], ...]

    def children(self) -> tuple[Node, ...]:
        return tuple(node for _, node in self.terms)

    def own(self) -> tuple[object, ...]:
        return tuple(weight for weight, _ in self.terms)

    def _check(self) -> None:
        self._require(bool(self.terms), "a sum needs at least one term; write for instance 0.5*a.png")
        for weight, _ in self.terms:
            self._require(is_finite(weight), f"a weight must be a finite number, got {shown(weight, 60)}")


@dataclass(frozen=True, eq=False)
class Name(Node):
    """A bare word: a name bound by `let`, or the text of a text role. `t@7` is t with its outermost call re-seeded."""

    name: str
    seed: int | None = None

    def _check(self) -> None:
        self._require(
            is_bare(self.name) and not is_bare_path(self.name), f"'{shown(self.name, 60)}' is not a valid name"
        )
        self._require_seed(self.seed)


@dataclass(frozen=True, eq=False)
class Let(Node):
    """let a = ...; let b = ...; body. Bindings may refer to each other in any order; the resolver rejects cycles."""

    bindings: tuple[tuple[str, Node], ...]
    body: Node

    def children(self) -> tuple[Node, ...]:
        return (*(node for _, node in self.bindings), self.body)

    def own(self) -> tuple[object, ...]:
        return tuple(name for name, _ in self.bindings)

    def _check(self) -> None:
        self._require(bool(self.bindings), "a let must bind at least one name; write let name = ...; ...")
        seen: set[str] = set()
        for name, _ in self.bindings:
            self._require(is_binding_name(name), f"let cannot bind '{shown(name, 60)}'; use letters, digits and _")
            self._require(name not in seen, f"let binds '{shown(name, 60)}' twice; rename one of them")
            seen.add(name)


def is_finite(value: float) -> bool:
    """Returns whether a number is finite, and within the range of floats if it is whole."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


# Python's own comparison of nested tuples would recurse, and compare shared sub-expressions once for every use.
def _pairs(one: Node, other: Node) -> Iterator[tuple[Node, Node]]:
    """Yields the nodes of two expressions side by side, each pair of objects once, as long as they are alike."""
    seen: set[tuple[int, int]] = set()
    stack = [(one, other)]
    while stack:
        a, b = stack.pop()
        if a is b or (id(a), id(b)) in seen:
            continue
        seen.add((id(a), id(b)))
        yield a, b
        stack.extend(zip(a.children(), b.children()))


def _alike(one: Node, other: Node) -> bool:
    """Returns whether two nodes are equal but for what their children are."""
    if type(one) is not type(other) or one._hash != other._hash or len(one.children()) != len(other.children()):
        return False
    return one.own() == other.own()


def unrolled(step: Generator[Any, Any, T]) -> T:
    """Runs a recursive function that is written as a generator, which yields the calls it needs and receives their
    results, on a stack of its own: an expression may be nested deeper than Python's stack allows.
    """
    stack: list[Generator[Any, Any, Any]] = [step]
    result: Any = None
    while stack:
        try:
            needed = stack[-1].send(result)
        except StopIteration as done:
            stack.pop()
            result = done.value
        else:
            stack.append(needed)
            result = None
    value: T = result
    return value


def is_mix(node: Node) -> bool:
    """Returns whether the node is a mix(...) call, whose value is an image made by MagicMix."""
    return isinstance(node, Call) and node.operator == MIX


def is_blend(node: Node) -> bool:
    """Returns whether the node is a weighted sum with texts among its terms, which only the content of a mix can be."""
    return isinstance(node, Sum) and any(isinstance(part, Word) for _, part in node.terms)


def walk(root: Node) -> Iterator[Node]:
    """Yields every node object once, parents before children; shared sub-expressions are visited once."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            stack.extend(reversed(node.children()))
