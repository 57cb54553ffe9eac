"""Which photos of a library a search looks at: by date, by folder and by pattern. Opens no file."""

from __future__ import annotations

import os
import re
from calendar import monthrange
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import translate
from pathlib import Path
from typing import NamedTuple

from pops.errors import ConfigError, ensure
from pops.files import expanded, shown

_ISO = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d)?)?)?)?")
_FIRST, _LAST = "0001-01-01T00:00:00", "9999-12-31T23:59:59"  # complete a date that says only its year, month, ...


class Photo(NamedTuple):
    """A photo's file. mtime: its last change, in nanoseconds; taken: the photo's own date, as ISO writes it, "" if it
    has none, None if nobody looked."""

    path: str
    mtime: int
    taken: str | None

    def date(self) -> tuple[str, str]:
        """Returns the date that counts, by the local clock, and where it comes from: "photo" or "file"."""
        if self.taken:
            return self.taken, "photo"
        try:
            return datetime.fromtimestamp(self.mtime / 1e9).isoformat(timespec="seconds"), "file"
        except (ValueError, OverflowError, OSError):  # a time that is no date, as broken archives give
            return "", "file"


@dataclass(frozen=True)
class Where:
    """Conditions that a photo must meet; none by default.

    since, until: ISO dates, each included to its end: until 2024-05 takes all of May. A photo's date is its own (EXIF),
    else its file's last change. under: folders, one of which holds the photo, however deep; exclude: patterns of names
    (*.gif) of the file or a folder above it, or of parts of the path (2019/*). Raises ConfigError for what is no date.
    """

    since: str = ""
    until: str = ""
    under: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            object.__setattr__(self, name, _date(getattr(self, name), name))
        common = min(len(self.since), len(self.until))
        told = f"since {self.since} is later than until {self.until}, so that no photo is both; exchange them"
        ensure(self.since[:common] <= self.until[:common], told, ConfigError)
        ensure(all(pattern.strip("/ ") for pattern in self.exclude), "exclude takes a pattern such as *.gif, got ''")

    def __bool__(self) -> bool:
        return self != Where()

    def test(self) -> Callable[[Photo], bool]:
        """Returns the function that says whether a photo meets the conditions."""
        folders = tuple({form for folder in self.under for form in _forms(folder)})
        excluded = _excluder([pattern.strip("/") for pattern in self.exclude])
        since, until = _ends(self.since, self.until)
        from_ns, to_ns = _nanoseconds(since, 0), _nanoseconds(until, 1)  # as a file's times are, without making dates
        dated = bool(self.since or self.until)

        def meets(photo: Photo) -> bool:
            if folders and not photo.path.startswith(folders):
                return False
            if excluded is not None and excluded(photo.path):
                return False
            if photo.taken:
                return since <= photo.taken <= until
            return not dated or from_ns <= photo.mtime < to_ns

        return meets


def _ends(since: str, until: str) -> tuple[str, str]:
    """Returns the first and the last second that two ISO dates, or none, mean."""
    if len(until) == len("2024-05"):
        until += f"-{monthrange(int(until[:4]), int(until[5:]))[1]}"
    return since + _FIRST[len(since) :], until + _LAST[len(until) :]


def _nanoseconds(date: str, seconds: int) -> int:
    """Returns a time by the local clock, and some seconds more, as a file's time; the nearest that the system knows."""
    try:
        return (round(datetime.fromisoformat(date).timestamp()) + seconds) * 10**9
    except (ValueError, OverflowError, OSError):  # before the year 1, or what a system takes for the end of time
        return -(2**63) if date < "1970" else 2**63


def _date(told: str, name: str) -> str:
    """Returns an ISO date in one form; ConfigError for anything else."""
    date = str(told).strip().replace(" ", "T")
    try:
        if date:
            datetime.fromisoformat(date + _FIRST[len(date) :])
        good = not date or _ISO.fullmatch(date) is not None
    except ValueError:
        good = False
    ensure(good, f"{name} takes a date such as 2024-05-31, 2024-05 or 2024, got {shown(told)!r}", ConfigError)
    return date


def _excluder(patterns: Sequence[str]) -> Callable[[str], bool] | None:
    """Returns the function that says whether a path is excluded; it looks at every folder once. None: nothing is."""
    names = "|".join(translate(p) for p in patterns if "/" not in p)
    parts = "|".join(f"{translate(f'*/{p}')}|{translate(f'*/{p}/*')}" for p in patterns if "/" in p)
    name, part = re.compile(names or "(?!)").match, re.compile(parts or "(?!)").match
    folders: dict[str, bool] = {}

    def excluded(path: str) -> bool:
        path = path if os.sep == "/" else path.replace(os.sep, "/")
        folder, _, last = path.rpartition("/")
        if folder not in folders:
            folders[folder] = any(map(name, folder.split("/")))
        return folders[folder] or name(last) is not None or (parts != "" and part("/" + path) is not None)

    return excluded if patterns else None


def _forms(folder: str) -> set[str]:
    """Returns how the paths in a folder begin: as it is written, and with links followed, as `pops index` does."""
    path = Path(os.path.abspath(expanded(folder)))  # noqa: PTH100  # not resolve(): links stay
    return {str(p).rstrip(os.sep) + os.sep for p in (path, path.resolve())}
