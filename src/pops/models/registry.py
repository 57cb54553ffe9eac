"""The names of models -> their files, fetched from the hub where a name lives there. Opens no weights.

A model is a folder of the Kandinsky 2.2 prior's layout with pops.json, operators/<name>/ and renderer/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pops.errors import ModelError, suggest
from pops.files import expanded

TINY = Path(__file__).parent / "tiny"
PARTS = ("image_encoder", "image_processor", "text_encoder", "tokenizer", "prior", "scheduler")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LAYOUT = "a model folder has Kandinsky 2.2's prior layout"
# The weights once, as safetensors in full precision, and what describes them.
_TEXTS = ["*.json", "*.txt"]
_WEIGHTS = [*_TEXTS, "*.safetensors"]
_TWICE = ["*.fp16.safetensors", "*.non_ema.safetensors", "*.bin", "*.ckpt", "*.msgpack", "*.onnx"]


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's files lie. operators: name -> folder with operator.json; renderer: None if it has none.

    info: what pops.json says ("version", "space", "size", "steps", "guidance", ...), and under "official" the
    operators that came as official .pth files, name -> path.
    """

    name: str
    folder: Path
    renderer: Path | None = None
    operators: Mapping[str, Path] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HubModel:
    """A named model on the hub: the repos of its prior, renderer and operators (ids)."""

    prior: str
    renderer: str
    operators: str
    summary: str
    info: Mapping[str, Any]


HUB: Mapping[str, HubModel] = MappingProxyType(
    {
        "kandinsky-2-2": HubModel(
            prior="kandinsky-community/kandinsky-2-2-prior",
            renderer="kandinsky-community/kandinsky-2-2-decoder",
            operators="pOpsPaper/operators",
            summary="the papers' model, 512 x 512; about 20 GB",
            info={"version": "2.2", "space": "clip-vit-bigg-14", "size": 512, "steps": 50, "guidance": 4.0},
        )
    }
)


def resolve(name_or_path: str | Path) -> ModelFiles:
    """A name ("tiny", "kandinsky-2-2"), a folder or a hub id ("owner/name") -> the model's files.

    A folder wins over a hub id of the same spelling. ModelError: unknown, incomplete, not to be fetched.
    """
    text = str(name_or_path)
    if text == "tiny":
        return _from_folder(TINY, name="tiny")
    if text in HUB:
        return _from_hub(text, HUB[text])
    folder = expanded(text)
    if folder.is_dir():
        return _from_folder(folder)
    if folder.exists():
        raise ModelError(f"{text} is a file; a model is a folder, a hub id or a name ({', '.join(_names())})")
    if isinstance(name_or_path, str) and _HUB_ID.fullmatch(text):
        return _from_folder(_snapshot(text, text, _WEIGHTS), name=text)
    raise ModelError(
        f"there is no model {text!r}{suggest(text, _names())}; known: {', '.join(_names())}, or give a folder"
    )


def known() -> list[dict[str, Any]]:
    """The models that have a name: name, summary, source, and whether they are here, on this machine."""
    rows = [
        {
            "name": "tiny",
            "summary": "ships with pops: drawn objects, small pictures, no GPU needed",
            "source": "package",
            "here": (TINY / "model_index.json").is_file(),
        }
    ]
    for name, model in HUB.items():
        here = all(_cached(repo) is not None for repo in (model.prior, model.renderer, model.operators))
        rows.append({"name": name, "summary": model.summary, "source": f"hub: {model.prior}", "here": here})
    return rows


def _names() -> list[str]:
    return ["tiny", *HUB]


def _from_folder(folder: Path, *, name: str | None = None) -> ModelFiles:
    """A folder's parts, checked to be there."""
    info = _read_info(folder)
    _check_parts(folder, name or str(folder))
    operators = {p.parent.name: p.parent for p in sorted((folder / "operators").glob("*/operator.json"))}
    named = info.get("renderer", "renderer")
    renderer = folder / named if named else None
    if renderer is not None and not (renderer / "model_index.json").is_file():
        if "renderer" in info:
            raise ModelError(f"{folder / 'pops.json'} names a renderer that is not there ({renderer}); copy it again")
        renderer = None
    return ModelFiles(name or str(info.get("name", folder.resolve().name)), folder, renderer, operators, info)


def _from_hub(name: str, model: HubModel) -> ModelFiles:
    """The three repos of a named model."""
    folder = _snapshot(model.prior, name, _WEIGHTS)
    _check_parts(folder, name)
    renderer = _snapshot(model.renderer, name, _WEIGHTS)
    others = _snapshot(model.operators, name, [*_WEIGHTS, "*.pth"])
    operators = {p.parent.name: p.parent for p in sorted(others.rglob("operator.json"))}
    official = {p.parent.name: p for p in sorted(others.rglob("learned_prior.pth"))}
    return ModelFiles(name, folder, renderer, operators, {"name": name, **model.info, "official": official})


def _check_parts(folder: Path, name: str) -> None:
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise ModelError(f"the model {name} is incomplete: {folder} has no {', '.join(missing)}; {_LAYOUT}")


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / "pops.json"
    if not path.exists():
        return {}
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ModelError(f"{path} cannot be read ({e}); fetch or make it again") from e
    if not isinstance(info, dict):
        raise ModelError(f"{path} holds no JSON object; fetch or make it again")
    for key in ("size", "photo_side", "steps", "guidance"):
        value = info.get(key, 1)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or value < 0 or (value < 1 and key != "guidance"):
            raise ModelError(f"{path}: {key} cannot be {value!r}; fetch or make it again")
    if not isinstance(info.get("renderer", ""), (str, type(None))):
        raise ModelError(f"{path}: renderer is the name of a folder, got {info['renderer']!r}; fetch or make it again")
    return info


def _cached(repo: str) -> Path | None:
    """The repo's snapshot on this machine, or None; asks no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


def _snapshot(repo: str, name: str, patterns: list[str]) -> Path:
    """The repo's files of these patterns, from this machine if it has them or cannot reach the hub."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=patterns, ignore_patterns=_TWICE))
    except Exception as e:  # the hub client lets its HTTP library's own errors through, which differ by version
        if (here := _cached(repo)) is not None:
            return here
        raise ModelError(_why_not(e, repo, name)) from e


def _why_not(error: Exception, repo: str, name: str) -> str:
    """One line: what was asked for, why it failed, what to do."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return f"{repo} on the hub asks for an agreement; accept it on its page and log in with `hf auth login`"
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        return f"there is no {repo!r} on the hub or as a folder{suggest(name, _names())}; check the name"
    return (
        f"{name} is not on this machine and {repo} cannot be fetched ({type(error).__name__}); connect "
        "to the network, or copy the model's folder here and give its path"
    )
