"""Many clients, and streams that are left. Short by default; the switches make the runs of docs/server.md of them."""

from __future__ import annotations

import os
import random
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from servers import Live

JOBS = int(os.environ.get("POPS_TEST_JOBS", "4"))  # of each of the clients
CLIENTS = 8
STREAMS = int(os.environ.get("POPS_TEST_STREAMS", "60"))
TIGER = "examples/textures/tiger.png"
LIGHT = {"making": {"steps": 1}, "loading": {"renderer": "swatch"}}
LONG = {"rendering": {"steps": 900}, "seeds": list(range(32))}  # takes minutes


def test_many_clients_get_what_each_asked_for(serving: Callable[..., Live]) -> None:
    server = serving()
    wrong: list[Any] = []
    images: dict[int, set[bytes]] = {}

    def client(number: int) -> None:
        chance = random.Random(number)
        for _ in range(JOBS):
            seed = chance.randrange(5)
            job = server.queue(f"texturing({TIGER}, _)", seeds=[seed], **LIGHT)
            cancelled = chance.random() < 0.1
            if cancelled:
                server.ask("DELETE", f"/jobs/{job}")
            found = server.ended(job, 600)
            if found["status"] == "done":
                images.setdefault(seed, set()).add(server.ask("GET", f"/images/{job}-0")[1])
            if found["recipe"]["seeds"] != [seed] or found["status"] not in ("done", *["cancelled"] * cancelled):
                wrong.append(found)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert images and all(len(made) == 1 for made in images.values())  # one seed, one image, whoever asks
    assert sum(server.ask("GET", f"/jobs?limit=200&after={n}")[1] != {"jobs": []} for n in (0, CLIENTS * JOBS)) == 1
    assert server.stop() == 0


def test_streams_that_are_left_leave_no_files_tasks_or_listeners(serving: Callable[..., Live]) -> None:
    server = serving()
    job = server.queue(f"texturing({TIGER}, _)", **LONG)

    def figures() -> tuple[int, int, int]:
        told = dict(line.split() for line in server.metrics().splitlines() if not line.startswith("#"))
        files = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        return files, int(float(told["pops_tasks"])), int(float(told["pops_event_streams"]))

    def settled(most: tuple[int, int, int]) -> tuple[int, int, int]:
        until = time.monotonic() + 120
        while any(now > old for now, old in zip(figures(), most, strict=True)) and time.monotonic() < until:
            time.sleep(0.2)
        return figures()

    for _ in range(3):  # what is made once is made
        urllib.request.urlopen(f"{server.address}/jobs/{job}/events", timeout=120).close()
    before = settled((10**6, 10**6, 0))
    for _ in range(0, STREAMS, 20):
        opened = [urllib.request.urlopen(f"{server.address}/jobs/{job}/events", timeout=120) for _ in range(20)]
        for one in opened:
            one.close()
    after = settled(before)
    assert after[2] == 0 and after[0] <= before[0] + 2 and after[1] <= before[1] + 2, (before, after)
    server.ask("DELETE", f"/jobs/{job}")
