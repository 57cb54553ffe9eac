"""Files: paths as people write them, digests, JSON, and writing a file whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pops.errors import ConfigError, PopsError, ensure

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def expanded(path: str | Path) -> Path:
    """Returns the path with a leading ~ or ~user replaced; unchanged if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


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


def read_json(path: str | Path, kind: type[PopsError] = ConfigError, advice: str = "fetch or make it again") -> Any:
    """Reads the JSON value in a file.

    Raises an error of the given kind, in one line that names the file and ends with the advice, if the file cannot be
    read or holds no JSON.
    """
    try:
        return json.loads(expanded(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        reason = getattr(e, "strerror", None) or ("nested too deeply" if isinstance(e, RecursionError) else e)
        raise kind(f"{path} cannot be read ({reason}); {advice}") from e


def read_json_object(
    path: str | Path, kind: type[PopsError] = ConfigError, advice: str = "fetch or make it again"
) -> dict[str, Any]:
    """Reads the JSON object in a file, as `read_json` does; anything but an object is an error, too."""
    value = read_json(path, kind, advice)
    ensure(isinstance(value, dict), f"{path} holds no JSON object; {advice}", kind)
    return dict(value)


def check_place(path: Path) -> None:
    """Raises ConfigError unless a file can be written there, missing parent folders included. Changes nothing."""
    try:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; name a file in it")
        parent = next(folder for folder in path.absolute().parents if folder.exists())
    except (OSError, ValueError) as e:
        raise ConfigError(f"{path} cannot be written ({getattr(e, 'strerror', None) or e}); choose another name") from e
    ensure(parent.is_dir(), f"{path} cannot be written: {parent} is not a folder; choose another place")
    allowed = os.access(parent, os.W_OK | os.X_OK)
    ensure(allowed, f"{path} cannot be written: no write permission for {parent}; choose another place")


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` (same suffix) and renames it to `path` if the block ends well.

    On any exception the temporary file and the parent folders made for it are removed, and an older `path` stays as it
    was. Raises ConfigError if the place cannot be written to, PopsError if the disk is full.
    """
    path = Path(path)
    check_place(path)
    made = [folder for folder in path.parents if not folder.exists()]  # the innermost first
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"the folder {path.parent} cannot be made ({e.strerror}); choose another") from e
    # A short stem, so that the addition does not make a long name longer than the file system allows.
    temporary = path.parent / f".{path.stem[:40]}-{secrets.token_hex(4)}{path.suffix}"
    try:
        yield temporary
        temporary.replace(path)
    except OSError as e:
        if e.errno in _NO_ROOM:
            raise PopsError(f"{path} could not be written ({e.strerror}); nothing was left behind") from e
        if e.filename is not None and str(e.filename) == str(temporary):
            raise ConfigError(f"{path} cannot be written ({e.strerror}); choose another place") from e
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        with suppress(OSError):  # a folder that is not empty stays, and so do its parents
            for folder in made:
                folder.rmdir()
