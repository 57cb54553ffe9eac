"""Images with their recipes inside: written whole, and read again from files of anyone."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

from PIL import Image, PngImagePlugin

from pops.errors import PhotoError
from pops.files import parse_json, shown, write_whole
from pops.images.metadata import COMMENT_HEAD, EXIF_IFD, MAX_RECIPE, RECIPE, USER_COMMENT, recipe_of
from pops.images.opening import opened

Target: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes] | IO[bytes]"

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # what save_picture writes
# Of PNG: matches of the byte before alone. A photo takes a quarter of the time of PIL's own way, and about as many
# bytes; figures take some 15 % more.
COMPRESSION = {"compress_type": zlib.Z_RLE}
PNG_START = b"\x89PNG\r\n\x1a\n"


def save_picture(image: Image.Image, path: str | Path, recipe: Mapping[str, Any] | None = None) -> None:
    """Writes an image as .png, .jpg or .webp, whole or not at all, with the recipe (JSON) inside; see `read_recipe`.

    Raises PhotoError for another suffix, and for a recipe that is too long for the file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        raise PhotoError(
            f"{shown(path)}: images are written as {', '.join(PICTURE_SUFFIXES)}; use one of these endings"
        )
    form = _form(path)
    options = _with_recipe(recipe, form, shown(path))
    if form != "PNG":
        image, options = image.convert("RGB"), {"quality": 95, **options}
    with write_whole(path) as temporary:
        Image.Image.save(image, temporary, form, **options)


def check_png(png: bytes, name: str) -> None:
    """Raises PhotoError, naming it, for what is no whole PNG; decodes no pixels."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            image.verify()
    except Exception as e:  # PIL raises many kinds
        raise PhotoError(f"{name} came damaged ({e}); make it again") from None


def with_recipe(png: bytes, recipe: Mapping[str, Any] | None, name: str) -> bytes:
    """Returns a whole PNG (see check_png) of `save_picture` with another recipe or none, as that would write it: the
    same pixels, which are not compressed again. Raises PhotoError, naming it, for a recipe that is too long.
    """
    rest, parts = len(PNG_START), [PNG_START]
    while rest < len(png):
        end = rest + 12 + int.from_bytes(png[rest : rest + 4], "big")  # length, kind, data, CRC
        kind, data = png[rest + 4 : rest + 8], png[rest + 8 : end - 4]
        if not (kind == b"iTXt" and data.startswith(RECIPE.encode() + b"\0")):
            parts.append(png[rest:end])
        if kind == b"IHDR":
            for own in _with_recipe(recipe, "PNG", name)["pnginfo"].chunks:
                parts.append(_chunk(own[0], own[1]))
        rest = end
    return b"".join(parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


class Picture(Image.Image):
    """An image with a recipe in `info["pops"]`, which `save` writes into .png, .jpg and .webp files.

    What is made from it (copy, resize, crop, ...) is a plain PIL image: another picture than the recipe's.
    """

    def save(self, fp: Target, format: str | None = None, **params: Any) -> None:  # noqa: A002  # PIL's name
        """Saves the image as PIL does, with the recipe inside; pnginfo or exif given by hand take its place."""
        name = os.fsdecode(fp) if isinstance(fp, (str, bytes, os.PathLike)) else str(getattr(fp, "name", ""))
        form = (format or Image.registered_extensions().get(Path(name).suffix.lower(), "")).upper()
        if form in ("PNG", "JPEG", "WEBP") and not {"pnginfo", "exif"} & set(params):
            params = {**_with_recipe(self.info.get(RECIPE), form, shown(name) or "the image"), **params}
        super().save(fp, format, **params)

    def __eq__(self, other: object) -> bool:
        """Compares as PIL does, and also with plain images."""
        return isinstance(other, Image.Image) and bool(self.copy() == other.copy())

    __hash__ = None  # type: ignore[assignment]  # as of all images


def picture_of(image: Image.Image, recipe: Mapping[str, Any]) -> Picture:
    """Returns the image with the recipe inside: itself, if it is a plain one."""
    if type(image) is not Image.Image and not isinstance(image, Picture):
        image = image.copy()  # of a file, which is read when it is needed
    image.__class__ = Picture  # a new Picture would have to take over fields that are private to PIL
    image.info[RECIPE] = recipe
    assert isinstance(image, Picture)
    return image


def _with_recipe(recipe: Mapping[str, Any] | None, form: str, name: str) -> dict[str, Any]:
    """Returns the options of PIL that write the recipe into a file of this format; PhotoError if it is too long."""
    png = PngImagePlugin.PngInfo()
    if recipe is None:
        return {"pnginfo": png, **COMPRESSION} if form == "PNG" else {}
    text = _recipe_text(recipe, ascii_only=form != "PNG")
    if len(text.encode()) > MAX_RECIPE:
        raise PhotoError(f"{name}: the recipe is too long (over 1 MB); write the image without it")
    if form == "PNG":
        png.add_itxt(RECIPE, text)
        return {"pnginfo": png, **COMPRESSION}
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = COMMENT_HEAD + text.encode("ascii")
    content = exif.tobytes()
    if form == "JPEG" and len(content) > 65_000:
        raise PhotoError(f"{name}: the recipe is too long for a JPEG; write a .png")
    return {"exif": content}


def check_recipe(path: Path, recipe: Mapping[str, Any]) -> None:
    """Raises PhotoError where the recipe is too long for an image of this name."""
    _with_recipe(recipe, _form(path), shown(path))


def _form(path: Path) -> str:
    return {".png": "PNG", ".webp": "WEBP"}.get(path.suffix.lower(), "JPEG")


def _recipe_text(recipe: Mapping[str, Any], *, ascii_only: bool) -> str:
    text = json.dumps(recipe, ensure_ascii=ascii_only, default=str)
    if any("\ud800" <= c <= "\udfff" for c in text):  # of a file's name that is no Unicode
        text = json.dumps(recipe, ensure_ascii=True, default=str)
    return text


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Returns the recipe that `save_picture` put into an image; PhotoError if it has none or it cannot be read."""
    recipe = find_recipe(path)
    if recipe is None:
        raise PhotoError(f"{shown(path)} carries no recipe of pops; only unedited images that pops wrote do")
    return recipe


def find_recipe(path: str | Path) -> dict[str, Any] | None:
    """Returns the recipe as `read_recipe` does, but None for a photo without one. Decodes no pixels."""
    with opened(path) as (image, beside):
        text = beside.texts.get(RECIPE) if image.format == "PNG" else recipe_of(beside.exif)
    if text is None:
        return None
    name = shown(path)
    if len(text) > MAX_RECIPE:
        raise PhotoError(f"{name}: its recipe is longer than 1 MB; make the image again")
    try:
        recipe = parse_json(text)
    except ValueError as e:
        raise PhotoError(f"{name}: its recipe is damaged ({e}); make the image again") from e
    if not isinstance(recipe, dict):
        raise PhotoError(f"{name}: its recipe is damaged (no JSON object); make the image again")
    return recipe
