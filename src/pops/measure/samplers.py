"""How few steps are enough: every sampler at every number of steps, on held-out cases of toybox.

The reference is the papers' sampler, ancestral at 25 steps. All comparisons are paired: the same cases, the same
initial noise. A case's difference is its mean over `draws` of noise, so the standard errors are those of a mean over
cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pops.errors import ConfigError, ensure
from pops.measure import operators as toybox
from pops.measure.figures import cosines, hits
from pops.measure.operators import OPERATORS, Cases
from pops.prior.samplers import SAMPLERS, check_sampler

if TYPE_CHECKING:
    from torch import Tensor

    from pops.progress import OnProgress
    from pops.studio import Pops

REFERENCE = ("ancestral", 25)
STEPS = (1, 2, 4, 6, 8, 25)
MARGIN = 0.01  # one percentage point
SURELY = 1.645  # standard errors of a one-sided 95 % bound


@dataclass(frozen=True)
class Figure:
    """A mean over cases, and its difference to the reference on the same cases; as fractions."""

    value: float
    difference: float
    error: float  # standard error of the difference


@dataclass(frozen=True)
class Row:
    """One sampler at one number of steps. figures: by operator and name; spread: by operator, 1 - cosine of 2 draws."""

    sampler: str
    steps: int
    figures: dict[str, dict[str, Figure]]
    spread: dict[str, float]

    @property
    def worst(self) -> Figure:
        """The figure that is furthest below the reference."""
        return min((f for of in self.figures.values() for f in of.values()), key=lambda f: f.difference)

    @property
    def furthest(self) -> float:
        """The largest absolute difference: a figure far above the reference is another distribution, too."""
        return max(abs(f.difference) for of in self.figures.values() for f in of.values())

    @property
    def verdict(self) -> str:
        """Whether no figure is more than MARGIN below the reference's.

        "surely": no lower confidence bound is; "yes": no figure is; "no": an upper bound is; else "open".
        """
        of_all = [f for of in self.figures.values() for f in of.values()]
        if all(f.difference - SURELY * f.error >= -MARGIN for f in of_all):
            return "surely"
        if any(f.difference + SURELY * f.error < -MARGIN for f in of_all):
            return "no"
        return "yes" if self.worst.difference >= -MARGIN else "open"


@dataclass(frozen=True)
class Report:
    """The rows of all samplers and numbers of steps, the reference first."""

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
    """Measures every sampler at every number of steps on `count` triplets of each operator, drawn and encoded once.

    draws: how often each case is sampled, with different noise; the oracle reads the images of the first draw.
    guidance: None for each operator's default.
    """
    # 1) Checks.
    ensure(count >= 2, f"count must be at least 2, got {count}", ConfigError)
    ensure(draws >= 1, f"draws must be at least 1, got {draws}", ConfigError)
    for name in operators:
        toybox.check_operator(name)
    for name in samplers:
        check_sampler(name)
    grid = list(dict.fromkeys([REFERENCE, *((name, n) for name in samplers for n in steps)]))

    # 2) For each operator: its cases, and the figures of each case for every pair of the grid.
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

    # 3) Means, and paired differences to the first, the reference.
    rows = []
    for i, (name, n) in enumerate(grid):
        figures = {operator: _figures(of[i], of[0]) for operator, of in scores.items()}
        rows.append(Row(name, n, figures, {operator: of[i] for operator, of in spreads.items()}))
    return Report(p.name, count, seed, draws, guidance, rows)


def _scores(cases: Cases, of_draws: Sequence[Tensor]) -> dict[str, Tensor]:
    """Returns each case's figures [n], as means over the draws [n, D]."""
    import torch

    theirs = cosines(cases.average, cases.truth)
    mine = torch.stack([cosines(e, cases.truth) for e in of_draws])
    found = torch.stack([hits(e, cases.truth) for e in of_draws])
    return {
        "cosine": mine.mean(0),
        "recall_at_1": found.float().mean(0),
        "beats_average": (mine > theirs).float().mean(0),
    }


def _read(
    p: Pops, cases: Cases, result: Tensor, seed: int, steps: int | None, on_progress: OnProgress | None
) -> dict[str, Tensor]:
    """Returns what the oracle reads right in each case's image: [n] per attribute."""
    import torch

    from pops.toybox.oracle import Oracle

    pictures = toybox.stacked(
        toybox.rendered(p, result, seed, steps, f"{cases.operator}: rendering", on_progress, whole=False), toybox.SIDE
    )
    rows = toybox.right(Oracle.load().read(pictures), cases.answers, cases.operator)
    return {f"oracle_{k}": torch.tensor([float(row[k]) for row in rows]) for k in rows[0]}


def _spread(of_draws: Sequence[Tensor]) -> float:
    """Returns 1 - cosine between two draws of a case, mean over cases; 0 if there is only one draw."""
    return float(1 - cosines(of_draws[0], of_draws[-1]).mean()) if len(of_draws) > 1 else 0.0


def _figures(score: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, Figure]:
    figures = {}
    for key, values in score.items():
        change = (values - reference[key]).double()
        figures[key] = Figure(float(values.mean()), float(change.mean()), float(change.std()) / len(change) ** 0.5)
    return figures


# --- the table -------------------------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """Returns the report as a Markdown table, in percent and percentage points."""
    first = report.rows[0]
    names = list(first.figures)
    guidance = "each operator's default guidance" if report.guidance is None else f"guidance {report.guidance:g}"
    keys = " / ".join(key.replace("_at_", "@").replace("_", " ") for key in next(iter(first.figures.values())))
    lines = [
        f"Model `{report.model}`, {report.count} held-out triplets per operator, seed {report.seed}, {report.draws}",
        f"draws of noise per triplet, {guidance}. Percent: {keys};",
        "in brackets the spread, 100 (1 - cosine) between two draws. Differences are to",
        f"{first.sampler} at {first.steps} steps, paired by triplet, in points: the worst of all figures with its",
        "standard error, and the largest absolute one. Within 1: yes, no figure is over a point worse; **surely**,",
        "nor is the lower end of any figure's one-sided 95 % interval; open, one is worse, but maybe by chance; no,",
        "one is worse at its upper end, too.",
        "",
        f"| sampler | steps | {' | '.join(names)} | worst | largest | within 1 |",
        "|---|---|" + "---|" * len(names) + "---|---|---|",
    ]
    for row in report.rows:
        cells = [
            f"{' / '.join(f'{100 * f.value:.1f}' for f in row.figures[name].values())} ({100 * row.spread[name]:.1f})"
            for name in names
        ]
        last = ["", "", "the reference"]
        if row is not first:
            worst, verdict = row.worst, f"**{row.verdict}**" if row.verdict == "surely" else row.verdict
            last = [
                f"{100 * worst.difference:+.1f} ± {100 * worst.error:.1f}",
                f"{100 * row.furthest:.1f}",
                verdict,
            ]
        lines.append(f"| {' | '.join([row.sampler, str(row.steps), *cells, *last])} |")
    return "\n".join(lines) + "\n"
