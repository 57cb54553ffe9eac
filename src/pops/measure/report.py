"""The report of an evaluation: as lines for a terminal, and as one HTML page that holds its images."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.images import load_photo
from pops.measure.examples import Evaluation
from pops.measure.pictures import draw

if TYPE_CHECKING:
    from PIL import Image

    from pops.progress import OnProgress
    from pops.studio import Pops

RENDERED = {  # figures of images, embedded again
    "result": "image of the result",
    "average": "image of the average",
    "truth": "image of the truth's embedding",
    "ip_adapter": "IP-Adapter with all pictures",
}
SIDE = 128  # pixels of an image in the page
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
body{color:#1d2430;background:#fafafa}
h1{font-size:1.5rem;margin-bottom:.2rem} h2{font-size:1.1rem;margin-top:2rem} p.about{color:#5c6675;margin-top:0}
.verdict{padding:.8rem 1rem;border-radius:.5rem;background:#fff3d6;border-left:.3rem solid #d99a00}
.verdict.good{background:#e2f5e6;border-color:#2c9a4b} .verdict.bad{background:#fde4e1;border-color:#c8402f}
table{border-collapse:collapse;background:#fff}
td,th{padding:.35rem .8rem;border-bottom:1px solid #e4e7ec;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}
.pictures td{vertical-align:top;font-size:.8rem;color:#5c6675;max-width:9rem}
.pictures img{display:block;width:8rem;height:8rem;object-fit:cover;border-radius:.35rem}
"""


def rows_of(done: Evaluation) -> list[tuple[str, str, str, str]]:
    """Returns the table of an evaluation: who, cosine, recall@1, beats average."""
    f = done.figures

    def share(key: str, of: Mapping[str, Any] = f) -> str:
        return f"{100 * of[key]:.1f} ± {100 * of[key + '_error']:.1f}"

    rows = [(done.operator, share("cosine"), share("recall_at_1"), share("beats_average"))]
    for name, b in f["baselines"].items():
        who = name.replace("_", " ") if name in ("average", "text") else f"{name.replace('_', ' ')} ({b['role']})"
        rows.append((who, share("cosine", b), share("recall_at_1", b), ""))
    drawn = f.get("rendered", {})
    for name, who in RENDERED.items():
        if name in drawn:
            of_first = f"{who}, of the first {drawn['count']}"
            rows.append((of_first, share("cosine", drawn[name]), share("recall_at_1", drawn[name]), ""))
    return rows


def table(done: Evaluation) -> str:
    """Returns the figures as lines of text, percentages."""
    cells = [("percent", "cosine", "recall@1", "beats average"), *rows_of(done)]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in cells]
    about = f"{done.count} examples of {done.data}, split {done.split}, model {done.model}"
    audit = f"one operand alone answers {done.figures['audit']['answered_by_one']:.0%} of the examples"
    return "\n".join([f"{done.operator}: {done.verdict}", f"{about}; {audit}", "", *lines])


def html(
    p: Pops, done: Evaluation, *, most: int, seed: int = 0, on_progress: OnProgress | None = None
) -> str:  # fmt: skip
    """Returns the page: the verdict, the table, and for the first `most` examples the operands, the truth, and what
    the result, the average and the truth's own embedding look like when the model's renderer makes images of them,
    and what it makes of all operands together, if it has an IP-Adapter. The images' figures go to the evaluation.
    """
    encoded, result = done.encoded, done.result
    assert encoded is not None and result is not None
    count = min(most, done.count)
    images = draw(p, done, count, seed, on_progress)
    roles = list(done.roles)
    head = "".join(f"<th>{escape(role)}</th>" for role in [*roles, "truth", *images])
    body = []
    for i, example in enumerate(encoded.examples[:count]):
        cells = [
            _cell(example.images.get(name))
            if kind == "image"
            else f"<td>“{escape(example.texts.get(name) or '')}”</td>"
            for name, kind in encoded.columns
        ]
        cells.append(_cell(example.target) if example.target else f"<td>“{escape(example.caption or '')}”</td>")
        cells += [f"<td>{_image(images[what][i])}{_near(done, what, i)}</td>" for what in images]
        body.append(f"<tr>{''.join(cells)}</tr>")
    lines = "".join(
        f"<tr><td>{escape(row[0])}</td>" + "".join(f"<td class=n>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows_of(done)
    )
    f = done.figures
    more = [f"recall@5 {f['recall_at_5']:.1%}"]
    more += [f"similarity to {name.replace('_', ' ')} {value:.3f}" for name, value in f["similarity"].items()]
    more += [f"diversity over seeds {f['diversity']:.4f}"] if "diversity" in f else []
    more.append(f"one operand alone answers {f['audit']['answered_by_one']:.1%} of the examples")
    about = f"{done.count} examples of {escape(done.data)}, split {escape(done.split)}, model {escape(done.model)}"
    notes = "".join(f"<p>{escape(note)}</p>" for note in done.notes)
    kind = "good" if done.verdict.startswith("learnt:") else "bad" if done.verdict.startswith("not") else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(done.operator)}: evaluation</title><style>{STYLE}</style></head><body>
<h1>{escape(done.operator)}({escape(", ".join(roles))})</h1>
<p class="about">{about}</p>
<p class="verdict {kind}">{escape(done.verdict[:1].upper() + done.verdict[1:])}.</p>{notes}
<h2>Figures, in percent</h2>
<table><tr><th></th><th>cosine to the truth</th><th>recall@1</th><th>beats the average</th></tr>{lines}</table>
<p>{escape("; ".join(more))}.</p>
<h2>Examples</h2><table class="pictures"><tr>{head}</tr>{"".join(body)}</table>
</body></html>
"""


def _near(done: Evaluation, what: str, i: int) -> str:
    """Returns the cosine to the truth of a result or of the average, under its image."""
    from pops.measure.figures import cosines

    assert done.encoded is not None and done.result is not None
    vectors: dict[str, Any] = {"result": done.result, "average": done.encoded.average}
    if what not in vectors:
        return ""
    return f"cosine {float(cosines(vectors[what][i : i + 1], done.encoded.truth[i : i + 1])[0]):.3f}"


def _cell(path: Path | None) -> str:
    return "<td>missing</td>" if path is None else f"<td>{_image(load_photo(path, size=SIDE))}</td>"


def _image(image: Image.Image) -> str:
    """Returns the image inside the page."""
    small, data = image.convert("RGB").resize((SIDE, SIDE)), io.BytesIO()
    small.save(data, "JPEG", quality=88)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'
