"""Core: what the routes of the API call. It has the store, the lines of workers, the decoder and the listeners."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pops.errors import ConfigError, ModelError, PopsError, ensure
from pops.files import settle, shown
from pops.images import PHOTO_SUFFIXES
from pops.models.model import Model
from pops.server.checks import Checker
from pops.server.decoder import Decoder
from pops.server.events import Events
from pops.server.keys import key_of
from pops.server.lines import Line
from pops.server.metrics import Metrics
from pops.server.projects import Projects
from pops.server.references import photo_id
from pops.server.settings import Settings
from pops.server.store import Job, Store, StoredPhoto

EXAMPLES = "examples/"
HEALTH = 5  # seconds for which an answer of the workers is good
logger = logging.getLogger("pops.server")


class StorageFull(PopsError):
    """Photos and images take as much as they may."""


class Core:
    """One server, without HTTP."""

    def __init__(self, settings: Settings) -> None:
        self.settings, limits = settings, settings.limits
        self._lock = claim(settings.data)
        self.store = Store(settings.data)
        self.projects = Projects(self.store, limits.projects)
        self.metrics, self.events = Metrics(), Events(limits.listeners)
        self.decoder = Decoder(limits.photo_memory, limits.photo_seconds, limits.photo_pixels)
        self.examples = examples_in(settings.examples)
        self.models = {str(loading.model): Model(loading) for loading in settings.models}
        self.lines = {str(loading.model): self._line(loading) for loading in settings.models}
        self.checker = Checker(
            self.models,
            lambda name: self.lines[name].loaded,
            settings.default,
            tuple(settings.libraries),
            self.has_photo,
            limits,
        )
        self.renderers: dict[str, list[dict[str, Any]]] = {}  # what a model's worker said that they can do
        self._health: tuple[float, list[dict[str, Any]]] = (0.0, [])
        self._checking = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    def _line(self, loading: Any) -> Line:
        line = Line(loading, self.settings, self.store, self.events, self.metrics)
        line.files = self.files
        return line

    async def start(self) -> None:
        """Starts the workers, and waits until each has loaded its model; ModelError for one that cannot."""
        again = self.store.requeue()
        if again:
            logger.info("%d jobs that ran when the server stopped wait again", again)
        shutil.rmtree(self.settings.data / "incoming", ignore_errors=True)
        (self.settings.data / "incoming").mkdir()
        ready = []
        for line in self.lines.values():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._tasks.append(asyncio.create_task(line.serve(future)))
            ready.append(future)
        self._tasks.append(asyncio.create_task(self._tidy()))
        try:
            await asyncio.gather(*ready)
        except ModelError:
            await self.stop(0)
            raise

    async def stop(self, seconds: float) -> None:
        """Stops: running jobs have so long to end, and otherwise wait for the next start."""
        self.events.close()
        running, waiting = sum(len(line.running) for line in self.lines.values()), self.store.count("queued")
        logger.info(
            "stopping: %d jobs run and have %g seconds to end, %d wait for the next start", running, seconds, waiting
        )
        await asyncio.gather(*(line.stop(seconds) for line in self.lines.values()))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.decoder.stop()
        self.store.close()
        self._lock.release()

    async def _tidy(self) -> None:
        limits = self.settings.limits
        while True:
            try:
                gone = await asyncio.to_thread(self.store.tidy, limits.history, limits.disk)
                if gone:
                    logger.info("%d old jobs were forgotten", gone)
                self.metrics.disk.set(await asyncio.to_thread(self.store.used))
            except Exception:
                logger.exception("tidying failed")
            await asyncio.sleep(30)

    # --- photos

    def has_photo(self, name: str) -> bool:
        """Returns whether a recipe's name of a photo is one that the server has."""
        found = photo_id(name)
        return name in self.examples if found is None else self.store.photo(found) is not None

    def files(self, names: Sequence[str]) -> dict[str, str]:
        """Returns the paths of photos by the names in recipes; examples are added."""
        own = {name: str(self.store.photo_path(found)) for name in names if (found := photo_id(name))}
        return {**{name: str(path) for name, path in self.examples.items()}, **own}

    def incoming(self) -> Path:
        """Returns a new place for a photo that is being received."""
        return self.settings.data / "incoming" / os.urandom(12).hex()

    async def take_photo(self, path: Path, name: str = "") -> StoredPhoto:
        """Takes a file of anyone's as a photo, by the digest of its bytes; PhotoError where it is none.

        name: the file's, as it was sent; it is shown, and nothing else.
        """
        digest, size = await asyncio.to_thread(_digest, path)
        known = await asyncio.to_thread(self.store.photo, digest)
        if known is not None and self.store.photo_path(digest).is_file():
            await asyncio.to_thread(self.store.use_photo, digest, name)
            return replace(known, name=name or known.name)
        room = self.settings.limits.disk - await asyncio.to_thread(self.store.used)
        if size > room:
            raise StorageFull("the photos and images of the server take as much as they may; try again later")
        width, height = await self.decoder.photo(path)
        photo, place = StoredPhoto(digest, width, height, name), self.store.photo_path(digest)
        await asyncio.to_thread(put, path, place)
        await asyncio.to_thread(self.store.add_photo, photo, size)
        return photo

    async def take_copy(self, path: Path) -> StoredPhoto:
        """Takes a copy of a file of this machine as a photo; OSError where it cannot be read."""
        place = self.incoming()
        try:
            await asyncio.to_thread(shutil.copyfile, path, place)
            return await self.take_photo(place, plain_name(path.name))
        finally:
            place.unlink(missing_ok=True)

    async def small_photo(self, photo: str, size: int) -> Path:
        """Returns the file of a small copy of a photo, which is kept."""
        place = self.store.photo_path(photo)
        return await self._copy(place, place.with_name(f"{photo}-{size}.png"), size)

    # --- images

    async def copy_of_image(self, job: str, number: int, size: int | None) -> Path:
        """Returns the file of a copy of an image without its recipe, whole or small, which is kept."""
        place = self.store.image_path(job, number)
        return await self._copy(place, place.with_name(f"{number}-{size or 'plain'}.png"), size)

    async def _copy(self, path: Path, to: Path, size: int | None) -> Path:
        if not await asyncio.to_thread(to.is_file):
            await self.decoder.copy(path, to, size)
        return to

    # --- jobs

    async def queue(self, data: Mapping[str, Any], *, quick: bool = False, reuse: bool = False) -> tuple[Job, bool]:
        """Accepts a recipe: from here on it is not lost. quick: behind those that a person asked for; reuse: unless the
        same one is made, or will be. Returns the job, and whether it was there.
        """
        job, reused = await asyncio.to_thread(self._queue, data, quick, reuse)
        if not reused:
            self.metrics.jobs.labels("queued").inc()
        self.lines[job.model].wake()
        return job, reused

    def _queue(self, data: Mapping[str, Any], quick: bool, reuse: bool) -> tuple[Job, bool]:
        limits = self.settings.limits
        if not reuse:  # what is too much is refused before it costs anything
            self.store.check_room(limits.queue, quick=quick)
        recipe, model, photos = self.checker.recipe(data)
        if self.store.used() >= limits.disk:
            raise StorageFull("the photos and images of the server take as much as they may; try again later")
        asked = recipe.to_data()
        line = self.lines[model]
        key = key_of(model, line.version, asked, line.loaded)
        return self.store.add_job(model, asked, photos, limits.queue, key=key, quick=quick, reuse=reuse)

    async def cancel(self, job: Job) -> None:
        """Ends a job before its time: at once if it waits, within a step if it runs."""
        had = await asyncio.to_thread(self.store.cancel, job.id)
        line = self.lines.get(job.model)  # None of a model that was loaded once
        if had == "queued":
            self.metrics.jobs.labels("cancelled").inc()
            self.events.tell(job.id, "cancelled", {})
        elif had == "running" and line is not None:
            await line.cancel(job.id)

    async def watch(self, job: Job) -> None:
        """Has previews made of a job that somebody looks at, and of no other."""
        line = self.lines.get(job.model)
        if line is not None:
            await line.watch(job.id)

    async def health(self) -> list[dict[str, Any]]:
        """Returns what each worker says of itself; however many ask, at most once in a few seconds."""
        async with self._checking:
            when, rows = self._health
            if time.monotonic() - when > HEALTH or not rows:
                rows = list(await asyncio.gather(*(line.health() for line in self.lines.values())))
                self._health = (time.monotonic(), rows)
            return rows

    def wait(self) -> int:
        """Returns the seconds after which a full queue may have room."""
        return max(1, min(60, round(min(line.seconds for line in self.lines.values()) * 2)))


def claim(folder: Path) -> FileLock:
    """Makes a server's folder, and takes it for this process; ConfigError where it cannot be used."""
    name = shown(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"the folder {name} cannot be made ({e.strerror}); name another (--data)") from e
    told = f"no write permission for {name}; name another folder (--data)"
    ensure(os.access(folder, os.W_OK | os.X_OK), told, ConfigError)
    lock = FileLock(folder / "server.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(f"another server uses {name}; stop it, or name another folder (--data)") from None
    except OSError as e:
        raise ConfigError(f"{name} cannot be used ({e.strerror or e}); name another folder (--data)") from e
    return lock


def examples_in(folder: Path | None) -> dict[str, Path]:
    """Returns the photos of a folder by the names that recipes use: examples/objects/teapot.png."""
    if folder is None:
        return {}
    ensure(folder.is_dir(), f"there is no folder {shown(folder)}; name another (--examples)", ConfigError)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())
    return {EXAMPLES + path.relative_to(folder).as_posix(): path.resolve() for path in files}


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32], path.stat().st_size


def put(path: Path, place: Path) -> None:
    """Moves a file to its place: it is on the disk before it has its name."""
    place.parent.mkdir(parents=True, exist_ok=True)
    settle(path)
    path.replace(place)
    settle(place.parent)


def plain_name(name: str | None) -> str:
    """Returns a file's name as it may be shown: its last part, of letters that can be printed, and not long."""
    last = re.split(r"[/\\]", name or "")[-1]
    return "".join(c if c.isprintable() else "" for c in last).strip()[:100]
