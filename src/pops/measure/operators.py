"""How good a model's operators are where the truth is known: on held-out triplets of toybox.

For every operator: how near its result is to the true result's embedding (cosine, recall@1 among all truths of the
run), the same for simple baselines, and what an oracle (a classifier trained on toybox's images only) reads in the
rendered images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pops.errors import ConfigError, ensure, suggest
from pops.progress import named_steps
from pops.seeds import generators

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.progress import OnProgress
    from pops.studio import Pops
    from pops.toybox.world import SceneSpec

OPERATORS = ("texturing", "union", "scene", "instruct")
# By operator, the attributes of the truth that the oracle must read right.
ASKED = {
    "texturing": ("object", "material"),
    "union": ("object", "object_b"),
    "scene": ("object", "scene"),
    "instruct": ("adjective",),
}
SIDE = 96  # pixels of the oracle's images


@dataclass(frozen=True)
class Cases:
    """The triplets of one operator, drawn and encoded; everything has one row per triplet."""

    operator: str
    operands: list[list[Tensor]]  # per triplet: image embeddings [D], or hidden states [length, D] of a word
    plain: Tensor  # [n, 2, D] operands as embeddings, of words the text embedding
    truth: Tensor  # [n, D]
    pictures: Tensor  # uint8 [n, 3, SIDE, SIDE], the true results
    answers: list[dict[str, str]]  # what the oracle ought to read


@dataclass
class Report:
    """Figures as fractions; see `figures`."""

    model: str
    count: int
    seed: int
    pictures: int  # images of each operator, rendered and read
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
    """Measures `count` held-out triplets of each operator, drawn from `seed`.

    steps, guidance, sampler: as in Pops.apply. render=False leaves out all that needs rendered images; pictures: how
    many results are rendered, None for all. Raises ConfigError for an operator whose truth toybox does not know.
    """
    ensure(count >= 2, f"count must be at least 2, got {count}", ConfigError)
    shown = min(count, pictures or count)
    ensure(shown >= 2, f"pictures must be at least 2, got {shown}", ConfigError)
    for name in operators:
        check_operator(name)
    report = Report(p.name, count, seed, shown if render else 0)
    for name in operators:
        cases = draw_cases(p, name, count, seed, on_progress)
        result = apply(p, cases, seed, steps=steps, guidance=guidance, sampler=sampler, on_progress=on_progress)
        report.operators[name] = figures(result, cases.plain, cases.truth)
        if render:
            report.operators[name]["oracle"] = _judged(p, cases, result[:shown], seed, render_steps, on_progress)
    return report


def check_operator(name: str) -> None:
    """Raises ConfigError for an operator whose truth toybox does not know."""
    message = f"toybox has no truth for {name!r}{suggest(name, OPERATORS)}; choose from {', '.join(OPERATORS)}"
    ensure(name in OPERATORS, message, ConfigError)


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


def answer_of(spec: SceneSpec) -> dict[str, str]:
    """Returns what can be read in the true image, by the oracle's heads."""
    objects = spec.objects
    answer = {"object": objects[0].category, "scene": spec.scene, "material": objects[0].material.name}
    if len(objects) > 1:
        answer["object_b"] = objects[1].category
    if objects[0].adjectives:
        answer["adjective"] = objects[0].adjectives[0]
    return answer


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
    """Returns the operator's results [n, D], triplet k with seed + k; triplets of equal length share a batch."""
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
    """Returns cosine, recall@1, beats_average and the baselines' figures; result, truth [n, D], plain [n, 2, D]."""
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
    """Returns the cosine of each row: [n, D], [n, D] => [n]."""
    from torch.nn.functional import cosine_similarity

    return cosine_similarity(a, b, dim=-1)


def recall(e: Tensor, truth: Tensor) -> float:
    """Returns the share of rows whose nearest truth by cosine, among all, is their own."""
    return float(hits(e, truth).float().mean())


def hits(e: Tensor, truth: Tensor) -> Tensor:
    """Returns whether each row's nearest truth by cosine, among all, is its own: [n, D], [n, D] => bool [n]."""
    import torch
    from torch.nn.functional import normalize

    near = (normalize(e, dim=-1) @ normalize(truth, dim=-1).T).argmax(1)
    return near == torch.arange(len(e))


# --- rendered images ------------------------------------------------------------------------------------------------


def _judged(
    p: Pops, cases: Cases, result: Tensor, seed: int, steps: int | None, on_progress: OnProgress | None
) -> dict[str, Any]:
    """Returns the shares that the oracle reads right in rendered results, and in baselines and ceilings.

    average: the operands' average, rendered; round_trip: the truth's own embedding, rendered; both on a quarter of the
    cases. true_pictures: the true images themselves.
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
    """Returns the shares read right: of each attribute that counts for the operator, and of all at once."""
    rows = right(read, answers, operator)
    return {k: sum(row[k] for row in rows) / len(rows) for k in rows[0]}


def right(
    read: Sequence[Mapping[str, str]], answers: Sequence[Mapping[str, str]], operator: str
) -> list[dict[str, bool]]:
    """Returns for every case whether each attribute that counts for the operator was read right, and all of them."""
    rows = [{k: r[k] == a[k] for k in ASKED[operator]} for r, a in zip(read, answers, strict=True)]
    return [{**row, "all": all(row.values())} for row in rows]


def rendered(
    p: Pops, vectors: Tensor, seed: int, steps: int | None, what: str, on_progress: OnProgress | None
) -> Tensor:
    """Renders vectors [n, D] => uint8 [n, 3, SIDE, SIDE], row k with seed + k."""
    import numpy as np
    import torch
    from PIL.Image import Resampling

    from pops.render.base import RenderOptions

    backend = p.renderer()
    seeds = [seed + k for k in range(len(vectors))]
    options = RenderOptions(steps=steps, on_step=named_steps(on_progress, what))
    pictures = backend.render(vectors, seeds, backend.capabilities.native, options)
    arrays = [np.asarray(x.convert("RGB").resize((SIDE, SIDE), Resampling.LANCZOS)) for x in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


# --- the table -------------------------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """Returns the report as a Markdown table of percentages."""

    def pc(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.1f}"

    lines = [
        f"Model `{report.model}`, {report.count} held-out triplets per operator, seed {report.seed}; percent."
        + (f" Images of the first {report.pictures}." if 0 < report.pictures < report.count else ""),
        "",
        "| operator | | cosine | recall@1 | beats average | oracle |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in report.operators.items():
        judged = row.get("oracle", {})
        shares = " | ".join(pc(row[k]) for k in ("cosine", "recall_at_1", "beats_average"))
        lines.append(f"| **{name}** | result | {shares} | {_shares(judged)} |")
        for base, b in row["baselines"].items():
            read = _shares(judged.get("average", {})) if base == "average" else ""
            lines.append(f"| | {base.replace('_', ' ')} | {pc(b['cosine'])} | {pc(b['recall_at_1'])} | | {read} |")
        for extra in ("round_trip", "true_pictures"):
            if extra in judged:
                lines.append(f"| | {extra.replace('_', ' ')} | | | | {_shares(judged[extra])} |")
    return "\n".join(lines) + "\n"


def _shares(judged: Mapping[str, Any]) -> str:
    shares = [f"{k.replace('_b', ' b')} {100 * v:.1f}" for k, v in judged.items() if isinstance(v, float)]
    return ", ".join(shares)
