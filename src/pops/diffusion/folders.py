"""Reading a folder in Stable Diffusion's layout: UNet, autoencoder, text encoders, scheduler, IP-Adapter.

Safetensors only, every tensor in its place or an error that names it. Knows neither renderers nor mixing; both
get their networks here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pops.errors import CheckpointError, ModelError, ensure
from pops.weights import check_fit

if TYPE_CHECKING:
    import torch

_MENDED: Mapping[str, Any] = MappingProxyType({"steps_offset": 1, "clip_sample": False})
ADAPTER = Path("ip_adapter") / "ip_adapter.safetensors"  # in the folder
CONTROLNETS = "controlnets"  # in the folder: <kind>/config.json and its weights
# The public adapters (h94/IP-Adapter) by the width of the vectors they read: for Stable Diffusion 1, for SDXL.
PUBLIC_ADAPTERS: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        1280: ("ip-adapter_sd15_vit-G.safetensors", "ip-adapter_sdxl.safetensors"),
        1024: ("ip-adapter_sd15.safetensors", "ip-adapter_sdxl_vit-h.safetensors"),
    }
)


@dataclass(frozen=True)
class Networks:
    """What such a folder holds: diffusers' and transformers' modules, on one device, and the scheduler's template."""

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    text_encoder_2: Any = None  # of SDXL's layout, as the next
    tokenizer_2: Any = None
    empty_is_zero: bool = False  # SDXL: an empty negative text is zeros, and not its encoding


def read_networks(
    folder: Path, *, device: str = "cpu", dtype: Any = None, adapter: bool | Path = True, second: bool = False
) -> Networks:
    """Reads StableDiffusionPipeline's layout; ModelError for an absent part, CheckpointError for weights that do not
    fit.

    dtype: of torch, None for float32; adapter: read ip_adapter/ip_adapter.safetensors, too, or another file; second:
    SDXL's layout, with its second text encoder.
    """
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    parts: dict[str, Any] = {
        "unet": UNet2DConditionModel,
        "vae": _autoencoder(folder),
        "text_encoder": CLIPTextModel,
        "tokenizer": CLIPTokenizer,
    }
    if second:
        from transformers import CLIPTextModelWithProjection

        parts |= {"text_encoder_2": CLIPTextModelWithProjection, "tokenizer_2": CLIPTokenizer}
    weights = {"dtype": dtype or torch.float32, "use_safetensors": True, "output_loading_info": True}
    # transformers can name misshaped tensors in that info; diffusers refuses them itself.
    of_transformers = {**weights, "ignore_mismatched_sizes": True}
    how: dict[str, dict[str, Any]] = {"unet": weights, "vae": weights, "text_encoder": of_transformers}
    how |= {"text_encoder_2": of_transformers} if second else {}
    loaded: dict[str, Any] = {}
    with silence():
        for part, kind in parts.items():
            try:
                loaded[part] = kind.from_pretrained(folder / part, local_files_only=True, **how.get(part, {}))
            except Exception as e:  # diffusers, transformers, tokenizers and safetensors each have their own
                raise ModelError(f"the renderer's {folder / part} does not load ({reason_of(e)}); make it again") from e
        for part in how:
            loaded[part], info = loaded[part]
            check_fit(loaded[part], info, folder / part)
        if adapter:
            given = adapter if isinstance(adapter, Path) else folder / ADAPTER
            _add_ip_adapter(loaded["unet"], given, sdxl=second)
    for part in how:
        loaded[part].to(device).eval().requires_grad_(False)
    if loaded["unet"].dtype == torch.float16 and getattr(loaded["vae"].config, "force_upcast", False) and second:
        loaded["vae"].float()  # SDXL's autoencoder overflows in float16
    index = folder / "model_index.json"
    zero = second and index.is_file() and bool(json.loads(index.read_text()).get("force_zeros_for_empty_prompt", True))
    scheduler = read_scheduler(folder, mended={} if second else _MENDED)
    return Networks(**loaded, scheduler=scheduler, empty_is_zero=zero)


def reason_of(error: Exception) -> str:
    """The first line of what a library says, without its advice to programmers."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return first.partition(" If you ")[0].rstrip(". ")


# Autoencoders of a Stable Diffusion layout: the class in vae/config.json -> where diffusers keeps it.
_AUTOENCODERS = {
    "AutoencoderKL": "diffusers.models.autoencoders.autoencoder_kl",
    "AutoencoderTiny": "diffusers.models.autoencoders.autoencoder_tiny",
}


def _autoencoder(folder: Path) -> Any:
    """The class that vae/config.json names; without a name AutoencoderKL, Stable Diffusion's own."""
    from importlib import import_module

    config = folder / "vae" / "config.json"
    try:
        name = json.loads(config.read_text(encoding="utf-8")).get("_class_name", "AutoencoderKL")
    except (OSError, ValueError, AttributeError) as e:
        raise ModelError(f"the renderer's {config} cannot be read ({reason_of(e)}); make it again") from e
    if name not in _AUTOENCODERS:
        raise ModelError(f"{config} names a {name}; this renderer decodes with {', '.join(_AUTOENCODERS)}")
    return getattr(import_module(_AUTOENCODERS[name]), name)


@contextmanager
def silence() -> Iterator[None]:
    """diffusers and transformers advise on stderr while they load; none of it is for the user."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    before, bars = (
        (of_diffusers.get_verbosity(), of_transformers.get_verbosity()),
        of_transformers.is_progress_bar_enabled(),
    )
    of_diffusers.set_verbosity_error()
    of_transformers.set_verbosity_error()
    of_transformers.disable_progress_bar()
    try:
        yield
    finally:
        of_diffusers.set_verbosity(before[0])
        of_transformers.set_verbosity(before[1])
        if bars:
            of_transformers.enable_progress_bar()


def read_scheduler(folder: Path, *, mended: Mapping[str, Any] = _MENDED) -> Any:
    """The folder's own scheduler; of its settings `mended` those it has take these values, as the stock Stable
    Diffusion pipeline mends what is outdated.
    """
    import diffusers

    config = folder / "scheduler" / "scheduler_config.json"
    try:
        name = json.loads(config.read_text(encoding="utf-8"))["_class_name"]
        kind = getattr(diffusers, name)
        scheduler = kind.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise ModelError(f"{config} names no scheduler of diffusers ({type(e).__name__}: {e})") from e
    return kind.from_config({**scheduler.config, **{k: v for k, v in mended.items() if k in scheduler.config}})


def found_controlnets(folder: Path | None) -> dict[str, Path]:
    """The ControlNets that lie in a renderer's folder: kind -> folder; reads no weights."""
    here = sorted((folder / CONTROLNETS).glob("*/config.json")) if folder else []
    return {path.parent.name: path.parent for path in here}


def read_controlnet(folder: Path, *, device: str = "cpu", dtype: Any = None) -> Any:
    """A ControlNetModel's folder (config.json, diffusion_pytorch_model.safetensors) -> the network.

    dtype: of torch, None for float32. ModelError for what cannot be read, CheckpointError for weights that do not fit.
    """
    import torch
    from diffusers.models.controlnets.controlnet import ControlNetModel

    config = folder / "config.json"
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("_class_name", "ControlNetModel")
    except (OSError, ValueError, AttributeError) as e:
        raise ModelError(f"the ControlNet's {config} cannot be read ({reason_of(e)}); fetch it again") from e
    ensure(kind == "ControlNetModel", f"{folder} holds a {kind}; pops reads ControlNetModel", ModelError)
    weights = {"dtype": dtype or torch.float32, "use_safetensors": True, "output_loading_info": True}
    with silence():
        try:
            network, info = ControlNetModel.from_pretrained(folder, local_files_only=True, **weights)
        except Exception as e:  # diffusers and safetensors each have their own
            raise ModelError(f"the ControlNet {folder} does not load ({reason_of(e)}); fetch it again") from e
    check_fit(network, info, folder)
    return network.to(device).eval().requires_grad_(False)


def right_adapter(width: int, *, sdxl: bool) -> str:
    """What to say of the adapter that reads vectors of this width: its public name, if one is known."""
    if width not in PUBLIC_ADAPTERS:
        return "one that was trained on the embedding's space"
    return f"{PUBLIC_ADAPTERS[width][sdxl]} of h94/IP-Adapter"


def _add_ip_adapter(unet: Any, path: Path, *, sdxl: bool) -> None:
    """Loads image_proj.* and ip_adapter.* into the UNet; every tensor of the file must find its place."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    fits = " or ".join(f"{names[sdxl]} for embeddings of width {width}" for width, names in PUBLIC_ADAPTERS.items())
    ensure(path.is_file(), f"there is no IP-Adapter {path}; give its file (--adapter): {fits}", ModelError)
    plain = path.suffix == ".safetensors"
    ensure(plain, f"{path} is no safetensors file, and pops opens no pickles; get {path.stem}.safetensors", ModelError)
    try:
        flat = load_file(path)
    except (OSError, SafetensorError) as e:
        raise ModelError(f"the IP-Adapter {path} cannot be read ({e})") from e
    state: dict[str, dict[str, Any]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in flat.items():
        ensure(bool(tensor.isfinite().all()), f"{path}: {key} holds NaN or infinity; make it again", CheckpointError)
        group, _, name = key.partition(".")
        if group not in state:
            raise CheckpointError(f"{path}: {key} is neither image_proj.* nor ip_adapter.*")
        state[group][name] = tensor
    _check_ip_adapter(unet, state, path)
    try:
        unet._load_ip_adapter_weights([state])
    except (KeyError, RuntimeError, ValueError) as e:
        raise CheckpointError(f"{path} does not fit the UNet ({reason_of(e)}); is it for another one?") from e


def _check_ip_adapter(unet: Any, state: Mapping[str, Mapping[str, torch.Tensor]], path: Path) -> None:
    """diffusers takes what it looks for and ignores the rest: here missing and surplus tensors are named."""
    # diffusers numbers the cross-attentions 1, 3, 5, ... in the order of its attention processors.
    crossing = sum(name.endswith("attn2.processor") for name in unet.attn_processors)
    wanted = {f"{2 * n + 1}.to_{k}_ip.weight" for n in range(crossing) for k in "kv"}
    missing, surplus = sorted(wanted - set(state["ip_adapter"])), sorted(set(state["ip_adapter"]) - wanted)
    if missing or surplus:
        raise CheckpointError(
            f"{path}: missing {missing[:4] or 'none'}, surplus {surplus[:4] or 'none'} in ip_adapter.*; "
            "is it for another UNet?"
        )
    proj = {"proj.weight", "proj.bias", "norm.weight", "norm.bias"}
    if set(state["image_proj"]) != proj:
        told = f"image_proj.* must be {sorted(proj)}, got {sorted(state['image_proj'])[:6]}"
        raise CheckpointError(f"{path}: {told}; only the plain IP-Adapter (not plus, not face) reads embeddings")
