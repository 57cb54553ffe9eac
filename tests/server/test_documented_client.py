"""The client in ten lines, as it stands in docs/server.md."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from pages.blocks import ROOT, blocks
from servers import PHOTO, Live


def test_the_client_of_the_page_makes_an_image(live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = [block.text for block in blocks(ROOT / "docs" / "server.md") if block.kind == "python"]
    assert '"http://127.0.0.1:7860/api/v1"' in text
    shutil.copy(PHOTO, tmp_path / "teapot.png")
    monkeypatch.chdir(tmp_path)
    exec(text.replace("http://127.0.0.1:7860/api/v1", live.address), {})  # noqa: S102  our own page
    with Image.open("out.png") as image:
        assert json.loads(image.info["pops"])["seeds"] == [3]
