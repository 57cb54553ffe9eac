"""What commands write: nothing is overwritten unasked, a stopped run goes on, shares of a run are the whole run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import pops
from folders import size_of
from pops.embedding import Embedding
from pops.images import PHOTO_SUFFIXES, read_recipe
from pops.recipe import Recipe

ONE = ("run", "texturing(a.png, _)", "-m", "$M", "--steps", "2", "--render-steps", "1")
MANY = (*ONE, "--seed", "0:20", "-o", "x.png")


def bytes_of(pattern: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path().glob(pattern))}


# --- free names


def test_a_file_that_exists_is_left_and_the_next_number_is_taken(call: Any) -> None:
    assert [call(*ONE, "-o", "x.png").stdout for _ in range(3)] == ["x.png\n", "x-1.png\n", "x-2.png\n"]
    Path("x-7.png").write_text("mine")
    assert call(*ONE, "-o", "x.png").stdout == "x-8.png\n"
    assert Path("x-7.png").read_text() == "mine"
    Path("x.png").unlink()
    assert call(*ONE, "-o", "x.png").stdout == "x.png\n"


def test_several_images_go_on_counting(call: Any) -> None:
    two = (*ONE, "--seed", "3,4", "-o", "x.png")
    assert call(*two).stdout.split() == ["x-0.png", "x-1.png"]
    assert call(*two).stdout.split() == ["x-2.png", "x-3.png"]
    assert call(*ONE, "--seed", "0:3", "-o", "x.png").stdout.split() == ["x-4.png", "x-5.png", "x-6.png"]
    assert Path("x-3.png").read_bytes() == Path("x-1.png").read_bytes()


@pytest.mark.parametrize("option", ["--tree", "--equation", "--grid", "--save-embedding"])
def test_every_other_output_is_left_too(call: Any, option: str) -> None:
    name = "e.safetensors" if "embedding" in option else "e.png"
    Path(name).write_text("mine")
    words = ONE[:-2] if "embedding" in option else ONE
    done = call(*words, option, name)
    assert done.exit_code == 0 and done.stdout.strip() == name.replace("e.", "e-1.")
    assert Path(name).read_text() == "mine"
    call(*words, option, name, "--force")
    assert Path(name).read_bytes() != b"mine"


def test_a_mix_and_its_latent_share_the_next_number(call: Any) -> None:
    mix = ("mix", "a.png", "tiger", "-m", "$M", "--steps", "2", "-o", "m.png", "--save-latent", "l.safetensors")
    call(*mix)
    Path("l-4.safetensors").write_text("mine")
    assert call(*mix).stdout.split() == ["m-5.png", "l-5.safetensors"]


def test_force_overwrites_and_json_tells_what_was_written(call: Any) -> None:
    call(*ONE, "-o", "x.png")
    Path("x.png").write_text("old")
    done = call(*ONE, "-o", "x.png", "--force", "--json")
    assert json.loads(done.stdout)["outputs"] == ["x.png"] and size_of("x.png") == (32, 32)
    assert json.loads(call(*ONE, "-o", "x.png", "--json").stdout)["outputs"] == ["x-1.png"]


# --- going on


def test_resume_makes_what_is_missing_and_nothing_else(call: Any) -> None:
    assert call(*MANY).exit_code == 0
    whole = bytes_of("x-*.png")
    assert len(whole) == 20
    for number in (0, 9, 19):
        Path(f"x-{number}.png").unlink()
    before = {name: Path(name).stat().st_mtime_ns for name in bytes_of("x-*.png")}
    done = call(*MANY, "--resume")
    assert done.stdout.split() == ["x-0.png", "x-9.png", "x-19.png"]
    assert done.stderr == "pops: 17 of 20 images stood there and were kept\n"
    assert bytes_of("x-*.png") == whole
    assert {name: Path(name).stat().st_mtime_ns for name in before} == before
    again = json.loads(call(*MANY, "--resume", "--json").stdout)
    assert again["outputs"] == [] and len(again["kept"]) == 20


def test_resume_makes_missing_figures_and_the_embedding_again(call: Any) -> None:
    more = ("--grid", "g.png", "--equation", "e.png", "--save-embedding", "v.npy")
    call(*MANY, *more)
    figures = bytes_of("[gev].*")
    assert {*figures} >= {"g.png", "e.png", "v.npy"}
    for name in [*figures, "x-11.png"]:
        Path(name).unlink()
    before = {path: path.stat().st_mtime_ns for path in Path().glob("x-*.png")}
    assert call(*MANY, *more, "--resume").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before  # made again for the rest, and not written
    assert bytes_of("[gev].*") == figures and len(bytes_of("x-*.png")) == 20


@pytest.mark.parametrize(
    ("options", "other"),
    [
        (["--seed", "1:21"], "its seeds differ"),
        (["--render-steps", "2"], "its rendering differs"),
        (["-n", "2"], "its seeds differ"),
    ],
)
def test_resume_refuses_images_of_another_run(call: Any, options: list[str], other: str) -> None:
    call(*MANY)
    before = bytes_of("x-*.png")
    done = call(*MANY, *options, "--resume")
    assert done.exit_code == 2 and "is not of this run" in done.stderr and other in done.stderr
    assert bytes_of("x-*.png") == before


@pytest.mark.parametrize("what", ["photo", "torn"])
def test_resume_refuses_a_file_that_is_no_image_of_pops(call: Any, what: str) -> None:
    if what == "photo":
        Image.new("RGB", (8, 8)).save("x-3.png")
    else:
        Path("x-3.png").write_bytes(b"\x89PNG")
    done = call(*MANY, "--resume")
    assert done.exit_code == 2 and "x-3.png exists and is not of this run (it carries no recipe)" in done.stderr
    assert len(bytes_of("x-*.png")) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--resume", "--force"], "give one"),
        (["--resume", "--no-recipe"], "leave --no-recipe out"),
        (["--shard", "1/2", "--grid", "g.png"], "make them without --shard"),
        (["--shard", "3/2"], "NUMBER/COUNT"),
    ],
)
def test_what_does_not_go_together_is_told(call: Any, options: list[str], told: str) -> None:
    done = call(*MANY, *options)
    assert done.exit_code == 2 and told in done.stderr and not bytes_of("x*.png")


# --- shares


def test_shards_are_the_whole_run(call: Any) -> None:
    call(*MANY)
    whole = bytes_of("x-*.png")
    for path in whole:
        Path(path).unlink()
    told = [call(*MANY, "--shard", f"{i}/3").stdout.split() for i in (3, 1, 2)]
    assert sorted(map(len, told)) == [4, 8, 8]
    assert bytes_of("x-*.png") == whole


def test_a_shard_stops_before_files_that_stand(call: Any) -> None:
    call(*MANY, "--shard", "2/3")
    done = call(*MANY, "--shard", "2/3")
    assert done.exit_code == 2 and "x-8.png exists; --resume keeps what stands" in done.stderr
    assert call(*MANY, "--shard", "2/3", "--resume").stdout == ""
    assert call(*MANY, "--shard", "2/3", "--force").exit_code == 0
    assert call(*ONE, "-o", "y.png", "--shard", "1/2").exit_code == 2


# --- the contact sheet


def test_the_grid_shows_every_image_and_makes_itself_again(call: Any) -> None:
    done = call(*ONE, "--seed", "4:7", "-n", "2", "--grid", "g.png")
    assert done.stdout == "g.png\n"
    width, height = size_of("g.png")
    assert height > width  # three seeds below each other, two images each
    assert Recipe.from_png("g.png").shows == "grid"
    call("run", "g.png", "-o", "again.png", "--trust")
    assert Path("again.png").read_bytes() == Path("g.png").read_bytes()
    kept = call("run", "g.png", "-o", "again.png", "--trust", "--resume")
    assert (kept.exit_code, kept.stdout) == (0, "") and "1 of 1 images stood there" in kept.stderr


def test_a_grid_of_mixes(call: Any) -> None:
    done = call("mix", "a.png", "tiger", "-m", "$M", "--steps", "2", "-n", "3", "-o", "m.png", "--grid", "g.png")
    assert done.exit_code == 0 and size_of("g.png")[0] > 2 * size_of("g.png")[1]


# --- what is written meanwhile

SLOW = """
import sys, time
from pops.render import base
render = base.SwatchRenderer.render
def slow(*arguments):
    time.sleep(0.15)
    return render(*arguments)
base.SwatchRenderer.render = slow
from pops.cli.main import app
app()
"""


def test_a_killed_run_leaves_whole_images_and_goes_on(folder: Path, photos: Path) -> None:
    words = ["run", "texturing(a.png, _)", "-m", str(folder), "--steps", "1", "--renderer", "swatch"]
    words += ["--seed", "0:40", "-o", "x.png"]
    command = [sys.executable, "-c", SLOW, *words]
    subprocess.run([*command[:-1], "whole.png"], check=True, capture_output=True)
    process = subprocess.Popen([*command, "--resume"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline().strip()  # told as soon as it is written
    assert first == "x-0.png" and Path(first).is_file()
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    stopped = bytes_of("x-*.png")
    assert 8 <= len(stopped) < 40
    assert all(read_recipe(name) and size_of(name) for name in stopped)
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    made, whole = bytes_of("x-*.png"), bytes_of("whole-*.png")
    assert len(made) == 40 and [*made.values()] == [whole[name.replace("x", "whole")] for name in made]
    assert sorted(path.suffix for path in photos.iterdir() if path.suffix not in PHOTO_SUFFIXES) == []


def test_a_run_stopped_by_a_failure_keeps_what_was_made(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pops import runner

    rendered, calls = runner.Runner.rendered, []

    def failing(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError
        return rendered(self, *arguments, **options)

    monkeypatch.setattr(runner.Runner, "rendered", failing)
    done = call(*MANY)
    assert done.exit_code == 1 and "out of memory" in done.stderr
    assert len(bytes_of("x-*.png")) == 8 == len(done.stdout.split())


# --- recipes of strangers


def stranger(path: str = "theirs.json", **loading: Any) -> str:
    Path(path).write_text(json.dumps({"version": 1, "expression": "a.png", "loading": loading}))
    return path


@pytest.mark.parametrize(
    ("loading", "named"),
    [
        ({"model": "owner/repo"}, "model owner/repo"),
        ({"decoder": "/etc"}, "decoder /etc"),
        ({"operators": {"union": "u"}}, "operators.union u"),
        ({"renderer": "owner/other"}, "renderer owner/other"),
        ({"library": "l"}, "library l"),
        ({"adapter": "a.bin"}, "adapter a.bin"),
        ({"controlnets": {"depth": "c"}}, "controlnets.depth c"),
    ],
)
def test_what_a_recipe_of_anyone_would_load_needs_trust(
    call: Any, loading: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pops.models import hub, model

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was loaded")

    with monkeypatch.context() as patch:
        patch.setattr(model, "Model", never)
        patch.setattr(hub, "resolve", never, raising=False)
        done = call("run", stranger(**loading), "-o", "x.png")
        assert done.exit_code == 2 and f"would load {named}; add --trust" in done.stderr, done.stderr
        assert call("run", "theirs.json", "--dry-run").exit_code == 2
    with pytest.raises(pops.ConfigError, match=r"recipe\.trusted\(\)"):
        pops.load("tiny").run(Recipe.read("theirs.json"))
    assert named.split()[0] in str(call("show", "theirs.json").stdout)


def test_a_trusted_recipe_is_run_and_so_is_one_whose_loads_are_named_anew(call: Any, folder: Path) -> None:
    name = stranger(model=str(folder))
    assert call("run", name, "-o", "x.png", "--render-steps", "1").exit_code == 2
    assert call("run", name, "-o", "x.png", "--render-steps", "1", "--trust").exit_code == 0
    assert call("run", name, "-o", "y.png", "--render-steps", "1", "-m", "$M").exit_code == 0
    assert Path("x.png").read_bytes() == Path("y.png").read_bytes()
    p = pops.load(folder, device="cpu")  # loaded already: nothing more is loaded
    assert len(p.run(Recipe.read(name).changed(render_steps=1))) == 1


def test_a_recipe_of_the_shipped_model_needs_no_trust() -> None:
    recipe = Recipe.from_json('{"expression": "a.png", "loading": {"model": "tiny", "renderer": "swatch"}}')
    assert not recipe.foreign
    assert Recipe.of("a.png", model="owner/repo").foreign == {}


def test_the_embedding_of_a_run_is_whole(call: Any) -> None:
    call(*MANY, "--save-embedding", "e.safetensors")
    saved = Embedding.load("e.safetensors")
    assert saved.n == 20 and saved.provenance["seeds"] == list(range(20))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *((option, "2") for option in ("--render-steps", "--render-guidance", "--prompt", "--embedding-scale")),
        ("--render-guidance-interval", "0,0.5"),
    ],
)
def test_a_setting_that_the_renderer_does_not_have_is_refused(call: Any, option: str, value: str) -> None:
    done = call("run", "a.png", "-m", "$M", "--renderer", "swatch", option, value, "-o", "x.png")
    assert done.exit_code == 2 and "the renderer swatch" in done.stderr and not Path("x.png").exists()


def test_a_photo_whose_name_is_no_unicode_is_read_and_its_recipe_repeats(call: Any) -> None:
    name = b"caf\xe9.png"
    try:
        Path(os.fsdecode(name)).write_bytes(Path("a.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes Unicode names alone")
    for i, expression in enumerate(("%s", "texturing(%s, _)", "0.5*%s + 0.5*b.png", 'mix(%s, "red", steps=2)')):
        text = expression % os.fsdecode(name)
        how = [] if "mix" in expression else ["--render-steps", "1"]
        done = call("run", text, "-m", "$M", *how, "-o", f"{i}.png")
        assert done.exit_code == 0, done.output
        assert call("run", f"{i}.png", "--trust", "-o", "again.png", "--force").exit_code == 0
        assert Path("again.png").read_bytes() == Path(f"{i}.png").read_bytes()
        assert os.fsdecode(name) in Recipe.from_png(f"{i}.png").inputs
