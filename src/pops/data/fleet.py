"""Work shared by many workers on Ray: items, each worker with a teacher, and embeddings, each with an image encoder.

The workers send back what they make; the process that was started reads and writes all files, so that the bytes are
those of one worker, and no folder has to be shared. A worker that dies costs only what it had in hand.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pops.data.make import Draft, Source, draft
from pops.data.teachers import Teacher
from pops.errors import ConfigError, MissingExtra, PopsError, ensure
from pops.space import BATCH

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

    from pops.space import Space

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
    ray, there = _cluster(address, workers, gpus)

    class Worker:
        def __init__(self) -> None:
            self.teacher = make()

        def make(self, number: int) -> Draft:
            return draft(self.teacher, operator, seed, tries, number)

    def items(numbers: Sequence[int]) -> Iterator[Draft]:
        count = min(there, len(numbers))
        fleet = _fleet(ray, Worker, count, gpus)
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


class FleetEncoder:
    """An image encoder whose work is done by many: id, width and texts are the given one's, and the same embeddings.

    encode_images splits its images into the parts that the encoder computes together anyway.
    """

    def __init__(
        self, space: Space, make: Callable[[], Space], address: str, *, workers: int | None = None, gpus: float = 0.0
    ) -> None:
        """make: makes a worker's encoder; the rest is as in `over_ray`. MissingExtra and ConfigError as there."""
        self.ray, count = _cluster(address, workers, gpus)
        self.id, self.dim, self.fingerprint, self.encode_texts = (
            space.id,
            space.dim,
            space.fingerprint,
            space.encode_texts,
        )

        class Worker:
            def __init__(self) -> None:
                self.space = make()

            def encode(self, images: Sequence[Image.Image]) -> NDArray[Any]:
                vectors: NDArray[Any] = self.space.encode_images(images).numpy()
                return vectors

            def pid(self) -> int:
                """Returns the process's id: whoever runs a cluster wants to find it."""
                return os.getpid()

        self.fleet = _fleet(self.ray, Worker, count, gpus)
        self.together = max(4, 2 * count) * BATCH  # images that keep all workers busy

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Encodes RGB images as Space does: [n, D] un-normalised, float32."""
        import torch

        parts = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
        hand = [self.fleet[k % len(self.fleet)].encode.remote(list(part)) for k, part in enumerate(parts)]
        return torch.cat([torch.from_numpy(_got(self.ray, item).copy()) for item in hand])

    def close(self) -> None:
        """Ends the workers."""
        for worker in self.fleet:
            self.ray.kill(worker)


def _cluster(address: str, workers: int | None, gpus: float) -> tuple[Any, int]:
    """Returns ray, connected, and how many workers there are to be."""
    try:
        import ray
    except ImportError as e:
        raise MissingExtra("ray", "ray") from e
    ensure(workers is None or workers >= 1, f"--workers must be at least 1, got {workers}")
    _start(ray, address)
    kind, size = ("GPU", gpus) if gpus else ("CPU", 1.0)
    there = int(ray.cluster_resources().get(kind, 0) / size)
    ensure(there >= 1, f"the cluster at {address} has no {kind}; choose another --ray or --device")
    return ray, workers or there


def _fleet(ray: Any, worker: type, count: int, gpus: float) -> list[Any]:
    """Starts workers. One that dies is started again, and so is what it had in hand, which its arguments determine."""
    remote: Any = ray.remote(num_cpus=0 if gpus else 1, num_gpus=gpus, max_restarts=-1, max_task_retries=-1)(worker)
    return [remote.remote() for _ in range(count)]


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


def _got(ray: Any, item: Any) -> Any:
    try:
        return ray.get(item)
    except ray.exceptions.RayTaskError as e:
        cause = e.cause if isinstance(e.cause, PopsError) else None
        raise cause or PopsError(f"a worker failed: {(str(e.cause).strip().splitlines() or [''])[0]}") from e
    except ray.exceptions.RayError as e:
        told = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise PopsError(f"the cluster was lost ({told}); what is done is kept, run the command again") from e
