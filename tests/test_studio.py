"""Pops on a random model: operands, seeds, batches, sharing, provenance."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pops
from folders import DIM, close
from pops.errors import (
    ConfigError,
    EmbeddingError,
    ExpressionError,
    ModelError,
    OperandError,
    PhotoError,
    SpaceError,
)
from pops.operators import operator
from pops.operators.spec import BUILTIN
from pops.recipe import Recipe
from pops.seeds import seed_list
from pops.studio import Pops


@pytest.fixture(scope="module")
def p(folder: Path) -> Pops:
    return pops.load(folder, device="cpu")


def test_specs_are_known_without_weights(folder: Path) -> None:
    fresh = pops.load(folder)
    assert list(fresh.operators) == list(BUILTIN)
    assert fresh.operators["texturing"] == BUILTIN["texturing"]
    assert not {"prior", "space", "text_prior"} & set(vars(fresh.model)), "specs must not load the networks"


def test_apply_equals_the_expression_and_the_parts_by_hand(p: Pops, photos: Path) -> None:
    by_name = p.apply("texturing", "a.png", Path("b.png"), seed=3, steps=4)
    by_text = p.evaluate("texturing(a.png, b.png)", seed=3, steps=4)
    assert torch.equal(by_name.vectors, by_text.vectors)
    assert (by_text.n, by_text.dim, by_text.space) == (1, DIM, "random-32")

    operator = p.operator("texturing")
    condition = operator.encode([[p.embed("a.png").vectors[0], p.embed("b.png").vectors[0]]])
    by_hand = operator.sample(condition, [torch.Generator().manual_seed(3)], steps=4, guidance=8.0)
    assert close(by_text.vectors, by_hand)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((42,), "got 42 .int."), ((None,), "got None; write one"), (([],), "got .. .list."),
        ((3.5,), "got 3.5 .float."),
        ((Path("a.png"),), "got the path a.png; write it as text"), ((3.5, 4), "takes one expression, got 2 values"),
        (("union", "a.png", "b.png"), r"got 3 values; give operands to p.apply\(name"),
    ],
)  # fmt: skip
def test_what_is_no_expression_is_one_clear_line(p: Pops, photos: Path, given: tuple[Any, ...], says: str) -> None:
    entries: list[Any] = [p] if len(given) > 1 else [p, p.evaluate, p.trace, p.plan, pops.parse]
    for entry in entries:
        with pytest.raises((ExpressionError, OperandError), match=says) as caught:
            entry(*given)
        assert "\n" not in str(caught.value)


def test_every_kind_of_operand(p: Pops, photos: Path) -> None:
    path = p.apply("union", "a.png", "b.png", steps=3).vectors
    picture = Image.open("b.png")
    picture.load()
    for operand in (picture, p.embed("b.png"), pops.parse("b.png"), Path("b.png")):
        assert close(p.apply("union", "a.png", operand, steps=3).vectors, path)
    p.embed("b.png").save("b.safetensors")
    assert close(p.apply("union", "a.png", "b.safetensors", steps=3).vectors, path)
    assert close(p.evaluate("union(a.png, b.safetensors)", steps=3).vectors, path)
    assert not close(p.apply("union", "a.png", None, steps=3).vectors, path)
    assert not close(
        p.apply("instruct", "a.png", "red", steps=3).vectors,
        p.apply("instruct", "a.png", "tiger", steps=3).vectors,
    )


def test_whole_and_partial_calls_keep_defaults_of_their_own(folder: Path, photos: Path) -> None:
    own = pops.load(folder, device="cpu")
    spec = replace(own.operators["texturing"], steps=1, guidance=1.0, partial_steps=4, partial_guidance=2.0)
    own.model.__dict__["operators"] = {**own.operators, "texturing": spec}
    both = own.trace("union(texturing(a.png, b.png), texturing(a.png, _))", seed=3, steps=None)
    whole, partial = (both.values[node].vectors for node in both.plan.root.children())
    how = [own.apply("texturing", "a.png", "b.png", seed=3), own.apply("texturing", "a.png", None, seed=3)]
    said = [
        own.apply("texturing", "a.png", "b.png", seed=3, steps=1, guidance=1.0),
        own.apply("texturing", "a.png", None, seed=3, steps=4, guidance=2.0),
    ]
    for inside, alone, explicit in zip((whole, partial), how, said, strict=True):
        torch.testing.assert_close(inside, alone.vectors, rtol=1e-5, atol=1e-6)
        assert torch.equal(alone.vectors, explicit.vectors)


def test_a_missing_operand_is_a_zero_token(p: Pops, photos: Path) -> None:
    mean = pops.Embedding(p.model.prior.stats.mean[None], "random-32")  # zero once it is standardised
    assert close(p.apply("union", "a.png", None, steps=3).vectors, p.apply("union", "a.png", mean, steps=3).vectors)


@pytest.mark.parametrize(
    "expression",
    [
        "texturing(a.png, b.png)",
        "texturing(a.png, _)",
        "scene(texturing(a.png, b.png), union(b.png, c.png))",
        'instruct(a.png, "red")',
        'union(instruct(a.png, "red"), instruct(b.png, "red tiger red"))',
        'text("red tiger")',
        "0.5*a.png + 0.5*union(a.png, b.png)",
        "clothes(a.png, b.png, c.png)",
        "union(texturing(a.png, b.png) @7, c.png)",
    ],
)
def test_a_row_of_a_batch_equals_the_row_alone(p: Pops, photos: Path, expression: str) -> None:
    batch = p.evaluate(expression, seed=[4, 0, 9], steps=4).vectors
    alone = torch.cat([p.evaluate(expression, seed=s, steps=4).vectors for s in (4, 0, 9)])
    assert batch.shape == (3, DIM)
    assert close(batch, alone)
    assert not close(batch[0], batch[1]), "seeds must matter"


def test_a_node_with_its_own_seed_is_the_same_in_every_row(p: Pops, photos: Path) -> None:
    e = p.evaluate("union(a.png, b.png) @5", seed=[1, 2], steps=3)
    assert e.n == 2 and torch.equal(e.vectors[0], e.vectors[1])
    assert close(e.vectors[:1], p.evaluate("union(a.png, b.png)", seed=5, steps=3).vectors)


def test_each_node_draws_from_a_generator_of_its_own(p: Pops, photos: Path) -> None:
    inner = p.evaluate("texturing(a.png, b.png)", seed=2, steps=3)
    assert close(
        p.evaluate("scene(texturing(a.png, b.png), c.png)", seed=2, steps=3).vectors,
        p.apply("scene", inner, "c.png", seed=2, steps=3).vectors,
    )


def test_sums_and_photos_alone(p: Pops, photos: Path) -> None:
    a, b = p.embed(["a.png", "b.png"]).vectors
    assert close(p.evaluate("0.3*a.png + 0.7*b.png").vectors[0], 0.3 * a + 0.7 * b)
    assert close(p.evaluate("a.png - b.png").vectors[0], a - b)
    assert close(p.evaluate("a.png", seed=[0, 1]).vectors, torch.stack([a, a]))


def test_text_is_guided_by_its_own_options(p: Pops) -> None:
    a, b = (p.evaluate('text("red")', seed=1, guidance=g, steps=3).vectors for g in (1.0, 4.0))
    assert not close(a, b), "guidance must matter"
    assert close(b, p.evaluate('text("red", guidance=4, steps=3)', seed=1).vectors)


def test_a_nodes_options_come_before_the_calls(p: Pops, photos: Path) -> None:
    own = p.evaluate("union(a.png, b.png, steps=3, guidance=2)", steps=5, guidance=9.0).vectors
    assert close(own, p.evaluate("union(a.png, b.png)", steps=3, guidance=2.0).vectors)
    assert not close(own, p.evaluate("union(a.png, b.png)", steps=3, guidance=9.0).vectors)


def test_what_repeats_is_computed_once_and_levels_are_batches(
    p: Pops, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    encoded: list[int] = []
    sample, encode = operator.sample, type(p.space).encode_images

    def counted(tasks: Any, gens: Any, **how: Any) -> Any:
        batches.append(len(gens))
        return sample(tasks, gens, **how)

    def seen(self: Any, images: Any) -> Any:
        encoded.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(operator, "sample", counted)
    monkeypatch.setattr(type(p.space), "encode_images", seen)
    p.evaluate("union(scene(a.png, b.png), union(scene(a.png, b.png), scene(b.png, a.png)))", seed=[0, 1], steps=2)
    assert encoded == [2], "two photos, one batch"
    assert batches == [4, 2, 2], "two scenes x two seeds, then one union, then the other"


def test_rows_of_a_given_embedding(p: Pops, photos: Path) -> None:
    three = p.embed(["a.png", "b.png", "c.png"])
    e = p.apply("scene", three, "c.png", seed=1, steps=3)
    assert close(e.vectors[1:2], p.apply("scene", "b.png", "c.png", seed=1, steps=3).vectors)
    with pytest.raises(EmbeddingError, match="3 rows and another 2"):
        p.apply("scene", three, "c.png", seed=[0, 1])


def test_fit_and_device_settings(p: Pops, photos: Path, folder: Path) -> None:
    assert not close(p.embed("a.png").vectors, p.embed("a.png", fit="pad").vectors)
    assert not close(p.evaluate("a.png", fit="crop").vectors, p.evaluate("a.png").vectors)
    with pytest.raises(ConfigError, match="device is auto, cpu, cuda or mps, got 'gpu'"):
        _ = pops.load(folder, device="gpu").model.device
    with pytest.raises(ConfigError, match="dtype is float32"):
        _ = pops.load(folder, dtype="int8").model.dtype
    assert pops.load(folder, dtype="bfloat16").model.dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda p: p.apply("unoin", "a.png"), OperandError, "did you mean 'union'"),
        (
            lambda p: p.apply("union", "a.png"),
            OperandError,
            "takes 2 operands .* got 1; write _ for a missing one",
        ),
        (lambda p: p.apply("union", "a.png", 3), OperandError, "takes a photo here, got a int"),
        (
            lambda p: p.apply("instruct", "a.png", p.embed("a.png")),
            OperandError,
            "takes a text here, got a Embedding",
        ),
        (lambda p: p.evaluate("union(a.png, nothere.png)"), PhotoError, "there is no file nothere.png"),
        (lambda p: p.evaluate("union(a.png, $x)"), OperandError, r"\$x has no value"),
        (lambda p: p.evaluate("uniom(a.png, b.png)"), ExpressionError, "did you mean 'union'"),
        (lambda p: p.evaluate("a.png", steps=0), ConfigError, "steps must be from 1 to 1000, a whole number, got 0"),
        (lambda p: p.evaluate("a.png", seed=[]), ConfigError, "list of seeds is empty"),
        (lambda p: p.evaluate("a.png", seed=-1), ConfigError, "-1"),
        (
            lambda p: p.evaluate("union(a.png, nothere.png)", sampler="ancstral"),  # told before a photo is missed
            ConfigError,
            "did you mean 'ancestral'",
        ),
        (lambda p: p.evaluate("a.png", stpes=3), TypeError, "stpes"),
        (lambda p: p.render(pops.Embedding(torch.zeros(1, DIM), "other")), SpaceError, "space 'other'"),
        (lambda p: p.evaluate("wide.safetensors + a.png"), SpaceError, "wide.safetensors has 33 numbers"),
        (lambda p: p.render(p.embed("a.png"), seed=[1, 2]), ConfigError, "1 embedding takes 1 seed, got 2"),
        (lambda p: p.render(p.embed("a.png"), num_images=0), ConfigError, "num_images must be 1 or more"),
        (lambda p: p.render(p.embed("a.png"), output="tensor"), ConfigError, 'output must be "pil" or "latent"'),
        (
            lambda p: p.render(p.embed("a.png"), scale=0.5, renderer="swatch"),
            ConfigError,
            "has no weight of the embedding",
        ),
        (
            lambda p: p.render(p.embed("a.png"), renderer="swatch", prompt="red"),
            ConfigError,
            "the renderer swatch reads no text; leave --prompt out",
        ),
        (lambda p: p.render(p.embed("a.png"), renderer="swach"), ModelError, "did you mean 'swatch'"),
    ],
)
def test_bad_calls_say_what_to_do(p: Pops, photos: Path, call: Any, kind: Any, says: str) -> None:
    pops.Embedding(torch.zeros(1, DIM + 1), "random-32").save("wide.safetensors")
    with pytest.raises(kind, match=says):
        call(p)


def test_an_unknown_model() -> None:
    with pytest.raises(ModelError, match="did you mean 'tiny'"):
        pops.load("tinny")


def test_render_seeds_are_row_by_row(p: Pops, photos: Path) -> None:
    e = p.embed(["a.png", "b.png"])
    got = [np.asarray(i).astype(int) for i in p.render(e, seed=5, num_images=2)]
    rows = [(0, 5), (0, 6), (1, 5), (1, 6)]
    alone = [np.asarray(p.render(e[i], seed=s)[0]).astype(int) for i, s in rows]
    assert max(np.abs(a - b).max() for a, b in zip(got, alone)) <= 1
    listed = [np.asarray(i).astype(int) for i in p.render(e, seed=[5, 8])]
    assert np.abs(listed[1] - np.asarray(p.render(e[1], seed=8)[0])).max() <= 1


def test_call_renders_each_row_with_its_own_seed(p: Pops, photos: Path) -> None:
    both = p("union(a.png, b.png)", seed=[3, 4], steps=3)
    for i, seed in enumerate((3, 4)):
        e = p.evaluate("union(a.png, b.png)", seed=seed, steps=3)
        assert np.abs(np.asarray(both[i]).astype(int) - np.asarray(p.render(e, seed=seed)[0])).max() <= 1
    assert both[0] == p("union(a.png, b.png)", seed=[3, 4], steps=3)[0]
    small = p("a.png", size=(16, 24), render_steps=1, render_guidance=1.0, prompt="red")
    assert small[0].size == (24, 16)


def test_a_picture_carries_its_recipe(p: Pops, photos: Path, folder: Path) -> None:
    pictures = p("union(a.png, b.png)", seed=[3, 4], steps=3, render_steps=2)
    recipe = Recipe.of_data(json.loads(json.dumps(pictures[1].info["pops"])), "image")
    assert recipe.expression == "union(a.png, b.png)"
    assert (recipe.seeds, recipe.making.steps, recipe.making.fit, recipe.image) == ((3, 4), 3, "squash", 1)
    assert (recipe.num_images, recipe.rendering.given()) == (1, {"steps": 2})
    assert (recipe.loading.model, recipe.versions["model"]) == (str(folder), "0")
    assert recipe.versions["pops"] == pops.__version__
    assert set(recipe.inputs) == {"a.png", "b.png"} and recipe.inputs["a.png"] != recipe.inputs["b.png"]


def test_provenance_survives_a_file(p: Pops, photos: Path) -> None:
    e = p.evaluate("union(a.png, b.png)", seed=3, steps=3)
    e.save("e.safetensors")
    again = pops.Embedding.load("e.safetensors")
    assert torch.equal(again.vectors, e.vectors)
    assert again.provenance["expression"] == "union(a.png, b.png)" and again.provenance["seeds"] == [3]


def test_progress_grows_to_its_total_and_cancels(p: Pops, photos: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    p.evaluate("scene(union(a.png, b.png), c.png)", steps=3, on_progress=lambda *a: seen.append(a))
    counts = [done for done, _, _ in seen]
    assert counts == sorted(counts) and counts[-1] == seen[-1][1] == 7
    assert [what for _, _, what in seen[2:]] == ["union"] * 3 + ["scene"] * 3

    def stop(done: int, total: int, what: str) -> None:
        if what == "scene":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        p.evaluate("scene(union(a.png, b.png), c.png)", steps=3, on_progress=stop)


def test_an_extra_operator_by_folder(folder: Path, photos: Path) -> None:
    more = pops.load(folder, operators={"mine": folder / "operators" / "union"})
    assert "mine" in more.operators
    assert close(
        more.apply("mine", "a.png", "b.png", steps=2).vectors,
        more.apply("union", "a.png", "b.png", steps=2).vectors,
    )


def test_a_picture_of_photos_reads_no_text_tower_and_no_prior(folder: Path, photos: Path) -> None:
    fresh = pops.load(folder)
    fresh.evaluate("0.5*a.png + 0.5*b.png")
    assert "prior" not in vars(fresh.model) and "_text_tower" not in vars(fresh.space)


def test_importing_pops_is_light() -> None:
    heavy = "('torch', 'diffusers', 'transformers')"
    code = f"import pops, sys; pops.load; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_seed_lists() -> None:
    assert seed_list(3) == [3] and seed_list(range(2)) == [0, 1] and seed_list((5, 5)) == [5, 5]
    with pytest.raises(ConfigError, match="whole number"):
        seed_list([1.5])  # type: ignore[list-item]


def test_the_prior_has_a_precision_of_its_own(p: Pops, photos: Path) -> None:
    exact = p.evaluate("scene(a.png, b.png)", steps=2)
    for precision, most in (("bfloat16", 0.05), ("int8", 0.1)):
        near = pops.load(p.model.files.folder, precision=precision).evaluate("scene(a.png, b.png)", steps=2)
        error = float((near.vectors - exact.vectors).norm() / exact.vectors.norm())
        assert 0 < error < most, precision
    with pytest.raises(ConfigError, match="unknown precision 'int4' .did you mean 'int8'"):
        pops.load(p.model.files.folder, precision="int4").evaluate("scene(a.png, b.png)")
