"""Parts and shards: every image is in one part, and a part alone makes the same bytes as the whole run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import pops
from pops.errors import ConfigError, EmbeddingError
from pops.parts import Part, Shard, parts_of
from pops.recipe import Recipe


@pytest.mark.parametrize("rows", [1, 2, 7, 9, 20])
@pytest.mark.parametrize("each", [1, 2, 3, 8, 11])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_every_image_is_in_one_part_of_at_most_a_batch(rows: int, each: int, batch: int) -> None:
    parts = parts_of(rows, each, batch)
    assert [number for part in parts for number in part.numbers] == list(range(rows * each))
    assert all(len(part.numbers) <= batch and (len(part.rows) == 1 or part.first) for part in parts)
    assert [row for part in parts if part.first for row in part.rows] == list(range(rows))


def test_shards_share_all_parts() -> None:
    parts = parts_of(100, 1, 8)
    shares = [Shard(i, 5).of(parts) for i in range(1, 6)]
    assert sorted((part for share in shares for part in share), key=lambda part: part.rows.start) == parts
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert Shard.parse("2/8") == Shard(2, 8)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "", "1/" + "9" * 40, "²/3"])
def test_no_shard(text: str) -> None:
    with pytest.raises(ConfigError, match="NUMBER/COUNT"):
        Shard.parse(text)


def test_a_part_has_its_rows_items() -> None:
    part = Part(range(2, 4), range(1), 1)
    assert (part.own([1, 2, 3, 4, 5]), part.own([7])) == ([3, 4], [7])


EXPRESSIONS = {
    "seeds": "union(texturing(a.png, _), texturing(b.png, a.png)@4)",
    "mixes": 'mix(a.png, "tiger", nu=0.5, steps=3)',
    "a mix inside": 'union(mix(a.png, "tiger", steps=2), b.png)',
}


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
@pytest.mark.parametrize("num_images", [1, 5])
def test_images_of_parts_are_those_of_the_whole_run_and_of_their_own_recipes(
    photos: Path, folder: Path, expression: str, num_images: int
) -> None:
    p = pops.load(folder, device="cpu", max_batch=3)
    sampled = {} if expression.startswith("mix(") else {"steps": 2, "render_steps": 1}
    recipe = Recipe.of(expression, seed=[5, 0, 9, 2, 7], num_images=num_images, **sampled)  # type: ignore[arg-type]
    whole = p.run(recipe)
    assert whole.numbers == list(range(5 * num_images)) and len(whole) == 5 * num_images
    assert whole.trace is not None and whole.trace.rows == 5
    for number in (0, 3, 5 * num_images - 1):
        (alone,) = (image for part in p.stream(recipe, only=[number]) for image in part)
        assert alone.tobytes() == whole[number].tobytes()
        assert alone.info["pops"] == whole[number].info["pops"]
        (again,) = p.run(Recipe.of_data(alone.info["pops"], "image"))
        assert again.tobytes() == alone.tobytes()
        assert again.info["pops"] == alone.info["pops"]


def test_a_long_run_holds_one_part_and_its_recipes_name_its_own_seeds(photos: Path, folder: Path) -> None:
    p = pops.load(folder, device="cpu", max_batch=4)
    recipe = Recipe.of("texturing(a.png, _)", seed=range(10), steps=1, render_steps=1)
    sizes = []
    for part in p.stream(recipe):
        sizes.append((len(part), part.trace.rows if part.trace else 0))
        assert [image.info["pops"]["seeds"] for image in part] == [part.numbers] * len(part)
    assert sizes == [(4, 4), (4, 4), (2, 2)]


def test_the_trace_of_a_run_is_that_of_its_rows(photos: Path, folder: Path) -> None:
    p = pops.load(folder, device="cpu", max_batch=3)
    text = "union(texturing(a.png, _), texturing(b.png, a.png)@4)"
    whole = p.run(Recipe.of(text, seed=range(7), steps=2, render_steps=1)).trace
    plain = p.trace(text, seed=range(7), steps=2)
    assert whole is not None and set(whole.values) == set(plain.values)
    for node, embedding in plain.values.items():
        assert whole.values[node].n == embedding.n
        torch.testing.assert_close(whole.values[node].vectors, embedding.vectors, rtol=0, atol=1e-4)
    assert p.runner.recipe_of(whole.result) is not None


def test_rows_of_an_operand_go_through_parts(photos: Path, folder: Path) -> None:
    p = pops.load(folder, device="cpu", max_batch=2)
    p.evaluate("texturing(a.png, _)", seed=range(5), steps=2).save("five.safetensors")
    recipe = Recipe.of("union(five.safetensors, a.png)", steps=2, render_steps=1)
    whole = p.run(recipe)
    assert len(whole) == 5
    recorded = Recipe.of_data(whole[3].info["pops"], "image")
    assert (recorded.seeds, recorded.image) == ((0,) * 5, 3)
    assert p.run(recorded)[0].tobytes() == whole[3].tobytes()
    p.evaluate("texturing(a.png, _)", seed=range(3), steps=2).save("three.safetensors")
    with pytest.raises(EmbeddingError, match="an operand has 3 rows and another 5"):
        next(p.stream(recipe.model_copy(update={"expression": "union(five.safetensors, three.safetensors)"})))


def test_figures_come_last_and_show_the_first_images(photos: Path, folder: Path) -> None:
    p = pops.load(folder, device="cpu", max_batch=2)
    recipe = Recipe.of("texturing(a.png, _)", seed=range(5), steps=1, render_steps=1)
    parts = list(p.stream(recipe, figures=["tree", "equation", "grid"]))
    assert [len(part) for part in parts] == [2, 2, 1, 0]
    assert [set(part.figures) for part in parts] == [set(), set(), set(), {"tree", "equation", "grid"}]
    for name, figure in parts[-1].figures.items():
        (again,) = p.run(Recipe.of_data(figure.info["pops"], name))
        assert again.tobytes() == figure.tobytes()
    assert not list(p.stream(recipe, only=[]))


def test_a_grid_has_a_limit(photos: Path, folder: Path) -> None:
    p = pops.load(folder, device="cpu")
    with pytest.raises(ConfigError, match="a grid has at most 400 images, this one 401"):
        next(p.stream(Recipe.of("texturing(a.png, _)", seed=range(401)), figures=["grid"]))
