"""Small files that ask for much memory or time: 64 MB beyond the decoded picture's own size, or refused at once.

tests/test_images.py has sixteen more.
"""

from __future__ import annotations

import io
import json
import os
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fuzz.watch import watch
from pops.embedding import Embedding
from pops.errors import EmbeddingError, PopsError
from pops.expression import load as load_tree
from pops.images import load_photo, read_rgb
from pops.recipe import Recipe


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks: bytes, side: int = 8) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(out, "PNG")
    whole = out.getvalue()
    return whole[:33] + b"".join(chunks) + whole[33:]


def packed(mode: str, size: tuple[int, int], kind: str, **how: Any) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind, **how)
    return out.getvalue()


def frames(kind: str, count: int, side: int) -> bytes:
    more = [Image.new("P", (side, side), i % 250) for i in range(1, count)]
    return packed("P", (side, side), kind, save_all=True, append_images=more)


def many_scans(side: int, times: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    whole = packed("L", (side, side), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * times + whole[-2:]


def webp(width: int, height: int) -> bytes:
    """Names a canvas, and holds next to nothing."""
    canvas = struct.pack("<I", 0) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    inner = b"VP8X" + struct.pack("<I", 10) + canvas
    return b"RIFF" + struct.pack("<I", 4 + len(inner)) + b"WEBP" + inner


def looping_tiff() -> bytes:
    """The directory of its next page is its own."""
    whole = bytearray(packed("L", (8, 8), "TIFF"))
    at = struct.unpack_from("<I", whole, 4)[0]
    count = struct.unpack_from("<H", whole, at)[0]
    whole[at + 2 + 12 * count : at + 6 + 12 * count] = struct.pack("<I", at)
    return bytes(whole)


def bmp_rle(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 4, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + head + bytes(1024) + b"\x00\x01\x00\x00"


def tga_rle(width: int, height: int) -> bytes:
    return bytes([0, 0, 10]) + bytes(5) + struct.pack("<HHHHBB", 0, 0, width, height, 24, 0) + b"\xff\x01\x02\x03" * 500


def icns() -> bytes:
    inside = packed("RGB", (6000, 6000), "PNG")
    return b"icns" + struct.pack(">I", 16 + len(inside)) + b"ic10" + struct.pack(">I", 8 + len(inside)) + inside


def heic() -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    out = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (2000, 2000))).save(out, quality=1)
    return out.getvalue()


def safetensors(header: bytes, content: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + content


def tensor(shape: list[int], dtype: str = "F32", end: int = 0) -> bytes:
    about = {"format": "pops.embedding", "version": "1", "space": "s"}
    return json.dumps(
        {"__metadata__": about, "embeds": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}
    ).encode()


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def zipped(size: int) -> bytes:
    """A file of torch.save whose numbers were compressed afterwards."""
    plain, out = io.BytesIO(), io.BytesIO()
    torch.save(torch.zeros(size), plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return out.getvalue()


PROFILE = b"x\0\0" + zlib.compress(bytes(100_000_000), 9)
BOMBS: dict[str, Callable[[], bytes]] = {
    "canvas.webp": lambda: webp(16384, 16384),
    "double.tif": lambda: packed("F", (9000, 9000), "TIFF", compression="tiff_lzw"),
    "grey16.tif": lambda: packed("I;16", (9000, 9000), "TIFF", compression="tiff_deflate"),
    "profile.png": lambda: png(chunk(b"iCCP", PROFILE)),
    "text.png": lambda: png(*[chunk(b"zTXt", b"pops" + PROFILE[1:])] * 20),
    "film.png": lambda: frames("PNG", 12, 2000),
    "film.gif": lambda: frames("GIF", 40, 1500),
    "pages.tif": lambda: frames("TIFF", 12, 2000),
    "loop.tif": looping_tiff,
    "cmyk.jpg": lambda: packed("CMYK", (6000, 6000), "JPEG"),
    "scans.jpg": lambda: many_scans(1000, 3000),
    "many.jpg": lambda: many_scans(4000, 200),
    "a.icns": icns,
    "a.heic": heic,
    "rle.bmp": lambda: bmp_rle(30_000, 30_000),
    "rle.tga": lambda: tga_rle(60_000, 60_000),
    "plain.ppm": lambda: b"P3 13000 13000 255 " + b"1 " * 1000,
    "shape.safetensors": lambda: safetensors(tensor([2**31, 2**31])),
    "empty.safetensors": lambda: safetensors(tensor([0, 2**60])),
    "header.safetensors": lambda: safetensors(b'{"a":' + b" " * 100_000_000 + b"}"),
    "names.safetensors": lambda: safetensors(
        json.dumps({f"{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(300_000)}).encode()
    ),
    "float4.safetensors": lambda: safetensors(tensor([2, 2], "F4", 2), b"\0\0"),
    "shape.npy": lambda: npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4)}\n"),
    "object.npy": lambda: npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n") + b"\x80\x04N.",
    "zip.pt": lambda: zipped(20_000_000),
    "aliases.yaml": lambda: "\n".join(
        ["a0: &a0 [x.png, x.png]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))]
    ).encode(),
    "deep.json": lambda: b"[" * 10_000_000,
    "long.json": lambda: b'{"expression": "' + b"a" * 100_000_000 + b'"}',
}


def own_size(path: Path) -> int:
    """Returns the bytes of the decoded picture, 0 where Pillow refuses it."""
    with suppress(Exception), Image.open(path) as image:
        return (4 if image.mode in ("F", "CMYK") else 3) * image.width * image.height
    return 0


def readers(path: Path) -> list[Callable[[Path], Any]]:
    if path.suffix in (".safetensors", ".npy", ".pt"):
        return [Embedding.load]
    return [load_tree, Recipe.read] if path.suffix in (".yaml", ".json") else [load_photo, read_rgb]


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_little_or_is_refused_at_once(tmp_path: Path, name: str, pickles_here: None) -> None:
    path = tmp_path / name
    path.write_bytes(BOMBS[name]())
    for read in readers(path):
        with suppress(PopsError):
            read(tmp_path / f"absent{path.suffix}")  # what is imported on use
        begun, own = time.process_time(), own_size(path)

        def measured(read: Callable[[Path], Any] = read, own: int = own) -> int:
            read(path)
            return own

        said = watch(measured)
        assert len(said) < 300 + len(str(path))
        assert not said or time.process_time() - begun < (2 if name == "zip.pt" else 0.3), said


def test_a_sparse_file_of_a_terabyte_is_no_embedding(tmp_path: Path) -> None:
    path = tmp_path / "sparse.npy"
    path.write_bytes(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (250000000000,)}\n"))
    try:
        os.truncate(path, 80 + 10**12)
    except OSError:
        pytest.skip("no sparse files here")
    with pytest.raises(EmbeddingError, match="more than"):
        Embedding.load(path)
