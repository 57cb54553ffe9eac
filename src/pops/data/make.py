"""Makes a folder of examples with a teacher: item by item, each once, whatever stops the run.

    FOLDER/ledger.jsonl    its first line says what is made, then one line for each item that is done, in order
    FOLDER/pictures/       the pictures of items, written before their line
    FOLDER/metadata.jsonl, README.md    written at the end: the rows, and the data card

An item's seed comes from the run's seed, the operator, and the item's and the attempt's number, so that a stopped run
goes on to the bytes of one that was not stopped, and a larger count adds to what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.data.card import CARD, card
from pops.data.tables import write_rows
from pops.data.teachers import Rejected, Sample, Teacher
from pops.errors import ConfigError, PopsError, ensure, suggest
from pops.files import expanded, only_writer, parse_json, shown, write_whole
from pops.images import save_picture

if TYPE_CHECKING:
    from pops.progress import OnProgress

LEDGER, METADATA = "ledger.jsonl", "metadata.jsonl"
FORMAT, VERSION = "pops.made", 1
TRIES = 20  # attempts at one item
HELD = {0: "test", 5: "validation"}  # last digit of an item's number -> its split


@dataclass(frozen=True)
class Item:
    """One item that is done: its rows, none if every attempt was rejected; how many attempts each filter refused."""

    number: int
    rows: Sequence[Mapping[str, Any]]
    rejected: Mapping[str, int]


@dataclass
class Made:
    """What a folder holds now. new: items made by this run."""

    folder: Path
    items: list[Item] = field(default_factory=list)
    new: int = 0

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        return [row for item in self.items for row in item.rows]

    @property
    def rejected(self) -> Counter[str]:
        """Attempts by the filter that refused them."""
        total: Counter[str] = Counter()
        for item in self.items:
            total.update(item.rejected)
        return total

    @property
    def failed(self) -> int:
        """Items that no attempt made."""
        return sum(not item.rows for item in self.items)


def make_examples(
    operator: str,
    folder: str | Path,
    teacher: Teacher,
    *,
    count: int,
    seed: int = 0,
    tries: int = TRIES,
    on_progress: OnProgress | None = None,
) -> Made:
    """Makes `count` items of an operator, or those that a stopped or smaller run has left; returns what is there.

    tries: attempts at one item, before it is counted as failed. ConfigError for an operator that the teacher does not
    know, or a folder that holds something else.
    """
    known = teacher.operators
    told = f"the teacher {teacher.name} makes no {operator!r}{suggest(operator, known)}; choose from {', '.join(known)}"
    ensure(operator in known, told)
    ensure(count >= 1 and tries >= 1, f"--count and --tries must be at least 1, got {count} and {tries}")
    where = expanded(folder)
    with only_writer(where, "pops data make"):
        about = {"operator": operator, "teacher": teacher.name, "seed": seed, "tries": tries}
        header = {"format": FORMAT, "version": VERSION, **about, "made_with": dict(teacher.about(operator))}
        made = Made(where, _read_ledger(where, header))
        with _appending(where / LEDGER) as append:
            if (where / LEDGER).stat().st_size == 0:
                append(header)
            for number in range(len(made.items), count):
                if on_progress:
                    on_progress(number, count, f"making {operator}")
                item = _make(teacher, where, header, number)
                append({"item": item.number, "rows": list(item.rows), "rejected": dict(sorted(item.rejected.items()))})
                made.items.append(item)
                made.new += 1
        if on_progress:
            on_progress(count, count, f"making {operator}")
        if made.rows:
            write_rows(where / METADATA, [dict(row) for row in made.rows])
        text = card(header, made.items)
        with write_whole(where / CARD) as temporary:
            temporary.write_text(text, encoding="utf-8")
    told = f"no item passed the filters ({_listed(made.rejected)}); other models or prompts may"
    ensure(bool(made.rows), told, PopsError)
    return made


def item_seed(seed: int, operator: str, number: int, attempt: int) -> int:
    """Returns the seed of one attempt at one item, in 0 .. 2**63 - 1."""
    text = f"pops data {seed}/{operator}/{number}/{attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _make(teacher: Teacher, where: Path, header: Mapping[str, Any], number: int) -> Item:
    """Makes one item, and writes its pictures."""
    operator, split = str(header["operator"]), HELD.get(number % 10, "train")
    rejected: Counter[str] = Counter()
    for attempt in range(header["tries"]):
        own = item_seed(header["seed"], operator, number, attempt)
        try:
            samples = teacher.make(operator, own, split)
        except Rejected as e:
            rejected[str(e)] += 1
            continue
        name = f"{number:07}"
        names = [name] if len(samples) == 1 else [f"{name}-{k}" for k in range(len(samples))]
        rows = [_write(where, n, name, sample) for n, sample in zip(names, samples, strict=True)]
        return Item(number, [{**row, "split": split, "seed": own} for row in rows], rejected)
    return Item(number, [], rejected)


def _write(where: Path, name: str, group: str, sample: Sample) -> dict[str, Any]:
    """Writes a sample's pictures; returns its row."""
    row: dict[str, Any] = {"id": name}
    if name != group:
        row["group"] = group

    def write(role: str, image: Any) -> str | None:
        if image is None:
            return None
        path = f"pictures/{group[:4]}/{name}-{role}.png"
        save_picture(image, where / path)
        return path

    for role, image in sample.images.items():
        row[f"{role}_file_name"] = write(role, image)
    row |= sample.texts
    if sample.target is not None:
        row["target_file_name"] = write("target", sample.target)
    if sample.caption is not None:
        row["caption"] = sample.caption
    return {**row, **{f"_{key}": value for key, value in sample.extra.items()}}


# --- the ledger


def _read_ledger(where: Path, header: Mapping[str, Any]) -> list[Item]:
    """Returns the items that are done, and cuts off a last line that was not written whole."""
    path, name = where / LEDGER, shown(where)
    if not path.is_file():
        others = [p.name for p in where.iterdir() if not p.name.startswith(".") and p.name != "pictures"]
        told = f"{name} holds other files, such as {shown(others[0] if others else '')}; choose a new folder (-o)"
        ensure(not others, told)
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    items: list[Item] = []
    for number, line in enumerate(whole.splitlines(), start=-1):
        try:
            data = parse_json(line)
            if number < 0:
                _require(data, header, name)
            else:
                ensure(data["item"] == number, f"item {data['item']} in the place of {number}")
                items.append(Item(number, list(data["rows"]), dict(data["rejected"])))
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            told = f"{shown(path)}, line {number + 2} is damaged ({shown(e)}); make the examples in a new folder (-o)"
            raise ConfigError(told) from e
    return items


def _require(data: Mapping[str, Any], header: Mapping[str, Any], name: str) -> None:
    """Raises ConfigError unless a ledger was begun with the same settings."""
    for key, wanted in header.items():
        if data.get(key) != wanted:
            mine, theirs = (json.dumps(value, sort_keys=True) for value in (wanted, data.get(key)))
            told = f"{name} was made with {key} {shown(theirs, 120)}, not {shown(mine, 120)}"
            raise ConfigError(f"{told}; give the same, or choose a new folder (-o)")


@contextmanager
def _appending(path: Path) -> Iterator[Any]:
    """Yields a function that appends a line and waits until it is on the disk; the first line is the header's."""
    try:
        with path.open("ab") as file:

            def append(data: Mapping[str, Any]) -> None:
                file.write(json.dumps(data, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

            yield append
    except OSError as e:
        raise PopsError(f"{shown(path)} could not be written ({e.strerror or e}); what is done is kept") from e


def _listed(rejected: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {n}" for name, n in rejected.items()) or "none"
