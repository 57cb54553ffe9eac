"""POST /search, and recipes that answer with a library's photos, of a library that pops index made."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from servers import ROOT, start

pytest.importorskip("lancedb")
OBJECTS = ROOT / "examples" / "objects"


def test_the_nearest_photos_of_a_library_become_photos_of_the_server(tmp_path: Path, call: Any) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("teapot", "rabbit", "car", "mug"):
        (tmp_path / "photos" / f"{name}.png").write_bytes((OBJECTS / f"{name}.png").read_bytes())
    done = call("index", str(tmp_path / "photos"), "-o", str(tmp_path / "mine.library"))
    assert done.exit_code == 0, done.output
    server = start(tmp_path / "data", Path("tiny"), "--library", f"mine={tmp_path / 'mine.library'}")
    try:
        assert server.ask("GET", "/sources")[1]["libraries"] == ["mine"]
        asked = {"expression": "examples/objects/rabbit.png", "library": "mine", "count": 2}
        status, found = server.ask("POST", "/search", asked)
        assert status == 200, found
        nearest, other = found["matches"]
        assert nearest["name"] == "rabbit.png" and nearest["score"] > 0.99 > other["score"]
        assert nearest["id"] == hashlib.sha256((OBJECTS / "rabbit.png").read_bytes()).hexdigest()[:32]
        small = server.ask("GET", f"/photos/{nearest['id']}?size=64")
        assert small[0] == 200 and Image.open(io.BytesIO(small[1])).size == (64, 64)

        rendered = {"loading": {"renderer": "retrieval", "library": "mine"}}
        job = server.ended(server.queue(f"photo:{nearest['id']}", **rendered), 300)
        assert job["status"] == "done", job
        image = server.ask("GET", f"/images/{job['images'][0]['id']}")[1]
        told = Image.open(io.BytesIO(image)).info["pops"]
        assert '"rabbit.png"' in told and str(tmp_path) not in told

        made = {**asked, "expression": "texturing(examples/objects/rabbit.png, _)"}
        scores = [
            server.ask("POST", "/search", {**made, "seed": seed, "making": making})[1]["matches"][0]["score"]
            for seed, making in ((0, {}), (0, {"steps": 7}), (0, {"guidance": 9.0}), (0, {"steps": 7}), (1, {}))
        ]
        assert scores[1] == scores[3] and len(set(scores)) == 4, scores  # made as a job makes it
        named = server.ask(
            "POST", "/search", {**made, "loading": {"model": server.ask("GET", "/models")[1]["models"][0]["name"]}}
        )
        assert named[1]["matches"][0]["score"] == scores[0]

        for wrong, said in (
            ({"making": {"steps": 0}}, "steps"),
            ({"loading": {"model": "other"}}, "no model 'other'"),
            ({"loading": {"adapter": "/etc/passwd"}}, "leave loading.adapter out"),
            ({"library": "yours"}, "no library 'yours'"),
            ({"expression": "text('x'"}, "never closed"),
        ):
            status, answer = server.ask("POST", "/search", {**asked, **wrong})
            assert status == 422 and said in answer["error"]["message"], answer
        (tmp_path / "photos" / "mug.png").unlink()
        status, answer = server.ask("POST", "/search", {**asked, "expression": "examples/objects/mug.png", "count": 1})
        assert status == 422 and "no longer there" in answer["error"]["message"]
        assert str(tmp_path) not in answer["error"]["message"]
    finally:
        assert server.stop() == 0
