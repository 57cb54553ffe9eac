"""Photos in, images out: any photo becomes a square RGB image, and an image carries its recipe.

Knows nothing of spaces, models or expressions; a recipe is any JSON object.
"""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from pops.errors import PhotoError, ensure, suggest
from pops.files import expanded, write_whole

MAX_PIXELS = 200_000_000  # of a photo; Pillow's own guard against decompression bombs may refuse earlier
MAX_SIDE = 4096  # pixels of an image that is made
FITS = ("squash", "crop", "pad")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # what save_picture writes
PHOTO_SUFFIXES = (
    *PICTURE_SUFFIXES, ".avif", ".bmp", ".gif", ".jp2", ".pgm", ".ppm", ".tga", ".tif", ".tiff"
)  # fmt: skip

# The formats that are opened; reading them runs no other program, as reading EPS does.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "TGA", "ICO", "MPO", "AVIF")
_RECIPE = "pops"  # the PNG chunk's keyword
_EXIF_IFD, _USER_COMMENT, _COMMENT_HEAD = 0x8769, 0x9286, b"ASCII\x00\x00\x00pops:"
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error)


def load_photo(source: str | Path | Image.Image, *, fit: str = "squash", size: int = 512) -> Image.Image:
    """Reads a photo as RGB of size x size pixels: the first frame, rotated by its EXIF, transparency on white.

    fit: "squash" resizes both sides (the papers' way), "crop" keeps the middle square, "pad" adds white.
    Raises PhotoError, naming the file, for anything but a readable photo; ConfigError for fit or size.
    """
    ensure(fit in FITS, f"unknown fit {fit!r}{suggest(str(fit), FITS)}; choose from {', '.join(FITS)}")
    ensure(size >= 1, f"size must be at least 1 pixel, got {size}")
    return _to_square(read_rgb(source), fit, size)


def read_rgb(source: str | Path | Image.Image) -> Image.Image:
    """Reads a photo as RGB of its own size: as `load_photo`, without the square."""
    if not isinstance(source, Image.Image):
        with _opened(source) as photo:
            return _to_rgb(photo, str(source))
    where = f"the image {getattr(source, 'filename', '') or 'given'}"
    with _reading(where):
        return _to_rgb(source, where)


def save_picture(image: Image.Image, path: str | Path, recipe: Mapping[str, Any] | None = None) -> None:
    """Writes an image as .png, .jpg or .webp, whole or not at all, with the recipe (JSON) inside; see `read_recipe`.

    Raises PhotoError for another suffix, and for a recipe that is too long for a JPEG.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        raise PhotoError(f"{path}: images are written as {', '.join(PICTURE_SUFFIXES)}; use one of these endings")
    text = None if recipe is None else json.dumps(recipe, ensure_ascii=suffix != ".png", default=str)
    options: dict[str, Any]
    if suffix == ".png":
        options = {"format": "PNG", "pnginfo": PngImagePlugin.PngInfo()}
        if text is not None:
            options["pnginfo"].add_itxt(_RECIPE, text)
    else:
        image = image.convert("RGB")
        options = {"format": "WEBP" if suffix == ".webp" else "JPEG", "quality": 95}
        if text is not None:
            exif = Image.Exif()
            exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _COMMENT_HEAD + text.encode("ascii")
            options["exif"] = exif.tobytes()
            if options["format"] == "JPEG" and len(options["exif"]) > 65_000:
                raise PhotoError(f"{path}: the recipe is too long for a JPEG; write a .png")
    with write_whole(path) as temporary:
        image.save(temporary, **options)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Returns the recipe that `save_picture` put into an image; PhotoError if it has none or it cannot be read."""
    recipe = find_recipe(path)
    if recipe is None:
        raise PhotoError(f"{path} carries no recipe of pops; only unedited images that pops wrote do")
    return recipe


def find_recipe(path: str | Path) -> dict[str, Any] | None:
    """Returns the recipe as `read_recipe` does, but None for a photo without one."""
    with _opened(path) as image:
        if image.format == "PNG":
            image.load()  # a text chunk may follow the pixels
            text = getattr(image, "text", {}).get(_RECIPE)
        else:
            comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
            text = None
            if isinstance(comment, bytes) and comment.startswith(_COMMENT_HEAD):
                text = comment[len(_COMMENT_HEAD) :].decode("ascii")
    if text is None:
        return None
    try:
        recipe = json.loads(text)
    except ValueError as e:
        raise PhotoError(f"{path}: its recipe is damaged ({e}); make the image again") from e
    if not isinstance(recipe, dict):
        raise PhotoError(f"{path}: its recipe is damaged (no JSON object); make the image again")
    return recipe


@contextmanager
def _opened(source: str | Path) -> Iterator[Image.Image]:
    """Opens a file and identifies it without decoding; PhotoError for anything but a photo."""
    if not isinstance(source, (str, Path)):
        raise PhotoError(f"a photo is a path or a PIL image, got {type(source).__name__}")
    path = expanded(source)
    with _reading(str(source)):
        if path.is_dir():
            raise PhotoError(f"{source} is a folder; name a photo in it")
        if not path.exists():
            raise PhotoError(f"there is no file {source}{_neighbour(path)}; check the path")
        if not path.is_file():
            raise PhotoError(f"{source} is not a regular file; save the photo as a file first")
        if path.stat().st_size == 0:
            raise PhotoError(f"{source} is empty (0 bytes); fetch or save it again")
        with Image.open(path, formats=_FORMATS) as photo:
            yield photo


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turns whatever Pillow raises while reading into a PhotoError, and silences its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except PermissionError as e:
        raise PhotoError(f"no read permission for {where} ({e.strerror}); change its permissions") from e
    except Image.DecompressionBombError as e:
        raise _too_large(where) from e
    except (UnidentifiedImageError, KeyError) as e:
        raise PhotoError(f"{where} is not a photo in a known format; save it as PNG or JPEG") from e
    except MemoryError as e:
        raise PhotoError(f"{where} does not fit into memory; make it smaller") from e
    except _BROKEN as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise PhotoError(f"{where} is broken ({reason}); fetch or save it again") from e


def _to_rgb(photo: Image.Image, where: str) -> Image.Image:
    """Decodes the first frame, rotates it by its EXIF and returns 8-bit RGB, with transparency on white."""
    if photo.width < 1 or photo.height < 1:
        raise PhotoError(f"{where} has no pixels ({photo.width} x {photo.height}); give another photo")
    if photo.width * photo.height >= MAX_PIXELS:
        raise _too_large(where)
    photo.load()
    photo = ImageOps.exif_transpose(photo)
    if photo.mode.startswith("I") or photo.mode == "F":
        return _from_deep_grey(photo, where).convert("RGB")
    if photo.mode == "CMYK" and photo.info.get("icc_profile"):
        return _from_cmyk_profile(photo)
    if photo.has_transparency_data or photo.mode in ("PA", "RGBa", "La"):
        photo = photo.convert("LA").convert("RGBA") if photo.mode == "La" else photo.convert("RGBA")
        white = Image.new("RGBA", photo.size, "white")
        return Image.alpha_composite(white, photo).convert("RGB")
    return photo.convert("RGB")


def _from_deep_grey(photo: Image.Image, where: str) -> Image.Image:
    """Scales grey of 16 or 32 bits or floats to 8 bits; Pillow's own conversion would clip at 255."""
    import numpy as np

    values = np.asarray(photo).astype(np.float64)
    if not np.isfinite(values).all():
        raise PhotoError(f"{where} has NaN or infinite pixels; save it as PNG or JPEG")
    top = float(values.max())
    if photo.mode.startswith("I;16"):
        full = 65535.0
    elif photo.mode == "F" and top <= 1:
        full = 1.0
    else:  # the file does not say which value is white: take the narrowest usual range that holds its values
        full = next((limit for limit in (255.0, 65535.0) if top <= limit), top)
    grey = np.rint(np.clip(values / full, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(grey)


def _from_cmyk_profile(photo: Image.Image) -> Image.Image:
    """Converts CMYK by the printer's profile in the file, or by the plain formula if the profile is damaged."""
    from io import BytesIO

    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(photo.info["icc_profile"]))
        converted = ImageCms.profileToProfile(photo, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        converted = None
    return converted if converted is not None else photo.convert("RGB")


def _to_square(rgb: Image.Image, fit: str, size: int) -> Image.Image:
    """Makes RGB of any size square, size x size, with Pillow's default resampling (bicubic), as the papers do."""
    if fit == "crop":
        side = min(rgb.size)
        left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
        rgb = rgb.crop((left, top, left + side, top + side))
    elif fit == "pad":
        scale = size / max(rgb.size)  # resized first: a white square around a long, thin photo may not fit in memory
        inner = rgb.resize((max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale))))
        rgb = Image.new("RGB", (size, size), "white")
        rgb.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
    return rgb.resize((size, size))


def _too_large(where: str) -> PhotoError:
    limit = MAX_PIXELS
    if Image.MAX_IMAGE_PIXELS is not None:
        limit = min(limit, 2 * Image.MAX_IMAGE_PIXELS)
    return PhotoError(f"{where} is too large (over {limit // 1_000_000} megapixels); make it smaller first")


def _neighbour(path: Path) -> str:
    """Suggests the file beside a missing one whose name is most similar, or returns ""."""
    try:
        names = [p.name for p in path.parent.iterdir()]
    except OSError:
        return ""
    return suggest(path.name, names)
