"""Operators on disk: a pops folder (see `checkpoint`) or an official checkpoint, `learned_prior.pth`.

An official checkpoint is the state dict of a fine-tuned prior. It says neither which operator it is nor which base
prior it was trained from. So the spec is the built-in one of the name under which it is loaded, and the statistics of
the space are those of the base prior it is put on, as published. pops.pickles converts it to safetensors once; the copy
is kept in a cache.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pops.errors import CheckpointError, ConfigError, PopsError, ensure, suggest
from pops.files import check_place, expanded, is_file, read_bytes, write_whole
from pops.models.layout import OFFICIAL_FILE
from pops.operators.checkpoint import (
    FILES,
    PRIOR_FILE,
    SPEC_FILE,
    load_operator,
    load_spec,
    logger,
    write_description,
)
from pops.operators.folder import write_folder
from pops.operators.spec import BUILTIN, OperatorSpec
from pops.pickles import convert
from pops.prior.tensors import TensorFiles
from pops.prior.transformer import FROZEN, PriorModel
from pops.weights import check_shapes

if TYPE_CHECKING:
    from pops.operators.operator import Operator

SETTLED = 2.0  # seconds after a file's last change; from then on its time and size identify its content
_ADVICE = "it is a checkpoint of another prior, or of something else"


def spec_at(name: str, path: Path) -> OperatorSpec:
    """Reads the spec of the operator at a path, which goes by this name, and no weights; CheckpointError without one.

    An official checkpoint must go by the name of a built-in operator.
    """
    if find_official(path) is None:
        return load_spec(path)
    if name not in BUILTIN:
        hint = f"unknown operator {name!r}{suggest(name, BUILTIN)}; choose from {', '.join(BUILTIN)}"
        do = f"pops operators import {path} --as {next(iter(BUILTIN))} -o FOLDER"
        raise CheckpointError(f"{path}: {hint}; or, for another name, run: {do}")
    return BUILTIN[name]


def operator_at(path: Path, spec: OperatorSpec, base: PriorModel, *, space: str) -> Operator:
    """Loads an operator from disk, a pops folder or an official checkpoint, on a base prior.

    Raises CheckpointError and SpaceError if it does not fit.
    """
    official = find_official(path)
    return load_official(official, spec, base) if official else load_operator(path, base, space=space)


def find_official(path: Path) -> Path | None:
    """Returns the checkpoint at a path: the file itself, or that of a folder that is no operator folder; or None."""
    path = expanded(path)
    if is_file(path):
        return path
    inside = path / OFFICIAL_FILE
    return inside if is_file(inside) and not is_file(path / SPEC_FILE) else None


def load_official(path: str | Path, spec: OperatorSpec, base: PriorModel) -> Operator:
    """Loads an official checkpoint on a base prior, whose statistics it takes.

    Converts it into the cache the first time; weights are read on use. Raises CheckpointError if it is no checkpoint,
    or naming missing, surplus, misshaped and non-finite tensors.
    """
    from pops.operators.operator import Operator

    tensors = TensorFiles(cached(expanded(path)))  # each is read when the engine asks for it: one copy at most
    _check(tensors, base, str(path))
    return Operator(spec, base.with_weights(tensors))


def import_official(
    path: str | Path, name: str, folder: str | Path, *, base: PriorModel, space: str, force: bool = False
) -> Path:
    """Writes an operator folder from an official checkpoint, its weights in the precision in which they are stored.

    force: replaces an operator that is there. Raises CheckpointError as load_official does, ConfigError for a folder
    that cannot be written or holds an operator; then nothing has changed.
    """
    source, folder = check_import(path, name, folder, force=force)
    with write_folder(folder, FILES) as temporary:
        convert(source, temporary / PRIOR_FILE, kind="weights", error=CheckpointError, skip=FROZEN)
        _check(TensorFiles(temporary / PRIOR_FILE), base, str(path))
        about = {"imported_from": source.name, "sha256": _digest(source)}
        write_description(temporary, BUILTIN[name], PRIOR_FILE, base=base, space=space, provenance=about)
    return folder


def check_import(path: str | Path, name: str, folder: str | Path, *, force: bool = False) -> tuple[Path, Path]:
    """Checks an import as far as that takes no reading of weights; returns the checkpoint's file and the folder."""
    source, folder = expanded(path), expanded(folder)
    official = find_official(source)
    if official is None:
        what = "is an operator folder already" if (source / SPEC_FILE).is_file() else "is not a file"
        raise CheckpointError(f"{path} {what if source.exists() else 'does not exist'}; name a {OFFICIAL_FILE}")
    if name not in BUILTIN:
        known = ", ".join(BUILTIN)
        raise CheckpointError(f"unknown operator {name!r}{suggest(name, BUILTIN)}; choose from {known} (--as)")
    ensure(not folder.exists() or folder.is_dir(), f"{folder} is a file; name a folder (-o)", ConfigError)
    taken = is_file(folder / SPEC_FILE) and not force
    ensure(not taken, f"{folder} holds an operator already; name another folder, or add --force", ConfigError)
    check_place(folder / PRIOR_FILE)
    return official, folder


def _check(tensors: TensorFiles, base: PriorModel, where: str) -> None:
    """Checks names and shapes; that the values are finite was checked when they were converted."""
    wanted = {name: shape for name, shape in base.config.shapes.items() if name not in FROZEN}
    check_shapes(wanted, tensors.shapes, f"{where} does not fit the base prior", _ADVICE)


# --- the cache ---------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Returns the folder of converted checkpoints: $POPS_CACHE, else pops/ in the user's cache folder."""
    if named := os.environ.get("POPS_CACHE"):
        return expanded(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "pops"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pops"
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if Path(named).is_absolute() else Path.home() / ".cache") / "pops"


def cached(source: Path) -> Path:
    """Returns the checkpoint as safetensors: from the cache, or converted into it now."""
    target = cache_folder() / "operators" / _digest(source) / PRIOR_FILE
    if target.is_file():
        return target
    begun = time.perf_counter()
    try:
        with write_whole(target) as temporary:
            convert(source, temporary, kind="weights", error=CheckpointError, skip=FROZEN)
    except ConfigError as e:
        raise ConfigError(f"{e} (POPS_CACHE names the folder of converted checkpoints)") from e
    logger.info("converted %s to %s in %.1f s", source, target, time.perf_counter() - begun)
    return target


def _digest(source: Path) -> str:
    """Returns the sha256 of a file; cached by its time and size, since reading 4 GB takes seconds."""
    try:
        s = source.stat()
        stamp = f"{source.resolve()}\n{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}"
        note = cache_folder() / "operators" / "known" / hashlib.sha256(stamp.encode()).hexdigest()[:32]
        with suppress(OSError, ValueError):
            known = read_bytes(note, 100).decode("ascii")
            if re.fullmatch("[0-9a-f]{64}", known):
                return known
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise CheckpointError(f"{source} cannot be read ({e.strerror or e}); check the path") from e
    if time.time() - max(s.st_mtime, s.st_ctime) > SETTLED:
        with suppress(PopsError, OSError), write_whole(note) as temporary:
            temporary.write_text(digest, encoding="ascii")
    return digest
