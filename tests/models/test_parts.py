"""The files of a part: how its weights may lie, and one line that names what is absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import pops
from pops.errors import ModelError
from pops.loading.lock import once
from pops.loading.parts import DIFFUSERS, TRANSFORMERS, check_files, check_tokenizer, weights_of
from pops.models import hub

NETWORKS = ("prior", "image_encoder", "text_encoder", "renderer/unet", "renderer/vae", "renderer/text_encoder")


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"weight_map": {"a": "s-1.safetensors", "b": "s-2.safetensors"}}))
    return folder


@pytest.mark.parametrize(
    ("names", "variant", "files"),
    [
        (["model.safetensors"], None, ["model.safetensors"]),
        (["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"], None, ["model.safetensors"]),
        (["model.fp16.safetensors", "model.non_ema.safetensors"], "fp16", ["model.fp16.safetensors"]),
        (["model.bf16.safetensors"], "bf16", ["model.bf16.safetensors"]),
        (["model.non_ema.safetensors"], "non_ema", ["model.non_ema.safetensors"]),
        (["model.safetensors.index.json", "s-1.safetensors", "s-2.safetensors"], None, ["s-1", "s-2"]),
        (["model.safetensors.index.fp16.json", "s-1.safetensors", "s-2.safetensors"], "fp16", ["s-1", "s-2"]),
    ],
)
def test_how_weights_may_lie(tmp_path: Path, names: list[str], variant: str | None, files: list[str]) -> None:
    found = weights_of(touch(tmp_path, *names), TRANSFORMERS)
    assert found[0] == variant and [p.name.removesuffix(".safetensors") for p in found[1]] == [
        name.removesuffix(".safetensors") for name in files
    ]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "has no diffusion_pytorch_model.safetensors; fetch"),
        (["model.safetensors"], "has no diffusion_pytorch_model.safetensors; fetch"),
        (["diffusion_pytorch_model.bin"], r"only as a pickle \(diffusion_pytorch_model.bin\), and pops opens none"),
        (["old.ckpt"], r"only as a pickle \(old.ckpt\)"),
        (["diffusion_pytorch_model.safetensors.index.json", "s-1.safetensors"], "has no s-2.safetensors"),
    ],
)
def test_weights_that_are_not_there(tmp_path: Path, names: list[str], says: str) -> None:
    with pytest.raises(ModelError, match=says) as told:
        weights_of(touch(tmp_path, *names), DIFFUSERS, whose="the renderer's")
    assert str(tmp_path) in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("map_", [None, [], {}, {"a": 3}, {"a": "../b.safetensors"}])
def test_an_index_that_names_no_files(tmp_path: Path, map_: Any) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": map_}))
    with pytest.raises(ModelError, match="has no weight_map of files beside it"):
        weights_of(tmp_path, TRANSFORMERS)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no part/ \(a, b\)"):
        check_files(tmp_path / "part", "a", "b")
    with pytest.raises(ModelError, match="has no tokenizer_config.json"):
        check_tokenizer(tmp_path)
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        check_tokenizer(touch(tmp_path, "tokenizer_config.json"))
    with pytest.raises(ModelError, match=r"has no merges\.txt"):
        check_tokenizer(touch(tmp_path, "vocab.json"))
    check_tokenizer(touch(tmp_path, "merges.txt"))


def test_a_model_in_half_precision_alone(random_model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(random_model, tmp_path / "half"))
    for part in NETWORKS:
        for path in (copy / part).glob("*.safetensors"):
            path.rename(path.with_suffix(".fp16.safetensors"))
    images = [
        pops.load(folder, device="cpu").render(pops.load(folder, device="cpu").evaluate('text("red tiger")', steps=2))
        for folder in (random_model, copy)
    ]
    assert images[0][0].tobytes() == images[1][0].tobytes()


@pytest.mark.parametrize("part", NETWORKS)
def test_no_part_is_unpickled(random_model: Path, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    copy = Path(shutil.copytree(random_model, tmp_path / "pickles"))
    path = next((copy / part).glob("*.safetensors"))
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    with pytest.raises(ModelError, match="only as a pickle .* convert it: python -c") as told:
        p = pops.load(copy, device="cpu")
        p.space.zero_image_embedding()
        p.render(p.evaluate('text("red tiger")', steps=2))
    assert part in str(told.value) and "\n" not in str(told.value)


def test_a_scheduler_of_the_prior_is_not_filled_in_for(random_model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(random_model, tmp_path / "copy"))
    (copy / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ModelError, match=r"scheduler has no scheduler_config\.json"):
        pops.load(copy, device="cpu").evaluate('text("red tiger")', steps=2)


def test_a_repo_with_half_precision_alone_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[list[str]] = []

    def snapshot_download(repo: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        touch(tmp_path, "unet/config.json", "vae/config.json", "vae/diffusion_pytorch_model.safetensors")
        touch(tmp_path, "tokenizer/config.json", "tokenizer/tokenizer_config.json")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert hub._fetch("someone/model", "model") == tmp_path
    assert asked == [list(hub._WANTED), ["unet/*.fp16*.safetensors"]]


def test_once_is_computed_once_and_again_after_an_error() -> None:
    class Thing:
        count = 0

        @once
        def part(self) -> int:
            """A part."""
            Thing.count += 1
            if Thing.count == 1:
                raise ModelError("not yet")
            return Thing.count

    thing = Thing()
    with pytest.raises(ModelError):
        _ = thing.part
    assert (thing.part, thing.part, Thing().part) == (2, 2, 3) and Thing.part.__doc__ == "A part."
