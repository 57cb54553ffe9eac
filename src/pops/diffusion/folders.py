"""Reads folders in Stable Diffusion's layout (1, 2 or XL), and ControlNets beside them.

Safetensors only; every tensor fits or an error names it. Renderers and mixing get their networks here.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.diffusion.ip_adapter import ADAPTER, add_ip_adapter
from pops.diffusion.scheduler import OUTDATED, Scheduler, read_scheduler
from pops.errors import ModelError, ensure
from pops.files import read_json_object
from pops.loading.lock import LOADING
from pops.loading.parts import AGAIN, DIFFUSERS, TRANSFORMERS, check_files, check_network, check_tokenizer
from pops.weights import check_fit

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

logger = logging.getLogger("pops.diffusion")

CONTROLNETS = "controlnets"  # in a renderer's folder: <kind>/config.json and its weights
# The pipelines whose networks the loops of pops.render.stable_diffusion and pops.magicmix fit: all that have the parts.
_PIPELINES = re.compile(r"(?:StableDiffusion|LatentConsistencyModel)(?!3)\w*Pipeline")
MIXABLE = "StableDiffusionPipeline, StableDiffusionXLPipeline and others of the same parts"
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
# Autoencoders of a Stable Diffusion layout: the class in vae/config.json -> where diffusers keeps it.
_AUTOENCODERS = {
    "AutoencoderKL": "diffusers.models.autoencoders.autoencoder_kl",
    "AutoencoderTiny": "diffusers.models.autoencoders.autoencoder_tiny",
}


@dataclass(frozen=True)
class Networks:
    """What such a folder holds: networks on one device, and a scheduler whose settings each call copies."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL  # or AutoencoderTiny
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: Scheduler
    text_encoder_2: CLIPTextModelWithProjection | None = None  # of SDXL's layout, as the next
    tokenizer_2: CLIPTokenizer | None = None
    empty_is_zero: bool = False  # SDXL: an empty negative text is zeros, and not its encoding


def read_networks(
    folder: Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    adapter: bool | Path = True,
    second: bool = False,
) -> Networks:
    """Reads a folder in StableDiffusionPipeline's layout.

    dtype: None for float32; adapter: whether ip_adapter/ip_adapter.safetensors is read, or another file; second: SDXL's
    layout, with its second text encoder. Raises ModelError for an absent part, CheckpointError for weights that do not
    fit.
    """
    with LOADING:
        return _read_networks(folder, device, dtype, adapter, second)


def _read_networks(
    folder: Path, device: str, dtype: torch.dtype | None, adapter: bool | Path, second: bool
) -> Networks:
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    _check_channels(folder)
    kinds: dict[str, Any] = {
        "unet": UNet2DConditionModel,
        "vae": _autoencoder(folder),
        "text_encoder": CLIPTextModel,
        "tokenizer": CLIPTokenizer,
    }
    if second:
        kinds |= {"text_encoder_2": CLIPTextModelWithProjection, "tokenizer_2": CLIPTokenizer}
    parts: dict[str, Any] = {}
    for part, kind in kinds.items():
        if part.startswith("tokenizer"):
            check_tokenizer(folder / part, whose="the renderer's")
            parts[part] = pretrained(kind, folder / part, "the renderer's")
        else:
            parts[part] = read_network(kind, folder / part, "the renderer's", dtype=dtype)
    if adapter:
        with silence():
            add_ip_adapter(parts["unet"], adapter if isinstance(adapter, Path) else folder / ADAPTER, sdxl=second)
    for network in (network for part, network in parts.items() if not part.startswith("tokenizer")):
        network.to(device).eval().requires_grad_(False)
    if second and parts["unet"].dtype == torch.float16 and getattr(parts["vae"].config, "force_upcast", False):
        parts["vae"].float()  # SDXL's autoencoder overflows in float16
    index = folder / "model_index.json"
    described = second and index.is_file()
    zero = described and bool(read_json_object(index, ModelError).get("force_zeros_for_empty_prompt", True))
    scheduler = read_scheduler(folder, replaced=None if second else OUTDATED)
    return Networks(**parts, scheduler=scheduler, empty_is_zero=zero)


def read_network(kind: Any, folder: Path, whose: str, *, dtype: torch.dtype | None = None, advice: str = AGAIN) -> Any:
    """Reads a network of this class of diffusers or transformers, ready for inference, on the CPU.

    whose: what a message calls the folder, "the renderer's"; dtype: None for float32. Raises ModelError where it cannot
    be read, CheckpointError for weights that do not fit.
    """
    import torch

    of_transformers = kind.__module__.startswith("transformers")
    stem = TRANSFORMERS if of_transformers else DIFFUSERS
    weights = {"dtype": dtype or torch.float32, "use_safetensors": True, "output_loading_info": True}
    weights["variant"] = check_network(folder, stem, whose=whose, advice=advice)
    if of_transformers:
        weights["ignore_mismatched_sizes"] = True  # then they are in its info; diffusers refuses them itself
    began = time.perf_counter()
    network, info = pretrained(kind, folder, whose, weights, advice=advice)
    check_fit(network, info, folder)
    logger.info("read %s from %s in %.1f s", type(network).__name__, folder, time.perf_counter() - began)
    return network.eval().requires_grad_(False)


def pretrained(
    kind: Any,
    folder: str | Path,
    whose: str,
    settings: dict[str, Any] | None = None,
    *,
    advice: str = AGAIN,
) -> Any:
    """Calls from_pretrained of a class of diffusers or transformers on a local folder; ModelError where it fails."""
    with silence():
        try:
            return kind.from_pretrained(folder, local_files_only=True, **(settings or {}))
        except Exception as e:  # diffusers, transformers, tokenizers and safetensors each have their own
            first = (str(e).strip().splitlines() or [type(e).__name__])[0]
            reason = first.partition(" If you ")[0].rstrip(". ")  # without advice to programmers
            raise ModelError(f"{whose} {folder} does not load ({reason}); {advice}") from e


@contextmanager
def silence() -> Iterator[None]:
    """Hides what diffusers and transformers write to stderr while they load; one thread at a time."""
    with LOADING, ExitStack() as after:
        from diffusers.utils import logging as of_diffusers
        from transformers.utils import logging as of_transformers

        for library in (of_diffusers, of_transformers):
            after.callback(library.set_verbosity, library.get_verbosity())
            if library.is_progress_bar_enabled():
                after.callback(library.enable_progress_bar)
            library.set_verbosity_error()
            library.disable_progress_bar()
        yield


def layout_of(pipeline: str, folder: Path) -> str | None:
    """Returns the layout, "sd" or "sdxl", that a pipeline's folder has by its class and its parts; None for another."""
    parts = all((folder / part).is_dir() for part in _PARTS)
    if not parts or _PIPELINES.fullmatch(pipeline) is None:
        return None
    return "sdxl" if (folder / "text_encoder_2").is_dir() else "sd"


def pipeline_of(folder: Path) -> str:
    """Returns the class in model_index.json; ModelError for one whose networks cannot mix."""
    path = folder / "model_index.json"
    name = str(read_json_object(path, ModelError, "give a folder in Stable Diffusion's layout").get("_class_name"))
    ensure(_PIPELINES.fullmatch(name) is not None, f"{folder} holds a {name}; mixing works with {MIXABLE}", ModelError)
    return name


def found_controlnets(folder: Path | None) -> dict[str, Path]:
    """Returns the ControlNets in a renderer's folder, kind -> folder; reads no weights."""
    configs = sorted((folder / CONTROLNETS).glob("*/config.json")) if folder else []
    return {path.parent.name: path.parent for path in configs}


def read_controlnet(folder: Path, *, device: str = "cpu", dtype: torch.dtype | None = None) -> ControlNetModel:
    """Reads a folder of a ControlNetModel: config.json, diffusion_pytorch_model.safetensors.

    dtype: None for float32. Raises ModelError where it cannot be read, CheckpointError for weights that do not fit.
    """
    with LOADING:
        from diffusers.models.controlnets.controlnet import ControlNetModel

    kind = read_json_object(folder / "config.json", ModelError).get("_class_name", "ControlNetModel")
    ensure(kind == "ControlNetModel", f"{folder} holds a {kind}; pops reads ControlNetModel", ModelError)
    return read_network(ControlNetModel, folder, "the ControlNet", dtype=dtype).to(device)


def _check_channels(folder: Path) -> None:
    """Raises ModelError for a UNet that reads more than latents, before gigabytes are read."""
    configs = [folder / part / "config.json" for part in ("unet", "vae")]
    if all(path.is_file() for path in configs):
        unet, vae = (read_json_object(path, ModelError) for path in configs)
        reads, gives = unet.get("in_channels", 4), vae.get("latent_channels", 4)
        told = f"the UNet in {folder} reads {reads} channels, the autoencoder gives {gives} (is it for inpainting?)"
        ensure(reads == gives, f"{told}; give a plain text-to-image UNet", ModelError)


def _autoencoder(folder: Path) -> Any:
    """Returns the class that vae/config.json names; without a name AutoencoderKL, Stable Diffusion's own."""
    from importlib import import_module

    path = folder / "vae" / "config.json"
    check_files(path.parent, path.name, whose="the renderer's")
    name = read_json_object(path, ModelError).get("_class_name", "AutoencoderKL")
    known = ", ".join(_AUTOENCODERS)
    ensure(name in _AUTOENCODERS, f"{path} names the autoencoder {name}; pops decodes with {known}", ModelError)
    return getattr(import_module(_AUTOENCODERS[name]), name)
