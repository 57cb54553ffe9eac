"""Indexes a folder of photos into a library: reads new and changed files only, encodes new contents only.

Unreadable files are skipped and reported. A run that is stopped keeps all but its last seconds of work; the next one
continues there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pops.errors import ConfigError, PhotoError, PopsError, ensure
from pops.files import expanded, only_writer, shown
from pops.images import FITS, HEIF_SUFFIXES, PHOTO_SUFFIXES, RAW_SUFFIXES, date_taken, load_photo
from pops.library.scan import Scan, Stamp, scan
from pops.library.store import Library, check_new
from pops.library.values import About, Encoder, Entry

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.progress import OnProgress

logger = logging.getLogger("pops.library")

BATCH = 64  # photos read, and encoded, together, unless the encoder has a number of its own (together)
READERS = 4  # threads that read photos while the encoder works
SAVE_EVERY = 20.0  # seconds of work that a stopped run may lose
_NAMED = (*PHOTO_SUFFIXES, *RAW_SUFFIXES)  # files that are told one by one when they cannot be read


@dataclass
class Report:
    """What a run did. photos: in the library now; encoded: contents that went through the encoder; skipped: path ->
    why, of files with a photo's suffix; others: path -> why, of files with another suffix; passed: folders of systems,
    and what was excluded; kept: photos gone from a folder that is now empty, as where a disk is not mounted."""

    library: str
    photos: int = 0
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    encoded: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)
    kept: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Read:
    """A file that was read: its entry, the photo if it has to be encoded, and whether the next run tries it again."""

    path: str
    entry: Entry
    photo: Image.Image | None = None
    again: bool = False


def index_folder(
    folder: str | Path,
    library: str | Path,
    encoder: Encoder,
    *,
    fit: str | None = None,
    side: int = 512,
    prune: bool = False,
    exclude: Sequence[str] = (),
    on_progress: OnProgress | None = None,
) -> Report:
    """Brings a library up to date with the photos in a folder (and the folders in it); keeps those of other folders.

    fit: how a photo becomes square (None: the library's own, squash in a new one), side: of how many pixels; prune:
    removes photos of other folders, too, if they no longer exist, and those of folders that are now empty; exclude:
    patterns of names or paths to pass over (see scan). Raises SpaceError or ConfigError if the library is of another
    space, encoder or fit; PhotoError if a new library would be empty, or the folder has no photo but the library holds
    photos of it (unless prune).
    """
    begun, where = time.monotonic(), expanded(library)
    ensure(fit is None or fit in FITS, f"fit must be one of {', '.join(FITS)}, got {fit!r}", ConfigError)
    found = scan(folder, exclude)
    if not Library.there(where):
        check_new(where)
    with only_writer(where, "pops index"):
        store = Library.open(where, writing=True) if Library.there(where) else None
        fit = fit or (store.about.fit if store else FITS[0])
        about = About(encoder.id, encoder.dim, encoder.fingerprint, fit, side)
        if store is not None:
            store.about.require(about, where)
        run = _Run(found, store, about, where, encoder)
        if not prune:
            run.check_mounted()
        with warnings.catch_warnings():  # load_photo sets filters, and threads share them
            warnings.simplefilter("ignore")
            run.read_changed(on_progress)
        run.forget(prune)
        return run.finish(time.monotonic() - begun)


class _Run:
    """One run: `entries` is what the files table will hold."""

    def __init__(self, found: Scan, store: Library | None, about: About, where: Path, encoder: Encoder) -> None:
        self.found, self.store, self.about, self.where, self.encoder = found, store, about, where, encoder
        self.entries: dict[str, Entry] = {} if store is None else store.entries()
        self.known: set[str] = set() if store is None else store.digests()
        self.report = Report(str(where))
        self.vectors: dict[str, Tensor] = {}  # not yet written
        self.dirty = False
        self.saved = time.monotonic()
        self.reads_heif = find_spec("pillow_heif") is not None

    def check_mounted(self) -> None:
        """Raises PhotoError if the folder holds no photo now, though the library has some of it."""
        if any(Path(path).suffix.lower() in PHOTO_SUFFIXES for path in self.found.files):
            return
        of_it = sum(bool(e.digest) and self.found.covers(p) for p, e in self.entries.items())
        if of_it and not any(path in self.entries and self.entries[path].digest for path in self.found.files):
            raise PhotoError(
                f"{shown(self.found.root)} holds no photo now, but {shown(self.where)} has {of_it} of it, which were "
                "kept; is its disk mounted? To remove them, add --prune"
            )

    def read_changed(self, on_progress: OnProgress | None) -> None:
        """Reads and encodes every new or changed file; saves every SAVE_EVERY seconds, and when it is stopped."""
        todo = [path for path, stamp in self.found.files.items() if not self._as_it_was(path, stamp)]
        photos = {path for path, entry in self.entries.items() if entry.digest}
        self.report.unchanged = len(photos.intersection(self.found.files).difference(todo))
        size = getattr(self.encoder, "together", BATCH)
        chunks = [todo[i : i + size] for i in range(0, len(todo), size)]
        readers = ThreadPoolExecutor(READERS, thread_name_prefix="pops-index")
        try:
            ahead = self._start(readers, chunks[0]) if chunks else []
            for i in range(len(chunks)):
                reading = ahead
                ahead = self._start(readers, chunks[i + 1]) if i + 1 < len(chunks) else []
                self._take([future.result() for future in reading])
                if on_progress:
                    on_progress(min(len(todo), (i + 1) * size), len(todo), "indexing")
                if time.monotonic() - self.saved > SAVE_EVERY:
                    self._save()
        except BaseException:
            readers.shutdown(cancel_futures=True)
            with suppress(PopsError):  # what stopped the run is raised, whatever happens here
                self._save()
            raise
        readers.shutdown()

    def forget(self, prune: bool) -> None:
        """Removes the entries of files that no longer exist, or are no regular files any more.

        Those of other folders stay, except for what was moved: the same bytes are in this folder now.
        """
        gone = [p for p in self.entries if p not in self.found.files and self.found.covers(p)]
        if not prune:
            away = {p for p in gone if self.found.in_bare(p)}
            self.report.kept = sum(bool(self.entries[p].digest) for p in away)
            gone = [p for p in gone if p not in away]
        here = {self.entries[p].digest for p in self.found.files if p in self.entries} - {""}
        for path, entry in self.entries.items():
            if not self.found.covers(path) and (prune or entry.digest in here) and _gone(path):
                gone.append(path)
        for path in gone:
            self.report.removed += bool(self.entries.pop(path).digest)
            self.dirty = True

    def finish(self, seconds: float) -> Report:
        """Saves and tidies; returns the report."""
        report = self.report
        report.passed = self.found.passed
        for path, why in self.found.problems.items():
            report.skipped.setdefault(path, why)
        for path in self.found.files:
            problem = self.entries[path].problem if path in self.entries else ""
            if problem:
                self._refused(path, problem)
        if self.store is None and not any(e.digest for e in self.entries.values()):
            other = f"{len(report.skipped) + len(report.others)} files are none, or cannot be read"
            why = next(iter(report.skipped.values()), "")
            raise PhotoError(
                f"{shown(self.found.root)} holds no photo ({other}{': ' + why if why else ''}); name another folder"
            )
        self._save()
        assert self.store is not None
        if self.store.stale:
            self.store.tidy()
        report.photos = sum(bool(e.digest) for e in self.entries.values())
        report.seconds = round(seconds, 3)
        logger.info("indexed %s into %s in %.1f s: %s", self.found.root, self.where, seconds, report.photos)
        return report

    def _as_it_was(self, path: str, stamp: Stamp) -> bool:
        known = self.entries.get(path)
        if known is not None and known.problem and self.reads_heif and path.lower().endswith(HEIF_SUFFIXES):
            return False  # the reader may have come since
        if known is None or known.stamp != stamp:
            return False
        return not known.digest or (known.digest in self.known and known.taken is not None)

    def _start(self, readers: ThreadPoolExecutor, paths: Sequence[str]) -> list[Future[_Read]]:
        return [readers.submit(self._read, path, self.found.files[path]) for path in paths]

    def _read(self, path: str, stamp: Stamp) -> _Read:
        """Reads a file, in a reader's thread; one with a photo's suffix is hashed first, and decoded if it is new."""
        try:
            before = self.entries.get(path)
            if before is not None and before.stamp == stamp and before.digest in self.known:  # lacks its date only
                return _Read(path, replace(before, taken=_date(path)))
            digest = _digest(path) if Path(path).suffix.lower() in PHOTO_SUFFIXES and stamp.size else ""
            if digest in self.known:
                return _Read(path, Entry(stamp, digest, taken=_date(path)))
            photo = load_photo(path, fit=self.about.fit, size=self.about.side)
            return _Read(path, Entry(stamp, digest or _digest(path), taken=_date(path)), photo)
        except PhotoError as e:
            again = isinstance(e.__cause__, (PermissionError, MemoryError)) or not Path(path).exists()
            return _Read(path, Entry(stamp, problem=str(e).removeprefix(shown(path)).lstrip()), again=again)
        except OSError as e:
            problem = f"cannot be read ({e.strerror}); change its permissions"
            return _Read(path, Entry(stamp, problem=problem), again=True)

    def _take(self, batch: Sequence[_Read]) -> None:
        """Encodes a batch's new contents, each once, and updates the entries of its files."""
        fresh = {r.entry.digest: r.photo for r in batch if r.photo is not None and r.entry.digest not in self.known}
        if fresh:
            vectors = self.encoder.encode_images([p for p in fresh.values() if p is not None])
            self.vectors |= dict(zip(fresh, vectors, strict=True))
            self.known |= set(fresh)
            self.report.encoded += len(fresh)
        for read in batch:
            before, entry = self.entries.get(read.path), read.entry
            if read.again:  # it may be readable next time, so its entry stays
                self._refused(read.path, entry.problem)
                continue
            if entry.digest:
                as_before = before is not None and before.digest == entry.digest
                kind = "unchanged" if as_before else "changed" if before is not None and before.digest else "new"
                setattr(self.report, kind, getattr(self.report, kind) + 1)
            elif before is not None and before.digest:
                self.report.removed += 1
            self.entries[read.path] = entry
            self.dirty = True

    def _refused(self, path: str, problem: str) -> None:
        listed = self.report.skipped if Path(path).suffix.lower() in _NAMED else self.report.others
        listed[path] = problem

    def _save(self) -> None:
        if self.store is None and not self.vectors:
            return
        if self.store is None:
            self.store = Library.create(self.where, self.about)
        if self.dirty or self.vectors:
            self.store.commit(self.entries, self.vectors)
        self.vectors, self.dirty, self.saved = {}, False, time.monotonic()


def _gone(path: str) -> bool:
    """Returns whether there is no such file; what may not be looked at is not gone."""
    try:
        os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def _date(path: str) -> str:
    """Returns the photo's own date; "" if it cannot be read any more."""
    with suppress(PhotoError, OSError):
        return date_taken(path)
    return ""


def _digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
