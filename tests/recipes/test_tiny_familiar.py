"""What tiny was trained on: pictures unlike it, its network's two forms, and the words of its captions."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from recipes.tiny import familiar
from recipes.tiny.familiar import LAYERS, Network
from recipes.tiny.unlike import SIDE, Unlike, files, spectrum, spoilt

from pops.models.familiar import Familiar, strangeness_of


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A photograph, a cut-out thing, and what is left out: a small one, a flat one, a text."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 150, 3), dtype=np.uint8)
    (tmp_path / "inside").mkdir()
    Image.fromarray(noise).save(tmp_path / "inside" / "photo.jpg")
    thing = Image.new("RGBA", (140, 140))
    thing.paste((250, 0, 0, 255), (40, 20, 90, 120))
    thing.save(tmp_path / "thing.png")
    Image.fromarray(noise[:40]).save(tmp_path / "small.png")
    Image.new("RGB", (120, 120), "white").save(tmp_path / "flat.png")
    (tmp_path / "read.txt").write_text("me")
    return tmp_path


def test_pictures_unlike_are_drawn_from_the_seed(pictures: Path) -> None:
    paths = files([pictures])
    assert [path.name for path in paths] == ["flat.png", "photo.jpg", "small.png", "thing.png"]
    source = Unlike(paths)
    assert (len(source.photos), len(source.things)) == (1, 1)
    drawn = source.draw(12)
    assert drawn.shape == (12, 3, SIDE, SIDE) and drawn.dtype == torch.uint8
    assert torch.equal(drawn, Unlike(paths).draw(12)) and not torch.equal(drawn, Unlike(paths, 1).draw(12))
    red = (drawn[:, 0] > 200) & (drawn[:, 1] < 60) & (drawn[:, 2] < 60)
    assert red.any(), "the cut-out thing is nowhere"


def test_without_photographs_there_is_nothing_to_learn_from(pictures: Path) -> None:
    with pytest.raises(SystemExit, match="no photographs"):
        Unlike([pictures / "thing.png"])


def test_noise_has_the_spectrum_of_photographs() -> None:
    pixels = np.asarray(spectrum(random.Random(0))).astype(float).mean(-1)
    power = np.abs(np.fft.fft2(pixels - pixels.mean())) ** 2
    low, high = power[1:6, 1:6].mean(), power[30:40, 30:40].mean()
    assert low > 10 * high


def test_spoiling_keeps_the_picture() -> None:
    image = Image.radial_gradient("L").resize((SIDE, SIDE)).convert("RGB")
    for seed in range(12):
        changed = spoilt(image, random.Random(seed)).float()
        assert (changed.mean(0) - torch.from_numpy(np.array(image)).float().mean(-1)).abs().mean() < 6


def test_the_networks_two_forms_are_one() -> None:
    """The normalised network of training against the folded tensors, to the rounding of float16."""
    torch.manual_seed(0)
    network = Network()
    pixels = torch.randint(0, 256, (16, 3, SIDE, SIDE), dtype=torch.uint8)
    for _ in range(20):
        network(pixels)  # moves the statistics of the normalisation off their start
    wanted = network.eval()(pixels[:4]).detach()
    found = strangeness_of(pixels[:4], {k: v.float() for k, v in network.folded().items()}, len(LAYERS))
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=2e-3)


def test_the_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One held-back picture in a hundred is above it, or fewer where an example would be."""
    monkeypatch.setattr(familiar, "SEEDS", 8)
    monkeypatch.setattr(familiar, "MARGIN", 1e-4)  # scores of a network that learned nothing are close together
    torch.manual_seed(0)
    network, back = Network().eval(), torch.randint(0, 256, (200, 3, SIDE, SIDE), dtype=torch.uint8)
    images = familiar._images(back)
    flagged = {}
    for name, order in (("plain", False), ("strange", True)):
        weights = {k: v.float() for k, v in network.folded().items()}
        scores = strangeness_of(back, weights, len(LAYERS))
        example = images[int(scores.argmax() if order else scores.argmin())]
        monkeypatch.setattr(familiar, "examples", lambda example=example: [example])
        familiar.write(tmp_path / name, network, back)
        read = Familiar.load(tmp_path / name)
        flagged[name] = sum(read.unfamiliar(images))
    assert flagged == {"plain": 2, "strange": 0}
    assert "teapot" in read.words and "astronaut" not in read.words
