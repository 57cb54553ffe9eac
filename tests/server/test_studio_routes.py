"""What the studio asks for: snippets, figures, worked examples, what models need."""

from __future__ import annotations

import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pops.recipe import Recipe
from pops.snippets import options_of, snippet
from servers import Live

A, B = "a" * 32, "b" * 32
SVG = "{http://www.w3.org/2000/svg}"


def recipes() -> list[Recipe]:
    """Recipes that use every kind of setting."""
    text = "texturing('a b.png', \"it's\")"
    return [
        Recipe.of("texturing(a.png, _)"),
        Recipe.of(text, seed=[3, 7], steps=8, guidance=2.5, strength=1.5, sampler="ddim", fit="crop", negative="-x"),
        Recipe.of(
            text, num_images=2, render_steps=4, render_guidance=3, size=(64, 32), prompt="a 'quoted' one", scale=0.5,
            control={"depth": "map:p.png", "canny": "q r.png"}, control_scale={"depth": 0.5}, enlarge=2, upscale=1,
            render_guidance_interval=(0, 0.75), guidance_rescale=0.5, pag_scale=2.5, dtype="bfloat16",
        ),
        Recipe.of("-0.5*a.png + b.png", renderer="swatch", operators={"mine": "x/y"}, offload=True, device="cpu"),
        Recipe.of("mix(a.png, 'x')", shows="tree"),
        Recipe.of("a.png", seed=[1, 2, 3], image=2, threads=1, max_batch=2, scale={"down": 0.5}, render_seed=9),
        Recipe.from_json('{"expression": "mix(a.png, \'b\')", "sweep": [{"name": "nu", "values": [0.1, 1]}]}'),
    ]  # fmt: skip


def ran(recipe: Recipe, kind: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[Recipe, str]:
    """Returns the recipe that a snippet runs, and where it writes."""
    from typer.testing import CliRunner

    import pops.cli.make
    import pops.studio
    from pops.cli.main import app

    seen: list[Any] = []
    monkeypatch.chdir(folder)
    text = snippet(recipe, kind)
    if kind == "python":

        class Loaded:
            def run(self, recipe: Recipe) -> Any:
                seen.append(recipe)
                return self

            def save(self, path: str) -> None:
                seen.append(path)

        monkeypatch.setattr(pops, "load", lambda name: Loaded())
        exec(compile(text, "snippet", "exec"), {})  # noqa: S102
        return seen[0], seen[1]
    monkeypatch.setattr(pops.studio.Pops, "of", classmethod(lambda cls, recipe: None))
    monkeypatch.setattr(pops.cli.make, "make", lambda pops, recipe, outputs, **how: seen.extend([recipe, outputs]))
    if text.startswith("cat"):
        subprocess.run(["bash", "-c", text.split("\npops run")[0]], check=True)
        text = "pops run" + text.split("\npops run")[1]
    done = CliRunner().invoke(app, shlex.split(text)[1:])
    assert done.exit_code == 0, (text, done.output)
    return seen[0], str(seen[1].out or seen[1].tree)


@pytest.mark.parametrize("number", range(len(recipes())))
@pytest.mark.parametrize("kind", ["python", "command"])
def test_a_snippet_makes_the_same(number: int, kind: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = recipes()[number]
    made, out = ran(recipe, kind, monkeypatch, tmp_path)
    if recipe.shows != "image" and kind == "command":
        made = made.of_figure(recipe.shows)
    made = made.model_copy(update={"expression": made.expression.strip()})
    assert made == recipe and out == "out.png"
    assert not made.foreign


def test_settings_are_those_that_were_given() -> None:
    for recipe in recipes()[:-1]:
        assert Recipe.of(recipe.expression, **options_of(recipe)) == recipe


def test_exports_name_the_files(client: Callable[..., TestClient]) -> None:
    from pops.server.store import StoredPhoto

    one = client()
    one.app.state.core.store.add_photo(StoredPhoto(B, 8, 8, "my cup.png"), 1)  # type: ignore[attr-defined]
    recipe = {"expression": f"union(photo:{A}, union(photo:{B}, photo:{B[:-1]}c))", "seeds": [4]}
    asked = {"recipe": recipe, "as": "command", "names": {f"photo:{A}": "../../x/my cup.png"}}
    told = one.post("/api/v1/export", json=asked).json()
    assert told["files"] == {
        f"photo:{A}": "my cup.png", f"photo:{B}": "my cup-2.png", f"photo:{B[:-1]}c": "bbbbbbbb.png",
    }  # fmt: skip
    model = one.app.state.core.settings.default  # type: ignore[attr-defined]
    words = shlex.split(told["text"])
    assert words[2] == "union('my cup.png', union('my cup-2.png', bbbbbbbb.png))"
    assert words[words.index("--model") + 1] == model and words[-2:] == ["-o", "out.png"]
    assert one.post("/api/v1/export", json={**asked, "as": "ruby"}).status_code == 422
    wrong = one.post("/api/v1/export", json={**asked, "recipe": {"expression": "union("}})
    assert wrong.status_code == 422 and wrong.json()["error"]["span"]


@pytest.mark.parametrize("figure", ["tree", "equation"])
def test_figures_are_images_and_drawings(live: Live, figure: str) -> None:
    photo = live.upload()
    job = live.ended(live.queue(f"instruct(photo:{photo}, 'a < b & c')", shows=figure, rendering={"steps": 1}))
    assert job["status"] == "done", job
    (image,) = job["images"]
    status, drawn = live.ask("GET", f"/images/{image['id']}?format=svg")
    root = ET.fromstring(drawn)
    assert status == 200 and root.tag == f"{SVG}svg"
    assert (int(root.attrib["width"]), int(root.attrib["height"])) == (image["width"], image["height"])
    texts = " ".join(text.text or "" for text in root.iter(f"{SVG}text"))
    assert "instruct" in texts and "a < b & c" in texts and str(live.data) not in drawn.decode()
    assert all(i.attrib["href"].startswith("data:image/png;base64,") for i in root.iter(f"{SVG}image"))
    assert len(list(root.iter(f"{SVG}image"))) == 2
    assert f">{'f'}</text>" in drawn.decode()  # the photo's name, as it was sent
    plain = live.ended(live.queue(f"photo:{photo}"))
    assert live.ask("GET", f"/images/{plain['images'][0]['id']}?format=svg")[0] == 404


def test_worked_examples_run_at_once(tiny_live: Live) -> None:
    examples = tiny_live.ask("GET", "/gallery")[1]["examples"]
    assert len({one["name"] for one in examples}) == len({one["title"] for one in examples}) == 8
    assert tiny_live.ask("GET", "/gallery")[1]["examples"] == examples
    for one in examples:
        for photo in one["photos"]:
            assert tiny_live.ask("GET", f"/photos/{photo}?size=64")[0] == 200
    jobs = [tiny_live.ask("POST", "/jobs?reuse=1", one["recipe"])[1]["id"] for one in examples]
    for job, one in zip(jobs, examples, strict=True):
        done = tiny_live.ended(job)
        assert done["status"] == "done" and done["warnings"] == [], (one["title"], done)
    assert set(tiny_live.ended(jobs[0])["names"].values()) == {"teapot.png", "tiger.png"}


def test_models_say_what_they_need(client: Callable[..., TestClient]) -> None:
    needs = {row["name"]: row for row in client().get("/api/v1/models").json()["needs"]}
    assert needs["tiny"]["here"] and "no GPU" in needs["tiny"]["needs"]
    assert "pops models pull kandinsky-2-2" in needs["kandinsky-2-2"]["get"] or needs["kandinsky-2-2"]["here"]
    done = subprocess.run([sys.executable, "-m", "pops", "models", "list"], capture_output=True, text=True, check=True)
    assert all(row["needs"] in done.stdout for row in needs.values())


def test_models_say_how_their_own_upscaler_enlarges(client: Callable[..., TestClient], folder: Path) -> None:
    from pops.diffusion.sizes import scale_of

    (row,) = client().get("/api/v1/models").json()["models"]
    assert row["upscale"] == 1
    config = folder.parent / "sharp" / "upscaler" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"scale": 4}')
    assert scale_of(config.parents[1]) == 4
    config.write_text("{")
    assert scale_of(config.parents[1]) == 1
