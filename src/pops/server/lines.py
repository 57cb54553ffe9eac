"""Line: one model's worker, and the jobs that go to it; a worker that dies is started again, and its jobs run again.

A job is marked in the store before it is sent, and what a worker tells is in the store before anyone hears of it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from pops.errors import ModelError, PopsError
from pops.recipe import Loading
from pops.server.child import Child, ChildEnded, Message
from pops.server.events import Events
from pops.server.metrics import Metrics
from pops.server.references import PHOTO
from pops.server.settings import Settings
from pops.server.store import Job, Store

START = 300  # seconds in which a worker must be ready
GRACE = 30  # seconds a worker may be late with a job that takes too long, before it is ended by force
PAUSE = (0.0, 1.0, 5.0, 15.0)  # seconds before a worker is started again, one after the other

logger = logging.getLogger("pops.server")


class Line:
    """One model's queue and worker. Of one event loop."""

    def __init__(self, loading: Loading, settings: Settings, store: Store, events: Events, metrics: Metrics) -> None:
        self.loading, self.name = loading, str(loading.model)
        self.loaded: dict[str, Any] | None = None  # what the worker said is loaded, once it is
        self.version = ""
        self.running: list[str] = []  # ids of jobs
        self.seconds = 1.0  # that a job takes, about
        self._settings, self._store, self._events, self._metrics = settings, store, events, metrics
        self._child: Child | None = None
        self._wake = asyncio.Event()
        self._asks: list[tuple[Message, asyncio.Future[Message]]] = []
        self._number = itertools.count()
        self._heard = time.monotonic()
        self.stopping = False
        self.files: Callable[[Sequence[str]], dict[str, str]] = lambda names: {}  # how recipes' names become paths

    @property
    def pid(self) -> int | None:
        """The worker's process; None between two."""
        return self._child.pid if self._child else None

    # --- asked by the API

    def wake(self) -> None:
        """Has the line look for work."""
        self._wake.set()

    async def cancel(self, job: str) -> None:
        """Tells the worker that a job is not wanted any more."""
        if self._child is not None and job in self.running:
            with suppress(ChildEnded):
                await self._child.tell({"do": "cancel", "job": job})

    async def watch(self, job: str) -> None:
        """Tells the worker whether anyone looks at a job's previews."""
        if self._child is not None and job in self.running:
            with suppress(ChildEnded):
                await self._child.tell({"do": "watch", "job": job, "on": self._events.watched(job)})

    async def ask(self, message: Message, seconds: float) -> Message:
        """Has the worker do something between two jobs; TimeoutError where it has no time, PopsError if it fails."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        entry = ({**message, "ask": next(self._number)}, future)
        self._asks.append(entry)
        self.wake()
        try:
            answer = await asyncio.wait_for(future, seconds)
        finally:
            if entry in self._asks:
                self._asks.remove(entry)
        if "error" in answer:
            raise PopsError(answer["error"])
        return answer

    async def health(self) -> dict[str, Any]:
        """Makes a tiny embedding and image; of a worker that is at work, tells that it moves."""
        told: dict[str, Any] = {"model": self.name, "ready": self.loaded is not None and self._child is not None}
        quiet = time.monotonic() - self._heard
        if not told["ready"]:
            return {**told, "ok": False}
        if self.running:
            return {**told, "ok": quiet < GRACE * 2, "busy": True, "quiet_seconds": round(quiet, 1)}
        try:
            answer = await self.ask({"do": "health"}, GRACE)
        except (PopsError, TimeoutError) as e:
            busy = bool(self.running)
            return {**told, "ok": busy, "busy": busy, "error": str(e) or "no answer"}
        return {**told, "ok": True, "busy": False, "seconds": answer["seconds"]}

    # --- the worker

    async def serve(self, ready: asyncio.Future[None]) -> None:
        """Keeps a worker at work until it is cancelled. ready: is done when the first one has loaded its model."""
        for deaths in itertools.count():
            try:
                await self._start()
                if not ready.done():
                    ready.set_result(None)
                await self._work()
            except ModelError as e:
                if not ready.done():
                    ready.set_exception(e)
                    return
                logger.error("the worker of %s does not start: %s", self.name, e)
            except ChildEnded as e:
                if self.stopping:
                    return
                logger.error("the worker of %s ended (%s); starting another", self.name, e)
                self._metrics.deaths.labels(self.name).inc()
                if not ready.done() and deaths >= 2:
                    ready.set_exception(ModelError(f"the worker of {self.name} does not start ({e}); see the log"))
                    return
            finally:
                await self._lost()
            await asyncio.sleep(PAUSE[min(deaths, len(PAUSE) - 1)] if self.loaded is None else 0.2)

    async def _start(self) -> None:
        about = {"loading": self.loading.model_dump(mode="json")}
        self._child = await Child.start("pops.server.worker", about)
        try:
            told = await self._child.hear(START)
        except TimeoutError:
            raise ModelError(f"{self.name} is not loaded within {START} seconds") from None
        if "refused" in told:
            raise ModelError(told["refused"])
        self.loaded, self.version, self._heard = told["loading"], told["version"], time.monotonic()
        logger.info("model %s is loaded; a tiny image took %s seconds", self.name, told["seconds"])

    async def _lost(self) -> None:
        """What a worker leaves behind: its jobs wait again, or fail where they were its end twice."""
        child, self._child = self._child, None
        if child is not None:
            await child.kill()
        for _, future in self._asks:
            if not future.done():
                future.set_result({"error": "the worker ended; try again"})
        self._asks.clear()
        jobs, self.running = self.running, []
        for job in jobs:
            told = {"code": "WorkerError", "message": "the process that made the images ended twice on this job"}
            if await asyncio.to_thread(self._store.again, job, died=not self.stopping):
                self._events.tell(job, "queued", {"again": True})
            elif await asyncio.to_thread(self._store.unwanted, [job]):
                await self._end(job, "cancelled")
            else:
                await self._end(job, "failed", told)

    async def _work(self) -> None:
        """Sends what waits to the worker, until that ends."""
        child = self._child
        assert child is not None
        while True:
            self._wake.clear()
            if self._asks:
                await self._answer(child, *self._asks.pop(0))
                continue
            jobs = [] if self.stopping else await asyncio.to_thread(self._next)
            if jobs:
                await self._run(child, jobs)
                continue
            await self._until_woken(child)

    async def _until_woken(self, child: Child) -> None:
        woken, ended = asyncio.ensure_future(self._wake.wait()), asyncio.ensure_future(child.ended())
        try:
            await asyncio.wait([woken, ended], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise ChildEnded(ended.result())
        finally:
            woken.cancel()
            ended.cancel()

    async def _answer(self, child: Child, message: Message, future: asyncio.Future[Message]) -> None:
        if future.done():
            return
        await child.tell(message)
        try:
            while (answer := await child.hear(GRACE * 2)).get("answer") != message["ask"]:
                pass
        except TimeoutError:
            raise ChildEnded("it does not answer") from None
        except ChildEnded:
            if not future.done():
                future.set_result({"error": "the worker ended; try again"})
            raise
        if not future.done():
            future.set_result(answer)

    def _next(self) -> list[Job]:
        """The next job; with `shared`, those that wait behind it and may be of one batch with it."""
        from pops.server.checks import together

        waiting = self._store.waiting(self.name, 8 if self._settings.shared else 1)
        chosen = waiting[:1]
        if self._settings.shared:
            chosen += [job for job in waiting[1:] if together(waiting[0], job)]
        started = self._store.start([job.id for job in chosen])
        return [job for job in chosen if job.id in started]

    async def _run(self, child: Child, jobs: list[Job]) -> None:
        """Runs jobs to their ends."""
        self.running = [job.id for job in jobs]
        for job in await asyncio.to_thread(self._store.unwanted, self.running):  # since it was started
            self.running.remove(job)
            await self._end(job, "cancelled")
        jobs = [job for job in jobs if job.id in self.running]
        if not jobs:
            return
        self._metrics.waiting.set(await asyncio.to_thread(self._store.count, "queued"))
        start, limit = time.monotonic(), self._settings.limits.seconds
        await child.tell({"do": "run", "jobs": [self._message(job) for job in jobs]})
        while self.running:
            left = start + limit * len(jobs) + GRACE - time.monotonic()
            try:
                message = await child.hear(max(left, 0.1))
            except TimeoutError:
                told = {"code": "ConfigError", "message": f"the job took over {limit:g} seconds; ask for less"}
                for job in self.running:
                    await self._end(job, "failed", told)
                self.running = []
                raise ChildEnded("a job took too long, and did not stop") from None
            self._heard = time.monotonic()
            if "job" in message:
                await self._told(message)
        took = time.monotonic() - start
        self._metrics.job_seconds.observe(took)
        self.seconds = 0.8 * self.seconds + 0.2 * took / len(jobs)

    def _message(self, job: Job) -> Message:
        names = [f"{PHOTO}{photo}" for photo in job.photos]
        return {
            "id": job.id,
            "recipe": dict(job.recipe),
            "photos": self.files(names),
            "names": {f"{PHOTO}{photo}": name for photo, name in job.names.items()},
            "libraries": {name: str(path) for name, path in self._settings.libraries.items()},
            "folder": str(self._store.image_path(job.id, 0).parent),
            "made": [image.number for image in job.images],
            "seconds": self._settings.limits.seconds,
            "watched": self._events.watched(job.id),
        }

    async def _told(self, message: Message) -> None:
        job, event, data = message["job"], message["event"], message.get("data", {})
        if event == "image":
            image = await asyncio.to_thread(
                self._store.add_image, job, data["number"], data["width"], data["height"], data["bytes"]
            )
            data = {"id": image.id, "number": image.number, "width": image.width, "height": image.height}
        if event == "warning" and not await asyncio.to_thread(self._store.warn, job, data):
            return
        if event in ("done", "failed", "cancelled"):
            self.running.remove(job)
            await self._end(job, event, message.get("error"), message.get("notes", ()))
        else:
            self._events.tell(job, event, data)

    async def _end(self, job: str, status: str, error: dict[str, Any] | None = None, notes: Sequence[str] = ()) -> None:
        if await asyncio.to_thread(self._store.end, job, status, error, notes):
            self._metrics.jobs.labels(status).inc()
            logger.info("job %s: %s%s", job, status, f" ({error['message']})" if error else "")
            self._events.tell(job, status, {"error": error} if error else {})

    async def stop(self, seconds: float) -> None:
        """Starts nothing more, and waits so long for what runs; the rest waits in the store for the next start."""
        self.stopping = True
        self.wake()
        until = time.monotonic() + seconds
        while self.running and time.monotonic() < until:
            await asyncio.sleep(0.05)
        child = self._child
        if child is not None and not self.running:
            await child.stop()
