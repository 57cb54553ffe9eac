"""Renderers: embeddings -> images. One backend per file; `base` holds the protocol, `registry` finds them by name."""

from pops.render.base import (
    Capabilities,
    Control,
    Factory,
    Renderer,
    RendererOptions,
    RenderOptions,
    SwatchRenderer,
)
from pops.render.registry import GROUP, backend_of, get, names, register

__all__ = [
    "Capabilities",
    "Control",
    "Factory",
    "GROUP",
    "RenderOptions",
    "Renderer",
    "RendererOptions",
    "SwatchRenderer",
    "backend_of",
    "get",
    "names",
    "register",
]
