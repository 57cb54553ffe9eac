"""Items made by many workers on Ray: each holds a teacher, and a worker that dies costs only what it had in hand.

The workers send pictures back; the process that was started writes them in order, so that the bytes are those of one
worker, and no folder has to be shared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pops.data.make import Draft, Source, draft
from pops.data.teachers import Teacher
from pops.errors import ConfigError, MissingExtra, PopsError, ensure

LOCAL = "local"
AHEAD = 2  # items of a worker that wait for it, or for the writer


def over_ray(
    address: str, make: Callable[[], Teacher], operator: str, seed: int, tries: int, *, workers: int | None = None,
    gpus: float = 0.0,
) -> Source:  # fmt: skip
    """Returns what makes items on Ray: at `address`, or in processes of this machine ("local").

    make: makes a worker's teacher; workers: one for each CPU (or for each share `gpus` of a GPU) of the cluster, unless
    given. MissingExtra without Ray, ConfigError for a cluster that cannot be reached.
    """
    try:
        import ray
    except ImportError as e:
        raise MissingExtra("ray", "ray") from e
    ensure(workers is None or workers >= 1, f"--workers must be at least 1, got {workers}")
    _start(ray, address)

    class Worker:
        def __init__(self) -> None:
            self.teacher = make()

        def make(self, number: int) -> Draft:
            return draft(self.teacher, operator, seed, tries, number)

    kind, size = ("GPU", gpus) if gpus else ("CPU", 1.0)
    there = int(ray.cluster_resources().get(kind, 0) / size)
    ensure(there >= 1, f"the cluster at {address} has no {kind}; choose another --ray or --device")

    def items(numbers: Sequence[int]) -> Iterator[Draft]:
        # A worker that dies is started again, and so is what it had in hand: an item is a function of its seed.
        remote: Any = ray.remote(num_cpus=0 if gpus else 1, num_gpus=gpus, max_restarts=-1, max_task_retries=-1)(Worker)
        count = min(workers or there, len(numbers))
        fleet = [remote.remote() for _ in range(count)]
        hand: deque[Any] = deque()
        try:
            for place, number in enumerate(numbers):
                hand.append(fleet[place % count].make.remote(number))
                if len(hand) == AHEAD * count:
                    yield _got(ray, hand.popleft())
            while hand:
                yield _got(ray, hand.popleft())
        finally:
            for worker in fleet:
                ray.kill(worker)

    return items


def _start(ray: Any, address: str) -> None:
    """Connects to a cluster, unless this process is connected."""
    if ray.is_initialized():
        return
    try:
        how = {"include_dashboard": False} if address == LOCAL else {"address": address}
        ray.init(log_to_driver=False, logging_level="error", **how)
    except (ConnectionError, ValueError, RuntimeError) as e:
        first = (str(e).strip().splitlines() or [""])[0]
        raise ConfigError(f"there is no Ray cluster at {address} ({first}); give local, or host:port") from e


def _got(ray: Any, item: Any) -> Draft:
    try:
        made: Draft = ray.get(item)
        return made
    except ray.exceptions.RayTaskError as e:
        cause = e.cause if isinstance(e.cause, PopsError) else None
        raise cause or PopsError(f"a worker failed: {(str(e.cause).strip().splitlines() or [''])[0]}") from e
    except ray.exceptions.RayError as e:
        told = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise PopsError(f"the cluster was lost ({told}); what is done is kept, run the command again") from e
