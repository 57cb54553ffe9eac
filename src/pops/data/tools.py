"""The models behind the published recipes: drawing, repainting by depth, inpainting, finding, masks, human parsing.

The table names each tool's model; another folder or hub id of the same kind may stand in its place. Models are read on
first use. No code of a model's repository is run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from pops.data.filters import SCORE, Box
from pops.errors import ConfigError, ModelError, UserError, ensure, suggest
from pops.files import shown
from pops.loading.lock import LOADING

# Tool -> its model on the hub.
DEFAULTS: dict[str, str] = {
    "draw": "stabilityai/sdxl-turbo",
    "depth": "stabilityai/stable-diffusion-2-depth",
    "inpaint": "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
    "detector": "google/owlv2-base-patch16-ensemble",
    "matting": "facebook/sam-vit-base",
    "parser": "mattmdjaga/segformer_b2_clothes",
}
LICENCES = {
    "stabilityai/sdxl-turbo": "Stability AI Community",
    "stabilityai/stable-diffusion-2-depth": "CreativeML OpenRAIL++-M",
    "diffusers/stable-diffusion-xl-1.0-inpainting-0.1": "CreativeML OpenRAIL++-M",
    "google/owlv2-base-patch16-ensemble": "Apache-2.0",
    "facebook/sam-vit-base": "Apache-2.0",
    "mattmdjaga/segformer_b2_clothes": "see its model card",
}
TURBO_STEPS, STEPS, REPAINT_STRENGTH = 4, 50, 1.0
# Labels of human parsing that are no garment, in lower case.
BODY = ("background", "hair", "face", "left-leg", "right-leg", "left-arm", "right-arm", "skin", "torso-skin", "neck")


class Tools:
    """The tools of the published recipes, size x size pixels; models: tool -> folder or hub id."""

    def __init__(self, models: Mapping[str, str | Path], *, size: int = 512, device: str = "auto") -> None:
        for name in models:
            told = f"unknown tool {shown(name)!r}{suggest(name, DEFAULTS)}; choose from {', '.join(DEFAULTS)}"
            ensure(name in DEFAULTS, told, ConfigError)
        ensure(size % 8 == 0, f"--size must be a multiple of 8, got {size}")
        self.models, self.size, self._asked = dict(models), size, device
        self._loaded: dict[str, Any] = {}

    def about(self, needed: Sequence[str]) -> dict[str, Any]:
        """Returns the models of these tools with their licences."""
        return {
            tool: {"model": str(self.models[tool]), "licence": LICENCES.get(str(self.models[tool]), "unknown")}
            for tool in needed
        }

    # --- diffusers

    def draw(self, prompt: str, seed: int) -> Image.Image:
        """Draws a picture of a text; a model whose name says turbo takes few steps and no guidance."""
        pipe = self._of("draw", _text_to_image)
        turbo = "turbo" in str(self.models["draw"]).lower()
        how = {"num_inference_steps": TURBO_STEPS, "guidance_scale": 0.0} if turbo else {"num_inference_steps": STEPS}
        made = pipe(prompt, height=self.size, width=self.size, generator=_generator(seed), **how)
        return self._squared(made.images[0])

    def repaint(self, picture: Image.Image, prompt: str, seed: int) -> Image.Image:
        """Paints a picture anew with the same depth."""
        pipe = self._of("depth", _depth_to_image)
        how = {"strength": REPAINT_STRENGTH, "num_inference_steps": STEPS, "generator": _generator(seed)}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "In CPU autocast")  # it asks for the autocast of float32
            made = pipe(prompt, image=picture, **how)
        return self._squared(made.images[0])

    def fill(self, picture: Image.Image, mask: Image.Image, prompt: str, seed: int) -> Image.Image:
        """Paints over what the mask covers."""
        pipe = self._of("inpaint", _inpainting)
        made = pipe(
            prompt, image=picture, mask_image=mask, height=self.size, width=self.size, strength=0.99,
            num_inference_steps=STEPS, generator=_generator(seed),
        )  # fmt: skip
        return self._squared(made.images[0])

    def _squared(self, picture: Image.Image) -> Image.Image:
        size = (self.size, self.size)
        rgb: Image.Image = picture.convert("RGB")
        return rgb if rgb.size == size else rgb.resize(size, Image.Resampling.LANCZOS)

    # --- transformers

    def find(self, picture: Image.Image, names: Sequence[str]) -> list[Box]:
        """Finds objects by their names: every detection with a score above SCORE."""
        import torch

        processor, network = self._of("detector", _detector)
        texts = [[f"a photo of a {name}" for name in names]]
        inputs = processor(text=texts, images=picture, return_tensors="pt").to(self.device)
        with torch.no_grad():
            outputs = network(**inputs)
        # OWLv2 sees the picture padded to a square, which ours is.
        sizes = torch.tensor([[picture.height, picture.width]])
        found = processor.post_process_grounded_object_detection(outputs, threshold=SCORE, target_sizes=sizes)[0]
        rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
        limits = (picture.width, picture.height) * 2
        return [
            Box(names[label], score, *(min(max(0.0, v), float(m)) for v, m in zip(box, limits, strict=True)))
            for label, score, box in rows
        ]

    def mask(self, picture: Image.Image, box: Box) -> Image.Image:
        """Returns the mask of the object in a box: L of the picture's size, 255 on it."""
        import torch

        processor, network = self._of("matting", _matting)
        corners = [[[box.left, box.top, box.right, box.bottom]]]
        inputs = processor(picture, input_boxes=corners, return_tensors="pt").to(self.device)
        with torch.no_grad():
            outputs = network(**inputs, multimask_output=False)
        masks = processor.image_processor.post_process_masks(
            outputs.pred_masks.cpu(), inputs["original_sizes"].cpu(), inputs["reshaped_input_sizes"].cpu()
        )
        return _mask(masks[0][0, 0])

    def parse(self, picture: Image.Image) -> dict[str, Image.Image]:
        """Returns the mask of each garment that a person wears, by its label; both shoes are one."""
        import torch

        processor, network = self._of("parser", _parser)
        inputs = processor(images=picture, return_tensors="pt").to(self.device)
        with torch.no_grad():
            logits = network(**inputs).logits
        size = (picture.height, picture.width)
        labels = torch.nn.functional.interpolate(logits.float().cpu(), size, mode="bilinear")[0].argmax(dim=0)
        masks: dict[str, Any] = {}
        for number, label in network.config.id2label.items():
            name = str(label).lower()
            if name not in BODY and bool((own := labels == int(number)).any()):
                name = "shoes" if name.endswith("shoe") else name
                masks[name] = own | masks.get(name, torch.zeros_like(own))
        return {name: _mask(own) for name, own in masks.items()}

    # --- reading models

    @property
    def device(self) -> str:
        """Where the models run."""
        import torch

        return ("cuda" if torch.cuda.is_available() else "cpu") if self._asked == "auto" else self._asked

    def _of(self, tool: str, load: Callable[[Path, str], Any]) -> Any:
        """Returns a tool's model, read on first use; ModelError in one line if it cannot be."""
        from pops.models.hub import fetched

        with LOADING:
            if tool not in self._loaded:
                folder = fetched(
                    str(self.models[tool]), f"model for {tool}", "or give another: --tool " + tool + "=FOLDER"
                )
                try:
                    with _quietly():
                        self._loaded[tool] = load(folder, self.device)
                except UserError:
                    raise
                except Exception as e:  # diffusers, transformers and safetensors each have their own
                    why = shown((str(e).splitlines() or [type(e).__name__])[0])
                    told = (
                        f"{shown(folder)} does not load as the model for {tool} ({why}); give another: --tool {tool}="
                    )
                    raise ModelError(f"{told}FOLDER") from e
            return self._loaded[tool]


def _generator(seed: int) -> Any:
    import torch

    return torch.Generator().manual_seed(seed)


def _mask(values: Any) -> Image.Image:
    """Makes a mask of bool [height, width]."""
    return Image.fromarray((values.numpy() * 255).astype("uint8"))


@contextmanager
def _quietly() -> Iterator[None]:
    """Keeps the progress bars of diffusers and transformers off the terminal while a folder is read."""
    import diffusers.utils.logging as of_diffusers
    import transformers.utils.logging as of_transformers

    both = [log for log in (of_diffusers, of_transformers) if log.is_progress_bar_enabled()]
    for log in both:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in both:
            log.enable_progress_bar()


def _pipeline(kind: Any, folder: Path, device: str) -> Any:
    import torch

    dtype = {"torch_dtype": torch.float16} if device.startswith("cuda") else {}
    pipe = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, **dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def _text_to_image(folder: Path, device: str) -> Any:
    from diffusers import AutoPipelineForText2Image

    return _pipeline(AutoPipelineForText2Image, folder, device)


def _depth_to_image(folder: Path, device: str) -> Any:
    from diffusers import StableDiffusionDepth2ImgPipeline

    return _pipeline(StableDiffusionDepth2ImgPipeline, folder, device)


def _inpainting(folder: Path, device: str) -> Any:
    from diffusers import AutoPipelineForInpainting

    return _pipeline(AutoPipelineForInpainting, folder, device)


def _plain() -> dict[str, Any]:
    """Returns the option for processors that need no torchvision."""
    import transformers

    return {"use_fast": False} if transformers.__version__.startswith("4.") else {"backend": "pil"}


def _both(processor: Any, network: Any, folder: Path, device: str) -> tuple[Any, Any]:
    read = processor.from_pretrained(folder, local_files_only=True, **_plain())
    model = network.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return read, model.eval().to(device)


def _detector(folder: Path, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    return _both(AutoProcessor, AutoModelForZeroShotObjectDetection, folder, device)


def _matting(folder: Path, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForMaskGeneration, AutoProcessor

    return _both(AutoProcessor, AutoModelForMaskGeneration, folder, device)


def _parser(folder: Path, device: str) -> tuple[Any, Any]:
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

    return _both(AutoImageProcessor, AutoModelForSemanticSegmentation, folder, device)
