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
from pops.measure.audit import hard_negatives, shortcuts
from pops.measure.figures import cosines, kernel_distance, recall, sharpness
from pops.progress import named_steps
from pops.seeds import generators

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.operators.operator import Operator
    from pops.progress import OnProgress
    from pops.studio import Pops
    from pops.toybox.world import SceneSpec

OPERATORS = ("texturing", "union", "scene", "instruct")
UNIONS = ("union_3", "union_4")  # unions of unions, for three and four operands
FURTHER = ("clothes", *UNIONS)
# By operator, the attributes of the truth that the oracle must read right.
ASKED = {
    "texturing": ("object", "material"),
    "union": ("object", "object_b"),
    "scene": ("object", "scene"),
    "instruct": ("adjective",),
    "clothes": ("object",),
}
SIDE = 96  # pixels of the oracle's images
SHARP_SIDE = 256  # pixels at which sharpness is measured
SHARP_OF = 64  # images of which it is measured, each beside its own truth


@dataclass(frozen=True)
class Cases:
    """The triplets of one operator, drawn and encoded; everything has one row per triplet."""

    operator: str
    operands: list[list[Tensor]]  # per triplet: image embeddings [D], or hidden states [length, D] of a word
    plain: Tensor  # [n, k, D] operands as embeddings, of words the text embedding; zeros where there are fewer
    there: Tensor  # [n, k] bool
    truth: Tensor  # [n, D]
    pictures: Tensor  # uint8 [n, 3, SIDE, SIDE], the true results
    answers: list[dict[str, str]]  # what the oracle ought to read

    @property
    def average(self) -> Tensor:
        """The mean of the operands that are there: [n, D]."""
        return self.plain.sum(1) / self.there.sum(1, keepdim=True)


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
    audited: int = 100,
    steps: int | None = None,
    guidance: float | None = None,
    strength: float | None = None,
    sampler: str = "ancestral",
    render_steps: int | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Measures `count` held-out triplets of each operator, drawn from `seed`.

    steps, guidance, strength, sampler: as in Pops.apply. render=False leaves out all that needs rendered images;
    pictures: how many results are rendered, None for all; audited: how many results meet hard negatives (see audit.py),
    0 for none.
    Raises ConfigError for an operator whose truth toybox does not know.
    """
    ensure(count >= 2, f"count must be at least 2, got {count}", ConfigError)
    shown = min(count, pictures or count)
    ensure(shown >= 2, f"pictures must be at least 2, got {shown}", ConfigError)
    for name in operators:
        check_operator(name)
    report = Report(p.name, count, seed, shown if render else 0)
    for name in operators:
        cases = draw_cases(p, name, count, seed, on_progress)
        result = apply(
            p, cases, seed, steps=steps, guidance=guidance, strength=strength, sampler=sampler, on_progress=on_progress
        )
        row = report.operators[name] = figures(result, cases)
        row["audit"] = shortcuts(result, cases.plain, cases.truth, cases.there)
        if audited:
            row["audit"] |= hard_negatives(
                p, name, cases.average, cases.truth, result[:audited], seed, SIDE, on_progress
            )
        if render and name in ASKED:
            row["oracle"], row["images"] = _judged(p, cases, result[:shown], seed, render_steps, on_progress)
    return report


def check_operator(name: str) -> None:
    """Raises ConfigError for an operator whose truth toybox does not know."""
    known = (*OPERATORS, *FURTHER)
    message = f"toybox has no truth for {name!r}{suggest(name, known)}; choose from {', '.join(known)}"
    ensure(name in known, message, ConfigError)


def operator_of(case: str) -> str:
    """Returns the operator that computes a case: of union_3 and union_4 it is union."""
    return "union" if case in UNIONS else case


def draw_cases(p: Pops, operator: str, count: int, seed: int, on_progress: OnProgress | None = None) -> Cases:
    """Draws and encodes the held-out triplets `seed`, `seed + 1`, ... of an operator."""
    import torch

    from pops.toybox.draw import to_image
    from pops.toybox.pairs import draw_triplet, triplet

    images: list[Image.Image] = []
    sizes: list[int] = []
    truths, answers, words = [], [], []
    for k in range(count):
        t = triplet(operator, seed + k, "test")
        operands, result = draw_triplet(t, SIDE)
        images += [to_image(o) for o in operands if not isinstance(o, str)]
        sizes.append(len(images) - sum(sizes))
        words += [o for o in operands if isinstance(o, str)]
        truths.append(result)
        answers.append(answer_of(t.result))
        if on_progress:
            on_progress(k + 1, count, f"{operator}: drawing")
    pictures = torch.stack(truths)
    rows = [list(row) for row in _embed(p, images).split(sizes)]
    truth = _embed(p, [to_image(x) for x in pictures])
    plain = torch.nn.utils.rnn.pad_sequence([torch.stack(row) for row in rows], batch_first=True)
    there = torch.arange(plain.shape[1])[None] < torch.tensor(sizes)[:, None]
    if words:
        text = p.space.encode_texts(words)
        rows = [[row[0], text.hidden[k]] for k, row in enumerate(rows)]
        plain = torch.stack([plain[:, 0], text.embeds.float()], 1)
        there = torch.ones(count, 2, dtype=torch.bool)
    return Cases(operator, rows, plain, there, truth, pictures, answers)


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
    strength: float | None = None,
    sampler: str = "ancestral",
    on_progress: OnProgress | None = None,
) -> Tensor:
    """Returns the operator's results [n, D], triplet k with seed + k; of UNIONS union(union(a, b), c), and
    union(union(a, b), union(c, d)).
    """
    operator = p.operator(operator_of(cases.operator))

    def sampled(operands: Sequence[Sequence[Tensor]]) -> Tensor:
        how = {"steps": steps, "guidance": guidance, "strength": strength, "sampler": sampler}
        return _sampled(operator, operands, seed, how, named)

    def named(done: int, total: int, _: str) -> None:
        if on_progress:
            on_progress(done, total, f"{cases.operator}: applying")

    def joined(operands: Tensor) -> Tensor:  # [n, k, D]
        if operands.shape[1] == 1:
            return operands[:, 0]
        half = (operands.shape[1] + 1) // 2
        return sampled(list(zip(joined(operands[:, :half]), joined(operands[:, half:]), strict=True)))

    return joined(cases.plain) if cases.operator in UNIONS else sampled(cases.operands)


def _sampled(
    operator: Operator, operands: Sequence[Sequence[Tensor]], seed: int, how: Mapping[str, Any], on_progress: OnProgress
) -> Tensor:
    """Returns an operator's results, row k with seed + k; rows of equal length share a batch."""
    import torch

    order: dict[int, list[int]] = {}
    for k, row in enumerate(operands):
        order.setdefault(sum(len(o) if o.ndim == 2 else 1 for o in row), []).append(k)
    out = torch.empty(len(operands), operator.prior.dim)
    done = 0
    for rows in order.values():
        for chunk in (rows[i : i + 64] for i in range(0, len(rows), 64)):
            condition = operator.encode([operands[k] for k in chunk])
            gens = generators([seed + k for k in chunk])
            out[chunk] = operator.sample(condition, gens, **how)
            done += len(chunk)
            on_progress(done, len(out), "")
    return out


# --- embeddings against the truth ------------------------------------------------------------------------------------


def figures(result: Tensor, cases: Cases) -> dict[str, Any]:
    """Returns cosine, recall@1, beats_average and the baselines' figures of results [n, D]."""
    average, plain, truth = cases.average, cases.plain, cases.truth
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


# --- rendered images ------------------------------------------------------------------------------------------------


def _judged(
    p: Pops, cases: Cases, result: Tensor, seed: int, steps: int | None, on_progress: OnProgress | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what the oracle reads right in rendered results, in baselines and ceilings; and figures of the images.

    average: the operands' average, rendered; round_trip: the truth's own embedding, rendered; both on a quarter of the
    cases. true_pictures: the true images themselves.
    """
    from pops.toybox.oracle import Oracle

    oracle, n = Oracle.load(), len(result)
    part = max(2, n // 4)
    wanted = {"result": result, "average": cases.average[:part], "round_trip": cases.truth[:part]}
    shares, looks = dict[str, Any](), dict[str, Any]()
    for name, vectors in wanted.items():
        what = "rendering" if name == "result" else name.replace("_", " ")
        images = rendered(p, vectors, seed, steps, f"{cases.operator}: {what}", on_progress)
        read = oracle.read(stacked(images, SIDE))
        of_name = score(read, cases.answers[: len(images)], cases.operator)
        shares |= of_name if name == "result" else {name: of_name}
        looks[name] = _look(p, cases, images, seed)
    shares["true_pictures"] = score(oracle.read(cases.pictures[:n]), cases.answers[:n], cases.operator)
    return shares, looks


def _look(p: Pops, cases: Cases, images: Sequence[Image.Image], seed: int) -> dict[str, float]:
    """Returns figures of rendered images against the true ones of the same cases.

    sharpness: share of the truth's mean luminance gradient at 256 pixels, to which both are shrunk if they are larger,
    of the first SHARP_OF cases;
    fidelity: mean cosine of the image, embedded again, to the truth; kernel_distance: of the two sets in the image
    tower's embeddings, times 1000.
    """
    from pops.toybox.draw import draw, to_image
    from pops.toybox.pairs import triplet

    n = len(images)
    some = images[:SHARP_OF]
    side = max(SHARP_SIDE, images[0].width)
    drawn = [to_image(draw(triplet(cases.operator, seed + k, "test").result, side)) for k in range(len(some))]
    sharp, true = (sharpness(stacked(each, SHARP_SIDE)).mean() for each in (some, drawn))
    again, truth = _embed(p, images), cases.truth[:n]
    return {
        "sharpness": float(sharp / true),
        "fidelity": float(cosines(again, truth).mean()),
        "kernel_distance": kernel_distance(again[0::2], truth[1::2]),  # of different cases: the sets are independent
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
    p: Pops,
    vectors: Tensor,
    seed: int,
    steps: int | None,
    what: str,
    on_progress: OnProgress | None,
    *,
    whole: bool = True,
) -> list[Image.Image]:
    """Renders vectors [n, D], row k with seed + k, as large as the model makes images by default; whole=False: as the
    renderer makes them, without the upscaler.
    """
    from pops.render.base import RenderOptions

    backend = p.renderer()
    seeds = [seed + k for k in range(len(vectors))]
    options = RenderOptions(steps=steps, on_step=named_steps(on_progress, what))
    images = backend.render(vectors, seeds, backend.capabilities.native, options)
    return finished(p, images, f"{what}, enlarging", on_progress) if whole else images


def finished(
    p: Pops, images: list[Image.Image], what: str = "", on_progress: OnProgress | None = None
) -> list[Image.Image]:
    """Returns images of the model's renderer as large as the model makes them: those of its upscaler, if it has one."""
    upscaler = p.model.upscaler(p.renderer())
    if upscaler is None:
        return images
    large: list[Image.Image] = []
    for image in images:
        large += upscaler.images([image])
        if on_progress:
            on_progress(len(large), len(images), what)
    return large


def stacked(images: Sequence[Image.Image], side: int) -> Tensor:
    """Returns images of any size as uint8 [n, 3, side, side]."""
    import numpy as np
    import torch
    from PIL.Image import Resampling

    arrays = [np.asarray(x.convert("RGB").resize((side, side), Resampling.LANCZOS)) for x in images]
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
        "| operator | | cosine | recall@1 | beats average | oracle | sharpness | fidelity | distance |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in report.operators.items():
        judged, images = row.get("oracle", {}), row.get("images", {})
        shares = " | ".join(pc(row[k]) for k in ("cosine", "recall_at_1", "beats_average"))
        lines.append(f"| **{name}** | result | {shares} | {_shares(judged)} | {_looks(images.get('result'))} |")
        for base, b in row["baselines"].items():
            read = _shares(judged.get("average", {})) if base == "average" else ""
            look = _looks(images.get("average") if base == "average" else None)
            figures = f"{pc(b['cosine'])} | {pc(b['recall_at_1'])}"
            lines.append(f"| | {base.replace('_', ' ')} | {figures} | | {read} | {look} |")
        for extra in ("round_trip", "true_pictures"):
            if extra in judged:
                look = _looks(images.get(extra))
                lines.append(f"| | {extra.replace('_', ' ')} | | | | {_shares(judged[extra])} | {look} |")
    return "\n".join([*lines, "", *_audit_table(report)]) + "\n"


def _audit_table(report: Report) -> list[str]:
    """The audit as lines of Markdown; the operands' average stands in brackets."""
    lines = [
        "| audit | one operand answers | recall@1 of the rest | hard | hard, operand a | hard, operand b |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in report.operators.items():
        audit = row["audit"]
        cells = [f"{100 * audit['answered_by_one']:.1f}"]
        for key in ("recall_at_1_of_rest", "hard"):
            both = [f"{100 * audit[k]:.1f}" for k in (key, f"average_{key}") if k in audit]
            cells.append(f"{both[0]} ({both[1]})" if both else "")
        cells += [f"{100 * audit[k]:.1f}" if k in audit else "" for k in ("hard_operand_a", "hard_operand_b")]
        lines.append(f"| **{name}** | {' | '.join(cells)} |")
    return lines


def _looks(images: Mapping[str, float] | None) -> str:
    if images is None:
        return " | | "
    return f"{images['sharpness']:.2f} | {images['fidelity']:.3f} | {images['kernel_distance']:.1f}"


def _shares(judged: Mapping[str, Any]) -> str:
    shares = [f"{k.replace('_b', ' b')} {100 * v:.1f}" for k, v in judged.items() if isinstance(v, float)]
    return ", ".join(shares)
