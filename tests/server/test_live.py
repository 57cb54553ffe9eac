"""A real server: photos, jobs, events, images; the command line as its client."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

import pops
from pops.images import read_recipe
from pops.recipe import Recipe
from pops.server.serving import bound
from servers import PHOTO, ROOT, Live

TIGER = "examples/textures/tiger.png"
KILLS = int(os.environ.get("POPS_TEST_KILLS", "1"))  # more of them take minutes
LONG = {"rendering": {"steps": 900}, "seeds": list(range(32))}  # takes minutes


def stream(server: Live, job: str) -> Any:
    """Opens a job's event stream; close it."""
    return urllib.request.urlopen(f"{server.address}/jobs/{job}/events", timeout=120)


def events(server: Live, job: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns all events of a job."""
    with stream(server, job) as answer:
        return told(answer.read().decode())


def told(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns the events in a stream's text: name and data."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_the_same_bytes_are_the_same_photo(live: Live) -> None:
    one = live.upload()
    assert live.upload() == one and len(one) == 32
    status, small = live.ask("GET", f"/photos/{one}?size=64")
    assert status == 200 and Image.open(io.BytesIO(small)).size == (64, 64)
    assert live.ask("GET", f"/photos/{'0' * 32}")[0] == 404


def test_what_is_no_photo_is_refused(live: Live, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    Image.new("1", (30_000, 30_000)).save(bomb)  # a small file of 900 million pixels
    for data in (b"not a photo", b"", bomb.read_bytes(), PHOTO.read_bytes()[:500]):
        (tmp_path / "x").write_bytes(data)
        body = b'--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n' + data + b"\r\n--x--\r\n"
        status, answer = live.ask("POST", "/photos", body, "multipart/form-data; boundary=x")
        assert status == 422 and answer["error"]["code"] == "PhotoError", answer
        assert str(live.data) not in answer["error"]["message"]
    assert list((live.data / "incoming").iterdir()) == []
    live.upload()  # the next one is taken


def test_a_job_makes_what_pops_makes(live: Live) -> None:
    expression = f"scene(texturing(photo:{live.upload()}, {TIGER}), _)"
    job = live.ended(live.queue(expression, seeds=[3, 9], num_images=2))
    assert job["status"] == "done", job
    assert [image["number"] for image in job["images"]] == [0, 1, 2, 3]
    here = expression.replace("examples/", f"{ROOT}/examples/").replace(f"photo:{live.upload()}", str(PHOTO))
    alone = pops.load(live.model).run(Recipe.of(here, seed=[3, 9], num_images=2))
    for image, expected in zip(job["images"], alone, strict=True):
        made = Image.open(io.BytesIO(live.ask("GET", f"/images/{image['id']}")[1]))
        assert made.tobytes() == expected.tobytes()
        recipe = json.loads(made.info["pops"])
        assert recipe["expression"] == expression and str(live.data) not in made.info["pops"]
        assert list(recipe["inputs"].values()) == list(expected.info["pops"]["inputs"].values())
    status, plain = live.ask("GET", f"/images/{job['images'][0]['id']}?recipe=0")
    assert status == 200 and "pops" not in Image.open(io.BytesIO(plain)).info
    status, small = live.ask("GET", f"/images/{job['images'][0]['id']}?size=64")
    assert status == 200 and max(Image.open(io.BytesIO(small)).size) <= 64


def test_a_mix_and_a_figure_are_jobs_too(live: Live) -> None:
    mixed = live.queue(f'mix(photo:{live.upload()}, "tiger", steps=4)')
    tree = live.queue(f"texturing(photo:{live.upload()}, _)", shows="tree")
    for job in (mixed, tree):
        done = live.ended(job)
        assert done["status"] == "done" and len(done["images"]) == 1, done


def test_a_stream_tells_a_job_from_beginning_to_end(live: Live) -> None:
    job = live.queue(f"texturing({TIGER}, _)", rendering={"steps": 12}, seeds=[1, 2])
    story = events(live, job)
    assert story[0][0] in ("queued", "running") and story[-1][0] == "done"
    assert {"progress", "image"} <= {name for name, _ in story}
    progress = [data for name, data in story if name == "progress"]
    assert all(0 <= data["done"] <= data["total"] and data["what"] for data in progress)
    assert [data["number"] for name, data in story if name == "image"] == [0, 1]
    after = events(live, job)  # of a job that has ended: what it came to
    assert [name for name, _ in after] == ["image", "image", "done"]


def test_jobs_are_cancelled_within_a_step_or_before_they_start(live: Live) -> None:
    running, waiting = live.queue(f"texturing({TIGER}, _)", **LONG), live.queue(f"texturing({TIGER}, _)")
    while live.ask("GET", f"/jobs/{running}")[1]["status"] != "running":
        time.sleep(0.05)
    assert live.ask("DELETE", f"/jobs/{waiting}")[1]["status"] == "cancelled"
    assert live.ask("DELETE", f"/jobs/{running}")[0] == 200
    assert live.ended(running, 30)["status"] == "cancelled"
    assert events(live, waiting)[-1][0] == "cancelled"
    assert live.ended(live.queue(f"texturing({TIGER}, _)"))["status"] == "done"  # the worker goes on


def test_a_job_that_cannot_be_made_fails_and_says_why(live: Live) -> None:
    steps = live.ended(live.queue(TIGER, rendering={"steps": 1000}))
    assert steps["status"] == "failed" and "ask for 999 or fewer" in steps["error"]["message"], steps
    job = live.ended(live.queue(f"texturing({TIGER}, _)", rendering={"size": [33, 32]}))
    assert job["status"] == "failed" and job["error"]["code"] == "ConfigError" and "33" in job["error"]["message"]
    assert events(live, job["id"])[-1][1]["error"]["message"] == job["error"]["message"]


def test_streams_that_are_left_leave_nothing(live: Live) -> None:
    job = live.queue(f"texturing({TIGER}, _)", **LONG)
    try:
        opened = [stream(live, job) for _ in range(50)]
        figures = live.metrics()
        assert "pops_event_streams 50.0" in figures
        for one in opened:
            one.close()
        until = time.monotonic() + 60
        while "pops_event_streams 0.0" not in live.metrics():
            assert time.monotonic() < until, "streams stay open"
            time.sleep(0.2)
    finally:
        live.ask("DELETE", f"/jobs/{job}")


def test_health_makes_an_image(live: Live) -> None:
    status, answer = live.ask("GET", "/health")
    assert status == 200 and answer["ok"] and answer["workers"][0]["model"] == live.model
    assert {"kandinsky", "swatch"} <= {row["name"] for row in live.ask("GET", "/renderers")[1]["renderers"]}


@pytest.mark.parametrize(
    ("figure", "more", "suffix"),
    [(False, [], ".png"), (True, [], ".png"), (False, ["--no-recipe"], ".png"), (False, [], ".jpg")],
)
def test_the_command_line_writes_the_same_files(
    live: Live, call: Any, photos: Path, figure: bool, more: list[str], suffix: str
) -> None:
    words = ["run", "texturing(a.png, 'b.png')", "--seed", "4,7", "--model", "$M", *more]
    there, here = photos / "there", photos / "here"
    for folder, way in ((here, []), (there, ["--server", live.address.removesuffix("/api/v1")])):
        folder.mkdir()
        extra = ["--grid", str(folder / "grid.png")] if figure else []
        done = call(*[live.model if w == "$M" else w for w in words], "-o", str(folder / f"o{suffix}"), *extra, *way)
        assert done.exit_code == 0, done.output
    names = sorted(path.name for path in here.iterdir())
    assert names == sorted(path.name for path in there.iterdir()) and len(names) == (3 if figure else 2)
    for name in names:
        assert (there / name).read_bytes() == (here / name).read_bytes(), name
    if not more:
        assert read_recipe(there / f"o-0{suffix}")["expression"] == "texturing(a.png, 'b.png')"


def test_the_client_imports_no_networks(live: Live, photos: Path) -> None:
    """That is what makes it quick."""
    code = """
import sys
from pops.cli.main import app
try:
    app(["run", "texturing(a.png, _)", "-o", "o.png", "--server", sys.argv[1]])
except SystemExit as e:
    heavy = {"torch", "diffusers", "transformers", "tokenizers", "accelerate", "safetensors", "numpy", "fastapi"}
    print(e.code, sorted(heavy & set(sys.modules)))
"""
    words = [sys.executable, "-c", code, live.address.removesuffix("/api/v1")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["o.png", "0 []"] and (photos / "o.png").is_file()


def test_the_command_line_says_what_the_server_cannot(live: Live, call: Any, photos: Path) -> None:
    server = ["--server", live.address.removesuffix("/api/v1"), "-o", "o.png"]
    for words, told in (
        (["texturin(a.png, b.png)", *server], "did you mean 'texturing'"),
        (["texturing(a.png, missing.png)", *server], "missing.png cannot be read"),
        (["texturing(a.png, _)", *server, "--resume"], "work without --server"),
        (["texturing(a.png, _)", *server, "--tree", "t.png"], "which a server does not know"),
        (["texturing(a.png, _)", *server, "--model", "other"], "no model 'other'"),
        (["texturing(a.png, _)", "-o", "o.png", "--server", "127.0.0.1:1"], "does not answer"),
        (["texturing(a.png, _)", "-o", "o.png", "--server", "ftp://x"], "--server is an address"),
    ):
        done = call("run", *words)
        assert done.exit_code in (1, 2) and told in done.output, done.output
    assert not (photos / "o.png").exists()


# --- what must not be lost -------------------------------------------------------------------------


def test_kills_lose_no_job_and_change_no_image(serving: Callable[..., Live]) -> None:
    server = serving()
    asked = [{"seeds": [n, n + 1], "rendering": {"steps": 30}} for n in range(8 if KILLS == 1 else 5 * KILLS)]
    ids = [server.queue(f"texturing({TIGER}, _)", **one) for one in asked]
    for round_ in range(KILLS):  # of a worker, and of the server with its worker
        server.ended(ids[round_ * 3])
        server.kill_worker()
        server.ended(ids[round_ * 3 + 1])
        server.kill()
        server = serving()
    jobs = [server.ended(job) for job in ids]
    assert [job["status"] for job in jobs] == ["done"] * len(ids)
    listed = server.ask("GET", "/jobs?limit=200")[1]["jobs"]
    assert [job["id"] for job in listed] == ids
    again = [server.ended(server.queue(f"texturing({TIGER}, _)", **one)) for one in asked]  # undisturbed
    for one, other in zip(jobs, again, strict=True):
        pairs = zip(one["images"], other["images"], strict=True)
        assert all(
            server.ask("GET", f"/images/{a['id']}")[1] == server.ask("GET", f"/images/{b['id']}")[1] for a, b in pairs
        )
    assert server.stop() == 0


def test_a_job_that_kills_its_worker_twice_is_set_aside(serving: Callable[..., Live]) -> None:
    server = serving()
    bad = server.queue(f"texturing({TIGER}, _)", **LONG)
    for _ in range(2):
        until = time.monotonic() + 120
        while server.worker() is None or server.ask("GET", f"/jobs/{bad}")[1]["status"] != "running":
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.3)
        server.kill_worker()
        time.sleep(0.5)
    found = server.ended(bad)
    assert found["status"] == "failed" and "ended twice" in found["error"]["message"]
    assert server.ended(server.queue(f"texturing({TIGER}, _)"))["status"] == "done"


def test_a_graceful_stop_keeps_what_runs_for_the_next_start(serving: Callable[..., Live]) -> None:
    server = serving("--seconds", "1000")
    waits = stream(server, job := server.queue(f"texturing({TIGER}, _)", rendering={"steps": 200}, seeds=[1]))
    assert server.stop() == 0
    with waits:
        assert told(waits.read().decode())[0][0] in ("queued", "running")  # and it ended
    worker = server.worker() if Path(f"/proc/{server.process.pid}").exists() else None
    assert worker is None
    assert serving().ended(job)["status"] == "done"


def test_a_full_queue_says_when_to_come_again(serving: Callable[..., Live]) -> None:
    server = serving("--queue", "2")
    long = server.queue(f"texturing({TIGER}, _)", **LONG)
    while server.ask("GET", f"/jobs/{long}")[1]["status"] != "running":
        time.sleep(0.05)
    for _ in range(2):
        server.queue(f"texturing({TIGER}, _)")
    status, answer = server.ask("POST", "/jobs", {"expression": f"texturing({TIGER}, _)"})
    assert status == 429 and answer["error"]["code"] == "QueueFull"
    server.ask("DELETE", f"/jobs/{long}")


def test_images_of_several_jobs_in_one_batch(serving: Callable[..., Live]) -> None:
    server = serving("--shared-batches")
    long = server.queue(f"texturing({TIGER}, _)", **LONG)
    texts = [
        f"texturing({TIGER}, _)",
        "0.5*examples/objects/car.png + 0.5*examples/objects/cat.png",
        "let t = union(examples/objects/car.png, _); scene(t, _)",
    ]
    ids = [server.queue(text, seeds=seeds) for text in texts for seeds in ([1], [1, 5])]
    server.ask("DELETE", f"/jobs/{long}")
    jobs = [server.ended(job) for job in ids]
    assert [job["status"] for job in jobs] == ["done"] * len(ids), jobs
    assert len({job["started"] for job in jobs}) < len(jobs)  # they were started together
    alone = pops.load(server.model)
    for job, text in zip(jobs, [t for t in texts for _ in range(2)], strict=True):
        expected = alone.run(Recipe.of(text.replace("examples/", f"{ROOT}/examples/"), seed=job["recipe"]["seeds"]))
        for image, other in zip(job["images"], expected, strict=True):
            made = Image.open(io.BytesIO(server.ask("GET", f"/images/{image['id']}")[1]))
            differ = [abs(a - b) for a, b in zip(made.tobytes(), other.tobytes(), strict=True)]
            assert max(differ) <= 1
            assert json.loads(made.info["pops"])["expression"] == text


@pytest.mark.skipif(sys.platform == "win32", reason="asyncio's own loop there accepts without the protocol's name")
def test_answers_are_sent_at_once() -> None:
    """A connection that waits for the client's acknowledgements costs each answer 40 ms."""

    async def connected() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            own = writer.get_extra_info("socket")
            accepted.set_result(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = bound("127.0.0.1", 0)
        async with await asyncio.start_server(take, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            found = await accepted
            writer.close()
        return found

    assert asyncio.run(connected())


def test_a_port_or_folder_in_use_is_one_line(live: Live, call: Any, tmp_path: Path) -> None:
    port = str(urlsplit(live.address).port)
    for words, told in (
        (["--port", port, "--data", str(tmp_path / "d")], f"port {port} on 127.0.0.1 cannot be used"),
        (["--port", "0", "--data", str(live.data)], "another server uses"),
        (["--port", "0", "--data", str(PHOTO)], "cannot be made"),
        (["--port", "0", "--host", "0.0.0.0", "--data", str(tmp_path / "d")], "add --token"),
        (["--port", "0", "--data", str(tmp_path / "d"), "--model", "nothing"], "nothing"),
    ):
        done = call("serve", *words)
        assert done.exit_code == 2 and told in done.output, done.output
    if os.getuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        assert "no write permission" in call("serve", "--data", str(tmp_path / "closed")).output
