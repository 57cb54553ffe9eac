"""Reads tables of metadata: .jsonl, .csv and .parquet, as columns, each fault with the row it is in."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pops.errors import ConfigError, MissingExtra, PopsError, ensure
from pops.files import parse_json, shown, write_whole

NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
LISTS = "_file_names"  # ends the name of a column of lists of pictures
MAX_LINE = 2**20  # characters of one row
Columns = dict[str, Sequence[Any]]  # all equally long; None: an empty cell
OnFault = Callable[[int, str], None]  # (the row's number in its file, what is wrong with it)


def read_table(path: Path, on_fault: OnFault) -> tuple[Columns, Sequence[int]]:
    """Returns a table's columns in the order of their first row, and the number that each row has in the file.

    Numbers are lines in .jsonl and .csv, rows from 1 in .parquet. A row that cannot be read is told to on_fault and
    left out. ConfigError if the file as a whole cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            return _read_parquet(path)
        rows = _jsonl(path, on_fault) if path.suffix == ".jsonl" else _csv(path, on_fault)
        return _columns(rows)
    except UnicodeDecodeError as e:
        raise ConfigError(f"{shown(path)} is no UTF-8 text (byte {e.start}); save it as UTF-8") from e
    except OSError as e:
        raise ConfigError(f"{shown(path)} cannot be read ({e.strerror or e}); check the file") from e


def spread(columns: Columns, numbers: Sequence[int], on_fault: OnFault, most: int) -> Columns:
    """Returns the columns with each X_file_names, a list of pictures a row, as columns X_1_file_name and so on.

    most: of one list; a row with a longer one, or with none, is told to on_fault.
    """
    found: Columns = {}
    for name, values in columns.items():
        if not name.endswith(LISTS):
            found[name] = values
            continue
        lists: list[list[Any]] = []
        for number, value in zip(numbers, values):
            good = value is None or (isinstance(value, list) and all(v is None or isinstance(v, str) for v in value))
            if not good:
                on_fault(number, f"has {shown(value, 40)} as {name}; write a list of files")
            elif value is not None and len(value) > most:
                on_fault(number, f"has {len(value)} pictures in {name}, at most {most} are taken")
            lists.append(list(value)[:most] if good and value is not None else [])
        stem = name.removesuffix(LISTS)
        for k in range(max(map(len, lists), default=0)):
            found[f"{stem}_{k + 1}_file_name"] = [row[k] if k < len(row) else None for row in lists]
    return found


def _columns(rows: Iterator[tuple[int, dict[str, Any]]]) -> tuple[Columns, list[int]]:
    columns: dict[str, list[Any]] = {}
    numbers: list[int] = []
    for number, row in rows:
        for name in row:
            if name not in columns:
                columns[name] = [None] * len(numbers)
        for name, values in columns.items():
            values.append(row.get(name))
        numbers.append(number)
    return dict(columns), numbers


def _jsonl(path: Path, on_fault: OnFault) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                if len(line) > MAX_LINE:
                    raise ValueError("longer than 1 MB")
                row = parse_json(line)
                if not isinstance(row, dict):
                    raise ValueError("no JSON object")
            except ValueError as e:
                on_fault(number, f"is no row ({shown(e)}); write one JSON object a line")
                continue
            yield number, row


def _csv(path: Path, on_fault: OnFault) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            names = next(reader, [])
            told = f"{shown(path)}: its first line must name the columns, each once"
            ensure(len(names) == len(set(names)) and all(names), told)
            while (row := next(reader, None)) is not None:
                if len(row) == len(names):
                    yield reader.line_num, {name: cell if cell != "" else None for name, cell in zip(names, row)}
                elif row:
                    on_fault(reader.line_num, f"has {len(row)} cells, the first line names {len(names)} columns")
        except csv.Error as e:
            raise ConfigError(f"{shown(path)}, line {reader.line_num}: no CSV ({e}); save it again") from e


def _read_parquet(path: Path) -> tuple[Columns, Sequence[int]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", "data") from None
    try:
        table = pyarrow.parquet.read_table(path, memory_map=True)
    except (pyarrow.ArrowException, OSError) as e:
        raise ConfigError(f"{shown(path)} is no readable Parquet file ({shown(e)}); write it again") from e
    columns: Columns = {name: _Cells(table.column(name)) for name in table.column_names}
    return columns, range(1, table.num_rows + 1)


class _Cells(Sequence[Any]):
    """A column that stays in Arrow's memory; a cell becomes a Python value when it is asked for."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: Any) -> Any:
        return self._column[index].as_py()


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows as .jsonl, whole or not at all."""
    ensure(path.suffix == ".jsonl", f"{shown(path)}: rows are written as .jsonl", PopsError)
    with write_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
