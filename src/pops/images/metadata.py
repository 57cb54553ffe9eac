"""What a photo's file holds beside its pixels: EXIF, XMP, colour profile, recipe; and the file without them.

Read leniently and with limits: what is odd, damaged or huge counts as absent.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import IO, Any

from PIL import Image

MAX_RECIPE = 2**20  # bytes of a recipe in an image
MAX_PROFILE = 2**23  # bytes of a colour profile
RECIPE = "pops"  # the PNG chunk's keyword
EXIF_IFD, USER_COMMENT, ORIENTATION = 0x8769, 0x9286, 0x0112
COMMENT_HEAD = b"ASCII\x00\x00\x00pops:"
METADATA = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif", "icc_profile", "transparency")
TURNED = range(2, 9)  # orientations other than upright


@dataclass
class Beside:
    """What a file holds beside its pixels. texts: keyword -> bytes, of a PNG's chunks that matter here."""

    exif: bytes = b""
    xmp: bytes = b""
    profile: bytes = b""
    turn: int = 1
    texts: dict[str, bytes] = field(default_factory=dict)

    def read_turn(self) -> None:
        """Sets the turn by EXIF's orientation, or XMP's."""
        entry = find_tag(self.exif, 0, ORIENTATION)
        form = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}.get(entry[1]) if entry else None
        if entry and form:
            told = struct.unpack_from(entry[0] + form, entry[3])[0]
        else:
            found = re.search(rb'tiff:Orientation(?:="|>)([0-9])', self.xmp[:MAX_RECIPE])
            told = int(found[1]) if found else 1
        self.turn = told if told in TURNED else 1


def look_beside(photo: Image.Image, beside: Beside) -> None:
    """Takes what Pillow found beside the pixels, as far as it is what it should be."""
    for name, key in (("exif", "exif"), ("xmp", "xmp"), ("profile", "icc_profile")):
        value = photo.info.get(key)
        setattr(beside, name, value if isinstance(value, bytes) else b"")
    if photo.format == "TIFF":
        told = getattr(photo, "tag_v2", {}).get(ORIENTATION)
        beside.turn = told if isinstance(told, int) and told in TURNED else 1


class _View(io.RawIOBase):
    """A file without some of its parts: ranges [start, end) of it, one after the other."""

    def __init__(self, file: IO[bytes], parts: list[tuple[int, int]]) -> None:
        self._file, self._parts, self._at = file, parts, 0
        self._size = sum(end - start for start, end in parts)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + {0: 0, 1: self._at, 2: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        at = self._at
        for start, end in self._parts:
            if at < end - start:
                self._file.seek(start + at)
                content = self._file.read(min(len(buffer), end - start - at))
                buffer[: len(content)] = content
                self._at += len(content)
                return len(content)
            at -= end - start
        return 0


def view(file: IO[bytes], parts: list[tuple[int, int]]) -> IO[bytes]:
    joined: list[tuple[int, int]] = []
    for start, end in parts:
        if joined and joined[-1][1] == start:
            start = joined.pop()[0]
        joined.append((start, end))
    return io.BufferedReader(_View(file, joined), 2**16)


def jpeg_parts(file: IO[bytes], beside: Beside) -> list[tuple[int, int]]:
    """Finds the ranges of a JPEG that its pixels need, and notes EXIF, XMP and profile."""
    size, at, parts = file.seek(0, 2), 2, [(0, 2)]
    pieces: dict[int, bytes] = {}
    while at < size:
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xDA, 0xD9):  # the pixels begin, or nothing known
            break
        if head[1] == 0xFF or head[1] == 0x01 or 0xD0 <= head[1] <= 0xD8:  # these have no length
            at += 1 if head[1] == 0xFF else 2
            continue
        kind, end = head[1], at + 2 + struct.unpack(">H", head[2:])[0]
        content = file.read(max(0, end - at - 4)) if 0xE0 <= kind <= 0xEF else b""
        if kind == 0xE1 and content.startswith(b"Exif\0") and not beside.exif:
            beside.exif = content
        elif kind == 0xE1 and content.startswith(b"http://ns.adobe.com/xap/1.0/\0") and not beside.xmp:
            beside.xmp = content
        elif kind == 0xE2 and content.startswith(b"ICC_PROFILE\0") and len(content) > 14:
            pieces.setdefault(content[12], content[14:])
        jfif = kind == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 12
        adobe = kind == 0xEE and content.startswith(b"Adobe") and len(content) >= 12
        if not (0xE0 <= kind <= 0xEF or kind == 0xFE) or jfif or adobe:  # the last two tell how colours are coded
            parts.append((at, min(end, size)))
        at = max(end, at + 2)
    beside.profile = b"".join(pieces[i] for i in sorted(pieces))
    return [*parts, (min(at, size), size)]


def png_parts(file: IO[bytes], beside: Beside) -> list[tuple[int, int]]:
    """Finds the ranges of a PNG that its pixels need, and notes EXIF, XMP, profile and recipe."""
    size, at, parts = file.seek(0, 2), 8, [(0, 8)]
    colours = 0
    while at + 8 <= size:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        end = at + 12 + length
        if kind in (b"iCCP", b"eXIf") and length <= MAX_PROFILE:
            content = file.read(length)
            beside.profile = (
                _unpacked(content.partition(b"\0")[2][1:], MAX_PROFILE) if kind == b"iCCP" else beside.profile
            )
            beside.exif = content if kind == b"eXIf" else beside.exif
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword = file.read(min(length, 80)).partition(b"\0")[0].decode("latin-1")
            if keyword == RECIPE or keyword in METADATA:
                file.seek(at + 8)
                beside.texts[keyword] = _text(kind, file.read(min(length, MAX_RECIPE + 200)))
        elif kind == b"IHDR":
            colours = file.read(min(length, 13))[-4] if length >= 13 else 0
        short = kind == b"tRNS" and length < {0: 2, 2: 6}.get(colours, 0)
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS") and not short:
            parts.append((at, min(end, size)))
        at = end
        if kind == b"IEND":
            break
    beside.xmp = beside.texts.get("XML:com.adobe.xmp", b"")
    if not beside.exif:  # as ImageMagick writes it: a name, a length, hexadecimal
        hexadecimal = b"".join(beside.texts.get("Raw profile type exif", b"").split()[2:])
        beside.exif = bytes.fromhex(hexadecimal.decode()) if re.fullmatch(rb"(?:[0-9a-fA-F]{2})*", hexadecimal) else b""
    return parts


def _text(kind: bytes, content: bytes) -> bytes:
    """Returns the text in a PNG's text chunk, as far as MAX_RECIPE and one byte."""
    rest = content.partition(b"\0")[2]
    packed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return _unpacked(rest, MAX_RECIPE + 1) if packed else rest[: MAX_RECIPE + 1]


def _unpacked(content: bytes, most: int) -> bytes:
    """Decompresses as far as `most` bytes; what is damaged is empty."""
    try:
        return zlib.decompressobj().decompress(content, most)
    except zlib.error:
        return b""


def find_tag(exif: bytes, at: int, tag: int) -> tuple[str, int, int, bytes] | None:
    """Finds a tag in the directory at `at` (0: the first): byte order, type, count, its four bytes; None without it."""
    body = exif.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(body[:2])
    if order is None or len(body) < 8:
        return None
    at = at or struct.unpack_from(order + "I", body, 4)[0]
    if at + 2 > len(body):
        return None
    for i in range(struct.unpack_from(order + "H", body, at)[0]):
        place = at + 2 + 12 * i
        if place + 12 > len(body):
            return None
        found, kind, count = struct.unpack_from(order + "HHI", body, place)
        if found == tag:
            return order, kind, count, body[place + 8 : place + 12]
    return None


def recipe_of(exif: bytes) -> bytes | None:
    """Returns the recipe in EXIF's user comment, if there is one."""
    inner = find_tag(exif, 0, EXIF_IFD)
    entry = find_tag(exif, struct.unpack(inner[0] + "I", inner[3])[0], USER_COMMENT) if inner else None
    if entry is None:
        return None
    body = exif.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")
    start = struct.unpack(entry[0] + "I", entry[3])[0]
    content = body[start : start + entry[2]]
    return content[len(COMMENT_HEAD) :] if content.startswith(COMMENT_HEAD) else None
