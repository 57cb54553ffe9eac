"""A library on disk: vectors by what a photo contains, files by path, both LanceDB tables, and the search over them.

    LIBRARY/library.json       what made the vectors: space, encoder, fit; without it the folder is no library
    LIBRARY/vectors.lance      sha256 of a file's bytes -> its vector, un-normalised float32
    LIBRARY/files.lance        path -> size, time of change, sha256, or why it is no photo
    LIBRARY/search.safetensors the directions in float16, made from the tables when they have changed

A table changes by versions: a reader sees one or the next, and an interrupted writer leaves the last whole one.
Knows nothing of models: vectors come in, photos' paths come out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.errors import ConfigError, MissingExtra, PopsError, SpaceError, ensure
from pops.files import expanded, write_whole
from pops.library.nearest import nearest, unit_rows
from pops.library.scan import HEADER, Stamp

if TYPE_CHECKING:
    from torch import Tensor

    from pops.embedding import Embedding

FORMAT, VERSION = "pops.library", 1
SEARCH = "search.safetensors"
ROWS = 4096  # of a table, read or compared at once
OURS = ("files.lance", "vectors.lance", ".lock")  # what a library that was never finished may hold


@dataclass(frozen=True)
class About:
    """What made the vectors; only embeddings of the same space are comparable with them."""

    space: str  # id of the CLIP space
    dim: int
    fingerprint: str  # of the image encoder
    fit: str  # how photos became square
    side: int  # pixels of that square

    def require(self, other: About, where: Path) -> None:
        """SpaceError or ConfigError, one line, where `other` would make vectors that do not go with these."""
        anew = f"{where} cannot take them; index into another library (-o)"
        if self.space != other.space or self.dim != other.dim:
            raise SpaceError(f"vectors of space {other.space!r} came, {where} holds space {self.space!r}; {anew}")
        if self.fingerprint != other.fingerprint:
            raise SpaceError(f"{where} was made by another version of the encoder of {self.space!r}; {anew}")
        same = (self.fit, self.side) == (other.fit, other.side)
        mine, theirs = f"{self.fit} to {self.side} pixels", f"{other.fit} to {other.side}"
        ensure(same, f"{where} holds photos made square by {mine}, not {theirs}; {anew}", ConfigError)


@dataclass(frozen=True)
class Entry:
    """One file of the library: a photo by the sha256 of its bytes, or, where that is "", why it is none."""

    stamp: Stamp
    digest: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Match:
    """A photo that was found; copies: other paths of the same bytes; score: the cosine, -1 to 1."""

    path: str
    score: float
    copies: tuple[str, ...] = ()


class Library:
    """Open for reading; index_folder writes."""

    def __init__(self, path: Path, about: About, tables: tuple[Any, Any]) -> None:
        self.path, self.about = path, about
        self._vectors, self._files = tables

    @classmethod
    def open(cls, path: str | Path) -> Library:
        """ConfigError for a folder that is no library, or one of a later pops."""
        where = expanded(path)
        about = _read_header(where, str(path))
        with told(where):
            db = _database(where)
            return cls(where, about, (db.open_table("vectors"), db.open_table("files")))

    @classmethod
    def create(cls, path: Path, about: About) -> Library:
        """A new, empty one; the header comes last. ConfigError for a folder with other things in it."""
        check_new(path)
        with told(path):
            db = _database(path)
            made = [db.create_table(name, schema=_schema(name, about.dim), mode="overwrite") for name in _TABLES]
        with write_whole(path / HEADER) as temporary:
            header = {"format": FORMAT, "version": VERSION, **asdict(about)}
            temporary.write_text(json.dumps(header, indent=2), encoding="utf-8")
        return cls(path, about, (made[0], made[1]))

    @staticmethod
    def there(path: Path) -> bool:
        """Whether the folder is a library."""
        return (path / HEADER).is_file()

    def require_encoder(self, encoder: Any) -> None:
        """SpaceError unless the vectors are of this Space's image encoder."""
        same = (self.about.space, self.about.fingerprint) == (encoder.id, encoder.fingerprint)
        ensure(
            same,
            f"{self.path} was made by another encoder (space {self.about.space!r}) than the model's ({encoder.id!r}); "
            "use its model (--model), or index the photos anew",
            SpaceError,
        )

    # --- reading
    # ---------------------------------------------------------------------------------------------

    def entries(self) -> dict[str, Entry]:
        """Every file by its path."""
        with told(self.path):
            columns = self._files.to_arrow().to_pydict()
        return {
            path: Entry(Stamp(size, mtime), digest, problem)
            for path, size, mtime, digest, problem in zip(*(columns[c] for c in _COLUMNS), strict=True)
        }

    def digests(self) -> set[str]:
        """The contents that have a vector."""
        with told(self.path):
            query = self._vectors.search().select(["digest"])
            return {d for batch in query.to_batches(ROWS) for d in batch["digest"].to_pylist()}

    @cached_property
    def paths(self) -> dict[str, list[str]]:
        """The photos: digest -> where its bytes lie, in order."""
        with told(self.path):
            columns = self._files.search().select(["path", "digest"]).to_arrow().to_pydict()
        found: dict[str, list[str]] = {}
        for path, digest in zip(columns["path"], columns["digest"], strict=True):
            if digest:
                found.setdefault(digest, []).append(path)
        return found

    def search(self, embedding: Embedding, count: int = 10) -> list[list[Match]]:
        """Of each row of the embedding the `count` nearest photos by cosine, the nearest first; exact.

        Photos of equal bytes are one. SpaceError for an embedding of another space, ConfigError for an empty library.
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
        """A library that was brought up to date meanwhile is read anew."""
        before = self._versions()
        with told(self.path):
            for table in (self._vectors, self._files):
                table.checkout_latest()
        if self._versions() != before:
            self._changed()

    def _search(self, vector: Tensor, count: int) -> list[Match]:
        from torch.nn.functional import normalize

        rows, ids = self._rows
        query = normalize(vector, dim=0)
        held: dict[int, str] = {}  # number of the row -> digest

        def exact(numbers: Tensor) -> Tensor:
            digests, vectors = self._take(ids[numbers])
            held.update(zip(numbers.tolist(), digests, strict=True))
            return normalize(vectors, dim=1) @ query

        numbers, cosines = nearest(rows, vector, count, exact)
        found = [self.paths[held[n]] for n in numbers.tolist()]
        return [Match(p[0], float(c), tuple(p[1:])) for p, c in zip(found, cosines, strict=True)]

    def _take(self, ids: Tensor) -> tuple[list[str], Tensor]:
        """LanceDB's row ids [m] -> digests and vectors [m, D], in this order."""
        import torch

        digests: list[str] = []
        parts: list[Tensor] = []
        for some in ids.split(ROWS):
            with told(self.path):
                taken = self._vectors.take_row_ids(some.tolist()).with_row_id().to_arrow()
            place = {row: i for i, row in enumerate(taken["_rowid"].to_pylist())}
            order = [place[row] for row in some.tolist()]
            names = taken["digest"].to_pylist()
            digests += [names[i] for i in order]
            parts.append(_tensor(taken["vector"].combine_chunks(), self.about.dim)[order])
        return digests, torch.cat(parts)

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor]:
        """Directions [N, D] float16 of all photos, their rows' ids [N]; from the file if it is of these versions."""
        stored = self._stored_rows()
        return stored if stored is not None else self._made_rows()

    def _stored_rows(self) -> tuple[Tensor, Tensor] | None:
        from safetensors import SafetensorError, safe_open

        with suppress(SafetensorError, OSError), safe_open(self.path / SEARCH, framework="pt") as file:
            if (file.metadata() or {}).get("versions") == self._versions():
                return file.get_tensor("rows"), file.get_tensor("ids")  # mapped, and read when they are used
        return None

    def _made_rows(self) -> tuple[Tensor, Tensor]:
        import torch

        parts = [torch.empty(0, self.about.dim, dtype=torch.float16)]
        ids: list[int] = []
        with told(self.path):
            for batch in self._vectors.search().with_row_id(True).to_batches(ROWS):
                kept = [i for i, digest in enumerate(batch["digest"].to_pylist()) if digest in self.paths]
                parts.append(unit_rows(_tensor(batch["vector"], self.about.dim)[kept]))
                row_ids = batch["_rowid"].to_pylist()
                ids += [row_ids[i] for i in kept]
        return torch.cat(parts), torch.tensor(ids, dtype=torch.int64)

    def _versions(self) -> str:
        return f"{self._vectors.version} {self._files.version}"

    # --- writing: index_folder's, which holds the lock
    # -------------------------------------------------------

    def commit(self, entries: Mapping[str, Entry], vectors: Mapping[str, Tensor]) -> None:
        """Vectors [D] by digest are added; the files become these. Vectors first: one without a file does no harm."""
        import pyarrow as pa
        import torch

        with told(self.path):
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
        self._changed()

    @property
    def stale(self) -> bool:
        """Whether the tables have changed since they were tidied."""
        return self._stored_rows() is None

    def tidy(self) -> None:
        """Vectors that no file has any more go, small pieces become one, old versions go; the search's file is made."""
        from safetensors.torch import save_file

        unused = sorted(self.digests() - set(self.paths))
        with told(self.path):
            for start in range(0, len(unused), ROWS):
                listed = ", ".join(f"'{digest}'" for digest in unused[start : start + ROWS])
                self._vectors.delete(f"digest IN ({listed})")
            for table in (self._vectors, self._files):
                table.optimize(cleanup_older_than=timedelta(milliseconds=1), delete_unverified=True)
        self._changed()
        rows, ids = self._made_rows()
        with write_whole(self.path / SEARCH) as temporary:
            save_file({"rows": rows, "ids": ids}, temporary, metadata={"versions": self._versions()})

    def _changed(self) -> None:
        for name in ("paths", "_rows"):
            self.__dict__.pop(name, None)


# --- what the above needs
# ----------------------------------------------------------------------------------------

_TABLES = ("vectors", "files")
_COLUMNS = ("path", "size", "mtime", "digest", "problem")


def check_new(path: Path) -> None:
    """ConfigError unless a library can be made there: nothing, an empty folder, or one that was never finished."""
    if not path.exists():
        return
    ensure(path.is_dir(), f"{path} is a file; a library is a folder, name another", ConfigError)
    other = sorted(p.name for p in path.iterdir() if p.name not in OURS)
    ensure(not other, f"{path} is a folder with other things in it ({other[:1]}); name a new one (-o)", ConfigError)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What LanceDB raises, as one line."""
    try:
        yield
    except (RuntimeError, ValueError, OSError, KeyError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0][:200]
        advice = "make room on the disk" if "space" in reason.lower() else "try again, or index into a new library"
        raise PopsError(f"the library {path} cannot be read or written ({reason}); {advice}") from e


def _read_header(path: Path, said: str) -> About:
    file = path / HEADER
    ensure(file.is_file(), f"{said} is no library; make one with: pops index FOLDER -o {said}", ConfigError)
    try:
        header = json.loads(file.read_text(encoding="utf-8"))
        later = header["format"] != FORMAT or header["version"] != VERSION
        ensure(not later, f"{said} is of another version of pops; update pops, or make it anew", ConfigError)
        return About(**{name: header[name] for name in About.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ConfigError(f"{file} is damaged ({e!r}); index into a new library") from e


def _database(path: Path) -> Any:
    os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of what is meant: a table that is not there yet
    try:
        import lancedb
    except ImportError:
        raise MissingExtra("lancedb", "retrieval") from None
    return lancedb.connect(str(path))


def _schema(table: str, dim: int) -> Any:
    import pyarrow as pa

    if table == "vectors":
        return pa.schema([("digest", pa.string()), ("vector", pa.list_(pa.float32(), dim))])
    numbers = ("size", "mtime")
    return pa.schema([(name, pa.int64() if name in numbers else pa.string()) for name in _COLUMNS])


def _tensor(column: Any, dim: int) -> Tensor:
    """Arrow's lists of `dim` float32 numbers => [n, dim]"""
    import torch

    flat: Sequence[float] = column.flatten().to_numpy(zero_copy_only=False)
    return torch.tensor(flat, dtype=torch.float32).view(-1, dim)
