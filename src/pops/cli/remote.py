"""Has a running server make a recipe, and writes the files that this machine would have made.

Photos are uploaded once, by the digest of their bytes; the images' recipes name them as the user did.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer
from PIL import Image

from pops import errors
from pops.cli.outputs import Outputs, Places, place_remote
from pops.cli.shell import print_json
from pops.errors import Cancelled, ConfigError, OperandError, PhotoError, PopsError, ensure
from pops.expression import parse
from pops.expression.nodes import Given, Saved, walk
from pops.expression.plan import plan
from pops.files import expanded, shown, write_whole
from pops.images import check_png, save_picture, with_recipe
from pops.recipe import Recipe
from pops.server.references import MAP, PHOTO, photo_id, photos_in, renamed

WAIT = 30  # seconds that one question may take the server to answer
TRIES = 60  # of a full queue


def make_remote(
    server: str, recipe: Recipe, outputs: Outputs, *, json_output: bool = False, quiet: bool = False
) -> None:
    """Sends a recipe to a server, writes the outputs and prints their paths, or one JSON object."""
    # 1) Names and places, before anything is sent.
    start = time.monotonic()
    root = parse(recipe.expression).root
    here = [node for node in walk(root) if isinstance(node, (Saved, Given))]
    ensure(not here, "a saved embedding is read without --server; leave it out", OperandError)
    places = place_remote(recipe, plan(root, None, text=recipe.expression), outputs)
    with closing(Client(server)) as client:
        _made(client, recipe, outputs, places, quiet=quiet or json_output)
    if json_output:
        print_json(
            {
                "ok": True,
                "outputs": [str(path) for path in places.images.values()],
                **{name: str(path) for name, path in places.figures.items()},
                "expression": recipe.expression,
                "seeds": list(recipe.seeds),
                "server": server,
                "seconds": round(time.monotonic() - start, 3),
            }
        )


def _made(client: Client, recipe: Recipe, outputs: Outputs, places: Places, *, quiet: bool) -> None:
    """Has a server make all images and figures, and writes them."""
    # 2) Photos.
    root = parse(recipe.expression).root
    sources = [name for name, _ in photos_in(root)] + [s.removeprefix(MAP) for s in recipe.rendering.control.values()]
    names = {source: client.photo(source) for source in dict.fromkeys(sources)}
    asked = renamed(recipe, lambda name: names.get(name, name)).model_copy(update={"inputs": {}})

    # 3) The job of the images, and one for each figure.
    wanted: list[tuple[Recipe, Recipe, dict[int, Path]]] = []
    if places.images:
        wanted.append((recipe, asked, places.images))
    wanted += [(recipe.of_figure(n), asked.of_figure(n), {0: path}) for n, path in places.figures.items()]
    for own, sent, paths in wanted:
        job = client.job(sent)
        for image in job["images"]:
            path, png = paths[image["number"]], client.image(image["id"])
            check_png(png, shown(path))  # once, before anything is read of it
            with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
                data = _as_asked(picture.info.pop("pops"), own, names) if outputs.recipe else None
                if path.suffix.lower() != ".png":
                    save_picture(picture, path, data)
            if path.suffix.lower() == ".png":
                with write_whole(path) as temporary:
                    temporary.write_bytes(with_recipe(png, data, shown(path)))
            if not quiet:
                typer.echo(str(paths[image["number"]]))
        for note in job["notes"]:
            typer.echo(f"pops: {note}", err=True)


def _as_asked(text: str, own: Recipe, names: Mapping[str, str]) -> dict[str, Any]:
    """The recipe of an image with the names of photos that the user gave."""
    made = Recipe.from_json(text)
    back: dict[str, list[str]] = {}
    for source, name in names.items():
        back.setdefault(name, []).append(source)
    inputs = {source: digest for name, digest in made.inputs.items() for source in back.get(name, [name])}
    control = {kind: own.rendering.control[kind] for kind in made.rendering.control}
    rendering = made.rendering.model_copy(update={"control": control})
    return made.model_copy(update={"expression": own.expression, "inputs": inputs, "rendering": rendering}).to_data()


class Client:
    """One server, over one connection."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address if "//" in address else f"http://{address}")
        told = f"--server is an address such as http://127.0.0.1:7860, got {shown(address)!r}"
        try:
            port = parts.port
        except ValueError:
            raise ConfigError(told) from None
        ensure(parts.scheme in ("http", "https") and bool(parts.hostname), told, ConfigError)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(str(parts.hostname), port, timeout=WAIT * 2)
        self._address, self._root = address, parts.path.rstrip("/") + "/api/v1"
        token = os.environ.get("POPS_TOKEN")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def photo(self, source: str) -> str:
        """Returns the server's name of a photo, which is uploaded unless it is there."""
        if photo_id(source):
            return source
        path = expanded(source)
        try:
            data = path.read_bytes()
        except OSError as e:
            raise PhotoError(f"{shown(source)} cannot be read ({e.strerror}); check the path") from None
        name = PHOTO + hashlib.sha256(data).hexdigest()[:32]
        status, _, _ = self._ask("GET", f"/photos/{name.removeprefix(PHOTO)}?size=64", refused=False)
        if status != 200:
            mark = secrets.token_hex(16)
            file = "".join(c for c in path.name if c.isprintable() and c not in '"\\') or "photo"
            head = f'--{mark}\r\ncontent-disposition: form-data; name="file"; filename="{file}"\r\n\r\n'
            body = head.encode() + data + f"\r\n--{mark}--\r\n".encode()
            self._ask("POST", "/photos", body, f"multipart/form-data; boundary={mark}", about=shown(source))
        return name

    def job(self, recipe: Recipe) -> dict[str, Any]:
        """Sends a job, and returns it when it is done; on Ctrl-C it is cancelled."""
        answer = self._json("POST", "/jobs", recipe.to_json(indent=None).encode())
        try:
            while True:
                job = self._json("GET", f"/jobs/{answer['id']}?wait={WAIT}")
                if job["status"] not in ("queued", "running"):
                    break
        except KeyboardInterrupt:
            self._connection.close()
            self._ask("DELETE", f"/jobs/{answer['id']}")
            raise
        if job["status"] == "cancelled":
            raise Cancelled("the job was cancelled on the server")
        if job["error"]:
            raise _error(job["error"])
        return job

    def image(self, image: str) -> bytes:
        """Returns an image, a PNG with its recipe's text in info["pops"]."""
        return self._ask("GET", f"/images/{image}")[2]

    def _json(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self._ask(method, path, body)[2])
        return data

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "application/json",
        *,
        refused: bool = True,
        about: str = "",
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One question, again where the queue is full. refused: whether a refusal is raised."""
        headers = {**self._headers, **({} if body is None else {"content-type": kind})}
        for _ in range(TRIES):
            try:
                self._connection.request(method, self._root + path, body, headers)
                answer = self._connection.getresponse()
                data = answer.read()
            except (OSError, http.client.HTTPException) as e:
                why = getattr(e, "strerror", None) or str(e) or type(e).__name__
                told = f"the server {shown(self._address)} does not answer ({why}); start it with: pops serve"
                raise PopsError(told) from None
            if answer.status != 429:
                break
            time.sleep(min(float(answer.headers.get("retry-after", "1")), 60))
        if refused and answer.status >= 400:
            try:
                problem = json.loads(data)["error"]
            except (ValueError, KeyError, TypeError):
                raise PopsError(f"{shown(self._address)} answers {answer.status}, and is no server of pops") from None
            raise _error({**problem, "message": f"{about}: {problem['message']}" if about else problem["message"]})
        return answer.status, dict(answer.headers), data


def _error(problem: Mapping[str, Any]) -> PopsError:
    """Returns what the server tells as the error that this machine would have raised."""
    kind = getattr(errors, str(problem["code"]), None)
    if not (isinstance(kind, type) and issubclass(kind, PopsError)) or kind is errors.MissingExtra:
        kind = errors.ConfigError if str(problem["code"]) in ("TokenError", "HostError") else PopsError
    return kind(str(problem["message"]))
