"""pops on many machines: a Ray Serve deployment, each of whose replicas holds a model and runs recipes.

    pip install -r requirements.txt
    serve run pops_ray:app

A request is a form: `recipe` (JSON) and a file for each photo that it names. The answer is JSON: the images as PNG, in
base64, each with its recipe inside. A recipe reaches no other file, and loads nothing.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import pops
from pops.expression.nodes import Given, Saved, walk
from pops.server.references import MAP, References, photos_in

MAX_IMAGES = 64


@serve.deployment(num_replicas=1, max_ongoing_requests=4, ray_actor_options={"num_cpus": 1})
class Images:
    """One replica."""

    def __init__(self, model: str = "tiny") -> None:
        self._pops = pops.load(model)
        self._one = asyncio.Lock()  # a model computes one recipe at a time

    async def __call__(self, request: Request) -> Response:
        """Answers a request over HTTP."""
        async with request.form(max_files=16, max_part_size=2**20) as form:
            photos = {name: await file.read() for name, file in form.items() if not isinstance(file, str)}
            text = form.get("recipe", "")
        try:
            recipe = json.loads(str(text))
            async with self._one:
                made = await asyncio.to_thread(self.run, recipe, photos)
        except (ValueError, TypeError) as e:
            return JSONResponse({"error": f"recipe is no JSON object ({e}); send one"}, 422)
        except pops.PopsError as e:
            return JSONResponse({"error": str(e)}, 422)
        return JSONResponse({"images": [base64.b64encode(image).decode() for image in made]})

    def run(self, data: Mapping[str, Any], photos: Mapping[str, bytes]) -> list[bytes]:
        """Runs a recipe, also from Python: handle.run.remote(recipe.to_data(), {"teapot.png": bytes})."""
        asked = pops.Recipe.of_data(dict(data), "the request")
        root = pops.parse(asked.expression).root
        names = {name for name, _ in photos_in(root)}
        names |= {source.removeprefix(MAP) for source in asked.rendering.control.values()}
        missing = sorted(names - set(photos))
        missing += ["an embedding" for node in walk(root) if isinstance(node, (Saved, Given))]
        if missing:
            raise pops.PhotoError(f"{missing[0]} is not among the files of the request; send it")
        if asked.foreign or len(asked.seeds) * asked.num_images > MAX_IMAGES:
            raise pops.ConfigError(f"a recipe loads nothing here, and makes at most {MAX_IMAGES} images; ask for less")
        with TemporaryDirectory() as folder:
            paths = {name: str(Path(folder) / str(number)) for number, name in enumerate(photos)}
            for name, path in paths.items():
                Path(path).write_bytes(photos[name])
            references = References(paths, {})
            result = self._pops.run(references.to_paths(asked).trusted())
            made = []
            for image in result:
                image.info["pops"] = references.to_names(image.info["pops"], asked)
                out = io.BytesIO()
                image.save(out, "PNG")
                made.append(out.getvalue())
        return made


app = Images.bind()  # type: ignore[attr-defined]  # by the decorator
