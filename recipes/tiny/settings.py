"""Where the recipe keeps its work, and the sizes of tiny. One place, read by every stage."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = Path(os.environ.get("POPS_TINY_WORK", ROOT / "runs" / "tiny"))  # git-ignored: data, checkpoints, logs, grids
PACKAGE = ROOT / "src" / "pops" / "models" / "tiny"  # where finished weights go

SIZE = 96  # pixels, square: what the image tower sees
CANVAS = 128  # pixels, square: what the autoencoder codes and the renderer draws
LARGE = 512  # pixels, square: what the upscaler makes of it
THUMB = 24  # pixels of the masks and depths that guide the image tower
MORE = ("clothes", "union_3", "union_4")  # what beside pairs the renderer sees: of each the seeds in turn
FAMILIES_A_SHARD = int(os.environ.get("POPS_TINY_SHARD", "100"))  # the same for all shards of a folder

DIM = 256  # the space, the text tower's width, the renderer's cross-attention
VISION = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "patch_size": 16,
}
TEXT = {"hidden_size": DIM, "intermediate_size": 640, "num_hidden_layers": 2, "num_attention_heads": 4}
PROMPT = 24  # tokens of the renderer's prompts: longer than any caption of the world
LATENT = 16  # channels of the autoencoder's latents; CANVAS / 8 of them along each side


def data(size: int = CANVAS) -> Path:
    """The folder of the pictures of one size."""
    return WORK / f"data-{size}"


def home_of_prior() -> Path:
    """The model folder whose prior and operators (which belong to it) are used: the one made here, or the shipped."""
    here = WORK / "model"
    return here if (here / "prior").exists() else PACKAGE
