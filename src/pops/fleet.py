"""Workers on a Ray cluster: each holds what it loaded, and what they return comes back in order (extra `ray`).

The process that was started reads and writes all files, so that they are those of one worker. A worker that dies is
started again, and costs only what it had in hand.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pops.errors import ConfigError, MissingExtra, PopsError, ensure

LOCAL = "local"
AHEAD = 2  # tasks of a worker that wait for it, or for whoever takes the answers


class Cluster:
    """A Ray cluster: at an address (host:port), or processes of this machine ("local").

    workers: one for each CPU (or for each share `gpus` of a GPU), unless given. MissingExtra without Ray, ConfigError
    for a cluster that cannot be reached.
    """

    def __init__(self, address: str, *, workers: int | None = None, gpus: float = 0.0) -> None:
        try:
            import ray
        except ImportError as e:
            raise MissingExtra("ray", "ray") from e
        ensure(workers is None or workers >= 1, f"--workers must be at least 1, got {workers}")
        _start(ray, address)
        kind, size = ("GPU", gpus) if gpus else ("CPU", 1.0)
        there = int(ray.cluster_resources().get(kind, 0) / size)
        ensure(there >= 1, f"the cluster at {address} has no {kind}; choose another --ray or --device")
        self.ray, self.gpus, self.workers = ray, gpus, workers or there

    def start(self, make: Callable[[], Any], at_most: int | None = None) -> Fleet:
        """Starts workers, which each hold what `make` returns. at_most: of them, where there is not work for all."""
        return Fleet(self, make, self.workers if at_most is None else max(1, min(self.workers, at_most)))


class Fleet:
    """Workers of a cluster, to be closed."""

    def __init__(self, cluster: Cluster, make: Callable[[], Any], count: int) -> None:
        class Worker:
            def __init__(self) -> None:
                self.held = make()

            def do(self, name: str, given: tuple[Any, ...]) -> Any:
                return getattr(self.held, name)(*given)

            def pid(self) -> int:
                """Returns the process's id: whoever runs a cluster wants to find it."""
                return os.getpid()

        self.ray = cluster.ray
        cpus, gpus = 0 if cluster.gpus else 1, cluster.gpus
        lasting: Any = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=-1, max_task_retries=-1)(Worker)
        self.workers = [lasting.remote() for _ in range(count)]

    def map(self, name: str, tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Calls a method of what the workers hold with each task's arguments, and yields what it returns, in order.

        Tasks are taken as they are needed. An error in a worker is raised here; PopsError where the cluster is lost.
        """
        hand: deque[Any] = deque()
        for task, worker in zip(tasks, itertools.cycle(self.workers)):
            hand.append(worker.do.remote(name, task))
            if len(hand) == AHEAD * len(self.workers):
                yield self._got(hand.popleft())
        while hand:
            yield self._got(hand.popleft())

    def pids(self) -> list[int]:
        """Returns the workers' process ids."""
        return [self.ray.get(worker.pid.remote()) for worker in self.workers]

    def close(self) -> None:
        """Ends the workers."""
        for worker in self.workers:
            self.ray.kill(worker)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _got(self, item: Any) -> Any:
        try:
            return self.ray.get(item)
        except self.ray.exceptions.RayTaskError as e:
            cause = e.cause if isinstance(e.cause, PopsError) else None
            raise cause or PopsError(f"a worker failed: {(str(e.cause).strip().splitlines() or [''])[0]}") from e
        except self.ray.exceptions.RayError as e:
            told = (str(e).strip().splitlines() or [type(e).__name__])[0]
            raise PopsError(f"the cluster was lost ({told}); what is done is kept, run the command again") from e


def _start(ray: Any, address: str) -> None:
    """Connects to a cluster, unless this process is connected."""
    if ray.is_initialized():
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    try:
        if colon and port.isdecimal():  # Ray itself ends the process where nobody listens
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        how = {"include_dashboard": False} if address == LOCAL else {"address": address}
        ray.init(log_to_driver=False, logging_level="error", **how)
    except (OSError, OverflowError, ValueError, RuntimeError) as e:
        first = (str(e).strip().splitlines() or [""])[0]
        raise ConfigError(f"there is no Ray cluster at {address} ({first}); give local, or host:port") from e
