"""What notebooks show: pictures with their seeds, every text escaped, little enough to be stored."""

from __future__ import annotations

import base64
import copy
import io
import pickle
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pops
from pops.embedding import Embedding
from pops.errors import PhotoError
from pops.images import Picture, find_recipe
from pops.notebook import MOST_PICTURES
from pops.recipe import Recipe, Sweep
from pops.result import Result
from pops.studio import Pops

EVIL = "<img src=x onerror=alert(1)>\"'&"


class Tags(HTMLParser):
    """Collects the tags and the text of HTML, and fails on a tag that nobody closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self) -> list[Image.Image]:
        """The embedded images, decoded."""
        found = [a.get("src") or a.get("href") for tag, a in self.tags if tag in ("img", "image")]
        return [Image.open(io.BytesIO(base64.b64decode(str(uri).split(",", 1)[1]))) for uri in found]


def noise(seed: int, side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def result_of(recipe: Recipe, images: list[Image.Image], **more: object) -> Result:
    made = [recipe.model_copy(update={"image": i}).attach(image) for i, image in enumerate(images)]
    return Result(made, recipe, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def p(folder: Path) -> Pops:
    return pops.load(folder, device="cpu")


def test_a_result_shows_each_image_with_its_seed(p: Pops, photos: Path) -> None:
    result = p("union(a.png, b.png)", seed=[3, 8], num_images=2, steps=2)
    shown = Tags(result._repr_html_())
    assert re.findall(r"\[\d\] seed \d", shown.text) == ["[0] seed 3", "[1] seed 4", "[2] seed 8", "[3] seed 9"]
    assert "4 images · 32 x 32" in shown.text and "union(a.png, b.png)" in shown.text
    for image, made in zip(shown.pictures(), result, strict=True):
        assert image.convert("RGB").tobytes() == made.tobytes(), "small images are shown without loss"


def test_a_hundred_images_of_any_kind_take_at_most_a_megabyte() -> None:
    recipe = Recipe.of("a.png", seed=list(range(120)))
    shown = result_of(recipe, [noise(i, 256) for i in range(120)])._repr_html_()
    assert len(shown) < 1_000_000
    parsed = Tags(shown)
    assert len(parsed.pictures()) == MOST_PICTURES and "and 20 more" in parsed.text


def test_no_text_of_anybody_becomes_html(p: Pops, photos: Path, tmp_path: Path) -> None:
    name = "<svg onload=alert(1)>.png"
    noise(0, 16).save(tmp_path / name)
    expression = pops.parse(f"mix('{name}', \"{EVIL.replace(chr(34), '')}\")")
    given = Embedding(torch.ones(1, 32), EVIL, {"expression": EVIL})
    recipe = Recipe(expression=EVIL, seeds=(0,))
    result = result_of(recipe, [noise(0, 16)], notes=[EVIL], figures={EVIL: noise(0, 16)})
    trace = p.trace(expression, steps=2)
    for value in (expression, given, result, trace):
        tags = Tags(value._repr_html_())
        used = {tag for tag, _ in tags.tags}
        assert not used - {"div", "b", "table", "tr", "td", "th", "figure", "figcaption", "img", "svg", "g", "title",
                           "rect", "path", "text", "image"}  # fmt: skip
        assert not [key for _, attrs in tags.tags for key in attrs if key.startswith("on")]
        assert "onerror" in tags.text, "it is shown as text"
        value._repr_html_().encode("utf-8")


def test_names_that_are_no_unicode_are_shown() -> None:
    Tags(pops.parse("union('\udcff.png', b.png)")._repr_html_()).text.encode("utf-8")


def test_an_embedding_shows_rows_norms_and_origin(p: Pops, photos: Path) -> None:
    one = p.evaluate("union(a.png, b.png)", seed=[4, 5], steps=2)
    text = Tags(one._repr_html_()).text
    assert "2 rows of 32 numbers · space random-32" in text and "union(a.png, b.png)" in text
    assert f"04{one.vectors[0].norm():.4g}" in text and f"15{one.vectors[1].norm():.4g}" in text
    added = Embedding.weighted([(0.25, one), (0.75, p.embed("a.png"))])
    assert "0.25*(union(a.png, b.png)) + 0.75*(…)" in Tags(added._repr_html_()).text
    assert "row0" not in Tags(Embedding(torch.ones(1, 2), "s")._repr_html_()).text.replace("rownorm", "")
    many = Tags(Embedding(torch.ones(40, 2), "s")._repr_html_()).text
    assert "and 28 more rows" in many


def test_an_expression_shows_its_tree_with_kinds() -> None:
    shown = Tags(pops.parse('let t = texturing(a.png, _); 0.3*union(t, t@7) + 0.7*text("sea", steps=4)')._repr_html_())
    names = re.findall(r"union|texturing|sum|missing|weighted|“sea”|steps=4|@7|a\.png \(photo\)", shown.text)
    assert {"union", "texturing", "missing", "weighted", "“sea”", "steps=4", "@7", "a.png (photo)"} <= set(names)
    assert len([1 for tag, _ in shown.tags if tag == "rect"]) == 8, "a shared operand is drawn once"
    assert len([1 for tag, _ in shown.tags if tag == "path"]) == 9


def test_odd_expressions_are_shown_all_the_same() -> None:
    wrong = pops.parse("let t = x.png; union(t, t@7)")  # a photo takes no seed, which only a plan finds
    assert "let" in Tags(wrong._repr_html_()).text
    many = pops.parse("union(" + ", ".join(f"{i}.png" for i in range(150)) + ")")
    shown = Tags(many._repr_html_())
    assert "149.png" in shown.text and "svg" not in {tag for tag, _ in shown.tags}
    doubled = "let a0 = x.png; " + "".join(f"let a{i + 1} = union(a{i}, a{i}); " for i in range(60)) + "a60"
    assert len(pops.parse(doubled)._repr_html_()) < 200_000, "2**60 leaves, 61 nodes"


def test_a_trace_shows_its_photos_and_mixes(p: Pops, photos: Path) -> None:
    trace = p.trace('mix(union(a.png, b.png), "tiger")', steps=2)
    assert len(Tags(trace._repr_html_()).pictures()) == 3
    Path("b.png").unlink()
    assert len(Tags(trace._repr_html_()).pictures()) == 2, "a photo that is gone is a card"


def test_a_grid_and_figures_are_named(p: Pops, photos: Path) -> None:
    grid = p.run(Recipe.of('mix(a.png, "tiger", steps=2)', sweep=[Sweep(name="nu", values=(0.1, 0.9))]))
    assert "grid" in Tags(grid._repr_html_()).text
    drawn = p.run(Recipe.of("union(a.png, b.png)", steps=2), figures=["tree", "equation"])
    shown = Tags(drawn._repr_html_())
    assert len(shown.pictures()) == 3 and "tree" in shown.text and "equation" in shown.text


# --- pictures keep their recipe


@pytest.fixture
def picture() -> Image.Image:
    return Recipe.of("union(a.png, b.png)", seed=5).attach(noise(0, 16))


@pytest.mark.parametrize("name", ["x.png", "x.PNG", "x.jpg", "x.jpeg", "x.webp"])
def test_plain_save_keeps_the_recipe(picture: Image.Image, tmp_path: Path, name: str) -> None:
    for path in (tmp_path / name, str(tmp_path / f"s{name}"), bytes(tmp_path / f"b{name}")):
        picture.save(path)
        read = Path(path.decode() if isinstance(path, bytes) else path)
        assert Recipe.from_png(read).seeds == (5,)
    assert name[-3:].lower() != "png" or Image.open(tmp_path / name).tobytes() == picture.tobytes()


def test_save_into_a_stream_and_with_options(picture: Image.Image, tmp_path: Path) -> None:
    stream = io.BytesIO()
    picture.save(stream, format="jpeg", quality=40)
    (tmp_path / "x.jpg").write_bytes(stream.getvalue())
    assert Recipe.from_png(tmp_path / "x.jpg").seeds == (5,)
    picture.save(tmp_path / "own.jpg", exif=b"")
    picture.save(tmp_path / "x.bmp")
    assert find_recipe(tmp_path / "own.jpg") is None, "what is given by hand takes its place"


def test_a_recipe_too_long_for_a_jpeg_is_refused(tmp_path: Path) -> None:
    long = Recipe(expression='"' + "x" * 70_000 + '"').attach(noise(0, 8))
    with pytest.raises(PhotoError, match="too long for a JPEG"):
        long.save(tmp_path / "x.jpg")
    long.save(tmp_path / "x.png")
    assert Recipe.from_png(tmp_path / "x.png").expression == long.info["pops"]["expression"]


def test_what_is_made_of_a_picture_is_a_plain_image(picture: Image.Image, tmp_path: Path) -> None:
    assert type(picture) is Picture
    for changed in (picture.copy(), picture.resize((8, 8)), picture.rotate(90), picture.convert("L")):
        assert type(changed) is Image.Image
        changed.save(tmp_path / "x.png")
        assert find_recipe(tmp_path / "x.png") is None


def test_a_picture_is_like_other_images(picture: Image.Image) -> None:
    plain = picture.copy()
    assert picture == plain and plain == picture and picture != noise(1, 16) and picture != "text"
    for again in (copy.deepcopy(picture), pickle.loads(pickle.dumps(picture))):  # noqa: S301
        assert type(again) is Picture and again == picture
    assert np.asarray(picture).shape == (16, 16, 3)


def test_a_recipe_is_attached_to_an_image_of_a_file(tmp_path: Path) -> None:
    noise(0, 16).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as file:
        made = Recipe.of("a.png", seed=2).attach(file)
    made.save(tmp_path / "y.png")
    assert Recipe.from_png(tmp_path / "y.png").seeds == (2,)


def test_every_way_to_an_image_gives_one_that_keeps_its_recipe(p: Pops, photos: Path) -> None:
    images = [p("union(a.png, b.png)", steps=2)[0], p.render(p.embed("a.png"))[0], p.mix("a.png", "tiger", steps=2)]
    for image in images:
        image.save("made.png")
        assert Recipe.from_png("made.png").expression == image.info["pops"]["expression"]
