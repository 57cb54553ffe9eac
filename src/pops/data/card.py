"""The data card of made examples, README.md: what they are, how they were made, and what the filters refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Done(Protocol):
    """An item that is done."""

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]: ...
    @property
    def rejected(self) -> Mapping[str, int]: ...


def card(header: Mapping[str, Any], items: Sequence[Done]) -> str:
    """Returns the card as Markdown, with the front matter that the hub reads; the same for the same examples."""
    made_with = header["made_with"]
    rows = [row for item in items for row in item.rows]
    rejected: Counter[str] = Counter()
    for item in items:
        rejected.update(item.rejected)
    failed = sum(not item.rows for item in items)
    splits = Counter(row["split"] for row in rows)
    attempts = sum(rejected.values()) + len(items) - failed
    licence = made_with.get("licence")
    lines = [
        "---",
        *([f"license: {str(licence).lower()}"] if licence else []),
        "tags: [pops, image-composition]",
        "---",
        f"# Examples of {header['operator']}",
        "",
        f"{len(rows)} examples from {len(items)} items, made by the teacher `{header['teacher']}` with seed "
        f"{header['seed']}. Each row of `metadata.jsonl` names its pictures by role; `pops data check` shows them.",
        "",
        "| split | examples |",
        "|---|---|",
        *(f"| {split} | {splits[split]} |" for split in ("train", "validation", "test")),
        "",
        "## Filters",
        "",
        f"{attempts} attempts, {sum(rejected.values())} refused, {failed} items given up after {header['tries']}.",
        "",
    ]
    if rejected:
        lines += [
            "| filter | attempts refused |",
            "|---|---|",
            *(f"| {k} | {n} |" for k, n in sorted(rejected.items())),
        ]
        lines.append("")
    lines += ["## Made with", "", "```json", json.dumps(made_with, indent=2, ensure_ascii=False), "```", ""]
    lines += ["The same seed, teacher and models make the same examples, to the byte on the same machine.", ""]
    return "\n".join(lines)
