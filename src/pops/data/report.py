"""The report of a check as one page: counts, what was found with thumbnails, and examples of every split."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from pops.data.check import KINDS, Checked, Finding
from pops.data.folder import Example
from pops.data.splits import SPLITS
from pops.errors import PopsError
from pops.files import shown, write_whole
from pops.images import read_rgb
from pops.version import __version__

LISTED = 12  # findings of a kind
SAMPLES = 12  # examples of a split
THUMB = 176  # pixels
PICTURES = 4  # thumbnails of a finding


def write_report(checked: Checked, path: str | Path) -> None:
    """Writes the report: HTML that needs no other file, whole or not at all."""
    from jinja2 import Environment

    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    with write_whole(path) as temporary:
        temporary.write_text(page.render(_content(checked)), encoding="utf-8")


def _content(checked: Checked) -> dict[str, Any]:
    folder, faults, notes = checked.folder, checked.faults, checked.notes
    thumbs: dict[Path, str] = {}
    roles = len(folder.roles)
    sizes = checked.sizes.most_common(2)
    size = " x ".join(map(str, sizes[0][0])) if sizes else "none"
    tiles = [
        (len(folder), "examples"),
        (checked.pictures, "pictures"),
        (size, "pixels" if len(sizes) < 2 else "pixels, the most common size"),
        (", ".join(role.name for role in folder.roles) or "none", f"{roles} role{'s' * (roles != 1)}"),
    ]
    return {
        "title": f"Examples in {shown(folder.path.resolve().name)}",
        "place": shown(folder.path),
        "verdict": verdict(checked),
        "faults": faults,
        "tiles": tiles,
        "counts": folder.counts,
        "total": len(folder),
        "made_split": folder.made_split,
        "parts": [("Faults", _groups(faults, thumbs), "bad"), ("Worth a look", _groups(notes, thumbs), "note")],
        "samples": {split: [_row(e, thumbs) for e in _spread(folder.rows(split))] for split in SPLITS},
        "row_width": 40 + 112 * (roles + 1),
        "version": __version__,
    }


def verdict(checked: Checked) -> str:
    """Returns in a few words whether the folder can be trained on."""
    faults, notes = len(checked.faults), len(checked.notes)
    noted = f", {notes} note{'s' * (notes != 1)}" if notes else ""
    return f"{faults} fault{'s' * (faults != 1)}{noted}" if faults else f"no faults{noted}"


def _groups(findings: Sequence[Finding], thumbs: dict[Path, str]) -> list[dict[str, Any]]:
    groups = []
    for kind, title in KINDS.items():
        own = [f for f in findings if f.kind == kind]
        if own:
            shown_ = [
                {"where": f.where, "what": f.what, "thumbs": [_thumb(p, thumbs) for p in f.pictures[:PICTURES]]}
                for f in own[:LISTED]
            ]
            title = title[0].upper() + title[1:]
            more = max(0, len(own) - LISTED)
            groups.append({"title": title, "count": len(own), "findings": shown_, "more": more})
    return groups


def _spread(rows: Sequence[Example]) -> list[Example]:
    """Returns SAMPLES rows, evenly spread."""
    count = min(SAMPLES, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def _row(example: Example, thumbs: dict[Path, str]) -> dict[str, Any]:
    cells: list[Mapping[str, Any]] = []
    for role, path in example.images.items():
        cells.append({"name": role, "thumb": path and _thumb(path, thumbs), "word": None, "sign": "+" if cells else ""})
    cells += [{"name": role, "thumb": "", "word": text, "sign": "+"} for role, text in example.texts.items()]
    word = example.caption if example.target is None else None
    thumb = example.target and _thumb(example.target, thumbs)
    cells.append({"name": "result", "thumb": thumb, "word": word, "sign": "="})
    return {"id": example.id, "cells": cells}


def _thumb(path: Path, thumbs: dict[Path, str]) -> str:
    """Returns a small JPEG as a data URL; "" for a picture that cannot be read."""
    if path not in thumbs:
        thumbs[path] = ""
        with suppress(PopsError, OSError):
            picture, out = read_rgb(path), io.BytesIO()
            picture.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
            picture.save(out, "JPEG", quality=82)
            thumbs[path] = "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
    return thumbs[path]
