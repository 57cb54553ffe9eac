"""How few steps do: every sampler at every number of steps, on the held-out cases of toybox, beside the papers' own.

The reference is the ancestral sampler at 25 steps. All comparisons are paired: the same cases, the same initial noise,
and a case's difference is the mean over `draws` of noise, so that the standard errors are those of a mean over cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pops.errors import ConfigError, ensure, suggest
from pops.measure import operators as toybox
from pops.measure.operators import OPERATORS, Cases, OnProgress
from pops.prior.samplers import SAMPLERS, check_sampler

if TYPE_CHECKING:
    from torch import Tensor

    from pops.studio import Pops

REFERENCE = ("ancestral", 25)
STEPS = (1, 2, 4, 6, 8, 25)
MARGIN = 0.01  # one point
SURELY = 1.645  # standard errors of a one-sided bound that holds 19 times of 20


@dataclass(frozen=True)
class Figure:
    """A mean over cases, and how it differs from the reference's on the same cases; fractions."""

    value: float
    difference: float
    error: float  # standard error of the difference


@dataclass(frozen=True)
class Row:
    """One sampler at one number of steps. figures: by operator and name; spread: by operator, 1 - cosine of draws."""

    sampler: str
    steps: int
    figures: dict[str, dict[str, Figure]]
    spread: dict[str, float]

    @property
    def worst(self) -> Figure:
        """The figure that falls furthest behind the reference."""
        return min((f for of in self.figures.values() for f in of.values()), key=lambda f: f.difference)

    @property
    def furthest(self) -> float:
        """The largest difference either way: far ahead is another distribution, too."""
        return max(abs(f.difference) for of in self.figures.values() for f in of.values())

    @property
    def verdict(self) -> str:
        """Is every figure within a point of the reference, or above? As measured, and what the errors allow to say.

        surely: every figure's lower confidence bound is; yes: every figure is; no: the upper bound of one is not.
        """
        of_all = [f for of in self.figures.values() for f in of.values()]
        if all(f.difference - SURELY * f.error >= -MARGIN for f in of_all):
            return "surely"
        if any(f.difference + SURELY * f.error < -MARGIN for f in of_all):
            return "no"
        return "yes" if self.worst.difference >= -MARGIN else "open"


@dataclass(frozen=True)
class Report:
    """The reference first."""

    model: str
    count: int
    seed: int
    draws: int
    guidance: float | None
    rows: list[Row]


def measure(
    p: Pops,
    *,
    operators: Sequence[str] = OPERATORS,
    samplers: Sequence[str] = tuple(SAMPLERS),
    steps: Sequence[int] = STEPS,
    count: int = 500,
    seed: int = 0,
    draws: int = 2,
    guidance: float | None = None,
    render: bool = True,
    render_steps: int | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Every sampler at every number of steps on `count` triplets of each operator, drawn and encoded once.

    draws: how often a case is sampled, with other noise each time; the oracle reads the first draw's pictures.
    guidance: each operator's own when left out.
    """
    # 1) What is asked for.
    ensure(count >= 2, f"count must be at least 2, got {count}", ConfigError)
    ensure(draws >= 1, f"draws must be at least 1, got {draws}", ConfigError)
    for name in operators:
        ensure(name in OPERATORS, f"toybox has no truth for {name!r}{suggest(name, OPERATORS)}", ConfigError)
    for name in samplers:
        check_sampler(name)
    grid = list(dict.fromkeys([REFERENCE, *((name, n) for name in samplers for n in steps)]))

    # 2) Operator by operator: the cases, and of every pair in the grid the figures of each case.
    scores: dict[str, list[dict[str, Tensor]]] = {}
    spreads: dict[str, list[float]] = {}
    for operator in operators:
        cases = toybox.draw_cases(p, operator, count, seed, on_progress)
        scores[operator], spreads[operator] = [], []
        for done, (name, n) in enumerate(grid, start=1):
            of_draws = [
                toybox.apply(p, cases, seed + d * count, steps=n, guidance=guidance, sampler=name) for d in range(draws)
            ]
            score = _scores(cases, of_draws)
            if render:
                score |= _read(p, cases, of_draws[0], seed, render_steps, on_progress)
            scores[operator].append(score)
            spreads[operator].append(_spread(of_draws))
            if on_progress:
                on_progress(done, len(grid), f"{operator}: {name}, {n} steps")

    # 3) Means, and paired differences to the first.
    rows = []
    for i, (name, n) in enumerate(grid):
        figures = {operator: _figures(of[i], of[0]) for operator, of in scores.items()}
        rows.append(Row(name, n, figures, {operator: of[i] for operator, of in spreads.items()}))
    return Report(p.name, count, seed, draws, guidance, rows)


def _scores(cases: Cases, of_draws: Sequence[Tensor]) -> dict[str, Tensor]:
    """Each case's figures [n], means over the draws [n, D]."""
    import torch

    theirs = toybox.cosines(cases.plain.mean(1), cases.truth)
    mine = torch.stack([toybox.cosines(e, cases.truth) for e in of_draws])
    found = torch.stack([toybox.hits(e, cases.truth) for e in of_draws])
    return {
        "cosine": mine.mean(0),
        "recall_at_1": found.float().mean(0),
        "beats_average": (mine > theirs).float().mean(0),
    }


def _read(
    p: Pops, cases: Cases, result: Tensor, seed: int, steps: int | None, on_progress: OnProgress | None
) -> dict[str, Tensor]:
    """What the oracle reads right of each case's picture, [n] an attribute."""
    import torch

    from pops.toybox.oracle import Oracle

    pictures = toybox.rendered(p, result, seed, steps, f"{cases.operator}: rendering", on_progress)
    rows = toybox.right(Oracle.load().read(pictures), cases.answers, cases.operator)
    return {f"oracle_{k}": torch.tensor([float(row[k]) for row in rows]) for k in rows[0]}


def _spread(of_draws: Sequence[Tensor]) -> float:
    """1 - cosine between two draws of a case, mean over cases; 0 where there is one draw only."""
    return float(1 - toybox.cosines(of_draws[0], of_draws[-1]).mean()) if len(of_draws) > 1 else 0.0


def _figures(score: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, Figure]:
    figures = {}
    for key, values in score.items():
        change = (values - reference[key]).double()
        figures[key] = Figure(float(values.mean()), float(change.mean()), float(change.std()) / len(change) ** 0.5)
    return figures


# --- the table -------------------------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """The report as a Markdown table, in percent and points."""
    first = report.rows[0]
    names = list(first.figures)
    guidance = "each operator's own guidance" if report.guidance is None else f"guidance {report.guidance:g}"
    keys = " / ".join(key.replace("_at_", "@").replace("_", " ") for key in next(iter(first.figures.values())))
    lines = [
        f"Model `{report.model}`, {report.count} held-out triplets an operator, seed {report.seed}, {report.draws}",
        f"draws of noise a triplet, {guidance}. Percent: {keys};",
        "in brackets the spread, 100 (1 - cosine) between two draws. Differences are to",
        f"{first.sampler} at {first.steps} steps, paired by triplet, in points: the worst of all figures with its",
        "standard error, and the largest either way. Within 1: yes, no figure is more than a point worse; **surely**,",
        "nor is the lower end of any figure's one-sided 95 % interval; open, one is worse, but maybe by chance; no,",
        "one is worse by its upper end, too.",
        "",
        f"| sampler | steps | {' | '.join(names)} | worst | largest | within 1 |",
        "|---|---|" + "---|" * len(names) + "---|---|---|",
    ]
    for row in report.rows:
        cells = [
            f"{' / '.join(f'{100 * f.value:.1f}' for f in row.figures[name].values())} ({100 * row.spread[name]:.1f})"
            for name in names
        ]
        said = ["", "", "the reference"]
        if row is not first:
            worst, verdict = row.worst, f"**{row.verdict}**" if row.verdict == "surely" else row.verdict
            said = [f"{100 * worst.difference:+.1f} ± {100 * worst.error:.1f}", f"{100 * row.furthest:.1f}", verdict]
        lines.append(f"| {' | '.join([row.sampler, str(row.steps), *cells, *said])} |")
    return "\n".join(lines) + "\n"
