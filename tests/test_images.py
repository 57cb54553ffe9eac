"""Every kind of photo becomes the right RGB square or a one-line error; images keep their recipes."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from pops.errors import ConfigError, PhotoError
from pops.images import PHOTO_SUFFIXES, load_photo, read_recipe, save_picture

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


@pytest.mark.parametrize("suffix", [s for s in PHOTO_SUFFIXES if s not in (".pgm", ".gif", ".jp2", ".avif", ".heic", ".heif")])
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
    assert [out.getpixel((x, 1))[0] for x in range(3)] == [0, 102, 255]


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
    more = {"lossless": True} if suffix == ".webp" else {}
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
