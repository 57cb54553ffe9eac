"""What was broken on purpose: lost rows, overwritten files, settings without effect, recipes of other images."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pops
from folders import write_controlnet, write_renderer
from pops.errors import ConfigError, OperandError
from pops.recipe import Recipe, Rendering, Sweep
from pops.studio import Pops

U = "union(a.png, b.png, steps=2)"


@pytest.fixture(scope="module")
def p(folder: Path) -> Pops:
    return pops.load(folder, device="cpu")


def recipe_in(image: Image.Image) -> Recipe:
    return Recipe.of_data(image.info["pops"], "the image")


# --- rows of a saved embedding


def test_every_row_of_a_saved_embedding_is_written_and_repeats(call: Any, p: Pops) -> None:
    p.embed(["a.png", "b.png", "c.png"]).save("e3.safetensors")
    mix = ["mix", "e3.safetensors", "red", "--steps", "4", "--model", "$M"]
    for words in (["run", "e3.safetensors"], ["run", "union(e3.safetensors, a.png, steps=2)"], mix[:-2]):
        made = call(*words, "--model", "$M", "-o", "o.png", "--json", "--force")
        assert made.exit_code == 0, made.output
        outputs = json.loads(made.stdout)["outputs"]
        assert outputs == ["o-0.png", "o-1.png", "o-2.png"]
        again = call("run", "o-2.png", "--trust", "-o", "again.png", "--force")
        assert again.exit_code == 0, again.output
        assert Path("again.png").read_bytes() == Path("o-2.png").read_bytes()
    latents = call(
        "mix", "e3.safetensors", "red", "--steps", "2", "--model", "$M", "-o", "m.png", "--save-latent", "l.safetensors"
    )
    assert (
        latents.exit_code == 0 and len(list(Path().glob("l-*.safetensors"))) == len(list(Path().glob("m-*.png"))) == 3
    )
    Path("l-1.safetensors").unlink()
    p.embed(["a.png", "b.png"]).save("l-1.safetensors")
    refused = call("run", "l-1.safetensors", "--model", "$M", "-o", "l.png", "--save-embedding", "l-1.safetensors")
    assert refused.exit_code == 2 and "l-1.safetensors is an operand" in refused.stderr


def test_recipes_of_several_rows_can_be_read(p: Pops, photos: Path) -> None:
    images = p.render(p.embed(["a.png", "b.png"]))
    assert recipe_in(images[1]).image == 1 and recipe_in(images[1]).in_python()
    mixed = p.mix(p.embed(["a.png", "b.png"]), "red", steps=2)
    assert [recipe_in(image).image for image in mixed] == [0, 1]


# --- what is written


def test_a_grid_has_no_figures_and_no_embedding(call: Any, p: Pops) -> None:
    words = ["--model", "$M", "--steps", "2", "--sweep", "nu=0.1:0.9:2"]
    assert call("mix", "a.png", "red", "-o", "grid.png", *words).exit_code == 0
    for option in (["--tree", "t.png"], ["--equation", "t.png"], ["--save-embedding", "e.safetensors"]):
        refused = call("run", "grid.png", "--trust", *option, "-o", "g.png")
        assert refused.exit_code == 2 and "a grid has no" in refused.stderr and not Path("g.png").exists()
    grid = Recipe.of("mix(a.png, red, steps=2)", sweep=[Sweep(name="nu", values=(0.1, 0.9))])
    with pytest.raises(ConfigError, match="a grid has no figures"):
        p.run(grid, figures=["tree"])


def test_nothing_that_is_read_is_written_over(call: Any, folder: Path, tmp_path: Path, p: Pops) -> None:
    Path("ad.safetensors").write_bytes((folder / "renderer" / "ip_adapter" / "ip_adapter.safetensors").read_bytes())
    before = Path("ad.safetensors").read_bytes()
    refused = call("run", U, "--adapter", "ad.safetensors", "--save-embedding", "ad.safetensors", "--model", "$M")
    assert refused.exit_code == 2 and "ad.safetensors is an operand" in refused.stderr
    assert Path("ad.safetensors").read_bytes() == before
    net = write_controlnet(tmp_path / "cn", folder / "renderer")
    Image.open("c.png").save("c-depth.png")
    two = ["--controlnet", f"depth={net}", "--controlnet", f"canny={net}", "--model", "$M"]
    two += ["--control", "depth=map:c-depth.png", "--control", "canny=map:b.png"]
    refused = call("run", U, *two, "--save-control", "c.png", "-o", "w.png")
    assert refused.exit_code == 2 and "c-depth.png is an operand" in refused.stderr
    refused = call("run", U, *two, "--save-control", "k.png", "-o", "k-depth.png")
    assert refused.exit_code == 2 and "two outputs have the same name" in refused.stderr
    with pytest.raises(ConfigError, match=r"a\.png is an operand"):
        p.run(Recipe(expression=U)).save("a.png")


# --- recipes that would make another image


def test_the_embedding_of_a_mix_is_no_recipe_of_its_rendering(p: Pops, photos: Path) -> None:
    e = p.evaluate("mix(a.png, red, steps=2)")
    assert recipe_in(p.render(e, steps=2)[0]).in_python()
    drawn = p.run(Recipe.of(U, shows="tree", render_steps=2))
    assert drawn.trace is not None
    made = recipe_in(p.render(drawn.trace.result, steps=2)[0])
    assert made.shows == "image" and not made.in_python()
    both = p.evaluate(U, seed=[1, 2])
    assert not recipe_in(p.render(both, seed=[1, 2], steps=2)[1]).in_python()
    turned = pops.Embedding.cat([both[1], both[0]])
    assert recipe_in(p.render(turned, seed=[1, 2], steps=2)[1]).in_python(), "other rows than the recipe makes"


def test_what_only_the_figure_used_stays_out_of_a_mixs_recipe(call: Any) -> None:
    words = ["--prompt", "red", "--tree", "t.png", "--model", "$M", "--render-steps", "1"]
    assert call("run", "mix(a.png, red, steps=2)", *words, "-o", "m.png").exit_code == 0
    for name in ("m.png", "t.png"):
        again = call("run", name, "--trust", "-o", "again.png", "--force")
        assert again.exit_code == 0, again.output
        assert Path("again.png").read_bytes() == Path(name).read_bytes()


def test_a_recipe_that_names_a_model_stands_for_what_it_lists(photos: Path, folder: Path) -> None:
    asked = Recipe.of(U, model=folder, device="cpu", render_steps=2)
    plain = Pops.of(asked).run(asked)[0].tobytes()
    other = pops.load(folder, device="cpu", renderer="swatch")
    assert other.run(asked)[0].tobytes() == plain and not other._others
    assert other.run(Recipe(expression=U))[0].tobytes() != plain


def test_provenance_from_elsewhere_is_no_recipe(p: Pops, photos: Path) -> None:
    vectors = p.embed("a.png").vectors
    for about in ({"version": 2, "expression": "a.png"}, {"version": 1, "expression": "frob(a.png)"}, {"a": [1]}):
        e = pops.Embedding(vectors, "random-32", about)
        assert recipe_in(p.render(e, steps=2)[0]).in_python()


def test_other_seeds_reach_the_rendering(p: Pops, photos: Path, call: Any) -> None:
    image = p.render(p.evaluate("a.png"), seed=7, steps=2)[0]
    made = recipe_in(image)
    assert made.rendering.seeds == (7,) and made.changed(seed=[1, 2]).rendering.seeds is None
    assert p.run(made.changed(seed=19))[0].tobytes() == p.run(Recipe.of("a.png", seed=19, render_steps=2))[0].tobytes()
    trees = [p.run(Recipe.of(U, render_seed=s, render_steps=2), figures=["tree"]).figures["tree"] for s in (0, 8)]
    assert trees[0].tobytes() != trees[1].tobytes()


# --- values given in Python


def test_control_photos_given_in_python(photos: Path, folder: Path, tmp_path: Path) -> None:
    net = write_controlnet(tmp_path / "cn", folder / "renderer")
    p = pops.load(folder, device="cpu", controlnets={"depth": net})
    from pops.render import Control

    with Image.open("c.png") as file:
        ready = Control("depth", file.convert("RGB"))
    image = p(U, control={"depth": ready}, render_steps=2)[0]
    assert image.tobytes() == p(U, control={"depth": "map:c.png"}, render_steps=2)[0].tobytes()
    made = recipe_in(image)
    assert made.in_python() == ["$control_depth"]
    with pytest.raises(ConfigError, match=r"\$control_depth was given in Python"):
        p.run(made)
    assert p.run(made, given={"control_depth": ready})[0].tobytes() == image.tobytes()
    with pytest.raises(ConfigError, match="control is a photo for each kind"):
        p(U, control="c.png")  # type: ignore[arg-type]


def test_numpys_numbers_are_numbers(p: Pops, photos: Path) -> None:
    mixed = p.mix("a.png", "red", nu=np.float64(0.5), steps=np.int64(8), seed=np.int64(3))  # type: ignore[arg-type]
    assert isinstance(mixed, Image.Image)
    assert mixed.tobytes() == p.mix("a.png", "red", nu=0.5, steps=8, seed=3).tobytes()
    assert Recipe.of(U, seed=np.array([1, 2]), num_images=np.int64(2)).seeds == (1, 2)  # type: ignore[arg-type]
    with pytest.raises(OperandError, match="got a ndarray"):
        p.mix(np.zeros((4, 16, 16)), "red")  # type: ignore[arg-type]


# --- refused before anything is computed


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": (7, 8)}, "multiples of 8"),
        ({"renderer": "nope"}, "nope"),
        ({"renderer": "swatch", "prompt": "red"}, "reads no text"),
        ({"control": {"depth": "map:c.png"}}, "has no depth control"),
        ({"control_scale": 0.5}, "goes with --control"),
        ({"seed": 2**63 - 1, "num_images": 2}, "from 0 to"),
        ({"library": "/nope"}, "retrieval|nope"),
        ({"adapter": "/nope.safetensors"}, "nope"),
    ],
)
def test_mistakes_of_rendering_are_told_first(p: Pops, photos: Path, options: dict[str, Any], says: str) -> None:
    told: list[str] = []
    with pytest.raises(pops.PopsError, match=says):
        p.run(Recipe.of(U, **options), on_progress=lambda done, total, what: told.append(what))
    assert told == []


def test_settings_without_effect_are_refused(p: Pops, photos: Path) -> None:
    cases: list[tuple[str, Any, str]] = [
        ("a.png", {"steps": 3}, "no operator to sample: steps"),
        ("0.5*a.png + 0.5*b.png", {"sampler": "ddim"}, "no operator to sample: sampler"),
        ("mix(a.png, red, steps=2)", {"render_steps": 3}, "a mix is not rendered: render_steps"),
    ]
    for expression, options, says in cases:
        with pytest.raises(ConfigError, match=says):
            p.run(Recipe.of(expression, **options))
    with pytest.raises(ConfigError, match="no image is rendered: prompt"):
        p.run(Recipe.of(U, prompt="x"), render=False)
    with pytest.raises(ConfigError, match="unknown figure 'foo'; choose from tree, equation"):
        p.run(Recipe(expression=U), figures=["foo"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"the expression has no \$x"):
        p.run(Recipe(expression=U), given={"x": 1})


# --- one process


def test_no_second_model_where_one_fits(photos: Path, folder: Path) -> None:
    q = Pops.of(Recipe.of("a.png", model=folder))
    choices: list[Any] = [{"device": "auto"}, {"offload": False}, {"dtype": "float32"}, {"precision": "float32"}]
    for options in choices:
        q.run(Recipe.of("a.png", model=folder, render_steps=1, **options))
    assert q._others == []
    renderer = write_renderer(photos / "sd", seed=9)
    for threads in (1, 2, 1):
        q.run(Recipe.of("a.png", model=folder, decoder=renderer, render_steps=1, threads=threads))
    assert len(q._others) == 1


def test_threads_are_restored_whatever_runs_beside(photos: Path, folder: Path) -> None:
    p = pops.load(folder, device="cpu")
    p.run(Recipe.of(U, render_steps=1))
    before, wrong = torch.get_num_threads(), []

    def work(count: int) -> None:
        for _ in range(3):
            result = p.run(Recipe.of(U, render_steps=1, threads=count))
            if result.recipe.loading.threads != count:
                wrong.append(count)

    workers = [threading.Thread(target=work, args=(n,)) for n in (2, 3, 2, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert torch.get_num_threads() == before and wrong == []


def test_round_trips_keep_what_a_user_gave() -> None:
    for recipe in (
        Recipe(expression=""),
        Recipe(expression="a.png", rendering=Rendering(scale={"up": None}, control_scale={})),
        Recipe(expression="a.png", found={"a": None}),
    ):
        assert Recipe.from_json(recipe.to_json()) == recipe and hash(recipe) == hash(Recipe.from_json(recipe.to_json()))


def test_a_replaced_control_is_no_changed_input(photos: Path, folder: Path, tmp_path: Path) -> None:
    net = write_controlnet(tmp_path / "cn", folder / "renderer")
    p = pops.load(folder, device="cpu", controlnets={"depth": net})
    made = p.run(Recipe.of(U, control={"depth": "map:c.png"}, render_steps=1)).recipe
    assert p.run(made.changed(control={"depth": "map:a.png"})).notes == []
    Path("b.png").write_bytes(Path("c.png").read_bytes())
    assert p.run(made).notes == ["b.png changed since the recipe was made; the image will differ"]
