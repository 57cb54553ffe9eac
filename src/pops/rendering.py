"""A rendering asked of a model: settings checked against what the renderer takes, pictures, and what they keep of it.

Knows no network: a Renderer is handed to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pops.errors import ConfigError, ensure
from pops.render.base import OnPreview, RenderOptions
from pops.seeds import check_seed

if TYPE_CHECKING:
    from pops.embedding import Embedding
    from pops.render.base import Renderer

OnProgress = Callable[[int, int, str], None]  # (done, total, what); raising from it cancels
MAX_PICTURES = 10_000  # of one call
CALLBACKS = ("on_step", "on_preview")
SETTINGS = ("size", *(f.name for f in fields(RenderOptions) if f.name not in CALLBACKS))


def given(how: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that say something: neither None nor an empty text, mapping or tuple."""
    return {k: v for k, v in how.items() if v is not None and v != "" and v != () and v != {}}


def render(
    backend: Renderer,
    embedding: Embedding,
    *,
    seeds: Sequence[int],
    num_images: int,
    how: Mapping[str, Any],
    on_progress: OnProgress | None = None,
    on_preview: OnPreview | None = None,
) -> list[Any]:
    """Pictures of every row, row by row, each PIL image with its recipe in `info["pops"]`; see Pops.render.

    ConfigError where the renderer cannot take a setting, SpaceError for an embedding of another space.
    """
    how = given(how)
    each = picture_seeds(embedding.n, seeds, num_images)
    options = {k: v for k, v in how.items() if k != "size"}
    unknown = set(how) - set(SETTINGS)
    if unknown:
        raise TypeError(f"render() takes no {', '.join(sorted(unknown))}")
    able = backend.capabilities
    embedding.require_space(able.space)
    check_settings(backend, how)
    pictures = backend.render(
        embedding.vectors.repeat_interleave(num_images, dim=0),
        each,
        how.get("size", able.native),
        RenderOptions(
            **options,
            on_step=None if on_progress is None else lambda done, total: on_progress(done, total, "rendering"),
            on_preview=on_preview,
        ),
    )
    if how.get("output", "pil") == "pil":
        made = {"renderer": backend.name, "seeds": list(seeds), "num_images": num_images, **how}
        for i, picture in enumerate(pictures):
            own = picture.info.get("pops", {})  # what the renderer itself has to say of this one
            picture.info["pops"] = {**embedding.provenance, "render": made, "picture": i, **own}
    return pictures


def picture_seeds(rows: int, seeds: Sequence[int], num_images: int) -> list[int]:
    """Row i's picture j has seed s + j, s the one seed or the row's own."""
    ensure(num_images >= 1, f"num_images must be 1 or more, got {num_images}", ConfigError)
    ensure(rows * num_images <= MAX_PICTURES, f"{rows * num_images} pictures: ask for fewer", ConfigError)
    ensure(len(seeds) in (1, rows), f"{rows} embeddings take one seed or {rows}, got {len(seeds)}", ConfigError)
    per_row = list(seeds) if len(seeds) == rows else list(seeds) * rows
    return [check_seed(s + j) for s in per_row for j in range(num_images)]


def check_settings(backend: Renderer, how: Mapping[str, Any]) -> None:
    """One line for what the renderer cannot take, and what it takes instead."""
    able, name = backend.capabilities, backend.name
    for setting in ("prompt", "negative"):
        ensure(
            able.text or setting not in how,
            f"the renderer {name} reads no text; leave --{setting} out, or use another (--renderer)",
            ConfigError,
        )
    ensure(
        able.scale or "scale" not in how,
        f"the renderer {name} has no weight of the embedding; leave the scale out",
        ConfigError,
    )
    output = how.get("output", "pil")
    allowed = " or ".join(f'"{o}"' for o in able.outputs)
    ensure(output in able.outputs, f"output must be {allowed}, got {output!r}", ConfigError)
    for control in how.get("controls", ()):
        takes = f"it takes {', '.join(able.controls) or 'none'}"
        fits = control.kind in able.controls
        ensure(fits, f"the renderer {name} has no {control.kind} control; {takes}", ConfigError)
