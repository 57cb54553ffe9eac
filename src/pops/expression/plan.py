"""The planner: orders a tree into levels, each a batch of calls of one operator; equal nodes are computed once.

Pure: no tensors and no files. It knows no operators by name but mix. The nodes of a plan are resolved (resolve.py)
and serve as the keys of the values that the executor computes: first photos, saved, given and words, then level by
level `values[job.node]` from `values[operand]`; `values[plan.root]` is the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar, cast

from pops.errors import ExpressionError
from pops.expression.grammar import located, to_text
from pops.expression.nodes import Call, Given, Missing, Node, Option, Photo, Saved, Sum, Text, Word, is_blend, is_mix
from pops.expression.resolve import Resolver, SpecLike

Leaf = TypeVar("Leaf", bound=Node)
Value = TypeVar("Value")

SUM, TEXT = "+", "text"  # the `operator` of levels of weighted sums and of text(...) calls


@dataclass(frozen=True)
class Job:
    """One computation: the value of `node` from those of its `operands` (resolved nodes, in order).

    weights: of a sum, one per term; prompt: of a text(...); seed: the node's own, None for the run's.
    """

    node: Node
    operands: tuple[Node, ...] = ()
    weights: tuple[float, ...] = ()
    prompt: str = ""
    seed: int | None = None

    @property
    def partial(self) -> bool:
        """True if an operand is missing."""
        return any(isinstance(operand, Missing) for operand in self.operands)


@dataclass(frozen=True)
class Level:
    """Jobs computed as one batch: they share the operator (or SUM, TEXT or MIX), options and number of operands."""

    depth: int  # 1 if the operands are leaves (photos, words, ...), n if they come from levels up to n - 1
    operator: str
    options: tuple[Option, ...]
    jobs: tuple[Job, ...]

    @property
    def partial(self) -> bool:
        """True if every job misses an operand; jobs with and without missing operands never share a level."""
        return self.jobs[0].partial

    def option(self, key: str, default: Value) -> Value:
        """Returns the option's value in the expression, or the default, whose type the operator's spec has checked."""
        return cast("Value", dict(self.options).get(key, default))


@dataclass(frozen=True)
class Plan:
    """What to encode, what to compute in which order, and which node is the result. `str()` returns a listing."""

    root: Node
    photos: tuple[Photo, ...]
    saved: tuple[Saved, ...]
    given: tuple[Given, ...]
    words: tuple[Word, ...]
    levels: tuple[Level, ...]
    uses: Mapping[Node, int] = field(repr=False)  # how often each node is an operand, over all jobs

    @cached_property
    def embedded(self) -> frozenset[Node]:
        """The nodes needed as embeddings (words: as output of the text encoder): the result, every operand of
        operators and sums, and the content of mixes.
        """
        # A mix uses its texts as texts, and a layout that is a photo, a file, a given value or another mix as an
        # image or latent: encoding those would be wasted.
        needed: set[Node] = {self.root}
        for job in self.jobs:
            if not is_mix(job.node):
                needed.update(job.operands)
                continue
            layout, content = job.operands
            needed.update(_encoded(content))
            if not isinstance(layout, (Photo, Saved, Given)) and not is_mix(layout):
                needed.update(_encoded(layout))
        return frozenset(needed)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts that the space's text encoder encodes, each once: words of text roles and prompts of text(...)."""
        prompts = (job.prompt for level in self.levels if level.operator == TEXT for job in level.jobs)
        return tuple(dict.fromkeys([*(word.text for word in self.words if word in self.embedded), *prompts]))

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All jobs, each after those that it depends on."""
        return tuple(job for level in self.levels for job in level.jobs)

    def __str__(self) -> str:
        return _listing(self)


def plan(root: Node, operators: Mapping[str, SpecLike] | None, *, text: str = "") -> Plan:
    """Returns the plan of a tree, after checking it against the operators.

    operators: specs by name; None allows any name with any operands; text: what the tree was parsed from, which errors
    quote. Raises ExpressionError for an unbound name, an unknown operator, or a wrong operand or option.
    """
    try:
        resolved = Resolver(operators).run(root)
    except ExpressionError as error:
        raise located(error, text) from None
    leaves: list[Node] = []
    jobs: list[Job] = []
    for node in _in_order(resolved):
        job = _job(node)
        if job is not None:
            jobs.append(job)
        elif not is_blend(node):  # the mix that takes a blend computes it, term by term
            leaves.append(node)
    depths: dict[Node, int] = {}
    groups: dict[tuple[int, str, tuple[Option, ...], int, bool], list[Job]] = {}
    for job in jobs:
        # The terms of a blend have no job between them and the mix, so the mix depends on them directly.
        below = (part for operand in job.operands for part in (operand, *_encoded(operand)))
        depths[job.node] = depth = 1 + max((depths.get(part, 0) for part in below), default=0)
        operator, options = _batch_of(job.node)
        # Jobs of one batch must have equal tensor shapes (operands) and the same defaults (partial).
        groups.setdefault((depth, operator, options, len(job.operands), job.partial), []).append(job)
    levels = [Level(key[0], key[1], key[2], tuple(members)) for key, members in groups.items()]
    levels.sort(key=lambda level: level.depth)  # stable: within a depth in order of appearance
    uses = Counter(operand for job in jobs for operand in job.operands)
    return Plan(
        resolved,
        photos=_of_type(leaves, Photo),
        saved=_of_type(leaves, Saved),
        given=_of_type(leaves, Given),
        words=_of_type(leaves, Word),
        levels=tuple(levels),
        uses=uses,
    )


def _of_type(nodes: list[Node], kind: type[Leaf]) -> tuple[Leaf, ...]:
    return tuple(node for node in nodes if isinstance(node, kind))


def _in_order(root: Node) -> list[Node]:
    """Returns every node once, operands before the nodes that take them, left to right."""
    # An explicit stack: long chains of shared nodes would exceed Python's recursion limit.
    order: dict[Node, None] = {}
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if node in order:
            continue
        if ready:
            order[node] = None
        else:
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(node.children()))
    return list(order)


def _encoded(node: Node) -> tuple[Node, ...]:
    """Returns the nodes that must be embeddings for a mix to use this operand; a text needs none."""
    if is_blend(node):
        return tuple(part for part in node.children() if not isinstance(part, Word))
    return () if isinstance(node, Word) else (node,)


def _job(node: Node) -> Job | None:
    """Returns the computation of a node; None for leaves and for blends."""
    match node:
        case Sum() if is_blend(node):
            return None
        case Call(_, operands, _, seed):
            return Job(node, operands, seed=seed)
        case Sum(terms):
            return Job(node, tuple(part for _, part in terms), weights=tuple(float(weight) for weight, _ in terms))
        case Text(prompt, _, seed):
            return Job(node, prompt=prompt, seed=seed)
    return None


def _batch_of(node: Node) -> tuple[str, tuple[Option, ...]]:
    """Returns the operator and options that the jobs of one batch share."""
    match node:
        case Call(operator, _, options, _):
            return operator, options
        case Text(_, options, _):
            return TEXT, options
    return SUM, ()


# --- the listing -----------------------------------------------------------------------------------


def _listing(plan: Plan) -> str:
    """Returns the plan as text: what is encoded, each level's jobs (#n names the value of job n), what is shared."""
    number = {job.node: f"#{i}" for i, job in enumerate(plan.jobs, 1)}

    def short(node: Node) -> str:
        return number.get(node) or to_text(node)

    counts = [
        _count(len(plan.photos), "photo"),
        _count(len(plan.saved), "saved embedding"),
        _count(len(plan.given), "given value"),
        _count(len(plan.texts), "text"),
        f"{_count(len(plan.jobs), 'step', none='0 steps')} in "
        f"{_count(len(plan.levels), 'batch', 'batches', none='0 batches')}",
    ]
    leaves = (*plan.photos, *plan.saved, *plan.given, *plan.words)
    rows = [
        ("encode", ", ".join(short(leaf) for leaf in leaves if leaf in plan.embedded)),
        ("mix", ", ".join(short(leaf) for leaf in leaves if leaf not in plan.embedded)),
    ]
    for level in plan.levels:
        for i, job in enumerate(level.jobs):
            made = to_text(job.node, number)
            rows.append((f"level {level.depth}" if i == 0 else "", f"{number[job.node]} = {made}"))
    shared = [(node, plan.uses[node]) for node in number if plan.uses[node] > 1]
    rows.append(("shared", ", ".join(f"{number[node]} ({count} uses)" for node, count in shared)))
    rows.append(("result", short(plan.root)))
    body = [f"  {head:<8} {text}" for head, text in rows if text]
    return "\n".join([", ".join(filter(None, counts)), *body])


def _count(n: int, one: str, many: str = "", none: str = "") -> str:
    return none if n == 0 else f"{n} {one if n == 1 else many or one + 's'}"
