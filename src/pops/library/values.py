"""What goes into a library and comes out of it, as values: who made the vectors, files, photos that were found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pops.errors import ConfigError, SpaceError, ensure
from pops.library.scan import Stamp

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


class Encoder(Protocol):
    """Encodes images to the vectors of a library; Space is one."""

    id: str
    dim: int

    @property
    def fingerprint(self) -> str: ...
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor: ...


@dataclass(frozen=True)
class About:
    """What made the vectors; they are comparable with embeddings of the same space only."""

    space: str  # id of the CLIP space
    dim: int
    fingerprint: str  # of the image encoder
    fit: str  # how photos become square
    side: int  # pixels per side of that square

    def require(self, other: About, where: Path) -> None:
        """Raises SpaceError or ConfigError, in one line, if vectors made by `other` are not comparable with these."""
        do = "index into another library (-o)"
        if self.space != other.space or self.dim != other.dim:
            raise SpaceError(f"the vectors are of space {other.space!r}, {where} holds space {self.space!r}; {do}")
        if self.fingerprint != other.fingerprint:
            raise SpaceError(f"{where} was made by another version of the encoder of {self.space!r}; {do}")
        same = (self.fit, self.side) == (other.fit, other.side)
        mine, theirs = f"{self.fit} to {self.side} pixels", f"{other.fit} to {other.side}"
        ensure(same, f"{where} holds photos made square by {mine}, not {theirs}; {do}", ConfigError)


@dataclass(frozen=True)
class Entry:
    """One file of the library: the sha256 of a photo's bytes, or "" and the problem with a file that is no photo.

    taken: the photo's own date, "" if it has none, None in libraries of before that kept no dates.
    """

    stamp: Stamp
    digest: str = ""
    problem: str = ""
    taken: str | None = None


@dataclass(frozen=True)
class Match:
    """A photo that was found. score: the cosine, -1 to 1; copies: other files of the same bytes; date: as ISO writes
    it, the photo's own (date_from "photo") or that of its file's last change ("file")."""

    path: str
    score: float
    copies: tuple[str, ...] = ()
    date: str = ""
    date_from: str = ""


@dataclass(frozen=True)
class Method:
    """How a search goes. search: "exact", or "principal axes" for an index with its settings; told: a line about an
    index that is missing, or ""."""

    search: str
    settings: dict[str, int]
    told: str = ""
