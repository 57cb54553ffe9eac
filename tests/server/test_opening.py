"""Images and recipes of elsewhere are opened."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from PIL import Image

import pops
from pops.images import save_picture
from pops.recipe import Recipe
from servers import PHOTO, ROOT, Live


def sent(server: Live, data: bytes) -> tuple[int, dict[str, Any]]:
    """Sends a file to be opened."""
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
    return server.ask("POST", "/open", head + data + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")


def test_an_image_of_pops_comes_back_with_its_whole_recipe(live: Live, tmp_path: Path) -> None:
    photo, tiger = live.upload(), ROOT / "examples" / "textures" / "tiger.png"
    there = live.ended(live.queue(f"texturing(photo:{photo}, examples/textures/tiger.png)", seeds=[3, 4]))
    image = live.ask("GET", f"/images/{there['images'][1]['id']}")[1]
    status, told = sent(live, image)
    assert status == 200 and told["missing"] == [] and told["notes"] == [], told
    assert told["text"] == f"texturing(photo:{photo}, examples/textures/tiger.png)" and told["recipe"]["image"] == 1
    again = live.ended(live.queue(told["recipe"].pop("expression"), **told["recipe"]))
    assert live.ask("GET", f"/images/{again['images'][0]['id']}")[1] == image

    # of another machine: the photo is known by its digest, and what is not here is named
    made = pops.load(live.model).run(Recipe.of(f"union('{PHOTO}', texturing('{tiger}', _))", seed=3))
    made.save(tmp_path / "here.png")
    live.upload(tiger)
    status, told = sent(live, (tmp_path / "here.png").read_bytes())
    digest = hashlib.sha256(tiger.read_bytes()).hexdigest()[:32]
    assert status == 200 and told["text"] == f"union(photo:{photo}, texturing(photo:{digest}, _))"
    assert told["missing"] == [] and "inputs" not in told["recipe"] and "versions" not in told["recipe"]


def test_what_is_missing_is_named(live: Live) -> None:
    recipe = {
        "expression": "union(my/cup.png, e.safetensors)", "inputs": {"my/cup.png": "0" * 16},
        "loading": {"model": "org/other", "device": "cuda", "renderer": "kandinsky", "threads": 7},
        "rendering": {"control": {"depth": "map:/home/me/pose.png"}},
    }  # fmt: skip
    status, told = sent(live, json.dumps(recipe).encode())
    assert status == 200, told
    assert told["missing"] == ["my/cup.png", "/home/me/pose.png", "e.safetensors"]
    assert told["recipe"]["loading"] == {"renderer": "kandinsky"} and "model org/other" in told["notes"][0]
    assert told["tree"] and told["recipe"]["rendering"] == recipe["rendering"]


def test_what_holds_no_recipe_is_one_line(live: Live, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    save_picture(Image.new("RGB", (8, 8)), tmp_path / "newer.png", {"version": 99, "expression": "_"})
    save_picture(Image.new("RGB", (8, 8)), tmp_path / "other.png", {"workflow": "x"})
    cases = [
        ((tmp_path / "plain.png").read_bytes(), "carries no recipe"),
        ((tmp_path / "newer.png").read_bytes(), "update pops"),
        ((tmp_path / "other.png").read_bytes(), "no JSON object with an expression"),
        ((tmp_path / "newer.png").read_bytes()[:60], "the photo"),
        (b"", "the photo is empty"),
        (b"no picture", "the photo"),
        (b'{"expression": ', "no JSON"),
        (b"[" * 5000, "the photo"),
        (b'{"a":' * 5000, "cannot be read as a recipe"),
        (b'{"expression": "texturin(", "seeds": [1]}', "never closed"),
        (b'{"expression": "' + b"union(_, " * 900 + b'_)"}', "characters"),
        (json.dumps({"expression": "union(_, " * 80 + "_" + ")" * 80}).encode(), "levels deep"),
        (b'{"expression": "_", "unknown": 1}', "unknown setting"),
    ]
    for data, expected in cases:
        status, told = sent(live, data)
        message = told["error"]["message"]
        assert status == 422 and expected in message and "\n" not in message, (data[:60], told)
        assert str(live.data) not in message
    assert list((live.data / "incoming").iterdir()) == []
