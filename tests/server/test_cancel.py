"""Cancelling: between batches, twice, after the end, while the worker or the server dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pops.recipe import Loading
from pops.server.child import ChildEnded
from pops.server.events import Events
from pops.server.lines import Line
from pops.server.metrics import Metrics
from pops.server.settings import Settings
from pops.server.store import Store
from servers import Live

TIGER = "examples/textures/tiger.png"
RECIPE = {"version": 1, "expression": "_", "seeds": [3]}
LONG = {"rendering": {"steps": 900}, "seeds": list(range(32))}  # takes minutes


class Worker:
    """A worker's end of the pipe: what it is told is kept, and what it says is given."""

    def __init__(self, *said: dict[str, Any]) -> None:
        self.told: list[dict[str, Any]] = []
        self.said = list(said)
        self.pid = 0

    async def tell(self, message: dict[str, Any]) -> None:
        self.told.append(message)

    async def hear(self, seconds: float | None = None) -> dict[str, Any]:
        if not self.said:
            raise ChildEnded("signal 9")
        return self.said.pop(0)

    async def kill(self) -> None:
        pass


def made(tmp_path: Path) -> tuple[Store, Line]:
    store = Store(tmp_path)
    line = Line(Loading(model="tiny"), Settings(tmp_path), store, Events(9), Metrics())
    return store, line


def test_a_cancelled_job_never_runs_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    waits, runs, ended = (store.add_job("tiny", RECIPE, [], 9, key=str(n))[0].id for n in range(3))
    store.start([runs, ended])
    store.end(ended, "done")
    assert [store.cancel(job) for job in (waits, runs, ended, "0" * 32)] == ["queued", "running", None, None]
    assert [store.cancel(job) for job in (waits, runs)] == [None, "running"]  # twice
    assert [job.status for job in store.jobs(0, 9)] == ["cancelled", "running", "done"]
    assert store.unwanted([waits, runs, ended]) == [waits, runs]
    assert not store.again(runs, died=True)  # its worker died
    again, reused = store.add_job("tiny", RECIPE, [], 9, key="1", reuse=True)
    assert not reused and again.id != runs
    assert store.requeue() == 0  # the server was killed, too
    assert store.job(runs).status == "cancelled"  # type: ignore[union-attr]


def test_one_that_is_cancelled_before_it_is_sent_is_not_sent(tmp_path: Path) -> None:
    store, line = made(tmp_path)
    worker: Any = Worker()
    store.add_job("tiny", RECIPE, [], 9)
    jobs = line._next()
    assert store.cancel(jobs[0].id) == "running"  # marked, and not yet told to the worker
    asyncio.run(line._run(worker, jobs))
    assert worker.told == [] and line.running == []
    assert store.job(jobs[0].id).status == "cancelled"  # type: ignore[union-attr]


def test_one_that_is_done_meanwhile_is_done(tmp_path: Path) -> None:
    store, line = made(tmp_path)
    job = store.add_job("tiny", RECIPE, [], 9)[0].id
    worker: Any = Worker({"job": job, "event": "done"})
    jobs = line._next()

    async def story() -> None:
        running = asyncio.create_task(line._run(worker, jobs))
        await asyncio.sleep(0)
        store.cancel(job)
        await running

    asyncio.run(story())
    found = store.job(job)
    assert found is not None and found.status in ("done", "cancelled") and line.running == []
    assert store.cancel(job) is None


def test_one_whose_worker_dies_ends_as_cancelled(tmp_path: Path) -> None:
    store, line = made(tmp_path)
    worker: Any = Worker()
    wanted, unwanted = (store.add_job("tiny", RECIPE, [], 9)[0].id for _ in range(2))
    store.start([wanted, unwanted])

    async def story() -> None:
        line._child, line.running = worker, [wanted, unwanted]
        store.cancel(unwanted)
        await line.cancel(unwanted)
        await line._lost()

    asyncio.run(story())
    assert worker.told == [{"do": "cancel", "job": unwanted}]
    assert [job.status for job in store.jobs(0, 9)] == ["queued", "cancelled"]


def test_a_worker_that_is_killed_does_not_bring_a_cancelled_job_back(serving: Callable[..., Live]) -> None:
    server = serving()
    for kill in (Live.kill_worker, Live.kill):
        job = server.queue(f"texturing({TIGER}, _)", **LONG)
        until = time.monotonic() + 240
        while server.ask("GET", f"/jobs/{job}")[1]["status"] != "running":
            assert time.monotonic() < until
            time.sleep(0.05)
        assert server.ask("DELETE", f"/jobs/{job}")[0] == 200
        kill(server)
        server = serving() if kill is Live.kill else server
        assert server.ended(job, 240)["status"] == "cancelled"
        assert server.ask("DELETE", f"/jobs/{job}")[1]["status"] == "cancelled"
    assert server.ended(server.queue(f"texturing({TIGER}, _)"), 240)["status"] == "done"


def test_what_runs_when_the_server_stops_runs_at_the_next_start(tmp_path: Path) -> None:
    store, line = made(tmp_path)
    worker: Any = Worker()
    job = store.add_job("tiny", RECIPE, [], 9)[0].id

    async def story() -> None:
        line._child, line.running = worker, [job]
        store.start([job])
        await line.stop(0)
        await line._lost()

    asyncio.run(story())
    found = store.job(job)
    assert found is not None and found.status == "queued" and found.deaths == 0
