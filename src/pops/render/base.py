"""What a renderer is, the checks that all share, and the shipped fake.

A renderer turns rows of un-normalised CLIP image embeddings into images, one per row. It knows nothing of expressions,
operators or files of images. `pops.render.registry` finds renderers by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from pops.errors import ConfigError, ensure
from pops.images import MAX_SIDE
from pops.progress import OnNote, OnPreview, OnStep

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

# The embedding's weight: one number, one per block as diffusers' set_ip_adapter_scale takes them, or a preset's name.
Scale: TypeAlias = "float | str | Mapping[str, Any]"


@dataclass(frozen=True)
class Capabilities:
    """What a renderer takes: Pops refuses the rest in one line, before anything is computed."""

    space: str  # id of the CLIP space whose embeddings it reads
    native: tuple[int, int]  # (height, width) in pixels that it makes unless a size is given
    multiple: int = 1  # of pixels, sides must be
    controls: tuple[str, ...] = ()  # kinds of control images, such as "depth"
    text: bool = False  # whether a prompt and a negative prompt have an effect
    scale: bool = False  # whether the embedding's weight can be set
    steps: bool = False  # whether it samples in steps that can be set
    guidance: bool = False  # whether it has a guidance scale
    guidance_interval: bool = False  # whether it can be guided in a part of the steps
    guidance_rescale: bool = False  # whether guided predictions can be brought back to their spread before
    pag_scale: bool = False  # whether it takes perturbed-attention guidance
    outputs: tuple[str, ...] = ("pil",)  # of RenderOptions.output
    previews: bool = False  # whether on_preview is called
    several: bool = False  # whether vectors may be [n, m, D]: m embeddings of each image, as IP-Adapter takes them
    together: bool = False  # whether an image depends on the other rows of its call: all are made in one


@dataclass(frozen=True)
class Control:
    """A control image, which says where things are, ready for a ControlNet to read; RGB of any size.

    pops.render.controls makes it from a photo.
    """

    kind: str  # "depth", "canny", ...: one of Capabilities.controls
    image: Image.Image
    scale: float = 1.0  # of the control's residuals; 0 for no effect


@dataclass(frozen=True)
class RenderOptions:
    """How to render; None is the renderer's own default. A simple renderer may ignore all of it."""

    steps: int | None = None  # of the sampler
    guidance: float | None = None  # 1 or less for none
    guidance_interval: tuple[float, float] | None = None  # shares of the steps, between which it acts; (0, 1): all
    guidance_rescale: float | None = None  # 0 to 1, against colours that guidance makes too strong; 0 for none
    pag_scale: float | None = None  # of perturbed-attention guidance; 0 for none
    prompt: str = ""  # words beside the embedding
    negative: str = ""  # words of guidance's uncond branch
    output: str = "pil"  # or "latent", for CPU tensors
    scale: Scale | None = None  # the embedding's weight
    controls: tuple[Control, ...] = ()
    on_step: OnStep | None = None
    on_preview: OnPreview | None = None  # called after every `preview_every` steps
    preview_every: int = 5
    on_note: OnNote | None = None  # told of a text that was cut; None warns


@runtime_checkable
class Renderer(Protocol):
    """One backend, loaded. name: the registry's name."""

    name: str

    @property
    def capabilities(self) -> Capabilities:
        """What it takes."""
        ...

    def render(self, vectors: Tensor, seeds: Sequence[int], size: tuple[int, int], options: RenderOptions) -> list[Any]:
        """Renders vectors [n, D], un-normalised float32 on the CPU, to n images of size (height, width) in pixels.

        Image i is that of vectors[i] and seeds[i], whatever the other rows are. Raises ConfigError for a setting it
        cannot take, SpaceError for vectors of another width. A callback that raises stops it and leaves it usable.
        """
        ...


@dataclass(frozen=True)
class RendererOptions:
    """What a factory is told beside its folder."""

    space: str  # id of the CLIP space of the model it belongs to
    device: str = "cpu"
    dtype: torch.dtype | None = None  # of the weights; None for float32
    # the model's own "size" in pixels, "steps", "guidance", "guidance_interval", "guidance_rescale", "pag_scale", ...
    defaults: Mapping[str, Any] = field(default_factory=dict)
    max_batch: int = 8  # images denoised together
    offload: bool = False  # networks are on the device only while they run
    adapter: Path | None = None  # the IP-Adapter's file, where it is not the folder's own
    controlnets: Mapping[str, Path] = field(default_factory=dict)  # kind -> folder, beside the folder's own
    extra: Mapping[str, Any] = field(default_factory=dict)  # settings of one backend: retrieval's "library"

    def __post_init__(self) -> None:
        ensure(self.max_batch >= 1, f"max_batch must be 1 or more, got {self.max_batch}", ConfigError)


Factory: TypeAlias = Callable[[Path | None, RendererOptions], Renderer]


def check_request(
    vectors: Tensor, seeds: Sequence[int], steps: int, size: tuple[int, int], *, multiple: int, several: bool = False
) -> None:
    """Raises ConfigError unless there is one seed per row, one step at least, and a possible size.

    several: vectors may be [n, m, D], too.
    """
    fits = vectors.ndim == 2 or (several and vectors.ndim == 3 and vectors.shape[1] > 0)
    ensure(fits, f"vectors must be [n, dim], got {list(vectors.shape)}", ConfigError)
    told = f"{len(vectors)} vectors need as many seeds, got {len(seeds)}"
    ensure(len(seeds) == len(vectors), told, ConfigError)
    ensure(steps >= 1, f"the renderer's steps must be 1 or more, got {steps}", ConfigError)
    check_size(size, multiple=multiple)


def check_size(size: tuple[int, int], *, multiple: int) -> None:
    """Raises ConfigError unless (height, width) in pixels are multiples of `multiple`, and not too large."""
    height, width = size
    ensure(max(size) <= MAX_SIDE, f"height and width are at most {MAX_SIDE}, got {height}x{width}", ConfigError)
    nearest = "x".join(str(max(multiple, round(pixels / multiple) * multiple)) for pixels in size)
    told = (
        f"height and width must be multiples of {multiple}, got {height}x{width}; the nearest that works is {nearest}"
    )
    ensure(min(size) >= multiple and height % multiple == 0 and width % multiple == 0, told, ConfigError)


def useless_notes(
    options: RenderOptions, steps: int, guidance: float, interval: tuple[float, float], *, distilled: bool = False
) -> list[str]:
    """Returns notes on what was asked for and has no effect where no step is guided."""
    why = f"guidance {guidance:g} is none"
    if distilled:
        why = "this UNet has guidance built in"
    elif guidance > 1:
        why = f"no step of {steps} lies between {interval[0]:g} and {interval[1]:g} of the way"
    given = {
        "the negative text": bool(options.negative),
        "the guidance interval": options.guidance_interval is not None,
    }
    return [f"{why}: {what} has no effect" for what, asked in given.items() if asked]


class SwatchRenderer:
    """A fake without weights: the first three numbers of an embedding become one flat colour, moved by the seed."""

    name = "swatch"

    def __init__(self, space: str, native: tuple[int, int] = (8, 8)) -> None:
        self.capabilities = Capabilities(space, native, outputs=("pil", "latent"))

    def render(self, vectors: Tensor, seeds: Sequence[int], size: tuple[int, int], options: RenderOptions) -> list[Any]:
        """See Renderer.render. One step; guidance has no effect."""
        from PIL import Image

        check_request(vectors, seeds, options.steps or 1, size, multiple=1)
        images: list[Any] = []
        for row, seed in zip(vectors, seeds, strict=True):
            rgb = [int(255 * float(v)) for v in row[:3].float().sigmoid()]
            colour = ((rgb[0] + seed) % 256, rgb[1], rgb[2])
            images.append(row.clone() if options.output == "latent" else Image.new("RGB", size[::-1], colour))
            if options.on_step:
                options.on_step(len(images), len(seeds))
        return images


def swatch(folder: Path | None, options: RendererOptions) -> SwatchRenderer:
    """Makes a SwatchRenderer; needs no folder."""
    side = int(options.defaults.get("size", 8))
    return SwatchRenderer(options.space, (side, side))
