"""A library on disk: vectors by a file's content, files by path, both LanceDB tables, and the search over them.

    LIBRARY/library.json       what made the vectors: space, encoder, fit; without it the folder is no library
    LIBRARY/vectors.lance      sha256 of a file's bytes -> its vector, un-normalised float32
    LIBRARY/files.lance        path -> size, time of change, sha256, or why it is no photo
    LIBRARY/search.safetensors the vectors at length 1 in float16, made from the tables when they have changed

Tables have versions: a reader sees one or the next, and an interrupted writer leaves the last complete one. Of every
table the version before the last tidying is kept: if the newest files were damaged, as when the power fails, it is
restored. Knows nothing of models: vectors come in, paths of photos come out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pops.errors import ConfigError, PopsError, SpaceError, ensure
from pops.files import expanded, read_json_object, shown, write_whole
from pops.library.nearest import nearest, unit_rows
from pops.library.scan import HEADER, Stamp
from pops.library.tables import TABLES, database, lancedb_errors, repair, settle_tables
from pops.tensors import opened, write_tensors

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.embedding import Embedding

FORMAT, VERSION = "pops.library", 1
SEARCH = "search.safetensors"
ROWS = 4096  # of a table, read or compared at once
COPY = ".library.json"  # of the header
OURS = ("files.lance", "vectors.lance", ".lock", COPY)  # what an unfinished library may hold


class Encoder(Protocol):
    """Encodes images to the vectors of a library; Space is one."""

    id: str
    dim: int

    @property
    def fingerprint(self) -> str: ...
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor: ...


@dataclass(frozen=True)
class About:
    """What made the vectors; they are comparable with embeddings of the same space only."""

    space: str  # id of the CLIP space
    dim: int
    fingerprint: str  # of the image encoder
    fit: str  # how photos become square
    side: int  # pixels per side of that square

    def require(self, other: About, where: Path) -> None:
        """Raises SpaceError or ConfigError, in one line, if vectors made by `other` are not comparable with these."""
        do = "index into another library (-o)"
        if self.space != other.space or self.dim != other.dim:
            raise SpaceError(f"the vectors are of space {other.space!r}, {where} holds space {self.space!r}; {do}")
        if self.fingerprint != other.fingerprint:
            raise SpaceError(f"{where} was made by another version of the encoder of {self.space!r}; {do}")
        same = (self.fit, self.side) == (other.fit, other.side)
        mine, theirs = f"{self.fit} to {self.side} pixels", f"{other.fit} to {other.side}"
        ensure(same, f"{where} holds photos made square by {mine}, not {theirs}; {do}", ConfigError)


@dataclass(frozen=True)
class Entry:
    """One file of the library: the sha256 of a photo's bytes, or "" and the problem with a file that is no photo."""

    stamp: Stamp
    digest: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Match:
    """A photo that was found. score: the cosine, -1 to 1; copies: other files of the same bytes."""

    path: str
    score: float
    copies: tuple[str, ...] = ()


class Library:
    """A library, open for reading. index_folder writes it."""

    def __init__(self, path: Path, about: About, tables: tuple[Any, Any]) -> None:
        self.path, self.about = path, about
        self._vectors, self._files = tables
        self._settled: set[str] = set()  # files of the tables that are on the disk itself

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
        return {
            path: Entry(Stamp(size, mtime), digest, problem)
            for path, size, mtime, digest, problem in zip(*(columns[c] for c in _COLUMNS), strict=True)
        }

    def digests(self) -> set[str]:
        """Returns the sha256 of every content that has a vector."""
        with lancedb_errors(self.path):
            query = self._vectors.search().select(["digest"])
            return {d for batch in query.to_batches(ROWS) for d in batch["digest"].to_pylist()}

    @cached_property
    def paths(self) -> dict[str, list[str]]:
        """The photos: digest -> the files of those bytes, in order."""
        with lancedb_errors(self.path):
            columns = self._files.search().select(["path", "digest"]).to_arrow().to_pydict()
        found: dict[str, list[str]] = {}
        for path, digest in zip(columns["path"], columns["digest"], strict=True):
            if digest:
                found.setdefault(digest, []).append(path)
        return found

    def search(self, embedding: Embedding, count: int = 10) -> list[list[Match]]:
        """Finds the `count` photos nearest by cosine to each row of the embedding, the nearest first; exact.

        Files of the same bytes are one photo. SpaceError for an embedding of another space, ConfigError for an empty
        library.
        """
        ensure(count >= 1, f"the number of photos to find must be 1 or more, got {count}", ConfigError)
        embedding.require_space(self.about.space)
        ensure(
            embedding.dim == self.about.dim,
            f"{self.path} holds vectors of width {self.about.dim}, got width {embedding.dim}; use its model",
            SpaceError,
        )
        self._refresh()
        rows, _ = self._rows
        ensure(len(rows) > 0, f"{self.path} holds no photo; run: pops index FOLDER -o {self.path}", ConfigError)
        return [self._search(vector, count) for vector in embedding.vectors]

    def _refresh(self) -> None:
        """Sees what other processes have indexed since."""
        before = self._versions()
        with lancedb_errors(self.path):
            for table in (self._vectors, self._files):
                table.checkout_latest()
        if self._versions() != before:
            self._changed()

    def _search(self, vector: Tensor, count: int) -> list[Match]:
        from torch.nn.functional import normalize

        rows, ids = self._rows
        query = normalize(vector, dim=0)
        digest_of: dict[int, str] = {}  # by number of the row

        def exact(numbers: Tensor) -> Tensor:
            digests, vectors = self._take(ids[numbers])
            digest_of.update(zip(numbers.tolist(), digests, strict=True))
            return normalize(vectors, dim=1) @ query

        numbers, cosines = nearest(rows, vector, count, exact)
        found = [living_first(self.paths[digest_of[n]]) for n in numbers.tolist()]
        return [Match(p[0], float(c), tuple(p[1:])) for p, c in zip(found, cosines, strict=True)]

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
    def _rows(self) -> tuple[Tensor, Tensor]:
        """All photos' vectors at length 1 [N, D] float16 and row ids [N]; from the file if it is of these versions."""
        stored = self._stored_rows()
        return stored if stored is not None else self._made_rows()

    def _stored_rows(self) -> tuple[Tensor, Tensor] | None:
        with suppress(PopsError), opened(self.path / SEARCH, PopsError) as file:
            if file.metadata.get("versions") == self._versions():
                return file.read("rows"), file.read("ids")  # mapped: read on use
        return None

    def _made_rows(self) -> tuple[Tensor, Tensor]:
        import torch

        parts = [torch.empty(0, self.about.dim, dtype=torch.float16)]
        ids: list[int] = []
        with lancedb_errors(self.path):
            for batch in self._vectors.search().with_row_id(True).to_batches(ROWS):
                kept = [i for i, digest in enumerate(batch["digest"].to_pylist()) if digest in self.paths]
                parts.append(unit_rows(_tensor(batch["vector"], self.about.dim)[kept]))
                row_ids = batch["_rowid"].to_pylist()
                ids += [row_ids[i] for i in kept]
        return torch.cat(parts), torch.tensor(ids, dtype=torch.int64)

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
            rows = [(path, e.stamp.size, e.stamp.mtime, e.digest, e.problem) for path, e in entries.items()]
            columns = [[row[i] for row in rows] for i in range(len(_COLUMNS))]
            schema = _schema("files", self.about.dim)
            arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
            self._files.add(pa.table(arrays, schema=schema), mode="overwrite")
        settle_tables(self.path, self._settled)
        self._changed()

    @property
    def stale(self) -> bool:
        """Whether the tables have changed since `tidy`."""
        return self._stored_rows() is None

    def tidy(self) -> None:
        """Deletes vectors without a file, merges small pieces, and writes the search's file; of older versions, keeps
        those since the one before.
        """

        unused = sorted(self.digests() - set(self.paths))
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
        rows, ids = self._made_rows()
        with write_whole(self.path / SEARCH) as temporary:
            write_tensors(temporary, {"rows": rows, "ids": ids}, {"versions": self._versions()})

    def _changed(self) -> None:
        for name in ("paths", "_rows"):
            self.__dict__.pop(name, None)


_COLUMNS = ("path", "size", "mtime", "digest", "problem")


def living_first(paths: Sequence[str]) -> list[str]:
    """Orders the files of one content: those that are there, then those that are gone."""
    return sorted(paths, key=lambda path: not os.path.isfile(path))  # noqa: PTH113


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
