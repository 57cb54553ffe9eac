"""A tree becomes a plan: levels of equal operators, each a batch, everything that repeats computed once.

Pure: no tensors, no files, and no operator known by name. The nodes of a plan are resolved (resolve.py), and
are the keys under which whoever executes it keeps what was computed: first photos, saved, given, words, then
level by level `values[job.node]` from `values[operand]`; `values[plan.root]` is the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pops.errors import ExpressionError
from pops.expression.grammar import located, to_text
from pops.expression.nodes import Call, Given, Missing, Node, Option, Photo, Saved, Sum, Text, Word, is_blend, is_mix
from pops.expression.resolve import Resolver, SpecLike

SUM, TEXT = "+", "text"  # the `operator` of levels that no trained operator computes


@dataclass(frozen=True)
class Job:
    """One thing to compute: `node` from its `operands` (resolved nodes, in order).

    `weights` belongs to sums (one a term), `prompt` to texts. `seed` is the node's own; None: the run's.
    """

    node: Node
    operands: tuple[Node, ...] = ()
    weights: tuple[float, ...] = ()
    prompt: str = ""
    seed: int | None = None

    @property
    def partial(self) -> bool:
        """Whether an operand is missing."""
        return any(isinstance(operand, Missing) for operand in self.operands)


@dataclass(frozen=True)
class Level:
    """Jobs that one batch computes: the same operator (or SUM, TEXT or MIX), options and number of operands."""

    depth: int  # 1 needs encoded photos and words only; n needs levels up to n - 1
    operator: str
    options: tuple[Option, ...]
    jobs: tuple[Job, ...]

    @property
    def partial(self) -> bool:
        """Whether an operand of its jobs is missing: of all of them, or of none."""
        return self.jobs[0].partial

    def option(self, key: str, default: Any = None) -> Any:
        """The value that the expression gives to `key`, else the default."""
        return dict(self.options).get(key, default)


@dataclass(frozen=True)
class Plan:
    """What to encode, what to compute in which order, and which node is the answer. Prints itself."""

    root: Node
    photos: tuple[Photo, ...]
    saved: tuple[Saved, ...]
    given: tuple[Given, ...]
    words: tuple[Word, ...]
    levels: tuple[Level, ...]
    uses: Mapping[Node, int] = field(repr=False)  # how many operands each node is, over all jobs

    @cached_property
    def embedded(self) -> frozenset[Node]:
        """The nodes that somebody needs as an embedding (or, of words, as the text encoder reads them): the result,
        what operators and sums take, and of a mix the content. Its words stay texts; a layout that is a photo, a mix
        or a value stays what it is."""
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
        """All texts that the space's text encoder sees, once each: words of text roles, prompts of text(...)."""
        prompts = (job.prompt for level in self.levels if level.operator == TEXT for job in level.jobs)
        return tuple(dict.fromkeys([*(word.text for word in self.words if word in self.embedded), *prompts]))

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All jobs, in an order in which they can run."""
        return tuple(job for level in self.levels for job in level.jobs)

    def __str__(self) -> str:
        return _listing(self)


def plan(root: Node, operators: Mapping[str, SpecLike] | None, *, text: str = "") -> Plan:
    """Check the tree against the operators and lay it out in levels.

    With None for operators any name is one, and takes whatever it is given. `text` is what the tree was
    parsed from, for the carets of errors. ExpressionError where a name is unbound, an operator unknown, or an
    operand or option wrong.
    """
    try:
        resolved = Resolver(operators).run(root)
    except ExpressionError as error:
        raise located(error, text) from None
    leaves, jobs = _Leaves(), []
    for node in _in_order(resolved):
        job = _job(node)
        if job is not None:
            jobs.append(job)
        elif not is_blend(node):
            leaves.add(node)
    depths: dict[Node, int] = {}
    groups: dict[tuple[int, str, tuple[Option, ...], int, bool], list[Job]] = {}
    for job in jobs:
        below = (part for operand in job.operands for part in (operand, *_encoded(operand)))
        depths[job.node] = depth = 1 + max((depths.get(part, 0) for part in below), default=0)
        operator, options = _batch_of(job.node)
        groups.setdefault((depth, operator, options, len(job.operands), job.partial), []).append(job)
    levels = [Level(key[0], key[1], key[2], tuple(members)) for key, members in groups.items()]
    levels.sort(key=lambda level: level.depth)  # stable: otherwise in order of appearance
    uses = Counter(operand for job in jobs for operand in job.operands)
    return Plan(resolved, *leaves.found(), tuple(levels), uses)


def _in_order(root: Node) -> list[Node]:
    """Every node once, operands before what is made of them, left to right."""
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


class _Leaves:
    def __init__(self) -> None:
        self._of: dict[type[Node], list[Any]] = {Photo: [], Saved: [], Given: [], Word: [], Missing: []}

    def add(self, node: Node) -> None:
        self._of[type(node)].append(node)

    def found(self) -> tuple[tuple[Photo, ...], tuple[Saved, ...], tuple[Given, ...], tuple[Word, ...]]:
        return tuple(self._of[Photo]), tuple(self._of[Saved]), tuple(self._of[Given]), tuple(self._of[Word])


def _encoded(node: Node) -> tuple[Node, ...]:
    """What has to be an embedding so that a mix can take the node: nothing of a text."""
    if is_blend(node):
        return tuple(part for part in node.children() if not isinstance(part, Word))
    return () if isinstance(node, Word) else (node,)


def _job(node: Node) -> Job | None:
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
    match node:
        case Call(operator, _, options, _):
            return operator, options
        case Text(_, options, _):
            return TEXT, options
    return SUM, ()


# --- the listing -----------------------------------------------------------------------------------


def _listing(plan: Plan) -> str:
    """Levels, operators, shared sub-expressions; a job's result is #n, and later lines call it so."""
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
