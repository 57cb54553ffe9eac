"""Official operator checkpoints: `learned_prior.pth`, the state dict of a fine-tuned prior -> an Operator.

The file says neither which operator it is nor which base prior it was trained from. So the spec comes from
BUILTIN, by the name under which it is loaded; the statistics of the space from whichever base prior it is
put on, as published. pops.pickles turns it into safetensors, once; the copy is kept in a cache.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pops.errors import CheckpointError, ConfigError, PopsError, ensure, suggest
from pops.files import check_place, expanded, is_file, write_whole
from pops.operators.checkpoint import PRIOR_FILE, SPEC_FILE, write_description
from pops.operators.spec import BUILTIN, OperatorSpec
from pops.pickles import convert
from pops.prior.tensors import TensorFiles
from pops.prior.transformer import FROZEN, PriorModel
from pops.weights import check_shapes

if TYPE_CHECKING:
    from pops.operators.operator import Operator

OFFICIAL_FILE = "learned_prior.pth"
SETTLED = 2.0  # seconds since a file changed, after which its time and size are trusted to name its content
_ADVICE = "it is a checkpoint of another prior, or of something else"


def find_official(path: Path) -> Path | None:
    """The checkpoint that `path` names: a file, or a folder that holds one and no operator of ours; or None."""
    path = expanded(path)
    if is_file(path):
        return path
    inside = path / OFFICIAL_FILE
    return inside if is_file(inside) and not is_file(path / SPEC_FILE) else None


def official_spec(name: str, path: Path) -> OperatorSpec:
    """The built-in operator of that name; CheckpointError for another, since the file says nothing itself."""
    if name not in BUILTIN:
        hint = f"{suggest(name, BUILTIN)}; a checkpoint is one of {', '.join(BUILTIN)}"
        do = f"pops operators import {path} --as {next(iter(BUILTIN))} -o FOLDER"
        raise CheckpointError(f"{path} is loaded as {name!r}, which is no built-in operator{hint}; run: {do}")
    return BUILTIN[name]


def load_official(path: str | Path, spec: OperatorSpec, base: PriorModel) -> Operator:
    """The operator of an official checkpoint on a base prior, whose statistics it takes.

    Converts it into the cache the first time; weights are read on use. Raises CheckpointError: no checkpoint,
    or missing, surplus, misshaped and non-finite tensors, by name.
    """
    from pops.operators.operator import Operator

    held = TensorFiles(cached(expanded(path)))  # each read when the engine asks for it: one copy at most
    _check(held, base, str(path))
    return Operator(spec, base.with_weights(held))


def import_official(
    path: str | Path, name: str, folder: str | Path, *, base: PriorModel, space: str, force: bool = False
) -> Path:
    """An operator folder of an official checkpoint, its weights in the precision in which they are stored.

    force: replaces an operator that is there. Raises CheckpointError as load_official does, ConfigError for
    a folder that cannot be written or is taken; then nothing has changed.
    """
    source, folder = check_import(path, name, folder, force=force)
    with write_whole(folder / PRIOR_FILE) as temporary:
        convert(source, temporary, kind="weights", error=CheckpointError, skip=FROZEN)
        _check(TensorFiles(temporary), base, str(path))
    about = {"imported_from": source.name, "sha256": _digest(source)}
    write_description(folder, BUILTIN[name], PRIOR_FILE, base=base, space=space, provenance=about)
    return folder


def check_import(path: str | Path, name: str, folder: str | Path, *, force: bool = False) -> tuple[Path, Path]:
    """What can be told before anything heavy is read: the file and the folder of an import, or an error."""
    source, folder = expanded(path), expanded(folder)
    official = find_official(source)
    if official is None:
        what = "is an operator folder already" if (source / SPEC_FILE).is_file() else "is no file"
        raise CheckpointError(f"{path} {what if source.exists() else 'does not exist'}; name a {OFFICIAL_FILE}")
    if name not in BUILTIN:
        known = ", ".join(BUILTIN)
        raise CheckpointError(f"there is no operator {name!r}{suggest(name, BUILTIN)}; --as takes one of {known}")
    ensure(not folder.exists() or folder.is_dir(), f"{folder} is a file; name a folder (-o)", ConfigError)
    taken = is_file(folder / SPEC_FILE) and not force
    ensure(not taken, f"{folder} holds an operator already; name another folder, or say --force", ConfigError)
    check_place(folder / PRIOR_FILE)
    return official, folder


def _check(held: TensorFiles, base: PriorModel, where: str) -> None:
    """By names and shapes; that the numbers are finite was seen to when they were converted."""
    wanted = {name: shape for name, shape in base.config.shapes.items() if name not in FROZEN}
    check_shapes(wanted, held.shapes, f"{where} does not fit the base prior", _ADVICE)


# --- the cache ---------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where converted checkpoints lie: $POPS_CACHE, else pops/ in the user's cache folder."""
    if named := os.environ.get("POPS_CACHE"):
        return expanded(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "pops"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pops"
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if Path(named).is_absolute() else Path.home() / ".cache") / "pops"


def cached(source: Path) -> Path:
    """The checkpoint as safetensors: from the cache, or converted into it now."""
    target = cache_folder() / "operators" / _digest(source) / PRIOR_FILE
    if target.is_file():
        return target
    try:
        with write_whole(target) as temporary:
            convert(source, temporary, kind="weights", error=CheckpointError, skip=FROZEN)
    except ConfigError as e:
        raise ConfigError(f"{e} (POPS_CACHE names the folder of converted checkpoints)") from e
    return target


def _digest(source: Path) -> str:
    """sha256 of the file; kept beside its time and size, for reading 4 GB takes seconds."""
    try:
        s = source.stat()
        stamp = f"{source.resolve()}\n{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}"
        note = cache_folder() / "operators" / "known" / hashlib.sha256(stamp.encode()).hexdigest()[:32]
        with suppress(OSError):
            known = note.read_text(encoding="ascii")
            if len(known) == 64:
                return known
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise CheckpointError(f"{source} cannot be read ({e.strerror or e}); check the path") from e
    if time.time() - max(s.st_mtime, s.st_ctime) > SETTLED:
        with suppress(PopsError, OSError), write_whole(note) as temporary:
            temporary.write_text(digest, encoding="ascii")
    return digest
