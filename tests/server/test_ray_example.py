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
import base64, io, json, sys, urllib.error, urllib.request
import ray
from PIL import Image
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=10**8, logging_level="ERROR", configure_logging=False)
from ray import serve
import pops, pops_ray

serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
serve.run(pops_ray.Images.bind(sys.argv[1]), name="pops")
photo = open("teapot.png", "rb").read()
recipe = {"expression": "texturing(teapot.png, _)", "seeds": [3, 4], "rendering": {"steps": 3}}


def ask(recipe, **files):
    body = b"".join(
        b'--x\\r\\ncontent-disposition: form-data; name="%s"%s\\r\\n\\r\\n%s\\r\\n' % part
        for part in [(b"recipe", b"", json.dumps(recipe).encode())]
        + [(name.encode(), b'; filename="f"', data) for name, data in files.items()]
    )
    request = urllib.request.Request(
        f"http://127.0.0.1:{sys.argv[2]}/", body + b"--x--\\r\\n", {"content-type": "multipart/form-data; boundary=x"}
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as e:
        return e.code, json.loads(e.read())


status, answer = ask(recipe, **{"teapot.png": photo})
assert status == 200, answer
alone = pops.load(sys.argv[1]).run(pops.Recipe.of("texturing(teapot.png, _)", seed=[3, 4], render_steps=3, threads=1))
for text, expected in zip(answer["images"], alone, strict=True):
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert image.tobytes() == expected.tobytes()
    assert json.loads(image.info["pops"])["expression"] == recipe["expression"]
for wrong, files, told in (
    (recipe, {}, "not among the files"),
    ({**recipe, "expression": "/etc/passwd.png"}, {}, "not among the files"),
    ({**recipe, "expression": "union("}, {}, "never closed"),
    ({**recipe, "loading": {"model": "org/other"}}, {"teapot.png": photo}, "loads nothing"),
    ([1], {}, "recipe"),
):
    status, answer = ask(wrong, **files)
    assert status == 422 and told in answer["error"], (wrong, answer)
serve.shutdown()
ray.shutdown()
print("all is well")
"""


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'ray[serve]'")
def test_one_replica_makes_what_pops_makes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "teapot.png").write_bytes((ROOT / "examples" / "objects" / "teapot.png").read_bytes())
    paths = os.pathsep.join([str(HERE), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), "18431"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0"}, timeout=550,
    )  # fmt: skip
    assert done.returncode == 0 and "all is well" in done.stdout, done.stderr[-3000:]
