"""Makes a folder of examples with a teacher: item by item, each once, whatever stops the run.

    FOLDER/ledger.jsonl    its first line says what is made, then one line for each item that is done, in order
    FOLDER/pictures/       the pictures of items, written before their line
    FOLDER/metadata.jsonl, README.md    written at the end: the rows, and the data card
    FOLDER/.shards/2-of-4/ledger.jsonl  of one of several machines that make a folder together, until all are done

An item's seed comes from the run's seed, the operator, and the item's and the attempt's number, so that a stopped run
goes on to the bytes of one that was not stopped, and a larger count adds to what is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.data.card import CARD, card
from pops.data.tables import write_rows
from pops.data.teachers import Rejected, Sample, Teacher
from pops.errors import ConfigError, PopsError, ensure, suggest
from pops.files import expanded, only_writer, parse_json, shown, write_whole
from pops.images import save_picture
from pops.parts import Shard

if TYPE_CHECKING:
    from pops.progress import OnProgress

LEDGER, METADATA, SHARDS = "ledger.jsonl", "metadata.jsonl", ".shards"
FORMAT, VERSION = "pops.made", 1
TRIES = 20  # attempts at one item
WAIT = 600  # tenths of a second for others who finish the folder
HELD = {0: "test", 5: "validation"}  # last digit of an item's number -> its split


@dataclass(frozen=True)
class Item:
    """One item that is done: its rows, none if every attempt was rejected; how many attempts each filter refused."""

    number: int
    rows: Sequence[Mapping[str, Any]]
    rejected: Mapping[str, int]


@dataclass(frozen=True)
class Draft:
    """One item as a teacher gives it. seed: of the attempt that succeeded; samples: none if no attempt did."""

    number: int
    seed: int
    samples: Sequence[Sample]
    rejected: Mapping[str, int]


Source = Callable[[Sequence[int]], Iterator[Draft]]  # makes the items of these numbers, in order


@dataclass
class Made:
    """What a folder holds now. new: items made by this run; waiting: parts (3/4) that others have not made yet."""

    folder: Path
    items: list[Item] = field(default_factory=list)
    new: int = 0
    waiting: list[str] = field(default_factory=list)

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
    shard: Shard | None = None,
    source: Source | None = None,
    on_progress: OnProgress | None = None,
) -> Made:
    """Makes `count` items of an operator, or those that a stopped or smaller run has left; returns what is there.

    tries: attempts at one item, before it is counted as failed. shard: makes a share of the items, and
    finishes the folder if the other parts are there. source: what makes items, such as `fleet.over_ray`; the teacher
    itself, unless given. ConfigError for an operator that the teacher does not know, or a folder that holds something
    else.
    """
    known = teacher.operators
    told = f"the teacher {teacher.name} makes no {operator!r}{suggest(operator, known)}; choose from {', '.join(known)}"
    ensure(operator in known, told)
    ensure(count >= 1 and tries >= 1, f"--count and --tries must be at least 1, got {count} and {tries}")
    where = expanded(folder)
    about = {"operator": operator, "teacher": teacher.name, "seed": seed, "tries": tries}
    header = {"format": FORMAT, "version": VERSION, **about, "made_with": dict(teacher.about(operator))}
    source = source or partial(drafts, teacher, operator, seed, tries)
    if shard is None:
        with only_writer(where, "pops data make"):
            made = Made(where, _read_ledger(where, header))
            numbers = range(len(made.items), count)
            made.items += _run(where, where / LEDGER, header, numbers, source, count, on_progress)
            made.new = len(numbers)
            _finish(made, header)
    else:
        made = _make_shard(where, header, shard, source, count, on_progress)
    told = f"no item passed the filters ({_listed(made.rejected)}); other models or prompts may"
    ensure(bool(made.rows), told, PopsError)
    return made


def _run(
    where: Path, ledger: Path, header: Mapping[str, Any], numbers: Sequence[int], source: Source, total: int,
    on_progress: OnProgress | None,
) -> list[Item]:  # fmt: skip
    """Makes the items of these numbers: writes the pictures of each, and then its line in the ledger."""
    items = []
    with _appending(ledger) as append:
        if ledger.stat().st_size == 0:
            append(header)
        for draft in source(numbers) if numbers else ():
            if on_progress:
                on_progress(draft.number, total, f"making {header['operator']}")
            item = _written(where, draft)
            append({"item": item.number, "rows": list(item.rows), "rejected": dict(sorted(item.rejected.items()))})
            items.append(item)
    if on_progress:
        on_progress(total, total, f"making {header['operator']}")
    return items


def _finish(made: Made, header: Mapping[str, Any]) -> None:
    """Writes the metadata and the data card."""
    if made.rows:
        write_rows(made.folder / METADATA, [dict(row) for row in made.rows])
    text = card(header, made.items)
    with write_whole(made.folder / CARD) as temporary:
        temporary.write_text(text, encoding="utf-8")


# --- several machines


def _make_shard(
    where: Path, header: Mapping[str, Any], shard: Shard, source: Source, count: int,
    on_progress: OnProgress | None,
) -> Made:  # fmt: skip
    """Makes one part of the items; who comes last puts all parts together."""
    index, parts = shard.number, shard.count
    first = len(_read_ledger(where, header)) if where.is_dir() else 0
    own = where / SHARDS / f"{index}-of-{parts}"
    numbers = [n for n in range(first, count) if n % parts == index - 1]
    with only_writer(own, f"pops data make --shard {index}/{parts}"):
        done = _read_ledger(own, header, numbers)
        new = numbers[len(done) :]
        items = done + _run(where, own / LEDGER, header, new, source, count, on_progress)
    made = Made(where, items, len(new))
    every = {i: where / SHARDS / f"{i}-of-{parts}" for i in range(1, parts + 1)}
    with _waiting(where):
        if (where / LEDGER).is_file() and not (where / SHARDS).is_dir():
            return Made(where, _read_ledger(where, header), len(new))  # another part came last
        for i, place in every.items():
            wanted = [n for n in range(first, count) if n % parts == i - 1]
            found = _read_ledger(place, header, wanted) if (place / LEDGER).is_file() else []
            made.waiting += [] if len(found) == len(wanted) else [f"{i}/{parts}"]
            if i != index:
                items = items + found
        if made.waiting:
            return made
        whole = Made(where, [*_read_ledger(where, header), *sorted(items, key=lambda item: item.number)], len(new))
        lines = [dict(header), *({"item": i.number, "rows": i.rows, "rejected": i.rejected} for i in whole.items)]
        with write_whole(where / LEDGER) as temporary:
            temporary.write_bytes(b"".join(_line(line) for line in lines))
        _finish(whole, header)
        shutil.rmtree(where / SHARDS)
    return whole


@contextmanager
def _waiting(where: Path) -> Iterator[None]:
    """Locks the folder, after others that finish it now."""
    for left in range(WAIT, -1, -1):
        try:
            with only_writer(where, "pops data make"):
                yield
                return
        except ConfigError as e:
            if "another pops data make" not in str(e) or not left:
                raise
        time.sleep(0.1)


def item_seed(seed: int, operator: str, number: int, attempt: int) -> int:
    """Returns the seed of one attempt at one item, in 0 .. 2**63 - 1."""
    text = f"pops data {seed}/{operator}/{number}/{attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def drafts(teacher: Teacher, operator: str, seed: int, tries: int, numbers: Sequence[int]) -> Iterator[Draft]:
    """Makes items one after another."""
    return (draft(teacher, operator, seed, tries, number) for number in numbers)


def draft(teacher: Teacher, operator: str, seed: int, tries: int, number: int) -> Draft:
    """Makes one item: the first attempt that no filter refuses."""
    split = HELD.get(number % 10, "train")
    rejected: Counter[str] = Counter()
    for attempt in range(tries):
        own = item_seed(seed, operator, number, attempt)
        try:
            return Draft(number, own, teacher.make(operator, own, split), rejected)
        except Rejected as e:
            rejected[str(e)] += 1
    return Draft(number, 0, (), rejected)


def _written(where: Path, made: Draft) -> Item:
    """Writes the pictures of an item; returns it with its rows."""
    name, split = f"{made.number:07}", HELD.get(made.number % 10, "train")
    names = [name] if len(made.samples) == 1 else [f"{name}-{k}" for k in range(len(made.samples))]
    rows = [_write(where, n, name, sample) for n, sample in zip(names, made.samples, strict=True)]
    return Item(made.number, [{**row, "split": split, "seed": made.seed} for row in rows], made.rejected)


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


def _read_ledger(where: Path, header: Mapping[str, Any], numbers: Sequence[int] | None = None) -> list[Item]:
    """Returns the items that are done, and cuts off a last line that was not written whole.

    numbers: of the items, in order; from 0 on unless given.
    """
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
                wanted = number if numbers is None else numbers[number] if number < len(numbers) else None
                ensure(data["item"] == wanted, f"item {data['item']} in the place of {wanted}")
                items.append(Item(int(data["item"]), list(data["rows"]), dict(data["rejected"])))
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
                file.write(_line(data))
                file.flush()
                os.fsync(file.fileno())

            yield append
    except OSError as e:
        raise PopsError(f"{shown(path)} could not be written ({e.strerror or e}); what is done is kept") from e


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False).encode() + b"\n"


def _listed(rejected: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {n}" for name, n in rejected.items()) or "none"
