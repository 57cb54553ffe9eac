"""Retrieval: the images of an embedding are the photos of a library that are nearest to it.

No network and nothing random: seeds, steps and guidance have no effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.embedding import Embedding
from pops.errors import ConfigError, PhotoError, ensure
from pops.images import read_rgb
from pops.library import Library, Match
from pops.render.base import Capabilities, RendererOptions, RenderOptions, check_request

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

OWN_SIZE = (0, 0)  # the native size: each photo's own
LONGEST = 2048  # pixels of a photo's longer side unless a size is given, so that many photos fit into memory


class RetrievalRenderer:
    """Returns photos. Equal rows of one call get the nearest photo, the second nearest, and so on."""

    name = "retrieval"

    def __init__(self, library: Library) -> None:
        self.library = library
        self.capabilities = Capabilities(library.about.space, OWN_SIZE, together=True)  # equal rows: the next photo

    def render(self, vectors: Tensor, seeds: Sequence[int], size: tuple[int, int], options: RenderOptions) -> list[Any]:
        """See Renderer.render, except for equal rows. A photo's info["pops"] holds its path, score, rank and library;
        size (height, width) crops it to that shape. Raises PhotoError for a photo that is no longer there.
        """
        check_request(vectors, seeds, 1, (1, 1) if size == OWN_SIZE else size, multiple=1)
        ranks = _ranks(vectors)
        first = [i for i, rank in enumerate(ranks) if rank == 0]
        most = 1 + max(ranks, default=0)
        found = self.library.search(Embedding(vectors[first], self.capabilities.space), most) if first else []
        told = self.library.method(most).told
        if told and options.on_note:
            options.on_note(told)
        by_row = {vectors[i].numpy().tobytes(): matches for i, matches in zip(first, found, strict=True)}
        photos: list[Any] = []
        for row, rank in zip(vectors, ranks, strict=True):
            matches = by_row[row.numpy().tobytes()]
            held = f"{self.library.path} holds {len(matches)} different photos"
            ensure(rank < len(matches), f"{held}, {rank + 1} were asked for; ask for fewer (--num-images)", ConfigError)
            photos.append(self._photo(matches[rank], rank, size))
            if options.on_step:
                options.on_step(len(photos), len(vectors))
        return photos

    def _photo(self, match: Match, rank: int, size: tuple[int, int]) -> Image.Image:
        """Reads a photo that was found, or an equal one, at the size asked for."""
        from PIL import ImageOps

        path = next((p for p in (match.path, *match.copies) if Path(p).is_file()), None)
        if path is None:
            raise PhotoError(
                f"{match.path} is no longer there; bring {self.library.path} up to date: "
                f"pops index FOLDER -o {self.library.path} --prune"
            )
        photo = read_rgb(path)
        if size != OWN_SIZE:
            photo = ImageOps.fit(photo, (size[1], size[0]))
        elif max(photo.size) > LONGEST:
            photo.thumbnail((LONGEST, LONGEST))
        profile: dict[str | tuple[int, int], Any] = {k: v for k, v in photo.info.items() if k == "icc_profile"}
        found = {"path": path, "score": round(match.score, 6), "rank": rank}
        photo.info = {**profile, "pops": {"library": str(self.library.path), "found": found}}
        return photo


def _ranks(vectors: Tensor) -> list[int]:
    """Returns how many equal rows come before each row."""
    seen: dict[bytes, int] = {}
    ranks = []
    for row in vectors:
        key = row.numpy().tobytes()
        ranks.append(seen.get(key, 0))
        seen[key] = ranks[-1] + 1
    return ranks


def load(folder: Path | None, options: RendererOptions) -> RetrievalRenderer:
    """Opens the library at options.extra["library"], a path; needs no folder.

    Raises ConfigError without one, SpaceError for one of another space, or of another encoder than
    options.extra["encoder"] (a Space).
    """
    path = options.extra.get("library")
    ensure(bool(path), "the retrieval renderer needs a library: --library LIBRARY (pops index makes one)", ConfigError)
    library = Library.open(str(path))
    encoder = options.extra.get("encoder")
    if encoder is not None:
        library.require_encoder(encoder)
    return RetrievalRenderer(library)
