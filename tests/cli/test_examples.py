"""pops examples: the photos that ship with pops."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from pops.cli.main import app
from pops.examples import folder


def test_all_photos_are_copied_and_none_is_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "examples" / "objects" / "teapot.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    done = CliRunner().invoke(app, ["examples", str(tmp_path / "examples"), "--json"])
    assert done.exit_code == 0, done.output
    copied = {Path(path).relative_to(tmp_path / "examples") for path in json.loads(done.stdout)["outputs"]}
    shipped = {path.relative_to(folder()) for path in folder().rglob("*.png")}
    assert mine.read_text() == "mine" and copied == shipped - {Path("objects/teapot.png")}
    for path in copied:
        assert (tmp_path / "examples" / path).read_bytes() == (folder() / path).read_bytes()


def test_a_folder_that_cannot_be_made_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["examples", str(tmp_path / "file" / "examples")])
    assert done.exit_code == 2 and "\n" not in done.stderr.strip(), done.stderr
