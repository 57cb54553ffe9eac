"""The page of an operator on the hub: what it does, how good it is, what it learnt from. Text in, Markdown out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pops.errors import ensure, shown
from pops.operators.spec import OperatorSpec

PERCENT = {
    "cosine": "cosine to the truth",
    "recall_at_1": "recall@1",
    "recall_at_5": "recall@5",
    "beats_average": "beats the average of its operands",
    "beats_constant": "beats one constant guess",
}  # figures of pops evaluate, all in percent


@dataclass(frozen=True)
class Card:
    """What an operator's page says beside what its folder knows.

    figures: what `pops evaluate --json` printed; data: a text on the examples, Markdown; pictures: files of images;
    licence: its name on the hub, such as apache-2.0; base_model: hub id of the model that it belongs to.
    """

    figures: Mapping[str, Any] | None = None
    data: str = ""
    pictures: Sequence[Path] = field(default_factory=tuple)
    licence: str | None = None
    base_model: str | None = None

    def check(self, name: str) -> None:
        """Raises ConfigError if the figures are not of the operator of this name, or the licence is no name."""
        if self.figures is not None:
            good = all(isinstance(self.figures.get(key), (int, float)) for key in ("cosine", "beats_average"))
            ensure(good, "these are no figures of an operator; give what pops evaluate --json printed")
            of = self.figures.get("operator")
            ensure(of == name, f"these are figures of {shown(repr(of))}, not of {name!r}; evaluate {name} itself")
        plain = self.licence is None or self.licence.replace("-", "").replace(".", "").replace("+", "").isalnum()
        ensure(plain, f"a licence is named as on the hub, such as apache-2.0, got {shown(repr(self.licence))}")


def text_of(card: Card, spec: OperatorSpec, about: Mapping[str, Any], repo: str, pictures: Sequence[str]) -> str:
    """Returns the page, with the front matter that the hub reads. about: operator.json; pictures: names in the repo."""
    roles = ", ".join(f"{role.name}{'' if role.kind == 'image' else ' (text)'}" for role in spec.roles)
    provenance = dict(about.get("provenance") or {})
    model = str(provenance.get("model") or "MODEL")
    operands = ", ".join('"a word"' if role.kind == "text" else f"{role.name}.png" for role in spec.roles)
    lines = ["---", "library_name: pops", "tags: [pops, image-composition]"]
    lines += [f"license: {card.licence}"] if card.licence else []
    lines += [f"base_model: {card.base_model}"] if card.base_model else []
    lines += ["---", f"# {spec.name}({roles})", ""]
    lines += [f"An operator of [pops]: {spec.summary or 'learnt from examples'}. It maps embeddings of the space"]
    lines += [f"`{about['space']}` to one more, and needs the base prior `{about['base']}` (model `{model}`).", ""]
    for name in pictures:
        lines += [f"![{spec.name}]({name})", ""]
    lines += ["## Use", "", "```sh", f"pops operators pull {repo} -o {spec.name}"]
    lines += [f"pops run '{spec.name}({operands})' --model {model} --operator {spec.name}={spec.name} -o out.png"]
    lines += ["```", ""]
    if card.figures is not None:
        lines += ["## Figures", "", *_figures(card.figures), ""]
    if "validation" in provenance or "steps" in provenance:
        lines += ["## Training", "", *_training(provenance), ""]
    if card.data:
        lines += ["## Examples", "", card.data.strip(), ""]
    lines += ["The files are checked against `manifest.json` (sha256) before they are loaded; they hold no code.", ""]
    return "\n".join(lines)


def _figures(figures: Mapping[str, Any]) -> list[str]:
    """Returns the figures of an evaluation and its baselines as tables."""
    about = figures.get("about") or {}
    lines = [
        f"On {about.get('count', '?')} examples of `{about.get('data', '?')}`, split {about.get('split', '?')}, by "
        f"`pops evaluate`: {figures.get('verdict', '')}.".replace(": .", "."),
        "",
        "| percent | | standard error |",
        "|---|---|---|",
    ]
    for key, title in PERCENT.items():
        if isinstance(figures.get(key), (int, float)):
            error = figures.get(f"{key}_error")
            told = f"{100 * error:.1f}" if isinstance(error, (int, float)) else ""
            lines.append(f"| {title} | {100 * figures[key]:.1f} | {told} |")
    baselines = figures.get("baselines") or {}
    if baselines:
        lines += ["", "| baseline | cosine | recall@1 |", "|---|---|---|"]
        for name, of in baselines.items():
            role = of.get("role", name)
            lines.append(f"| {role} | {100 * of['cosine']:.1f} | {100 * of['recall_at_1']:.1f} |")
    return lines


def _training(provenance: Mapping[str, Any]) -> list[str]:
    """Returns how an operator came to be, as far as its folder says."""
    said = []
    if "samples" in provenance:
        said.append(f"{provenance['samples']} examples of `{provenance.get('data', '?')}`")
    if "start" in provenance:
        said.append(f"from `{provenance['start']}`")
    if "steps" in provenance:
        said.append(f"{provenance['steps']} steps")
    lines = [", ".join(said) + "."] if said else []
    if isinstance(provenance.get("config"), Mapping):
        settings = json.dumps(provenance["config"], indent=2)
        lines += ["", "<details><summary>All settings</summary>", "", "```json", settings, "```", "", "</details>"]
    return lines
