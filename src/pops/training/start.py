"""Where a run starts: from the base prior, or from the operator whose results come nearest to the examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pops.errors import CheckpointError, ensure, suggest
from pops.files import expanded, shown
from pops.operators.checkpoint import ADAPTER_FILE, PRIOR_FILE, is_adapter, put_on, read_description
from pops.operators.operator import Task, sample
from pops.operators.spec import OperatorSpec
from pops.prior.tensors import TensorFiles
from pops.seeds import generators
from pops.training.config import TrainConfig
from pops.training.data import Samples, make_batch
from pops.training.spec import BASE, NEAREST

if TYPE_CHECKING:
    from torch import Tensor

    from pops.models.model import Model
    from pops.prior.transformer import PriorModel

TRIED = 128  # samples on which operators are compared


@dataclass(frozen=True, eq=False)
class Start:
    """The operator to start from; name "base" and no weights for the base prior itself.

    tried: the mean cosine to the truth of every operator that was compared, by name.
    """

    name: str
    weights: Mapping[str, Tensor] | None = None
    spec: OperatorSpec | None = None
    tried: Mapping[str, float] = field(default_factory=dict)

    @property
    def rank(self) -> int | None:
        """The rank of its adapter; 0 for a whole prior; None where there is none: the base, or full differences."""
        if self.weights is None:
            return None
        if not is_adapter(self.weights):
            return 0
        return max((len(v) for k, v in self.weights.items() if k.endswith(".down")), default=None)


def find_start(asked: str, model: Model, samples: Samples) -> Start:
    """Returns where to start: "base", "nearest", the name of an operator of the model, or an operator folder.

    nearest compares the model's adapters on the samples, without training; a model without adapters starts from base.
    """
    if asked == BASE:
        return Start(BASE)
    if asked == NEAREST:
        return _nearest(model, samples)
    folders = model.operator_folders
    if asked in folders:
        return _read(asked, folders[asked], model)
    path = expanded(asked)
    known = [NEAREST, BASE, *folders]
    told = f"unknown operator {shown(asked)!r} to start from{suggest(asked, known)}; choose from {', '.join(known)}"
    ensure(path.is_dir(), f"{told}, or give an operator folder")
    return _read(asked, path, model)


def _read(name: str, folder: Path, model: Model) -> Start:
    """Reads an operator folder's weights, and checks that they are of this model."""
    from pops.operators.checkpoint import load_operator

    spec = load_operator(folder, model.prior, space=model.space.id).spec
    weights = TensorFiles(folder / read_description(folder)["weights"])
    return Start(name, dict(weights), spec)


def _nearest(model: Model, samples: Samples) -> Start:
    found: dict[str, Start] = {}
    for name, folder in model.operator_folders.items():
        if (folder / ADAPTER_FILE).is_file() and not (folder / PRIOR_FILE).is_file():
            found[name] = _read(name, folder, model)
    if not found:
        return Start(BASE)
    tried = {name: _cosine(start, model.prior, samples) for name, start in found.items()}
    best = found[max(tried, key=lambda name: tried[name])]
    return Start(best.name, best.weights, best.spec, tried)


def _cosine(start: Start, base: PriorModel, samples: Samples) -> float:
    """Returns the mean cosine to the truth of an operator's results in one step, for some samples."""
    import torch
    from torch.nn.functional import cosine_similarity

    assert start.weights is not None
    ensure(is_adapter(start.weights), f"{start.name} is no adapter", CheckpointError)
    count = min(TRIED, len(samples))
    rows = torch.arange(count) * len(samples) // count
    plain = TrainConfig(operator="plain", steps=1, batch_size=count)
    batch = make_batch(samples, rows, config=plain, stats=base.stats, gen=torch.Generator())
    task = Task(put_on(base, start.weights), batch.condition, 1.0)
    result = sample([task], generators(range(count)), steps=1)
    return float(cosine_similarity(result, samples.targets(rows).float()).mean())
