"""The report of `python -m benchmarks prior` as Markdown tables."""

from __future__ import annotations

from benchmarks import training
from benchmarks.memory import Peak
from benchmarks.prior import PUBLIC, Cell, Report

SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "int8": "int8"}

TITLE = "Written by `python -m benchmarks prior`; what is measured, and how: [performance.md](performance.md)."


def markdown(report: Report) -> str:
    """Returns the machine, sampling, and memory and training if they were measured."""
    parts = [TITLE, _machine(report), _sampling(report)]
    if report.memory is not None:
        parts.append(_memory(report.memory))
    if report.training is not None:
        parts.append(_training(report.training, report.rounds))
    return "\n\n".join(parts) + "\n"


def _machine(report: Report) -> str:
    m = report.machine
    rates = ", ".join(f"{SHORT[p]} {rate / 1e9:.0f}" for p, rate in report.matrix_rates.items())
    build = ", ".join(f"{SHORT[p]} {seconds:.1f} s" for p, seconds in report.build.items())
    device = "" if m["device"] == "cpu" else f"{m['device']}; "
    load = "" if m["load"] is None else f", load {m['load']:.1f} when it began"
    return "\n".join(
        [
            f"Machine: {device}{m['processor']}, {m['cores']} cores, {m['threads']} threads{load}; "
            f"torch {m['torch']}, diffusers {m['diffusers']}.",
            f"Measured: {report.read_rate / 1e9:.1f} GB/s read; products, 10^9 operations per second: {rates}.",
            f"Prior: {report.layers} layers, {report.parameters / 1e6:.0f} M parameters, random weights. Packing them, "
            f"once: {build}.",
        ]
    )


def _sampling(report: Report) -> str:
    publics = [f"public {SHORT[p]} (s)" for p in PUBLIC]
    ratios = [f"x {SHORT[p]}" for p in PUBLIC]
    head = ["batch", "guidance", "precision", "ours (s)", "ms per step", "floor (ms)", "of floor"]
    head += publics + ratios + ["error"]
    lines = [
        "## Sampling",
        "",
        f"{report.steps} steps, two operands, everything included; {_medians(report.rounds)}.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
    ]
    for cell in report.cells:
        lines += _rows(cell, report.steps)
    if any(cell.public_steps < report.steps for cell in report.cells):
        n = min(cell.public_steps for cell in report.cells)
        measured = f"{n} step{'s' if n > 1 else ''} measured, times {report.steps / n:g}."
        lines += ["", f"\\* The public way at this batch: {measured}"]
    errors = [
        f"{SHORT[p]} at guidance {cell.guidance:g} {_error(e)}"
        for cell in report.cells
        if cell.batch == 1
        for p, e in cell.public_error.items()
    ]
    if errors:
        lines += ["", f"The public way's own error against its fp32: {', '.join(errors)}."]
    return "\n".join(lines)


def _medians(rounds: int) -> str:
    return "one round" if rounds == 1 else f"medians of {rounds} rounds in turn"


def _rows(cell: Cell, steps: int) -> list[str]:
    mark = "" if cell.public_steps == steps else " \\*"
    lines = []
    for name, o in cell.ours.items():
        cells = [str(cell.batch), f"{cell.guidance:g}", SHORT[name], f"{o.seconds:.3g}", f"{1e3 * o.step:.3g}"]
        cells += [f"{1e3 * o.floor:.3g}", f"{o.of_floor:.2f}"]
        cells += [f"{cell.public[p]:.3g}{mark}" for p in PUBLIC]
        cells += [f"**{o.speedups[p]:.1f}**" if p == PUBLIC[0] else f"{o.speedups[p]:.1f}" for p in PUBLIC]
        lines.append(f"| {' | '.join([*cells, _error(o.error)])} |")
    return lines


def _error(e: float) -> str:
    return f"{e:.1e}" if e < 1e-3 else f"{100 * e:.2f} %"


def _memory(peaks: list[Peak]) -> str:
    lines = [
        "## Memory",
        "",
        "Peak beyond the imports of a fresh process that reads the prior (float32 files) and samples once, guided.",
        "",
        "| way | precision | peak (GB) | reading and packing (s) |",
        "|---|---|---|---|",
    ]
    for p in peaks:
        size = "not known" if p.peak is None else f"{p.peak / 1e9:.2f}"
        lines.append(f"| {p.way} | {SHORT[p.precision]} | {size} | {p.seconds:.1f} |")
    return "\n".join(lines)


def _training(report: training.Report, rounds: int) -> str:
    head = ["batch", "public (ms)", "ours fp32 (ms)", "ours bf16 (ms)", "x fp32", "x bf16", "encoder (ms)"]
    head += ["x fp32 with it", "x bf16 with it", "average (ms)"]
    lines = [
        "## A training step",
        "",
        f"Full width, {report.layers} of 20 layers ({report.parameters / 1e6:.0f} M parameters): forward, backward, "
        f"clipping, optimiser; {_medians(rounds)}. Public: fp32, 81 slots, plain AdamW; ours: the "
        "slots in use, fused AdamW, bf16 by autocast. Encoder: what encoding the recipe's three images per sample "
        f"adds, ViT-bigG cut to {report.encoder_layers} of {training.LAYERS_OF_ENCODER} layers; ours trains on stored "
        "embeddings. Average: what our trainer's running average of the weights adds, which the recipe does not have.",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
    ]
    for row in report.rows:
        ms = [f"{1e3 * seconds:.0f}" for seconds in (row.public, *row.ours.values())]
        plain, full = ([f"{x:.1f}" for x in r.values()] for r in (row.ratios, row.ratios_with_encoder))
        cells = [str(row.batch), *ms, *(f"**{x}**" for x in plain), f"{1e3 * row.encoder:.0f}", *full]
        lines.append(f"| {' | '.join([*cells, f'{1e3 * row.average:.0f}'])} |")
    lines += ["", f"The first losses of both ways differ by {report.loss_error:.1e}, relatively."]
    return "\n".join(lines)
