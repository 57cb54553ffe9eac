"""Writes an operator folder of several files whole: made beside its place, then put there by one rename.

A process that is killed leaves the old folder or the new one, and perhaps a hidden folder, which the next write
removes.
Knows nothing of what the files hold.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pops.errors import ConfigError, PopsError
from pops.files import check_place
from pops.loading.manifest import MANIFEST, write_manifest

SUFFIX, OLD = ".partial", ".old"
STALE = 3600.0  # seconds after which a hidden folder is nobody's, where folders have no locks
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_AT_FDCWD, _EXCHANGE = -100, 2  # of renameat2(2); RENAME_SWAP of macOS's renamex_np has the same number


@contextmanager
def write_folder(folder: str | Path, own: tuple[str, ...]) -> Iterator[Path]:
    """Yields a new folder to write files into; if the block ends well, it gets a manifest and takes the place of
    `folder`.

    own: names of all files that such a folder may hold; of an older one, others are kept. On any exception an older
    folder stays as it was. Raises ConfigError if the place cannot be written to, PopsError if the disk is full.
    """
    folder = Path(os.path.realpath(folder))
    own = (*own, MANIFEST)
    check_place(folder / own[0])
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]  # the innermost first
    swept(folder)
    temporary: Path | None = None
    done = False
    try:
        temporary, whole = _temporary(folder)
        with _locked(temporary):
            yield temporary
            write_manifest(temporary)
            whole = whole and _keep_others(folder, temporary, own)
            _sync(temporary)
            if whole:
                _exchange(temporary, folder)
            else:
                _move_in(temporary, folder, own)
            _sync_entry(folder.parent)
        done = True
    except OSError as e:
        if e.errno in _NO_ROOM:
            raise PopsError(f"{folder} could not be written ({e.strerror}); nothing was left behind") from e
        raise ConfigError(f"{folder} cannot be written ({e.strerror or e}); choose another place") from e
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if not done:
            with suppress(OSError):  # a folder that is not empty stays, and so do its parents
                for parent in made:
                    if parent.exists():
                        parent.rmdir()


def swept(folder: Path) -> None:
    """Removes what killed writes of this folder left beside it or in it; puts the old folder back if there is none."""
    pattern = f"{_stem(folder)}*"
    for place in (folder.parent, folder):
        for left in sorted(place.glob(pattern)) if place.is_dir() else []:
            if left.suffix == OLD and not folder.exists():
                left.rename(folder)
            elif left.suffix in (SUFFIX, OLD) and left.is_dir() and not _in_use(left):
                shutil.rmtree(left, ignore_errors=True)


def _stem(folder: Path) -> str:
    return f".{folder.name[:40]}-"


def _temporary(folder: Path) -> tuple[Path, bool]:
    """Makes the hidden folder; returns it, and whether it can take the place of `folder` by a rename."""
    name = f"{_stem(folder)}{secrets.token_hex(4)}{SUFFIX}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    here = folder.is_dir() and (folder.samefile(Path.cwd()) or os.path.ismount(folder))  # not to be replaced
    if not here:
        try:
            (folder.parent / name).mkdir()
            return folder.parent / name, True
        except PermissionError:
            if not folder.is_dir():
                raise
    (folder / name).mkdir()
    return folder / name, False


def _keep_others(folder: Path, temporary: Path, own: tuple[str, ...]) -> bool:
    """Links the other files of an older folder into the new one; False if it holds folders, which stay in place."""
    others = [path for path in folder.iterdir() if path.name not in own] if folder.is_dir() else []
    if any(path.is_dir() and not path.is_symlink() for path in others):
        return False
    for path in others:
        try:
            os.link(path, temporary / path.name, follow_symlinks=False)
        except OSError:  # no hard links here
            shutil.copy2(path, temporary / path.name, follow_symlinks=False)
    return True


def _exchange(temporary: Path, folder: Path) -> None:
    """Puts the new folder in the old one's place; the old one is then where the new one was."""
    if not folder.exists():
        temporary.rename(folder)
    elif not _exchanged(temporary, folder):
        old = temporary.with_suffix(OLD)
        folder.rename(old)  # a process that is killed here leaves none; `swept` puts the old one back
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchanges two folders in one step; False where the system cannot."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        a, b = os.fsencode(one), os.fsencode(other)
        if sys.platform == "darwin":
            return bool(libc.renamex_np(a, b, _EXCHANGE) == 0)
        return bool(libc.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, _EXCHANGE) == 0)
    except (OSError, AttributeError, TypeError):
        return False


# Between the first and the last of these moves the folder is no operator's: its description is absent.
def _move_in(temporary: Path, folder: Path, own: tuple[str, ...]) -> None:
    """Moves the new files one by one into a folder that cannot be replaced; the first of `own` is the last."""
    for name in own:
        (folder / name).unlink(missing_ok=True)
    new = {path.name for path in temporary.iterdir()}
    for name in [*(name for name in own[1:] if name in new), own[0]]:
        (temporary / name).replace(folder / name)
    _sync_entry(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock that says that a process writes here; it ends with the process."""
    number = _lock(folder)
    try:
        yield
    finally:
        if number is not None:
            os.close(number)


def _lock(folder: Path) -> int | None:
    """Locks a folder and returns its open number; None if another process has it locked, or nobody can lock folders."""
    try:
        import fcntl

        number = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number


def _in_use(folder: Path) -> bool:
    """Whether a process still writes into a hidden folder; where folders have no locks, by its age."""
    if sys.platform == "win32":
        return time.time() - folder.stat().st_mtime < STALE
    number = _lock(folder)
    if number is not None:
        os.close(number)
    return number is None


def _sync(folder: Path) -> None:
    """Brings a folder's files to the disk."""
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_entry(folder)


def _sync_entry(folder: Path) -> None:
    with suppress(OSError):  # systems that open no folders
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
