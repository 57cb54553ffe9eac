"""Several processes that train together, started by accelerate or torchrun: who writes, and values that are sharded.

Data parallel: every process holds all. Fully sharded (FSDP2): a trained value is a DTensor, and each process holds its
part; `whole` and `put` go from one form to the other. In a single process all of this does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pops.errors import ensure

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def together() -> int:
    """Returns how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes files and talks to the user."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """Returns once every process is here."""
    if together() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def agreed(yes: bool) -> bool:
    """Returns what the first process says, in every process."""
    if together() == 1:
        return yes
    from accelerate.utils import broadcast_object_list

    said = [yes]
    broadcast_object_list(said)
    return bool(said[0])


def prepare_sharding(accelerator: Any) -> None:
    """Sets what sharded training needs, if accelerate's settings ask for it; ConfigError for its first version.

    The engine's forward goes into the blocks, past their own calls, so all weights are one unit: gradients, averages
    and the optimizer's state are sharded all the time, weights are whole during a step.
    """
    from accelerate.utils import DistributedType

    if accelerator.distributed_type == DistributedType.FSDP:
        ensure(accelerator.is_fsdp2, "sharded training needs fsdp_version 2; set it in accelerate's config")
        accelerator.state.fsdp_plugin.auto_wrap_policy = None


def forget_whole(model: Any) -> None:
    """Drops the whole weights that a sharded model keeps between steps, after its parts were changed by hand."""
    reshard = getattr(model, "reshard", None)
    if reshard is not None:
        reshard()


def whole(value: Tensor) -> Tensor:
    """Returns a value whole, if it is sharded; every process must ask for it."""
    full: Any = getattr(value, "full_tensor", None)
    return value if full is None else full()


def put(place: Tensor, value: Tensor) -> None:
    """Copies a whole value to its place, or to the part of it that is here."""
    place.copy_(like(place, value))


def like(place: Tensor, value: Tensor) -> Tensor:
    """Returns a whole value sharded as `place` is, if that is."""
    if not hasattr(place, "full_tensor") or value.shape != place.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = place
    return distribute_tensor(value.to(sharded.device_mesh.device_type), sharded.device_mesh, sharded.placements)


def adopt(optimizer: torch.optim.Optimizer, trained: Mapping[str, Tensor]) -> None:
    """Shards a restored optimizer's state as the parameters are."""
    for parameter in trained.values():
        state = optimizer.state.get(parameter, {})
        for key, value in state.items():
            state[key] = like(parameter, value)
