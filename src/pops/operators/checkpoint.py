"""Operator folders: operator.json and `adapter.safetensors` (on a base prior) or `prior.safetensors` (whole).

An adapter holds, for parameter P of the base prior, either low-rank factors "P.down" [r, in] and "P.up" [out, r]
(W + up @ down), or a full difference "P.delta" (W + delta). Parameters it does not name stay the base's. A whole prior
holds every parameter except the statistics of the space, which are always the base's.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.errors import CheckpointError, SpaceError, ensure
from pops.files import read_json_object
from pops.loading.manifest import MANIFEST, verify
from pops.operators.folder import write_folder
from pops.operators.spec import OperatorSpec
from pops.prior.tensors import TensorFiles, shapes_of
from pops.prior.transformer import FROZEN, PriorModel
from pops.tensors import read_tensors, write_tensors
from pops.weights import refuse, shape_faults

if TYPE_CHECKING:
    from torch import Tensor

    from pops.operators.operator import Operator

logger = logging.getLogger("pops.operators")

FORMAT, VERSION = "pops.operator", "1"
SPEC_FILE, ADAPTER_FILE, PRIOR_FILE = "operator.json", "adapter.safetensors", "prior.safetensors"
FILES = (SPEC_FILE, ADAPTER_FILE, PRIOR_FILE)
_AGAIN = "export the operator again"


def save_operator(
    folder: str | Path,
    spec: OperatorSpec,
    weights: Mapping[str, Tensor],
    *,
    base: PriorModel,
    space: str,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Writes an operator folder of float16 weights. weights: an adapter (see the module's text) or a whole prior.

    The folder is written whole, with a manifest, in place of an older one. Raises CheckpointError if the weights do not
    fit `base`.
    """
    import torch

    folder = Path(folder)
    name = ADAPTER_FILE if is_adapter(weights) else PRIOR_FILE
    kept = {k: v.detach().cpu().to(torch.float16).contiguous().clone() for k, v in weights.items() if k not in FROZEN}
    put_on(base, kept, where=str(folder / name))
    with write_folder(folder, FILES) as temporary:
        write_tensors(temporary / name, kept, {"format": "pt", "operator": spec.name})
        write_description(temporary, spec, name, base=base, space=space, provenance=provenance)
    return folder


def write_description(
    folder: Path,
    spec: OperatorSpec,
    weights: str,
    *,
    base: PriorModel,
    space: str,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Writes operator.json of the file named `weights` into a folder that is being made."""
    about = {
        "format": FORMAT,
        "version": VERSION,
        "spec": spec.to_json(),
        "space": space,
        "base": base.fingerprint,
        "weights": weights,
        "manifest": MANIFEST,
        "provenance": dict(provenance or {}),
    }
    (folder / SPEC_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def load_operator(folder: str | Path, base: PriorModel, *, space: str | None = None) -> Operator:
    """Loads the operator of a folder on its base prior; `space`, if given, must be the operator's.

    Raises CheckpointError (files that differ from the manifest, missing, surplus or misshaped tensors by name; another
    base prior) and SpaceError.
    """
    from pops.operators.operator import Operator

    folder, begun = Path(folder), time.perf_counter()
    about = read_description(folder)
    where = folder / SPEC_FILE
    if space is not None and about["space"] != space:
        raise SpaceError(
            f"{where}: the operator is of space {about['space']!r}, the model of {space!r}; "
            "load it with the model it was trained for"
        )
    if about["base"] != base.fingerprint:
        raise CheckpointError(
            f"{where}: it was trained from base prior {about['base']}, this one is {base.fingerprint}; "
            "load it with the model it was trained for"
        )
    verify(folder, error=CheckpointError)
    spec = OperatorSpec.from_json(about["spec"], where=str(where))
    path = folder / about["weights"]
    weights = _read_tensors(path) if about["weights"] == ADAPTER_FILE else TensorFiles(path)
    operator = Operator(spec, put_on(base, weights, where=str(path)), folder)
    logger.info("read operator %s from %s in %.1f s", spec.name, path, time.perf_counter() - begun)
    return operator


def load_spec(folder: str | Path) -> OperatorSpec:
    """Reads the spec of an operator folder, and no weights."""
    return OperatorSpec.from_json(read_description(Path(folder))["spec"], where=str(Path(folder) / SPEC_FILE))


def read_description(folder: Path) -> dict[str, Any]:
    """Reads and checks operator.json: format, version, spec, space, base, weights, provenance; or CheckpointError."""
    path = folder / SPEC_FILE
    ensure(folder.exists(), f"{folder} does not exist; give an operator folder or a learned_prior.pth", CheckpointError)
    ensure(path.is_file(), f"{folder} is not an operator folder: {SPEC_FILE} is missing", CheckpointError)
    about = read_json_object(path, CheckpointError, _AGAIN)
    kinds = {"spec": dict, "space": str, "base": str, "weights": str, "version": str}
    good = about.get("format") == FORMAT and all(isinstance(about.get(key), kind) for key, kind in kinds.items())
    ensure(good, f"{path} does not describe an operator; {_AGAIN}", CheckpointError)
    ensure(
        about["version"] == VERSION,
        f"{path} has version {about['version']}; update pops to read it",
        CheckpointError,
    )
    ensure(
        about["weights"] in (ADAPTER_FILE, PRIOR_FILE),
        f"{path}: weights must be {ADAPTER_FILE} or {PRIOR_FILE}, got {about['weights']!r}",
        CheckpointError,
    )
    return about


def is_adapter(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of an adapter, not of a whole prior."""
    return any(name.rpartition(".")[2] in ("down", "up", "delta") for name in weights)


def put_on(base: PriorModel, weights: Mapping[str, Tensor], *, where: str = "the weights") -> PriorModel:
    """Returns the base prior with an operator's weights; with an adapter, both share the base's engine.

    Raises CheckpointError, naming missing, surplus, misshaped and non-finite tensors.
    """
    own = {name: shape for name, shape in base.config.shapes.items() if name not in FROZEN}
    adapter = is_adapter(weights)
    got = shapes_of(weights)
    faults = shape_faults(_expected_shapes(own, got) if adapter else own, got)
    faults["not finite"] = sorted(name for name in weights if not bool(weights[name].isfinite().all()))
    refuse(faults, f"{where} does not fit the base prior", _AGAIN)
    return base.with_adapter(weights) if adapter else base.with_weights(weights)


def _expected_shapes(
    own: Mapping[str, tuple[int, ...]], got: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Returns the tensors that an adapter must hold for the parameters it names: factors, or a difference."""
    shapes: dict[str, tuple[int, ...]] = {}
    for key, value in got.items():
        name, _, part = key.rpartition(".")
        if name not in own:
            continue
        shape = own[name]
        if part == "delta" and name + ".up" not in got and name + ".down" not in got:
            shapes[key] = shape
        elif part in ("down", "up") and len(shape) == 2:
            rank = value[-1:] if name + ".down" not in got else got[name + ".down"][:1]  # empty: it is misshaped
            r = rank[0] if rank else 1
            shapes[name + ".down"] = (r, shape[1])
            shapes[name + ".up"] = (shape[0], r)
    return shapes


def _read_tensors(path: Path) -> dict[str, Tensor]:
    ensure(path.is_file(), f"{path} is missing; {_AGAIN}", CheckpointError)
    return read_tensors(path, CheckpointError, _AGAIN)[0]
