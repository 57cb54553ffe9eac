"""The nodes of an expression: frozen values with equality and a hash, so that equal sub-expressions are one.

Nodes know how they are written (which names and keys are words of the language) and how deep they are. They
know no operators, no files and no tensors: whether `texturing` or `teapot.png` exists is found later.
A node's `span` (start, end: offsets into the text it was parsed from) takes no part in equality.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

from pops.embedding import READ_SUFFIXES
from pops.errors import ExpressionError
from pops.images import PHOTO_SUFFIXES

Span: TypeAlias = "tuple[int, int]"
Option: TypeAlias = "tuple[str, int | float | str]"

MAX_DEPTH = 200  # calls, sums and lets inside one another
MAX_SEED = 2**63 - 1
RESERVED = frozenset({"let", "_"})  # what no bare token may be
KEYS = RESERVED | {"text", "photo", "word", "saved", "sum", "in", "seed"}  # what no operator or option may be

MIX = "mix"  # the call that the language itself has: mix(layout, content), whose value is a picture

BARE = r"[\w./~\\:][\w./~\\:-]*"  # a path, a name or a word without quotes; starts with no minus
NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_BARE = re.compile(BARE)
_NUMBER = re.compile(NUMBER)
_NAME = re.compile(r"[^\W\d]\w*")
_OPERATOR = re.compile(r"[^\W\d][\w-]*")
_KEY = re.compile(r"\w+")


def is_binding_name(text: str) -> bool:
    """Whether `let text = ...` may bind it."""
    return _NAME.fullmatch(text) is not None and text not in RESERVED


def has_path_suffix(text: str) -> bool:
    """Whether it ends like a photo or a saved embedding."""
    return text.lower().endswith((*READ_SUFFIXES, *PHOTO_SUFFIXES))


def path_node(text: str, span: Span | None = None) -> Photo | Saved:
    """The operand that a path stands for, by its suffix."""
    return (Saved if text.lower().endswith(READ_SUFFIXES) else Photo)(text, span=span)


def is_bare_path(text: str) -> bool:
    """Whether a bare token reads as a path: by a suffix, a slash or a leading ~."""
    return has_path_suffix(text) or "/" in text or "\\" in text or text.startswith("~")


def is_bare(text: str) -> bool:
    """Whether it reads as one bare token that is neither a number nor a word of the language."""
    return _BARE.fullmatch(text) is not None and _NUMBER.fullmatch(text) is None and text not in RESERVED


@dataclass(frozen=True, eq=False)
class Node:
    """What all nodes share. `depth`: the calls, sums and lets on the longest way down; a leaf has 0."""

    span: Span | None = field(default=None, kw_only=True, repr=False)
    depth: int = field(init=False, repr=False, default=0)
    _key: tuple[Any, ...] = field(init=False, repr=False, default=())
    _hash: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        self._check()
        depth = max((child.depth for child in self.children()), default=-1) + 1
        if depth > MAX_DEPTH:  # without a span: the spot would be most of the text
            raise ExpressionError(f"the expression is deeper than {MAX_DEPTH} nested parts; split it up")
        key = tuple(getattr(self, f.name) for f in fields(self) if f.init and f.name != "span")
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_hash", hash((type(self).__name__, key)))  # once: children have theirs

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Node):
            return NotImplemented
        if self is other:
            return True
        return type(self) is type(other) and self._hash == other._hash and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def children(self) -> tuple[Node, ...]:
        """The nodes directly inside this one."""
        return ()

    def _check(self) -> None:
        """Raise ExpressionError where a field makes no sense."""

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            raise ExpressionError(message, span=self.span)

    def _require_seed(self, seed: int | None) -> None:
        whole = isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= MAX_SEED
        what = f"a seed is a whole number from 0 to 2**63 - 1, got {seed}; write for instance @7"
        self._require(seed is None or whole, what)

    def _require_options(self, options: tuple[Option, ...]) -> None:
        keys = [key for key, _ in options]
        for key, value in options:
            self._require(key != "seed", "a seed is no option; write it after the call, for instance @7")
            named = is_binding_name(key) and key not in KEYS
            self._require(named, f"'{key}' cannot be the name of an option")
            self._require(keys.count(key) == 1, f"the option '{key}' is given twice; keep one")
            right = isinstance(value, (int, float, str)) and not isinstance(value, bool)
            self._require(right, f"the option '{key}' takes a number or a word, got {value!r}")
            finite = isinstance(value, str) or math.isfinite(value)
            self._require(finite, f"the option '{key}' must be finite")


@dataclass(frozen=True, eq=False)
class Photo(Node):
    """A picture file. The path as written; nobody has looked whether it is there."""

    path: str

    def _check(self) -> None:
        self._require(bool(self.path), "the path of a photo is empty")


@dataclass(frozen=True, eq=False)
class Saved(Node):
    """A file of embeddings (.safetensors, .npy, .ipadpt, ...)."""

    path: str

    def _check(self) -> None:
        self._require(bool(self.path), "the path of an embedding is empty")


@dataclass(frozen=True, eq=False)
class Given(Node):
    """A value handed over in Python (a picture, an embedding), written `$key`."""

    key: str

    def _check(self) -> None:
        self._require(_KEY.fullmatch(self.key) is not None, f"'${self.key}': letters and digits only, please")


@dataclass(frozen=True, eq=False)
class Word(Node):
    """A text for a text role: "golden"."""

    text: str

    def _check(self) -> None:
        self._require(bool(self.text.strip()), "a word is empty; write _ for a missing operand")


@dataclass(frozen=True, eq=False)
class Missing(Node):
    """`_`: an operand left open."""


@dataclass(frozen=True, eq=False)
class Text(Node):
    """text("..."): a sentence made into an embedding by the base prior."""

    prompt: str
    options: tuple[Option, ...] = ()
    seed: int | None = None

    def _check(self) -> None:
        self._require_options(self.options)
        self._require_seed(self.seed)


@dataclass(frozen=True, eq=False)
class Call(Node):
    """operator(operand, ..., key=value) @seed"""

    operator: str
    operands: tuple[Node, ...]
    options: tuple[Option, ...] = ()
    seed: int | None = None

    def children(self) -> tuple[Node, ...]:
        return self.operands

    def _check(self) -> None:
        name = self.operator
        self._require(_OPERATOR.fullmatch(name) is not None, f"'{name}' cannot be the name of an operator")
        hint = "; write 0.5*a + 0.5*b" if name == "sum" else ""
        self._require(name not in KEYS, f"'{name}' is a word of the language, not an operator{hint}")
        self._require(name not in dict(self.options), f"an option of {name} cannot be called '{name}' too")
        self._require_options(self.options)
        self._require_seed(self.seed)


@dataclass(frozen=True, eq=False)
class Sum(Node):
    """0.3*a + 0.7*b: a weighted sum of embeddings."""

    terms: tuple[tuple[float, Node], ...]

    def children(self) -> tuple[Node, ...]:
        return tuple(node for _, node in self.terms)

    def _check(self) -> None:
        self._require(bool(self.terms), "a sum needs at least one term")
        for weight, _ in self.terms:
            self._require(math.isfinite(weight), f"a weight must be a finite number, got {weight}")


@dataclass(frozen=True, eq=False)
class Name(Node):
    """A bare word: what `let` binds, or a text role's word. `t@7` is t with its outermost call re-seeded."""

    name: str
    seed: int | None = None

    def _check(self) -> None:
        self._require(is_bare(self.name) and not is_bare_path(self.name), f"'{self.name}' cannot be a name")
        self._require_seed(self.seed)


@dataclass(frozen=True, eq=False)
class Let(Node):
    """let a = ...; let b = ...; body. The bindings see one another; no cycles (the planner looks)."""

    bindings: tuple[tuple[str, Node], ...]
    body: Node

    def children(self) -> tuple[Node, ...]:
        return (*(node for _, node in self.bindings), self.body)

    def _check(self) -> None:
        self._require(bool(self.bindings), "a let binds at least one name")
        seen: set[str] = set()
        for name, _ in self.bindings:
            self._require(is_binding_name(name), f"let cannot bind '{name}'; use letters, digits and _")
            self._require(name not in seen, f"let binds '{name}' twice; give one of them another name")
            seen.add(name)


def is_mix(node: Node) -> bool:
    """Whether its value is a picture made by MagicMix."""
    return isinstance(node, Call) and node.operator == MIX


def is_blend(node: Node) -> bool:
    """Whether it is a weighted sum with texts among its terms: the content of a mix that has several parts."""
    return isinstance(node, Sum) and any(isinstance(part, Word) for _, part in node.terms)


def walk(root: Node) -> Iterator[Node]:
    """Every node object once, parents before children (shared objects once, so that a dag stays cheap)."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            stack.extend(reversed(node.children()))
