"""What lies in a folder: its regular files with size and time, and what cannot be looked at. Opens no file."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from pops.errors import ConfigError, ensure
from pops.files import expanded

HEADER = "library.json"  # the file that makes a folder a library


@dataclass(frozen=True)
class Stamp:
    """What tells, without opening it, that a file is as it was: bytes, and nanoseconds of its last change."""

    size: int
    mtime: int


@dataclass
class Scan:
    """All below one folder. files: path -> stamp, in order; problems: path -> why it is left out; closed: folders
    that could not be looked into."""

    root: Path
    files: dict[str, Stamp] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)

    def covers(self, path: str) -> bool:
        """Whether the scan would have met the path, were it there."""
        inside = _inside(path, str(self.root))
        return inside and not any(_inside(path, folder) for folder in self.closed)


def scan(folder: str | Path) -> Scan:
    """The files of a folder and of those in it, links followed, each folder once. Hidden ones (.name) and libraries
    are passed over. ConfigError where there is no folder.
    """
    root = expanded(folder)
    ensure(root.exists(), f"there is no folder {folder}; check the path", ConfigError)
    ensure(root.is_dir(), f"{folder} is no folder; name the folder that the photo is in", ConfigError)
    found = Scan(root.resolve())
    seen: set[tuple[int, int]] = set()
    waiting = [str(found.root)]
    while waiting:
        waiting += reversed(_look_into(waiting.pop(), found, seen))
    return found


def _look_into(folder: str, found: Scan, seen: set[tuple[int, int]]) -> list[str]:
    """Notes a folder's files; returns the folders in it. A folder met before (a link that leads back) is passed."""
    try:
        about = os.stat(folder)  # noqa: PTH116  # strings here: a Path a file would take as long as the stat
        if (about.st_dev, about.st_ino) in seen:
            return []
        seen.add((about.st_dev, about.st_ino))
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as e:
        found.problems[_shown(folder)] = f"the folder cannot be looked into ({e.strerror})"
        found.closed.append(folder)
        return []
    if any(entry.name == HEADER for entry in entries) and any(entry.name == "vectors.lance" for entry in entries):
        return []
    inner = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            about = entry.stat()
        except OSError as e:
            why = "is a link that leads nowhere" if entry.is_symlink() else f"cannot be looked at ({e.strerror})"
            found.problems[_shown(entry.path)] = why
            continue
        if stat.S_ISDIR(about.st_mode):
            inner.append(entry.path)
        elif not stat.S_ISREG(about.st_mode):
            found.problems[_shown(entry.path)] = "is not a regular file"
        elif _shown(entry.path) != entry.path:
            found.problems[_shown(entry.path)] = "has a name that is not valid Unicode; rename it"
        else:
            found.files[entry.path] = Stamp(about.st_size, about.st_mtime_ns)
    return inner


def _shown(path: str) -> str:
    """The path as text that can be printed and stored."""
    return os.fsencode(path).decode("utf-8", "replace")


def _inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)
