"""The sound inputs that the fuzzers damage."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms, PngImagePlugin
from safetensors.torch import save

from pops.images import save_picture

EXPRESSIONS = (
    "texturing(teapot.png, tiger.png)",
    "scene(texturing(teapot.png, tiger.png) @3, beach.png, steps=2, guidance=1.5)",
    'instruct(rabbit.png, "golden") + 0.3*dog.jpg - 0.25*e.safetensors',
    "let t = union(a.png, _); union(t, t@7)",
    'mix(rabbit.png, 0.7*"tiger:0.5" + 0.3*"gold", nu=0.9, k_min=0.2, size="96x128")',
    "text('a marble rabbit', steps=5) @18446",
    "# a note\nunion(photo('x y'), $given)",
    "0.5*(a.png + b.png) - saved('./e')",
)
YAMLS = (
    "{texturing: [teapot.png, tiger.png], seed: 3, guidance: 4}\n",
    "sum:\n- [0.3, a.png]\n- [0.7, {text: a marble rabbit}]\n",
    "{let: {t: &t {union: [a.png, b.png]}}, in: {union: [*t, t@7, ~]}}\n",
    "mix: [a.png, 'tiger']\nnu: 0.9\nsize: 96x128\n",
    "instruct:\n  - {photo: odd name}\n  - >-\n    golden\n    fur\n",
)
TREES: tuple[Any, ...] = (
    {"texturing": ["teapot.png", "tiger.png"], "seed": 3, "guidance": 4},
    {"sum": [[0.3, "a.png"], [0.7, {"text": "a marble rabbit", "steps": 2}]]},
    {"let": {"t": {"union": ["a.png", None]}}, "in": {"union": ["t", "t@7", {"saved": "e"}]}},
    {"mix": ["a.png", {"sum": [[0.5, "tiger"], [0.5, "gold"]]}], "nu": 0.9, "size": "96x128"},
)
RECIPE: dict[str, Any] = {
    "version": 1,
    "expression": "texturing(teapot.png, tiger.png)",
    "seeds": [0, 1],
    "num_images": 2,
    "image": 1,
    "making": {"steps": 2, "guidance": 1.5, "sampler": "ddim", "fit": "crop"},
    "rendering": {
        "size": [64, 96],
        "steps": 5,
        "prompt": "a",
        "negative": "b",
        "scale": 0.7,
        "control": {"depth": "d.png"},
    },
    "loading": {"model": "tiny", "operators": {"union": "op"}, "device": "cpu", "precision": "float32"},
    "inputs": {"teapot.png": "0123456789abcdef"},
    "versions": {"pops": "0.1.0"},
}
GRID: dict[str, Any] = {
    "version": 1,
    "expression": "mix(a.png, 'tiger')",
    "sweep": [{"name": "nu", "values": [0.5, 0.9]}, {"name": "k_min", "values": [0.2, 0.3]}],
}


def _picture(mode: str = "RGB", size: tuple[int, int] = (24, 18)) -> Image.Image:
    rng = np.random.default_rng(7)
    noise = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size)
    if mode == "I;16":
        return Image.fromarray(np.asarray(noise.convert("L")).astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(np.asarray(noise.convert("L")).astype(np.float32) / 255)
    return noise.convert(mode)


def photos(folder: Path) -> dict[str, list[bytes]]:
    """Returns photos of every kind that pops reads, by suffix."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "words"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "words " * 20, zip=True)
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6">')
    more = [_picture("RGB").rotate(90 * i) for i in range(1, 4)]
    made: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
        ".png": [
            ("RGB", "PNG", {"icc_profile": srgb, "exif": exif, "pnginfo": text}),
            ("RGBA", "PNG", {}), ("P", "PNG", {"transparency": 3}), ("1", "PNG", {}), ("LA", "PNG", {}),
            ("I;16", "PNG", {}), ("RGB", "PNG", {"save_all": True, "append_images": more, "duration": 50}),
        ],
        ".jpg": [
            ("RGB", "JPEG", {"exif": exif, "icc_profile": srgb, "comment": b"words"}),
            ("RGB", "JPEG", {"progressive": True}), ("CMYK", "JPEG", {}), ("L", "JPEG", {"optimize": True}),
        ],
        ".webp": [
            ("RGB", "WEBP", {"exif": exif, "icc_profile": srgb}), ("RGBA", "WEBP", {"lossless": True}),
            ("RGB", "WEBP", {"save_all": True, "append_images": more}),
        ],
        ".gif": [("P", "GIF", {"transparency": 2}), ("RGB", "GIF", {"save_all": True, "append_images": more})],
        ".tif": [
            ("RGB", "TIFF", {"exif": exif}), ("RGB", "TIFF", {"compression": "tiff_lzw"}), ("F", "TIFF", {}),
            ("CMYK", "TIFF", {"compression": "tiff_deflate"}), ("L", "TIFF", {"compression": "packbits"}),
            ("I;16", "TIFF", {}), ("RGB", "TIFF", {"compression": "jpeg"}), ("1", "TIFF", {"compression": "group4"}),
            ("RGB", "TIFF", {"save_all": True, "append_images": more}),
        ],
        ".bmp": [("RGB", "BMP", {}), ("P", "BMP", {}), ("1", "BMP", {})],
        ".ppm": [("RGB", "PPM", {}), ("L", "PPM", {})],
        ".tga": [("RGBA", "TGA", {"compression": "tga_rle"}), ("P", "TGA", {})],
        ".ico": [("RGBA", "ICO", {"sizes": [(16, 16), (24, 24)]}), ("RGBA", "ICO", {"bitmap_format": "bmp"})],
        ".jp2": [("RGB", "JPEG2000", {}), ("RGBA", "JPEG2000", {})],
        ".avif": [("RGB", "AVIF", {"exif": exif}), ("RGBA", "AVIF", {})],
    }  # fmt: skip
    seeds: dict[str, list[bytes]] = {}
    for suffix, kinds in made.items():
        for mode, kind, how in kinds:
            out = io.BytesIO()
            _picture(mode).save(out, kind, **how)
            seeds.setdefault(suffix, []).append(out.getvalue())
    for suffix in (".png", ".jpg", ".webp"):
        save_picture(_picture(), folder / f"made{suffix}", RECIPE)
        seeds[suffix].append((folder / f"made{suffix}").read_bytes())
    try:
        import pillow_heif
    except ImportError:
        return seeds
    out = io.BytesIO()
    pillow_heif.from_pillow(_picture(size=(64, 48))).save(out)
    seeds[".heic"] = [out.getvalue()]
    return seeds


def embeddings(folder: Path) -> dict[str, list[bytes]]:
    """Returns files of embeddings of every kind that pops reads, by suffix."""
    from pops.embedding import Embedding

    vectors = torch.linspace(-1, 1, 24).reshape(3, 8)
    made = Embedding(vectors, "space", {"sum": [{"weight": 1.0}]})
    seeds: dict[str, list[bytes]] = {}
    for suffix in (".safetensors", ".npy", ".ipadpt"):
        made.save(folder / f"e{suffix}")
        seeds[suffix] = [(folder / f"e{suffix}").read_bytes()]
    seeds[".safetensors"].append(save({"embeds": vectors.half(), "more": torch.arange(4)}, {"format": "pt"}))
    held: tuple[Any, ...] = ([torch.ones(2, 1, 8)], {"image_embeds": vectors}, vectors.double(), [vectors, vectors])
    for i, value in enumerate(held):
        torch.save(value, folder / f"{i}.pt", _use_new_zipfile_serialization=i % 2 == 0)
        seeds.setdefault(".pt", []).append((folder / f"{i}.pt").read_bytes())
    for array in (np.ones((2, 8), ">f2"), np.ones((8,), "<f8"), np.asfortranarray(np.ones((1, 3, 8), "f4"))):
        out = io.BytesIO()
        np.save(out, array)
        seeds[".npy"].append(out.getvalue())
    return seeds
