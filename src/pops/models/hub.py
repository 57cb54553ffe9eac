"""The names of models -> their files, fetched from the hub where a name lives there. Opens no weights.

A model is a folder of the Kandinsky 2.2 prior's layout, perhaps with pops.json, operators/<name>/ and
renderer/. Its decoder may also lie beside the prior's parts (unet/, movq/), or in a folder of its own.
"""

from __future__ import annotations

import atexit
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from types import MappingProxyType
from typing import Any

from pops.errors import ModelError, suggest
from pops.files import expanded

TINY = Path(__file__).parent / "tiny"
PARTS = ("image_encoder", "image_processor", "text_encoder", "tokenizer", "prior", "scheduler")
DECODER_PARTS = ("unet", "movq")
OFFICIAL_FILE = "learned_prior.pth"  # of one operator, in a folder of its name
PUBLISHED = ("texturing", "union", "scene", "instruct")  # the operators whose official checkpoints are public
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COPY = "or copy the model's folder here and give its path"
_LAYOUT = "a model folder has Kandinsky 2.2's prior layout"
# The weights once, as safetensors in full precision, and what describes them.
_TEXTS = ["*.json", "*.txt"]
_WEIGHTS = [*_TEXTS, "*.safetensors"]
_TWICE = ["*.fp16.safetensors", "*.non_ema.safetensors", "*.bin", "*.ckpt", "*.msgpack", "*.onnx"]


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's files lie. operators: name -> folder with operator.json; renderer: None if it has none.

    parts: those of PARTS that lie elsewhere than folder/<part>, or are not there (None); info: what pops.json
    says ("version", "space", "size", "steps", "guidance", ...), and under "official" the operators that came
    as official .pth files, name -> path.
    """

    name: str
    folder: Path
    renderer: Path | None = None
    operators: Mapping[str, Path] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Path | None] = field(default_factory=dict)


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


def resolve(name_or_path: str | Path, *, decoder: str | Path | None = None) -> ModelFiles:
    """A name ("tiny", "kandinsky-2-2"), a folder or a hub id ("owner/name") -> the model's files.

    A folder wins over a hub id of the same spelling. decoder: a renderer's folder, hub id or model's name,
    instead of the model's own. ModelError: unknown, incomplete, not to be fetched.
    """
    files = _resolve(name_or_path)
    return files if decoder is None else replace(files, renderer=_decoder(decoder))


def _resolve(name_or_path: str | Path) -> ModelFiles:
    text = str(name_or_path)
    if text == "tiny":
        return _from_folder(TINY, name="tiny")
    if text in HUB:
        return _from_hub(text, HUB[text])
    folder = _found(name_or_path)
    return _from_folder(folder, name=None if expanded(text).is_dir() else text)


def hub_renderer(name: str) -> Path | None:
    """The renderer's folder of a named model of the hub, fetched now; None for every other model."""
    return _snapshot(HUB[name].renderer, name, _WEIGHTS) if name in HUB else None


def renderer_at(name_or_path: str | Path) -> Path:
    """The folder of a renderer: given itself, a hub id's snapshot, or the one that a model brings."""
    return _decoder(name_or_path)


def fetched(name_or_path: str | Path, what: str, advice: str = _COPY) -> Path:
    """The folder of a part that is no model ("ControlNet", "depth estimator"): given itself, or a hub id's snapshot.

    ModelError in one line that ends with the advice where it is not to be had.
    """
    text = str(name_or_path)
    folder = expanded(text)
    if folder.is_dir():
        return folder
    if folder.exists() or not (isinstance(name_or_path, str) and _HUB_ID.fullmatch(text)):
        raise ModelError(f"there is no {what} {text}; give its folder or hub id, {advice}")
    try:
        return _fetch(text, f"the {what}", _WEIGHTS, advice)
    except ModelError:
        if (here := _cached(text)) is not None:
            return here
        raise


def _found(name_or_path: str | Path) -> Path:
    """A folder, or the snapshot of a hub id."""
    text = str(name_or_path)
    folder = expanded(text)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"{text} is a file; a model is a folder, a hub id or a name ({', '.join(_names())})")
    if isinstance(name_or_path, str) and _HUB_ID.fullmatch(text):
        return _snapshot(text, text, _WEIGHTS)
    raise ModelError(
        f"there is no model {text!r}{suggest(text, _names())}; known: {', '.join(_names())}, or give a folder"
    )


def _decoder(name_or_path: str | Path) -> Path:
    """The folder of a renderer: given itself, or the one of a model."""
    text = str(name_or_path)
    if text in HUB:
        return _snapshot(HUB[text].renderer, text, _WEIGHTS)
    folder = TINY if text == "tiny" else _found(name_or_path)
    here = _renderer_in(folder)
    if here is None and (folder / "model_index.json").is_file() and not (folder / "prior").is_dir():
        here = folder
    if here is None:
        raise ModelError(f"{text} is no decoder: it has no {' and no '.join(DECODER_PARTS)}, and no renderer/ inside")
    return here


def laid_out(files: ModelFiles, parts: Iterable[str]) -> Path:
    """A folder in which these parts have their plain names: the model's own, else one of links, until we exit."""
    if not any(part in files.parts for part in parts):
        return files.folder
    links = Path(mkdtemp(prefix="pops-"))
    atexit.register(shutil.rmtree, links, ignore_errors=True)  # not sooner: weights are read late, and by others
    for part in parts:
        place = files.parts.get(part, files.folder / part)
        try:
            if place is not None:
                (links / part).symlink_to(place.absolute(), target_is_directory=True)
        except OSError as e:  # on Windows links may be forbidden
            raise ModelError(
                f"the parts of {files.folder} need links, which this machine refuses ({e.strerror}); "
                "give the prior's folder as the model, and the decoder's as its decoder"
            ) from e
    return links


def pull(name: str) -> list[Path]:
    """Fetches what a model of the hub needs to run and to render -> its folders; what is here whole, stays.

    ModelError in one line where the hub cannot be reached or has no such model.
    """
    if name not in HUB:
        return [_resolve(name).folder]
    folders = []
    for repo, parts in ((HUB[name].prior, PARTS), (HUB[name].renderer, DECODER_PARTS)):
        here = _cached(repo)
        folder = here if here and _is_whole(here, parts) else _fetch(repo, name, _WEIGHTS)
        _check_parts(folder, name, parts, f"; {repo} was not fetched whole: run the command again")
        folders.append(folder)
    return folders


def pull_operators(names: Iterable[str], model: str = "kandinsky-2-2") -> dict[str, Path]:
    """Fetches the official checkpoints of these operators -> name: file; what is here already, stays.

    ModelError in one line where the hub cannot be reached, or has none of that name.
    """
    if model not in HUB:
        raise ModelError(f"official operators are fetched for {', '.join(HUB)}, not for {model}; import them instead")
    repo, names = HUB[model].operators, list(dict.fromkeys(names))
    for name in names:
        if name not in PUBLISHED:
            known = ", ".join(PUBLISHED)
            raise ModelError(f"no official operator {name!r} is public{suggest(name, PUBLISHED)}; there are {known}")
    here = _official(_cached(repo))
    absent = [name for name in names if name not in here]
    advice = f"or get {OFFICIAL_FILE} in another way and run: pops operators import"
    if absent:
        here = _official(_fetch(repo, ", ".join(absent), [f"*{name}/{OFFICIAL_FILE}" for name in absent], advice))
    if missing := [name for name in names if name not in here]:
        raise ModelError(f"{repo} was not fetched whole (no {', '.join(missing)}); connect to the network, {advice}")
    return {name: here[name] for name in names}


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
        here = _is_whole(_cached(model.prior), PARTS) and _is_whole(_cached(model.renderer), DECODER_PARTS)
        rows.append({"name": name, "summary": model.summary, "source": f"hub: {model.prior}", "here": here})
    return rows


def _names() -> list[str]:
    return ["tiny", *HUB]


def _from_folder(folder: Path, *, name: str | None = None) -> ModelFiles:
    """A folder's parts, checked to be there."""
    info = _read_info(folder)
    inside = (folder / "prior" / "image_encoder").is_dir()  # the repos as they are, side by side
    home = folder / "prior" if inside else folder
    parts = _parts(home)
    _check_parts(home, name or str(folder), [part for part in PARTS if part not in parts], _layout_hint(folder))
    operators = {p.parent.name: p.parent for p in sorted((folder / "operators").glob("*/operator.json"))}
    named = info.get("renderer")
    renderer = folder / named if named else _renderer_in(folder) if "renderer" not in info else None
    if named and not (folder / named / "model_index.json").is_file():
        raise ModelError(f"{folder / 'pops.json'} names a renderer that is not there ({renderer}); copy it again")
    official = _official(folder / "operators")
    info = {**info, "official": official} if official else info
    name = name or str(info.get("name", folder.resolve().name))
    return ModelFiles(name, home, renderer, operators, info, parts)


def _from_hub(name: str, model: HubModel) -> ModelFiles:
    """The repos of a named model: its prior's, and what is here of the others, which are large."""
    folder = _snapshot(model.prior, name, _WEIGHTS)
    _check_parts(folder, name)
    rendering = _cached(model.renderer)
    rendering = rendering if _is_whole(rendering, DECODER_PARTS) else None
    others = _cached(model.operators)
    operators = {p.parent.name: p.parent for p in sorted(others.rglob("operator.json"))} if others else {}
    info = {"name": name, **model.info, "official": _official(others)}
    return ModelFiles(name, folder, rendering, operators, info)


def _official(folder: Path | None) -> dict[str, Path]:
    """The official checkpoints in a folder: <name>/learned_prior.pth, at any depth."""
    found = sorted(folder.rglob(OFFICIAL_FILE)) if folder else []
    return {p.parent.name: p for p in found if p.is_file() and not (p.parent / "operator.json").exists()}


def _parts(folder: Path) -> dict[str, Path | None]:
    """Where parts lie that are not at folder/<part>: diffusers' combined pipeline calls them prior_<part>.

    Beside a decoder, scheduler/ may be the decoder's; the prior's is then prior_scheduler/, or none.
    """
    parts: dict[str, Path | None] = {}
    for part in PARTS:
        if (folder / f"prior_{part}").is_dir():
            parts[part] = folder / f"prior_{part}"
    if "scheduler" not in parts and _is_decoder(folder) and (folder / "scheduler").is_dir():
        try:
            about = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
            own = about.get("_class_name") == "UnCLIPScheduler"
        except (OSError, ValueError, AttributeError):
            own = True  # and whoever reads it tells what is wrong
        if not own:
            parts["scheduler"] = None
    return parts


def _is_decoder(folder: Path) -> bool:
    return all((folder / part).is_dir() for part in DECODER_PARTS)


def _renderer_in(folder: Path) -> Path | None:
    """The renderer that a folder brings: in renderer/ or decoder/, or its own parts."""
    inside = (folder / name for name in ("renderer", "decoder"))
    here = next((path for path in inside if (path / "model_index.json").is_file() or _is_decoder(path)), None)
    return here or (folder if _is_decoder(folder) else None)


def _layout_hint(folder: Path) -> str:
    if _is_decoder(folder):
        return "; it is a decoder alone: give the prior's folder as the model, and this one as its decoder"
    return f"; {_LAYOUT}"


def _check_parts(folder: Path, name: str, parts: Iterable[str] = PARTS, hint: str = f"; {_LAYOUT}") -> None:
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise ModelError(f"the model {name} is incomplete: {folder} has no {', '.join(missing)}{hint}")


def _is_whole(folder: Path | None, parts: Iterable[str]) -> bool:
    """Whether a snapshot has all parts; one that was interrupted has not, or lacks weights."""
    if folder is None:
        return False
    heavy = {"image_encoder", "text_encoder", "prior", *DECODER_PARTS}
    return all(
        any((folder / part).glob("*.safetensors")) if part in heavy else (folder / part).is_dir() for part in parts
    )


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
    """The repo's files of these patterns; what this machine has of them if the hub cannot be reached."""
    try:
        return _fetch(repo, name, patterns)
    except ModelError:
        if (here := _cached(repo)) is not None:
            return here
        raise


def _fetch(repo: str, name: str, patterns: list[str], advice: str = _COPY) -> Path:
    """The repo's files of these patterns, newly looked for on the hub; goes on where an earlier try stopped."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=patterns, ignore_patterns=_TWICE))
    except Exception as e:  # the hub client lets its HTTP library's own errors through, which differ by version
        raise ModelError(_why_not(e, repo, name, advice)) from e


def _why_not(error: Exception, repo: str, name: str, advice: str) -> str:
    """One line: what was asked for, why it failed, what to do."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return f"{repo} on the hub asks for an agreement; accept it on its page and log in with `hf auth login`"
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        return f"there is no {repo!r} on the hub or as a folder{suggest(name, _names())}; check the name"
    return (
        f"{name} is not on this machine and {repo} cannot be fetched ({type(error).__name__}); connect "
        f"to the network, {advice}"
    )
