"""The published recipes: filters on made-up detections, and every recipe end to end on small random models."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from data.teacher_models import write_tools
from pops.data import Folder, filters, tools
from pops.data.filters import Box
from pops.data.make import make_examples
from pops.data.published import NEEDS
from pops.data.teachers import Rejected, teacher
from pops.errors import ConfigError, ModelError
from pops.images import load_photo

RED, GREEN = (200, 30, 30), (30, 200, 30)


def square(side: int = 512, box: tuple[int, int, int, int] = (100, 100, 400, 400)) -> tuple[Image.Image, Image.Image]:
    """A red square on green, and its mask."""
    picture, mask = Image.new("RGB", (side, side), GREEN), Image.new("L", (side, side))
    ImageDraw.Draw(picture).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=RED)
    ImageDraw.Draw(mask).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=255)
    return picture, mask


def test_the_best_detection() -> None:
    boxes = [Box("cat", 0.3, 0, 0, 100, 100), Box("cat", 0.6, 5, 5, 200, 200), Box("dog", 0.9, 0, 0, 500, 500)]
    assert filters.best(boxes, "cat") is boxes[1]
    with pytest.raises(Rejected, match="score"):
        filters.best(boxes, "cow")
    with pytest.raises(Rejected, match="score"):
        filters.best([Box("cat", 0.2, 0, 0, 300, 300)], "cat")
    with pytest.raises(Rejected, match="area"):
        filters.best([Box("cat", 0.9, 0, 0, 50, 100)], "cat")
    assert filters.best([Box("cat", 0.9, 0, 0, 50, 100)], "cat", 256).area == 5000  # a quarter of the pixels


def test_what_is_too_small_for_an_exemplar_is_not_repainted() -> None:
    from pops.data.published import texturing

    class Few:
        """Stands for the tools up to the detection."""

        def draw(self, prompt: str, seed: int) -> Image.Image:
            return Image.new("RGB", (512, 512))

        def find(self, picture: Image.Image, names: list[str]) -> list[Box]:
            return [Box(names[0], 0.9, 0, 0, 400, 150)]

    with pytest.raises(Rejected, match="crop"):
        texturing(Few(), random.Random(0))  # type: ignore[arg-type]


def test_overlap() -> None:
    a, b = Box("a", 1, 0, 0, 100, 100), Box("b", 1, 50, 0, 150, 100)
    assert a.overlap(b) == pytest.approx(1 / 3) and a.overlap(a) == 1 and a.overlap(Box("c", 1, 200, 0, 300, 9)) == 0
    with pytest.raises(Rejected, match="overlap"):
        filters.apart(a, b)
    filters.apart(a, Box("b", 1, 95, 0, 195, 100))


def test_masks() -> None:
    _, mask = square()
    assert filters.checked_mask(mask).tobytes() == mask.tobytes()
    for empty in (Image.new("L", (64, 64)), Image.new("L", (64, 64), 255)):
        with pytest.raises(Rejected, match="mask"):
            filters.checked_mask(empty)
    assert filters.dilated(mask).getbbox() == (85, 85, 415, 415)
    _, small = square(256, (50, 50, 200, 200))
    assert filters.dilated(small).getbbox() == (42, 42, 208, 208)


def test_exemplars_lie_in_the_mask() -> None:
    picture, mask = square()
    sides = set()
    for seed in range(20):
        cut = filters.exemplar(picture, mask, Box("a", 1, 100, 100, 400, 400), random.Random(seed))
        assert cut.width == cut.height and cut.getcolors() == [(cut.width**2, RED)]
        sides.add(cut.width)
    assert min(sides) >= 96 and max(sides) <= 150 and len(sides) > 5
    for box in (Box("a", 1, 100, 100, 280, 400), Box("a", 1, 0, 0, 99, 512)):  # too narrow
        with pytest.raises(Rejected, match="crop"):
            filters.exemplar(picture, mask, box, random.Random(0))
    with pytest.raises(Rejected, match="crop"):
        filters.exemplar(picture, Image.new("L", (512, 512)), Box("a", 1, 100, 100, 400, 400), random.Random(0))


def test_pasting() -> None:
    picture, mask = square(512, (100, 150, 300, 250))
    made = filters.pasted(picture, mask, random.Random(0))
    assert made.size == (512, 512) and made.getpixel((0, 0)) == (255, 255, 255) and made.getpixel((256, 256)) == RED
    red = made.point(lambda v: 255 if v < 128 else 0).getchannel("G").getbbox()
    assert red is not None and 0.79 * 512 <= red[2] - red[0] <= 0.96 * 512
    assert (red[2] - red[0]) == pytest.approx(2 * (red[3] - red[1]), abs=3)
    assert filters.pasted(picture, mask, random.Random(0), Image.new("RGB", (9, 9), "blue")).getpixel((0, 0)) == (
        0,
        0,
        255,
    )
    with pytest.raises(Rejected, match="mask"):
        filters.pasted(picture, Image.new("L", (512, 512)), random.Random(0))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_tools(tmp_path_factory.mktemp("tools"))


ROLES = {
    "texturing": ["object", "texture"],
    "union": ["a", "b"],
    "scene": ["object", "scene"],
    "instruct": ["object", "word"],
    "clothes": [f"garment_{k}" for k in range(1, 7)],
}


@pytest.mark.parametrize("operator", NEEDS)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_recipes_end_to_end(
    operator: str, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "STEPS", 2)
    monkeypatch.setattr(filters, "FILLED", 0.5)  # masks of random weights are speckled
    taught = teacher("diffusion", size=64, tools=models, device="cpu")
    made = make_examples(operator, tmp_path / "f", taught, count=1, tries=12)
    folder = Folder.read(tmp_path / "f")
    assert [role.name for role in folder.roles] == ROLES[operator]
    assert len(folder) == (5 if operator == "texturing" else 1) and made.failed == 0
    for example in folder.rows():
        assert (example.target is None) is (operator == "instruct") is bool(example.caption)
        for path in filter(None, (*example.images.values(), example.target)):
            load_photo(path)
    card = (tmp_path / "f/README.md").read_text()
    assert all(models[tool] in card for tool in NEEDS[operator])


def test_bad_tools(models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown tool 'detecter' .did you mean 'detector'"):
        teacher("diffusion", tools={"detecter": "x"})
    with pytest.raises(ConfigError, match="multiple of 8"):
        teacher("diffusion", size=90)
    with pytest.raises(ModelError, match="there is no model for draw nothing.here"):
        make_examples("instruct", tmp_path / "a", teacher("diffusion", tools={"draw": "nothing/here/x"}), count=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="does not load as the model for draw .*--tool draw=FOLDER"):
        made = teacher("diffusion", tools={"draw": str(tmp_path / "empty")}, device="cpu")
        make_examples("instruct", tmp_path / "b", made, count=1)
