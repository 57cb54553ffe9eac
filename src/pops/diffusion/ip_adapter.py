"""Which pipelines can mix, and the parts of one that need a look before they are used. Knows no loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pops.errors import ConfigError, ModelError, ensure


def adapter_width(unet: Any) -> int | None:
    """Width of the vectors that the UNet's IP-Adapter reads; None without one."""
    if getattr(unet, "encoder_hid_proj", None) is None:
        return None
    layers = getattr(unet.encoder_hid_proj, "image_projection_layers", ())
    linear = [getattr(layer, "image_embeds", None) for layer in layers]
    plain = len(linear) == 1 and hasattr(linear[0], "in_features")
    ensure(plain, "the UNet has another IP-Adapter than the plain one; mixing needs that, or none", ModelError)
    return int(linear[0].in_features)  # type: ignore[union-attr]


def pipeline_of(folder: Path) -> str:
    """The class in model_index.json; ModelError for one whose networks this loop does not fit."""
    index = folder / "model_index.json"
    try:
        name = str(json.loads(index.read_text(encoding="utf-8")).get("_class_name"))
    except (OSError, ValueError, AttributeError) as e:
        raise ModelError(f"{index} cannot be read ({e}); give a folder in Stable Diffusion's layout") from e
    known = {f"StableDiffusion{xl}{way}Pipeline" for xl in ("", "XL") for way in ("", "Img2Img")}
    ensure(name in known, f"{folder} holds a {name}; mixing works with {', '.join(sorted(known))}", ModelError)
    return name


def scheduler_of(own: Any, wanted: str | Any) -> Any:
    """The folder's scheduler, or another by name, with its settings."""
    if not isinstance(wanted, str):
        return own if wanted is None else wanted
    import diffusers

    kind = getattr(diffusers, wanted, None)
    ensure(
        isinstance(kind, type) and wanted.endswith("Scheduler"),
        f"diffusers has no scheduler {wanted!r}; name a class such as EulerDiscreteScheduler",
    )
    try:
        return kind.from_config(own.config)  # type: ignore[union-attr]
    except Exception as e:  # a missing package, a setting it does not take
        raise ConfigError(f"{wanted} cannot be made here ({str(e).strip().splitlines()[0]}); name another") from e
