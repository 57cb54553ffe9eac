"""Figures of equations and trees: what is drawn where, in which size, for every kind of node."""

from __future__ import annotations

import pytest
from PIL import Image, ImageChops

import pops.expression as expression
from pops.errors import ConfigError
from pops.expression.nodes import Call, Node, Photo
from pops.expression.plan import Plan
from pops.figures.canvas import Canvas, colour_of, shortened, text_width, wrapped
from pops.figures.equation import equation_figure
from pops.figures.grid import labels
from pops.figures.tree import tree_figure

RED, GREEN, BLUE = (200, 30, 30), (20, 160, 60), (40, 60, 200)


def flat(colour: tuple[int, int, int], size: tuple[int, int] = (96, 96)) -> Image.Image:
    return Image.new("RGB", size, colour)


def painted(text: str) -> tuple[Plan, dict[Node, Image.Image]]:
    """Returns a plan, with red images for its photos, green ones for its steps, a blue one for its result."""
    plan = expression.parse(text).plan()
    pictures: dict[Node, Image.Image] = {photo: flat(RED) for photo in plan.photos}
    pictures |= {job.node: flat(GREEN) for job in plan.jobs}
    return plan, pictures | {plan.root: flat(BLUE)}


def alike(figure: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """Returns a mask (255, 0) of the pixels within 40 levels of the colour in every channel."""
    away = ImageChops.difference(figure, Image.new("RGB", figure.size, colour)).split()
    farthest = ImageChops.lighter(ImageChops.lighter(away[0], away[1]), away[2])
    return farthest.point([255] * 41 + [0] * 215)


def spots(figure: Image.Image, colour: tuple[int, int, int], y: int) -> list[tuple[int, int]]:
    """Returns the runs (from, to) of this colour in row y."""
    runs: list[tuple[int, int]] = []
    row = alike(figure.crop((0, y, figure.width, y + 1)), colour).tobytes()
    for x in range(figure.width):
        if row[x]:
            runs = [*runs[:-1], (runs[-1][0], x)] if runs and runs[-1][1] == x - 1 else [*runs, (x, x)]
    return runs


def count(figure: Image.Image, colour: tuple[int, int, int]) -> int:
    return alike(figure, colour).histogram()[255]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((0.1, 0.1 + 0.2), ["nu 0.1", "nu 0.3"]),
        ((2, 30), ["nu 2", "nu 30"]),
        ((0.5, 0.5000001), ["nu 0.5", "nu 0.5000001"]),
        ((0.3, 0.1 + 0.2), ["nu 0.3", "nu 0.30000000000000004"]),
        ((0.7, 0.7), ["nu 0.7", "nu 0.7"]),
    ],
)
def test_labels_have_the_digits_that_tell_them_apart(values: tuple[float, ...], texts: list[str]) -> None:
    assert labels("nu", values) == texts


def test_an_equation_reads_from_left_to_right() -> None:
    figure = equation_figure(*painted("texturing(a.png, b.png)"))
    middle = 40 + 80  # margin and half an image
    left, right = spots(figure, RED, middle)
    (result,) = spots(figure, BLUE, middle)
    for start, end in (left, right, result):
        assert end - start + 1 == pytest.approx(160, abs=4)
    assert left[0] == pytest.approx(40, abs=2) and left[1] < right[0] < right[1] < result[0]
    assert figure.getpixel((0, 0)) == figure.getpixel((figure.width - 1, figure.height - 1)) == (255, 255, 255)


def test_nested_calls_stand_in_brackets_without_their_picture() -> None:
    plain = equation_figure(*painted("scene(union(a.png, b.png), c.png)"))
    assert count(plain, GREEN) == 0
    assert len(spots(plain, RED, 120)) == 3
    flat_sum = equation_figure(*painted("clothes(a.png, b.png, c.png)"))
    assert plain.width > flat_sum.width  # by the brackets


def test_the_size_follows_the_thumbnails() -> None:
    small = equation_figure(*painted("union(a.png, b.png)"), thumb=80)
    large = equation_figure(*painted("union(a.png, b.png)"), thumb=160)
    assert large.width == pytest.approx(2 * small.width, abs=3)
    assert large.height == pytest.approx(2 * small.height, abs=3)


def test_several_results_stand_side_by_side() -> None:
    plan, pictures = painted("union(a.png, b.png)")
    figure = equation_figure(plan, pictures, results=[flat(GREEN), flat(BLUE), flat(GREEN)])
    assert [len(spots(figure, colour, 120)) for colour in (GREEN, BLUE)] == [2, 1]


def test_a_long_equation_goes_on_in_the_next_line() -> None:
    text = f"clothes({', '.join(f'{i}a.png' for i in range(12))})"
    figure = equation_figure(*painted(text), max_width=1000)
    assert figure.width <= 1000
    assert len(spots(figure, RED, 120)) == 4
    assert len(spots(figure, RED, 120 + 218)) == 3  # a line is 1.36 images high


def test_an_operator_and_its_seed_are_named() -> None:
    colour = tuple(int(colour_of("union")[i : i + 2], 16) for i in (1, 3, 5))
    with_seed = equation_figure(*painted("union(a.png, b.png) @7"))
    without = equation_figure(*painted("union(a.png, b.png)"))
    assert count(without, colour) > 300  # type: ignore[arg-type]  # the sign
    assert with_seed.tobytes() != without.tobytes()
    captioned = equation_figure(*painted("union(a.png, b.png)"), captions={Photo("a.png"): "my dog"})
    assert captioned.tobytes() != without.tobytes()


def test_a_missing_operand_is_a_dashed_card_and_a_word_is_typeset() -> None:
    plan, pictures = painted("instruct(_, golden)")
    figure = equation_figure(plan, pictures, results=[flat(BLUE)])
    empty = figure.crop((36, 36, 204, 204))
    assert empty.getpixel((84, 84)) == (255, 255, 255)
    edge = [empty.getpixel((x, 5))[0] < 230 for x in range(20, 148)]  # type: ignore[index]
    assert 0.3 < sum(edge) / len(edge) < 0.7  # about half of a dashed line is drawn
    assert (245, 244, 241) in {colour for _, colour in figure.getcolors(1 << 24) or []}  # the word's card


def test_a_tree_shows_every_node_once() -> None:
    plan, pictures = painted("let t = texturing(a.png, b.png); union(scene(t, c.png), t)")
    figure = tree_figure(plan, pictures)
    area = 160 * 160
    assert count(figure, RED) == pytest.approx(3 * area, rel=0.03)
    assert count(figure, GREEN) == pytest.approx(2 * area, rel=0.03)
    assert count(figure, BLUE) == pytest.approx(area, rel=0.03)


@pytest.mark.parametrize(
    "text",
    [
        "let t = f(a.png, b.png); let u = f(a.png, b.png) @1; t + u - f(t, u)",
        "f(g(a.png), g(a.png) @1, g(a.png) @2, a.png)",
        'f(text("x"), text("y") @3, instruct(a.png, "x"), _)',
        "f(a.png + b.png, a.png - b.png, b.png, a.png)",
    ],
)
def test_pictures_of_a_tree_never_overlap(text: str) -> None:
    plan, pictures = painted(text)
    figure = tree_figure(plan, pictures)
    assert count(figure, RED) == pytest.approx(len(plan.photos) * 160**2, rel=0.03)
    assert count(figure, GREEN) == pytest.approx((len(plan.jobs) - 1) * 160**2, rel=0.03)
    assert count(figure, BLUE) == pytest.approx(160**2, rel=0.03)


def test_a_tree_flows_to_the_right() -> None:
    figure = tree_figure(*painted("scene(union(a.png, b.png), c.png)"))
    columns = {
        colour: min(x for y in range(0, figure.height, 40) for x, _ in spots(figure, colour, y) or [(9999, 0)])
        for colour in (RED, GREEN, BLUE)
    }
    assert columns[RED] < columns[GREEN] < columns[BLUE]


@pytest.mark.parametrize("draw", [equation_figure, tree_figure])
@pytest.mark.parametrize("text", ["a.png", "-0.5*a.png", 'text("")', "f(_)", "f($x, e.safetensors, 'a b.png')"])
def test_everything_can_be_drawn(draw: object, text: str) -> None:
    plan = expression.parse(text).plan()
    for pictures in ({}, {plan.root: flat(BLUE, (7, 300))}):
        figure = draw(plan, pictures)  # type: ignore[operator]
        assert figure.mode == "RGB" and figure.width > 160 and figure.height > 160


def test_names_and_lets_may_stand_in_the_expression() -> None:
    node = expression.parse("let t = a.png; union(t, t)").root
    figure = equation_figure(node, {Photo("a.png"): flat(RED), Call("union", (Photo("a.png"),) * 2): flat(BLUE)})
    assert [len(spots(figure, colour, 120)) for colour in (RED, BLUE)] == [2, 1]


def test_transparent_and_grey_pictures_are_drawn_on_white() -> None:
    plan, _ = painted("a.png")
    clear = equation_figure(plan, {plan.root: Image.new("RGBA", (10, 10), (255, 0, 0, 0))})
    assert clear.getpixel((120, 120)) == (255, 255, 255)
    assert equation_figure(plan, {plan.root: Image.new("L", (10, 10), 77)}).getpixel((120, 120)) == (
        77,
        77,
        77,
    )


def test_a_large_figure_is_drawn_with_less_oversampling() -> None:
    assert [Canvas(side, side).scale for side in (500, 3500, 8000)] == [3, 2, 1]


def test_text_is_shortened_and_wrapped_to_its_width() -> None:
    long = "a_very_long_name_of_a_photograph_2024"
    short = shortened(long, 14, 100)
    assert short.startswith("a_v") and short.endswith("24") and "…" in short
    assert text_width(short, 14) <= 100 and shortened("dog", 14, 100) == "dog"
    lines = wrapped("one two three four five " + long, 14, 100)
    assert len(lines) > 2 and all(text_width(line, 14) <= 100 for line in lines)


def test_an_expression_with_too_many_parts_is_refused_before_it_is_drawn() -> None:
    node: Node = Photo("a.png")
    for _ in range(150):
        node = Call("union", (node, node))
    with pytest.raises(ConfigError, match="equation would show more than 300 images; draw a part of .* or --tree"):
        equation_figure(node, {})
    assert tree_figure(node, {}, thumb=8).height > 8
    many = Call("union", tuple(Photo(f"{i}.png") for i in range(400)))
    with pytest.raises(ConfigError, match="tree would show more than 300"):
        tree_figure(many, {})
