"""Renderers: embeddings -> pictures. One backend a file; `base` holds protocol, registry and the fake."""

from pops.render.base import (
    Capabilities,
    Control,
    Renderer,
    RendererOptions,
    RenderOptions,
    SwatchRenderer,
    get,
    names,
    register,
)

__all__ = [
    "Capabilities",
    "Control",
    "RenderOptions",
    "Renderer",
    "RendererOptions",
    "SwatchRenderer",
    "get",
    "names",
    "register",
]
