"""IP-Adapter (arXiv 2308.06721): its weights, read into a UNet and checked, and the width of the vectors it reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from pops.errors import CheckpointError, ModelError, ensure
from pops.tensors import read_tensors

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor

ADAPTER = Path("ip_adapter") / "ip_adapter.safetensors"  # in a renderer's folder
# The public adapters (h94/IP-Adapter) by the width of the vectors they read: for Stable Diffusion 1, for SDXL.
PUBLIC_ADAPTERS: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        1280: ("ip-adapter_sd15_vit-G.safetensors", "ip-adapter_sdxl.safetensors"),
        1024: ("ip-adapter_sd15.safetensors", "ip-adapter_sdxl_vit-h.safetensors"),
    }
)
_PROJECTION = {"proj.weight", "proj.bias", "norm.weight", "norm.bias"}  # of the plain IP-Adapter


def adapter_width(unet: UNet2DConditionModel) -> int | None:
    """Returns the width of the vectors that the UNet's IP-Adapter reads; None without one."""
    if getattr(unet, "encoder_hid_proj", None) is None:
        return None
    layers = getattr(unet.encoder_hid_proj, "image_projection_layers", ())
    linear = [getattr(layer, "image_embeds", None) for layer in layers]
    plain = len(linear) == 1 and hasattr(linear[0], "in_features")
    ensure(plain, "the UNet has another IP-Adapter than the plain one; only that reads embeddings", ModelError)
    return int(linear[0].in_features)  # type: ignore[union-attr]


def right_adapter(width: int, *, sdxl: bool) -> str:
    """Names the public adapter that reads vectors of this width, for a message."""
    if width not in PUBLIC_ADAPTERS:
        return "one that was trained on the embedding's space"
    return f"{PUBLIC_ADAPTERS[width][sdxl]} of h94/IP-Adapter"


def add_ip_adapter(unet: UNet2DConditionModel, path: Path, *, sdxl: bool) -> None:
    """Loads a file's image_proj.* and ip_adapter.* into the UNet.

    Raises ModelError where the file cannot be read, CheckpointError where not all of its tensors fit, or some are
    missing.
    """
    fits = " or ".join(f"{names[sdxl]} for embeddings of width {width}" for width, names in PUBLIC_ADAPTERS.items())
    ensure(path.is_file(), f"there is no IP-Adapter {path}; give its file (--adapter): {fits}", ModelError)
    plain = path.suffix == ".safetensors"
    ensure(plain, f"{path} is no safetensors file, and pops opens no pickles; get {path.stem}.safetensors", ModelError)
    tensors, _ = read_tensors(path, ModelError, "fetch the IP-Adapter again")
    state: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in tensors.items():
        ensure(bool(tensor.isfinite().all()), f"{path}: {key} holds NaN or infinity; fetch it again", CheckpointError)
        group, _, name = key.partition(".")
        told = f"{path}: {key} is neither image_proj.* nor ip_adapter.*; is this an IP-Adapter?"
        ensure(group in state, told, CheckpointError)
        state[group][name] = tensor
    _check_names(unet, state, path)
    try:
        unet._load_ip_adapter_weights([state])
    except (KeyError, RuntimeError, ValueError) as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise CheckpointError(f"{path} does not fit the UNet ({reason}); is it for another one?") from e


def _check_names(unet: UNet2DConditionModel, state: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """Raises CheckpointError naming missing and surplus tensors: diffusers ignores what it does not look for."""
    # diffusers numbers the cross-attentions 1, 3, 5, ... in the order of its attention processors.
    crossing = sum(name.endswith("attn2.processor") for name in unet.attn_processors)
    wanted = {f"{2 * n + 1}.to_{k}_ip.weight" for n in range(crossing) for k in "kv"}
    missing, surplus = sorted(wanted - set(state["ip_adapter"])), sorted(set(state["ip_adapter"]) - wanted)
    faults = [
        f"{what} tensors {', '.join(names[:4])}"
        for what, names in (("missing", missing), ("surplus", surplus))
        if names
    ]
    told = f"the IP-Adapter {path} does not fit this UNet ({'; '.join(faults)}); is it for another UNet?"
    ensure(not faults, told, CheckpointError)
    told = f"image_proj.* must be {sorted(_PROJECTION)}, got {sorted(state['image_proj'])[:6]}"
    plain = set(state["image_proj"]) == _PROJECTION
    ensure(plain, f"{path}: {told}; only the plain IP-Adapter (not plus, not face) reads embeddings", CheckpointError)
