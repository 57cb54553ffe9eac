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
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pops.errors import ConfigError, PopsError
from pops.files import shown
from pops.server.keys import operators_in, words_of
from pops.server.tables import STEPS, VERSION

MAX_DEATHS = 2  # of workers that a job may cause
ENDED = ("done", "failed", "cancelled")

_PLACE = "SELECT coalesce(max(place), 0) + 1 FROM jobs"  # the next one in the history
_OF_JOB = (
    "seq, id, model, recipe, photos, status, deaths, created, started, ended, error, notes, quick, favourite, place, "
    "warnings"
)
_TO_FORGET = """
SELECT id FROM jobs WHERE status IN ('done', 'failed', 'cancelled') AND quick = ? AND NOT favourite AND id NOT IN (
    SELECT job FROM images WHERE id IN (SELECT value FROM projects, json_each(projects.pins))
) ORDER BY seq
"""


class QueueFull(PopsError):
    """As many jobs wait as may."""


@dataclass(frozen=True)
class StoredPhoto:
    """A photo that was uploaded."""

    id: str
    width: int
    height: int
    name: str = ""  # the file's, as it was sent; for the eye alone


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
    quick: bool = False  # a preview that no person asked for
    favourite: bool = False
    place: int | None = None  # in the history; None of a preview
    warnings: Sequence[Mapping[str, Any]] = ()
    images: Sequence[StoredImage] = ()
    names: Mapping[str, str] = field(default_factory=dict)  # of its photos: id -> the file's name


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
            if not 0 <= found <= VERSION:
                raise ConfigError(
                    f"{shown(folder)} holds the data of a later pops; update pops, or name another --data"
                )
            for step in range(found, VERSION):
                self._upgrade(step)
        except sqlite3.Error as e:
            raise ConfigError(f"the jobs in {shown(folder)} cannot be read ({e}); name another folder (--data)") from e

    def _upgrade(self, step: int) -> None:
        """Makes the tables of the next version, with what is in them, or leaves all as it is."""
        with self.change() as db:
            for statement in STEPS[step].split(";"):
                db.execute(statement)
            for row in db.execute("SELECT id, recipe FROM jobs").fetchall() if step else ():
                told = json.dumps(operators_in(json.loads(row["recipe"])["expression"]))
                db.execute("UPDATE jobs SET operators = ? WHERE id = ?", (told, row["id"]))
            db.execute(f"PRAGMA user_version = {step + 1}")

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        """Returns what a query finds."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # --- photos

    def photo_path(self, photo: str) -> Path:
        """Returns where a photo's bytes lie."""
        return self.folder / "photos" / photo[:2] / photo

    def photo(self, photo: str) -> StoredPhoto | None:
        """Returns a photo by its id."""
        rows = self.rows("SELECT id, width, height, name FROM photos WHERE id = ?", photo)
        return StoredPhoto(**rows[0]) if rows else None

    def add_photo(self, photo: StoredPhoto, size: int) -> None:
        """Notes a photo whose bytes are in place."""
        with self.change() as db:
            values = (photo.id, photo.width, photo.height, size, time.time(), photo.name)
            db.execute("INSERT OR REPLACE INTO photos VALUES (?, ?, ?, ?, ?, ?)", values)

    def use_photo(self, photo: str, name: str) -> None:
        """Notes that a photo was sent again, and under which name."""
        with self.change() as db:
            query = "UPDATE photos SET used = ?, name = CASE ? WHEN '' THEN name ELSE ? END WHERE id = ?"
            db.execute(query, (time.time(), name, name, photo))

    def photo_of(self, digest: str) -> str | None:
        """Returns the id of the photo whose bytes' sha256 begins so."""
        rows = self.rows("SELECT id FROM photos WHERE substr(id, 1, ?) = ?", len(digest), digest)
        return str(rows[0]["id"]) if len(rows) == 1 else None

    def names(self, photos: Sequence[str]) -> dict[str, str]:
        """Returns the files' names of photos, as they were sent, by id."""
        query = "SELECT id, name FROM photos WHERE name != '' AND id IN (SELECT value FROM json_each(?))"
        return {row["id"]: row["name"] for row in self.rows(query, json.dumps(list(photos)))}

    # --- images

    def image_path(self, job: str, number: int) -> Path:
        """Returns where an image lies."""
        return self.folder / "images" / job[:2] / job / f"{number}.png"

    def image(self, image: str) -> tuple[str, StoredImage] | None:
        """Returns an image by its id, and its job."""
        rows = self.rows("SELECT job, id, number, width, height FROM images WHERE id = ?", image)
        return (rows[0]["job"], StoredImage(*tuple(rows[0])[1:])) if rows else None

    def add_image(self, job: str, number: int, width: int, height: int, size: int) -> StoredImage:
        """Notes an image that was written."""
        image = StoredImage(f"{job}-{number}", number, width, height)
        with self.change() as db:
            values = (image.id, job, number, width, height, size)
            db.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?)", values)
        return image

    # --- jobs

    def add_job(
        self,
        model: str,
        recipe: Mapping[str, Any],
        photos: Sequence[str],
        most: int,
        *,
        key: str = "",
        quick: bool = False,
        reuse: bool = False,
    ) -> tuple[Job, bool]:
        """Queues a job, and returns it; reuse: or one of the same key that waits, runs, or has images that stand.

        Also returns whether it was there. QueueFull where `most` wait already; of a quick job, half of them.
        """
        with self.change() as db:
            found = self._same(key) if reuse else None
            if found is not None:
                if not quick:
                    self.promote(found.id, db)
                return self._known(found.id), True
            self.check_room(most, quick=quick)
            job, now, expression = secrets.token_hex(16), time.time(), recipe["expression"]
            words, operators = words_of(expression, self.names(photos)), json.dumps(operators_in(expression))
            db.execute(
                "INSERT INTO jobs (id, model, recipe, photos, status, created, key, quick, words, operators, place) "
                f"VALUES (?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, {'NULL' if quick else f'({_PLACE})'})",
                (job, model, json.dumps(recipe), json.dumps(list(photos)), now, key, int(quick), words, operators),
            )
            db.executemany("UPDATE photos SET used = ? WHERE id = ?", [(now, photo) for photo in photos])
        return self._known(job), False

    def check_room(self, most: int, *, quick: bool = False) -> None:
        """Raises QueueFull where `most` jobs wait; for a quick job, half of them."""
        waiting = self.count("queued")
        if waiting >= (max(1, most // 2) if quick else most):
            raise QueueFull(f"{waiting} jobs wait already; try again later")

    def promote(self, job: str, db: sqlite3.Connection | None = None) -> None:
        """Makes a preview a job of the history: now a person asks for it. db: where a change is under way."""
        with nullcontext(db) if db else self.change() as change:
            change.execute(f"UPDATE jobs SET quick = 0, place = ({_PLACE}) WHERE id = ? AND quick", (job,))

    def _same(self, key: str) -> Job | None:
        there = self.found(
            "key = ? AND status IN ('queued', 'running', 'done') AND NOT unwanted ORDER BY seq DESC", key
        )
        return next((job for job in there if self._stands(job)), None)

    def _stands(self, job: Job) -> bool:
        there = (self.image_path(job.id, image.number).is_file() for image in job.images)
        return job.status != "done" or (bool(job.images) and all(there))

    def _known(self, job: str) -> Job:
        found = self.job(job)
        assert found is not None
        return found

    def job(self, job: str) -> Job | None:
        """Returns a job by its id."""
        return next(iter(self.found("id = ?", job)), None)

    def jobs(self, after: int, limit: int) -> list[Job]:
        """Returns jobs in the order in which they came, those after number `after`."""
        return self.found("seq > ? ORDER BY seq LIMIT ?", after, limit)

    def found(self, where: str, *values: object) -> list[Job]:
        """Returns the jobs of which a condition in SQL holds."""
        return [self._job(row) for row in self.rows(f"SELECT {_OF_JOB} FROM jobs WHERE {where}", *values)]

    def _job(self, row: sqlite3.Row) -> Job:
        data = {**dict(row), **{name: json.loads(row[name]) for name in ("recipe", "photos", "notes", "warnings")}}
        data |= {name: bool(row[name]) for name in ("quick", "favourite")}
        data["error"] = None if row["error"] is None else json.loads(row["error"])
        images = self.rows("SELECT id, number, width, height FROM images WHERE job = ? ORDER BY number", row["id"])
        names = self.names(data["photos"]) if data["photos"] else {}
        return Job(**data, images=tuple(StoredImage(**image) for image in images), names=names)

    def count(self, status: str) -> int:
        """Returns how many jobs have a status."""
        return int(self.rows("SELECT count(*) FROM jobs WHERE status = ?", status)[0][0])

    def waiting(self, model: str, most: int) -> list[Job]:
        """Returns the next jobs of a model: in the order in which they came, but quick ones behind the others, and
        those that a worker died of behind all."""
        return self.found("status = 'queued' AND model = ? ORDER BY deaths, quick, seq LIMIT ?", model, most)

    def start(self, jobs: Sequence[str]) -> list[str]:
        """Marks jobs that still wait as running; returns their ids."""
        started, now = [], time.time()
        with self.change() as db:
            for job in jobs:
                query = "UPDATE jobs SET status = 'running', started = ? WHERE id = ? AND status = 'queued'"
                if db.execute(query, (now, job)).rowcount:
                    started.append(job)
        return started

    def end(self, job: str, status: str, error: Mapping[str, Any] | None = None, notes: Sequence[str] = ()) -> bool:
        """Marks a job as ended, unless it has; returns whether it had not."""
        with self.change() as db:
            query = (
                "UPDATE jobs SET status = ?, ended = ?, error = ?, notes = ? "
                "WHERE id = ? AND status IN ('queued', 'running')"
            )
            told = None if error is None else json.dumps(error)
            return bool(db.execute(query, (status, time.time(), told, json.dumps(list(notes)), job)).rowcount)

    def cancel(self, job: str) -> str | None:
        """Cancels a job that waits, and notes of one that runs that it is unwanted: it ends soon, and never runs again.

        Returns the status that the job had; None of one that had ended.
        """
        with self.change() as db:
            row = db.execute("SELECT status FROM jobs WHERE id = ?", (job,)).fetchone()
            if row is None or row["status"] in ENDED:
                return None
            if row["status"] == "queued":
                query = "UPDATE jobs SET status = 'cancelled', ended = ?, unwanted = 1 WHERE id = ?"
                db.execute(query, (time.time(), job))
            else:
                db.execute("UPDATE jobs SET unwanted = 1 WHERE id = ?", (job,))
            return str(row["status"])

    def unwanted(self, jobs: Sequence[str]) -> list[str]:
        """Returns those of the jobs that were cancelled."""
        query = "SELECT id FROM jobs WHERE unwanted AND id IN (SELECT value FROM json_each(?)) ORDER BY seq"
        return [row["id"] for row in self.rows(query, json.dumps(list(jobs)))]

    def warn(self, job: str, warning: Mapping[str, Any]) -> bool:
        """Notes a warning about a job; returns False for one that is known."""
        with self.change() as db:
            row = db.execute("SELECT warnings FROM jobs WHERE id = ?", (job,)).fetchone()
            known = json.loads(row["warnings"]) if row else [warning]
            if warning in known:
                return False
            db.execute("UPDATE jobs SET warnings = ? WHERE id = ?", (json.dumps([*known, warning]), job))
            return True

    def again(self, job: str, *, died: bool = False) -> bool:
        """Queues a running job again; died: its worker did. Returns False for one that may not run again."""
        with self.change() as db:
            if died:
                db.execute("UPDATE jobs SET deaths = deaths + 1 WHERE id = ? AND status = 'running'", (job,))
            query = (
                "UPDATE jobs SET status = 'queued' WHERE id = ? AND status = 'running' AND deaths < ? AND NOT unwanted"
            )
            return bool(db.execute(query, (job, MAX_DEATHS)).rowcount)

    def requeue(self) -> int:
        """Queues all running jobs again, of a server that was stopped; returns their number."""
        with self.change() as db:
            query = "UPDATE jobs SET status = 'cancelled', ended = ? WHERE status = 'running' AND unwanted"
            db.execute(query, (time.time(),))
            return db.execute("UPDATE jobs SET status = 'queued' WHERE status = 'running'").rowcount

    # --- disk

    def used(self) -> int:
        """Returns how many bytes photos, images and projects take."""
        total = "SELECT (SELECT total(bytes) FROM photos) + (SELECT total(bytes) FROM images)"
        return int(self.rows(f"{total} + (SELECT total(length(document)) FROM projects)")[0][0])

    def tidy(self, history: int, disk: int) -> int:
        """Forgets the oldest ended jobs beyond `history` (of previews as many), and as many more, and photos that
        nothing kept uses, as take the data below `disk` bytes: previews first. Favourites and what projects pin or
        use stay. Returns how many jobs were forgotten."""
        forgotten = 0
        with self._lock:
            for quick in (1, 0):
                left = [row["id"] for row in self.rows(_TO_FORGET, quick)]
                while left and (len(left) > history or self.used() > disk):
                    self._forget(left.pop(0))
                    forgotten += 1
            if self.used() > disk:
                rows = self.rows("SELECT photos FROM jobs UNION ALL SELECT photos FROM projects")
                kept = {photo for row in rows for photo in json.loads(row["photos"])}
                for row in self.rows("SELECT id FROM photos ORDER BY used"):
                    if row["id"] not in kept and self.used() > disk:
                        self._forget_photo(row["id"])
        return forgotten

    def _forget(self, job: str) -> None:
        with self.change() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (job,))
        shutil.rmtree(self.image_path(job, 0).parent, ignore_errors=True)

    def _forget_photo(self, photo: str) -> None:
        with self.change() as db:
            db.execute("DELETE FROM photos WHERE id = ?", (photo,))
        path = self.photo_path(photo)
        for file in [path, *path.parent.glob(f"{photo}-*")]:
            file.unlink(missing_ok=True)
