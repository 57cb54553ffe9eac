"""Lists a folder: its regular files with size and time, and what cannot be read. Opens no file."""

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
    """What shows, without opening a file, that it is unchanged: its bytes, and its last change in nanoseconds."""

    size: int
    mtime: int


@dataclass
class Scan:
    """Everything below one folder. files: path -> stamp, in order; problems: path -> why it is skipped; closed: folders
    that cannot be read."""

    root: Path
    files: dict[str, Stamp] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)

    def covers(self, path: str) -> bool:
        """Whether the scan would have found the path if it existed."""
        inside = _inside(path, str(self.root))
        return inside and not any(_inside(path, folder) for folder in self.closed)


def scan(folder: str | Path) -> Scan:
    """Lists the files below a folder; follows links, enters each folder once, skips hidden names (.name) and libraries.

    ConfigError if there is no such folder.
    """
    root = expanded(folder)
    ensure(root.exists(), f"there is no folder {folder}; check the path", ConfigError)
    ensure(root.is_dir(), f"{folder} is not a folder; name the folder that the photo is in", ConfigError)
    found = Scan(root.resolve())
    seen: set[tuple[int, int]] = set()
    waiting = [str(found.root)]
    while waiting:
        waiting += reversed(_look_into(waiting.pop(), found, seen))
    return found


def _look_into(folder: str, found: Scan, seen: set[tuple[int, int]]) -> list[str]:
    """Adds a folder's files to the scan; returns the folders in it, none if it was seen before (a link back)."""
    try:
        about = os.stat(folder)  # noqa: PTH116  # strings here: a Path a file would take as long as the stat
        if (about.st_dev, about.st_ino) in seen:
            return []
        seen.add((about.st_dev, about.st_ino))
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as e:
        found.problems[_shown(folder)] = f"the folder cannot be read ({e.strerror})"
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
            why = "is a link that leads nowhere" if entry.is_symlink() else f"cannot be read ({e.strerror})"
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
    """Returns the path as text that can be printed and stored."""
    return os.fsencode(path).decode("utf-8", "replace")


def _inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)
