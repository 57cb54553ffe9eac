"""What the server costs and gains: one job over HTTP beside Pops.run, and sixteen that wait beside one by one.

    python -m benchmarks.server http://127.0.0.1:7860 [--render-steps 10] [--renderer swatch]

Start the server with `pops serve --examples examples`, and again with --shared-batches to compare. Run it in the
repository's folder. The last line is JSON, in seconds.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.error
import urllib.request
from statistics import median
from typing import Any


class Api:
    """One server."""

    def __init__(self, address: str) -> None:
        self.root = address.rstrip("/") + "/api/v1"

    def ask(self, method: str, path: str, data: Any = None) -> tuple[int, Any]:
        """Returns status and body."""
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.root + path, body, {"content-type": "application/json"}, method=method)
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

    def wait(self, job: str) -> dict[str, Any]:
        """Waits for a job's end."""
        while True:
            found: dict[str, Any] = self.ask("GET", f"/jobs/{job}?wait=60")[1]
            if found["status"] not in ("queued", "running"):
                if found["status"] != "done":
                    raise SystemExit(f"a job ended as {found['status']}: {found['error']}")
                return found


def measure(api: Api, recipe: dict[str, Any], rounds: int, model: str | None) -> dict[str, Any]:
    """Returns all figures, in seconds."""
    import pops
    from pops.recipe import Recipe

    here = pops.load(model or "tiny")
    recipes = [{**recipe, "seeds": [seed]} for seed in range(16)]
    api.wait(api.queue(recipes[0]))
    here.run(Recipe.of_data(recipes[0], "here").trusted())
    alone, http = [], []
    for _ in range(rounds):  # in turn, so that both see the same machine
        start = time.perf_counter()
        here.run(Recipe.of_data(recipes[0], "here").trusted())
        middle = time.perf_counter()
        api.wait(api.queue(recipes[0]))
        alone.append(middle - start)
        http.append(time.perf_counter() - middle)
    start = time.perf_counter()
    for one in recipes:
        api.wait(api.queue(one))
    middle = time.perf_counter()
    for job in [api.queue(one) for one in recipes]:
        api.wait(job)
    end = time.perf_counter()
    found = {"alone": median(alone), "http": median(http), "one_by_one": middle - start, "waiting": end - middle}
    return {key: round(value, 4) for key, value in found.items()}


def main() -> None:
    """Parses the command line, and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--model", help="the server's, to be loaded here, too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--render-steps", type=int)
    parser.add_argument("--renderer")
    given = parser.parse_args()
    recipe: dict[str, Any] = {"expression": "texturing(examples/objects/teapot.png, examples/textures/tiger.png)"}
    if given.render_steps:
        recipe["rendering"] = {"steps": given.render_steps}
    if given.renderer:
        recipe["loading"] = {"renderer": given.renderer}
    print(json.dumps(measure(Api(given.address), recipe, given.rounds, given.model)))


if __name__ == "__main__":
    main()
