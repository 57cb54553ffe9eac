"""Writing a file whole or not at all. Knows nothing of what is written."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pops.errors import ConfigError, PopsError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` (same suffix), which is renamed to `path` if the block ends well.

    On any exception the temporary file goes and an older `path` stays as it was. Missing parent folders are
    made. Raises ConfigError if the place cannot be written to, PopsError if the disk is full.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"{path.parent} is no folder that can be made ({e.strerror}); choose another") from e
    # A short stem, so that the addition does not take a long name past the file system's limit.
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
