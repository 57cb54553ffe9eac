"""An operator where it lies: a folder of ours, or an official checkpoint. Which of the two, is told apart here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pops.operators.checkpoint import load_operator, load_spec
from pops.operators.official import find_official, load_official, official_spec

if TYPE_CHECKING:
    from pops.operators.operator import Operator
    from pops.operators.spec import OperatorSpec
    from pops.prior.transformer import PriorModel


def spec_at(name: str, path: Path) -> OperatorSpec:
    """The spec of the operator there, which goes by `name`; reads no weights. CheckpointError if there is none."""
    official = find_official(path)
    return official_spec(name, official) if official else load_spec(path)


def operator_at(path: Path, spec: OperatorSpec, base: PriorModel, *, space: str) -> Operator:
    """The operator there on a base prior; CheckpointError and SpaceError where it does not fit."""
    official = find_official(path)
    return load_official(official, spec, base) if official else load_operator(path, base, space=space)
