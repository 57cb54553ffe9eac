"""Work shared by many workers on Ray: items, each worker with a teacher, and embeddings, each with an image encoder.

The workers send back what they make; the process that was started reads and writes all files, so that no folder has to
be shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from pops.data.make import Draft, Source, draft
from pops.data.teachers import Teacher
from pops.fleet import Cluster
from pops.space import BATCH

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.space import Space


class _Maker:
    """A worker's teacher, and what it is asked."""

    def __init__(self, make: Callable[[], Teacher], operator: str, seed: int, tries: int) -> None:
        self.teacher, self.asked = make(), (operator, seed, tries)

    def make(self, number: int) -> Draft:
        return draft(self.teacher, *self.asked, number)


def over_ray(
    address: str, make: Callable[[], Teacher], operator: str, seed: int, tries: int, *, workers: int | None = None,
    gpus: float = 0.0,
) -> Source:  # fmt: skip
    """Returns what makes items on Ray. make: makes a worker's teacher; the rest, and errors, are as in `Cluster`."""
    cluster = Cluster(address, workers=workers, gpus=gpus)

    def items(numbers: Sequence[int]) -> Iterator[Draft]:
        with cluster.start(lambda: _Maker(make, operator, seed, tries), at_most=len(numbers)) as fleet:
            yield from fleet.map("make", ((number,) for number in numbers))

    return items


class FleetEncoder:
    """An image encoder whose work is done by many: id, width and texts are the given one's, and the same embeddings.

    encode_images splits its images into the parts that the encoder computes together anyway.
    """

    def __init__(
        self, space: Space, make: Callable[[], Space], address: str, *, workers: int | None = None, gpus: float = 0.0
    ) -> None:
        """make: makes a worker's encoder; the rest is as in `Cluster`, and so are errors."""
        self.id, self.dim, self.fingerprint = space.id, space.dim, space.fingerprint
        self.encode_texts = space.encode_texts
        cluster = Cluster(address, workers=workers, gpus=gpus)
        self.fleet = cluster.start(make)
        self.together = max(4, 2 * cluster.workers) * BATCH  # images that keep all workers busy

    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Encodes RGB images as Space does: [n, D] un-normalised, float32."""
        import torch

        parts = (list(images[first : first + BATCH]) for first in range(0, len(images), BATCH))
        return torch.cat(list(self.fleet.map("encode_images", ((part,) for part in parts))))

    def close(self) -> None:
        """Ends the workers."""
        self.fleet.close()
