"""Controls: photos made into depth and edges, ready pictures, what recipes keep of them, and the command line."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import pops
from folders import write_controlnet, write_estimator, write_model, write_sdxl
from pops.cli.main import app
from pops.errors import CheckpointError, ConfigError, MissingExtra, ModelError, PhotoError
from pops.images import read_recipe
from pops.render import Control
from pops.render.controls import ControlMaker, DepthEstimator, nearness, scales_of

# diffusers' own, on numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def photo(seed: int = 0, size: tuple[int, int] = (60, 40)) -> Image.Image:
    noise = np.random.default_rng(seed).random((5, 6, 3)) * 255
    return Image.fromarray(noise.astype("uint8")).resize(size)


def pixels(picture: Image.Image | str | Path) -> np.ndarray:
    if isinstance(picture, Image.Image):
        return np.asarray(picture).astype(int)
    with Image.open(picture) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_estimator(tmp_path_factory.mktemp("estimator") / "relative")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, estimator: Path) -> Path:
    """A model whose renderer has a depth ControlNet, with a depth estimator of its own."""
    folder = write_model(tmp_path_factory.mktemp("models") / "controlled")
    write_controlnet(folder / "renderer" / "controlnets" / "depth", folder / "renderer")
    shutil.copytree(estimator, folder / "depth_estimator")
    return folder


# --- from photos
# ------------------------------------------------------------------------------------------


def test_depth_is_the_estimator_s_stretched_over_the_picture(estimator: Path) -> None:
    from transformers import pipeline

    made = ControlMaker(estimator).make("depth", photo(), (32, 48))
    assert made.image.size == (48, 32) and made.image.mode == "RGB"
    grey = pixels(made.image)
    assert (grey.min(), grey.max()) == (0, 255) and (grey[..., 0] == grey[..., 2]).all()
    stock = pipeline("depth-estimation", model=str(estimator), device="cpu")(photo())["predicted_depth"]
    expected = pixels(Image.fromarray(nearness(stock).numpy() * 255).resize((48, 32)))
    assert np.corrcoef(grey[..., 0].ravel(), expected.ravel())[0, 1] > 0.95, "large is near is bright"


@pytest.mark.parametrize(("kind", "brighter"), [("dpt", "right"), ("zoedepth", "left"), ("glpn", "left")])
def test_what_gives_metres_is_turned_round(estimator: Path, kind: str, brighter: str) -> None:
    """A network whose numbers grow to the right: nearness as they are, metres the other way."""
    import torch

    class Ramp:
        device, dtype = "cpu", torch.float32
        config = SimpleNamespace(model_type=kind)

        def __call__(self, pixel_values: torch.Tensor) -> Any:
            return SimpleNamespace(predicted_depth=torch.linspace(1, 9, 14).expand(1, 14, 14))

    grey = pixels(DepthEstimator(Ramp(), DepthEstimator.load(estimator).processor)(photo(), (28, 28)))
    assert (grey[:, 0].max(), grey[:, -1].min()) == ((0, 255) if brighter == "right" else (255, 0))


def test_a_flat_depth_is_far_everywhere() -> None:
    import torch

    assert float(nearness(torch.full((2, 2), 7.0)).max()) == 0


def test_edges_are_opencv_s_of_the_fitted_photo() -> None:
    import cv2

    square = Image.new("RGB", (64, 64), "black")
    square.paste("white", (16, 16, 48, 48))
    made = pixels(ControlMaker().make("canny", square, (32, 32)).image)
    small = np.asarray(square.resize((32, 32), Image.Resampling.LANCZOS))
    assert np.array_equal(made[..., 0], cv2.Canny(small, 100, 200))
    assert set(np.unique(made)) == {0, 255} and made[16, 16].max() == 0 and made[:, 6:10].max() == 255


def test_without_opencv_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtra, match=r"opencv-python-headless .*pops-diffusion\[controls\]"):
        ControlMaker().make("canny", photo(), (32, 32))


def test_a_ready_picture_is_taken_as_it_is(tmp_path: Path) -> None:
    photo().save(tmp_path / "d.png")
    maker = ControlMaker(tmp_path / "nowhere")
    made = maker.make("pose", f"map:{tmp_path / 'd.png'}", (40, 60), scale=0.5)
    assert np.array_equal(pixels(made.image), pixels(photo())) and (made.kind, made.scale) == ("pose", 0.5)
    given = Control("depth", photo(), 0.5)
    assert maker.make("depth", given, (8, 8), scale=0.5) == Control("depth", given.image, 0.25)
    deep = Image.fromarray(np.arange(64, dtype="uint16").reshape(8, 8) * 1000)
    deep.save(tmp_path / "deep.png")
    assert pixels(maker.make("depth", f"map:{tmp_path / 'deep.png'}", (8, 8)).image).max() == 245


def test_what_cannot_be_made(tmp_path: Path, estimator: Path) -> None:
    maker = ControlMaker(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"no depth estimator .*nowhere; .*depth=map:PICTURE"):
        maker.make("depth", photo(), (32, 32))
    with pytest.raises(ModelError, match=r"connect to the network, or give the depth itself: depth=map:PICTURE"):
        ControlMaker().make("depth", photo(), (32, 32))
    with pytest.raises(ConfigError, match="a pose image cannot be made from a photo .*pose=map:PICTURE"):
        maker.make("pose", photo(), (32, 32))
    with pytest.raises(ConfigError, match="the depth control is a Control of kind 'canny'"):
        maker.make("depth", Control("canny", photo()), (32, 32))
    for source in ("nowhere.png", "map:nowhere.png"):
        with pytest.raises(PhotoError, match="there is no file nowhere.png"):
            maker.make("depth", source, (32, 32))
    copy = shutil.copytree(estimator, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    weights.pop(next(iter(weights)))
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="missing: "):
        ControlMaker(copy).make("depth", photo(), (32, 32))


@pytest.mark.parametrize("scale", [-1, True, "much", float("inf"), {"canny": 1.0}])
def test_scales_that_are_none(scale: Any) -> None:
    with pytest.raises(ConfigError):
        scales_of(scale, ["depth"])
    assert scales_of({"depth": 0.5}, ["depth", "canny"]) == {"depth": 0.5, "canny": 1.0}


# --- Pops
# ------------------------------------------------------------------------------------------


def test_render_with_a_control_and_what_the_recipe_keeps(model: Path, tmp_path: Path) -> None:
    photo(1).save(tmp_path / "c.png")
    p = pops.load(model, device="cpu")
    e = p.embed(photo(2))
    seen: list[Control] = []
    how: dict[str, Any] = {"control": {"depth": tmp_path / "c.png"}, "control_scale": 0.5}
    (made,) = p.render(e, seed=3, on_control=seen.append, **how)
    assert [(c.kind, c.image.size, c.scale) for c in seen] == [("depth", (32, 32), 0.5)]
    (same,) = p.render(e, seed=3, control={"depth": seen[0]})
    (plain,) = p.render(e, seed=3)
    assert np.array_equal(pixels(made), pixels(same)) and np.abs(pixels(made) - pixels(plain)).mean() > 1
    recipe = made.info["pops"]
    told = recipe["rendering"]
    assert told["control"] == {"depth": str(tmp_path / "c.png")} and told["control_scale"] == 0.5
    assert len(recipe["inputs"][str(tmp_path / "c.png")]) == 16
    json.dumps(recipe)
    assert same.info["pops"]["rendering"]["control"] == {"depth": "$control_depth"}
    assert p.model.control_maker.depth is p.model.control_maker.depth


def test_controls_that_a_renderer_has_not(model: Path, tmp_path: Path) -> None:
    p = pops.load(model, device="cpu")
    e = p.embed(photo(2))
    with pytest.raises(ConfigError, match=r"no pose control; it takes depth \(--controlnet pose=FOLDER"):
        p.render(e, control={"pose": "map:x.png"})
    with pytest.raises(ConfigError, match="control is a photo for each kind"):
        p.render(e, control="c.png")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="multiples of 8"):
        p.render(e, control={"depth": photo()}, size=(0, 32))
    with pytest.raises(ModelError, match="there is no ControlNet"):
        pops.load(model, device="cpu", controlnets={"pose": tmp_path / "nowhere"}).renderer()
    given = pops.load(model, device="cpu", controlnets={"pose": model / "renderer" / "controlnets" / "depth"})
    assert set(given.renderer().capabilities.controls) == {"depth", "pose"}
    assert given.model.loading.controlnets == {"pose": str(model / "renderer" / "controlnets" / "depth")}


def test_one_model_renders_with_several_and_mixes_with_each(model: Path, tmp_path: Path) -> None:
    xl = write_sdxl(tmp_path / "xl")
    p = pops.load(model, device="cpu")
    e = p.embed(photo(2))
    backend = p.renderer(str(xl))
    assert backend.name == "sdxl" and p.renderer().name == "stable-diffusion" and p.renderer(str(xl)) is backend
    assert backend.steps == 50, "the model's own settings are those of its own renderer"  # type: ignore[attr-defined]
    (made,) = p.render(e, renderer=str(xl), steps=2, scale="style")
    recipe = made.info["pops"]
    assert recipe["loading"]["renderer"] == str(xl) and recipe["rendering"]["scale"] == "style"
    assert p.renderer(str(model / "renderer")) is p.renderer(), "read once, however it is named"
    (own,) = p.render(e, steps=2)
    assert "renderer" not in own.info["pops"]["loading"]
    mixer = p.mixer(str(xl))
    assert mixer.unet is backend.unet and p.mixer().unet is not mixer.unet  # type: ignore[attr-defined]
    assert p.mix(photo(3), "tiger", renderer=str(xl), steps=2).size
    with pytest.raises(ModelError, match="unknown renderer 'sdx'"):
        p.renderer("sdx")


def test_offload_is_for_devices_that_are_not_the_cpu(model: Path) -> None:
    assert not pops.load(model, device="cpu", offload=True).renderer().offload  # type: ignore[attr-defined]


# --- the command line
# ------------------------------------------------------------------------------------------


def test_run_with_a_control_and_again(model: Path, tmp_path: Path) -> None:
    for i, name in enumerate(("a", "c")):
        photo(i).save(tmp_path / f"{name}.png")
    a, c, out, hint = (str(tmp_path / name) for name in ("a.png", "c.png", "out.png", "hint.png"))
    how = [
        "--control",
        f"depth={c}",
        "--control-scale",
        "depth=0.7",
        "--embedding-scale",
        "0.8",
        "--save-control",
        hint,
    ]
    net = str(model / "renderer" / "controlnets" / "depth")
    words = ["run", a, "-m", str(model), "--device", "cpu", "-o", out, "--controlnet", f"pose={net}", *how]
    run = CliRunner().invoke(app, words)
    assert run.exit_code == 0, run.output
    assert pixels(hint).shape == (32, 32, 3) and pixels(hint).max() == 255
    recipe = read_recipe(out)
    told = recipe["rendering"]
    assert told["control"] == {"depth": c} and told["control_scale"] == {"depth": 0.7} and told["scale"] == 0.8
    assert recipe["loading"]["controlnets"] == {"pose": net}

    again = str(tmp_path / "again.png")
    run = CliRunner().invoke(app, ["run", out, "--trust", "--device", "cpu", "-o", again])
    assert run.exit_code == 0 and "changed" not in run.output, run.output
    assert Path(again).read_bytes() == Path(out).read_bytes()
    ready = str(tmp_path / "ready.png")
    run = CliRunner().invoke(
        app, ["run", out, "--trust", "--device", "cpu", "-o", ready, "--control", f"depth=map:{hint}"]
    )
    assert run.exit_code == 0 and np.array_equal(pixels(ready), pixels(out)), run.output
    photo(7).save(c)
    run = CliRunner().invoke(app, ["run", out, "--trust", "--device", "cpu", "-o", again])
    assert run.exit_code == 0 and f"{c} changed since the recipe was made" in run.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--control", "c.png"], "--control is NAME=PATH, such as depth=photo.png"),
        (["--control", "depth=nowhere.png"], "there is no file nowhere.png"),
        (["--control", "canny=nowhere.png"], "no canny control; it takes depth"),
        (["--control-scale", "much"], "a scale is a number such as 0.5, got 'much'"),
        (["--save-control", "hint.png"], "--save-control goes with --control"),
        (["--adapter", "nowhere.bin"], "no IP-Adapter nowhere.bin"),
    ],
)
def test_mistakes_on_the_command_line(model: Path, tmp_path: Path, words: list[str], says: str) -> None:
    photo().save(tmp_path / "a.png")
    out = tmp_path / "out.png"
    how = ["-m", str(model), "--device", "cpu", "-o", str(out)]
    run = CliRunner().invoke(app, ["run", str(tmp_path / "a.png"), *how, *words])
    assert run.exit_code == 2 and says in run.output and not out.exists(), run.output
