"""A folder of examples, in the ImageFolder convention: pictures, and metadata with one column for each role.

    FOLDER/metadata.jsonl (or .csv, .parquet), or one in each of FOLDER/train, validation and test
    {"id": "7", "object_file_name": "a/7.png", "word": "golden", "target_file_name": "b/7.png", "split": "train"}

Column X_file_name is the image role X; X_file_names, a list of pictures, is the roles X_1, X_2 and so on;
target_file_name (or file_name) names the true result. Any other column of texts is a text role, except for caption,
split and what PASSED lists. An empty cell is a missing operand. Opens no picture.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, overload

from pops.data.splits import SPLITS, WORDS, drawn_splits
from pops.data.tables import NAMES, Columns, read_table, spread
from pops.errors import ConfigError, ensure, suggest
from pops.files import expanded, shown
from pops.images import PHOTO_SUFFIXES
from pops.operators.spec import Role

FILE = "_file_name"
TARGETS = ("target_file_name", "file_name")
# Columns that describe an example and are no operand of it. So does every column that begins with "_".
PASSED = (
    "id", "group", "seed", "license", "licence", "source", "author", "creator", "credit", "attribution", "copyright",
    "url", "link", "date", "created", "title", "note", "notes", "comment", "comments", "operator", "teacher", "prompt",
    "prompts", "sha256", "md5", "tags", "score",
)  # fmt: skip
MAX_IMAGES = 12  # image roles of an operator


@dataclass(frozen=True)
class Example:
    """One row. images: by role, None for a missing operand; texts: by role, "" for a missing one; extra: what the
    row holds besides."""

    id: str
    images: Mapping[str, Path | None]
    texts: Mapping[str, str]
    target: Path | None
    caption: str | None
    split: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """Something wrong with the metadata. where: file and row; kind: one word, as `pops data check` counts them."""

    where: str
    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.where} {self.what}"


@dataclass(frozen=True)
class _Row:
    """Where a row is: in which table, at which place there."""

    table: int
    place: int


@dataclass(frozen=True)
class _Table:
    """One file of metadata: its columns; paths in it begin at `home`; split: of all its rows, if its folder says so."""

    path: Path
    home: Path
    columns: Columns
    numbers: Sequence[int]
    split: str | None

    def where(self, place: int) -> str:
        unit = "row" if self.path.suffix == ".parquet" else "line"
        return f"{shown(self.path)}, {unit} {self.numbers[place]}"


class Folder:
    """A folder of examples, read. path: the folder; roles: in the order of columns; faults: what is wrong with it;
    made_split: whether pops drew the split, since the metadata name none."""

    def __init__(self, path: Path, tables: Sequence[_Table], faults: list[Fault]) -> None:
        self.path, self.faults = path, faults
        self._tables = tables
        self.roles = _roles(tables)
        self._rows: dict[str, list[tuple[_Row, str]]] = {split: [] for split in SPLITS}
        self.made_split = not any(t.split or "split" in t.columns for t in tables)
        if self._check_columns():
            self._sort_rows()

    @classmethod
    def read(cls, path: str | Path, *, strict: bool = True) -> Folder:
        """Reads the metadata of a folder, and opens no picture.

        ConfigError in one line for a folder without metadata or without roles; if strict, for any row with a fault,
        too, else such a row is left out and its faults are listed.
        """
        folder = expanded(path)
        ensure(folder.exists(), f"there is no folder {shown(path)}; check the path")
        ensure(folder.is_dir(), f"{shown(path)} is not a folder; name the folder that holds metadata.jsonl")
        faults: list[Fault] = []
        tables = [_read(found, folder, split, faults) for found, split in _metadata(folder)]
        rows = sum(len(table.numbers) for table in tables)
        ensure(rows > 0 or bool(faults), f"{shown(path)} holds no example; its metadata have no rows")
        read = cls(folder, tables, faults)
        if strict and faults:
            more = f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
            raise ConfigError(f"{faults[0]}{more}; pops data check {shown(path)} lists all")
        return read

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the image roles, in order."""
        return tuple(role.name for role in self.roles if role.kind == "image")

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the text roles, in order."""
        return tuple(role.name for role in self.roles if role.kind == "text")

    @property
    def counts(self) -> dict[str, int]:
        """Number of examples by split."""
        return {split: len(rows) for split, rows in self._rows.items()}

    @property
    def metadata(self) -> tuple[Path, ...]:
        """The files of metadata."""
        return tuple(table.path for table in self._tables)

    def rows(self, split: str | None = None) -> Sequence[Example]:
        """Returns the examples of a split (None: of all) in order; each is made when it is asked for."""
        ensure(split is None or split in SPLITS, f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
        chosen = SPLITS if split is None else (split,)
        return _Examples(self, [(row, key, name) for name in chosen for row, key in self._rows[name]])

    def where(self, example: Example) -> str:
        """Returns the file and row of an example, for messages."""
        return str(example.extra["_where"])

    # --- reading rows

    def _check_columns(self) -> bool:
        """Adds a fault for columns that make no operator; returns whether the rows can be read all the same."""
        images, texts = self.images, self.texts
        have = dict.fromkeys(name for table in self._tables for name in table.columns)
        where = shown(self._tables[0].path)
        told: list[str] = []
        for name in texts:
            if any(_names_pictures(table, name) for table in self._tables):
                stem = re.sub(r"_?(file|filename|path|image|name)$", "", name) or name
                told.append(f"has a column {name} that names pictures; call it {stem}{FILE}")
        if not told and len(texts) > 1:
            fix = "drop a column, or begin its name with _ to pass it over"
            told.append(f"has {len(texts)} text roles ({', '.join(texts)}); an operator takes one: {fix}")
        if not images and not told:
            only = f"only texts ({', '.join(texts)})" if texts else "nothing"
            told.append(f"has {only} for operands; name pictures in a column such as object{FILE}")
        if len(images) > MAX_IMAGES:
            told.append(f"has {len(images)} image roles; an operator takes at most {MAX_IMAGES}")
        aim = any(name in have for name in (*TARGETS, "caption"))
        if not aim:
            told.append(f"does not say what the result is; add {TARGETS[0]}, or caption for a text")
        self.faults += [Fault(where, "role", what) for what in told]
        return bool(images) and aim

    def _sort_rows(self) -> None:
        """Assigns every good row to its split, by its column or by a hash of its id."""
        seen: dict[str, str] = {}
        rows: list[tuple[_Row, str, str | None, str]] = []  # row, id, split, key of the split
        for number, table in enumerate(self._tables):
            for place in range(len(table.numbers)):
                found = self._faults_of(table, place)
                own = _text(table, place, "id")
                id_ = own or _target(table, place) or _digest(table, place)
                if own is None and id_ in seen:  # several rows with one result
                    id_ = _digest(table, place)
                if id_ in seen:
                    told = "says the same as" if own is None else f"has id {shown(id_, 60)!r}, as has"
                    found.append(("id", f"{told} {seen[id_]}; leave one out, or give each its own id"))
                seen.setdefault(id_, table.where(place))
                self.faults += [Fault(table.where(place), kind, what) for kind, what in found]
                if not found:
                    group = _text(table, place, "group") or _target(table, place) or id_
                    rows.append((_Row(number, place), id_, table.split or _split(table, place), group))
        if self.made_split:
            drawn = drawn_splits([key for *_, key in rows])
            rows = [(row, id_, split, key) for (row, id_, _, key), split in zip(rows, drawn, strict=True)]
        for row, id_, split, _ in rows:
            self._rows[split or SPLITS[0]].append((row, id_))

    def _faults_of(self, table: _Table, place: int) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for column in (*(n + FILE for n in self.images), *TARGETS):
            value = _cell(table, place, column)
            if value is not None and (why := _bad_path(value)):
                found.append(("path", f"names {column} {shown(value, 80)!r}, {why}"))
        for column in (*self.texts, "caption"):
            value = _cell(table, place, column)
            if value is not None and not isinstance(value, str):
                found.append(("text", f"has {shown(value, 40)} as {column}; write a text"))
        split = _text(table, place, "split")
        if split is not None and split.lower() not in WORDS:
            hint = suggest(split, WORDS)
            found.append(("split", f"has split {shown(split, 40)!r}{hint}; choose from {', '.join(SPLITS)}"))
        if not found:
            operands = [_cell(table, place, n + FILE) for n in self.images] + [
                _cell(table, place, n) for n in self.texts
            ]
            if all(value is None for value in operands):
                found.append(("empty", "has no operand at all; give at least one"))
            first = _cell(table, place, self.images[0] + FILE)
            if _target(table, place) is None and (_text(table, place, "caption") is None or first is None):
                told = "a caption takes its place only beside a first operand"
                found.append(("target", f"has no result; name its target_file_name ({told})"))
        return found

    def _example(self, row: _Row, id_: str, split: str) -> Example:
        table, place = self._tables[row.table], row.place

        def path(value: Any) -> Path | None:
            return None if value is None else table.home / value

        used = {*(n + FILE for n in self.images), *self.texts, *TARGETS, "caption", "split", "id"}
        extra = {name: values[place] for name, values in table.columns.items() if name not in used}
        return Example(
            id_,
            {name: path(_cell(table, place, name + FILE)) for name in self.images},
            {name: _text(table, place, name) or "" for name in self.texts},
            path(_target(table, place)),
            _text(table, place, "caption"),
            split,
            {**{k: v for k, v in extra.items() if v is not None}, "_where": table.where(place)},
        )


class _Examples(Sequence[Example]):
    """Examples that are made when they are asked for."""

    def __init__(self, folder: Folder, rows: list[tuple[_Row, str, str]]) -> None:
        self._folder, self._rows = folder, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return _Examples(self._folder, self._rows[index])
        return self._folder._example(*self._rows[index])


# --- files and columns


def _metadata(folder: Path) -> list[tuple[Path, str | None]]:
    """Returns the files of metadata, each with the split that its folder names; ConfigError if there is not one."""
    here = [folder / name for name in NAMES if (folder / name).is_file()]
    told = f"{shown(folder)} has {' and '.join(p.name for p in here)}; keep one"
    ensure(len(here) <= 1, told)
    if here:
        return [(here[0], None)]
    inner = [(folder / word / name, split) for word, split in WORDS.items() for name in NAMES]
    found = [(path, split) for path, split in inner if path.is_file()]
    doubled = [place for place, n in Counter(path.parent for path, _ in found).items() if n > 1]
    ensure(not doubled, f"{shown(doubled[0] if doubled else '')} has two files of metadata; keep one")
    told = f"{shown(folder)} has no {NAMES[0]} ({', '.join(NAMES[1:])}, or one in train/, validation/ and test/)"
    ensure(bool(found), f"{told}; write one line for each example, with a column for each picture")
    return found  # type: ignore[return-value]


def _read(path: Path, folder: Path, split: str | None, faults: list[Fault]) -> _Table:
    def on_fault(number: int, what: str) -> None:
        faults.append(Fault(f"{shown(path)}, line {number}", "row", what))

    columns, numbers = read_table(path, on_fault)
    return _Table(path, path.parent, spread(columns, numbers, on_fault, MAX_IMAGES), numbers, split)


def _roles(tables: Sequence[_Table]) -> tuple[Role, ...]:
    """Returns the operands' roles in the order in which columns first appear."""
    names = dict.fromkeys(name for table in tables for name in table.columns)
    roles: list[Role] = []
    for name in names:
        if name.endswith(FILE) and name not in TARGETS:
            roles.append(Role(name.removesuffix(FILE) or name, "image"))
            continue
        passed = name in (*TARGETS, "caption", "split", *PASSED) or name.startswith("_")
        if not passed and any(_is_text(table, name) for table in tables if name in table.columns):
            roles.append(Role(name, "text"))
    return tuple(roles)


def _is_text(table: _Table, name: str) -> bool:
    """Returns whether a column's first value is a text; in CSV, where all cells are, one that is no number."""
    for value in table.columns[name]:
        if value is not None and value != "":
            return isinstance(value, str) and not (table.path.suffix == ".csv" and _is_number(value))
    return False


def _names_pictures(table: _Table, name: str) -> bool:
    """Returns whether a column's first value is the name of a picture's file."""
    first = next((v for v in table.columns.get(name, ()) if v is not None and v != ""), None)
    return isinstance(first, str) and first.lower().endswith(PHOTO_SUFFIXES)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cell(table: _Table, place: int, column: str) -> Any:
    """Returns a cell; None if it is empty or there is no such column."""
    values = table.columns.get(column)
    value = None if values is None else values[place]
    return None if value == "" else value


def _text(table: _Table, place: int, column: str) -> str | None:
    value = _cell(table, place, column)
    return None if value is None else str(value)


def _target(table: _Table, place: int) -> str | None:
    return next((str(v) for c in TARGETS if (v := _cell(table, place, c)) is not None), None)


def _split(table: _Table, place: int) -> str | None:
    value = _text(table, place, "split")
    return None if value is None else WORDS.get(value.lower())


def _digest(table: _Table, place: int) -> str:
    """Returns a digest of a row's cells, which names a row without an id."""
    cells = sorted((name, str(values[place])) for name, values in table.columns.items() if name != "split")
    return hashlib.sha256(repr(cells).encode()).hexdigest()[:16]


def _bad_path(value: Any) -> str:
    """Returns why a cell is no path inside the folder, or "" if it is one."""
    if not isinstance(value, str):
        return "which is no file's name"
    if "\0" in value:
        return "which no file can have as its name"
    if PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute():
        return "an absolute path; name it from the folder on"
    if ".." in PurePosixPath(value).parts or ".." in PureWindowsPath(value).parts:
        return "which is outside the folder; move the picture into it"
    return ""
