"""What a renderer is, where renderers are found, and the shipped fake.

A renderer turns rows of un-normalised CLIP image embeddings into pictures, one picture a row. It knows
nothing of expressions, operators or files of pictures. Backends register under the entry-point group
"pops.renderers"; the entry is a factory `(folder, options) -> Renderer`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pops.errors import ConfigError, ModelError, PopsError, ensure, suggest

if TYPE_CHECKING:
    import torch
    from PIL import Image

GROUP = "pops.renderers"
MAX_SIDE = 4096  # pixels
OnStep = Callable[[int, int], None]  # (steps done, steps in all); raising from it stops the rendering
OnPreview = Callable[[list["Image.Image"], int, int], None]  # (rough pictures of the batch, steps done, in all)


@dataclass(frozen=True)
class Capabilities:
    """What a renderer takes: Pops refuses the rest in one line, before anything is computed.

    space: the id of the CLIP space it reads; native: (height, width) in pixels that it makes by itself;
    multiple: of pixels, sides must be; controls: kinds of control picture, such as "depth"; text: whether a
    prompt and a negative prompt have an effect; scale: whether the embedding's weight can be set; outputs: of
    RenderOptions.output; previews: whether on_preview is called.
    """

    space: str
    native: tuple[int, int]
    multiple: int = 1
    controls: tuple[str, ...] = ()
    text: bool = False
    scale: bool = False
    outputs: tuple[str, ...] = ("pil",)
    previews: bool = False


@dataclass(frozen=True)
class Control:
    """A picture that says where things are, as a ControlNet reads it: an RGB picture of any size, made ready
    (pops.render.controls makes it from a photo)."""

    kind: str  # "depth", "canny", ...: one of Capabilities.controls
    image: Image.Image
    scale: float = 1.0  # of the control's residuals; 0 is none


@dataclass(frozen=True)
class RenderOptions:
    """How to render; None means the renderer's own default. All of it may be ignored by a simple renderer.

    steps of the sampler; guidance (<= 1: none); prompt and negative: words beside the embedding; output: "pil",
    or "latent" for CPU tensors; scale: the embedding's weight, one number, or one a block as diffusers'
    set_ip_adapter_scale takes them, or a preset's name; on_step is told after every step; on_preview after every
    `preview_every` steps.
    """

    steps: int | None = None
    guidance: float | None = None
    prompt: str = ""
    negative: str = ""
    output: str = "pil"
    scale: Any = None
    controls: tuple[Control, ...] = ()
    on_step: OnStep | None = None
    on_preview: OnPreview | None = None
    preview_every: int = 5


@runtime_checkable
class Renderer(Protocol):
    """One backend, loaded. name: the registry's name."""

    name: str

    @property
    def capabilities(self) -> Capabilities:
        """What it takes."""
        ...

    def render(
        self, vectors: torch.Tensor, seeds: Sequence[int], size: tuple[int, int], options: RenderOptions
    ) -> list[Any]:
        """vectors [n, D] un-normalised, float32, on the CPU; n seeds; size: (height, width) in pixels -> n pictures:
        picture i of vectors[i] and seeds[i], whatever the other rows are.

        Raises ConfigError for a setting it cannot take, SpaceError for vectors of another width. Raising from a
        callback stops it and leaves it usable.
        """
        ...


@dataclass(frozen=True)
class RendererOptions:
    """What a factory is told beside its folder."""

    space: str  # id of the CLIP space of the model it belongs to
    device: str = "cpu"
    dtype: Any = None  # torch dtype of the weights; None: float32
    defaults: Mapping[str, Any] = field(default_factory=dict)  # "size" in pixels, "steps", "guidance" of the model
    max_batch: int = 8  # pictures denoised together
    offload: bool = False  # networks are moved to the device only while they run
    adapter: Path | None = None  # the IP-Adapter's file, where it is not the folder's own
    controlnets: Mapping[str, Path] = field(default_factory=dict)  # kind -> folder, beside the folder's own
    extra: Mapping[str, Any] = field(default_factory=dict)  # settings of one backend: retrieval's "library"

    def __post_init__(self) -> None:
        ensure(self.max_batch >= 1, f"max_batch must be 1 or more, got {self.max_batch}", ConfigError)


Factory = Callable[[Path | None, RendererOptions], Renderer]

# name -> factory, or "module:attribute" of one, imported on use.
_FACTORIES: dict[str, Factory | str] = {
    "kandinsky": "pops.render.kandinsky:load",
    "sdxl": "pops.render.sdxl:load",
    "retrieval": "pops.render.retrieval:load",
    "stable-diffusion": "pops.render.stable_diffusion:load",
    "swatch": "pops.render.base:swatch",
}
# The pipeline class in a folder's model_index.json -> the backend that reads the folder.
_PIPELINES = {
    "KandinskyV22Pipeline": "kandinsky",
    "KandinskyV22CombinedPipeline": "kandinsky",
    "KandinskyV22ControlnetPipeline": "kandinsky",
    "StableDiffusionPipeline": "stable-diffusion",
    "StableDiffusionControlNetPipeline": "stable-diffusion",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionXLControlNetPipeline": "sdxl",
}


def register(name: str, factory: Factory, *, pipeline: str | None = None) -> None:
    """Adds (or replaces) a backend; `pipeline`: the class name in model_index.json whose folders it reads."""
    _FACTORIES[name] = factory
    if pipeline:
        _PIPELINES[pipeline] = name


def names() -> list[str]:
    """All backends by name: the built-in, the registered and those of installed packages."""
    from importlib.metadata import entry_points

    return sorted({*_FACTORIES, *(e.name for e in entry_points(group=GROUP))})


def get(name: str) -> Factory:
    """The factory of a backend; ModelError for an unknown name."""
    from importlib.metadata import entry_points

    known = _FACTORIES.get(name)
    if known is not None:
        return _imported(known) if isinstance(known, str) else known
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            try:
                factory: Factory = entry.load()
            except Exception as e:
                raise PopsError(
                    f"the renderer {name!r} of {entry.value} does not load ({type(e).__name__}: {e})"
                ) from e
            return factory
    raise ModelError(f"there is no renderer {name!r}{suggest(name, names())}; installed: {', '.join(names())}")


def backend_of(folder: Path) -> str:
    """The backend that reads a folder, by the class in its model_index.json; ModelError if none does.

    A folder with movq/ holds a Kandinsky 2.2 decoder, whatever its model_index.json says, or if it has none.
    """
    index = folder / "model_index.json"
    decoder = (folder / "movq").is_dir()
    try:
        pipeline = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as e:
        if decoder:
            return "kandinsky"
        raise ModelError(f"{index} cannot be read; a renderer's folder has diffusers' layout ({e})") from e
    if pipeline in _PIPELINES:
        return _PIPELINES[pipeline]
    if decoder:
        return "kandinsky"
    raise ModelError(f"{folder} holds a {pipeline}; pops renders with {', '.join(sorted(_PIPELINES))}")


def _imported(where: str) -> Factory:
    from importlib import import_module

    module, _, attribute = where.partition(":")
    factory: Factory = getattr(import_module(module), attribute)
    return factory


def check_request(
    vectors: torch.Tensor, seeds: Sequence[int], steps: int, size: tuple[int, int], *, multiple: int
) -> None:
    """The checks every backend shares: a row and a seed a picture, one step at least, possible sizes."""
    ensure(vectors.ndim == 2, f"vectors must be [n, dim], got {list(vectors.shape)}", ConfigError)
    ensure(
        len(seeds) == len(vectors),
        f"{len(vectors)} vectors need as many seeds, got {len(seeds)}",
        ConfigError,
    )
    ensure(steps >= 1, f"the renderer's steps must be 1 or more, got {steps}", ConfigError)
    check_size(size, multiple=multiple)


def check_size(size: tuple[int, int], *, multiple: int) -> None:
    """ConfigError unless (height, width) in pixels are multiples of `multiple`, and not too large."""
    height, width = size
    ensure(max(size) <= MAX_SIDE, f"height and width are at most {MAX_SIDE}, got {height}x{width}", ConfigError)
    ensure(
        min(size) >= multiple and height % multiple == 0 and width % multiple == 0,
        f"height and width must be multiples of {multiple}, got {height}x{width}; "
        f"the nearest that works is {_nearest(height, multiple)}x{_nearest(width, multiple)}",
        ConfigError,
    )


def _nearest(pixels: int, multiple: int) -> int:
    return max(multiple, round(pixels / multiple) * multiple)


class SwatchRenderer:
    """No weights: the first three numbers of an embedding become one flat colour, moved by the seed."""

    name = "swatch"

    def __init__(self, space: str, native: tuple[int, int] = (8, 8)) -> None:
        self.capabilities = Capabilities(space, native, outputs=("pil", "latent"))

    def render(
        self, vectors: torch.Tensor, seeds: Sequence[int], size: tuple[int, int], options: RenderOptions
    ) -> list[Any]:
        """See Renderer.render. One step; guidance changes nothing."""
        from PIL import Image

        check_request(vectors, seeds, options.steps or 1, size, multiple=1)
        pictures: list[Any] = []
        for row, seed in zip(vectors, seeds, strict=True):
            rgb = [int(255 * float(v)) for v in row[:3].float().sigmoid()]
            colour = ((rgb[0] + seed) % 256, rgb[1], rgb[2])
            pictures.append(row.clone() if options.output == "latent" else Image.new("RGB", size[::-1], colour))
            if options.on_step:
                options.on_step(len(pictures), len(seeds))
        return pictures


def swatch(folder: Path | None, options: RendererOptions) -> SwatchRenderer:
    """The factory of SwatchRenderer; needs no folder."""
    side = int(options.defaults.get("size", 8))
    return SwatchRenderer(options.space, (side, side))
