"""The procedural world: specs are values, images are deterministic, splits hold, triplets are exact."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from pops import toybox
from pops.toybox import draw as drawing
from pops.toybox.adjectives import ADJECTIVES
from pops.toybox.materials import MATERIALS
from pops.toybox.objects import CATEGORIES
from pops.toybox.oracle import Oracle
from pops.toybox.packed import pack, unpack
from pops.toybox.pairs import (
    CHANGE_PICTURES,
    GRID,
    GRID_PICTURES,
    OPERATORS,
    PICTURES,
    change,
    draw_alike,
    draw_family,
    draw_grid,
    draw_triplet,
    family,
    grid,
    triplet,
)
from pops.toybox.scenes import SCENES
from pops.toybox.shot import shoot
from pops.toybox.words import CaptionError, captions, parse_caption
from pops.toybox.world import (
    CORE,
    Camera,
    MaterialSpec,
    SceneSpec,
    SwatchSpec,
    Vocabulary,
    held_out,
    held_out_of,
    sample_camera,
    sample_object,
    sample_scene,
    sample_setting,
    sample_swatch_seeded,
)

SIZE = 32


def studio(category: str = "teapot", **changes: object) -> SceneSpec:
    rng = random.Random(0)
    thing = replace(sample_object(rng, category), **changes)  # type: ignore[arg-type]
    return SceneSpec((thing,), *sample_setting(rng, "studio"), Camera())


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).abs().mean())


def test_every_public_name_can_be_imported() -> None:
    for name in toybox.__all__:
        assert getattr(toybox, name) is not None
    assert callable(toybox.contact_sheet)
    with pytest.raises(AttributeError, match="pops.toybox"):
        _ = toybox.nothing


def test_the_world_is_large_enough() -> None:
    assert len(CATEGORIES) >= 24 and len(MATERIALS) >= 20 and len(SCENES) >= 8 and len(ADJECTIVES) >= 16


@pytest.mark.parametrize("seed", range(5))
def test_json_both_ways(seed: int) -> None:
    spec = sample_scene(seed)
    assert SceneSpec.from_json(spec.to_json()) == spec
    swatch = sample_swatch_seeded("marble", seed)
    assert SwatchSpec.from_json(swatch.to_json()) == swatch


def test_a_spec_gives_one_picture_and_another_spec_another() -> None:
    a = drawing.draw(sample_scene(3), SIZE)
    assert torch.equal(a, drawing.draw(sample_scene(3), SIZE))
    assert difference(a, drawing.draw(sample_scene(4), SIZE)) > 5


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_object_stands_in_the_picture(category: str) -> None:
    shot = shoot(studio(category).objects, Camera(), SIZE)
    mask = shot.mask
    rows = torch.nonzero(mask.sum(1) > 0).flatten()
    height = (rows.max() - rows.min() + 1) / SIZE
    assert 0.06 < float(mask.mean()) < 0.6
    assert 0.3 < float(height) < 0.95
    assert not bool(torch.isnan(shot.depth).any())


def test_depth_is_nearer_on_the_object_than_behind_it() -> None:
    with_, without = shoot(studio("house").objects, Camera(), SIZE), shoot((), Camera(), SIZE)
    inside = with_.mask == 1
    assert bool((with_.depth[inside] < without.depth[inside]).all())
    assert torch.equal(with_.depth[0], without.depth[0])


@pytest.mark.parametrize("name", MATERIALS)
def test_every_material_shows(name: str) -> None:
    plain = drawing.draw(studio(material=MaterialSpec("plain", rgb=(0.5, 0.5, 0.5))), SIZE)
    params = tuple((k, (low + high) / 2) for k, (low, high) in MATERIALS[name].ranges.items())
    painted = drawing.draw(studio(material=MaterialSpec("named", name, params)), SIZE)
    assert difference(plain, painted) > 1


@pytest.mark.parametrize("name", ADJECTIVES)
def test_every_adjective_edits_the_object(name: str) -> None:
    spec = studio("pumpkin")
    edited = replace(spec, objects=(replace(spec.objects[0], adjectives=(name,)),))
    assert difference(drawing.draw(spec, SIZE), drawing.draw(edited, SIZE)) > 0.8


@pytest.mark.parametrize("name", SCENES)
def test_every_scene_is_finite_everywhere(name: str) -> None:
    setting = drawing.setting_of(name, sample_setting(random.Random(1), name)[1])
    d = torch.nn.functional.normalize(torch.randn(3, 500, generator=torch.Generator().manual_seed(0)), dim=0)
    for c in setting.sky(*d):
        assert bool(torch.isfinite(torch.as_tensor(c)).all())


def test_a_photo_becomes_a_material(tmp_path: object) -> None:
    from pathlib import Path

    from PIL import Image

    path = Path(str(tmp_path)) / "red.png"
    Image.new("RGB", (40, 40), (220, 20, 20)).save(path)
    pictured = drawing.draw(studio("pumpkin", material=MaterialSpec("photo", str(path))), SIZE).float()
    middle = pictured[:, SIZE // 2, SIZE // 2]
    assert middle[0] > 2 * middle[1]


def test_random_materials_differ_by_seed() -> None:
    a, b = (drawing.draw(studio(material=MaterialSpec("random", seed=s)), SIZE) for s in (1, 2))
    assert difference(a, b) > 1


# --- splits and triplets ---


def test_training_shows_nothing_held_out() -> None:
    for seed in range(40):
        for spec in [*family(seed).pictures().values(), *grid(seed).pictures()]:
            if isinstance(spec, SceneSpec):
                assert held_out_of(spec) == []


@pytest.mark.parametrize("operator", OPERATORS)
def test_test_triplets_show_a_held_out_combination(operator: str) -> None:
    for seed in range(10):
        assert held_out_of(triplet(operator, seed).result) != []


def test_a_tenth_is_held_out() -> None:
    every = [held_out("material", c, m) for c in CATEGORIES for m in MATERIALS]
    assert 0.05 < sum(every) / len(every) < 0.15
    assert held_out("object", "dog", "cat") == held_out("object", "cat", "dog")


def test_triplets_change_what_they_say_and_nothing_else() -> None:
    f = family(5)
    a, b = f.base.objects[0], f.textured.objects[0]
    assert (a.category, a.shape, a.yaw) == (b.category, b.shape, b.yaw) and a.material != b.material
    assert f.swatch.material == b.material and f.textured.setting == f.base.setting
    assert f.empty.objects == () and (f.empty.scene, f.empty.setting) == (f.base.scene, f.base.setting)
    assert [o.category for o in f.both.objects] == [a.category, f.other.objects[0].category]
    assert len(f.edited.objects[0].adjectives) == 1


def test_changes_show_nothing_held_out() -> None:
    for seed in range(40):
        c = change(seed)
        base, words = c.base.objects[0], [spec.objects[0].adjectives[0] for spec in c.edited]
        assert len(set(words)) == len(words) == CHANGE_PICTURES - 1 and not base.adjectives
        assert not [found for spec in c.pictures() for found in held_out_of(spec)]
        for spec in c.edited:
            assert (spec.objects[0].shape, spec.setting, spec.camera) == (base.shape, c.base.setting, c.base.camera)
    assert change(3) == change(3) != change(4)


def test_families_grids_and_changes_equal_their_pictures_drawn_alone() -> None:
    f = family(2)
    pictures, shots = draw_family(f, SIZE)
    assert set(pictures) == set(PICTURES) and "swatch" not in shots
    for name, spec in f.pictures().items():
        assert difference(pictures[name], drawing.draw(spec, SIZE)) < 0.01
    g = grid(1)
    drawn, _ = draw_grid(g, SIZE)
    assert len(drawn) == GRID_PICTURES == len(g.pictures())
    for k in (0, GRID, GRID * GRID, GRID_PICTURES - 1):
        assert difference(drawn[k], drawing.draw(g.pictures()[k], SIZE)) < 0.01
    specs = change(3).pictures()
    for picture, spec in zip(draw_alike(specs, SIZE)[0], specs, strict=True):
        assert difference(picture, drawing.draw(spec, SIZE)) < 0.01


def test_a_triplet_is_drawn() -> None:
    operands, result = draw_triplet(triplet("instruct", 0), SIZE)
    assert isinstance(operands[1], str) and operands[1] in ADJECTIVES
    assert result.shape == (3, SIZE, SIZE) and result.dtype == torch.uint8


def test_a_vocabulary_knows_its_world() -> None:
    with pytest.raises(ValueError, match="unknown in toybox: dgo"):
        Vocabulary(("dgo",), (), (), ())
    assert {s.category for s in family(1).base.objects} <= set(CORE.categories)


def test_packed_weights_come_back_to_a_half_of_a_step() -> None:
    weight, small = torch.randn(32, 40, 3, 3), torch.randn(32)
    kept = pack({"weight": weight, "small": small, "count": torch.tensor(3)})
    assert kept["weight"].dtype == torch.int8 and kept["small"].dtype == torch.float16
    back = unpack(kept)
    assert set(back) == {"weight", "small", "count"} and back["count"] == 3
    step = weight.flatten(1).abs().amax(1) / 127
    assert ((back["weight"] - weight).abs() <= step.view(-1, 1, 1, 1) * 0.501).all()
    assert (back["small"] - small).abs().max() < 2e-3
    assert (unpack(pack({"zeros": torch.zeros(200, 100)}))["zeros"] == 0).all()


def test_the_oracle_reads_true_pictures() -> None:
    results = [triplet("scene", seed).result for seed in range(16)]
    said = Oracle.load().read(torch.stack([drawing.draw(r) for r in results]))
    right = [
        (s["object"] == r.objects[0].category) + (s["scene"] == r.scene) for s, r in zip(said, results, strict=True)
    ]
    assert sum(right) / 32 > 0.8


# --- captions ---


def test_captions_name_what_is_seen() -> None:
    spec = parse_caption("a tiger teapot on a beach", seed=1)
    o = spec.objects[0]
    assert (o.category, o.material.name, spec.scene) == ("teapot", "tiger", "beach")
    assert captions(spec)[0] == "a tiger teapot on a beach"
    two = parse_caption("a golden dog and a marble cat in a forest", seed=1)
    assert [o.category for o in two.objects] == ["dog", "cat"] and two.objects[0].adjectives == ("golden",)
    assert two.objects[0].x < 0 < two.objects[1].x


def test_no_name_means_two_things() -> None:
    tables = [set(CATEGORIES), set(MATERIALS), set(SCENES), set(ADJECTIVES)]
    assert sum(map(len, tables)) == len(set().union(*tables))


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("scene", ["beach", "night city", "studio"])
def test_full_captions_parse_back(category: str, scene: str) -> None:
    rng = random.Random(category)
    thing = sample_object(rng, category, "marble")
    spec = SceneSpec((thing,), *sample_setting(rng, scene), sample_camera(rng))
    again = parse_caption(captions(spec)[0])
    assert (again.objects[0].category, again.objects[0].material.name, again.scene) == (category, "marble", scene)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a tiger teepot", "did you mean 'teapot'"),
        ("", "names no object"),
        ("a dog and a cat and a duck", "one or two objects"),
        ("a purplish teapot", "unknown word 'purplish'"),
    ],
)
def test_bad_captions_say_what_to_do(text: str, said: str) -> None:
    with pytest.raises(CaptionError, match=said):
        parse_caption(text)


def test_poses_share_things_and_differ_in_place() -> None:
    from pops.toybox.poses import nearness, poses

    first, second, third = poses(3)
    assert (first, second, third) == poses(3) and len({first, second, third}) == 3
    assert first.scene == second.scene == third.scene
    a, b = first.objects[0], second.objects[0]
    assert (a.category, a.shape, a.material) == (b.category, b.shape, b.material) and (a.yaw, a.x) != (b.yaw, b.x)
    shares = [len(spec.objects) for seed in range(40) for spec in poses(seed, count=1)]
    assert 2 <= shares.count(2) <= 16 and all(len(poses(s, count=1, pairs=0)[0].objects) == 1 for s in range(5))
    near = nearness(shoot(first.objects, first.camera, 48))
    assert near.shape == (48, 48) and near.min() == 0 and near.max() == 1
    assert near[-1].mean() > near[:6].mean(), "the ground in front is nearer than the sky"


def test_silhouettes_are_read_from_pictures() -> None:
    from pops.toybox.poses import poses
    from pops.toybox.shot import shoot
    from pops.toybox.silhouette import Silhouette, iou

    specs = [poses(seed, "test", 1)[0] for seed in range(12)]
    exact = torch.stack([shoot(spec.objects, spec.camera, 96).mask > 0.5 for spec in specs])
    read = Silhouette.load().read(torch.stack([drawing.draw(spec, 96) for spec in specs]))
    assert iou(read, exact).mean() > 0.75
    assert iou(exact, exact).tolist() == [1.0] * 12 and iou(exact[:1], ~exact[:1]).tolist() == [0.0]
    nothing = torch.zeros(1, 4, 4, dtype=torch.bool)
    assert iou(nothing, nothing).tolist() == [1.0]
