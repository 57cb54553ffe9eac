"""The LanceDB tables of a library: opening, errors, what makes them durable, and the repair of damaged ones.

Knows nothing of what is in them, except that each has a column "digest".
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from pops.errors import MissingExtra, PopsError
from pops.files import LOCK, settle, shown

logger = logging.getLogger("pops.library")

TABLES = ("vectors", "files")
LANCE_ERRORS = (RuntimeError, ValueError, OSError, KeyError)
_HINT = "latest_version_hint.json"  # which LanceDB writes again and again
_END = b"LANC"  # of LanceDB's data and lists of versions


def database(path: Path) -> Any:
    os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of every table that does not exist yet
    try:
        import lancedb
    except ImportError:
        raise MissingExtra("lancedb", "retrieval") from None
    return lancedb.connect(str(path))


@contextmanager
def lancedb_errors(path: Path) -> Iterator[None]:
    """Turns LanceDB's errors into a one-line PopsError."""
    try:
        yield
    except LANCE_ERRORS as e:
        reason = shown((str(e).splitlines() or [type(e).__name__])[0])
        advice = "make room on the disk" if "space" in reason.lower() else "try again, or index into a new library"
        raise PopsError(f"the library {shown(path)} cannot be read or written ({reason}); {advice}") from e


def settle_tables(path: Path, settled: set[str]) -> None:
    """Waits until the tables' files are on the disk itself, which LanceDB does not; adds them to `settled`, those that
    are.
    """
    for name in TABLES:
        for folder, _, files in os.walk(path / f"{name}.lance"):
            new = {str(Path(folder) / file) for file in files} - settled
            for file in sorted(new):
                with suppress(FileNotFoundError):  # an old version that was deleted meanwhile
                    settle(Path(file))
            if new:
                settle(Path(folder))
            settled |= {file for file in new if not file.endswith(_HINT)}
    settle(path)


def repair(path: Path, *, locked: bool = False) -> None:
    """Restores the last good version of the tables whose newest files are damaged; does nothing to sound ones.

    locked: the caller holds the library's lock; else it is taken, and a library that is being written is left alone.
    """
    from filelock import FileLock, Timeout

    damaged = {name: bad for name in TABLES if (bad := _damaged(path / f"{name}.lance"))}
    if not damaged:
        return
    with suppress(Timeout, OSError), nullcontext() if locked else FileLock(path / LOCK, timeout=0):
        for name, bad in damaged.items():
            for file in bad:
                if file.parent.name == "_versions":  # the version before becomes the newest
                    logger.warning("%s is damaged; the version before it is taken", file)
                    file.replace(file.with_name(f"{file.name}.damaged"))
            _restore(path, name)


def _damaged(table: Path) -> list[Path]:
    """Returns files of a table that are empty or cut off; not yet finished ones, too."""
    found = []
    for folder, _, files in os.walk(table):
        for file in (Path(folder) / name for name in files if name.endswith((".lance", ".manifest"))):
            with suppress(OSError), file.open("rb") as content:
                content.seek(max(0, content.seek(0, os.SEEK_END) - len(_END)))
                if content.read() != _END:
                    found.append(file)
    return found


def _restore(path: Path, name: str) -> None:
    """Makes the newest version of a table that can be read the newest of all."""
    with suppress(*LANCE_ERRORS):
        table = database(path).open_table(name)
        newest = table.version
        for version in sorted((v["version"] for v in table.list_versions()), reverse=True):
            with suppress(*LANCE_ERRORS):
                table.checkout(version)
                table.search().select(["digest"]).to_arrow()
                if version != newest:
                    logger.warning("%s: version %d of %s is damaged; %d is restored", path, newest, name, version)
                    table.restore(version)
                return
