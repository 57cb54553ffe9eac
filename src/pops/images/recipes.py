"""Images with their recipes inside: written whole, and read again from files of anyone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from pops.errors import PhotoError
from pops.files import parse_json, shown, write_whole
from pops.images.metadata import COMMENT_HEAD, EXIF_IFD, MAX_RECIPE, RECIPE, USER_COMMENT, recipe_of
from pops.images.opening import opened

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # what save_picture writes
MAX_IN_JPEG = 64_900  # characters of a recipe, with the head of its EXIF below the 65,533 bytes of one segment


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
    text = None if recipe is None else check_recipe(path, recipe)
    options: dict[str, Any]
    if suffix == ".png":
        options = {"format": "PNG", "pnginfo": PngImagePlugin.PngInfo()}
        if text is not None:
            options["pnginfo"].add_itxt(RECIPE, text)
    else:
        image = image.convert("RGB")
        options = {"format": "WEBP" if suffix == ".webp" else "JPEG", "quality": 95}
        if text is not None:
            exif = Image.Exif()
            exif.get_ifd(EXIF_IFD)[USER_COMMENT] = COMMENT_HEAD + text.encode("ascii")
            options["exif"] = exif.tobytes()
    with write_whole(path) as temporary:
        image.save(temporary, **options)


def check_recipe(path: str | Path, recipe: Mapping[str, Any]) -> str:
    """Returns the recipe as the text that an image of this name will hold; PhotoError where it is too long for that."""
    suffix, name = Path(path).suffix.lower(), shown(path)
    text = _recipe_text(recipe, ascii_only=suffix != ".png")
    if len(text.encode()) > MAX_RECIPE:
        raise PhotoError(f"{name}: the recipe is too long (over 1 MB); write the image without it")
    if suffix in (".jpg", ".jpeg") and len(text) > MAX_IN_JPEG:
        raise PhotoError(f"{name}: the recipe is too long for a JPEG; write a .png")
    return text


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
