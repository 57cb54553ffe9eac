"""Sizes of images: what is drawn, whether it is upscaled, and what comes out. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pops.errors import ConfigError, PopsError, ensure
from pops.files import read_json_object
from pops.images import MAX_SIDE

if TYPE_CHECKING:
    from PIL import Image

    from pops.diffusion.upscaler import Upscaler


class Sizes(NamedTuple):
    """How an image of some size comes about, each (height, width) in pixels."""

    drawn: tuple[int, int]  # by the renderer
    factor: int  # 1, or the upscaler's scale
    final: tuple[int, int]  # of what comes out: where it is not drawn * factor, that is resized

    @classmethod
    def of(cls, image: Image.Image) -> Sizes:
        """Returns the sizes of an image that is to stay as it is."""
        return cls((image.height, image.width), 1, (image.height, image.width))


def scale_of(renderer: Path | None) -> int:
    """Returns how many times the upscaler in a renderer's folder enlarges, without loading it; 1 where it has none."""
    config = None if renderer is None else renderer / "upscaler" / "config.json"
    if config is None or not config.is_file():
        return 1
    try:
        scale = read_json_object(config).get("scale")
    except PopsError:
        return 1  # whoever loads it says what is wrong
    return scale if isinstance(scale, int) else 1


def sizes_of(
    asked: tuple[int, int] | None, upscale: int | None, native: tuple[int, int], multiple: int, scale: int
) -> Sizes:
    """Chooses what is drawn and whether it is upscaled.

    asked: the final size, None for the native one (times the factor); upscale: the factor, None for what fits: the
    upscaler for sizes above the native one; native, multiple: of the renderer, (height, width) and the number that
    sides are multiples of; scale: the upscaler's, 1 for none. A size between native and native * scale is drawn as
    large as native, upscaled, and made smaller. Raises ConfigError for a factor that is not possible.
    """
    possible = sorted({1, scale})
    told = f"--upscale is {' or '.join(map(str, possible))} with this renderer, got {upscale}"
    ensure(upscale is None or upscale in possible, told, ConfigError)
    factor = upscale or (scale if asked is None or max(asked) > max(native) else 1)
    if asked is None:
        return Sizes(native, factor, (native[0] * factor, native[1] * factor))
    if factor == 1:
        return Sizes(asked, 1, asked)
    told = f"height and width are at most {MAX_SIDE}, got {asked[0]}x{asked[1]}"
    ensure(max(asked) <= MAX_SIDE and min(asked) >= 1, told, ConfigError)
    larger = max(1.0, max(native) * factor / max(asked)) / factor
    height, width = (max(multiple, round(side * larger / multiple) * multiple) for side in asked)
    return Sizes((height, width), factor, asked)


def mix_sizes(drawn: tuple[int, int], out: tuple[int, int] | None, factor: int) -> Sizes:
    """Returns the sizes of a mix that is drawn in the shape of a photo: it comes out as large as the photo, or as the
    upscaler makes it, whichever is larger.

    out: (height, width) in pixels of the photo; None where there is none.
    """
    large = (drawn[0] * factor, drawn[1] * factor)
    return Sizes(drawn, factor, large if out is None or out[0] * out[1] < large[0] * large[1] else out)


def enlarged(images: Sequence[Image.Image], upscaler: Upscaler | None, sizes: Sizes) -> list[Image.Image]:
    """Returns what a renderer drew at `sizes.drawn`, upscaled and of the final size."""
    from PIL import Image

    made = upscaler.images(images) if upscaler is not None and sizes.factor > 1 else list(images)
    size = sizes.final[::-1]
    return [image if image.size == size else image.resize(size, Image.Resampling.LANCZOS) for image in made]
