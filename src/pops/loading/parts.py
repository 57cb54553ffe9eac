"""The files that each part of a model needs, checked before a library reads it.

A library fills in for what is absent: an empty vocabulary for tokenizer.json, CLIP's own settings for a config, a
pickle for safetensors. Here an absent file is an error that names it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pops.errors import ModelError, ensure, shown
from pops.files import read_json_object
from pops.tensors import opened

DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model", "model"  # how the libraries name a network's weights
AGAIN = "fetch or make it again"
MAX_SIZE = 2**20  # of anything that a network's config counts, such as words
_LAYERS = re.compile(r"(^|_)(layers|blocks)(_|$)")
_PREFERRED = ("fp16", "bf16")  # where the weights in full precision are absent
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # either


def check_network(folder: Path, stem: str, *, whose: str = "", advice: str = AGAIN) -> str | None:
    """Checks config.json and the weights of a network; returns the variant of the weights, as `weights_of` does."""
    check_files(folder, "config.json", whose=whose, advice=advice)
    variant, files = weights_of(folder, stem, whose=whose, advice=advice)
    _check_config(folder / "config.json", files, advice)
    return variant


# A library builds what a config says before it looks at the weights: a few digits can ask for hours or terabytes.
def _check_config(path: Path, files: list[Path], advice: str) -> None:
    """Raises ModelError for a config of more layers than the weights have tensors, or of sizes that no network has."""
    count = 0
    for file in files:
        with opened(file, ModelError, advice) as weights:
            count += len(weights.shapes)
    for key, value in read_json_object(path, ModelError, advice).items():
        for number in value if isinstance(value, list) else [value]:
            if type(number) is int and number > (count if _LAYERS.search(key) else MAX_SIZE):
                held = f"the weights have {count} tensors" if _LAYERS.search(key) else f"the limit is {MAX_SIZE}"
                raise ModelError(f"{path}: {shown(key, 60)} is {shown(number, 30)}, {held}; {advice}")


def check_tokenizer(folder: Path, *, whose: str = "", advice: str = AGAIN) -> None:
    """Raises ModelError unless the folder holds tokenizer_config.json and a vocabulary."""
    check_files(folder, "tokenizer_config.json", whose=whose, advice=advice)
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS):
        two = [name for name in _TOKENIZERS[1] if not (folder / name).is_file()]
        absent = "tokenizer.json" if len(two) == 2 else f"{two[0]} (or tokenizer.json)"
        raise ModelError(f"{_named(whose, folder)} has no {absent}; {advice}")


def check_files(folder: Path, *names: str, whose: str = "", advice: str = AGAIN) -> None:
    """Raises ModelError, naming them, unless the folder holds these files."""
    where = f"{_named(whose, folder.parent)} has no {folder.name}/"
    ensure(folder.is_dir(), f"{where} ({', '.join(names)}); {advice}", ModelError)
    absent = [name for name in names if not (folder / name).is_file()]
    ensure(not absent, f"{_named(whose, folder)} has no {', '.join(absent)}; {advice}", ModelError)


def weights_of(folder: Path, stem: str, *, whose: str = "", advice: str = AGAIN) -> tuple[str | None, list[Path]]:
    """Finds the safetensors of a network: (variant, files); one file, or the shards that an index names.

    variant: None for weights in full precision, else that of their names ("fp16" of model.fp16.safetensors). Raises
    ModelError where there are none, for pickles alone, and for a shard that is absent.
    """
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    for variant in (None, *_variants(names, stem)):
        part = "" if variant is None else f".{variant}"
        if f"{stem}{part}.safetensors" in names:
            return variant, [folder / f"{stem}{part}.safetensors"]
        index = f"{stem}.safetensors.index{part}.json"
        if index in names:
            return variant, _shards(folder, index, whose, advice)
    where = _named(whose, folder)
    if pickles := sorted(name for name in names if Path(name).suffix in _PICKLES):
        raise ModelError(
            f"{where} holds its weights only as a pickle ({pickles[0]}), and pops opens none, since a pickle can run "
            f"code; get the safetensors, or, if you trust the file, convert it: {_conversion(folder)}"
        )
    raise ModelError(f"{where} has no {stem}.safetensors; {advice}")


def _variants(names: list[str], stem: str) -> list[str]:
    """Returns the variants that there are, the preferred ones first."""
    pattern = re.compile(rf"{re.escape(stem)}(?:\.(\w+)\.safetensors|\.safetensors\.index\.(\w+)\.json)")
    matches = (pattern.fullmatch(name) for name in names)
    found = {match[1] or match[2] for match in matches if match}
    return [*(v for v in _PREFERRED if v in found), *sorted(found - set(_PREFERRED))]


def _shards(folder: Path, index: str, whose: str, advice: str) -> list[Path]:
    """Returns the files that an index names, all there."""
    named: Any = read_json_object(folder / index, ModelError, advice).get("weight_map")
    good = isinstance(named, dict) and all(isinstance(n, str) and Path(n).name == n for n in named.values())
    ensure(good and bool(named), f"{folder / index} has no weight_map of files beside it; {advice}", ModelError)
    shards = sorted(set(named.values()))
    check_files(folder, *shards, whose=whose, advice=advice)
    return [folder / name for name in shards]


def _conversion(folder: Path) -> str:
    """Returns the command that writes safetensors beside a folder's pickle."""
    try:
        config = read_json_object(folder / "config.json", ModelError)
    except ModelError:
        config = {}
    name, library = config.get("_class_name"), "diffusers"
    if not name:
        name, library = next(iter(config.get("architectures") or ["AutoModel"])), "transformers"
    python = f"from {library} import {name} as M; M.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
    return f'python -c "{python}"'


def _named(whose: str, folder: Path) -> str:
    return f"{whose} {folder}" if whose else str(folder)
