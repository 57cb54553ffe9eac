"""Checks that loaded weights match the network exactly. Knows no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pops.errors import CheckpointError, ensure

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

SHOWN = 4  # names of tensors in a message
AGAIN = "fetch or make them again"
_KINDS = {"missing_keys": "missing", "unexpected_keys": "surplus", "mismatched_keys": "misshaped"}


def check_fit(network: nn.Module, info: Mapping[str, Any], where: Path) -> None:
    """Raises CheckpointError, naming them, for tensors that are missing, surplus, misshaped or not finite.

    info: what from_pretrained(output_loading_info=True) of transformers or diffusers returns beside the network.
    """
    faults: dict[str, list[str]] = {}
    for key, kind in _KINDS.items():
        names = (str(name[0] if isinstance(name, tuple) else name) for name in info.get(key) or ())
        # Old files hold position_ids, which are no weights.
        faults[kind] = sorted(name for name in names if not name.endswith("position_ids"))
    if not any(faults.values()):  # a missing tensor may have no values to check
        faults["not finite"] = [name for name, p in network.named_parameters() if not bool(p.isfinite().all())]
    refuse(faults, f"the weights in {where} do not fit")


def check_shapes(
    wanted: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    claim: str,
    advice: str = AGAIN,
    *,
    ignored: Sequence[str] = (),
) -> None:
    """Raises CheckpointError, as `refuse`, for tensors missing, surplus or misshaped; reads no values."""
    refuse(shape_faults(wanted, found, ignored), claim, advice)


def shape_faults(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], ignored: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Compares the shapes of tensors with those wanted: kind of fault -> names."""
    return {
        "missing": sorted(set(wanted) - set(found)),
        "surplus": sorted(set(found) - set(wanted) - set(ignored)),
        "misshaped": [
            f"{name} {tuple(found[name])} instead of {tuple(shape)}"
            for name, shape in sorted(wanted.items())
            if name in found and found[name] != shape
        ],
    }


def refuse(faults: Mapping[str, list[str]], claim: str, advice: str = AGAIN) -> None:
    """Raises CheckpointError with the first names of each kind of fault, if there is any.

    claim: the beginning of the message, "op.safetensors does not fit the base prior".
    """
    listed = "; ".join(f"{kind}: {_some(names)}" for kind, names in faults.items() if names)
    ensure(not listed, f"{claim} ({listed}); {advice}", CheckpointError)


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
