"""Recipes: every field in every form, what cannot be one, and that what is repeated is the same to the byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image
from pydantic import BaseModel

import pops
from folders import write_controlnet, write_kandinsky_decoder, write_renderer, write_sdxl
from pops.errors import ConfigError, PhotoError
from pops.images import save_picture
from pops.recipe import PLACES, Loading, Making, Options, Recipe, Rendering, Sweep
from pops.studio import Pops

# A value off its default for every field.
FULL = Recipe(
    expression='mix(a.png, "tiger", nu=0.5)',
    seeds=(3,),
    image=0,
    sweep=(Sweep(name="nu", values=(0.1, 0.9)), Sweep(name="steps", values=(2, 3))),
    making=Making(steps=4, guidance=2.5, strength=1.5, sampler="ddim", fit="pad"),
    rendering=Rendering(
        steps=5,
        guidance=1.5,
        guidance_interval=(0.25, 0.5),
        guidance_rescale=0.5,
        pag_scale=1.5,
        size=(24, 40),
        prompt="red",
        negative="blue",
        scale={"up": {"block_0": [0.0, 1.0]}},
        control={"depth": "map:d.png"},
        control_scale={"depth": 0.5},
        seeds=(9,),
        upscale=4,
        enlarge=2,
    ),
    loading=Loading(
        model="m",
        decoder="d",
        operators={"mine": "o"},
        renderer="sdxl",
        library="l",
        adapter="a.safetensors",
        controlnets={"depth": "c"},
        device="cpu",
        dtype="float32",
        precision="int8",
        offload=True,
        max_batch=3,
        threads=2,
    ),
    inputs={"a.png": "0" * 16},
    versions={"pops": "0.1.0"},
    found={"path": "p.png", "score": 0.5, "rank": 0},
).model_copy(update={"num_images": 2, "shows": "tree"})  # a grid has one image and no tree: never together


def fields(part: BaseModel, place: str = "") -> dict[str, tuple[Any, Any]]:
    """Every field with its value and its default, by its place."""
    found: dict[str, tuple[Any, Any]] = {}
    for name, value in part:
        default = type(part).model_fields[name].get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            found |= fields(value, f"{place}{name}.")
        else:
            found[place + name] = (value, default)
    return found


def test_the_full_recipe_has_every_field_off_its_default() -> None:
    same = [name for name, (value, default) in fields(FULL).items() if value == default and name != "version"]
    assert same == []


@pytest.mark.parametrize("name", [n for n in fields(FULL) if n != "version"])
@pytest.mark.parametrize("form", ["json", "png", "jpg", "webp"])
def test_every_field_is_read_as_it_was_written(tmp_path: Path, name: str, form: str) -> None:
    recipe = Recipe(expression="a.png")
    value = fields(FULL)[name][0]
    part, _, field = name.rpartition(".")
    if part:
        inner = getattr(recipe, part)
        recipe = Recipe(**{**dict(recipe), part: type(inner)(**{**dict(inner), field: value})})
    else:
        recipe = Recipe(**{**dict(recipe), field: value})
    assert fields(recipe)[name][0] == value
    if form == "json":
        assert Recipe.from_json(recipe.to_json()) == recipe
        return
    place = tmp_path / f"x.{form}"
    image = recipe.attach(Image.new("RGB", (8, 8)))
    save_picture(image, place, image.info["pops"])
    assert Recipe.from_png(place) == Recipe.read(place) == recipe


def test_every_option_reaches_its_field() -> None:
    assert set(Options.__annotations__) == set(PLACES)
    of_options = {f"{part}.{field}".lstrip(".") for part, field in PLACES.values()}
    assert of_options == set(fields(FULL)) - {"version", "expression", "inputs", "versions", "found"}
    full = {name: value for name, (value, _) in fields(FULL).items()}
    for option, (part, field) in PLACES.items():
        value = full[f"{part}.{field}".lstrip(".")]
        if option in ("sweep", "shows", "image", "num_images"):
            continue
        made = Recipe.of("a.png", **{option: value})
        assert fields(made)[f"{part}.{field}".lstrip(".")][0] == value, option
    grid = Recipe.of("mix(a.png, x)", sweep=FULL.sweep, num_images=1, image=0)
    assert (grid.sweep, grid.image) == (FULL.sweep, 0)
    assert Recipe.of("a.png", shows="tree").shows == "tree"
    assert Recipe.of("a.png", num_images=3).num_images == 3
    with pytest.raises(TypeError, match="no setting 'stpes' .did you mean 'steps'"):
        Recipe.of("a.png", stpes=3)  # type: ignore[call-arg]


def test_changes_ask_for_all_images_and_take_another_models_parts_away() -> None:
    base = FULL.model_copy(update={"sweep": (), "num_images": 1})
    assert base.changed().image == 0 and base.changed(steps=2).image == 0
    assert base.changed(seed=[1, 2]).image is None and base.changed(num_images=2).image is None
    other = base.changed(model="n").loading
    assert (other.decoder, other.adapter, other.operators, other.controlnets) == (None, None, {}, {})
    assert base.changed(model="m").loading == base.loading
    more = base.changed(operators={"x": Path("p")}).loading
    assert more.operators == {"mine": "o", "x": "p"}


def test_the_schema_names_every_field() -> None:
    schema = Recipe.json_schema()
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["additionalProperties"] is False
    for kind in (Making, Rendering, Loading):
        assert set(schema["$defs"][kind.__name__]["properties"]) == set(kind.model_fields)
    json.dumps(schema)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"seeds": [0] * 200_000}, "seeds cannot be"),
        ({"seeds": []}, "seeds cannot be"),
        ({"seeds": [True]}, "seeds cannot be [True]: whole numbers only"),
        ({"seeds": ["1"]}, "seeds cannot be ['1']: whole numbers only"),
        ({"seeds": [-1]}, "-1"),
        ({"seeds": [2**70]}, "seed"),
        ({"expression": 3}, "expression cannot be 3"),
        ({"expression": "x" * 200_000}, "expression cannot be"),
        ({"making": {"steps": 0}}, "steps must be from 1 to 1000"),
        ({"making": {"steps": 3.5}}, "making.steps cannot be 3.5"),
        ({"making": {"sampler": "dim"}}, "did you mean 'ddim'"),
        ({"making": {"fit": "stretch"}}, "making.fit cannot be 'stretch': input should be 'squash', 'crop' or 'pad'"),
        ({"rendering": {"enlarge": 1000}}, "rendering.enlarge cannot be 1000"),
        ({"rendering": {"guidance": float("nan")}}, "rendering.guidance cannot be nan"),
        ({"rendering": {"size": [1, 2, 3]}}, "rendering.size"),
        ({"rendering": {"stpes": 3}}, "unknown setting 'rendering.stpes' (did you mean 'steps'?); choose from"),
        ({"loading": {"model": 7}}, "loading.model cannot be 7"),
        ({"loading": []}, "loading cannot be"),
        ({"seed": 3}, "unknown setting 'seed'"),
        ({"image": 4}, "names image 4 of 1"),
        ({"num_images": 20_000}, "num_images cannot be 20000"),
        ({"sweep": [{"name": "nu", "values": []}]}, "values cannot be"),
        ({"sweep": [{"name": "negative", "values": [1]}]}, "name cannot be 'negative'"),
        ({"version": 2}, "has the format 2, this pops reads 1; update pops"),
        ({"version": None}, "has the format None"),
        ({"version": True}, "has the format True"),
        ({"version": "1"}, "has the format '1', this pops reads 1; write \"version\": 1"),
        ({"rendering": {"guidance": "3"}}, "rendering.guidance cannot be '3'"),
        ({"rendering": {"guidance": True}}, "rendering.guidance cannot be True"),
        (
            {"rendering": {"guidance_interval": [0.5, 0.5]}},
            "rendering.guidance_interval cannot be [0.5, 0.5]: its start must be less",
        ),
        ({"rendering": {"guidance_interval": [0, 1.5]}}, "rendering.guidance_interval.1 cannot be 1.5"),
        ({"rendering": {"guidance": 1e300}}, "rendering.guidance cannot be 1e+300"),
        ({"rendering": {"seeds": []}}, "rendering.seeds cannot be []"),
        ({"loading": {"offload": "yes"}}, "loading.offload cannot be 'yes'"),
        ({"sweep": [{"name": "nu", "values": [True]}]}, "values.0 cannot be True"),
        ({"sweep": [{"name": "nu", "values": [0.5]}], "shows": "tree"}, "a grid has no tree"),
    ],
)
def test_what_is_no_recipe_is_one_line(data: dict[str, Any], says: str) -> None:
    whole = {"version": 1, "expression": "a.png", **data}
    with pytest.raises(ConfigError) as told:
        Recipe.from_json(json.dumps(whole))
    assert says in str(told.value) and "\n" not in str(told.value) and len(str(told.value)) < 400


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"expression": 1}', "[" * 100_000])
def test_other_json(text: str) -> None:
    with pytest.raises(ConfigError):
        Recipe.from_json(text)


def test_pictures_without_a_recipe_or_with_an_older_one(tmp_path: Path) -> None:
    save_picture(Image.new("RGB", (8, 8)), tmp_path / "bare.png")
    with pytest.raises(PhotoError, match="carries no recipe"):
        Recipe.from_png(tmp_path / "bare.png")
    save_picture(Image.new("RGB", (8, 8)), tmp_path / "old.png", {"expression": "a.png", "render": {}})
    with pytest.raises(ConfigError, match="was written by an earlier pops, and cannot be read; make the image again"):
        Recipe.from_png(tmp_path / "old.png")


def test_what_read_takes(photos: Path) -> None:
    assert Recipe.read("union(a.png, b.png)").expression == "union(a.png, b.png)"
    assert Recipe.read("a.png").expression == "a.png"
    Path("t.yaml").write_text("union: [a.png, b.png]\n")
    Path("t.json").write_text('{"union": ["a.png", "b.png"]}')
    assert Recipe.read("t.yaml") == Recipe.read("t.json") == Recipe(expression="union(a.png, b.png)")
    recipe = Recipe.of("union(a.png, b.png)", seed=[1, 2], steps=3)
    Path("r.json").write_text(recipe.to_json())
    assert Recipe.read("r.json") == recipe
    Image.new("RGB", (8, 8)).save("odd name, (1).png")
    assert parse_photo(Recipe.read("odd name, (1).png").expression) == "odd name, (1).png"


def parse_photo(text: str) -> str:
    from pops.expression.nodes import Photo

    root = pops.parse(text).root
    assert isinstance(root, Photo)
    return root.path


# --- what is repeated is the same to the byte
# ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders that a recipe may name, beside the model."""
    from safetensors.torch import load_file, save_file

    home = tmp_path_factory.mktemp("parts")
    own = load_file(folder / "renderer" / "ip_adapter" / "ip_adapter.safetensors")
    save_file({k: v * 1.5 for k, v in own.items()}, home / "adapter.safetensors")
    return {
        "$M": str(folder),
        "$ADAPTER": str(home / "adapter.safetensors"),
        "$DECODER": str(write_kandinsky_decoder(home / "kandinsky")),
        "$SDXL": str(write_sdxl(home / "sdxl")),
        "$SD": str(write_renderer(home / "sd", seed=9)),
        "$CONTROLNET": str(write_controlnet(home / "control", folder / "renderer")),
        "$OPERATOR": str(folder / "operators" / "union"),
    }


MIX_ALL = (
    'mix(a.png, "red:1.5 tiger", nu="0.9,0.4", k_min=0.2, k_max=0.9, steps=4, guidance=3, strength=0.5, '
    'reach=text, negative="blue", inject=input, size="24x40")'
)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("union(a.png, b.png)", {"seed": [3, 4], "num_images": 2, "steps": 2}),
    "all of making": ("union(a.png, _)", {"steps": 3, "guidance": 2.0, "sampler": "ddim", "fit": "crop"}),
    "all of rendering": (
        "union(a.png, b.png)",
        {"steps": 2, "render_steps": 2, "render_guidance": 2.0, "size": (24, 40), "prompt": "red", "negative": "tiger",
         "scale": 0.5, "enlarge": 3, "render_seed": 8, "render_guidance_interval": (0, 0.5), "pag_scale": 2.5,
         "guidance_rescale": 0.7},
    ),
    "let and seeds": ("let t = texturing(a.png, b.png, steps=2); union(t, t@7, steps=2)", {"seed": 5}),
    "precision": ("union(a.png, b.png)", {"steps": 2, "precision": "bfloat16"}),
    "dtype and batch": ("union(a.png, b.png)", {"steps": 2, "num_images": 3, "max_batch": 2, "dtype": "float32"}),
    "an operator elsewhere": ("mine(a.png, b.png)", {"steps": 2, "operators": {"mine": "$OPERATOR"}}),
    "an adapter": ("union(a.png, b.png)", {"steps": 2, "adapter": "$ADAPTER"}),
    "a control": (
        "union(a.png, b.png)",
        {"steps": 2, "controlnets": {"depth": "$CONTROLNET"}, "control": {"depth": "map:c.png"}, "control_scale": 0.7},
    ),
    "Kandinsky": ("union(a.png, b.png)", {"steps": 2, "decoder": "$DECODER", "render_steps": 2}),
    "SDXL": ("union(a.png, b.png)", {"steps": 2, "renderer": "$SDXL", "render_steps": 2}),
    "a decoder elsewhere": ("union(a.png, b.png)", {"steps": 2, "decoder": "$SD", "render_steps": 2}),
    "another backend": ("union(a.png, b.png)", {"steps": 2, "renderer": "swatch"}),
    "a mix": (MIX_ALL, {"seed": [1, 2], "num_images": 2}),
    "a mix with an adapter": ("mix(a.png, b.png, steps=3)", {"adapter": "$ADAPTER", "fit": "pad"}),
    "a mix by SDXL": ("mix(a.png, red, steps=3)", {"renderer": "$SDXL"}),
    "a mix beside ControlNets": ("mix(a.png, red, steps=3)", {"controlnets": {"depth": "$CONTROLNET"}}),
    "a mix of several": ('mix(a.png, 0.7*"red" + 0.3*b.png, steps=3)', {}),
    "mixes inside": ("union(mix(a.png, red, steps=3), b.png, steps=2)", {"seed": 2}),
    "a grid": (
        "mix(a.png, red, steps=3)",
        {"sweep": (Sweep(name="nu", values=(0.1, 0.9)), Sweep(name="k_max", values=(0.5, 1)))},
    ),
    "a tree": ("union(texturing(a.png, _, steps=2), b.png, steps=2)", {"shows": "tree", "render_steps": 2}),
    "an equation": ("0.5*a.png + 0.5*b.png", {"shows": "equation", "seed": [1, 2], "render_steps": 2}),
    "a tree of a mix": ("mix(a.png, union(a.png, b.png, steps=2), steps=3)", {"shows": "tree", "render_steps": 1}),
}  # fmt: skip


def with_parts(value: Any, parts: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: with_parts(v, parts) for k, v in value.items()}
    return parts.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("case", CASES)
def test_a_recipe_repeats_itself(photos: Path, parts: dict[str, str], case: str) -> None:
    expression, options = CASES[case]
    asked = Recipe.of(expression, **with_parts({"model": "$M", "device": "cpu", **options}, parts))
    first = Pops.of(asked).run(asked)
    paths = first.save("out.png")
    assert len(paths) == len(first) >= 1
    read = Recipe.from_png(paths[-1]).trusted()
    assert read.making == asked.making and read.rendering == asked.rendering
    assert (read.expression, read.seeds, read.sweep) == (asked.expression, asked.seeds, asked.sweep)
    for name, value in asked.loading.given().items():
        assert getattr(read.loading, name) == value, name
    # A plain Pops: it loads what the recipe names.
    again = pops.load(parts["$M"], device="cpu").run(read)
    again.save("again.png")
    assert Recipe.from_png("again.png") == read
    assert Path("again.png").read_bytes() == paths[-1].read_bytes()
    # By JSON, and by a JPEG's recipe.
    first.save("out.jpg")
    jpeg = "out.jpg" if len(paths) == 1 else f"out-{len(paths) - 1}.jpg"
    assert Recipe.from_json(read.to_json()) == read == Recipe.from_png(jpeg)


def test_a_library_repeats_itself(photos: Path, folder: Path) -> None:
    from pops.library import index_folder

    model = Pops.of(Recipe.of("a.png", model=folder, device="cpu"))
    index_folder(photos, photos / "x.library", model.space, side=model.model.photo_side)
    asked = Recipe.of("union(a.png, b.png)", model=folder, steps=2, library=str(photos / "x.library"), num_images=2)
    first = model.run(asked)
    first.save("out.png")
    found = Recipe.from_png("out-1.png").trusted()
    assert found.found is not None and Path(str(found.found["path"])).name in {"a.png", "b.png", "c.png"}
    pops.load(folder, device="cpu").run(found).save("again.png")
    assert Path("again.png").read_bytes() == Path("out-1.png").read_bytes()


def test_threads_are_part_of_the_recipe(photos: Path, folder: Path) -> None:
    import torch

    p = pops.load(folder, device="cpu")
    during: list[int] = []
    result = p.run(Recipe.of("union(a.png, b.png)", steps=2, threads=2), on_progress=lambda *_: during.append(
        torch.get_num_threads()))  # fmt: skip
    assert set(during) == {2} and torch.get_num_threads() == 1
    assert result.recipe.loading.threads == 2
    assert p.run(Recipe.of("a.png")).recipe.loading.threads == 1


def test_a_recipe_that_names_no_model_is_run_by_what_is_loaded(photos: Path, parts: dict[str, str]) -> None:
    p = pops.load(parts["$M"], device="cpu", adapter=parts["$ADAPTER"])
    recipe = Recipe.of("union(a.png, b.png)", steps=2)
    assert p._for(recipe) is p
    assert p.run(recipe).recipe.loading.adapter == parts["$ADAPTER"]
    named = recipe.changed(model=parts["$M"])
    plain = p.run(named)  # it names a model and no adapter: none
    assert plain.recipe.loading.adapter is None
    assert plain[0].tobytes() == pops.load(parts["$M"], device="cpu").run(recipe)[0].tobytes()
    assert plain[0].tobytes() != p.run(recipe)[0].tobytes()


def test_values_given_in_python_cannot_be_repeated_and_it_is_told(photos: Path, folder: Path) -> None:
    p = pops.load(folder, device="cpu")
    with Image.open("a.png") as file:
        photo = file.convert("RGB")
    image = p.mix(photo, "tiger", steps=2)
    recipe = Recipe.of_data(image.info["pops"], "image")
    assert recipe.expression.startswith("mix($given1, ") and recipe.in_python() == ["$given1"]
    with pytest.raises(ConfigError, match=r"\$given1 was given in Python, and the recipe does not hold it"):
        p.run(recipe)
    assert p.run(recipe, given={"given1": photo})[0].tobytes() == image.tobytes()
    rendered = p.render(p.embed(photo), steps=2)[0]
    with pytest.raises(ConfigError, match="was given in Python"):
        p.run(Recipe.of_data(rendered.info["pops"], "image"))


def test_an_embedding_keeps_the_recipe_for_its_rendering(photos: Path, folder: Path) -> None:
    p = pops.load(folder, device="cpu")
    e = p.evaluate("union(a.png, b.png)", seed=[3, 4], steps=2)
    images = p.render(e, seed=[3, 4], steps=2)
    recipe = Recipe.of_data(images[1].info["pops"], "image")
    assert (recipe.seeds, recipe.rendering.seeds, recipe.image) == ((3, 4), None, 1)
    other = p.render(e, seed=7, steps=2)
    recipe = Recipe.of_data(other[1].info["pops"], "image")
    assert (recipe.seeds, recipe.rendering.seeds) == ((3, 4), (7,))
    assert p.run(recipe)[0].tobytes() == other[1].tobytes()
    part = p.render(e[1], seed=4, steps=2)[0]  # a row alone: no recipe says which
    assert Recipe.of_data(part.info["pops"], "image").in_python()


def test_results_are_lists_and_can_be_saved_bare(photos: Path, folder: Path) -> None:
    p = pops.load(folder, device="cpu")
    seen: list[int] = []
    result = p.run(Recipe.of("union(a.png, _)", steps=2, seed=[0, 1]), on_image=lambda i, image: seen.append(i))
    assert isinstance(result, list) and len(result) == 2 and seen == [0, 1]
    assert [str(path) for path in result.save("x.png", recipe=False)] == ["x-0.png", "x-1.png"]
    with pytest.raises(PhotoError, match="carries no recipe"):
        Recipe.from_png("x-0.png")
    assert get_args(Recipe.model_fields["shows"].annotation) == ("image", "tree", "equation", "grid")
