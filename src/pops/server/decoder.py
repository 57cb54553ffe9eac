"""The process that decodes photos and makes small copies of images, under limits of memory and time.

It knows no networks. What a file of anyone's does to it, it does to it alone: the server starts another.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pops.errors import PhotoError, PopsError
from pops.server.child import Child, ChildEnded, Inbox, Message

SHEET = "pops-sheet"  # the text of a PNG that tells the recipes of all of its images
SIZES = (64, 128, 256, 512, 1024)  # of the longer side of a small copy, in pixels


class Decoder:
    """The server's end. One photo at a time."""

    def __init__(self, memory: int, seconds: float, pixels: int) -> None:
        self._about = {"memory": memory, "pixels": pixels}
        self._seconds = seconds
        self._child: Child | None = None
        self._lock = asyncio.Lock()

    async def photo(self, path: Path) -> tuple[int, int]:
        """Decodes a photo; returns its width and height, as they are seen. PhotoError for anything else."""
        found = await self._ask({"do": "photo", "path": str(path)})
        return int(found["width"]), int(found["height"])

    async def recipe(self, path: Path) -> Any:
        """Returns the recipe inside an image as plain data, None without one. PhotoError for anything but a photo."""
        return (await self._ask({"do": "recipe", "path": str(path)}))["recipe"]

    async def copy(self, path: Path, to: Path, size: int | None = None) -> None:
        """Writes a copy of an image without its recipe: whole, or no larger than `size` pixels."""
        await self._ask({"do": "copy", "path": str(path), "to": str(to), "size": size})

    async def sheet(self, cells: Sequence[tuple[Path, str]], title: str, recipes: Any, to: Path) -> None:
        """Writes a sheet of images, each with its label, and all recipes inside (a text called pops-sheet)."""
        told = {"paths": [str(path) for path, _ in cells], "labels": [label for _, label in cells], "title": title}
        await self._ask({"do": "sheet", "path": "", "to": str(to), "recipes": recipes, **told})

    async def _ask(self, message: Message) -> Message:
        async with self._lock:
            if self._child is None:
                self._child = await Child.start("pops.server.decoder", self._about)
                await self._child.hear(60)
            try:
                await self._child.tell(message)
                answer = await self._child.hear(self._seconds)
            except TimeoutError:
                await self._drop()
                raise PhotoError(f"the photo takes over {self._seconds:g} seconds to decode; make it smaller") from None
            except ChildEnded:
                await self._drop()
                raise PhotoError("the photo cannot be decoded within the server's memory; make it smaller") from None
            except BaseException:  # a cancelled request: the answer would be taken for the next one's
                await self._drop()
                raise
        if "error" in answer:
            raise PhotoError(str(answer["error"]))
        return answer

    async def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.kill()

    async def stop(self) -> None:
        """Ends the process."""
        if self._child is not None:
            await self._child.stop(1)


def main() -> None:
    """The process."""
    inbox = Inbox()
    about = inbox.next()
    _confine(int(about["memory"]))
    inbox.tell({"ready": True})
    while True:
        message = inbox.next()
        try:
            inbox.tell(_done(message, int(about["pixels"])))
        except PopsError as e:
            inbox.tell({"error": str(e).replace(message["path"], "the photo") if message["path"] else str(e)})
        except MemoryError:
            inbox.tell({"error": "the photo cannot be decoded within the server's memory; make it smaller"})


def _done(message: Message, pixels: int) -> dict[str, Any]:
    from pops.images import find_recipe, read_rgb, save_picture
    from pops.images.opening import opened

    if message["do"] == "sheet":
        return _sheet(message)
    path = Path(message["path"])
    if message["do"] == "recipe":
        return {"recipe": find_recipe(path)}
    if message["do"] == "photo":
        with opened(path) as (photo, _):
            told = (
                f"the photo has {photo.width} x {photo.height} pixels, and the server takes {pixels}; make it smaller"
            )
            if photo.width * photo.height > pixels:
                raise PhotoError(told)
        image = read_rgb(path)
        return {"width": image.width, "height": image.height}
    image, size = read_rgb(path), message["size"]
    image.info.pop("pops", None)
    if size is not None:
        image.thumbnail((size, size))
    save_picture(image, message["to"])
    return {"width": image.width, "height": image.height}


def _sheet(message: Message) -> dict[str, Any]:
    from PIL import PngImagePlugin

    from pops.figures.grid import contact_sheet
    from pops.images import read_rgb

    images = [read_rgb(path) for path in message["paths"]]
    about = PngImagePlugin.PngInfo()
    about.add_itxt(SHEET, json.dumps(message["recipes"], ensure_ascii=False))
    made = contact_sheet(images, message["labels"], title=message["title"])
    made.save(message["to"], "PNG", pnginfo=about)
    return {"width": made.width, "height": made.height}


def _confine(memory: int) -> None:
    with suppress(ImportError, ValueError, OSError):  # a system without such limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
