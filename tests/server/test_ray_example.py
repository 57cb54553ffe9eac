"""The example for many machines, with one local replica: skipped where Ray is not installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from servers import ROOT

HERE = ROOT / "examples" / "ray_serve"
SCRIPT = """
import base64, io, json, sys
import ray
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

how = {"include_dashboard": False, "logging_level": "ERROR", "configure_logging": False}
ray.init("local", num_cpus=1, object_store_memory=10**8, **how)
from ray import serve
import pops, pops_ray

# One replica in a process of its own, asked from Python.
serve.start(proxy_location="Disabled")
handle = serve.run(pops_ray.Images.bind(sys.argv[1]), name="pops", route_prefix=None)
photo = open("teapot.png", "rb").read()
recipe = {"expression": "texturing(teapot.png, _)", "seeds": [3, 4], "rendering": {"steps": 3}}
made = handle.run.remote(recipe, {"teapot.png": photo}).result(timeout_s=450)
serve.shutdown()
ray.shutdown()

alone = pops.load(sys.argv[1])
expected = alone.run(pops.Recipe.of("texturing(teapot.png, _)", seed=[3, 4], render_steps=3))
for data, other in zip(made, expected, strict=True):
    image = Image.open(io.BytesIO(data))
    assert image.tobytes() == other.tobytes()
    assert json.loads(image.info["pops"])["expression"] == recipe["expression"]

# The same class in this process, asked over HTTP.
images = pops_ray.Images.func_or_class(sys.argv[1])
client = TestClient(Starlette(routes=[Route("/", images.__call__, methods=["POST"])]))


def ask(recipe, **files):
    parts = {name: (name, data) for name, data in files.items()}
    answer = client.post("/", data={"recipe": json.dumps(recipe)}, files=parts or {"none": ("none", b"")})
    return answer.status_code, answer.json()


status, answer = ask(recipe, **{"teapot.png": photo})
assert status == 200 and [base64.b64decode(text) for text in answer["images"]] == made, answer
for wrong, files, told in (
    (recipe, {}, "not among the files"),
    ({**recipe, "expression": "/etc/passwd.png"}, {}, "not among the files"),
    ({**recipe, "expression": "union("}, {}, "never closed"),
    ({**recipe, "expression": "e.safetensors"}, {}, "not among the files"),
    ({**recipe, "loading": {"model": "org/other"}}, {"teapot.png": photo}, "loads nothing"),
    ([1], {}, "recipe"),
):
    status, answer = ask(wrong, **files)
    assert status == 422 and told in answer["error"], (wrong, answer)
print("all is well")
"""


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'ray[serve]'")
def test_one_replica_makes_what_pops_makes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "teapot.png").write_bytes((ROOT / "examples" / "objects" / "teapot.png").read_bytes())
    paths = os.pathsep.join([str(HERE), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0"}, timeout=550,
    )  # fmt: skip
    assert done.returncode == 0 and "all is well" in done.stdout, done.stderr[-3000:]
