"""The data card of made examples, README.md: what they are, how they were made, and what the filters refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pops.data.folder import Folder
from pops.errors import ConfigError
from pops.files import read_bytes, reason, shown

CARD = "README.md"
MAX_CARD = 2**20  # bytes
SOURCES = 20  # licences and sources that are named


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


def described(folder: Folder) -> str:
    """Returns what is known of a folder of examples, as Markdown: roles, counts, sources, and its own card."""
    roles = ", ".join(f"{role.name} ({role.kind})" for role in folder.roles)
    counts = ", ".join(f"{n} {split}" for split, n in folder.counts.items() if n)
    drawn = ", drawn by pops" if folder.made_split else ""
    lines = [f"{len(folder)} examples ({counts}{drawn}); operands: {roles}."]
    for key in ("license", "source"):
        found = Counter(str(row.extra[key]) for row in folder.rows() if key in row.extra)
        if found:
            listed = ", ".join(f"{shown(name, 80)} ({n})" for name, n in found.most_common(SOURCES))
            lines += ["", f"By {key}: {listed}."]
    path = folder.path / CARD
    if path.is_file():
        try:
            text = read_bytes(path, MAX_CARD).decode()
        except (OSError, ValueError) as e:
            raise ConfigError(f"{shown(path)} cannot be read ({reason(e)}); make it a text, or remove it") from e
        lines += ["", _inner(text)]
    return "\n".join(lines)


def _inner(text: str) -> str:
    """Returns a card without its front matter, its headings two levels lower."""
    lines = text.splitlines()
    if lines[:1] == ["---"] and "---" in lines[1:]:
        lines = lines[lines.index("---", 1) + 1 :]
    fenced, found = False, []
    for line in lines:
        fenced ^= line.startswith("```")
        found.append(f"##{line}" if line.startswith("#") and not fenced else line)
    return "\n".join(found).strip()
