"""Pictures unlike toybox's, for `familiar`: crops of photographs, cut-out things on backdrops, noise like theirs."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from pops.images import PHOTO_SUFFIXES
from recipes.tiny import settings

SIDE = settings.SIZE
LARGE = 2 * SIDE  # pixels, square: pictures from which crops are cut
FLAT = 8.0  # standard deviation of grey levels below which a picture shows nothing
LEAST = 96  # pixels per side of a picture that is used
_RESAMPLINGS = (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BILINEAR)


def files(folders: Iterable[Path]) -> list[Path]:
    """Finds the pictures in folders, subfolders included, sorted."""
    found = sorted(path for folder in folders for path in folder.rglob("*"))
    return [path for path in found if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file()]


class Unlike:
    """Draws pictures of the size that the image tower sees, from a seed.

    paths: of what they are made of: pictures with transparency are cut-out things, all others photographs.
    """

    def __init__(self, paths: Sequence[Path], seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.photos: list[Image.Image] = []
        self.things: list[Image.Image] = []
        for path in paths:
            with Image.open(path) as image:
                if min(image.size) < LEAST:
                    continue
                image.thumbnail((4 * LARGE, 4 * LARGE))
                clear = image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 128
                if clear:
                    self.things.append(_cut_out(image.convert("RGBA")))
                else:
                    photo = image.convert("RGB").resize((LARGE, LARGE), Image.Resampling.LANCZOS)
                    self.photos += [photo] if np.asarray(photo).std() > FLAT else []
        if not self.photos:
            raise SystemExit("there are no photographs in these folders")

    def draw(self, count: int) -> Tensor:
        """Draws pictures => uint8 [count, 3, SIDE, SIDE]."""
        kinds = self.rng.choices((self.crop, self.composed, spectrum), (0.48, 0.45 * bool(self.things), 0.07), k=count)
        made = (kind(self.rng) if kind is spectrum else kind() for kind in kinds)  # type: ignore[call-arg]
        return torch.stack([spoilt(image, self.rng) for image in made])

    def crop(self) -> Image.Image:
        """Cuts a square from a photograph; of some the contrast and the colours are changed."""
        rng, photo = self.rng, self.rng.choice(self.photos)
        side = int(LARGE * rng.uniform(0.35, 1))
        x, y = rng.randint(0, LARGE - side), rng.randint(0, LARGE - side)
        image = photo.resize((SIDE, SIDE), rng.choice(_RESAMPLINGS), box=(x, y, x + side, y + side))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < 0.3:
            pixels = (np.asarray(image) - 128.0) * rng.uniform(0.8, 1.25) + 128 * rng.uniform(0.85, 1.15)
            image = _image(pixels * [rng.uniform(0.92, 1.08) for _ in range(3)])
        return image

    def composed(self) -> Image.Image:
        """Puts one or two cut-out things on a backdrop, some with a shadow."""
        rng, image = self.rng, self.backdrop()
        for _ in range(1 if rng.random() < 0.85 else 2):
            side = int(SIDE * rng.uniform(0.45, 1))
            thing = rng.choice(self.things).resize((side, side), Image.Resampling.LANCZOS)
            if rng.random() < 0.5:
                thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            x, y = rng.randint(0, SIDE - side), rng.randint(0, SIDE - side)
            if rng.random() < 0.4:
                flat = thing.getchannel("A").resize((side, side // 4)).filter(ImageFilter.GaussianBlur(2))
                image.paste((40, 40, 40), (x, y + side - side // 4), flat.point(lambda a: int(a * 0.35)))
            image.paste(thing, (x, y), thing)
        return image

    def backdrop(self) -> Image.Image:
        """White, a soft colour that falls off as toybox's studios do, or a photograph."""
        rng, lot = self.rng, self.rng.random()
        if lot < 0.3:
            return Image.new("RGB", (SIDE, SIDE), "white")
        if lot > 0.7:
            return self.crop()
        colour = np.array([rng.uniform(120, 255) for _ in range(3)])
        if rng.random() < 0.6:
            colour = colour.mean() + 0.3 * (colour - colour.mean())
        y, x = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE), indexing="ij")
        fall = rng.uniform(-25, 25) * y + rng.uniform(-12, 12) * x - rng.uniform(0, 20) * (x * x + y * y)
        return _image(colour + fall[..., None])


def spectrum(rng: random.Random) -> Image.Image:
    """Draws noise whose amplitudes fall with frequency as a photograph's do, 1 / f to a power."""
    noise = np.random.default_rng(rng.randrange(2**31))
    f = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None])
    f[0, 0] = 1
    power = rng.uniform(0.6, 2.2)
    planes = [np.fft.ifft2(np.fft.fft2(noise.normal(size=(SIDE, SIDE))) / f**power).real for _ in range(3)]
    pixels = np.stack([plane / plane.std() for plane in planes], -1)
    pixels = pixels @ (1 + noise.normal(size=(3, 3)) * rng.uniform(0.1, 0.6))
    return _image(128 + rng.uniform(-40, 60) + pixels / pixels.std() * rng.uniform(20, 60))


def spoilt(image: Image.Image, rng: random.Random) -> Tensor:
    """Shrinks and enlarges, blurs or stores an image as JPEG, or not => uint8 [3, SIDE, SIDE].

    Familiar pictures are spoilt in the same way, so that none of it tells one from the other.
    """
    if rng.random() < 0.3:
        side = rng.randint(SIDE // 2 + 8, SIDE - 1)
        image = image.resize((side, side)).resize((SIDE, SIDE))
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1)))
    if rng.random() < 0.4:
        stored = io.BytesIO()
        image.save(stored, "JPEG", quality=rng.randint(45, 95), subsampling=rng.choice((0, 2)))
        image = Image.open(stored).convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _cut_out(image: Image.Image) -> Image.Image:
    """Returns what is not transparent, in the middle of a clear square."""
    image = image.crop(image.getchannel("A").getbbox())
    side = max(image.size)
    square = Image.new("RGBA", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.resize((LARGE, LARGE), Image.Resampling.LANCZOS)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
