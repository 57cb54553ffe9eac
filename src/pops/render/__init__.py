"""Renderers: embeddings -> pictures. One backend a file; `base` holds protocol, registry and the fake."""

from pops.render.base import Renderer, RendererOptions, SwatchRenderer, get, names, register

__all__ = ["Renderer", "RendererOptions", "SwatchRenderer", "get", "names", "register"]
