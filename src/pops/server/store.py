"""Store: photos, jobs and images of a server. One SQLite file is queue and history; the bytes lie in files beside it.

A job is in the file before its id is told to anyone. Threads may share a Store.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pops.errors import ConfigError, PopsError
from pops.files import shown

VERSION = 1  # of the tables
MAX_DEATHS = 2  # of workers that a job may cause
ENDED = ("done", "failed", "cancelled")

_TABLES = """
CREATE TABLE IF NOT EXISTS photos (
    id TEXT PRIMARY KEY, width INTEGER NOT NULL, height INTEGER NOT NULL, bytes INTEGER NOT NULL, used REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, model TEXT NOT NULL, recipe TEXT NOT NULL,
    photos TEXT NOT NULL, status TEXT NOT NULL, deaths INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL, started REAL, ended REAL, error TEXT, notes TEXT NOT NULL DEFAULT '[]'
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, model, deaths, seq);
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, number INTEGER NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS images_by_job ON images (job, number);
"""


class QueueFull(PopsError):
    """As many jobs wait as may."""


@dataclass(frozen=True)
class StoredPhoto:
    """A photo that was uploaded."""

    id: str
    width: int
    height: int


@dataclass(frozen=True)
class StoredImage:
    """An image that was made."""

    id: str
    number: int
    width: int
    height: int


@dataclass(frozen=True)
class Job:
    """One job: what was asked, and what came of it."""

    seq: int
    id: str
    model: str
    recipe: Mapping[str, Any]
    photos: Sequence[str]  # ids
    status: str
    deaths: int
    created: float
    started: float | None
    ended: float | None
    error: Mapping[str, Any] | None
    notes: Sequence[str]
    images: Sequence[StoredImage] = field(default_factory=tuple)


class Store:
    """The data of one server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        try:
            self._db = sqlite3.connect(folder / "jobs.sqlite", check_same_thread=False, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # an accepted job survives a power cut, too
            self._db.execute("PRAGMA foreign_keys = ON")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, VERSION):
                raise ConfigError(
                    f"{shown(folder)} holds the data of a later pops; update pops, or name another --data"
                )
            self._db.executescript(_TABLES)
            self._db.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.Error as e:
            raise ConfigError(f"the jobs in {shown(folder)} cannot be read ({e}); name another folder (--data)") from e

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # --- photos

    def photo_path(self, photo: str) -> Path:
        """Returns where a photo's bytes lie."""
        return self.folder / "photos" / photo[:2] / photo

    def photo(self, photo: str) -> StoredPhoto | None:
        """Returns a photo by its id."""
        rows = self._rows("SELECT id, width, height FROM photos WHERE id = ?", photo)
        return StoredPhoto(**rows[0]) if rows else None

    def add_photo(self, photo: StoredPhoto, size: int) -> None:
        """Notes a photo whose bytes are in place."""
        with self._change() as db:
            values = (photo.id, photo.width, photo.height, size, time.time())
            db.execute("INSERT OR REPLACE INTO photos VALUES (?, ?, ?, ?, ?)", values)

    # --- images

    def image_path(self, job: str, number: int) -> Path:
        """Returns where an image lies."""
        return self.folder / "images" / job[:2] / job / f"{number}.png"

    def image(self, image: str) -> tuple[str, StoredImage] | None:
        """Returns an image by its id, and its job."""
        rows = self._rows("SELECT job, id, number, width, height FROM images WHERE id = ?", image)
        return (rows[0]["job"], StoredImage(*tuple(rows[0])[1:])) if rows else None

    def add_image(self, job: str, number: int, width: int, height: int, size: int) -> StoredImage:
        """Notes an image that was written."""
        image = StoredImage(f"{job}-{number}", number, width, height)
        with self._change() as db:
            values = (image.id, job, number, width, height, size)
            db.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?)", values)
        return image

    # --- jobs

    def add_job(self, model: str, recipe: Mapping[str, Any], photos: Sequence[str], most: int) -> Job:
        """Queues a job; QueueFull where `most` wait already."""
        job = secrets.token_hex(16)
        with self._change() as db:
            waiting = db.execute("SELECT count(*) FROM jobs WHERE status = 'queued'").fetchone()[0]
            if waiting >= most:
                raise QueueFull(f"{waiting} jobs wait already; try again later")
            db.execute(
                "INSERT INTO jobs (id, model, recipe, photos, status, created) VALUES (?, ?, ?, ?, 'queued', ?)",
                (job, model, json.dumps(recipe), json.dumps(list(photos)), time.time()),
            )
            db.executemany("UPDATE photos SET used = ? WHERE id = ?", [(time.time(), photo) for photo in photos])
        found = self.job(job)
        assert found is not None
        return found

    def job(self, job: str) -> Job | None:
        """Returns a job by its id."""
        rows = self._rows("SELECT * FROM jobs WHERE id = ?", job)
        return self._job(rows[0]) if rows else None

    def jobs(self, after: int, limit: int) -> list[Job]:
        """Returns jobs in the order in which they came, those after number `after`."""
        return [
            self._job(row) for row in self._rows("SELECT * FROM jobs WHERE seq > ? ORDER BY seq LIMIT ?", after, limit)
        ]

    def _job(self, row: sqlite3.Row) -> Job:
        data = {**dict(row), **{name: json.loads(row[name]) for name in ("recipe", "photos", "notes")}}
        data["error"] = None if row["error"] is None else json.loads(row["error"])
        images = self._rows("SELECT id, number, width, height FROM images WHERE job = ? ORDER BY number", row["id"])
        return Job(**data, images=tuple(StoredImage(**image) for image in images))

    def count(self, status: str) -> int:
        """Returns how many jobs have a status."""
        return int(self._rows("SELECT count(*) FROM jobs WHERE status = ?", status)[0][0])

    def waiting(self, model: str, most: int) -> list[Job]:
        """Returns the next jobs of a model: in the order in which they came, those that a worker died of behind."""
        query = "SELECT * FROM jobs WHERE status = 'queued' AND model = ? ORDER BY deaths, seq LIMIT ?"
        return [self._job(row) for row in self._rows(query, model, most)]

    def start(self, jobs: Sequence[str]) -> list[str]:
        """Marks jobs that still wait as running; returns their ids."""
        started, now = [], time.time()
        with self._change() as db:
            for job in jobs:
                query = "UPDATE jobs SET status = 'running', started = ? WHERE id = ? AND status = 'queued'"
                if db.execute(query, (now, job)).rowcount:
                    started.append(job)
        return started

    def end(self, job: str, status: str, error: Mapping[str, Any] | None = None, notes: Sequence[str] = ()) -> bool:
        """Marks a job as ended, unless it has; returns whether it had not."""
        with self._change() as db:
            query = (
                "UPDATE jobs SET status = ?, ended = ?, error = ?, notes = ? "
                "WHERE id = ? AND status IN ('queued', 'running')"
            )
            told = None if error is None else json.dumps(error)
            return bool(db.execute(query, (status, time.time(), told, json.dumps(list(notes)), job)).rowcount)

    def again(self, job: str, *, died: bool = False) -> bool:
        """Queues a running job again; died: its worker did. Returns False for one that may not run again."""
        with self._change() as db:
            if died:
                db.execute("UPDATE jobs SET deaths = deaths + 1 WHERE id = ? AND status = 'running'", (job,))
            query = "UPDATE jobs SET status = 'queued' WHERE id = ? AND status = 'running' AND deaths < ?"
            return bool(db.execute(query, (job, MAX_DEATHS)).rowcount)

    def requeue(self) -> int:
        """Queues all running jobs again, of a server that was stopped; returns their number."""
        with self._change() as db:
            return db.execute("UPDATE jobs SET status = 'queued' WHERE status = 'running'").rowcount

    # --- disk

    def used(self) -> int:
        """Returns how many bytes photos and images take."""
        rows = self._rows("SELECT (SELECT total(bytes) FROM photos) + (SELECT total(bytes) FROM images)")
        return int(rows[0][0])

    def tidy(self, history: int, disk: int) -> int:
        """Forgets the oldest ended jobs beyond `history`, and as many more, and photos that no kept job uses, as take
        the data below `disk` bytes. Returns how many jobs were forgotten."""
        forgotten = 0
        with self._lock:
            ended = self._rows("SELECT id FROM jobs WHERE status IN ('done', 'failed', 'cancelled') ORDER BY seq")
            left = [row["id"] for row in ended]
            while left and (len(left) > history or self.used() > disk):
                self._forget(left.pop(0))
                forgotten += 1
            if self.used() > disk:
                kept = {photo for row in self._rows("SELECT photos FROM jobs") for photo in json.loads(row["photos"])}
                for row in self._rows("SELECT id FROM photos ORDER BY used"):
                    if row["id"] not in kept and self.used() > disk:
                        self._forget_photo(row["id"])
        return forgotten

    def _forget(self, job: str) -> None:
        with self._change() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (job,))
        shutil.rmtree(self.image_path(job, 0).parent, ignore_errors=True)

    def _forget_photo(self, photo: str) -> None:
        with self._change() as db:
            db.execute("DELETE FROM photos WHERE id = ?", (photo,))
        path = self.photo_path(photo)
        for file in [path, *path.parent.glob(f"{photo}-*")]:
            file.unlink(missing_ok=True)
