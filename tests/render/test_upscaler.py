"""The upscaler: what is drawn for a size, its files, and that every way to images goes through it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import pops
from folders import size_of
from pops.diffusion.sizes import Sizes, mix_sizes, sizes_of
from pops.diffusion.upscaler import Upscaler, pixels_of
from pops.errors import CheckpointError, ConfigError, ModelError
from pops.recipe import Recipe

SMALL = {"channels": 3, "width": 4, "blocks": 1, "scale": 4}


@pytest.fixture(scope="module")
def with_upscaler(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random model, 32 pixels, with an upscaler to 128."""
    copy = tmp_path_factory.mktemp("models") / "with-upscaler"
    shutil.copytree(folder, copy)
    write(copy / "renderer" / "upscaler")
    return copy


def write(folder: Path) -> Path:
    torch.manual_seed(0)
    model = Upscaler(**SMALL)
    torch.nn.init.normal_(model.last.weight, std=0.05)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SMALL))
    save_file({k: v.half() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    return folder


# --- sizes


@pytest.mark.parametrize(
    ("asked", "upscale", "sizes"),
    [
        (None, None, Sizes((128, 128), 4, (512, 512))),
        (None, 1, Sizes((128, 128), 1, (128, 128))),
        ((512, 512), None, Sizes((128, 128), 4, (512, 512))),
        ((128, 128), None, Sizes((128, 128), 1, (128, 128))),
        ((96, 64), None, Sizes((96, 64), 1, (96, 64))),
        ((256, 256), None, Sizes((128, 128), 4, (256, 256))),
        ((384, 512), None, Sizes((96, 128), 4, (384, 512))),
        ((300, 500), None, Sizes((80, 128), 4, (300, 500))),
        ((1024, 512), None, Sizes((256, 128), 4, (1024, 512))),
        ((512, 512), 1, Sizes((512, 512), 1, (512, 512))),
        ((96, 96), 4, Sizes((128, 128), 4, (96, 96))),
    ],
)
def test_what_is_drawn_for_a_size(asked: tuple[int, int] | None, upscale: int | None, sizes: Sizes) -> None:
    assert sizes_of(asked, upscale, (128, 128), 8, 4) == sizes


def test_without_an_upscaler_a_size_is_drawn_as_it_is() -> None:
    assert sizes_of((640, 512), None, (512, 512), 8, 1) == Sizes((640, 512), 1, (640, 512))
    with pytest.raises(ConfigError, match="--upscale is 1 with this renderer, got 4"):
        sizes_of(None, 4, (512, 512), 8, 1)
    with pytest.raises(ConfigError, match="--upscale is 1 or 4"):
        sizes_of(None, 2, (128, 128), 8, 4)


def test_a_mix_comes_out_as_large_as_its_photo_or_larger() -> None:
    assert mix_sizes((112, 152), (300, 400), 4).final == (448, 608)
    assert mix_sizes((112, 152), (3000, 4000), 4).final == (3000, 4000)
    assert mix_sizes((128, 128), None, 4).final == (512, 512)


# --- the network and its files


def test_it_enlarges_images_and_keeps_what_they_carry(tmp_path: Path) -> None:
    upscaler = Upscaler.load(write(tmp_path / "u"))
    image = Image.effect_noise((12, 8), 60).convert("RGB")
    image.info["pops"] = {"found": 1}
    (large,) = upscaler.images([image])
    assert large.size == (48, 32) and large.info == image.info
    wanted = (255 * upscaler(pixels_of(image)).clamp(0, 1)).round()[0].permute(1, 2, 0).to(torch.uint8)
    assert large.tobytes() == bytes(wanted.flatten().tolist())


def test_half_the_bits_give_the_same_image_but_for_rounding(tmp_path: Path) -> None:
    folder, image = write(tmp_path / "u"), Image.effect_noise((12, 8), 60).convert("RGB")
    half = Upscaler.load(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    (a,), (b,) = Upscaler.load(folder).images([image]), half.images([image])
    assert a.tobytes() != b.tobytes()
    assert (pixels_of(a) - pixels_of(b)).abs().max() < 0.01


@pytest.mark.parametrize("name", ["width", "blocks", "scale", "channels"])
@pytest.mark.parametrize("value", [None, 0, 4.0, "4", True, 10**6])
def test_a_config_that_cannot_be(tmp_path: Path, name: str, value: object) -> None:
    folder = write(tmp_path / "u")
    (folder / "config.json").write_text(json.dumps({**SMALL, name: value}))
    with pytest.raises(ModelError, match=rf"config\.json: {name} is a whole number"):
        Upscaler.load(folder)


def test_files_that_are_absent_damaged_or_of_another(tmp_path: Path) -> None:
    folder = write(tmp_path / "u")
    tensors = load_file(folder / "model.safetensors")
    del tensors["first.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit config\.json \(missing: first\.bias\)"):
        Upscaler.load(folder)
    (folder / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
        Upscaler.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        Upscaler.load(folder)


# --- in pops


def test_every_way_to_an_image_goes_through_it(photos: Path, with_upscaler: Path) -> None:
    p = pops.load(with_upscaler, device="cpu")
    small = p("a.png", render_steps=2, upscale=1)[0]
    large = p("a.png", render_steps=2)[0]
    assert small.size == (32, 32) and large.size == (128, 128)
    upscaler = Upscaler.load(with_upscaler / "renderer" / "upscaler")
    assert upscaler.images([small])[0].tobytes() == large.tobytes()
    assert p.render(p.embed("a.png"), steps=2)[0].tobytes() == large.tobytes()
    assert p.render(p.embed("a.png"), steps=2, output="latent")[0].shape[-1] == 16
    assert p("a.png", render_steps=2, size=(64, 128))[0].size == (128, 64)
    assert p("a.png", render_steps=2, size=(32, 32))[0].size == (32, 32)
    again = p.run(Recipe.of_data(large.info["pops"], "image"))[0]
    assert again.tobytes() == large.tobytes()


def test_mixes_go_through_it(photos: Path, with_upscaler: Path) -> None:
    p = pops.load(with_upscaler, device="cpu")
    large = p.mix("a.png", "tiger", steps=2)  # of 40 x 30 pixels
    small = p.mix("a.png", "tiger", steps=2, upscale=1)
    assert small.size == (40, 30) and large.size[0] > 120 and large.size[0] / large.size[1] == pytest.approx(4 / 3, 0.1)
    assert p.mix("a dog", "tiger", steps=2).size == (128, 128)
    assert p.mix("a dog", "tiger", steps=2, size=(64, 128)).size == (128, 64)
    latent = p.mix("a dog", "tiger", steps=2, output="latent")
    p.mixer().save_latent(latent, "l.safetensors")
    assert p.mix("l.safetensors", "red", steps=2).size == (128, 128)
    for image in (large, small):
        again = p.run(Recipe.of_data(image.info["pops"], "image"))[0]
        assert again.tobytes() == image.tobytes()


def test_commands_have_it(call: Any, with_upscaler: Path) -> None:
    for i, (words, size) in enumerate(
        [
            (["run", "a.png", "--render-steps", "1"], (128, 128)),
            (["run", "a.png", "--render-steps", "1", "--upscale", "1"], (32, 32)),
            (["run", "a.png", "--render-steps", "1", "--size", "64"], (64, 64)),
            (["mix", "a dog", "tiger", "--steps", "2", "--upscale", "1"], (32, 32)),
            (["mix", "a dog", "tiger", "--steps", "2"], (128, 128)),
        ]
    ):
        done = call(*words, "-m", str(with_upscaler), "-o", f"{i}.png")
        assert done.exit_code == 0, done.output
        assert size_of(f"{i}.png") == size
    done = call("run", "a.png", "--upscale", "3", "-m", str(with_upscaler), "-o", "x.png")
    assert done.exit_code == 2 and "--upscale is 1 or 4" in done.stderr
    done = call("run", "a.png", "--upscale", "4", "-m", "$M", "-o", "x.png")
    assert done.exit_code == 2 and "--upscale is 1 with this renderer" in done.stderr
