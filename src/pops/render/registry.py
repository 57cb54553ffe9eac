"""Finds renderers by name: entry points of the group "pops.renderers", of pops itself and of any other package.

An entry is a factory, (folder, options) -> Renderer; it is imported when its renderer is asked for.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from pops.diffusion.folders import layout_of
from pops.errors import ModelError, PopsError, ensure, suggest
from pops.files import read_json_object
from pops.render.base import Factory

logger = logging.getLogger("pops.render")

GROUP = "pops.renderers"
# Published layouts: the pipeline class in model_index.json -> the renderer that reads it. The factory of another
# package says what it reads itself, in its attribute `reads`: a tuple of such class names.
LAYOUTS = {
    "KandinskyV22Pipeline": "kandinsky",
    "KandinskyV22CombinedPipeline": "kandinsky",
    "KandinskyV22ControlnetPipeline": "kandinsky",
    "StableDiffusionPipeline": "stable-diffusion",
    "StableDiffusionControlNetPipeline": "stable-diffusion",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionXLControlNetPipeline": "sdxl",
}
# Further pipelines over the same parts (image to image, inpainting, ...): by what the folder holds.
_OF_LAYOUT = {"sd": "stable-diffusion", "sdxl": "sdxl"}
_registered: dict[str, Factory] = {}


def register(name: str, factory: Factory) -> None:
    """Adds a renderer to this process, in place of an installed one of the same name: for notebooks and tests."""
    _registered[name] = factory


def names() -> list[str]:
    """Returns the names of all renderers, sorted; imports none."""
    return sorted({*_registered, *(entry.name for entry in _installed())})


def _installed() -> Sequence[EntryPoint]:
    """The entries of all installed packages: read once, and again where a package comes or goes."""
    return _read(tuple((folder, _changed(folder)) for folder in sys.path))


def _changed(folder: str) -> int:
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:  # Python itself passes over what is not there
        return 0


@lru_cache(maxsize=1)
def _read(folders: Sequence[tuple[str, int]]) -> Sequence[EntryPoint]:
    """folders: where Python looks for packages, and when each changed last."""
    return tuple(entry_points(group=GROUP))


def get(name: str) -> Factory:
    """Returns a renderer's factory; ModelError for an unknown name, PopsError where its package cannot be imported."""
    if name in _registered:
        return _registered[name]
    if name not in names():
        _read.cache_clear()  # a package may have been on its way in
    for entry in (entry for entry in _installed() if entry.name == name):
        try:
            factory: Factory = entry.load()
        except Exception as e:  # whatever the package raises
            told = f"the renderer {name!r} of {entry.value} does not load ({type(e).__name__}: {e})"
            raise PopsError(f"{told}; install its package again") from e
        logger.debug("renderer %s is %s", name, entry.value)
        return factory
    raise ModelError(f"unknown renderer {name!r}{suggest(name, names())}; choose from {', '.join(names())}")


def backend_of(folder: Path) -> str:
    """Returns the name of the renderer that reads a folder, by the class in its model_index.json; ModelError if none.

    A folder with movq/ holds a Kandinsky 2.2 decoder, whatever its model_index.json says, or without one.
    """
    decoder = (folder / "movq").is_dir()
    try:
        advice = "a renderer's folder has diffusers' layout"
        pipeline = str(read_json_object(folder / "model_index.json", ModelError, advice).get("_class_name"))
    except ModelError:
        if decoder:
            return "kandinsky"
        raise
    found = LAYOUTS.get(pipeline) or _reader_of(pipeline) or ("kandinsky" if decoder else None)
    found = found or _OF_LAYOUT.get(layout_of(pipeline, folder) or "")
    ensure(
        found is not None, f"unknown pipeline {pipeline!r} in {folder}; choose from {', '.join(LAYOUTS)}", ModelError
    )
    return str(found)


def _reader_of(pipeline: str) -> str | None:
    """Returns the renderer of another package that reads a pipeline class; those of pops are not imported."""
    others = [name for name in names() if name in _registered or name not in LAYOUTS.values()]
    return next((name for name in others if pipeline in getattr(get(name), "reads", ())), None)
