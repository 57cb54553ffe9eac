"""The store, and the parts of the server that need no process."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pops.errors import ConfigError
from pops.expression.grammar import parse, to_text
from pops.recipe import Recipe
from pops.server.events import Events, TooManyListeners, until_ended
from pops.server.references import References, photos_in, renamed
from pops.server.settings import Limits
from pops.server.store import QueueFull, Store, StoredPhoto

A, B = "a" * 32, "b" * 32
RECIPE = {"version": 1, "expression": f"texturing(photo:{A}, _)", "seeds": [3]}


def test_jobs_come_in_order_and_those_that_killed_a_worker_last(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ids = [store.add_job("tiny", RECIPE, [A], 10)[0].id for _ in range(3)]
    assert store.start(ids[:1]) == ids[:1]
    assert store.again(ids[0], died=True)
    assert [job.id for job in store.waiting("tiny", 9)] == [ids[1], ids[2], ids[0]]
    assert store.waiting("other", 9) == []
    store.start(ids[:1])
    assert not store.again(ids[0], died=True)  # twice
    assert store.end(ids[0], "failed", {"code": "WorkerError", "message": "x"})
    assert not store.end(ids[0], "done")  # an end is an end
    assert [job.status for job in store.jobs(0, 10)] == ["failed", "queued", "queued"]
    assert [job.seq for job in store.jobs(1, 1)] == [2]


def test_what_was_accepted_is_there_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ids = [store.add_job("tiny", RECIPE, [A], 10)[0].id for _ in range(3)]
    store.start(ids[:2])
    store.add_image(ids[0], 0, 8, 8, 100)
    other = Store(tmp_path)  # the first was killed
    assert other.requeue() == 2
    assert [(job.id, job.status) for job in other.jobs(0, 10)] == [(one, "queued") for one in ids]
    assert [image.id for image in other.waiting("tiny", 1)[0].images] == [f"{ids[0]}-0"]


def test_a_queue_has_an_end(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for _ in range(2):
        store.add_job("tiny", RECIPE, [], 2)
    with pytest.raises(QueueFull, match="2 jobs wait already"):
        store.add_job("tiny", RECIPE, [], 2)


def test_old_jobs_and_photos_that_nobody_uses_are_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for photo in (A, B):
        store.photo_path(photo).parent.mkdir(parents=True, exist_ok=True)
        store.photo_path(photo).write_bytes(b"x" * 100)
        store.add_photo(StoredPhoto(photo, 8, 8), 100)
    ids = [store.add_job("tiny", RECIPE, [A], 10)[0].id for _ in range(4)]
    for one in ids[:3]:
        store.image_path(one, 0).parent.mkdir(parents=True)
        store.image_path(one, 0).write_bytes(b"x" * 100)
        store.add_image(one, 0, 8, 8, 100)
        store.start([one])
        store.end(one, "done")
    assert store.tidy(history=2, disk=10**6) == 1
    assert store.job(ids[0]) is None and not store.image_path(ids[0], 0).exists()
    assert store.tidy(history=2, disk=150) == 2  # both that ended; then a photo that nobody uses
    assert store.photo(A) is not None and store.photo(B) is None and not store.photo_path(B).exists()
    assert store.job(ids[3]) is not None


def test_a_file_that_is_no_store_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(ConfigError, match="cannot be read"):
        Store(tmp_path)
    (tmp_path / "later").mkdir()
    db = sqlite3.connect(tmp_path / "later" / "jobs.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="later pops"):
        Store(tmp_path / "later")


def test_photos_are_renamed_in_the_tree_and_nowhere_else() -> None:
    text = f"let t = union(photo:{A}, 'photo:{B}.png'); mix(0.5*t + 0.5*photo('photo:{A}'), \"photo:{A}\")"
    recipe = Recipe.of(text, prompt=f"photo:{A}", control={"depth": f"map:photo:{A}", "canny": f"photo:{A}"})
    paths = References({f"photo:{A}": "/d/a b"}, {}).to_paths(recipe)
    names = [name for name, _ in photos_in(parse(paths.expression))]
    assert names == ["/d/a b", f"photo:{B}.png", "/d/a b"]
    assert f'"photo:{A}"' in paths.expression and paths.rendering.prompt == f"photo:{A}"  # texts stay texts
    assert paths.rendering.control == {"depth": "map:/d/a b", "canny": "/d/a b"}
    back = renamed(paths, lambda name: {"/d/a b": f"photo:{A}"}.get(name, name))
    assert parse(back.expression) == parse(to_text(parse(back.expression)))
    assert next(name for name, _ in photos_in(parse(back.expression))) == f"photo:{A}"


def test_what_leaves_the_server_has_no_paths() -> None:
    asked = Recipe.of(f"texturing( photo:{A} , _)", renderer="retrieval", library="mine")
    references = References({f"photo:{A}": "/d/photos/aa"}, {"mine": "/d/mine.library"})
    own = references.to_paths(asked)
    assert own.loading.library == "/d/mine.library"
    data = own.model_copy(
        update={"inputs": {"/d/photos/aa": "0123"}, "found": {"path": "/home/me/x.png", "rank": 0}}
    ).to_data()
    told = references.to_names(data, asked)
    assert told["expression"] == asked.expression and told["inputs"] == {f"photo:{A}": "0123"}
    assert told["loading"]["library"] == "mine" and told["found"]["path"] == "x.png" and "/d/" not in str(told)
    assert references.hidden("/d/photos/aa is empty") == f"photo:{A} is empty"


def test_a_listener_that_is_behind_misses_no_end() -> None:
    async def story() -> list[str]:
        events = Events(2)
        queue = events.listen("j")
        for step in range(500):
            events.tell("j", "progress", {"done": step})
        events.tell("j", "image", {})
        events.tell("j", "done", {})
        events.tell("j", "progress", {})
        events.listen("j")
        with pytest.raises(TooManyListeners):
            events.listen("k")
        return [event.name async for event in until_ended(queue)]

    told = asyncio.run(story())
    assert told[-2:] == ["image", "done"] and 0 < len(told) < 100


def test_requests_have_limits(client: Callable[..., TestClient]) -> None:
    limits = Limits(length=200, depth=3, images=4, image_pixels=10**6, threads=2, queue=2)
    one, tiger = client(limits), "examples/textures/tiger.png"
    deep = "union(_, " * 4 + tiger + ")" * 4
    for recipe, told in (
        ({"expression": f"text('{'a' * 300}')"}, "has 308 characters"),
        ({"expression": deep}, "levels deep"),
        ({"expression": tiger, "seeds": list(range(5))}, "asks for 5 images"),
        ({"expression": tiger, "num_images": 5}, "asks for 5 images"),
        ({"expression": tiger, "rendering": {"size": [4096, 4096]}}, "16777216 pixels"),
        ({"expression": tiger, "rendering": {"enlarge": 16}}, "pixels"),
        ({"expression": tiger, "loading": {"threads": 64}}, "64 threads"),
        ({"expression": tiger, "loading": {"max_batch": 3}}, "max_batch 8"),
        ({"expression": tiger, "loading": {"precision": "int8"}}, "precision"),
        ({"expression": tiger, "loading": {"model": "org/model"}}, "no model 'org/model'"),
        ({"expression": tiger, "loading": {"renderer": "/tmp"}}, "no renderer '/tmp'"),
        ({"expression": tiger, "loading": {"renderer": "retrieval"}}, "needs loading.library"),
        ({"expression": tiger, "loading": {"library": "x"}}, "no library 'x'"),
        ({"expression": "texturin(_, _)"}, "did you mean 'texturing'"),
        ({"expression": f"photo:{A}"}, "has no photo"),
        ({"expression": tiger, "seeds": [-1]}, "got -1"),
        ({"expression": tiger, "unknown": 1}, "unknown setting"),
        ({}, "expression is missing"),
    ):
        answer = one.post("/api/v1/jobs", json=recipe)
        assert answer.status_code == 422 and told in answer.json()["error"]["message"], (recipe, answer.text)
    for _ in range(2):
        assert one.post("/api/v1/jobs", json={"expression": tiger}).status_code == 202
    full = one.post("/api/v1/jobs", json={"expression": tiger})
    assert full.status_code == 429 and int(full.headers["retry-after"]) >= 1


def test_texts_become_trees_and_trees_texts(client: Callable[..., TestClient]) -> None:
    one = client()
    text = "texturing(examples/objects/teapot.png, _) @3"
    parsed = one.post("/api/v1/parse", json={"text": text}).json()
    assert parsed["photos"] == ["examples/objects/teapot.png"]
    assert one.post("/api/v1/parse", json={"tree": parsed["tree"]}).json() == parsed
    wrong = one.post("/api/v1/parse", json={"text": "union(texturin(_, _), _)"}).json()["error"]
    assert wrong["span"] == [6, 14] and wrong["suggestion"] == "texturing"
    for body in ({}, {"text": "_", "tree": "_"}, {"text": "_", "more": 1}):
        assert one.post("/api/v1/parse", json=body).status_code == 422
