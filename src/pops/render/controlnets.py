"""ControlNets beside a Stable Diffusion UNet (arXiv 2302.05543): each read on its first use, several at once.

Knows no photo: a Control's image is ready (pops.render.controls makes it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.diffusion.folders import found_controlnets, read_controlnet
from pops.errors import CheckpointError, ConfigError, ModelError, ensure
from pops.loading.lock import LOADING
from pops.render.base import Control, RendererOptions

if TYPE_CHECKING:
    from diffusers import ControlNetModel, UNet2DConditionModel
    from torch import Tensor

_MODES = {1: "L", 3: "RGB"}  # channels of the control image
# What must be the same in a ControlNet and the UNet whose residuals it adds to.
_SHARED = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim", "addition_embed_type")


@dataclass(frozen=True)
class Hint:
    """A Control as its network reads it."""

    network: ControlNetModel
    hint: Tensor  # [1, channels, height, width] in 0 .. 1
    scale: float


class ControlNets:
    """The ControlNets of one UNet, by kind. Threads may share it."""

    def __init__(self, folder: Path | None, options: RendererOptions, unet: UNet2DConditionModel, factor: int) -> None:
        """folder: the renderer's, with controlnets/<kind>/ in it; options.controlnets add to these, or replace them;
        factor: pixels per latent.
        """
        self.folders: Mapping[str, Path] = {**found_controlnets(folder), **options.controlnets}
        self._unet, self._factor = unet, factor
        self._device = "cpu" if options.offload else options.device
        self._networks: dict[str, ControlNetModel] = {}

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds there are; reads no weights."""
        return tuple(self.folders)

    def network(self, kind: str) -> ControlNetModel:
        """Returns the ControlNet of a kind; CheckpointError if it belongs to another UNet."""
        if kind in self._networks:  # without waiting for others that load
            return self._networks[kind]
        with LOADING:
            if kind not in self._networks:
                known = ", ".join(self.folders) or "none"
                ensure(kind in self.folders, f"unknown ControlNet {kind!r}; choose from {known}", ConfigError)
                network = read_controlnet(self.folders[kind], device=self._device, dtype=self._unet.dtype)
                self._check(network, self.folders[kind])
                self._networks[kind] = network
            return self._networks[kind]

    def hints(self, controls: Sequence[Control], size: tuple[int, int], device: str) -> list[Hint]:
        """Returns each control's network and its image fitted to size (height, width); those of scale 0 are left
        out.
        """
        made = []
        for control in controls:
            if control.scale:
                network = self.network(control.kind)
                hint = _hint(control, size, network.config.conditioning_channels)
                made.append(Hint(network, hint.to(device, network.dtype), float(control.scale)))
        return made

    def _check(self, network: ControlNetModel, folder: Path) -> None:
        """Raises CheckpointError for the ControlNet of another UNet, ModelError for a kind that pops cannot run."""
        ours, its = self._unet.config, network.config
        for name in _SHARED:
            mine, other = getattr(ours, name, None), getattr(its, name, None)
            same = mine == other or (isinstance(mine, (list, tuple)) and list(mine) == list(other or ()))
            told = f"the ControlNet {folder} is for another UNet ({name} is {other}, this renderer's {mine})"
            ensure(same, f"{told}; give one for this renderer", CheckpointError)
        step = 2 ** (len(its.conditioning_embedding_out_channels) - 1)
        told = f"{folder} reads an image of {step} pixels per latent, this renderer has {self._factor}"
        ensure(step == self._factor, f"{told}; give the ControlNet of this one", CheckpointError)
        told = f"{folder} reads images of {its.conditioning_channels} channels; pops gives grey or RGB"
        ensure(its.conditioning_channels in _MODES, told, ModelError)
        told = f"unsupported ControlNet {folder}: kinds that pool their image, such as shuffle, need guess mode"
        ensure(not getattr(its, "global_pool_conditions", False), f"{told}; use another kind", ModelError)


# The residuals of several ControlNets are added up, in the order of the controls.
def residuals(hints: Sequence[Hint], x: Tensor, t: Tensor, text: Tensor, added: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns what the UNet's call takes of the ControlNets; nothing without hints.

    x [R, C, h, w]: the network's input; text [R, tokens, width]: without the embedding, as stock diffusers has it;
    added: SDXL's pooled text and time ids.
    """
    down: list[Tensor] = []
    mid: Tensor | None = None
    for each in hints:
        down_now, mid_now = each.network(
            x,
            t,
            encoder_hidden_states=text,
            controlnet_cond=each.hint.expand(len(x), -1, -1, -1),
            conditioning_scale=each.scale,
            added_cond_kwargs=dict(added) or None,
            return_dict=False,
        )
        down = list(down_now) if mid is None else [a + b for a, b in zip(down, down_now, strict=True)]
        mid = mid_now if mid is None else mid + mid_now
    return {"down_block_additional_residuals": down, "mid_block_additional_residual": mid} if hints else {}


def _hint(control: Control, size: tuple[int, int], channels: int) -> Tensor:
    """Converts a control's image to [1, channels, height, width] in 0 .. 1, resized as diffusers resizes it."""
    import numpy as np
    import torch
    from PIL import Image

    image = control.image.resize(size[::-1], Image.Resampling.LANCZOS).convert(_MODES[channels])
    array = np.asarray(image, dtype=np.float32).reshape(*size, channels) / 255
    return torch.from_numpy(array.transpose(2, 0, 1)[None].copy())
