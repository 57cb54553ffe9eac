"""The embedding's weight, block by block: IP-Adapter's scale for one call, on a UNet that others share.

diffusers keeps the scale in a list on each attention processor, and set_ip_adapter_scale writes into it: for all
threads and every later call. Here each of those lists is replaced once by one that yields the running call's scale,
from a context variable, and its own numbers to everyone else. The arithmetic stays diffusers' own, and so the pixels
are the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pops.diffusion.checks import is_number
from pops.errors import ConfigError, ensure, suggest

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

# InstantStyle (arXiv 2404.02733 section 3.2): the blocks of SDXL's UNet that carry an image's style, and its layout.
STYLE = {"up": {"block_0": [0.0, 1.0, 0.0]}}
LAYOUT = {"down": {"block_2": [0.0, 1.0]}}
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"style": STYLE, "layout": LAYOUT, "style+layout": {**STYLE, **LAYOUT}}
)

_scales: ContextVar[Mapping[str, float] | None] = ContextVar("pops_adapter_scales", default=None)


class _CallScale(list[float]):
    """The scale of one attention processor: the running call's, else its own."""

    def __init__(self, own: list[float], processor: str) -> None:
        super().__init__(own)
        self.processor = processor

    def __iter__(self) -> Iterator[float]:
        scales = _scales.get()
        return super().__iter__() if scales is None else iter([scales[self.processor]] * len(self))


def prepare(unet: UNet2DConditionModel) -> None:
    """Makes `scaling` have an effect on this UNet; nothing changes for calls outside of it."""
    for name, processor in _adapted(unet).items():
        if not isinstance(processor.scale, _CallScale):
            processor.scale = _CallScale(list(processor.scale), name)


@contextmanager
def scaling(scales: Mapping[str, float] | None) -> Iterator[None]:
    """Gives network calls inside, in this thread, these scales (of `scales_of`); None for the network's own, 1."""
    token = _scales.set(scales)
    try:
        yield
    finally:
        _scales.reset(token)


def scales_of(unet: UNet2DConditionModel, scale: object, *, sdxl: bool) -> dict[str, float] | None:
    """Returns the scale of each processor, given one number, {"up": {"block_0": [0, 1, 0]}} or a preset's name.

    Read as diffusers' set_ip_adapter_scale reads it: blocks that a mapping does not name have 0. None gives None.
    Raises ConfigError for a block that the UNet does not have, and for a preset on another UNet than SDXL's.
    """
    if scale is None:
        return None
    if isinstance(scale, str):
        known = f"a number, scales of blocks, or {', '.join(PRESETS)}"
        ensure(scale in PRESETS, f"scale is {known}, got {scale!r}{suggest(scale, PRESETS)}", ConfigError)
        ensure(sdxl, f"the preset {scale!r} names blocks of SDXL; give a number or scales of blocks", ConfigError)
        scale = PRESETS[scale]
    names = list(_adapted(unet))
    if not isinstance(scale, Mapping):
        return dict.fromkeys(names, _number(scale, "scale"))
    blocks = _of_blocks(unet, scale)
    return {name: next((s for block, s in blocks.items() if name.startswith(f"{block}.")), 0.0) for name in names}


def _of_blocks(unet: UNet2DConditionModel, given: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scale of each attention module by its name.

    given: {"mid": s, "down" and "up": s or [s, ...] for every block, or {"block_0": s or [s, ...]}}.
    """
    parts = ("down", "mid", "up")
    for part in given:
        told = f"scale: unknown part {part!r}{suggest(str(part), parts)}; choose from {', '.join(parts)}"
        ensure(part in parts, told, ConfigError)
    found = {"mid_block.attentions.0": _each(given.get("mid", 0.0), 1, "mid")[0]}
    for part in ("down", "up"):
        counts = {
            f"block_{i}": len(block.attentions)
            for i, block in enumerate(getattr(unet, f"{part}_blocks"))
            if hasattr(block, "attentions")
        }
        of_part = given.get(part, 0.0)
        if not isinstance(of_part, Mapping):
            of_part = dict.fromkeys(counts, of_part)
        for block in of_part:
            has = f"its {part} blocks with attention are {', '.join(counts)}"
            ensure(block in counts, f"scale: this UNet has no {part} {block!r}; {has}", ConfigError)
        for block, count in counts.items():
            number = block.removeprefix("block_")
            for i, s in enumerate(_each(of_part.get(block, 0.0), count, f"{part} {block}")):
                found[f"{part}_blocks.{number}.attentions.{i}"] = s
    return found


def _each(given: object, count: int, where: str) -> list[float]:
    """Returns a number per attention of a block, given one for all, or a list with one each."""
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    listed = listed * count if len(listed) == 1 else listed
    ensure(len(listed) == count, f"scale: {where} has {count} attentions, got {len(listed)} numbers", ConfigError)
    return [_number(s, where) for s in listed]


def _number(value: object, where: str) -> float:
    """Returns the value as a finite number; ConfigError for anything else."""
    if not is_number(value):
        raise ConfigError(f"the embedding's {where} must be a number, got {value!r}")
    return float(value)


def _adapted(unet: UNet2DConditionModel) -> dict[str, Any]:
    """Returns the UNet's attention processors that read the embedding, by name."""
    return {name: p for name, p in unet.attn_processors.items() if hasattr(p, "to_k_ip")}
