"""The history, and jobs that are asked for again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pops.server.history import favour, history
from pops.server.keys import key_of
from pops.server.settings import Limits
from pops.server.store import QueueFull, Store, StoredPhoto
from pops.server.tables import STEPS
from servers import Live

A = "a" * 32
TIGER = "examples/textures/tiger.png"


def recipe(text: str, **more: Any) -> dict[str, Any]:
    return {"version": 1, "expression": text, "seeds": [3], **more}


def done(store: Store, job: str) -> None:
    """Ends a job, with one image."""
    store.start([job])
    store.image_path(job, 0).parent.mkdir(parents=True, exist_ok=True)
    store.image_path(job, 0).write_bytes(b"x" * 100)
    store.add_image(job, 0, 8, 8, 100)
    store.end(job, "done")


def test_one_recipe_has_one_key_however_it_is_written() -> None:
    key = key_of("tiny", "1", recipe(f"texturing( photo:{A},_ )"))
    assert key == key_of("tiny", "1", {**recipe(f"texturing(photo:{A}, _)"), "inputs": {"x": "1"}, "versions": {}})
    others = [
        key_of("tiny", "1", recipe(f"texturing(photo:{A}, _)"), {"dtype": "bfloat16"}),
        key_of("tiny", "2", recipe(f"texturing(photo:{A}, _)")),
        key_of("other", "1", recipe(f"texturing(photo:{A}, _)")),
        key_of("tiny", "1", recipe(f"texturing(_, photo:{A})")),
        key_of("tiny", "1", recipe(f"texturing(photo:{A}, _)", making={"steps": 3})),
        key_of("tiny", "1", {**recipe(f"texturing(photo:{A}, _)"), "seeds": [4]}),
    ]
    assert len({key, *others}) == 7


def test_a_job_is_reused_while_it_waits_runs_or_has_its_images(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def ask(**how: Any) -> tuple[str, bool]:
        job, reused = store.add_job("tiny", recipe("_"), [], 10, key="k", **how)
        return job.id, reused

    first, reused = ask(reuse=True, quick=True)
    assert not reused and ask(reuse=True, quick=True) == (first, True)
    assert ask()[1] is False  # nobody asked to reuse
    store.end(ask()[0], "failed")
    other = store.add_job("tiny", recipe("_"), [], 10, key="other", reuse=True)
    assert not other[1]
    for job in store.jobs(0, 10)[1:]:
        store.end(job.id, "cancelled")
    done(store, first)
    assert ask(reuse=True, quick=True) == (first, True)
    store.image_path(first, 0).unlink()
    again, reused = ask(reuse=True)
    assert again != first and not reused


def test_previews_run_behind_and_leave_room(tmp_path: Path) -> None:
    store = Store(tmp_path)
    quick = [store.add_job("tiny", recipe("_"), [], 6, quick=True)[0].id for _ in range(3)]
    with pytest.raises(QueueFull):
        store.add_job("tiny", recipe("_"), [], 6, quick=True)
    asked = [store.add_job("tiny", recipe("_"), [], 6)[0].id for _ in range(3)]
    assert [job.id for job in store.waiting("tiny", 9)] == [*asked, *quick]
    with pytest.raises(QueueFull):
        store.add_job("tiny", recipe("_"), [], 6)


def test_the_history_is_what_a_person_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add_photo(StoredPhoto(A, 8, 8, "Teapot blau.PNG"), 100)
    texts = [f"texturing(photo:{A}, _)", "scene(text('Teapot'), _)", "0.5*_ + 0.5*union(_, _)", "text('scene(')"]
    ids = [store.add_job("tiny", recipe(text), [A] if A in text else [], 10)[0].id for text in texts]
    preview = store.add_job("tiny", recipe("_"), [], 10, key="p", quick=True)[0].id

    def found(**how: Any) -> list[str]:
        return [job.id for job in history(store, **how)]

    assert found() == ids[::-1]
    assert found(limit=2) == [ids[3], ids[2]]
    assert found(limit=2, before=history(store, limit=2)[-1].place) == [ids[1], ids[0]]
    assert found(text="TEAPOT") == [ids[1], ids[0]] and found(text="blau teapot") == [ids[0]]
    assert found(text="100%_") == [] and found(text="\ud800") == []
    assert found(operator="scene") == [ids[1]] and found(operator="union") == [ids[2]]
    favour(store, ids[0], favourite=True)
    assert found(favourite=True) == [ids[0]]
    favour(store, ids[0], favourite=False)
    assert found(favourite=True) == []
    assert store.add_job("tiny", recipe("_"), [], 10, key="p", reuse=True)[0].id == preview
    assert found()[0] == preview  # now a person asked for it, last of all


def test_tidying_forgets_previews_first_and_no_favourites(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ids = [store.add_job("tiny", recipe("_"), [], 20, quick=n > 2)[0].id for n in range(6)]
    for one in ids:
        done(store, one)
    favour(store, ids[0], favourite=True)
    assert store.tidy(history=10, disk=450) == 2 and store.job(ids[3]) is None and store.job(ids[4]) is None
    assert store.tidy(history=10, disk=1) == 3 and [job.id for job in store.jobs(0, 10)] == ids[:1]


def test_data_of_the_version_before_are_taken_over(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "jobs.sqlite")
    db.executescript(STEPS[0] + "PRAGMA user_version = 1;")
    values = (A, "tiny", json.dumps(recipe("Texturing('x.png', union(_, _))")), "[]", "queued", 1.0)
    db.execute("INSERT INTO jobs (id, model, recipe, photos, status, created) VALUES (?, ?, ?, ?, ?, ?)", values)
    db.commit()
    db.close()
    store = Store(tmp_path)
    assert [job.id for job in history(store, text="texturing", operator="union")] == [A]
    store.close()
    assert [job.id for job in history(Store(tmp_path))] == [A]


def test_a_recipe_is_queued_once(client: Callable[..., TestClient]) -> None:
    one = client(Limits(queue=4))
    first = one.post("/api/v1/jobs?reuse=1&quick=1", json={"expression": TIGER}).json()
    assert first["reused"] is False
    again = one.post("/api/v1/jobs?reuse=1", json={"expression": f"'{TIGER}'", "seeds": [0]}).json()
    assert again == {"id": first["id"], "reused": True}
    told = one.get(f"/api/v1/jobs/{first['id']}").json()
    assert told["quick"] is False and told["place"] == 1 and told["recipe"]["expression"] == TIGER
    assert [job["id"] for job in one.get("/api/v1/history?text=tiger").json()["jobs"]] == [first["id"]]
    assert one.post(f"/api/v1/jobs/{first['id']}/favourite", json={"favourite": True}).json()["favourite"]
    assert len(one.get("/api/v1/history?favourite=1").json()["jobs"]) == 1
    assert one.post(f"/api/v1/jobs/{first['id']}/favourite", json={"favourite": "x"}).status_code == 422
    assert one.post(f"/api/v1/jobs/{'0' * 32}/favourite", json={"favourite": True}).status_code == 404
    assert one.get("/api/v1/history?before=x").status_code == 422


def test_a_photo_keeps_the_name_of_its_file(live: Live) -> None:
    def named(name: str) -> str:
        head = f'--x\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        data = Path(__file__).parents[2].joinpath("examples/objects/mug.png").read_bytes()
        status, photo = live.ask("POST", "/photos", head + data + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")
        assert status == 201
        return str(photo["name"])

    assert named("../../etc/my mug.png") == "my mug.png"
    assert named("C:\\x\\Tasse \u202egnp.png") == "Tasse gnp.png"
    assert named("x" * 300) == "x" * 100
    assert named("mug.png") == "mug.png"
    job = live.queue(f"texturing(photo:{live.upload(Path('examples/objects/mug.png').resolve())}, _)")
    assert list(live.ended(job)["names"].values()) == ["f"]  # as it was sent last


def test_what_an_image_may_suffer_from_is_told(tiny_live: Live) -> None:
    job = tiny_live.queue("texturing(text('quantum bureaucracy'), _)")
    told = tiny_live.ended(job)
    assert told["status"] == "done", told
    assert [warning["code"] for warning in told["warnings"]] == ["out-of-depth"], told
    assert "quantum" in told["warnings"][0]["operand"] and told["warnings"][0]["message"]
