"""Control pictures: photos made into what a ControlNet reads (depth, edges). Knows no renderer.

Depth is that of a depth estimator of transformers, edges those of OpenCV's Canny; a picture that is ready already is
taken as it is.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.diffusion.folders import reason_of, silence
from pops.errors import ConfigError, MissingExtra, ModelError, PopsError, ensure, suggest
from pops.images import read_rgb
from pops.render.base import Control
from pops.weights import check_fit

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

READY = "map:"  # before a path: the picture is a control picture already
ESTIMATOR = "depth-anything/Depth-Anything-V2-Small-hf"  # where the model has none of its own; 100 MB
OnControl = Callable[[Control], None]
# Estimators that give metres; all others give nearness, as MiDaS does (arXiv 1907.01341).
_METRIC = ("zoedepth", "glpn", "depth_pro")
# Thresholds of the gradient [grey levels] that ControlNet's own edges were made with (arXiv 2302.05543, its code).
CANNY = (100, 200)


class ControlMaker:
    """Photos -> Controls. The depth estimator is read on its first use; threads may share it."""

    def __init__(self, estimator: str | Path = ESTIMATOR, *, device: str = "cpu") -> None:
        """estimator: the folder or hub id of a depth estimator of transformers."""
        self.estimator, self.device = estimator, device
        self._depth: DepthEstimator | None = None
        self._lock = threading.Lock()

    def make(self, kind: str, source: Any, size: tuple[int, int], *, scale: float = 1.0) -> Control:
        """A photo (path or PIL image), or a ready picture ("map:D.png", a Control) -> the Control of `size`.

        size: (height, width) in pixels; a photo is squashed to it. PhotoError for what is no photo, ConfigError for a
        kind that is not made from photos, MissingExtra or ModelError where what makes it is not here.
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
            f"a {kind} picture cannot be made from a photo (only {' and '.join(MAKERS)}{suggest(kind, MAKERS)}); "
            f"give it ready: {kind}={READY}PICTURE",
            ConfigError,
        )
        return Control(kind, MAKERS[kind](self, photo, size), scale)

    @property
    def depth(self) -> DepthEstimator:
        """The depth estimator, with its weights."""
        with self._lock:
            if self._depth is None:
                self._depth = DepthEstimator.load(self.estimator, device=self.device)
            return self._depth


def _depth_of(maker: ControlMaker, photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    return maker.depth(photo, size)


def _canny_of(maker: ControlMaker, photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    return edges(_squashed(photo, size))


# What is made from a photo: kind -> maker. A ControlNet of any other kind takes ready pictures.
MAKERS: Mapping[str, Callable[[ControlMaker, Any, tuple[int, int]], Any]] = {"depth": _depth_of, "canny": _canny_of}


def edges(photo: Image.Image) -> Image.Image:
    """An RGB photo -> its edges, white on black, RGB of the same size; MissingExtra without OpenCV."""
    try:
        import cv2
    except ImportError as e:
        raise MissingExtra("opencv-python-headless", "controls") from e
    import numpy as np
    from PIL import Image

    return Image.fromarray(cv2.Canny(np.asarray(photo), *CANNY)).convert("RGB")


class DepthEstimator:
    """A depth estimator of transformers. threads may share it."""

    def __init__(self, network: Any, processor: Any) -> None:
        """AutoModelForDepthEstimation's network, and its image processor of the PIL kind."""
        self.network, self.processor = network, processor
        config = network.config
        self.metric = getattr(config, "depth_estimation_type", "") == "metric" or config.model_type in _METRIC

    @classmethod
    def load(cls, where: str | Path, *, device: str = "cpu") -> DepthEstimator:
        """A folder or hub id; ModelError where it is not here, CheckpointError for weights that do not fit."""
        import transformers
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        from pops.models.hub import fetched

        folder = fetched(where, "depth estimator", f"or give the depth itself: depth={READY}PICTURE")
        # The PIL kind whatever is installed: torchvision resizes differently, and pops does not need it.
        plain = {"use_fast": False} if transformers.__version__.startswith("4.") else {"backend": "pil"}
        weights = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
        with silence():
            try:
                processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, **plain)
                network, info = AutoModelForDepthEstimation.from_pretrained(folder, local_files_only=True, **weights)
            except Exception as e:  # transformers and safetensors each have their own
                told = f"the depth estimator {folder} does not load ({reason_of(e)}); fetch it again"
                raise ModelError(told) from e
        check_fit(network, info, folder)
        return cls(network.to(device).eval().requires_grad_(False), processor)

    def __call__(self, photo: Image.Image, size: tuple[int, int]) -> Image.Image:
        """An RGB photo -> nearness of `size` (height, width): 0 the farthest of the picture, 255 the nearest; RGB."""
        import torch
        from PIL import Image

        pixels = self.processor(images=photo, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            found = self.network(pixel_values=pixels.to(self.network.device, self.network.dtype)).predicted_depth
        found = found.float().cpu().reshape(1, 1, *found.shape[-2:])
        ensure(bool(found.isfinite().all()), "the depth estimator's numbers overflowed; give another photo", PopsError)
        near = 1 / found.clamp_min(1e-3) if self.metric else found
        near = torch.nn.functional.interpolate(near, size=size, mode="bicubic", align_corners=False)[0, 0]
        grey = (nearness(near) * 255).round().to(torch.uint8).numpy()
        return Image.fromarray(grey).convert("RGB")


def nearness(inverse: Tensor) -> Tensor:
    """Inverse depth [h, w] of any unit => from 0 (the farthest of the picture) to 1 (the nearest); all 0 if flat."""
    low, high = inverse.min(), inverse.max()
    spread = high - low
    return (inverse - low) / spread if float(spread) > 0 else inverse * 0


def scales_of(given: Any, kinds: Any) -> dict[str, float]:
    """One number for all kinds, or {kind: number}, None for 1 -> each kind's; ConfigError for anything else."""
    each = given if isinstance(given, Mapping) else dict.fromkeys(kinds, 1.0 if given is None else given)
    for kind, scale in each.items():
        ensure(
            kind in kinds, f"there is no {kind} control to scale; controls: {', '.join(kinds) or 'none'}", ConfigError
        )
        number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
        fine = number and math.isfinite(scale) and scale >= 0
        ensure(fine, f"a control's scale must be a number, 0 or more, got {scale!r}", ConfigError)
    return {kind: float(each.get(kind, 1.0)) for kind in kinds}


def _squashed(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture of (height, width) pixels, as diffusers resizes control pictures."""
    from PIL import Image

    return photo.resize(size[::-1], Image.Resampling.LANCZOS)
