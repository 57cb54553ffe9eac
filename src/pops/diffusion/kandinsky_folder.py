"""Reads the folder of a Kandinsky 2.2 decoder: UNet, MoVQ, scheduler. Safetensors only; every tensor fits.

The layout is KandinskyV22Pipeline's or, where the UNet also reads a control image (a hint),
KandinskyV22ControlnetPipeline's; unet/config.json says which, and model_index.json is not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.diffusion.folders import read_network
from pops.diffusion.loop import pixels_per_latent
from pops.diffusion.scheduler import Scheduler, read_scheduler
from pops.errors import ModelError, ensure
from pops.files import read_json_object
from pops.loading.lock import LOADING

if TYPE_CHECKING:
    import torch
    from diffusers import UNet2DConditionModel, VQModel

HINT_CHANNELS, HINT_FACTOR = 4, 8  # what diffusers' ImageHintTimeEmbedding makes of a hint; pixels per latent
LEARNED = ("learned", "learned_range")  # variance types of a scheduler that reads the UNet's other half


@dataclass(frozen=True)
class Decoder:
    """One decoder's networks, in one dtype, and a scheduler whose settings each call copies."""

    unet: UNet2DConditionModel
    movq: VQModel
    scheduler: Scheduler

    @property
    def hinted(self) -> bool:
        """Whether the UNet takes a control image (a hint), which it cannot do without."""
        return bool(self.unet.config.addition_embed_type == "image_hint")

    @property
    def dim(self) -> int:
        """The width of the embeddings it reads."""
        return int(self.unet.config.encoder_hid_dim)

    @property
    def channels(self) -> int:
        """The channels of a latent."""
        return int(self.movq.config.latent_channels)

    @property
    def factor(self) -> int:
        """Pixels per latent."""
        return pixels_per_latent(self.movq)

    @property
    def side(self) -> int:
        """The side in pixels that the UNet was trained for; 512, the published one, where its config does not say."""
        grid = self.unet.config.sample_size
        return grid * self.factor if isinstance(grid, int) else 512

    @property
    def learned_variance(self) -> bool:
        """Whether the scheduler reads the variance that the UNet predicts beside the noise."""
        return getattr(self.scheduler.config, "variance_type", None) in LEARNED


def read_decoder(
    folder: Path, *, device: str = "cpu", dtype: torch.dtype | None = None, beside: Path | None = None
) -> Decoder:
    """Reads a decoder's folder.

    dtype: None for float32; beside: the folder whose movq/ and scheduler/ are used where this one has none. Raises
    ModelError for an absent part or another kind of UNet, CheckpointError for weights that do not fit.
    """
    reads_hint(folder)
    with LOADING:
        from diffusers.models.autoencoders.vq_model import VQModel
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        kinds: dict[str, Any] = {"unet": UNet2DConditionModel, "movq": VQModel}
        networks = {
            part: read_network(kind, _place(folder, part, beside), "the renderer's", dtype=dtype).to(device)
            for part, kind in kinds.items()
        }
    decoder = Decoder(**networks, scheduler=read_scheduler(_place(folder, "scheduler", beside).parent))
    _check(decoder, folder)
    return decoder


def reads_hint(folder: Path) -> bool:
    """Whether the folder's UNet takes a control image, by its config; ModelError unless it is Kandinsky 2.2's."""
    config = read_json_object(folder / "unet" / "config.json", ModelError)
    kinds = (config.get("encoder_hid_dim_type"), config.get("addition_embed_type"))
    fits = kinds in (("image_proj", "image"), ("image_proj", "image_hint"))
    reads = " and ".join(str(kind) for kind in kinds if kind) or "texts alone"
    told = f"{folder / 'unet'} is no UNet of a Kandinsky 2.2 decoder (its config says that it reads {reads})"
    ensure(fits, f"{told}; give a folder in the layout of kandinsky-2-2-decoder", ModelError)
    return kinds[1] == "image_hint"


def _place(folder: Path, part: str, beside: Path | None) -> Path:
    """Returns where a part lies: in the folder, or beside."""
    own = folder / part
    return own if own.is_dir() or beside is None else beside / part


def _check(decoder: Decoder, folder: Path) -> None:
    """Raises ModelError for parts that do not fit each other, before anything is computed with them."""
    unet, latent = decoder.unet.config, decoder.channels
    wanted = latent + HINT_CHANNELS * decoder.hinted
    told = f"the UNet in {folder} reads {unet.in_channels} channels, and with this MoVQ there are {wanted}"
    ensure(unet.in_channels == wanted, f"{told}; an inpainting decoder renders nothing by itself", ModelError)
    two = unet.out_channels == 2 * latent
    told = f"the UNet in {folder} predicts {unet.out_channels} channels"
    ensure(two or unet.out_channels == latent, f"{told}, not {latent} or {2 * latent}; fetch it again", ModelError)
    told = f"{told} and no variance, which the scheduler beside it reads"
    ensure(two or not decoder.learned_variance, f"{told}; fetch it again", ModelError)
    told = f"a hint needs a MoVQ of {HINT_FACTOR} pixels per latent, the one of {folder} has {decoder.factor}"
    ensure(not decoder.hinted or decoder.factor == HINT_FACTOR, f"{told}; fetch it again", ModelError)
