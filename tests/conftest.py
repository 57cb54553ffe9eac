"""Fixtures every test may use. Tests see one thread and no network."""

from __future__ import annotations

import gc
import io
import os
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from folders import write_model
from pops.cli.main import app
from pops.operators.checkpoint import save_operator
from pops.operators.spec import BUILTIN
from pops.prior.transformer import PriorModel

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model folder with random weights, space "random-32"; read it, do not write to it."""
    return write_model(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """The command line keeps its process from collecting what imports made; between tests all is collected again."""
    yield
    gc.unfreeze()
    gc.enable()


@pytest.fixture
def pickles_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickles are read by the same code in this process: a child takes seconds, and tests of files are many."""
    from pops import pickles

    def spawn(arguments: list[str], seconds: int) -> subprocess.CompletedProcess[bytes]:
        out = io.StringIO()
        with redirect_stdout(out):
            pickles.child(arguments)
        return subprocess.CompletedProcess([], 0, out.getvalue().encode(), b"")

    monkeypatch.setattr(pickles, "_spawn", spawn)
    monkeypatch.setattr(pickles, "_confine", lambda size, target: None)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the built-in operators, each a random change of the base prior."""
    folder = write_model(tmp_path_factory.mktemp("models") / "with-operators")
    base = PriorModel.load(folder)
    for i, name in enumerate(BUILTIN):
        gen = torch.Generator().manual_seed(i)
        weights = {
            f"{key}.delta": 0.2 * torch.randn(value.shape, generator=gen)
            for key, value in base.transformer.state_dict().items()
            if key in ("proj_in.weight", "encoder_hidden_states_proj.weight", "proj_to_clip_embeddings.weight")
        }
        save_operator(folder / "operators" / name, BUILTIN[name], weights, base=base, space="random-32")
    return folder


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """a.png, b.png and c.png in the working folder."""
    for i, name in enumerate("abc"):
        noise = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((40, 30)).save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.fixture
def call(folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command in a folder with a.png, b.png and c.png; $M in it is the random model."""
    monkeypatch.setenv("NO_COLOR", "1")
    for key in (
        "TRANSFORMERS_VERBOSITY",
        "DIFFUSERS_VERBOSITY",
        "OMP_WAIT_POLICY",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS",
    ):
        monkeypatch.setenv(key, "unchanged" if key == "OMP_WAIT_POLICY" else "1" if "NO" in key else "error")

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, [str(folder) if w == "$M" else w for w in words])

    return run
