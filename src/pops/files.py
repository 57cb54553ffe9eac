"""Files: paths as people write them, digests, JSON with limits, and writing a file whole, durably, or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import socket
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pops.errors import SHOWN as SHOWN
from pops.errors import ConfigError, PopsError, ensure
from pops.errors import shown as shown

MAX_JSON = 16 * 2**20  # bytes of a JSON file
LOCK = ".lock"  # in a folder that has one writer at a time
MAX_DEPTH = 100  # of lists and objects within one another
MAX_DIGITS = 400  # characters of a number
STALE = 86_400  # seconds after which an unfinished write of another machine is taken as dead
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def expanded(path: str | Path) -> Path:
    """Returns the path with a leading ~ or ~user replaced, unchanged if there is no such user.

    A file that is not there is looked for under the same name written otherwise: composed or decomposed (as Macs do),
    and with other kinds of spaces.
    """
    try:
        found = Path(path).expanduser()
    except RuntimeError:
        found = Path(path)
    if str(found).isascii() and " " not in str(found):
        return found
    with suppress(OSError, ValueError):
        if not os.path.lexists(found):
            return _same_to_the_eye(found) or found
    return found


def _same_to_the_eye(path: Path) -> Path | None:
    """Returns the one path that exists and reads like this one, which does not; None if there is none."""
    parent = path.parent if path.parent == path or os.path.lexists(path.parent) else _same_to_the_eye(path.parent)
    if parent is None or not path.name:
        return None
    if os.path.lexists(parent / path.name):
        return parent / path.name
    with os.scandir(parent) as listing:
        alike = [entry.name for entry in listing if _plain(entry.name) == _plain(path.name)]
    return parent / alike[0] if len(alike) == 1 else None


def _plain(name: str) -> str:
    composed = unicodedata.normalize("NFC", name)
    return composed if composed.isascii() else "".join(" " if unicodedata.category(c) == "Zs" else c for c in composed)


def digest(path: str | Path) -> str:
    """Returns 16 hex digits of the file's sha256: enough to notice that a photo changed since a recipe was made."""
    with expanded(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def is_file(path: str | Path) -> bool:
    """Returns whether the path is a regular file; False for impossible paths, too (too long, a NUL inside)."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


# --- JSON ------------------------------------------------------------------------------------------------------------


def parse_json(text: str | bytes, deepest: int = MAX_DEPTH) -> Any:
    """Reads JSON from anyone: ValueError, with a short reason, for what is none, nested more than `deepest` times, or
    has a number that no float holds. -Infinity and NaN stay, as diffusers' settings have them.
    """
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_real)
    except RecursionError:
        raise ValueError(f"nested more than {deepest} deep") from None
    except json.JSONDecodeError as e:
        raise ValueError(f"no JSON: {e.msg} at line {e.lineno}, column {e.colno}") from e
    except UnicodeDecodeError as e:
        raise ValueError(f"no UTF-8 text at byte {e.start}") from e
    check_depth(value, deepest)
    return value


def _whole(text: str) -> int:
    if len(text) > 300:  # beyond the largest float, 1.8e308
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _real(text: str) -> float:
    value = float(text) if len(text) <= MAX_DIGITS else math.inf
    if not math.isfinite(value):
        raise ValueError(f"the number {shown(text, 20)} is too large or too long")
    return value


def check_depth(value: Any, deepest: int) -> None:
    """Raises ValueError where lists and objects lie more than `deepest` deep within one another."""
    level = [value]
    for _ in range(deepest + 1):
        level = [each for each in level if isinstance(each, (dict, list))]
        if not level:
            return
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    raise ValueError(f"nested more than {deepest} deep")


def read_bytes(path: str | Path, most: int = MAX_JSON) -> bytes:
    """Reads a regular file of at most `most` bytes; OSError or ValueError, with a short reason, for anything else.

    Pipes and devices are refused unopened: reading them may never end.
    """
    where = expanded(path)
    if where.exists() and not where.is_dir() and not where.is_file():
        raise ValueError("no regular file")
    with where.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"larger than {most / 2**20:.3g} MB")
    return content


def reason(error: Exception) -> str:
    """Returns why something failed, for a message: short, on one line, and without the path."""
    told = getattr(error, "strerror", None) or (str(error).strip().splitlines() or [type(error).__name__])[0]
    return shown(told)


def read_json(
    path: str | Path, kind: type[PopsError] = ConfigError, advice: str = "fetch or make it again", most: int = MAX_JSON
) -> Any:
    """Reads the JSON value in a regular file of at most `most` bytes.

    Raises an error of the given kind, in one line that names the file and ends with the advice, if the file cannot be
    read or holds no JSON (see parse_json).
    """
    try:
        return parse_json(read_bytes(path, most))
    except (OSError, ValueError) as e:
        raise kind(f"{shown(path)} cannot be read ({reason(e)}); {advice}") from e


def read_json_object(
    path: str | Path, kind: type[PopsError] = ConfigError, advice: str = "fetch or make it again"
) -> dict[str, Any]:
    """Reads the JSON object in a file, as `read_json` does; anything but an object is an error, too."""
    value = read_json(path, kind, advice)
    ensure(isinstance(value, dict), f"{shown(path)} holds no JSON object; {advice}", kind)
    return dict(value)


# --- writing ---------------------------------------------------------------------------------------------------------


def check_place(path: Path) -> None:
    """Raises ConfigError unless a file can be written there, missing parent folders included. Changes nothing."""
    name = shown(path)
    try:
        if path.is_dir():
            raise ConfigError(f"{name} is a folder; name a file in it")
        parent = next(folder for folder in path.absolute().parents if folder.exists())
    except (OSError, ValueError) as e:
        raise ConfigError(f"{name} cannot be written ({getattr(e, 'strerror', None) or e}); choose another name") from e
    ensure(parent.is_dir(), f"{name} cannot be written: {shown(parent)} is not a folder; choose another place")
    allowed = os.access(parent, os.W_OK | os.X_OK)
    ensure(allowed, f"{name} cannot be written: no write permission for {shown(parent)}; choose another place")


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path (same suffix, in a hidden folder beside `path`) and renames it to `path` if the block
    ends well: whole, on the disk before it has its name, and of the mode that the umask gives.

    On any exception the temporary file and the parent folders made for it are removed, and an older `path` stays as it
    was. What a killed write of the same `path` left behind is removed. Raises ConfigError if the place cannot be
    written to, PopsError if the disk is full.
    """
    path = Path(path)
    check_place(path)
    made = [folder for folder in path.parents if not folder.exists()]  # the innermost first
    room = path.parent / f"{_room(path)}{_here()}-{secrets.token_hex(3)}"
    temporary = room / f"new{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        room.mkdir()
    except OSError as e:
        _remove(room, made)
        if e.errno in _NO_ROOM:
            raise PopsError(f"{shown(path)} could not be written ({e.strerror}); nothing was left behind") from e
        raise ConfigError(f"the folder {shown(path.parent)} cannot be made ({e.strerror}); choose another") from e
    try:
        yield temporary
        temporary.chmod(room.stat().st_mode & 0o666)  # some writers, such as safetensors, make files of mode 0600
        settle(temporary)
        temporary.replace(path)
        for folder in [path.parent, *(folder.parent for folder in made)]:
            settle(folder)
    except OSError as e:
        if e.errno in _NO_ROOM:
            raise PopsError(f"{shown(path)} could not be written ({e.strerror}); nothing was left behind") from e
        if e.filename is not None and str(e.filename) == str(temporary):
            raise ConfigError(f"{shown(path)} cannot be written ({e.strerror}); choose another place") from e
        raise
    finally:
        _remove(room, made)


def keep_before(path: Path, before: Path) -> None:
    """Gives a file a second name, `before`, under which it stays when a write replaces `path`; a copy where the file
    system knows no second names.
    """
    with write_whole(before) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)


@contextmanager
def only_writer(where: Path, who: str) -> Iterator[None]:
    """Locks a folder for one writer, making it if need be; `who` names the writers in a message ("pops index").

    Raises ConfigError if there is another writer, or the folder cannot be written. Folders that were made for nothing
    are removed.
    """
    from filelock import FileLock, Timeout

    made = [folder for folder in (where, *where.parents) if not folder.exists()]
    guard = FileLock(where / LOCK, timeout=0)
    try:
        try:
            where.mkdir(parents=True, exist_ok=True)
            guard.acquire()
        except Timeout:
            raise ConfigError(f"another {who} is writing {shown(where)}; wait until it is done") from None
        except OSError as e:
            told = f"{shown(where)} cannot be written ({e.strerror or e}); choose another place (-o)"
            raise ConfigError(told) from e
        yield
    finally:
        guard.release()
        with suppress(OSError):  # a folder that is not empty stays, and so do its parents
            if made and {entry.name for entry in where.iterdir()} <= {LOCK}:
                (where / LOCK).unlink(missing_ok=True)
                for folder in made:  # the innermost first
                    folder.rmdir()


def settle(path: Path) -> None:
    """Waits until a file, or the list of a folder's names, is on the disk itself, where the system can tell."""
    if path.is_dir():
        if sys.platform == "win32":
            return
        with suppress(OSError):  # some network folders cannot
            _sync(path, os.O_RDONLY)
        return
    try:
        _sync(path, os.O_RDONLY if sys.platform != "win32" else os.O_RDWR)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):  # a place that cannot sync, or not be read
            raise


def _sync(path: Path, how: int) -> None:
    handle = os.open(path, how)
    try:
        os.fsync(handle)
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(path)) from e
    finally:
        os.close(handle)


def _remove(room: Path, made: list[Path]) -> None:
    shutil.rmtree(room, ignore_errors=True)
    with suppress(OSError):  # a folder that is not empty stays, and so do its parents
        for folder in made:
            folder.rmdir()


def _room(path: Path) -> str:
    """Returns how the hidden folders begin in which `path` is written; short, as a long name may be at the limit."""
    return f".{path.stem[:24]}{path.suffix[:8]}-"


def _here() -> str:
    """Returns this process as it stands in the name of a hidden folder: machine and process."""
    return f"{hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]}-{os.getpid()}"


def _sweep(path: Path) -> None:
    """Removes what killed writes of `path` left: of dead processes of this machine, and of others after a day."""
    machine = _here().split("-")[0]
    pattern = re.compile(re.escape(_room(path)) + r"([0-9a-f]{6})-(\d+)-[0-9a-f]{6}")
    with suppress(OSError), os.scandir(path.parent) as listing:
        for entry in listing:
            match = pattern.fullmatch(entry.name) if entry.name.startswith(".") else None
            if match is None:
                continue
            with suppress(OSError):
                old = time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE
                if old or (match[1] == machine and not _alive(int(match[2]))):
                    shutil.rmtree(entry.path, ignore_errors=True)


def _alive(process: int) -> bool:
    if sys.platform == "win32":  # there, asking by a signal would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
