"""Reading a Kandinsky 2.2 decoder's folder: UNet, MoVQ, scheduler. Safetensors only, every tensor in its place.

The layout is KandinskyV22Pipeline's or, where the UNet also reads a picture (a hint), KandinskyV22ControlnetPipeline's;
unet/config.json says which, and model_index.json is not asked. Knows no rendering.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pops.diffusion.folders import read_scheduler, reason_of, silence
from pops.errors import ModelError, ensure
from pops.weights import check_fit

HINT_CHANNELS, HINT_FACTOR = 4, 8  # what diffusers' ImageHintTimeEmbedding makes of a hint; pixels a latent
LEARNED = ("learned", "learned_range")  # variance types of a scheduler that reads the UNet's other half


@dataclass(frozen=True)
class Decoder:
    """One decoder's networks, in one dtype, and its scheduler's template."""

    unet: Any
    movq: Any
    scheduler: Any

    @property
    def hinted(self) -> bool:
        """Whether the UNet reads a hint, and cannot do without."""
        return bool(self.unet.config.addition_embed_type == "image_hint")

    @property
    def dim(self) -> int:
        """Width of the embeddings it reads."""
        return int(self.unet.config.encoder_hid_dim)

    @property
    def channels(self) -> int:
        """Of a latent."""
        return int(self.movq.config.latent_channels)

    @property
    def factor(self) -> int:
        """Pixels a latent."""
        return int(2 ** (len(self.movq.config.block_out_channels) - 1))

    @property
    def side(self) -> int:
        """Pixels a side that the UNet was made for; 512, the published side, where it says nothing."""
        grid = self.unet.config.sample_size
        return grid * self.factor if isinstance(grid, int) else 512

    @property
    def learned_variance(self) -> bool:
        """Whether the scheduler reads the variance that the UNet predicts beside the noise."""
        return getattr(self.scheduler.config, "variance_type", None) in LEARNED


def read_decoder(folder: Path, *, device: str = "cpu", dtype: Any = None, beside: Path | None = None) -> Decoder:
    """ModelError for an absent part or another kind of UNet, CheckpointError for weights that do not fit.

    dtype: of torch, None for float32; beside: the folder whose movq/ and scheduler/ are used where this one has none.
    """
    import torch
    from diffusers.models.autoencoders.vq_model import VQModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    check_unet(folder)
    loaded: dict[str, Any] = {}
    with silence():
        for part, kind in (("unet", UNet2DConditionModel), ("movq", VQModel)):
            where = _place(folder, part, beside)
            how: dict[str, Any] = {"dtype": dtype or torch.float32, "use_safetensors": True}
            try:
                network, info = kind.from_pretrained(where, local_files_only=True, output_loading_info=True, **how)
            except Exception as e:  # diffusers and safetensors each have their own
                raise ModelError(f"the renderer's {where} does not load ({reason_of(e)}); make it again") from e
            check_fit(network, info, where)
            loaded[part] = network.to(device).eval().requires_grad_(False)
        scheduler = read_scheduler(_place(folder, "scheduler", beside).parent, mended={})
    decoder = Decoder(**loaded, scheduler=scheduler)
    _check(decoder, folder)
    return decoder


def check_unet(folder: Path) -> bool:
    """Whether the UNet of this folder reads a hint, by its config; ModelError if it is none of Kandinsky 2.2."""
    path = folder / "unet" / "config.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        kinds = (about.get("encoder_hid_dim_type"), about.get("addition_embed_type"))
    except (OSError, ValueError, AttributeError) as e:
        raise ModelError(f"the renderer's {path} cannot be read ({reason_of(e)}); make it again") from e
    fits = kinds in (("image_proj", "image"), ("image_proj", "image_hint"))
    reads = " and ".join(str(kind) for kind in kinds if kind) or "texts alone"
    told = f"{folder / 'unet'} is no UNet of a Kandinsky 2.2 decoder (its config says that it reads {reads})"
    ensure(fits, f"{told}; give the folder of kandinsky-2-2-decoder, or of its like", ModelError)
    return bool(kinds[1] == "image_hint")


def _place(folder: Path, part: str, beside: Path | None) -> Path:
    own = folder / part
    return own if own.is_dir() or beside is None else beside / part


def _check(decoder: Decoder, folder: Path) -> None:
    """Parts that do not go together are told now, and not in the middle of a picture."""
    unet, latent = decoder.unet.config, decoder.channels
    wanted = latent + HINT_CHANNELS * decoder.hinted
    told = f"the UNet in {folder} reads {unet.in_channels} channels, and with this MoVQ there are {wanted}"
    ensure(unet.in_channels == wanted, f"{told}; an inpainting decoder renders nothing by itself", ModelError)
    two = unet.out_channels == 2 * latent
    told = f"the UNet in {folder} predicts {unet.out_channels} channels"
    ensure(two or unet.out_channels == latent, f"{told}, not {latent} or {2 * latent}; fetch it again", ModelError)
    told = f"{told} and no variance, which the scheduler beside it reads"
    ensure(two or not decoder.learned_variance, f"{told}; fetch it again", ModelError)
    told = f"a hint is for a MoVQ of {HINT_FACTOR} pixels a latent, that of {folder} has {decoder.factor}"
    ensure(not decoder.hinted or decoder.factor == HINT_FACTOR, f"{told}; fetch it again", ModelError)
