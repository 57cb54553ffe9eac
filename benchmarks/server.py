"""What the server costs and gains: a job over HTTP beside Pops.run, sixteen that wait beside one by one, and
`pops run --server` beside `pops run`.

    python -m benchmarks.server [--render-steps 10] [--rounds 3] [--model tiny] [--threads 1] [--dtype bfloat16]

It starts its own servers, in a folder that is removed. What is compared takes turns, so that both see the same machine.
Times are medians, by the clock and of the processors (CPU: of all processes that have a part in it): on a machine that
others use, only the latter repeat. The last line is JSON, in seconds and ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
EXPRESSION = "texturing(examples/objects/teapot.png, examples/textures/tiger.png)"
MANY = 16


class Api:
    """One server, and its processes."""

    def __init__(self, address: str, process: int) -> None:
        self.address, self.process = address, process
        self._root = address + "/api/v1"

    def ask(self, method: str, path: str, data: Any = None) -> tuple[int, Any]:
        """Returns status and body."""
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self._root + path, body, {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as e:
            with e:
                return e.code, json.loads(e.read())

    def queue(self, recipe: dict[str, Any]) -> str:
        """Queues a job, which must be accepted."""
        status, answer = self.ask("POST", "/jobs", recipe)
        if status != 202:
            raise SystemExit(f"the server answers {status}: {answer}")
        return str(answer["id"])

    def wait(self, job: str) -> None:
        """Waits for a job's end."""
        while (found := self.ask("GET", f"/jobs/{job}?wait=60")[1])["status"] in ("queued", "running"):
            pass
        if found["status"] != "done":
            raise SystemExit(f"a job ended as {found['status']}: {found['error']}")

    def cpu(self, *, alone: bool = False) -> float:
        """Returns the seconds that its processes have computed (Linux). alone: without the worker's."""
        children = [] if alone else Path(f"/proc/{self.process}/task/{self.process}/children").read_text().split()
        stats = [Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split() for p in (self.process, *children)]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(folder: Path, given: argparse.Namespace, *options: str) -> Iterator[Api]:
    """Runs a server."""
    command = [sys.executable, "-m", "pops", "serve", "--port", "0", "--model", given.model, "--data", str(folder)]
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--examples", str(ROOT / "examples"), *options], stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    try:
        words = process.stdout.readline().split()
        if "listens" not in words:
            raise SystemExit(f"the server does not start; see {folder}.log")
        yield Api(words[3].removesuffix("/api/v1"), process.pid)
    finally:
        process.terminate()
        process.communicate(timeout=120)


def timed(work: Callable[[], object], cpu: Callable[[], float]) -> tuple[float, float]:
    """Returns the seconds that work took, by the clock and of the processors."""
    start, before = time.perf_counter(), cpu()
    work()
    return time.perf_counter() - start, cpu() - before


def of_children() -> float:
    """Returns the seconds that this process's ended children have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def taking_turns(works: dict[str, tuple[Callable[[], object], Callable[[], float]]], rounds: int) -> dict[str, Any]:
    """Returns the medians of each: {name: {"clock", "cpu"}}."""
    for work, _ in works.values():  # once, so that everything is loaded
        work()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, (work, cpu) in works.items():
            found[name].append(timed(work, cpu))
    return {
        name: {"clock": round(median(t for t, _ in times), 3), "cpu": round(median(c for _, c in times), 3)}
        for name, times in found.items()
    }


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Returns all figures."""
    import pops
    from pops.recipe import Recipe

    recipe: dict[str, Any] = {"expression": EXPRESSION, "loading": {"threads": given.threads}}
    if given.render_steps:
        recipe["rendering"] = {"steps": given.render_steps}
    here, own = pops.load(given.model, dtype=given.dtype or "float32"), Recipe.of_data(recipe, "here").trusted()
    steps = ["--render-steps", str(given.render_steps)] if given.render_steps else []
    kind = ["--dtype", given.dtype] if given.dtype else []
    run = [sys.executable, "-m", "pops", "run", EXPRESSION, "-q", "-o", str(folder / "o.png"), "--force", *steps, *kind]
    figures: dict[str, Any] = {}
    with serving(folder / "alone", given, *kind) as api:
        figures |= taking_turns(
            {
                "Pops.run": (lambda: here.run(own), time.process_time),
                "Pops.run, saved": (lambda: here.run(own).save(folder / "here.png"), time.process_time),
                "HTTP": (lambda: api.wait(api.queue(recipe)), api.cpu),
            },
            given.rounds,
        )

        def command(*more: str) -> Callable[[], object]:
            return lambda: subprocess.run([*run, "--model", given.model, *more], check=True, cwd=ROOT)

        figures |= taking_turns(
            {
                "pops run": (command(), of_children),
                "pops run --server": (command("--server", api.address), lambda: of_children() + api.cpu()),
                "of which the command": (command("--server", api.address), of_children),
            },
            given.rounds,
        )
    with serving(folder / "shared", given, *kind, "--shared-batches") as api:
        recipes = [{**recipe, "seeds": [seed]} for seed in range(MANY)]
        figures |= taking_turns(
            {
                "one by one": (lambda: [api.wait(api.queue(one)) for one in recipes], api.cpu),
                "waiting": (lambda: [api.wait(job) for job in [api.queue(one) for one in recipes]], api.cpu),
            },
            max(1, given.rounds // 3),
        )
    for name, over, under in (
        ("overhead", "HTTP", "Pops.run"),
        ("overhead, saved", "HTTP", "Pops.run, saved"),  # a job's image is a file, too
        ("gain", "one by one", "waiting"),
    ):
        figures[name] = {kind: round(figures[over][kind] / figures[under][kind], 3) for kind in ("clock", "cpu")}
    return figures


def main() -> None:
    """Parses the command line, and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--render-steps", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(given, Path(folder))
    for name, row in figures.items():
        print(f"{name:<24}{row['clock']:>9.3f}{row['cpu']:>9.3f} CPU")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
