"""How good an operator is on a folder of examples: its results against the true ones, and against simple baselines.

The figures have the names of `pops bench toybox`; shares and cosines, each with its standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.data import Example, Folder
from pops.errors import OperandError, ensure
from pops.files import shown
from pops.measure.audit import shortcuts
from pops.measure.figures import cosines, hits
from pops.seeds import generators
from pops.training.learning import is_learnt, verdict
from pops.training.validation import error_of

if TYPE_CHECKING:
    from torch import Tensor

    from pops.operators.spec import OperatorSpec
    from pops.progress import OnProgress
    from pops.studio import Pops

FEWEST = 2
SPLITS = ("test", "validation", "train")  # the first with enough examples is measured, unless one is named
GUESSED = 64  # training examples whose mean result is the constant guess
PART = 64  # examples applied together, and photos encoded together


@dataclass(frozen=True, eq=False)
class Encoded:
    """Examples, encoded. operands: by example and role, None where missing; plain [n, k, D]: the operands as
    embeddings, of words the text embedding, zeros where missing; there [n, k] bool; truth [n, D]."""

    examples: Sequence[Example]
    columns: Sequence[tuple[str, str]]  # of each operand: its column in the folder, and its kind
    operands: list[list[Tensor | None]]
    plain: Tensor
    there: Tensor
    truth: Tensor
    texts: Tensor | None = None  # [n, D] text embeddings of caption or word, if every example has one

    @property
    def average(self) -> Tensor:
        """The mean of the operands that are there: [n, D]."""
        weight = self.there.float()[..., None]
        return (self.plain * weight).sum(1) / weight.sum(1).clamp(min=1)


@dataclass
class Evaluation:
    """What was measured, on which examples; `result` and `encoded` are what a report draws."""

    operator: str
    model: str
    data: str
    split: str
    count: int
    roles: list[str]
    figures: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    encoded: Encoded | None = None
    result: Tensor | None = None

    @property
    def verdict(self) -> str:
        """One sentence that says plainly how good it is."""
        return verdict(self.figures, self.count)

    def to_data(self) -> dict[str, Any]:
        """Returns plain values; the figures at the top, as `pops bench toybox` names them."""
        about = {"model": self.model, "data": self.data, "split": self.split, "count": self.count, "roles": self.roles}
        learnt = is_learnt(self.figures)
        return {
            "operator": self.operator,
            **self.figures,
            "learnt": learnt,
            "verdict": self.verdict,
            "notes": self.notes,
            "about": about,
        }


def evaluate(
    p: Pops,
    name: str,
    data: str | Path,
    *,
    split: str | None = None,
    most: int | None = None,
    seed: int = 0,
    draws: int = 3,
    steps: int | None = None,
    guidance: float | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Measures an operator of the model on a split of a folder of examples; example i is computed with seed + i.

    split: the test split unless given, or the validation split if that is empty. most: at most so many examples.
    draws: seeds of each example whose results are compared for diversity. steps, guidance: the operator's own unless
    given. ConfigError if there are too few examples or their roles are not the operator's.
    """
    folder, spec, notes = Folder.read(data), p.model.spec(name), []
    chosen = split or next((s for s in SPLITS if len(folder.rows(s)) >= FEWEST), SPLITS[0])
    if split is None and chosen != SPLITS[0]:
        notes.append(f"there is no {SPLITS[0]} split; measured on {chosen}")
    if chosen == "train":
        notes.append("these examples may have been trained on: the figures say nothing of others")
    rows = [row for row in folder.rows(chosen) if row.target is not None or row.caption is not None]
    told = f"{shown(data)} has {len(rows)} examples with a result in split {chosen}, at least {FEWEST} are needed"
    ensure(len(rows) >= FEWEST, told)
    encoded = _encode(p, folder, spec, rows[:most], on_progress)
    results = [
        _apply(p, name, encoded, seed + 100_003 * draw, steps, guidance, on_progress) for draw in range(max(1, draws))
    ]
    found = figures(results[0], encoded, _constant(p, folder, encoded))
    if len(results) > 1:
        found["diversity"] = float(sum((1 - cosines(a, b)).mean() for a, b in combinations(results, 2))) / (
            len(results) * (len(results) - 1) / 2
        )
    found["baselines"] = _baselines(p, spec, encoded, seed)
    found["audit"] = shortcuts(results[0], encoded.plain, encoded.truth, encoded.there)
    roles = [role.name for role in spec.roles_for(len(encoded.columns))]
    return Evaluation(
        name, p.name, Path(data).name, chosen, len(encoded.truth), roles, found, notes, encoded, results[0]
    )


# --- encoding and applying -------------------------------------------------------------------------------------------


def _encode(
    p: Pops, folder: Folder, spec: OperatorSpec, rows: Sequence[Example], on_progress: OnProgress | None
) -> Encoded:
    """Encodes examples, the operands in the order of the operator's roles."""
    import torch

    columns = _columns(folder, spec)
    photos = sorted({path for row in rows for path in (*row.images.values(), row.target) if path is not None})
    words = sorted({text for row in rows for text in (*row.texts.values(), row.caption) if text})
    vectors: dict[Path, Tensor] = {}
    for first in range(0, len(photos), PART):
        part = photos[first : first + PART]
        vectors |= dict(zip(part, p.embed(list(part)).vectors))
        if on_progress:
            on_progress(len(vectors), len(photos), "encoding")
    encoding = p.space.encode_texts(words) if words else None
    hidden = dict(zip(words, encoding.hidden)) if encoding else {}
    embeds = dict(zip(words, encoding.embeds.float())) if encoding else {}

    operands: list[list[Tensor | None]] = []
    plain: list[Tensor] = []
    there: list[list[bool]] = []
    zero = torch.zeros(p.space.dim)
    for row in rows:
        of_row: list[Tensor | None] = []
        shape: list[Tensor | None] = []
        for column, kind in columns:
            photo, text = row.images.get(column), row.texts.get(column)
            of_row.append((vectors[photo] if photo else None) if kind == "image" else (hidden[text] if text else None))
            shape.append((vectors[photo] if photo else None) if kind == "image" else (embeds[text] if text else None))
        while spec.repeat and len(of_row) > 1 and of_row[-1] is None:
            of_row.pop()  # of a list of operands, what is not there is left out
        operands.append(of_row)
        plain.append(torch.stack([zero if e is None else e for e in shape]))
        there.append([e is not None for e in shape])
    truth = torch.stack([vectors[row.target] if row.target else embeds[str(row.caption)] for row in rows])
    said = [row.caption or next((text for text in row.texts.values() if text), "") for row in rows]
    texts = torch.stack([embeds[text] for text in said]) if all(said) else None
    return Encoded(rows, columns, operands, torch.stack(plain), torch.tensor(there), truth, texts)


def _columns(folder: Folder, spec: OperatorSpec) -> list[tuple[str, str]]:
    """Returns the folder's column for each operand, by the roles' names or else by their order, and its kind."""
    have = [(role.name, role.kind) for role in folder.roles]
    ordered = [*(c for c in have if c[1] == "image"), *(c for c in have if c[1] == "text")]
    roles = spec.roles_for(len(ordered)) if spec.repeat else spec.roles
    wanted = [(role.name, role.kind) for role in roles]
    if sorted(wanted) == sorted(ordered):
        return [(name, str(kind)) for name, kind in wanted]
    kinds, theirs = [kind for _, kind in ordered], [kind for _, kind in wanted]
    named = ", ".join(f"{name} ({kind})" for name, kind in wanted)
    got = ", ".join(f"{name} ({kind})" for name, kind in ordered)
    told = f"{spec.name} takes {named}, {shown(folder.path)} has {got}; evaluate it on examples of its own roles"
    ensure(kinds == theirs, told, OperandError)
    return [(name, str(kind)) for name, kind in ordered]


def _apply(
    p: Pops,
    name: str,
    encoded: Encoded,
    seed: int,
    steps: int | None,
    guidance: float | None,
    on_progress: OnProgress | None,
) -> Tensor:
    """Returns the operator's results [n, D], example i with seed + i; examples of equal length share a batch."""
    import torch

    operator = p.operator(name)
    order: dict[tuple[int, bool], list[int]] = {}
    for i, operands in enumerate(encoded.operands):
        length = sum(1 if o is None or o.ndim == 1 else len(o) for o in operands)
        order.setdefault((length, any(o is None for o in operands)), []).append(i)
    out, done = torch.empty_like(encoded.truth), 0
    for (_, missing), rows in order.items():
        own = operator.spec.defaults(missing)
        for chunk in (rows[i : i + PART] for i in range(0, len(rows), PART)):
            condition = operator.encode([encoded.operands[i] for i in chunk])
            gens = generators([seed + i for i in chunk])
            scale = own.guidance if guidance is None else guidance
            out[chunk] = operator.sample(
                condition, gens, steps=steps or own.steps, guidance=scale, strength=own.strength
            )
            done += len(chunk)
            if on_progress:
                on_progress(done, len(out), f"{name}: applying")
    return out


# --- figures ---------------------------------------------------------------------------------------------------------


def _constant(p: Pops, folder: Folder, encoded: Encoded) -> Tensor:
    """Returns one guess for all examples [D]: the mean of training results; of the truths where there are none."""
    photos = [row.target for row in folder.rows("train")[:GUESSED] if row.target is not None]
    if len(photos) < FEWEST or not any(row.target for row in encoded.examples):
        return encoded.truth.mean(0)
    return p.embed(list(photos)).vectors.mean(0)


def figures(result: Tensor, encoded: Encoded, constant: Tensor) -> dict[str, Any]:
    """Returns the figures of results [n, D] on encoded examples, each with its standard error; constant [D]: a guess
    that knows no operands.
    """
    truth, average = encoded.truth, encoded.average
    mine, theirs = cosines(result, truth), cosines(average, truth)
    each = {
        "cosine": mine,
        "recall_at_1": hits(result, truth).float(),
        "recall_at_5": _within(result, truth, 5),
        "beats_average": (mine > theirs).float(),
        "beats_constant": (mine > cosines(constant[None], truth)).float(),
    }
    found: dict[str, Any] = {name: float(value.mean()) for name, value in each.items()}
    found |= {f"{name}_error": error_of(name, value) for name, value in each.items()}
    similarity = {}
    for k in range(encoded.plain.shape[1]):
        there = encoded.there[:, k]
        if bool(there.any()):
            similarity[f"operand_{chr(97 + k)}"] = float(cosines(result[there], encoded.plain[there, k]).mean())
    if encoded.texts is not None:
        similarity["text"] = float(cosines(result, encoded.texts).mean())
    return {**found, "similarity": similarity}


def _within(e: Tensor, truth: Tensor, k: int) -> Tensor:
    """Returns whether each row's own truth is among the k nearest: [n] of 0 and 1."""
    import torch
    from torch.nn.functional import normalize

    near = (normalize(e, dim=-1) @ normalize(truth, dim=-1).T).topk(min(k, len(truth)), dim=1).indices
    return (near == torch.arange(len(e))[:, None]).any(1).float()


def _baselines(p: Pops, spec: OperatorSpec, encoded: Encoded, seed: int) -> dict[str, dict[str, Any]]:
    """Returns figures of what needs no operator: the average, each operand, and the text alone by the base prior."""
    roles = spec.roles_for(encoded.plain.shape[1])
    every: dict[str, tuple[Tensor, str]] = {"average": (encoded.average, "the operands' average")}
    for k, role in enumerate(roles):
        every[f"operand_{chr(97 + k)}"] = (encoded.plain[:, k], role.name)
    if encoded.texts is not None:
        every["text"] = (_text_alone(p, encoded, seed), "the text alone, through the base prior")
    found: dict[str, dict[str, Any]] = {}
    for name, (e, what) in every.items():
        each = {"cosine": cosines(e, encoded.truth), "recall_at_1": hits(e, encoded.truth).float()}
        errors = {f"{key}_error": error_of(key, value) for key, value in each.items()}
        found[name] = {"role": what, **{key: float(value.mean()) for key, value in each.items()}, **errors}
    return found


def _text_alone(p: Pops, encoded: Encoded, seed: int) -> Tensor:
    """Returns what the base prior makes of each example's caption, or of its word: [n, D]."""
    import torch

    from pops.operators.operator import TEXT_STEPS, sample

    texts = [row.caption or next(iter(filter(None, row.texts.values()))) for row in encoded.examples]
    unique = sorted(set(texts))
    encoding, empty = p.space.encode_texts(unique), p.space.encode_texts([""])
    rows = torch.tensor([unique.index(text) for text in texts])
    found = []
    for first in range(0, len(unique), PART):
        part = slice(first, first + PART)
        task = p.model.text_prior.task(
            encoding.hidden[part], encoding.embeds[part].float(), (empty.hidden[0], empty.embeds[0].float())
        )
        gens = generators([seed + first + i for i in range(len(task))])
        found.append(sample([task], gens, steps=TEXT_STEPS))
    return torch.cat(found)[rows]
