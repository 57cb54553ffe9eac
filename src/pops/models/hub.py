"""Names of models -> their files, fetched from the Hugging Face hub if need be. Reads no weights.

What lies in a model's folder is `layout`'s business.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pops.errors import ModelError, suggest
from pops.files import expanded
from pops.models.layout import (
    DECODER_PARTS,
    OFFICIAL_FILE,
    PARTS,
    ModelFiles,
    check_parts,
    is_whole,
    official_files,
    read_folder,
    renderer_in,
)

logger = logging.getLogger("pops.models")

TINY = Path(__file__).parent / "tiny"
TINY_MEMORY = 1.5  # GB
PUBLISHED = ("texturing", "union", "scene", "instruct")  # the operators whose official checkpoints are public
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COPY = "or copy the model's folder here and give its path"
# The weights once, as safetensors in full precision, and what describes them.
_WANTED = ("*.json", "*.txt", "*.safetensors")
_NEVER = ["*.bin", "*.ckpt", "*.msgpack", "*.onnx"]
_TWICE = ["*.fp16.safetensors", "*.fp16-*.safetensors", "*.non_ema.safetensors", *_NEVER]


@dataclass(frozen=True)
class HubModel:
    """A named model on the hub: the repos of its prior, renderer and operators (ids)."""

    prior: str
    renderer: str
    operators: str
    summary: str
    needs: str
    info: Mapping[str, Any]


HUB: Mapping[str, HubModel] = MappingProxyType(
    {
        "kandinsky-2-2": HubModel(
            prior="kandinsky-community/kandinsky-2-2-prior",
            renderer="kandinsky-community/kandinsky-2-2-decoder",
            operators="pOpsPaper/operators",
            summary="the papers' model, 512 x 512; about 20 GB",
            needs="20 GB of disk, and as much memory in full precision; a GPU helps",
            info={"version": "2.2", "space": "clip-vit-bigg-14", "size": 512, "steps": 50, "guidance": 4.0},
        )
    }
)


def resolve(name_or_path: str | Path, *, decoder: str | Path | None = None) -> ModelFiles:
    """Finds a model's files by a name ("tiny", "kandinsky-2-2"), a folder or a hub id ("owner/name").

    A folder wins over a hub id of the same spelling. decoder: a renderer's folder, hub id or model's name,
    instead of the model's own. ModelError if the model is unknown, incomplete or cannot be fetched.
    """
    text = str(name_or_path)
    if text == "tiny":
        files = read_folder(TINY, name="tiny")
    elif text in HUB:
        files = _from_hub(text, HUB[text])
    else:
        files = read_folder(_found(name_or_path), name=None if expanded(text).is_dir() else text)
    logger.debug("model %s lies in %s", files.name, files.folder)
    return files if decoder is None else replace(files, renderer=renderer_at(decoder))


def hub_renderer(name: str) -> Path | None:
    """Fetches the renderer of a named model of the hub and returns its folder; None for every other model."""
    return _snapshot(HUB[name].renderer, name) if name in HUB else None


def renderer_at(name_or_path: str | Path) -> Path:
    """Returns a renderer's folder, given that folder, its hub id, or a model that brings one."""
    text = str(name_or_path)
    if (here := hub_renderer(text)) is not None:
        return here
    folder = TINY if text == "tiny" else _found(name_or_path)
    here = renderer_in(folder)
    if here is None and (folder / "model_index.json").is_file() and not (folder / "prior").is_dir():
        here = folder
    if here is None:
        raise ModelError(f"{text} is no decoder: it has no {' and no '.join(DECODER_PARTS)}, and no renderer/ inside")
    return here


def fetched(name_or_path: str | Path, what: str, advice: str = _COPY) -> Path:
    """Returns the folder of something other than a model ("ControlNet"), given that folder or its hub id.

    ModelError in one line that ends with the advice if there is none and it cannot be fetched.
    """
    text = str(name_or_path)
    folder = expanded(text)
    if folder.is_dir():
        return folder
    if folder.exists() or not (isinstance(name_or_path, str) and _HUB_ID.fullmatch(text)):
        raise ModelError(f"there is no {what} {text}; give its folder or hub id, {advice}")
    return _snapshot(text, f"the {what}", advice)


def pull(name: str) -> list[Path]:
    """Fetches what a model of the hub needs to run and to render, unless it is here whole; returns the folders.

    ModelError in one line if the hub cannot be reached or has no such model.
    """
    if name not in HUB:
        return [resolve(name).folder]
    folders = []
    for repo, parts in ((HUB[name].prior, PARTS), (HUB[name].renderer, DECODER_PARTS)):
        here = _cached(repo)
        folder = here if here and is_whole(here, parts) else _fetch(repo, name)
        check_parts(folder, name, parts, f"; {repo} was not fetched whole: run the command again")
        folders.append(folder)
    return folders


def pull_operators(names: Iterable[str], model: str = "kandinsky-2-2") -> dict[str, Path]:
    """Fetches the official checkpoints of these operators, unless they are here; returns name -> file.

    ModelError in one line if the hub cannot be reached, or has none of that name.
    """
    if model not in HUB:
        raise ModelError(f"official operators are fetched for {', '.join(HUB)}, not for {model}; import them instead")
    repo, names = HUB[model].operators, list(dict.fromkeys(names))
    for name in names:
        if name not in PUBLISHED:
            hint, choices = suggest(name, PUBLISHED), ", ".join(PUBLISHED)
            raise ModelError(f"unknown official operator {name!r}{hint}; choose from {choices}")
    here = official_files(_cached(repo))
    absent = [name for name in names if name not in here]
    advice = f"or get {OFFICIAL_FILE} in another way and run: pops operators import"
    if absent:
        patterns = [f"*{name}/{OFFICIAL_FILE}" for name in absent]
        here = official_files(_fetch(repo, ", ".join(absent), advice, patterns))
    if missing := [name for name in names if name not in here]:
        raise ModelError(f"{repo} was not fetched whole (no {', '.join(missing)}); connect to the network, {advice}")
    return {name: here[name] for name in names}


def known() -> list[dict[str, Any]]:
    """Lists the models that have a name: name, summary, source, what each needs, how to get it, and whether it is here,
    on this machine."""
    rows: list[dict[str, Any]] = [
        {
            "name": "tiny",
            "summary": "ships with pops: drawn objects, small pictures, no GPU needed",
            "source": "package",
            "needs": f"{TINY_MEMORY:g} GB of memory; no GPU, no network",
            "get": "it is here",
            "here": (TINY / "model_index.json").is_file(),
        }
    ]
    for name, model in HUB.items():
        here = is_whole(_cached(model.prior), PARTS) and is_whole(_cached(model.renderer), DECODER_PARTS)
        get = "it is here" if here else f"run: pops models pull {name}"
        about = {"name": name, "summary": model.summary, "source": f"hub: {model.prior}", "needs": model.needs}
        rows.append({**about, "get": get, "here": here})
    return rows


def _names() -> list[str]:
    return ["tiny", *HUB]


def _found(name_or_path: str | Path) -> Path:
    """Returns the folder itself, or the snapshot of a hub id."""
    text, names = str(name_or_path), _names()
    folder = expanded(text)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"{text} is a file; a model is a folder, a hub id or a name ({', '.join(names)})")
    if isinstance(name_or_path, str) and _HUB_ID.fullmatch(text):
        return _snapshot(text, text)
    raise ModelError(
        f"unknown model {text!r}{suggest(text, names)}; choose from {', '.join(names)}, or give a folder or hub id"
    )


def _from_hub(name: str, model: HubModel) -> ModelFiles:
    """Fetches the prior of a named model; the renderer and the operators, which are large, count if they are here."""
    folder = _snapshot(model.prior, name)
    check_parts(folder, name)
    rendering = _cached(model.renderer)
    rendering = rendering if is_whole(rendering, DECODER_PARTS) else None
    others = _cached(model.operators)
    operators = {p.parent.name: p.parent for p in sorted(others.rglob("operator.json"))} if others else {}
    info = {"name": name, **model.info, "official": official_files(others)}
    return ModelFiles(name, folder, rendering, operators, info)


def _cached(repo: str) -> Path | None:
    """Returns the repo's snapshot on this machine, or None; asks no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


def _snapshot(repo: str, name: str, advice: str = _COPY) -> Path:
    """Fetches a repo and returns its snapshot; the one on this machine if the hub cannot be reached."""
    try:
        return _fetch(repo, name, advice)
    except ModelError:
        if (here := _cached(repo)) is not None:
            logger.info("%s cannot be fetched; using the snapshot in %s", repo, here)
            return here
        raise


def _fetch(repo: str, name: str, advice: str = _COPY, patterns: Sequence[str] = _WANTED) -> Path:
    """Fetches the files of a repo that are new on the hub and match a pattern; resumes an interrupted download."""
    from huggingface_hub import snapshot_download

    begun = time.perf_counter()
    try:
        folder = Path(snapshot_download(repo, allow_patterns=list(patterns), ignore_patterns=_TWICE))
        if half := [f"{part}/*.fp16*.safetensors" for part in _without_weights(folder)]:
            snapshot_download(repo, allow_patterns=half, ignore_patterns=_NEVER)  # there is no full precision of these
    except Exception as e:  # the hub client lets its HTTP library's own errors through, which differ by version
        logger.debug("%s cannot be fetched", repo, exc_info=True)
        raise ModelError(_why_not(e, repo, name, advice)) from (None if _told(e) else e)
    logger.info("fetched %s to %s in %.1f s", repo, folder, time.perf_counter() - begun)
    return folder


def _without_weights(folder: Path) -> list[str]:
    """Returns the parts of a snapshot that are networks, by their config.json, and have no safetensors."""
    parts = (path.parent for path in sorted(folder.rglob("config.json")) if path.parent != folder)
    bare = (
        part for part in parts if not any(part.glob("*.safetensors")) and not (part / "tokenizer_config.json").exists()
    )
    return [part.relative_to(folder).as_posix() for part in bare]


def _told(error: Exception) -> bool:
    """Returns whether `_why_not` says all that the hub client says: then a traceback needs none of its own."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    return isinstance(error, (GatedRepoError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError))


def _why_not(error: Exception, repo: str, name: str, advice: str) -> str:
    """Returns one line: what was asked for, why it failed, what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return f"{repo} on the hub asks for an agreement; accept it on its page and log in with `hf auth login`"
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        return f"there is no {repo!r} on the hub or as a folder{suggest(name, _names())}; check the name"
    what = name if name == repo else f"{name} ({repo})"
    told = f"{what} {'are' if ', ' in name else 'is'} not on this machine and cannot be fetched"
    why = type(error).__name__
    if isinstance(error, LocalEntryNotFoundError):  # the hub client's name for either
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub is not reachable"
    return f"{told} ({why}); connect to the network, {advice}"
