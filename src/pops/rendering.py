"""Renders rows of embeddings as a recipe asks: settings checked against what the renderer takes, controls made ready.

Knows no network: a Renderer is handed to it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pops.errors import ConfigError, ensure
from pops.progress import OnControl, OnNote, OnPreview, OnProgress, named_steps
from pops.recipe import MAX_IMAGES, Rendering
from pops.render.base import RenderOptions, check_size
from pops.render.controls import scales_of
from pops.seeds import check_seed

if TYPE_CHECKING:
    from pops.embedding import Embedding
    from pops.models.model import Model
    from pops.render.base import Control, Renderer


def ready_controls(
    backend: Renderer, asked: Rendering, sources: Mapping[str, Any], model: Model, on_control: OnControl | None = None
) -> tuple[Control, ...]:
    """Makes the control images of a rendering.

    sources: kind -> a photo (path or PIL image), or "map:PATH" or a Control for what is ready. Raises ConfigError,
    PhotoError: see ControlMaker.make. All that needs no network is checked before one runs.
    """
    scales = scales_of(asked.control_scale, sources)
    check_rendering(backend, asked)
    check_controls(backend, asked, sources)
    size = asked.size or backend.capabilities.native
    made = tuple(model.control_maker.make(kind, source, size, scale=scales[kind]) for kind, source in sources.items())
    if on_control:
        for control in made:
            on_control(control)
    return made


def render_rows(
    backend: Renderer,
    embedding: Embedding,
    asked: Rendering,
    controls: Sequence[Control],
    *,
    seeds: Sequence[int],
    copies: range,
    output: str = "pil",
    preview_every: int = 5,
    on_progress: OnProgress | None = None,
    on_preview: OnPreview | None = None,
    on_note: OnNote | None = None,
) -> list[Any]:
    """Renders every row, row by row: its images j of `copies` use seed s + j, s the one seed or the row's own.

    Raises ConfigError where the renderer cannot take a setting, SpaceError for an embedding of another space.
    """
    each = [seed + j for seed in image_seeds(embedding.n, seeds, 1) for j in copies]
    able = backend.capabilities
    embedding.require_space(able.space)
    check_rendering(backend, asked, output)
    options = RenderOptions(
        steps=asked.steps,
        guidance=asked.guidance,
        guidance_interval=asked.guidance_interval,
        guidance_rescale=asked.guidance_rescale,
        pag_scale=asked.pag_scale,
        prompt=asked.prompt,
        negative=asked.negative,
        output=output,
        scale=asked.scale,
        controls=tuple(controls),
        on_step=named_steps(on_progress, "rendering"),
        on_preview=on_preview,
        preview_every=preview_every,
        on_note=on_note,
    )
    vectors = embedding.vectors.repeat_interleave(len(copies), dim=0)
    return backend.render(vectors, each, asked.size or able.native, options)


def image_seeds(rows: int, seeds: Sequence[int], num_images: int) -> list[int]:
    """Returns the seed of every image: row i's image j has seed s + j, s the one seed or the row's own."""
    ensure(num_images >= 1, f"num_images must be 1 or more, got {num_images}", ConfigError)
    ensure(
        rows * num_images <= MAX_IMAGES,
        f"{rows * num_images} images are more than {MAX_IMAGES}; ask for fewer",
        ConfigError,
    )
    takes = "1 embedding takes 1 seed" if rows == 1 else f"{rows} embeddings take 1 seed or {rows}"
    ensure(len(seeds) in (1, rows), f"{takes}, got {len(seeds)}", ConfigError)
    per_row = list(seeds) if len(seeds) == rows else list(seeds) * rows
    return [check_seed(s + j) for s in per_row for j in range(num_images)]


def check_rendering(backend: Renderer, asked: Rendering, output: str = "pil") -> None:
    """Refuses, in one line, what the renderer cannot take, and says what to do instead."""
    able, name = backend.capabilities, backend.name
    for setting in ("prompt", "negative"):
        told = f"the renderer {name} reads no text; leave --{setting} out, or use another (--renderer)"
        ensure(able.text or not getattr(asked, setting), told, ConfigError)
    for setting in ("steps", "guidance"):
        told = f"the renderer {name} has no {setting} to set; leave --render-{setting} out"
        ensure(getattr(able, setting) or getattr(asked, setting) is None, told, ConfigError)
    told = f"the renderer {name} cannot be guided in a part of the steps; leave --render-guidance-interval out"
    ensure(able.guidance_interval or asked.guidance_interval is None, told, ConfigError)
    told = f"the renderer {name} cannot rescale its guidance; leave --guidance-rescale out"
    ensure(able.guidance_rescale or not asked.guidance_rescale, told, ConfigError)
    told = f"the renderer {name} takes no perturbed-attention guidance; leave --pag-scale out"
    ensure(able.pag_scale or not asked.pag_scale, told, ConfigError)
    told = f"the renderer {name} has no weight of the embedding; leave the scale out"
    ensure(able.scale or asked.scale is None, told, ConfigError)
    allowed = " or ".join(f'"{o}"' for o in able.outputs)
    ensure(output in able.outputs, f"output must be {allowed}, got {output!r}", ConfigError)


def check_controls(backend: Renderer, asked: Rendering, kinds: Collection[str]) -> None:
    """Refuses controls that the renderer does not have, their scales without them, and a size that it cannot draw."""
    scales_of(asked.control_scale, kinds)
    ensure(asked.control_scale is None or bool(kinds), "--control-scale goes with --control; leave it out", ConfigError)
    for kind in kinds:
        check_control(backend, kind)
    if asked.size is not None or kinds:
        check_size(asked.size or backend.capabilities.native, multiple=backend.capabilities.multiple)


def check_control(backend: Renderer, kind: str) -> None:
    """Raises ConfigError where the renderer has no control of this kind."""
    takes = f"it takes {', '.join(backend.capabilities.controls) or 'none'}"
    told = f"the renderer {backend.name} has no {kind} control; {takes} (--controlnet {kind}=FOLDER gives it one)"
    ensure(kind in backend.capabilities.controls, told, ConfigError)
