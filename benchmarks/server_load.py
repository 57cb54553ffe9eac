"""What the server does under load: how soon it refuses what is too much, and whether its memory grows.

    python -m benchmarks.server_load [--minutes 8] [--clients 8] [--queue 16] [--model tiny]

First so many clients at a time send four times as many jobs as may wait, of which the surplus is refused (429); then
they keep the queue filled for so many minutes, with photos, thumbnails, event streams that are left and 10 % cancels,
while the resident memory of all processes is read every five seconds; the first quarter is warm-up. The last line is
JSON: milliseconds to a refusal, MB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

from benchmarks.server import ROOT, Api, serving

JOB: dict[str, Any] = {
    "expression": "texturing(examples/objects/teapot.png, _)",
    "making": {"steps": 1},
    "loading": {"renderer": "swatch"},
}
LONG = {"expression": "text('a teapot')", "making": {"steps": 1000}, "seeds": list(range(64))}


def flood(api: Api, queue: int, clients: int) -> dict[str, Any]:
    """Sends four times as many jobs as may wait while the worker is busy; returns how soon the surplus was refused."""
    busy = api.queue(LONG)
    while api.ask("GET", f"/jobs/{busy}")[1]["status"] == "queued":
        time.sleep(0.05)

    def one(seed: int) -> tuple[int, float, str | None]:
        start = time.perf_counter()
        status, answer = api.ask("POST", "/jobs", {**JOB, "seeds": [seed]})
        return status, 1000 * (time.perf_counter() - start), answer.get("id")

    before = api.cpu(alone=True)
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(one, range(4 * queue)))
    cpu = 1000 * (api.cpu(alone=True) - before) / len(answers)
    refused = [ms for status, ms, _ in answers if status == 429]
    accepted = [job for status, _, job in answers if status == 202 and job]
    api.ask("DELETE", f"/jobs/{busy}")
    for job in accepted:
        api.wait(job)
    return {
        "accepted, all done": len(accepted),
        "refused": len(refused),
        "refused ms median": round(median(refused), 1),
        "refused ms p99": round(quantiles(refused, n=100)[98], 1),
        "CPU ms an answer": round(cpu, 1),
    }


def steady(api: Api, process: int, minutes: float, clients: int) -> dict[str, Any]:
    """Keeps the server busy; returns how its memory grew after the first quarter."""
    until, counts, lock = time.monotonic() + 60 * minutes, Counter[str](), threading.Lock()

    def client(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < until:
            status, answer = api.ask("POST", "/jobs", {**JOB, "seeds": [chance.randrange(2**31)]})
            if status == 429:
                time.sleep(0.2)
                continue
            job = answer["id"]
            if chance.random() < 0.1:
                api.ask("DELETE", f"/jobs/{job}")
            if chance.random() < 0.2:
                with suppress(OSError), urllib.request.urlopen(f"{api.address}/api/v1/jobs/{job}/events", timeout=60):
                    pass
            while (found := api.ask("GET", f"/jobs/{job}?wait=30")[1])["status"] in ("queued", "running"):
                pass
            with lock:
                counts[found["status"]] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    samples: list[dict[str, float]] = []
    while time.monotonic() < until:
        samples.append(memory(process))
        time.sleep(5)
    for thread in threads:
        thread.join()
    warm = samples[len(samples) // 4 :]
    fifth = max(1, len(warm) // 5)
    grown = {name: round(_mean(warm[-fifth:], name) - _mean(warm[:fifth], name), 1) for name in warm[0]}
    return {"jobs": dict(counts), "MB grown after warm-up": grown, "MB at the end": samples[-1]}


def _mean(samples: list[dict[str, float]], name: str) -> float:
    return mean(sample.get(name, 0) for sample in samples)


def memory(process: int) -> dict[str, float]:
    """Returns the resident MB of a server's processes."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    found = {}
    for pid in (str(process), *children):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            name = "server" if pid == str(process) else words[2].rpartition(".")[2]
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            found[name] = round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)
    return found


def main() -> None:
    """Parses the command line, and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--model", default="tiny")
    given = parser.parse_args()
    os.chdir(ROOT)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "data", given, "--queue", str(given.queue), "--history", "100") as api,
    ):
        figures = flood(api, given.queue, given.clients)
        if given.minutes:
            figures |= steady(api, api.process, given.minutes, given.clients)
    for name, value in figures.items():
        print(f"{name:<24}{value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
