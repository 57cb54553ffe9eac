"""Fixtures every test may use. Tests see one thread and no network."""

from __future__ import annotations

import gc
import io
import os
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import pytest
import torch

from folders import write_model

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
