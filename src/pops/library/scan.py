"""Lists a folder: its regular files with size and time, and what cannot be read. Opens no file."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from pops.errors import ConfigError, ensure
from pops.files import expanded, shown

HEADER = "library.json"  # the file that makes a folder a library
# Folders that systems and programs keep for themselves, in lower case: thumbnails, snapshots, wastebaskets, packages.
# Hidden ones (.git, .thumbnails, .Trash) are skipped as all hidden names are.
SYSTEM = (
    "#recycle", "#snapshot", "$recycle.bin", "@__thumb", "@eadir", "@recently-snapshot", "@recycle", "@sharebin",
    "@snapshot", "@tmp", "__macosx", "__pycache__", "found.000", "lost+found", "node_modules", "recycler",
    "system volume information",
)  # fmt: skip
SYSTEM_ENDS = (".lrdata", ".photoslibrary/resources", ".aplibrary/thumbnails")  # of a folder's path, likewise


@dataclass(frozen=True)
class Stamp:
    """What shows, without opening a file, that it is unchanged: its bytes, and its last change in nanoseconds."""

    size: int
    mtime: int


@dataclass
class Scan:
    """Everything below one folder. files: path -> stamp, in order; problems: path -> why it is skipped; passed: folders
    and files that are passed over; closed: what cannot be read now; bare: folders with nothing in them."""

    root: Path
    files: dict[str, Stamp] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    passed: list[str] = field(default_factory=list)
    closed: set[str] = field(default_factory=set)
    bare: set[str] = field(default_factory=set)
    exclude: tuple[str, ...] = ()

    def covers(self, path: str) -> bool:
        """Returns whether the scan would have found the path if it existed."""
        return _inside(path, str(self.root)) and not self._within(path, self.closed)

    def in_bare(self, path: str) -> bool:
        """Returns whether the path would be in a folder that is there and bare, as where a disk is not mounted."""
        return self._within(path, self.bare)

    def skips(self, path: str) -> bool:
        """Returns whether a path below the root is passed over: a system's own, or excluded."""
        below = path[len(str(self.root)) :].strip(os.sep).replace(os.sep, "/")
        name = below.rpartition("/")[2]
        if name.lower() in SYSTEM or below.lower().endswith(SYSTEM_ENDS):
            return True
        return any(fnmatchcase(name, p) or fnmatchcase(below, p) for p in self.exclude)

    def _within(self, path: str, places: set[str]) -> bool:
        while len(path) > len(str(self.root)):
            if path in places:
                return True
            path = path.rpartition(os.sep)[0]
        return path in places


def scan(folder: str | Path, exclude: Sequence[str] = ()) -> Scan:
    """Lists the files below a folder; follows links, enters each folder once. Skips hidden names (.name), libraries,
    folders of SYSTEM, and what a pattern of `exclude` fits: a name (*.gif), or a path from the folder (2019/*).

    ConfigError if there is no such folder.
    """
    root = expanded(folder)
    ensure(root.exists(), f"there is no folder {shown(folder)}; check the path", ConfigError)
    ensure(root.is_dir(), f"{shown(folder)} is not a folder; name the folder that the photo is in", ConfigError)
    found = Scan(root.resolve(), exclude=tuple(p.rstrip("/") for p in exclude))
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
        found.closed.add(folder)
        return []
    if not any(not entry.name.startswith(".") for entry in entries):
        found.bare.add(folder)
    if any(entry.name == HEADER for entry in entries) and any(entry.name == "vectors.lance" for entry in entries):
        return []
    inner = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if found.skips(entry.path):
            found.passed.append(_shown(entry.path))
            continue
        try:
            about = entry.stat()
        except OSError as e:
            why = "is a link that leads nowhere" if entry.is_symlink() else f"cannot be read ({e.strerror})"
            found.problems[_shown(entry.path)] = why
            found.closed.add(entry.path)  # a disk that is away, perhaps
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
