"""Figures and what they wear, and unions of several objects: what is true of an example, and what is held out."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from pops.toybox import clothes
from pops.toybox.distractors import EACH, distractors
from pops.toybox.draw import draw
from pops.toybox.objects import CATEGORIES, EVERY, GARMENTS
from pops.toybox.pairs import draw_alike, triplet
from pops.toybox.shot import shoot
from pops.toybox.world import SceneSpec, held_out_of, in_a_row, sample_object, side_by_side


@pytest.mark.parametrize("figure", clothes.FIGURES)
@pytest.mark.parametrize("name", clothes.WARDROBE)
def test_each_figure_visibly_wears_each_garment(figure: str, name: str) -> None:
    who = replace(sample_object(random.Random(1), figure), yaw=0.0, scale=clothes.SIZE)
    garment = sample_object(random.Random(2), name)
    worn = clothes.wear(who, garment)
    assert worn.material == garment.material and worn.fit is not None and worn.scale == who.scale
    bare = triplet("clothes", 0).operands[0]
    assert isinstance(bare, SceneSpec)
    shot = shoot((who, worn), bare.camera, 64)
    seen = shot.hits[1].rays.numel() / shot.d[0].numel()
    inside = shot.hits[1].pixels  # nothing is cut off at the upper edge
    assert seen > 0.004 and int((inside // 64).min()) > 0


def test_garments_are_a_table_of_their_own() -> None:
    assert not set(GARMENTS) & set(CATEGORIES) and set(clothes.WARDROBE) <= set(EVERY) and len(clothes.WARDROBE) == 9
    assert next(iter(CATEGORIES)) == "dog"  # what is drawn by a seed does not change


@pytest.mark.parametrize("split", ["train", "test"])
def test_examples_show_what_their_operands_show(split: str) -> None:
    sizes, figures = set(), set()
    for seed in range(60):
        t = triplet("clothes", seed, split)
        shown = [o.objects[0] for o in t.operands if isinstance(o, SceneSpec)]
        figure, *garments = shown
        who, *worn = t.result.objects
        assert who == figure and t.result.camera == t.operands[0].camera  # type: ignore[union-attr]
        assert [(w.category, w.material) for w in worn] == [(g.category, g.material) for g in garments]
        places = [clothes.WARDROBE[w.category].place for w in worn]
        assert len(set(places)) == len(places)
        assert bool(held_out_of(t.result)) is (split == "test")
        sizes.add(len(worn))
        figures.add(who.category)
    assert sizes == set(range(1, clothes.MOST + 1)) and figures == set(clothes.FIGURES)


def test_clothes_are_drawn_and_change_only_where_they_are() -> None:
    t = triplet("clothes", 3)
    bare, dressed = (draw(spec, 48).float() for spec in (t.operands[0], t.result))  # type: ignore[arg-type]
    changed = (bare - dressed).abs().amax(0) > 30
    assert 0.01 < float(changed.float().mean()) < 0.5
    assert SceneSpec.from_json(t.result.to_json()) == t.result
    together = draw_alike([t.operands[0], t.result], 48)[0]  # type: ignore[list-item]
    assert torch.equal(together[1].float(), dressed)


def test_other_materials_are_the_same_shapes() -> None:
    t = triplet("clothes", 7)
    operands = [o for o in t.operands if isinstance(o, SceneSpec)]
    again, result = clothes.repainted(random.Random(0), operands, t.result)
    pairs = zip(result.objects, t.result.objects, strict=True)
    assert all((a.shape, a.fit, a.yaw) == (b.shape, b.fit, b.yaw) for a, b in pairs)
    assert [o.material for o in result.objects] == [o.objects[0].material for o in again]
    assert [o.material for o in result.objects] != [o.material for o in t.result.objects]


@pytest.mark.parametrize(("operator", "count"), [("union_3", 3), ("union_4", 4)])
def test_a_union_of_several_is_a_row_of_them(operator: str, count: int) -> None:
    for seed in range(8):
        t = triplet(operator, seed)
        objects = t.result.objects
        shown = [o.objects[0].category for o in t.operands if isinstance(o, SceneSpec)]
        assert [o.category for o in objects] == shown and len(set(shown)) == count
        assert [o.x for o in objects] == sorted(o.x for o in objects) and held_out_of(t.result)
        assert held_out_of(triplet(operator, seed, "train").result) == []
    shot = shoot(objects, t.result.camera, 64)
    assert all(hit.rays.numel() > 60 for hit in shot.hits)  # all are seen, none is hidden by another


def test_a_row_of_two_is_side_by_side() -> None:
    a, b = (sample_object(random.Random(k), "mug") for k in range(2))
    assert in_a_row(a, b) == side_by_side(a, b) and in_a_row(a) == (a,)


@pytest.mark.parametrize("operator", ["clothes", "union_3", "union_4"])
def test_distractors_share_one_operand(operator: str) -> None:
    t = triplet(operator, 4)
    first, second = distractors(t, 4)
    assert len(first) == len(second) == EACH and len({repr(s) for s in (*first, *second)}) == 2 * EACH
    who = t.result.objects[0]
    assert all(s.objects[0].category == who.category for s in first)
    assert all(s.objects[0].category != who.category for s in second)
    assert all(s.objects[-1].category == t.result.objects[-1].category for s in second)
