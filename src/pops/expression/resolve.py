"""The resolver: checks a tree against the operators' specs and replaces names by what they stand for.

A resolved tree has no lets and no names, every operand fits its role, and options are in alphabetical order. The
operators are an argument (anything with a name, roles and an arity).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

from pops.errors import ConfigError, ExpressionError, shown, suggest
from pops.expression.grammar import brief_text
from pops.expression.nodes import MIX, Call, Given, Let, Missing, Name, Node, Option, Photo, Saved, Sum, Text, Word
from pops.prior.options import check_options

# What a role takes. "any": either; the operands of mix, and of operators without a spec.
Kind: TypeAlias = Literal["image", "text", "any"]


class RoleLike(Protocol):
    """What the planner reads of a role, an operand's position in a call."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...


class SpecLike(Protocol):
    """What the planner reads of an operator's spec; OperatorSpec and MixSpec fit."""

    @property
    def name(self) -> str: ...
    @property
    def roles(self) -> Sequence[RoleLike]: ...
    @property
    def arity(self) -> tuple[int, int | None]: ...
    def check_options(self, options: Mapping[str, int | float | str]) -> None: ...
    def check_text(self, text: str) -> None: ...


@dataclass(frozen=True, eq=False)
class _Scope:
    """The bindings of one let, and the scope around it. Compared by identity, as two lets may bind the same names."""

    bindings: Mapping[str, Node]
    outer: _Scope | None

    def find(self, name: str) -> _Scope | None:
        """Returns the innermost scope that binds the name."""
        scope: _Scope | None = self
        while scope is not None and name not in scope.bindings:
            scope = scope.outer
        return scope

    def names(self) -> list[str]:
        """Returns every bound name, innermost scope first."""
        return [*self.bindings, *(self.outer.names() if self.outer else ())]


@dataclass(frozen=True)
class _Place:
    """The position of a node: the kind expected there, its name in error messages, and the scope."""

    kind: Kind
    label: str
    scope: _Scope
    spec: SpecLike | None = None  # of the operator whose operand it is


# Yields the nodes that must be resolved first, receives them resolved, returns the resolved node.
_Step: TypeAlias = "Generator[tuple[Node, _Place], Node, Node]"


class Resolver:
    """Replaces names, checks calls, and makes equal nodes one object, so that the plan computes them once.

    Each step is a generator that yields the nodes it needs resolved first. `run` keeps the suspended steps on an
    explicit stack: a long chain of lets, each naming the next, would exceed Python's recursion limit.
    """

    def __init__(self, operators: Mapping[str, SpecLike] | None) -> None:
        self.operators = operators
        self.equal: dict[Node, Node] = {}  # each resolved node -> the one object used for all equal ones
        # Resolved bindings. The kind is part of the key: a bare word may be a text in one role and an error in another.
        self.bound: dict[tuple[_Scope, str, Kind], Node] = {}
        # Bindings being resolved, outermost first: a name that is met again while it is pending closes a cycle.
        self.pending: dict[tuple[_Scope, str, Kind], None] = {}

    def run(self, root: Node) -> Node:
        """Returns the resolved tree; raises ExpressionError for the first mistake in it."""
        stack: list[_Step] = [self.step(root, _Place("image", "the result", _Scope({}, None)))]
        resolved: Node | None = None  # what the innermost step is waiting for; None for a step that has just begun
        while stack:
            try:
                needed = next(stack[-1]) if resolved is None else stack[-1].send(resolved)
                stack.append(self.step(*needed))
                resolved = None
            except StopIteration as done:
                stack.pop()
                resolved = self.equal.setdefault(done.value, done.value)
        if resolved is None or isinstance(resolved, Missing):
            raise _at(root, "_ alone is nothing to compute", "use it as an operand of a call")
        return resolved

    def step(self, node: Node, place: _Place) -> _Step:
        """Resolves one node; yields those inside it."""
        match node:
            case Let(bindings, body):
                return (yield body, replace(place, scope=_Scope(dict(bindings), place.scope)))
            case Name():
                return (yield from self.name(node, place))
            case Word(text) if place.kind == "image":
                told = _short(text)
                do = f'write text("{told}") for an image of it, or photo("{told}") if it is a file'
                raise _at(node, f"{_brief(node)} is a text, but {place.label} must be an image", do)
            case Word(text):
                return _word(node, text, place)
            case Missing():
                return node
            case _ if place.kind == "text":
                do = 'write a text, in quotes if it has spaces or dots: "golden"'
                raise _at(node, f"{_brief(node)} is an image, but {place.label} must be a text", do)
            case Call():
                return (yield from self.call(node, place.scope))
            case Sum():
                return (yield from self.sum(node, place))
            case Text():
                return replace(node, options=_checked(node, None))
        return node

    def call(self, node: Call, scope: _Scope) -> _Step:
        """Resolves a call, after checking its operator, its options and the number of operands."""
        spec = None if self.operators is None else self.operators.get(node.operator)
        places = _places(node, scope, self.operators)
        # Without a spec, options are checked as a trained operator's, which those of mix are not.
        options, operands = _checked(node, spec) if spec or node.operator != MIX else node.options, []
        for place, operand in zip(places, node.operands):
            value = yield operand, place
            if spec is not None and place.kind == "any" and isinstance(value, Missing):
                do = "give a photo, a text in quotes, or an expression"
                raise _at(operand, f"{place.label} cannot be missing", do)
            operands.append(value)
        return Call(node.operator, tuple(operands), options, node.seed, span=node.span)

    def sum(self, node: Sum, place: _Place) -> _Step:
        """Resolves a weighted sum. Its terms may be texts only as the content of a mix: 0.7*"tiger" + 0.3*"gold"."""
        kind: Kind = "any" if place.kind == "any" else "image"
        terms = []
        for weight, part in node.terms:
            value = yield part, replace(place, kind=kind, label="a term of a sum")
            if isinstance(value, Missing):
                raise _at(part, "a term of a sum cannot be missing", "remove the _, or use it in a call")
            terms.append((float(weight), value))
        return Sum(tuple(terms), span=node.span)

    def name(self, node: Name, place: _Place) -> _Step:
        """Resolves a name to what its let binds, re-seeded if it has a seed of its own (t@7)."""
        home = place.scope.find(node.name)
        if home is None:
            return _unbound(node, place)
        key = (home, node.name, place.kind)
        if key not in self.bound:
            if key in self.pending:
                names = [name for _, name, _ in self.pending]
                cycle = " -> ".join([*names[names.index(node.name) :], node.name])
                raise _at(node, f"the let bindings form a cycle: {_short(cycle)}", "rename one of them")
            self.pending[key] = None
            # In the scope of the let, not of the use: an inner let may bind the same names to something else.
            self.bound[key] = yield home.bindings[node.name], replace(place, scope=home)
            del self.pending[key]
        value = self.bound[key]
        if node.seed is None:
            return value
        if isinstance(value, (Call, Text)):
            return replace(value, seed=node.seed, span=node.span)
        raise _at(
            node, f"'{_short(node.name)}' is {_what(value)}, which takes no seed", f"write {_short(node.name)} alone"
        )


def _at(node: Node, what: str, do: str, length: int | None = None) -> ExpressionError:
    """Returns an error at the node: what is wrong, what to do; length: characters to underline, all unless given."""
    span = node.span if node.span is None or length is None else (node.span[0], node.span[0] + length)
    return ExpressionError(f"{what}; {do}", span=span)


def _unbound(node: Name, place: _Place) -> Node:
    """Returns the node of a name that no let binds: a text in a text role, a photo if it has a dot (picture.jxl).

    Raises ExpressionError for any other.
    """
    name = node.name
    if node.seed is None and (place.kind == "text" or (place.kind == "any" and "." not in name)):
        return _word(Word(name, span=node.span), name, place)
    near = suggest(name, place.scope.names())
    if "." in name and node.seed is None and not near:
        return Photo(name, span=node.span)
    told = _short(name)
    do = f'write a photo with its suffix ({told}.png) or a slash (./{told}), a text as text("{told}")'
    raise _at(node, f"unknown name '{told}'{near}", do)


def _word(node: Word, text: str, place: _Place) -> Word:
    """Returns the node, after the spec of the operator that takes it has checked its text."""
    try:
        if place.spec is not None:
            place.spec.check_text(text)
    except ConfigError as error:
        raise ExpressionError(str(error), span=node.span) from None
    return node


def _brief(node: Node) -> str:
    return brief_text(node)


def _short(text: str) -> str:
    return shown(text, 60)


def _what(node: Node) -> str:
    """Returns what a node without a seed is, for error messages."""
    names = {Photo: "a photo", Saved: "a saved embedding", Given: "a given value", Word: "a text"}
    return names.get(type(node), "a sum" if isinstance(node, Sum) else "missing")


def _places(node: Call, scope: _Scope, operators: Mapping[str, SpecLike] | None) -> list[_Place]:
    """Returns the place of each operand; raises ExpressionError for an unknown operator or a wrong number of them."""
    name, count = node.operator, len(node.operands)
    if operators is None:
        return [_Place("any", f"an operand of {name}", scope)] * count
    if name not in operators:
        known = ", ".join(sorted(operators)) or "none"
        raise _at(
            node, f"unknown operator '{_short(name)}'{suggest(name, operators)}", f"choose from {known}", len(name)
        )
    roles, (fewest, most) = list(operators[name].roles), operators[name].arity
    if count < fewest or (most is not None and count > most):
        names = ", ".join(role.name for role in roles) + (", ..." if most != fewest else "")
        wanted = f"{fewest}" if most == fewest else f"{fewest} or more" if most is None else f"{fewest} to {most}"
        plural = "operand" if wanted == "1" else "operands"
        more = "write a text in quotes" if any(role.kind == "any" for role in roles) else "remove the others"
        hint = "write _ for a missing one" if count < fewest else more
        raise _at(node, f"{name} takes {wanted} {plural} ({names}), got {count}", hint)
    roles += roles[-1:] * (count - len(roles))
    spec = operators[name]
    return [_Place(role.kind, f"the operand '{role.name}' of {name}", scope, spec) for role in roles]


def _checked(node: Call | Text, spec: SpecLike | None) -> tuple[Option, ...]:
    """Returns the node's options in alphabetical order, after its operator's spec has checked them."""
    check = check_options if spec is None else spec.check_options
    try:
        check(dict(node.options))
    except ConfigError as error:
        raise ExpressionError(str(error), span=node.span) from None
    return tuple(sorted(node.options))
