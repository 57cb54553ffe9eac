"""Opens photos: every known format, and a line for whatever is none; what reading one costs, by its header."""

from __future__ import annotations

import importlib
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from pops.errors import MissingExtra, PhotoError, PopsError, suggest
from pops.files import expanded, reason, shown
from pops.images.metadata import Beside, jpeg_parts, look_beside, png_parts, view

MAX_PIXELS = 200_000_000  # of a photo; Pillow's own guard against decompression bombs may refuse earlier
MAX_LENGTH = 1_000_000  # pixels per side of a photo
MAX_BYTES = 2**32  # of a photo's file
HEIF_SUFFIXES = (".heic", ".heif")
PHOTO_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".jp2", ".pgm", ".ppm", ".tga", ".tif", ".tiff",
    *HEIF_SUFFIXES,
)  # fmt: skip
RAW_SUFFIXES = (  # of cameras; many are TIFF files whose first picture is a thumbnail
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mrw", ".nef", ".nrw", ".orf", ".pef",
    ".raf", ".rw2", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip

# The formats that are opened; reading them runs no other program, as reading EPS does.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "TGA", "ICO", "AVIF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_NATIVE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}  # bytes per pixel in Pillow, else 4
_DECODERS = {"WEBP": 16, "AVIF": 12, "HEIF": 12, "JPEG2000": 16}  # bytes per pixel a decoder takes beside the picture
_SPARE = 48 * 2**20  # bytes that reading may take beyond three per pixel; more, the larger the file is:
_CREDIT = {
    "JPEG": 40,
    "progressive": 150,
    "WEBP": 1000,
    "AVIF": 1000,
    "HEIF": 1000,
    "JPEG2000": 400,
    "TIFF": 16,
}  # else 100


@contextmanager
def opened(source: str | Path) -> Iterator[tuple[Image.Image, Beside]]:
    """Opens a file and identifies it without decoding; PhotoError for anything but a photo."""
    if not isinstance(source, (str, Path)):
        raise PhotoError(f"a photo is a path or a PIL image, got {type(source).__name__}")
    path, name = expanded(source), shown(source)
    with reading(name):
        if path.is_dir():
            raise PhotoError(f"{name} is a folder; name a photo in it")
        if not path.exists():
            raise PhotoError(f"there is no file {name}{_neighbour(path)}; check the path")
        if not path.is_file():
            raise PhotoError(f"{name} is not a regular file; save the photo as a file first")
        if path.stat().st_size == 0:
            raise PhotoError(f"{name} is empty (0 bytes); fetch or save it again")
        if path.stat().st_size > MAX_BYTES:
            raise PhotoError(f"{name} is too large (over {MAX_BYTES >> 30} GB); make it smaller first")
        if path.suffix.lower() in RAW_SUFFIXES:
            kind = path.suffix[1:].upper()
            raise PhotoError(f"{name} is a camera's RAW file ({kind}), which pops does not read; export it as JPEG")
        with path.open("rb") as file:
            head, beside = file.read(16), Beside()
            formats = (*_FORMATS, *_heif(name)) if _is_heif(head) else _FORMATS
            known = {b"\x89PNG\r\n\x1a\n": png_parts, b"\xff\xd8\xff": jpeg_parts}
            parts = next((read(file, beside) for begin, read in known.items() if head.startswith(begin)), None)
            with Image.open(path if parts is None else view(file, parts), formats=formats) as photo:
                if parts is None:
                    look_beside(photo, beside)
                if photo.format not in ("TIFF", "HEIF"):  # a TIFF's is a tag of its own; HEIF comes turned
                    beside.read_turn()
                yield photo, beside


def _is_heif(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _heif(name: str) -> tuple[str, ...]:
    """Loads the reader of HEIC photos; PhotoError that names the extra without it."""
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError:
        missing = MissingExtra("pillow-heif", "heif")
        raise PhotoError(f"{name} is a HEIC photo; to read these, run: pip install 'pops-diffusion[heif]'") from missing
    pillow_heif.register_heif_opener(thumbnails=False)
    return ("HEIF",)


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turns whatever Pillow raises while reading into a PhotoError, and silences its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except PermissionError as e:
        raise PhotoError(f"no read permission for {where} ({e.strerror}); change its permissions") from e
    except Image.DecompressionBombError as e:
        raise too_large(where) from e
    except (UnidentifiedImageError, KeyError) as e:
        raise PhotoError(f"{where} is not a photo in a known format; save it as PNG or JPEG") from e
    except MemoryError as e:
        raise PhotoError(f"{where} does not fit into memory; make it smaller") from e
    except PopsError:
        raise
    except Exception as e:  # the decoders raise anything at all
        raise PhotoError(f"{where} is broken ({reason(e)}); fetch or save it again") from e


def check_size(photo: Image.Image, where: str) -> None:
    if photo.width < 1 or photo.height < 1:
        raise PhotoError(f"{where} has no pixels ({photo.width} x {photo.height}); give another photo")
    if photo.width * photo.height >= MAX_PIXELS:
        raise too_large(where)
    if max(photo.size) > MAX_LENGTH:
        raise PhotoError(f"{where} is too long ({photo.width} x {photo.height} pixels); cut it into pieces")


def cost_of(photo: Image.Image, where: str, beside: Beside, path: Path, whole: bool) -> tuple[int, int]:
    """Returns the bytes that reading takes, and how many more it may take.

    PhotoError if they are out of proportion to the pixels and the file.
    """
    check_size(photo, where)
    native, kind = _NATIVE.get(photo.mode, 4), photo.format or ""
    each = native + _DECODERS.get(kind, 0)
    if photo.info.get("progressive"):
        each += 8 if photo.mode == "CMYK" else 6  # libjpeg keeps all coefficients
    if whole and (photo.mode != "RGB" or beside.turn != 1):
        each += 4
    pixels = photo.width * photo.height
    if kind == "ICO":
        pixels = max(pixels, *_icon_sizes(photo, path))
    cost = pixels * each + (_strip(photo) if kind == "TIFF" else 0)
    size = path.stat().st_size
    credit = _CREDIT.get("progressive" if photo.info.get("progressive") else kind, 100)
    room = _SPARE + credit * size - (cost - 3 * pixels)
    if room < 0:
        unpacked = f"{cost >> 20} MB of memory for {photo.width} x {photo.height} pixels"
        raise PhotoError(f"{where} is too large: a file of {size / 1000:.3g} kB that takes {unpacked}; make it smaller")
    return cost, room


def _strip(photo: Image.Image) -> int:
    """Returns the bytes of the largest piece of a compressed TIFF, which is unpacked as a whole."""
    tags = getattr(photo, "tag_v2", {})
    try:
        if tags.get(259, 1) == 1:
            return 0
        tile = (int(tags[322]), int(tags[323])) if 322 in tags else None
        width, rows = tile or (photo.width, min(int(tags.get(278, photo.height)), max(photo.size)))
        bits = sum(tags.get(258, (1,))) if tags.get(284, 1) == 1 else max(tags.get(258, (1,)))
        return int(width * rows * max(bits // 8, 4 if tags.get(262) == 6 else 1))
    except (TypeError, ValueError):
        return 4 * photo.width * photo.height


def _icon_sizes(photo: Image.Image, path: Path) -> list[int]:
    """Returns the pixels of every picture in an icon by its own header; the icon's may say anything."""
    sizes = [0]
    with path.open("rb") as file:
        for entry in getattr(getattr(photo, "ico", None), "entry", []):
            file.seek(entry.offset)
            head = file.read(24).ljust(24, b"\0")
            png = head.startswith(b"\x89PNG")
            width, height = struct.unpack_from(">II" if png else "<ii", head, 16 if png else 4)
            sizes.append(abs(width * height))
    if max(sizes) >= 2 * MAX_PIXELS:  # a bitmap's height counts its mask, too
        raise too_large(shown(path))
    return sizes


def too_large(where: str) -> PhotoError:
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
    return suggest(path.name[:255], names)
