"""Control images: photos made into what a ControlNet reads (depth, edges). Knows no renderer.

Depth comes from a depth estimator of transformers, edges from OpenCV's Canny; an image that is ready is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pops.diffusion.checks import check_finite, is_number
from pops.diffusion.folders import pretrained, read_network
from pops.errors import ConfigError, MissingExtra, ensure, suggest
from pops.images import read_rgb
from pops.loading.lock import LOADING
from pops.loading.parts import check_files
from pops.render.base import Control

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

READY = "map:"  # before a path: the file is a control image already
ESTIMATOR = "depth-anything/Depth-Anything-V2-Small-hf"  # unless the model has its own; 100 MB
# Estimators that give metres; all others give nearness, as MiDaS does (arXiv 1907.01341).
_METRIC = ("zoedepth", "glpn", "depth_pro")
# Thresholds of the gradient [grey levels] that ControlNet's own edges were made with (arXiv 2302.05543, its code).
CANNY = (100, 200)


class ControlMaker:
    """Makes Controls of photos. The depth estimator is read on its first use; threads may share it."""

    def __init__(self, estimator: str | Path = ESTIMATOR, *, device: str = "cpu") -> None:
        """estimator: the folder or hub id of a depth estimator of transformers."""
        self.estimator, self.device = estimator, device
        self._depth: DepthEstimator | None = None

    def make(
        self, kind: str, source: str | Path | Image.Image | Control, size: tuple[int, int], *, scale: float = 1.0
    ) -> Control:
        """Makes the control of a photo, or of an image that is ready ("map:D.png", or a Control).

        size: (height, width) in pixels; a photo is squashed to it. Raises PhotoError for an unreadable photo,
        ConfigError for a kind that needs a ready image, MissingExtra without OpenCV, ModelError without the depth
        estimator.
        """
        if isinstance(source, Control):
            fits = source.kind == kind
            ensure(fits, f"the {kind} control is a Control of kind {source.kind!r}; name it so", ConfigError)
            return Control(kind, source.image, scale * source.scale)
        if isinstance(source, str) and source.startswith(READY):
            return Control(kind, _squashed(read_rgb(source.removeprefix(READY)), size), scale)
        photo = read_rgb(source)
        ensure(
            kind in MAKERS,
            f"a {kind} image cannot be made from a photo (only {' and '.join(MAKERS)}{suggest(kind, MAKERS)}); "
            f"give it ready: {kind}={READY}PICTURE",
            ConfigError,
        )
        return Control(kind, MAKERS[kind](self, photo, size), scale)

    @property
    def depth(self) -> DepthEstimator:
        """The depth estimator with its weights."""
        with LOADING:
            if self._depth is None:
                self._depth = DepthEstimator.load(self.estimator, device=self.device)
            return self._depth


def _depth_of(maker: ControlMaker, photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    return maker.depth(photo, size)


def _canny_of(maker: ControlMaker, photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    return edges(_squashed(photo, size))


# What is made from a photo: kind -> maker. A ControlNet of any other kind takes images that are ready.
_Maker: TypeAlias = "Callable[[ControlMaker, Image.Image, tuple[int, int]], Image.Image]"
MAKERS: Mapping[str, _Maker] = {"depth": _depth_of, "canny": _canny_of}


def edges(photo: Image.Image) -> Image.Image:
    """Returns the edges of an RGB photo, white on black, RGB of the same size; MissingExtra without OpenCV."""
    try:
        import cv2
    except ImportError as e:
        raise MissingExtra("opencv-python-headless", "controls") from e
    import numpy as np
    from PIL import Image

    return Image.fromarray(cv2.Canny(np.asarray(photo), *CANNY)).convert("RGB")


class DepthEstimator:
    """A depth estimator of transformers. Threads may share it."""

    def __init__(self, network: Any, processor: Any) -> None:
        """network: of AutoModelForDepthEstimation; processor: its image processor, of the PIL kind."""
        self.network, self.processor = network, processor
        config = network.config
        self.metric = getattr(config, "depth_estimation_type", "") == "metric" or config.model_type in _METRIC

    @classmethod
    def load(cls, where: str | Path, *, device: str = "cpu") -> DepthEstimator:
        """Reads a folder or a hub id; ModelError where it is not here, CheckpointError for weights that do not fit."""
        from pops.models.hub import fetched

        folder = fetched(where, "depth estimator", f"or give the depth itself: depth={READY}PICTURE")
        check_files(folder, "preprocessor_config.json", whose="the depth estimator")
        with LOADING:
            import transformers
            from transformers import AutoImageProcessor, AutoModelForDepthEstimation

            # The PIL kind whatever is installed: torchvision resizes differently, and pops does not need it.
            plain = {"use_fast": False} if transformers.__version__.startswith("4.") else {"backend": "pil"}
            processor = pretrained(AutoImageProcessor, folder, "the depth estimator", plain)
            network = read_network(AutoModelForDepthEstimation, folder, "the depth estimator")
        return cls(network.to(device), processor)

    def __call__(self, photo: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Returns the nearness of a photo at size (height, width), as grey RGB: 0 is its farthest, 255 its nearest."""
        import torch
        from PIL import Image

        pixels = self.processor(images=photo, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            found = self.network(pixel_values=pixels.to(self.network.device, self.network.dtype)).predicted_depth
        found = found.float().cpu().reshape(1, 1, *found.shape[-2:])
        check_finite(found)
        near = 1 / found.clamp_min(1e-3) if self.metric else found
        near = torch.nn.functional.interpolate(near, size=size, mode="bicubic", align_corners=False)[0, 0]
        grey = (nearness(near) * 255).round().to(torch.uint8).numpy()
        return Image.fromarray(grey).convert("RGB")


def nearness(inverse: Tensor) -> Tensor:
    """Scales inverse depth [h, w] of any unit to 0 (the farthest of the photo) .. 1 (the nearest); all 0 if flat."""
    low, high = inverse.min(), inverse.max()
    spread = high - low
    return (inverse - low) / spread if float(spread) > 0 else inverse * 0


def scales_of(given: float | Mapping[str, float] | None, kinds: Collection[str]) -> dict[str, float]:
    """Returns each kind's scale, given one number for all, {kind: number}, or None for 1; ConfigError for anything
    else.
    """
    each = given if isinstance(given, Mapping) else dict.fromkeys(kinds, 1.0 if given is None else given)
    for kind, scale in each.items():
        told = f"a control scale for {kind}, but no {kind} control; controls: {', '.join(kinds) or 'none'}"
        ensure(kind in kinds, told, ConfigError)
        fine = is_number(scale) and scale >= 0
        ensure(fine, f"a control's scale must be a number, 0 or more, got {scale!r}", ConfigError)
    return {kind: float(each.get(kind, 1.0)) for kind in kinds}


def _squashed(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resizes a photo to (height, width) pixels, as diffusers resizes control images."""
    from PIL import Image

    return photo.resize(size[::-1], Image.Resampling.LANCZOS)
