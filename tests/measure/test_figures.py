"""Figures of embeddings and images, on values whose answer is known; hard negatives share what they say they share."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import pops
from pops.measure import operators
from pops.measure.audit import shortcuts
from pops.measure.figures import hits, kernel_distance, recall, sharpness
from pops.toybox.distractors import EACH, distractors
from pops.toybox.draw import draw, to_image
from pops.toybox.pairs import OPERATORS, triplet


def test_sharpness_is_the_mean_gradient_and_falls_with_blur() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).expand(1, 3, 64, 64)
    assert sharpness(ramp) == pytest.approx(torch.ones(1))  # one grey level a pixel
    gen = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (2, 3, 64, 64), generator=gen, dtype=torch.uint8)
    soft = torch.nn.functional.avg_pool2d(noise.float(), 5, 1, 2).to(torch.uint8)
    assert bool((sharpness(soft) < 0.5 * sharpness(noise)).all())
    assert sharpness(torch.full((1, 3, 8, 8), 7, dtype=torch.uint8)) == 0


def test_the_kernel_distance_tells_distributions_apart() -> None:
    gen = torch.Generator().manual_seed(0)
    a, b = (torch.randn(400, 8, generator=gen) for _ in range(2))
    other = torch.randn(300, 8, generator=gen) + 1
    assert abs(kernel_distance(a, b)) < 20 < 200 < kernel_distance(a, other)
    # By hand, cosines 1, 0 and 0, 1 of directions x and y: within (cos + 1)^3 off the diagonal, between all four.
    x, y = torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert kernel_distance(x, y) == pytest.approx(1000 * (8 + 1 - 2 * (8 + 1 + 8 + 1) / 4))
    assert kernel_distance(x[:1], y) == 0


def test_what_one_operand_answers_is_left_out_of_the_rest() -> None:
    truth = torch.eye(4)
    a = truth.clone()
    a[2:] = truth[[3, 2]]  # operand a answers the first two
    b = truth[[1, 0, 3, 2]]  # operand b none
    result = truth.clone()
    result[3] = truth[0]  # right in three, of the rest in one of two
    found = shortcuts(result, torch.stack([a, b], 1), truth)
    assert recall(result, truth) == 0.75 and hits(result, truth).tolist() == [True, True, True, False]
    assert found["answered_by_one"] == 0.5 and found["recall_at_1_of_rest"] == 0.5
    everything = shortcuts(result, torch.stack([truth, truth], 1), truth)
    assert everything["answered_by_one"] == 1 and everything["recall_at_1_of_rest"] == 0


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("seed", [0, 5])
def test_distractors_share_one_operand_and_differ_in_the_other(operator: str, seed: int) -> None:
    t = triplet(operator, seed, "test")
    truth = t.result
    of_a, of_b = distractors(t, seed)
    assert distractors(t, seed) == (of_a, of_b) and len(of_a) == len(of_b) == EACH
    assert truth not in (*of_a, *of_b) and len({repr(s) for s in (*of_a, *of_b)}) == 2 * EACH

    def about(spec: object) -> tuple[object, object]:
        """What the first and the second operand say of a result."""
        thing = spec.objects[0]  # type: ignore[attr-defined]
        second = {
            "texturing": lambda: thing.material.name,
            "union": lambda: spec.objects[1].category,  # type: ignore[attr-defined]
            "scene": lambda: spec.scene,  # type: ignore[attr-defined]
            "instruct": lambda: thing.adjectives,
        }[operator]()
        return thing.category, second

    first, second = about(truth)
    assert all(about(s)[0] == first and about(s)[1] != second for s in of_a)
    assert all(about(s)[0] != first and about(s)[1] == second for s in of_b)


def test_sharpness_is_of_the_images_whose_truths_it_is_held_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "SHARP_OF", 2)
    p, side = pops.load("tiny"), operators.SHARP_SIDE
    cases = operators.draw_cases(p, "texturing", 4, 0)
    true = [to_image(draw(triplet("texturing", k, "test").result, side)) for k in range(2)]
    flat = [Image.new("RGB", (side, side), "grey")] * 2
    assert operators._look(p, cases, [*true, *flat], 0)["sharpness"] == pytest.approx(1)
    assert operators._look(p, cases, [*flat, *true], 0)["sharpness"] == pytest.approx(0, abs=1e-6)
