"""A library on disk: vectors by a file's content, files by path, both LanceDB tables, and the search over them.

    LIBRARY/library.json       what made the vectors: space, encoder, fit; without it the folder is no library
    LIBRARY/vectors.lance      sha256 of a file's bytes -> its vector, un-normalised float32
    LIBRARY/files.lance        path -> size, time of change, date of the photo, sha256, or why it is no photo
    LIBRARY/*.safetensors      what a search compares (see rows.py), made from the tables when they have changed

Tables have versions: a reader sees one or the next, and an interrupted writer leaves the last complete one. Of every
table the version before the last tidying is kept: if the newest files were damaged, as when the power fails, it is
restored. Knows nothing of models: vectors come in, paths of photos come out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.errors import ConfigError, SpaceError, ensure
from pops.files import LOCK, expanded, read_json_object, shown, write_whole
from pops.library.nearest import unit_rows
from pops.library.rows import Rows, none_yet, read_rows, write_rows
from pops.library.scan import HEADER, Stamp
from pops.library.tables import TABLES, database, lancedb_errors, repair, settle_tables
from pops.library.values import About, Encoder, Entry, Match, Method
from pops.library.where import Photo, Where

if TYPE_CHECKING:
    from torch import Tensor

    from pops.embedding import Embedding

FORMAT, VERSION = "pops.library", 1
ROWS = 4096  # of a table, read or compared at once
COPY = ".library.json"  # of the header
ANYWHERE = Where()
OURS = ("files.lance", "vectors.lance", LOCK, COPY)  # what an unfinished library may hold


class Library:
    """A library, open for reading. index_folder writes it."""

    def __init__(self, path: Path, about: About, tables: tuple[Any, Any]) -> None:
        self.path, self.about = path, about
        self._vectors, self._files = tables
        self._settled: set[str] = set()  # files of the tables that are on the disk itself
        self._met: tuple[Where, dict[str, list[Photo]], Tensor | None] | None = (
            None  # the last conditions, who met them
        )

    @classmethod
    def open(cls, path: str | Path, *, writing: bool = False) -> Library:
        """Opens a library; ConfigError for a folder that is none, or one of a later version of pops.

        If its newest files are damaged, the last good version is restored. writing: the caller holds the lock.
        """
        where = expanded(path)
        about = _read_header(where, shown(path))
        repair(where, locked=writing)
        with lancedb_errors(where):
            db = database(where)
            return cls(where, about, (db.open_table("vectors"), db.open_table("files")))

    @classmethod
    def create(cls, path: Path, about: About) -> Library:
        """Creates an empty library, its header last. ConfigError for a folder with other things in it."""
        check_new(path)
        with lancedb_errors(path):
            db = database(path)
            made = [db.create_table(name, schema=_schema(name, about.dim), mode="overwrite") for name in TABLES]
        library = cls(path, about, (made[0], made[1]))
        settle_tables(path, library._settled)
        for name in (COPY, HEADER):
            with write_whole(path / name) as temporary:
                header = {"format": FORMAT, "version": VERSION, **asdict(about)}
                temporary.write_text(json.dumps(header, indent=2), encoding="utf-8")
        return library

    @staticmethod
    def there(path: Path) -> bool:
        """Whether a folder is a library."""
        return (path / HEADER).is_file()

    def require_encoder(self, encoder: Encoder) -> None:
        """Raises SpaceError unless this encoder made the vectors."""
        same = (self.about.space, self.about.fingerprint) == (encoder.id, encoder.fingerprint)
        ensure(
            same,
            f"{self.path} was made by another encoder (space {self.about.space!r}) than the model's ({encoder.id!r}); "
            "use its model (--model), or index the photos again",
            SpaceError,
        )

    # --- reading

    def entries(self) -> dict[str, Entry]:
        """Returns every file by its path."""
        with lancedb_errors(self.path):
            columns = self._files.to_arrow().to_pydict()
        columns.setdefault("taken", [None] * len(columns["path"]))
        return {
            path: Entry(Stamp(size, mtime), digest, problem, taken)
            for path, size, mtime, digest, problem, taken in zip(*(columns[c] for c in _COLUMNS), strict=True)
        }

    def digests(self) -> set[str]:
        """Returns the sha256 of every content that has a vector."""
        with lancedb_errors(self.path):
            query = self._vectors.search().select(["digest"])
            return {d for batch in query.to_batches(ROWS) for d in batch["digest"].to_pylist()}

    @cached_property
    def photos(self) -> dict[str, list[Photo]]:
        """The photos: digest -> the files of those bytes, in order."""
        names = [name for name in ("path", "mtime", "taken", "digest") if name in self._files.schema.names]
        with lancedb_errors(self.path):
            columns = self._files.search().select(names).to_arrow().to_pydict()
        dates = columns.get("taken") or repeat(None)
        found: dict[str, list[Photo]] = {}
        for path, mtime, taken, digest in zip(
            columns["path"], columns["mtime"], dates, columns["digest"], strict=False
        ):
            if digest:
                found.setdefault(digest, []).append(Photo(path, mtime, taken))
        return found

    def search(self, embedding: Embedding, count: int = 10, where: Where = ANYWHERE) -> list[list[Match]]:
        """Finds the `count` photos nearest by cosine to each row of the embedding, the nearest first.

        where: conditions that a photo must meet; of those that do, the nearest are found. Exact up to EXACT_MOST
        photos (see `method`). Files of the same bytes are one photo. SpaceError for an embedding of another space,
        ConfigError for an empty library.
        """
        ensure(count >= 1, f"the number of photos to find must be 1 or more, got {count}", ConfigError)
        embedding.require_space(self.about.space)
        ensure(
            embedding.dim == self.about.dim,
            f"{self.path} holds vectors of width {self.about.dim}, got width {embedding.dim}; use its model",
            SpaceError,
        )
        self._refresh()
        rows = self._rows  # the same all through, whatever another thread sees
        ensure(len(rows) > 0, f"{self.path} holds no photo; run: pops index FOLDER -o {self.path}", ConfigError)
        photos, allowed = self._meeting(where, rows)
        return [self._search(vector, count, rows, photos, allowed) for vector in embedding.vectors]

    def method(self, count: int = 10) -> Method:
        """Says how a search for `count` photos goes."""
        compared = self._rows.compared(count)
        why = f"{shown(self.path)} has no index or a damaged one, so all {len(self._rows)} photos were compared"
        told = f"{why}; to make it: pops index FOLDER -o {shown(self.path)}" if self._rows.lacks_index else ""
        if compared is None or self._rows.axes is None:
            return Method("exact", {}, told)
        return Method("principal axes", {"axes": self._rows.axes.shape[1], "compared": compared})

    def _refresh(self) -> None:
        """Sees what other processes have indexed since."""
        before = self._versions()
        with lancedb_errors(self.path):
            for table in (self._vectors, self._files):
                table.checkout_latest()
        if self._versions() != before:
            self._changed()

    def _meeting(self, where: Where, rows: Rows) -> tuple[dict[str, list[Photo]], Tensor | None]:
        """Returns the photos that meet the conditions, and their rows (None: all); the last answer is kept."""
        if not where:
            return self.photos, None
        met = self._met
        if met is None or met[0] != where:
            meets = where.test()
            listed = ((digest, [p for p in files if meets(p)]) for digest, files in self.photos.items())
            photos = {digest: files for digest, files in listed if files}
            met = self._met = (where, photos, rows.allowed(photos))
        return met[1:]

    def _search(
        self, vector: Tensor, count: int, rows: Rows, photos: Mapping[str, list[Photo]], allowed: Tensor | None
    ) -> list[Match]:
        from torch.nn.functional import normalize

        query = normalize(vector, dim=0)
        digest_of: dict[int, str] = {}  # by row id

        def exact(numbers: Tensor) -> Tensor:
            ids = rows.ids[numbers]
            digests, vectors = self._take(ids)
            digest_of.update(zip(ids.tolist(), digests, strict=True))
            return normalize(vectors, dim=1) @ query

        numbers, cosines = rows.nearest(vector, count, exact, allowed)
        found = [living_first(photos[digest_of[row]]) for row in rows.ids[numbers].tolist()]
        return [
            Match(p[0].path, float(c), tuple(q.path for q in p[1:]), *p[0].date())
            for p, c in zip(found, cosines, strict=True)
        ]

    def _take(self, ids: Tensor) -> tuple[list[str], Tensor]:
        """Reads the digests and vectors [m, D] of LanceDB's row ids [m], in this order."""
        import torch

        digests: list[str] = []
        parts: list[Tensor] = []
        for some in ids.split(ROWS):
            with lancedb_errors(self.path):
                taken = self._vectors.take_row_ids(some.tolist()).with_row_id().to_arrow()
            place = {row: i for i, row in enumerate(taken["_rowid"].to_pylist())}
            order = [place[row] for row in some.tolist()]
            names = taken["digest"].to_pylist()
            digests += [names[i] for i in order]
            parts.append(_tensor(taken["vector"].combine_chunks(), self.about.dim)[order])
        return digests, torch.cat(parts)

    @cached_property
    def _rows(self) -> Rows:
        """The photos' rows: from the files as far as they hold them, else from the tables."""
        import torch

        stored = read_rows(self.path)
        if stored is not None and stored.versions == self._versions():
            return stored
        stored = stored or none_yet(self.about.dim)
        with lancedb_errors(self.path):
            listed = self._vectors.search().select(["digest"]).with_row_id(True).to_arrow()
        each = zip(listed["digest"].to_pylist(), listed["_rowid"].to_pylist(), strict=True)
        ids = {digest: row for digest, row in each if digest in self.photos}
        fresh = list(ids.keys() - set(stored.names())) if len(stored.ids) else list(ids)
        fresh.sort(key=ids.__getitem__)
        rows = torch.empty(len(fresh), self.about.dim, dtype=torch.float16)
        numbers = torch.tensor([ids[digest] for digest in fresh], dtype=torch.int64)
        for start in range(0, len(fresh), ROWS):
            rows[start : start + ROWS] = unit_rows(self._take(numbers[start : start + ROWS])[1])
        return stored.updated(ids, fresh, rows, self._versions())

    def _versions(self) -> str:
        return f"{self._vectors.version} {self._files.version}"

    # --- writing: index_folder's, which holds the lock

    def commit(self, entries: Mapping[str, Entry], vectors: Mapping[str, Tensor]) -> None:
        """Adds vectors [D] by digest, then replaces the files: a vector without a file does no harm."""
        import pyarrow as pa
        import torch

        with lancedb_errors(self.path):
            if vectors:
                numbers = torch.stack(list(vectors.values())).float().flatten().numpy()
                column = pa.FixedSizeListArray.from_arrays(pa.array(numbers), self.about.dim)
                schema = _schema("vectors", self.about.dim)
                self._vectors.add(pa.table([pa.array(vectors, pa.string()), column], schema=schema))
            rows = [(path, e.stamp.size, e.stamp.mtime, e.digest, e.problem, e.taken) for path, e in entries.items()]
            columns = [[row[i] for row in rows] for i in range(len(_COLUMNS))]
            schema = _schema("files", self.about.dim)
            arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
            self._files.add(pa.table(arrays, schema=schema), mode="overwrite")
        settle_tables(self.path, self._settled)
        self._changed()

    @property
    def stale(self) -> bool:
        """Whether the tables have changed since `tidy`, or the files that it writes are missing or damaged."""
        stored = read_rows(self.path)
        return stored is None or stored.versions != self._versions() or stored.lacks_index

    def tidy(self) -> None:
        """Deletes vectors without a file, merges small pieces, and writes the search's files; of older versions, keeps
        those since the one before.
        """
        unused = sorted(self.digests() - set(self.photos))
        with lancedb_errors(self.path):
            versions = [table.list_versions()[-1]["timestamp"] for table in (self._vectors, self._files)]
            for start in range(0, len(unused), ROWS):
                listed = ", ".join(f"'{digest}'" for digest in unused[start : start + ROWS])
                self._vectors.delete(f"digest IN ({listed})")
            for table, before in zip((self._vectors, self._files), versions, strict=True):
                age = datetime.now(before.tzinfo) - before + timedelta(seconds=1)
                table.optimize(cleanup_older_than=age, delete_unverified=True)
        settle_tables(self.path, self._settled)
        self._changed()
        write_rows(self.path, self._rows.whole())
        self._changed()

    def _changed(self) -> None:
        self._met = None
        for name in ("photos", "_rows"):
            self.__dict__.pop(name, None)


_COLUMNS = ("path", "size", "mtime", "digest", "problem", "taken")  # libraries of before have no "taken"


def living_first(photos: Sequence[Photo]) -> list[Photo]:
    """Orders the files of one content: those that are there, then those that are gone."""
    return sorted(photos, key=lambda photo: not os.path.isfile(photo.path))  # noqa: PTH113


def check_new(path: Path) -> None:
    """Raises ConfigError unless a library can be made there: nothing, an empty folder, or an unfinished library."""
    if not path.exists():
        return
    ensure(path.is_dir(), f"{path} is a file; a library is a folder, name another", ConfigError)
    other = sorted(p.name for p in path.iterdir() if p.name not in OURS)
    ensure(not other, f"{path} is a folder with other things in it ({other[:1]}); name a new one (-o)", ConfigError)


def _read_header(path: Path, shown: str) -> About:
    file = path / HEADER
    ensure(file.is_file(), f"{shown} is not a library; make one with: pops index FOLDER -o {shown}", ConfigError)
    try:
        header = read_json_object(file, ConfigError, "index into a new library")
    except ConfigError:
        if file.stat().st_size or not (path / COPY).is_file():  # emptied, as when the power fails: there is a copy
            raise
        header = read_json_object(path / COPY, ConfigError, "index into a new library")
    ours = (header.get("format"), header.get("version")) == (FORMAT, VERSION)
    ensure(ours, f"{shown} is of another version of pops; update pops, or index into a new library", ConfigError)
    lost = [name for name in About.__dataclass_fields__ if name not in header]
    ensure(not lost, f"{file} lacks {', '.join(lost)}; index into a new library", ConfigError)
    return About(**{name: header[name] for name in About.__dataclass_fields__})


def _schema(table: str, dim: int) -> Any:
    import pyarrow as pa

    if table == "vectors":
        return pa.schema([("digest", pa.string()), ("vector", pa.list_(pa.float32(), dim))])
    numbers = ("size", "mtime")
    return pa.schema([(name, pa.int64() if name in numbers else pa.string()) for name in _COLUMNS])


def _tensor(column: Any, dim: int) -> Tensor:
    """Converts Arrow's lists of `dim` float32 numbers => [n, dim]."""
    import torch

    flat: Sequence[float] = column.flatten().to_numpy(zero_copy_only=False)
    return torch.tensor(flat, dtype=torch.float32).view(-1, dim)
