"""Fixtures every test may use. Tests see one thread and no network."""

from __future__ import annotations

import os
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
