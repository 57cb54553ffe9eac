"""How good a model's operators are, where the truth is known: held-out triplets of toybox, and a judge of pictures.

For every operator: the true result's embedding against what the operator makes of the operands (cosine, recall@1 among
all truths of the run), the same for plain baselines, and what an oracle (a classifier trained on renderings only) reads
in the rendered pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pops.errors import ConfigError, ensure, suggest
from pops.seeds import generators

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.studio import Pops

OPERATORS = ("texturing", "union", "scene", "instruct")
# What the oracle is asked of each operator's results: the attributes of the truth that must be read right.
ASKED = {
    "texturing": ("object", "material"),
    "union": ("object", "object_b"),
    "scene": ("object", "scene"),
    "instruct": ("adjective",),
}
OnProgress = Callable[[int, int, str], None]
SIDE = 96  # pixels of the oracle's pictures


@dataclass(frozen=True)
class Cases:
    """The triplets of one operator, drawn and encoded: everything has one row a triplet."""

    operator: str
    operands: list[list[Tensor]]  # per triplet: image embeddings [D], or hidden states [length, D] of a word
    plain: Tensor  # [n, 2, D] operands as embeddings; of a word its text embedding
    truth: Tensor  # [n, D]
    pictures: Tensor  # uint8 [n, 3, SIDE, SIDE], the true results
    answers: list[dict[str, str]]  # what the oracle ought to read


@dataclass
class Report:
    """Figures as fractions; see `figures`."""

    model: str
    count: int
    seed: int
    pictures: int  # of each operator, rendered and read
    operators: dict[str, dict[str, Any]] = field(default_factory=dict)


def measure(
    p: Pops,
    *,
    operators: Sequence[str] = OPERATORS,
    count: int = 500,
    seed: int = 0,
    render: bool = True,
    pictures: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    sampler: str = "ancestral",
    render_steps: int | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """The report on `count` held-out triplets of each operator, drawn from `seed`; steps and guidance as in Pops.apply.

    render=False leaves out all that needs pictures; pictures: only the first ones' are rendered. Raises ConfigError for
    an operator that toybox has no truth for.
    """
    ensure(count >= 2, f"count must be at least 2, got {count}", ConfigError)
    shown = min(count, pictures or count)
    ensure(shown >= 2, f"pictures must be at least 2, got {shown}", ConfigError)
    for name in operators:
        ensure(name in OPERATORS, f"toybox has no truth for {name!r}{suggest(name, OPERATORS)}", ConfigError)
    report = Report(p.name, count, seed, shown if render else 0)
    for name in operators:
        cases = draw_cases(p, name, count, seed, on_progress)
        result = apply(p, cases, seed, steps=steps, guidance=guidance, sampler=sampler, on_progress=on_progress)
        report.operators[name] = figures(result, cases.plain, cases.truth)
        if render:
            report.operators[name]["oracle"] = _judged(p, cases, result[:shown], seed, render_steps, on_progress)
    return report


def draw_cases(p: Pops, operator: str, count: int, seed: int, on_progress: OnProgress | None = None) -> Cases:
    """Draws and encodes the held-out triplets `seed`, `seed + 1`, ... of an operator."""
    import torch

    from pops.toybox.draw import to_image
    from pops.toybox.pairs import draw_triplet, triplet

    images: list[Image.Image] = []
    truths, answers, words = [], [], []
    for k in range(count):
        t = triplet(operator, seed + k, "test")
        operands, result = draw_triplet(t, SIDE)
        images += [to_image(o) for o in operands if not isinstance(o, str)]
        words += [o for o in operands if isinstance(o, str)]
        truths.append(result)
        answers.append(answer_of(t.result))
        if on_progress:
            on_progress(k + 1, count, f"{operator}: drawing")
    pictures = torch.stack(truths)
    e = _embed(p, images).view(count, -1, p.space.dim)
    truth = _embed(p, [to_image(x) for x in pictures])
    rows = [list(row) for row in e]
    plain = e
    if words:
        text = p.space.encode_texts(words)
        rows = [[row[0], text.hidden[k]] for k, row in enumerate(rows)]
        plain = torch.stack([e[:, 0], text.embeds.float()], 1)
    return Cases(operator, rows, plain, truth, pictures, answers)


def _embed(p: Pops, images: Sequence[Image.Image]) -> Tensor:
    return p.embed(list(images)).vectors


def answer_of(spec: Any) -> dict[str, str]:
    """What can be read off the true picture, by the oracle's heads."""
    objects = spec.objects
    said = {"object": objects[0].category, "scene": spec.scene, "material": objects[0].material.name}
    if len(objects) > 1:
        said["object_b"] = objects[1].category
    if objects[0].adjectives:
        said["adjective"] = objects[0].adjectives[0]
    return said


def apply(
    p: Pops,
    cases: Cases,
    seed: int,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    sampler: str = "ancestral",
    on_progress: OnProgress | None = None,
) -> Tensor:
    """The operator's results [n, D], triplet k with seed + k; jobs of equal length share a batch."""
    import torch

    operator = p.operator(cases.operator)
    order: dict[int, list[int]] = {}
    for k, operands in enumerate(cases.operands):
        order.setdefault(sum(len(o) if o.ndim == 2 else 1 for o in operands), []).append(k)
    out = torch.empty_like(cases.truth)
    done = 0
    for rows in order.values():
        for chunk in (rows[i : i + 64] for i in range(0, len(rows), 64)):
            condition = operator.encode([cases.operands[k] for k in chunk])
            gens = generators([seed + k for k in chunk])
            out[chunk] = operator.sample(condition, gens, steps=steps, guidance=guidance, sampler=sampler)
            done += len(chunk)
            if on_progress:
                on_progress(done, len(out), f"{cases.operator}: applying")
    return out


# --- embeddings against the truth ------------------------------------------------------------------------------------


def figures(result: Tensor, plain: Tensor, truth: Tensor) -> dict[str, Any]:
    """Embeddings [n, D], operands [n, 2, D], truths [n, D] => cosine, recall@1, beats_average, and the baselines'."""
    average = plain.mean(1)
    mine, theirs = cosines(result, truth), cosines(average, truth)
    baselines = {"average": average, "operand_a": plain[:, 0], "operand_b": plain[:, 1]}
    return {
        "cosine": float(mine.mean()),
        "recall_at_1": recall(result, truth),
        "beats_average": float((mine > theirs).float().mean()),
        "baselines": {
            name: {"cosine": float(cosines(e, truth).mean()), "recall_at_1": recall(e, truth)}
            for name, e in baselines.items()
        },
    }


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """[n, D], [n, D] => [n]"""
    from torch.nn.functional import cosine_similarity

    return cosine_similarity(a, b, dim=-1)


def recall(e: Tensor, truth: Tensor) -> float:
    """Share of rows whose nearest truth by cosine, among all, is their own."""
    return float(hits(e, truth).float().mean())


def hits(e: Tensor, truth: Tensor) -> Tensor:
    """[n, D], [n, D] => bool [n]: is the row's nearest truth by cosine, among all, its own?"""
    import torch
    from torch.nn.functional import normalize

    near = (normalize(e, dim=-1) @ normalize(truth, dim=-1).T).argmax(1)
    return near == torch.arange(len(e))


# --- pictures before the judge ---------------------------------------------------------------------------------------


def _judged(
    p: Pops, cases: Cases, result: Tensor, seed: int, steps: int | None, on_progress: OnProgress | None
) -> dict[str, Any]:
    """The oracle's readings of rendered results, and, on a quarter of the cases, of the average and of the truth's own
    embedding rendered (the renderer's round trip); of the true pictures themselves, the ceiling, on all.
    """
    from pops.toybox.oracle import Oracle

    oracle, n = Oracle.load(), len(result)
    part = max(2, n // 4)

    def read(vectors: Tensor, what: str) -> list[dict[str, str]]:
        return oracle.read(rendered(p, vectors, seed, steps, f"{cases.operator}: {what}", on_progress))

    average, answers = cases.plain.mean(1), cases.answers[:n]
    return {
        **score(read(result, "rendering"), answers, cases.operator),
        "average": score(read(average[:part], "average"), answers[:part], cases.operator),
        "round_trip": score(read(cases.truth[:part], "round trip"), answers[:part], cases.operator),
        "true_pictures": score(oracle.read(cases.pictures[:n]), answers, cases.operator),
    }


def score(read: Sequence[Mapping[str, str]], answers: Sequence[Mapping[str, str]], operator: str) -> dict[str, float]:
    """Shares read right: each attribute that counts for the operator, and all of them at once."""
    rows = right(read, answers, operator)
    return {k: sum(row[k] for row in rows) / len(rows) for k in rows[0]}


def right(
    read: Sequence[Mapping[str, str]], answers: Sequence[Mapping[str, str]], operator: str
) -> list[dict[str, bool]]:
    """Of every case: was each attribute that counts for the operator read right, and were all of them?"""
    rows = [{k: r[k] == a[k] for k in ASKED[operator]} for r, a in zip(read, answers, strict=True)]
    return [{**row, "all": all(row.values())} for row in rows]


def rendered(
    p: Pops, vectors: Tensor, seed: int, steps: int | None, what: str, on_progress: OnProgress | None
) -> Tensor:
    """Pictures uint8 [n, 3, SIDE, SIDE], row k with seed + k."""
    import numpy as np
    import torch
    from PIL.Image import Resampling

    from pops.render.base import RenderOptions

    backend = p.renderer()
    step = None if on_progress is None else (lambda done, total: on_progress(done, total, what))
    seeds, options = [seed + k for k in range(len(vectors))], RenderOptions(steps=steps, on_step=step)
    pictures = backend.render(vectors, seeds, backend.capabilities.native, options)
    arrays = [np.asarray(x.convert("RGB").resize((SIDE, SIDE), Resampling.LANCZOS)) for x in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


# --- the table -------------------------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """The report as a Markdown table, percentages."""

    def pc(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.1f}"

    lines = [
        f"Model `{report.model}`, {report.count} held-out triplets an operator, seed {report.seed}; percent."
        + (f" Pictures of the first {report.pictures}." if 0 < report.pictures < report.count else ""),
        "",
        "| operator | | cosine | recall@1 | beats average | oracle |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in report.operators.items():
        judged = row.get("oracle", {})
        shares = " | ".join(pc(row[k]) for k in ("cosine", "recall_at_1", "beats_average"))
        lines.append(f"| **{name}** | result | {shares} | {_said(judged)} |")
        for base, b in row["baselines"].items():
            said = _said(judged.get("average", {})) if base == "average" else ""
            lines.append(f"| | {base.replace('_', ' ')} | {pc(b['cosine'])} | {pc(b['recall_at_1'])} | | {said} |")
        for extra in ("round_trip", "true_pictures"):
            if extra in judged:
                lines.append(f"| | {extra.replace('_', ' ')} | | | | {_said(judged[extra])} |")
    return "\n".join(lines) + "\n"


def _said(judged: Mapping[str, Any]) -> str:
    shares = [f"{k.replace('_b', ' b')} {100 * v:.1f}" for k, v in judged.items() if isinstance(v, float)]
    return ", ".join(shares)
