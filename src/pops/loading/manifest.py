"""manifest.json: size and sha256 of every file of a folder, so that what is absent or damaged is told by its name.

tiny has one, and every operator folder that pops writes. A subfolder with a manifest of its own is left to that one.
The file that describes the folder (pops.json, operator.json) names the manifest, and its text has one form only: so its
own absence and damage are noticed, too. After a change on purpose: python -m pops.loading.manifest FOLDER
"""

from __future__ import annotations

import hashlib
import json
import stat
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pops.errors import ModelError, PopsError, ensure, shown
from pops.files import read_bytes, read_json_object, reason, write_whole

MANIFEST = "manifest.json"
DESCRIPTIONS = ("pops.json", "operator.json")  # which say that there is a manifest
HASHED = 256_000_000  # bytes of a file that is hashed before it is loaded; of a larger one only the size is checked
_FORMAT, _VERSION = "pops.manifest", "1"
_KEY = "manifest"
_SHOWN = 4
_AGAIN = "copy or make the folder again"
_CHUNK = 2**23  # bytes: the interpreter's lock is needed between chunks, and others hold it while they import
_known: dict[tuple[str, int, int, int], str] = {}  # path, size, times -> sha256: each file is hashed once per process


def write_manifest(folder: str | Path) -> Path:
    """Writes the manifest of a finished folder, and of each operator in it; returns its path."""
    folder = Path(folder)
    for inside in sorted((folder / "operators").glob("*/operator.json")):
        write_manifest(inside.parent)
    for name in DESCRIPTIONS:
        path = folder / name
        if path.is_file() and (about := read_json_object(path, ModelError)).get(_KEY) != MANIFEST:
            path.write_text(json.dumps({**about, _KEY: MANIFEST}, indent=2) + "\n", encoding="utf-8")
    files = {
        path.relative_to(folder).as_posix(): {"sha256": _sha256(path), "size": path.stat().st_size}
        for path in _files(folder)
    }
    with write_whole(folder / MANIFEST) as temporary:
        temporary.write_text(_text(files), encoding="utf-8", newline="\n")
    return folder / MANIFEST


def manifest_of(folder: Path, names: Sequence[str]) -> str:
    """Returns the text of a manifest of some of a folder's files."""
    return _text({name: {"sha256": _sha256(folder / name), "size": (folder / name).stat().st_size} for name in names})


def listed(folder: Path, *, error: type[PopsError] = ModelError) -> list[str]:
    """Returns the names of the files in a folder's manifest."""
    return list(_entries(folder, error))


def has_manifest(folder: Path) -> bool:
    """Whether the folder has a manifest of pops, or its description says so."""
    if (folder / MANIFEST).is_file():
        try:
            if _FORMAT.encode() in read_bytes(folder / MANIFEST):
                return True
        except (OSError, ValueError) as e:
            raise ModelError(f"{folder / MANIFEST} cannot be read ({reason(e)}); {_AGAIN}") from e
    for name in DESCRIPTIONS:
        if (folder / name).is_file():
            about = read_json_object(folder / name, ModelError)
            if about.get(_KEY) is not None:
                return True
    return False


def check_sizes(folder: Path, *, error: type[PopsError] = ModelError) -> None:
    """Raises an error, naming them, for files of the manifest that are absent or of another size; opens none of them.

    Without a manifest, and without a word of one, nothing is checked.
    """
    if has_manifest(folder):
        _refuse(folder, _of_size(folder, _entries(folder, error)), error)


def verify(folder: Path, *, error: type[PopsError] = ModelError, whole: bool = False) -> int:
    """Raises an error, naming them, for files that are absent or differ from the manifest; returns how many it has.

    whole: files above HASHED, too. Without a manifest nothing is checked.
    """
    if not has_manifest(folder):
        return 0
    entries = _entries(folder, error)
    _refuse(folder, differing(folder, error=error, whole=whole), error)
    return len(entries)


def differing(folder: Path, *, error: type[PopsError] = ModelError, whole: bool = False) -> dict[str, str]:
    """Returns name -> fault of files that are absent or differ from the manifest; whole: as in `verify`."""
    entries = _entries(folder, error)
    faults = _of_size(folder, entries)
    for name, about in entries.items():
        if name not in faults and (whole or about["size"] <= HASHED):
            try:
                if _sha256(folder / name) != about["sha256"]:
                    faults[name] = f"is damaged: its sha256 is not the one in {MANIFEST}"
            except OSError as e:
                faults[name] = f"cannot be read ({e.strerror or e})"
    return faults


class Verification:
    """Verifies folders in a thread of its own, while others import torch; `wait` says what came of it."""

    def __init__(self, folders: list[Path]) -> None:
        self._fault: PopsError | None = None
        self._thread = threading.Thread(target=self._run, args=(folders,), name="pops-verify", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns once all is verified; raises ModelError as `verify` does."""
        self._thread.join()
        if self._fault is not None:
            raise type(self._fault)(str(self._fault))

    def _run(self, folders: list[Path]) -> None:
        try:
            for folder in folders:
                verify(folder)
        except PopsError as e:
            self._fault = e
        except OSError as e:
            self._fault = ModelError(f"{e.filename or folders} cannot be read ({e.strerror or e}); check it")


def _files(folder: Path) -> Iterator[Path]:
    """Yields the files that a folder's manifest lists, sorted; hidden ones are not among them."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__")) or path.name == MANIFEST:
            continue
        if path.is_dir():
            if not (path / MANIFEST).exists():
                yield from _files(path)
        elif path.is_file():
            yield path


def _text(files: Mapping[str, Any]) -> str:
    """Returns a manifest's one form."""
    lines = json.dumps(files, indent=2, sort_keys=True)
    own = hashlib.sha256(lines.encode()).hexdigest()
    return json.dumps({"format": _FORMAT, "version": _VERSION, "sha256": own, "files": files}, indent=2) + "\n"


def _entries(folder: Path, error: type[PopsError]) -> dict[str, dict[str, Any]]:
    """Reads a manifest: file -> its sha256 and size."""
    path = folder / MANIFEST
    ensure(path.is_file(), f"{path} is missing; {_AGAIN}", error)
    about = read_json_object(path, error, _AGAIN)
    files = about.get("files")
    told = f"{path} has version {about.get('version')!r}, this pops reads {_VERSION}; update pops"
    ensure(about.get("format") != _FORMAT or about.get("version") in (_VERSION, None), told, error)
    good = isinstance(files, dict) and read_bytes(path) == _text(files).encode() and all(map(_listed, files.items()))
    ensure(good, f"{path} is damaged: its text is not what pops wrote; {_AGAIN}", error)
    return dict(files or {})


def _listed(entry: tuple[str, Any]) -> bool:
    """Whether an entry names a file within the folder, with its size and sha256."""
    name, about = entry
    inside = not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
    size, sha256 = (about.get("size"), about.get("sha256")) if isinstance(about, dict) else (None, None)
    return inside and type(size) is int and size >= 0 and isinstance(sha256, str)


def _of_size(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Returns name -> fault of files that are absent or of another size."""
    faults = {}
    for name, about in entries.items():
        try:
            found = (folder / name).stat()
        except (OSError, ValueError):
            faults[name] = "is missing"
            continue
        if not stat.S_ISREG(found.st_mode):
            faults[name] = "is no regular file"
        elif found.st_size != about["size"]:
            faults[name] = f"has {found.st_size} bytes instead of {about['size']}"
    return faults


def _refuse(folder: Path, faults: Mapping[str, str], error: type[PopsError]) -> None:
    """Raises an error with the first faults."""
    listed = "; ".join(f"{folder / shown(name)} {fault}" for name, fault in list(faults.items())[:_SHOWN])
    more = f" (and {len(faults) - _SHOWN} more)" if len(faults) > _SHOWN else ""
    own = f"after a change of your own run: python -m pops.loading.manifest {folder}"
    ensure(not faults, f"{listed}{more}; copy or make the folder again ({own})", error)


def _sha256(path: Path) -> str:
    """Returns a file's sha256, computed once per process as long as the file stays what it was."""
    about = path.stat()
    key = (str(path), about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    if key not in _known:
        found = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
        _known[key] = found.hexdigest()
    return _known[key]


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(write_manifest(argument))
