"""A tree is checked against the operators and stripped to what matters: resolved nodes.

A resolved node holds no lets and no names, the kind of every operand fits its role, and options stand in
alphabetical order. Operators come as an argument (whatever has a name, roles and an arity): this module knows
none by name.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

from pops.errors import ConfigError, ExpressionError, suggest
from pops.expression.grammar import to_text
from pops.expression.nodes import MIX, Call, Given, Let, Missing, Name, Node, Option, Photo, Saved, Sum, Text, Word
from pops.prior.options import check_options

# any: what mix takes, and the operands of an operator without a spec
Kind: TypeAlias = Literal["image", "text", "any"]


class RoleLike(Protocol):
    """An operand's place: what a plan needs to know of it."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...


class SpecLike(Protocol):
    """What a plan needs to know of an operator; OperatorSpec is one."""

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
    """What the lets around a place bind."""

    bindings: Mapping[str, Node]
    outer: _Scope | None

    def find(self, name: str) -> _Scope | None:
        scope: _Scope | None = self
        while scope is not None and name not in scope.bindings:
            scope = scope.outer
        return scope

    def names(self) -> list[str]:
        return [*self.bindings, *(self.outer.names() if self.outer else ())]


@dataclass(frozen=True)
class _Place:
    """Where a node stands: what kind belongs there, how errors call the place, and the lets around it."""

    kind: Kind
    label: str
    scope: _Scope
    spec: SpecLike | None = None  # of the operator whose operand it is


_Asking: TypeAlias = "Generator[tuple[Node, _Place], Node, Node]"


class Resolver:
    """Replaces names, checks calls, and gives equal nodes one object.

    Each step is a generator that yields what it needs resolved first; `run` keeps them on a list of its own,
    so that neither depth nor long chains of lets reach Python's recursion limit.
    """

    def __init__(self, operators: Mapping[str, SpecLike] | None) -> None:
        self.operators = operators
        self.equal: dict[Node, Node] = {}
        self.bound: dict[tuple[_Scope, str, Kind], Node] = {}
        self.open: dict[tuple[_Scope, str, Kind], None] = {}  # bindings being resolved, outermost first

    def run(self, root: Node) -> Node:
        stack: list[_Asking] = [self.step(root, _Place("image", "the result", _Scope({}, None)))]
        answer: Node | None = None
        while stack:
            try:
                ask = next(stack[-1]) if answer is None else stack[-1].send(answer)
                stack.append(self.step(*ask))
                answer = None
            except StopIteration as done:
                stack.pop()
                answer = self.equal.setdefault(done.value, done.value)
        if answer is None or isinstance(answer, Missing):
            raise _at(root, "_ alone is nothing to compute", "it stands for an operand of a call")
        return answer

    def step(self, node: Node, place: _Place) -> _Asking:
        match node:
            case Let(bindings, body):
                return (yield body, replace(place, scope=_Scope(dict(bindings), place.scope)))
            case Name():
                return (yield from self.name(node, place))
            case Word(text) if place.kind == "image":
                do = f'write text("{text}") for a picture of it, or photo("{text}") if it is a file'
                raise _at(node, f"{_brief(node)} is a text, but {place.label} is a picture", do)
            case Word(text):
                return _word(node, text, place)
            case Missing():
                return node
            case _ if place.kind == "text":
                do = 'write a word, in quotes if it has spaces or dots: "golden"'
                raise _at(node, f"{_brief(node)} is a picture, but {place.label} is a text", do)
            case Call():
                return (yield from self.call(node, place.scope))
            case Sum():
                return (yield from self.sum(node, place))
            case Text():
                return replace(node, options=_checked(node, None))
        return node

    def call(self, node: Call, scope: _Scope) -> _Asking:
        spec = None if self.operators is None else self.operators.get(node.operator)
        places = _places(node, scope, self.operators)
        options, operands = _checked(node, spec) if spec or node.operator != MIX else node.options, []
        for place, operand in zip(places, node.operands):
            value = yield operand, place
            if spec is not None and place.kind == "any" and isinstance(value, Missing):
                do = "give a photo, a text in quotes, or an expression"
                raise _at(operand, f"{place.label} cannot be left open", do)
            operands.append(value)
        return Call(node.operator, tuple(operands), options, node.seed, span=node.span)

    def sum(self, node: Sum, place: _Place) -> _Asking:
        kind: Kind = "any" if place.kind == "any" else "image"  # 0.7*"tiger" + 0.3*"gold" as the content of a mix
        terms = []
        for weight, part in node.terms:
            value = yield part, replace(place, kind=kind, label="a term of a sum")
            if isinstance(value, Missing):
                raise _at(part, "a sum has no open operands", "take _ away, or use it in a call")
            terms.append((float(weight), value))
        return Sum(tuple(terms), span=node.span)

    def name(self, node: Name, place: _Place) -> _Asking:
        home = place.scope.find(node.name)
        if home is None:
            return _unbound(node, place)
        key = (home, node.name, place.kind)
        if key not in self.bound:
            if key in self.open:
                names = [name for _, name, _ in self.open]
                circle = " -> ".join([*names[names.index(node.name) :], node.name])
                raise _at(node, f"let goes round in a circle: {_short(circle)}", "give one of them another name")
            self.open[key] = None
            self.bound[key] = yield home.bindings[node.name], replace(place, scope=home)
            del self.open[key]
        value = self.bound[key]
        if node.seed is None:
            return value
        if isinstance(value, (Call, Text)):
            return replace(value, seed=node.seed, span=node.span)
        raise _at(node, f"'{node.name}' is {_what(value)}, which no seed changes", f"write {node.name} alone")


def _at(node: Node, what: str, do: str, length: int | None = None) -> ExpressionError:
    span = node.span if node.span is None or length is None else (node.span[0], node.span[0] + length)
    return ExpressionError(f"{what}; {do}", span=span)


def _unbound(node: Name, place: _Place) -> Node:
    """A name that no let binds: a word in a text role, a photo of unusual suffix, else a mistake."""
    name = node.name
    if node.seed is None and (place.kind == "text" or (place.kind == "any" and "." not in name)):
        return _word(Word(name, span=node.span), name, place)
    near = suggest(name, place.scope.names())
    if "." in name and node.seed is None and not near:
        return Photo(name, span=node.span)
    do = f'a photo has its suffix ({name}.png) or a slash (./{name}), a text is written text("{name}")'
    raise _at(node, f"no let binds '{name}'{near}", do)


def _word(node: Word, text: str, place: _Place) -> Word:
    """The word, after the spec of the operator that takes it has checked it."""
    try:
        if place.spec is not None:
            place.spec.check_text(text)
    except ConfigError as error:
        raise ExpressionError(str(error), span=node.span) from None
    return node


def _brief(node: Node) -> str:
    return _short(to_text(node))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _what(node: Node) -> str:
    names = {Photo: "a photo", Saved: "a saved embedding", Given: "a given value", Word: "a word"}
    return names.get(type(node), "a sum" if isinstance(node, Sum) else "missing")


def _places(node: Call, scope: _Scope, operators: Mapping[str, SpecLike] | None) -> list[_Place]:
    """One place an operand, after a look at the operator's name and at their number."""
    name, count = node.operator, len(node.operands)
    if operators is None:
        return [_Place("any", f"an operand of {name}", scope)] * count
    if name not in operators:
        known = ", ".join(sorted(operators)) or "none"
        raise _at(node, f"unknown operator '{name}'{suggest(name, operators)}", f"choose from {known}", len(name))
    roles, (fewest, most) = list(operators[name].roles), operators[name].arity
    if count < fewest or (most is not None and count > most):
        names = ", ".join(role.name for role in roles) + (", ..." if most != fewest else "")
        wanted = f"{fewest}" if most == fewest else f"{fewest} or more" if most is None else f"{fewest} to {most}"
        plural = "operand" if wanted == "1" else "operands"
        more = "a text goes in quotes" if any(role.kind == "any" for role in roles) else "take the others away"
        hint = "write _ for a missing one" if count < fewest else more
        raise _at(node, f"{name} takes {wanted} {plural} ({names}), got {count}", hint)
    roles += roles[-1:] * (count - len(roles))
    spec = operators[name]
    return [_Place(role.kind, f"the operand '{role.name}' of {name}", scope, spec) for role in roles]


def _checked(node: Call | Text, spec: SpecLike | None) -> tuple[Option, ...]:
    """The node's options in alphabetical order, after its operator's spec has checked them."""
    check = check_options if spec is None else spec.check_options
    try:
        check(dict(node.options))
    except ConfigError as error:
        raise ExpressionError(str(error), span=node.span) from None
    return tuple(sorted(node.options))
