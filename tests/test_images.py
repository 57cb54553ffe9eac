"""Every kind of photo becomes the right RGB square or a one-line error; images keep their recipes."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import unicodedata
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from pops.errors import ConfigError, PhotoError
from pops.images import PHOTO_SUFFIXES, check_png, load_photo, read_recipe, read_rgb, save_picture, with_recipe

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def colours(image: Image.Image) -> list[Any]:
    """Returns the colours of the centres of the four quarters, row by row."""
    w, h = image.size
    return [image.getpixel((x, y)) for y in (h // 4, 3 * h // 4) for x in (w // 4, 3 * w // 4)]


def quarters(mode: str = "RGB", size: int = 16, fill: Any = (RED, GREEN, BLUE, WHITE)) -> Image.Image:
    """Returns an image of four colours."""
    image, half = Image.new(mode, (size, size)), size // 2
    for i, colour in enumerate(fill):
        x, y = i % 2 * half, i // 2 * half
        image.paste(colour, (x, y, x + half, y + half))
    return image


def near(a: Any, b: Any, by: int = 3) -> bool:
    return all(abs(x - y) <= by for x, y in zip(a, b, strict=True))


# --- what comes out ---


@pytest.mark.parametrize(
    "suffix", [s for s in PHOTO_SUFFIXES if s not in (".pgm", ".gif", ".jp2", ".avif", ".heic", ".heif")]
)
def test_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    quarters(size=64).save(path)
    out = load_photo(path, size=64)
    assert out.mode == "RGB" and out.size == (64, 64)
    assert all(near(a, b, 12) for a, b in zip(colours(out), (RED, GREEN, BLUE, WHITE), strict=True))


@pytest.mark.parametrize(("orientation", "first"), [(1, RED), (2, GREEN), (3, WHITE), (6, BLUE), (8, GREEN)])
def test_exif_rotates_the_photo(tmp_path: Path, orientation: int, first: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    quarters().save(tmp_path / "a.png", exif=exif)
    assert colours(load_photo(tmp_path / "a.png", size=16))[0] == first


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGB", "L"])
def test_transparency_becomes_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    if mode in ("RGBA", "LA", "PA"):
        rgba = quarters("RGBA", fill=((0, 0, 0, 0), (0, 0, 0, 255), (0, 0, 0, 0), (0, 0, 0, 255)))
        image = rgba if mode == "RGBA" else rgba.convert(mode)
        out = load_photo(image, size=16)
    else:  # one colour is declared transparent
        image = quarters("L", fill=(40, 0, 40, 0)).convert(mode)
        hole = image.getpixel((0, 0))
        image.save(path, transparency=hole)
        out = load_photo(path, size=16)
    assert colours(out) == [WHITE, (0, 0, 0), WHITE, (0, 0, 0)]


def test_half_transparent_is_half_white() -> None:
    assert near(load_photo(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), size=4).getpixel((1, 1)), (255, 127, 127))


def test_palette_grey_and_one_bit(tmp_path: Path) -> None:
    quarters().convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.gif")
    assert colours(load_photo(tmp_path / "p.gif", size=16)) == [RED, GREEN, BLUE, WHITE]
    assert colours(load_photo(quarters("L", fill=(0, 80, 160, 255)), size=16))[1] == (80, 80, 80)
    assert colours(load_photo(quarters("1", fill=(0, 1, 1, 0)), size=16))[:2] == [(0, 0, 0), WHITE]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.repeat(np.array([[0, 257 * 100, 257 * 200, 65535]], np.uint16), 4, axis=0)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    out = load_photo(tmp_path / f"a{suffix}", size=4)
    assert [out.getpixel((x, 1)) for x in range(4)] == [(v, v, v) for v in (0, 100, 200, 255)]


@pytest.mark.parametrize(("dtype", "full"), [(np.int32, 65535), (np.int32, 255), (np.float32, 1), (np.float32, 255)])
def test_deep_grey_without_a_stated_range(dtype: Any, full: int) -> None:
    image = Image.fromarray((np.array([[0, 0.4, 1, 1]] * 4) * full).astype(dtype))
    out = load_photo(image, size=4)
    assert np.asarray(out)[1, :3, 0].tolist() == [0, 102, 255]


def test_cmyk(tmp_path: Path) -> None:
    image = quarters("CMYK", fill=((0, 255, 255, 0), (255, 0, 255, 0), (255, 255, 0, 0), (0, 0, 0, 0)))
    image.save(tmp_path / "a.jpg", quality=95, subsampling=0)
    out = load_photo(tmp_path / "a.jpg", size=16)
    assert all(near(a, b, 20) for a, b in zip(colours(out), (RED, GREEN, BLUE, WHITE), strict=True))


def test_cmyk_with_a_profile_that_is_damaged_or_of_another_kind() -> None:
    image = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    for profile in (b"no profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()):
        image.info["icc_profile"] = profile
        assert load_photo(image, size=4).getpixel((1, 1)) == RED


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_of_an_animation_the_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), c) for c in (RED, GREEN, BLUE)]
    more: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], **more)
    assert load_photo(tmp_path / f"a{suffix}", size=8).getpixel((4, 4)) == RED


def test_squash_is_pillows_resize_and_the_default() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8))
    assert load_photo(image, size=24).tobytes() == image.resize((24, 24)).tobytes()
    assert load_photo(image).size == (512, 512)


def test_crop_and_pad() -> None:
    image = Image.new("RGB", (40, 20), RED)
    image.paste(BLUE, (10, 0, 30, 20))
    assert colours(load_photo(image, fit="crop", size=20)) == [BLUE] * 4
    padded = load_photo(image, fit="pad", size=40)
    assert padded.getpixel((20, 2)) == WHITE == padded.getpixel((20, 37))
    assert padded.getpixel((2, 20)) == RED and padded.getpixel((20, 20)) == BLUE


def test_a_given_image_is_left_alone() -> None:
    image = quarters("RGBA", fill=((*RED, 0), (*GREEN, 9), (*BLUE, 200), (*WHITE, 255)))
    before = (image.mode, image.size, image.tobytes())
    load_photo(image, size=8)
    assert (image.mode, image.size, image.tobytes()) == before


# --- what is refused ---


def png_header(width: int, height: int) -> bytes:
    """Returns a PNG that claims a size but has no such pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 10)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks
    )


def jpeg() -> bytes:
    out = io.BytesIO()
    quarters(size=64).save(out, "JPEG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "is empty"),
        ("text.png", b"hello, I am a letter", "not a photo in a known format"),
        ("cut.jpg", jpeg()[:400], "is broken|not a photo"),
        ("hollow.png", png_header(64, 64), "is broken"),
        ("bomb.png", png_header(30_000, 30_000), "too large"),
        ("large.png", png_header(20_000, 10_000), "too large"),
        ("page.ps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a photo in a known format"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PhotoError, match=message) as caught:
        load_photo(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_limit_holds_without_pillows_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "large.png").write_bytes(png_header(20_000, 10_000))
    with pytest.raises(PhotoError, match="over 200 megapixels"):
        load_photo(tmp_path / "large.png")


def test_a_truncated_file_of_any_length_is_a_one_line_error(tmp_path: Path) -> None:
    whole, path = jpeg(), tmp_path / "a.jpg"
    for length in range(1, len(whole) - 20, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(PhotoError):
            load_photo(path, size=8)


def test_missing_files_folders_and_other_things(tmp_path: Path) -> None:
    quarters().save(tmp_path / "teapot.png")
    with pytest.raises(PhotoError, match=r"no file .*teapo\.png \(did you mean 'teapot\.png'\?\)"):
        load_photo(tmp_path / "teapo.png")
    with pytest.raises(PhotoError, match="no file"):
        load_photo(tmp_path / "nowhere" / "a.png")
    with pytest.raises(PhotoError, match="is a folder"):
        load_photo(tmp_path)
    with pytest.raises(PhotoError, match="path or a PIL image, got int"):
        load_photo(3)  # type: ignore[arg-type]
    with pytest.raises(PhotoError, match="has no pixels"):
        load_photo(Image.new("RGB", (0, 5)))
    with pytest.raises(PhotoError):
        load_photo("a\0b.png")


def test_nan_pixels() -> None:
    with pytest.raises(PhotoError, match="NaN or infinite pixels"):
        load_photo(Image.fromarray(np.full((4, 4), np.nan, np.float32)))


def test_fit_and_size_are_checked() -> None:
    with pytest.raises(ConfigError, match="did you mean 'squash'"):
        load_photo(quarters(), fit="sqash")
    with pytest.raises(ConfigError, match="size"):
        load_photo(quarters(), size=0)


# --- images and recipes ---

RECIPE = {"expression": "union(犬.png, hat.png)", "seeds": [0, 1], "render": {"steps": 30}}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".PNG"])
def test_an_image_keeps_its_recipe(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    save_picture(quarters(size=32), path, RECIPE)
    assert read_recipe(path) == RECIPE
    assert near(colours(load_photo(path, size=32))[2], BLUE, 12)
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_image_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_picture(quarters(), tmp_path / name, RECIPE)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_an_image_without_a_recipe(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    save_picture(quarters(), path)
    with pytest.raises(PhotoError, match="carries no recipe"):
        read_recipe(path)


def test_recipes_that_cannot_be_read(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    for text in ("{torn", "[1]"):
        info = PngInfo()
        info.add_itxt("pops", text)
        quarters().save(tmp_path / "a.png", pnginfo=info)
        with pytest.raises(PhotoError, match="recipe is damaged"):
            read_recipe(tmp_path / "a.png")
    with pytest.raises(PhotoError, match="no file"):
        read_recipe(tmp_path / "b.png")


def test_images_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"\.png"):
        save_picture(quarters(), tmp_path / "out.gif")
    with pytest.raises(PhotoError, match=r"too long for a JPEG; write a \.png"):
        save_picture(quarters(), tmp_path / "out.jpg", {"expression": "x" * 70_000})
    assert list(tmp_path.iterdir()) == []


def test_pad_of_a_long_thin_photo_needs_no_large_square(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    new = Image.new
    monkeypatch.setattr(Image, "new", lambda mode, size, *how: made.append(size) or new(mode, size, *how))
    square = load_photo(new("RGB", (50_000, 2), "red"), fit="pad", size=40)
    assert square.size == (40, 40) and made and max(map(max, made)) <= 40


# --- what is beside the pixels never refuses them ---


def jpeg_with(*segments: tuple[int, bytes], size: int = 64) -> bytes:
    out = io.BytesIO()
    quarters(size=size).save(out, "JPEG", quality=95)
    head = b"".join(b"\xff" + bytes([kind]) + struct.pack(">H", len(body) + 2) + body for kind, body in segments)
    return out.getvalue()[:2] + head + out.getvalue()[2:]


def exif_with(*entries: tuple[int, int, int, bytes], order: str = "<", more: bytes = b"") -> bytes:
    """EXIF with these entries: tag, type, count, four bytes."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    body = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0" + head + struct.pack(order + "H", len(entries)) + body + bytes(4) + more


UPRIGHT = (0x112, 3, 1, struct.pack("<HH", 6, 0))  # turn by a quarter


@pytest.mark.parametrize(
    ("exif", "turned"),
    [
        (exif_with(UPRIGHT, (0x128, 4, 1, struct.pack("<I", 2**31))), True),  # a LONG that no SHORT holds
        (exif_with(UPRIGHT, (0x11A, 5, 1, struct.pack("<I", 2**31))), True),  # a rational beyond the end
        (exif_with(UPRIGHT, (0x10F, 2, 2**31, bytes(4))), True),  # a text of 2 GB
        (exif_with(UPRIGHT, (0x8769, 4, 1, struct.pack("<I", 8))), True),  # a directory within itself
        (exif_with(UPRIGHT, (0x132, 99, 1, bytes(4))), True),  # an unknown type
        (exif_with((0x112, 4, 1, struct.pack("<I", 6))), True),  # as LONG
        (exif_with((0x112, 1, 1, b"\6\0\0\0")), True),  # as BYTE
        (exif_with((0x112, 3, 1, struct.pack(">HH", 6, 0)), order=">"), True),
        (exif_with((0x112, 3, 1, struct.pack("<HH", 9, 0))), False),
        (exif_with((0x112, 2, 1, b"6\0\0\0")), False),
        (exif_with(UPRIGHT)[:20], False),
        (b"Exif\0\0II*\0\xff\xff\xff\xff", False),
        (b"Exif\0\0", False),
        (b"Exif\0\0" + b"\xff" * 500, False),
    ],
)
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_odd_exif_turns_as_far_as_it_can_be_read(tmp_path: Path, exif: bytes, turned: bool, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    image = quarters(size=64).crop((0, 0, 64, 32))
    if kind == "jpg":
        image.save(path, quality=95, exif=b"")
        whole = path.read_bytes()
        path.write_bytes(whole[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + whole[2:])
    elif kind == "png":
        image.save(path)
        body = exif[6:]
        chunk = struct.pack(">I4s", len(body), b"eXIf") + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
        whole = path.read_bytes()
        path.write_bytes(whole[:33] + chunk + whole[33:])
    else:
        image.save(path, lossless=True, exif=exif)
    assert read_rgb(path).size == ((32, 64) if turned else (64, 32))


def test_a_tiff_with_odd_tags_is_read_and_turned(tmp_path: Path) -> None:
    for compression in ("raw", "tiff_deflate"):
        for orientation, method in ((6, Image.Transpose.ROTATE_270), (1, None)):
            image = quarters(size=16).crop((0, 0, 16, 8))
            image.save(tmp_path / "a.tif", compression=compression, tiffinfo={0x112: orientation, 0x13B: "somebody"})
            raw = (tmp_path / "a.tif").read_bytes()  # the artist's name becomes a directory far beyond the end
            at = raw.index(struct.pack("<HH", 0x13B, 2))
            odd = struct.pack("<HHII", 0x8769, 4, 1, 2**31)
            (tmp_path / "a.tif").write_bytes(raw[:at] + odd + raw[at + 12 :])
            want = image.transpose(method) if method else image
            assert read_rgb(tmp_path / "a.tif").tobytes() == want.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_turn_is_pillows(orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from pops.images import pixels

    monkeypatch.setattr(pixels, "_BAND", 64)
    image = Image.fromarray(np.random.default_rng(orientation).integers(0, 255, (30, 50, 3), np.uint8))
    exif = Image.Exif()
    exif[0x112] = orientation
    out = io.BytesIO()
    image.save(out, "PNG", exif=exif)
    turned = ImageOps.exif_transpose(Image.open(out))
    left, top, right, bottom = map(int, _middle(turned.size))
    middle = turned.crop((left, top, right, bottom)).resize((24, 24))
    for fit, want in (("squash", turned.resize((24, 24))), ("crop", middle)):
        assert load_photo(Image.open(out), fit=fit, size=24).tobytes() == want.tobytes()
    assert read_rgb(Image.open(out)).tobytes() == turned.tobytes()
    again = read_rgb(read_rgb(Image.open(out)))
    assert again.tobytes() == turned.tobytes(), "what is turned is not turned again"


def _middle(size: tuple[int, int]) -> tuple[int, int, int, int]:
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return left, top, left + side, top + side


def test_text_beside_the_pixels_is_ignored(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    for i in range(70):
        info.add_text(f"workflow{i}", "x" * 3_000_000, zip=True)
    info.add_itxt("pops", "x" * 3_000_000, zip=True)
    quarters(size=64).save(tmp_path / "a.png", pnginfo=info)
    assert colours(read_rgb(tmp_path / "a.png")) == [RED, GREEN, BLUE, WHITE]
    with pytest.raises(PhotoError, match="recipe is longer than 1 MB"):
        read_recipe(tmp_path / "a.png")


@pytest.mark.parametrize(
    "chunk",
    [
        (b"iCCP", b"x\0\0" + zlib.compress(bytes(50_000_000))),
        (b"iCCP", b"x\0\0junk"),
        (b"iCCP", b""),
        (b"pHYs", b"\0"),
        (b"gAMA", b""),
        (b"cHRM", b"\1"),
        (b"zTXt", b"key"),
        (b"iTXt", b""),
        (b"tEXt", b"XML:com.adobe.xmp\0<x tiff:Orientation='9'"),
        (b"tRNS", b"\0"),
        (b"acTL", b""),
        (b"eXIf", b"II"),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 3\nzz")),
    ],
)
def test_odd_chunks_are_ignored(tmp_path: Path, chunk: tuple[bytes, bytes]) -> None:
    quarters(size=64).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    kind, body = chunk
    for check in (zlib.crc32(kind + body), 0):  # a wrong checksum, too
        made = struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", check)
        (tmp_path / "b.png").write_bytes(whole[:33] + made + whole[33:])
        assert colours(read_rgb(tmp_path / "b.png")) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(
    "segment",
    [
        (0xE2, b"ICC_PROFILE\0\1"),
        (0xE2, b"ICC_PROFILE\0\1\1" + bytes(200)),
        (0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
        (0xEE, b"Adobe"),
        (0xE0, b"JFIF\0"),
        (0xED, b"Photoshop 3.0\x008BIM\x04"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x"),
        (0xFE, b"comment" * 9000),
    ],
)
def test_odd_segments_are_ignored(tmp_path: Path, segment: tuple[int, bytes]) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_with(segment))
    got = colours(read_rgb(tmp_path / "a.jpg"))
    assert all(near(a, b, 12) for a, b in zip(got, (RED, GREEN, BLUE, WHITE), strict=True))


def test_a_photo_whose_exif_lists_the_same_bytes_thousands_of_times_takes_no_memory(tmp_path: Path) -> None:
    entries = [(0xC000 + i, 7, 5_000, struct.pack("<I", 60_000)) for i in range(4_900)]
    (tmp_path / "a.jpg").write_bytes(jpeg_with((0xE1, exif_with(*entries, more=bytes(5_000)))))
    tracemalloc.start()
    read_rgb(tmp_path / "a.jpg")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


# --- colours ---


def profile(primaries: Any, gamma: float, space: bytes = b"RGB ") -> bytes:
    """An ICC profile of matrix and curves."""

    def fixed(x: float) -> bytes:
        return struct.pack(">i", round(x * 65536))

    def xyz(v: Any) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, v))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = [(b"desc", b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(78))]
    tags += [(b"cprt", b"text\0\0\0\0none\0"), (b"wtpt", xyz((0.9642, 1, 0.8249)))]
    if space == b"GRAY":
        tags.append((b"kTRC", curve))
    else:
        tags += [(n, xyz(v)) for n, v in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)]
        tags += [(n, curve) for n in (b"rTRC", b"gTRC", b"bTRC")]
    at, table, data = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, body in tags:
        body += bytes(-len(body) % 4)
        table += name + struct.pack(">II", at + len(data), len(body))
        data += body
    head = struct.pack(">I4sI4s4s4s", at + len(data), b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642) + fixed(1) + fixed(0.8249)
    return head.ljust(128, b"\0") + table + data


PROPHOTO = profile(((0.79767, 0.28804, 0), (0.13519, 0.71188, 0), (0.03135, 0.00008, 0.82491)), 1.8)
ADOBE = profile(((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), 2.2)
P3 = profile(((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)), 2.2)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def soft() -> Image.Image:
    """Mild colours, which every profile here holds."""
    small = Image.fromarray(np.random.default_rng(3).integers(90, 170, (4, 4, 3), np.uint8))
    return small.resize((64, 64), Image.Resampling.BICUBIC)


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a).astype(int) - np.asarray(b)).mean())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("icc", [PROPHOTO, ADOBE, P3])
def test_colours_of_a_profile_become_srgb(tmp_path: Path, icc: bytes, suffix: str) -> None:
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    stored = ImageCms.profileToProfile(soft(), ImageCms.createProfile("sRGB"), source, outputMode="RGB")
    assert stored is not None and difference(stored, soft()) > 2
    more: dict[str, Any] = {"quality": 98} if suffix != ".png" else {}
    stored.save(tmp_path / f"a{suffix}", icc_profile=icc, **more)
    read = read_rgb(tmp_path / f"a{suffix}")
    assert difference(read, soft()) < 2 and "icc_profile" not in read.info
    assert difference(load_photo(tmp_path / f"a{suffix}", size=64), soft()) < 2
    assert difference(read_rgb(read), soft()) < 2, "once is enough"


@pytest.mark.parametrize("icc", [SRGB, SRGB[:200], b"junk" * 100, PROPHOTO[:300], profile((), 1.0, b"GRAY")])
def test_srgb_and_damaged_profiles_change_no_byte(tmp_path: Path, icc: bytes) -> None:
    soft().save(tmp_path / "a.png", icc_profile=icc)
    assert read_rgb(tmp_path / "a.png").tobytes() == soft().tobytes()
    assert load_photo(tmp_path / "a.png", size=32).tobytes() == soft().resize((32, 32)).tobytes()


def test_profiles_of_transparent_palette_grey_and_deep_photos(tmp_path: Path) -> None:
    seen = ImageCms.ImageCmsProfile(io.BytesIO(PROPHOTO))
    stored = ImageCms.profileToProfile(soft(), ImageCms.createProfile("sRGB"), seen, outputMode="RGB")
    assert stored is not None
    half = stored.copy()
    half.putalpha(Image.new("L", half.size, 0))
    half.paste(stored.crop((0, 0, 64, 32)), (0, 0))  # above opaque, below transparent
    half.save(tmp_path / "rgba.png", icc_profile=PROPHOTO)
    read = read_rgb(tmp_path / "rgba.png")
    assert difference(read.crop((0, 0, 64, 32)), soft().crop((0, 0, 64, 32))) < 2
    assert read.getpixel((5, 60)) == WHITE
    stored.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png", icc_profile=PROPHOTO)
    assert difference(read_rgb(tmp_path / "p.png"), soft()) < 6
    linear = profile((), 1.0, b"GRAY")
    Image.new("L", (8, 8), 55).save(tmp_path / "l.png", icc_profile=linear)
    assert near(read_rgb(tmp_path / "l.png").getpixel((1, 1)), (128, 128, 128))
    Image.fromarray(np.full((8, 8), 55 * 257, np.uint16)).save(tmp_path / "i.png", icc_profile=linear)
    assert near(read_rgb(tmp_path / "i.png").getpixel((1, 1)), (128, 128, 128))


# --- memory ---


def webp(width: int, height: int) -> bytes:
    bits = (width - 1) | ((height - 1) << 14)
    data = b"\x2f" + struct.pack("<I", bits) + b"\x88\x88\x08"
    return b"RIFF" + struct.pack("<I", 12 + len(data)) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


def png(width: int, height: int, colours: int, depth: int = 8) -> bytes:
    row = (width * {0: 1, 2: 3, 3: 1, 6: 4}[colours] * depth + 7) // 8 + 1
    packer, rest, block = zlib.compressobj(9), row * height, bytes(2**20)
    body = b""
    while rest:
        body += packer.compress(block[:rest])
        rest -= min(rest, len(block))
    body += packer.flush()
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)),
        (b"IDAT", body),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks
    )


def packed(mode: str, size: tuple[int, int], kind: str, **how: Any) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind, **how)
    return out.getvalue()


BOMBS: dict[str, Any] = {
    "max.webp": lambda: webp(16383, 16383),
    "big.webp": lambda: webp(9000, 9000),
    "float.tif": lambda: packed("F", (8000, 8000), "TIFF", compression="tiff_deflate"),
    "strip.tif": lambda: packed("RGB", (6000, 6000), "TIFF", compression="tiff_deflate", tiffinfo={278: 6000}),
    "grey16.png": lambda: png(6000, 6000, 0, 16),
    "rgba.png": lambda: png(5000, 5000, 6),
    "rgb.png": lambda: png(9000, 9000, 2),
    "tall.png": lambda: png(1, 50_000_000, 0),
    "narrow.png": lambda: png(20, 900_000, 2),
    "wide.png": lambda: png(900_000, 20, 6),
    "progressive.jpg": lambda: packed("RGB", (5000, 5000), "JPEG", progressive=True),
    "flat.jpg": lambda: packed("L", (8000, 8000), "JPEG"),
    "one.gif": lambda: packed("P", (8000, 8000), "GIF"),
    "film.gif": lambda: packed(
        "P", (2000, 2000), "GIF", save_all=True, append_images=[Image.new("P", (2000, 2000), i) for i in range(1, 9)]
    ),
    "a.jp2": lambda: packed("RGB", (3000, 3000), "JPEG2000"),
    "a.avif": lambda: packed("RGB", (3000, 3000), "AVIF", speed=10),
}
MEASURED = """
import resource, sys, time
from pops.errors import PhotoError
from pops.images import load_photo, read_rgb
load_photo(sys.argv[1])
for path in sys.argv[2:]:
    for read in (load_photo, read_rgb):
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            read(path)
            said = "read"
        except PhotoError as e:
            said = str(e).replace(path, "")
        seconds = time.process_time() - begun
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, seconds, said, sep="\\t")
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_little_more_than_its_pixels_or_is_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BOMBS[name]())
    quarters(size=64).save(tmp_path / "small.png")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURED, str(tmp_path / "small.png"), str(tmp_path / name)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    with Image.open(tmp_path / name) if name != "max.webp" else Image.new("1", (1, 1)) as image:
        own = 3 * image.width * image.height / 1024
    for line in done.stdout.splitlines():
        kilobytes, seconds, said = line.split("\t")
        if said == "read":
            assert int(kilobytes) < own + 64 * 1024, line
        else:
            assert float(seconds) < 0.2 and int(kilobytes) < 64 * 1024 and len(said) < 200, line


def test_real_photos_of_every_kind_are_not_taken_for_bombs(tmp_path: Path) -> None:
    """At a fortieth of a byte per pixel, as little as the smoothest photos take."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(60, 200, (60, 80, 3), np.uint8))
    photo = small.resize((4000, 3000), Image.Resampling.BICUBIC)
    for kind, how in (
        ("JPEG", {"quality": 85}),
        ("JPEG", {"quality": 85, "progressive": True}),
        ("WEBP", {"quality": 80}),
        ("PNG", {"compress_level": 1}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ):
        photo.save(tmp_path / "a", kind, **how)
        assert load_photo(tmp_path / "a", size=64).size == (64, 64)
        assert read_rgb(tmp_path / "a").size == (4000, 3000)


def test_large_photos_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pops import images

    monkeypatch.setattr(images, "LARGE", 1000)
    now, most = [0], [0]
    load = Image.Image.load

    def watched(self: Image.Image) -> Any:
        if isinstance(self, PngImagePlugin.PngImageFile):
            now[0] += 1
            most[0] = max(most[0], now[0])
            time.sleep(0.01)
            now[0] -= 1
        return load(self)

    quarters(size=64).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", watched)
    with ThreadPoolExecutor(4) as pool:
        assert len({i.tobytes() for i in pool.map(load_photo, [tmp_path / "a.png"] * 8)}) == 1
    assert most == [1]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "I;16", "I", "F", "1"])
def test_bands_are_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pops.images import pixels

    rng = np.random.default_rng(1)
    rgba = Image.fromarray(rng.integers(0, 255, (70, 45, 4), np.uint8))
    deep = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    if mode in deep:
        image = Image.fromarray(rng.integers(0, 60_000, (70, 45)).astype(deep[mode]))
    else:
        image = rgba if mode == "RGBA" else rgba.convert("RGB").convert(mode)
    fits = ("squash", "crop", "pad")
    slow = [load_photo(image, fit=fit, size=32) for fit in fits]
    own = read_rgb(image).tobytes()
    monkeypatch.setattr(pixels, "_BAND", 100)
    assert read_rgb(image).tobytes() == own
    assert [load_photo(image, fit=fit, size=32).tobytes() for fit in fits] == [i.tobytes() for i in slow]
    monkeypatch.setattr(pixels, "_COPY", 0)
    for fit, before in zip(fits, slow, strict=True):
        assert difference(load_photo(image, fit=fit, size=32), before) < (4 if mode == "1" else 1)


def test_a_very_tall_photo_is_resized_by_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    from pops.images import pixels

    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (400, 20, 3), np.uint8))
    rows = load_photo(image, size=32)
    monkeypatch.setattr(pixels, "LARGE", 50_000)
    assert difference(load_photo(image, size=32), rows) < 1


def test_an_icon_is_as_large_as_the_picture_in_it(tmp_path: Path) -> None:
    inside = png_header(30_000, 30_000)
    head = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22)
    (tmp_path / "a.ico").write_bytes(head + inside)
    with pytest.raises(PhotoError, match="too large"):
        load_photo(tmp_path / "a.ico")


# --- other kinds of files ---


def test_avif_is_read(tmp_path: Path) -> None:
    pytest.importorskip("PIL._avif")
    quarters(size=64).save(tmp_path / "a.avif", quality=95)
    got = colours(load_photo(tmp_path / "a.avif", size=64))
    assert all(near(a, b, 25) for a, b in zip(got, (RED, GREEN, BLUE, WHITE), strict=True))


def test_heic_names_the_extra_and_raw_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    with pytest.raises(PhotoError, match=r"IMG_1.HEIC is a HEIC photo; .* pip install 'pops-diffusion\[heif\]'"):
        load_photo(tmp_path / "IMG_1.HEIC")
    quarters(size=64).save(tmp_path / "thumbnail.tif")
    (tmp_path / "thumbnail.tif").rename(tmp_path / "IMG.NEF")
    with pytest.raises(PhotoError, match=r"a camera's RAW file \(NEF\).*export it as JPEG"):
        load_photo(tmp_path / "IMG.NEF")


def test_heic_is_read_with_the_extra(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    quarters(size=64).save(tmp_path / "a.heic", quality=95)
    got = colours(load_photo(tmp_path / "a.heic", size=64))
    assert all(near(a, b, 25) for a, b in zip(got, (RED, GREEN, BLUE, WHITE), strict=True))


def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(PhotoError, match="not a regular file"):
            load_photo(path)


def test_names_in_either_form_and_no_unicode(tmp_path: Path) -> None:
    quarters(size=32).save(tmp_path / unicodedata.normalize("NFD", "café.png"))
    assert colours(load_photo(tmp_path / unicodedata.normalize("NFC", "café.png"), size=32))[0] == RED
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    save_picture(quarters(size=32), odd, {"inputs": {str(odd): "0"}})
    assert read_recipe(odd) == {"inputs": {str(odd): "0"}}
    assert colours(load_photo(odd, size=32))[0] == RED


def test_messages_quote_little() -> None:
    for path in ("x" * 100_000 + ".png", "a/" * 30_000):
        with pytest.raises(PhotoError) as caught:
            load_photo(path)
        assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 5000, '{"a": ' + "9" * 5000 + "}", '{"a":' * 900 + "1" + "}" * 900])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_hostile_recipes_are_one_line(tmp_path: Path, text: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("pops", text)
        quarters().save(path, pnginfo=info)
    else:
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0pops:" + text.encode()
        quarters().save(path, exif=exif)
    with pytest.raises(PhotoError, match="its recipe is damaged") as caught:
        read_recipe(path)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("before", [{"a": "x"}, None])
@pytest.mark.parametrize("after", [{"b": "é", "long": "y" * 5000}, None])
def test_another_recipe_in_a_png_is_as_if_written_with_it(
    tmp_path: Path, before: dict[str, str] | None, after: dict[str, str] | None
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    save_picture(image, tmp_path / "a.png", before)
    save_picture(image, tmp_path / "b.png", after)
    assert with_recipe((tmp_path / "a.png").read_bytes(), after, "a") == (tmp_path / "b.png").read_bytes()


def test_a_damaged_png_is_refused_by_name(tmp_path: Path) -> None:
    save_picture(Image.new("RGB", (40, 30)), tmp_path / "a.png", {"a": "x"})
    png = bytearray((tmp_path / "a.png").read_bytes())
    for damaged in (bytes(png[:-20]), b"", bytes(png[:60]) + b"?" + bytes(png[61:])):
        with pytest.raises(PhotoError, match=r"^a\.png came damaged"):
            check_png(damaged, "a.png")
    check_png(bytes(png), "a.png")
