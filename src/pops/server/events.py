"""Events: tells everyone who listens to a job what becomes of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from pops.errors import PopsError
from pops.server.store import ENDED

WAITING = 64  # events that one listener may be behind


class TooManyListeners(PopsError):
    """As many event streams are open as may be."""


@dataclass(frozen=True)
class Event:
    """One line of a job's story: queued, progress, preview, image, done, failed or cancelled."""

    name: str
    data: dict[str, Any]


class Events:
    """The listeners of all jobs. Of one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._listeners: dict[str, dict[asyncio.Queue[Event | None], bool]] = defaultdict(dict)
        self._closed = False

    @property
    def count(self) -> int:
        """How many listen."""
        return sum(len(queues) for queues in self._listeners.values())

    def watched(self, job: str) -> bool:
        """Whether anyone would look at a job's previews."""
        return any(self._listeners.get(job, {}).values())

    def listen(self, job: str, *, watching: bool = False) -> asyncio.Queue[Event | None]:
        """Returns a queue that receives a job's events from now on; give it to `leave` afterwards.

        watching: whether previews, which cost time, are looked at.
        """
        if self.count >= self._most:
            raise TooManyListeners(f"{self._most} event streams are open already; ask GET /jobs/ID instead")
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        if self._closed:
            queue.put_nowait(None)
        self._listeners[job][queue] = watching
        return queue

    def leave(self, job: str, queue: asyncio.Queue[Event | None]) -> None:
        """Forgets a listener."""
        queues = self._listeners.get(job)
        if queues is not None:
            queues.pop(queue, None)
            if not queues:
                del self._listeners[job]

    def tell(self, job: str, name: str, data: dict[str, Any]) -> None:
        """Tells a job's listeners; one that is far behind misses progress and previews, and nothing else."""
        for queue in self._listeners.get(job, ()):
            if name not in ("progress", "preview") or queue.qsize() < WAITING:
                queue.put_nowait(Event(name, data))

    def close(self) -> None:
        """Ends all streams: the server stops."""
        self._closed = True
        for queues in self._listeners.values():
            for queue in queues:
                queue.put_nowait(None)


async def until_ended(queue: asyncio.Queue[Event | None]) -> AsyncIterator[Event]:
    """Yields events as they come, the last one's that of the job's end."""
    while (event := await queue.get()) is not None:
        yield event
        if event.name in ENDED:
            return
