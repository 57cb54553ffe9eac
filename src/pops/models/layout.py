"""What a model's folder holds: which part lies where, and what pops.json says. Reads no weights, asks no network.

A model folder has the layout of the Kandinsky 2.2 prior, perhaps with pops.json, operators/<name>/, renderer/,
depth_estimator/ and familiar/ (what it was trained on: `familiar`).
Its decoder may also lie beside the prior's parts (unet/, movq/), or in a folder of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pops.errors import ModelError
from pops.files import read_json_object
from pops.loading.manifest import MANIFEST, check_sizes, has_manifest

PARTS = ("image_encoder", "image_processor", "text_encoder", "tokenizer", "prior", "scheduler")
DECODER_PARTS = ("unet", "movq")
OFFICIAL_FILE = "learned_prior.pth"  # of one operator, in a folder of the operator's name
_HINT = "; a model folder has Kandinsky 2.2's prior layout"


@dataclass(frozen=True)
class ModelFiles:
    """Where a model's files lie. operators: name -> folder with operator.json; renderer: None if it has none.

    parts: those of PARTS that do not lie at folder/<part>, None for one that the model lacks (see `part`); info: what
    pops.json says ("version", "space", "size", "steps", "guidance", "guidance_interval", "guidance_rescale",
    "pag_scale", "pag_layers", "pag_interval", of mixes "mix_steps", "mix_guidance", ...), and under "official" the
    operators that are official .pth files, name -> path.
    """

    name: str
    folder: Path
    renderer: Path | None = None
    operators: Mapping[str, Path] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Path | None] = field(default_factory=dict)
    verified: tuple[Path, ...] = ()  # folders with a manifest, the model's own and its operators'

    def part(self, name: str) -> Path | None:
        """Returns the folder of one of PARTS; None if the model lacks it."""
        return self.parts.get(name, self.folder / name)


def read_folder(folder: Path, *, name: str | None = None) -> ModelFiles:
    """Finds a model's files in its folder. ModelError if a part is missing or pops.json is wrong."""
    info = _read_info(folder)
    verified = tuple(path for path in (folder, *_operator_folders(folder)) if has_manifest(path))
    for path in verified:
        check_sizes(path)
    repos_inside = (folder / "prior" / "image_encoder").is_dir()  # the hub's repos as they are, side by side
    home = folder / "prior" if repos_inside else folder
    parts = _moved_parts(home)
    hint = _HINT
    if is_decoder(folder):
        hint = "; it is a decoder alone: give the prior's folder as the model, and this one as its decoder"
    check_parts(home, name or str(folder), [part for part in PARTS if part not in parts], hint)
    operators = {p.parent.name: p.parent for p in sorted((folder / "operators").glob("*/operator.json"))}
    named = info.get("renderer")
    renderer = folder / named if named else renderer_in(folder) if "renderer" not in info else None
    if named and not (folder / named / "model_index.json").is_file():
        raise ModelError(f"{folder / 'pops.json'} names a renderer that is not there ({renderer}); copy it again")
    official = official_files(folder / "operators")
    info = {**info, "official": official} if official else info
    name = name or str(info.get("name", folder.resolve().name))
    return ModelFiles(name, home, renderer, operators, info, parts, verified)


def _operator_folders(folder: Path) -> list[Path]:
    """Returns the folders of a model's operators, those included of which only the manifest is left."""
    found = [*folder.glob("operators/*/operator.json"), *folder.glob(f"operators/*/{MANIFEST}")]
    return sorted({path.parent for path in found})


def official_files(folder: Path | None) -> dict[str, Path]:
    """Finds official checkpoints, <name>/learned_prior.pth, at any depth of a folder: name -> file."""
    found = sorted(folder.rglob(OFFICIAL_FILE)) if folder else []
    return {p.parent.name: p for p in found if p.is_file() and not (p.parent / "operator.json").exists()}


def renderer_in(folder: Path) -> Path | None:
    """Finds the renderer that a folder brings: in renderer/ or decoder/, or as parts of its own; None without one."""
    inside = (folder / name for name in ("renderer", "decoder"))
    here = next((path for path in inside if (path / "model_index.json").is_file() or is_decoder(path)), None)
    return here or (folder if is_decoder(folder) else None)


def is_decoder(folder: Path) -> bool:
    """Whether a folder holds the parts of Kandinsky's decoder."""
    return all((folder / part).is_dir() for part in DECODER_PARTS)


def check_parts(folder: Path, name: str, parts: Iterable[str] = PARTS, hint: str = _HINT) -> None:
    """Raises ModelError, naming the model and ending with the hint, unless the folder holds these parts."""
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise ModelError(f"the model {name} is incomplete: {folder} has no {', '.join(missing)}{hint}")


def is_whole(folder: Path | None, parts: Iterable[str]) -> bool:
    """Whether a snapshot of the hub has all these parts with their weights; an interrupted one has not."""
    if folder is None:
        return False
    heavy = {"image_encoder", "text_encoder", "prior", *DECODER_PARTS}
    return all(
        any((folder / part).glob("*.safetensors")) if part in heavy else (folder / part).is_dir() for part in parts
    )


def _moved_parts(folder: Path) -> dict[str, Path | None]:
    """Finds the parts that do not lie at folder/<part>: diffusers' combined pipeline calls them prior_<part>.

    Beside a decoder, scheduler/ may be the decoder's; the prior's is then prior_scheduler/, or missing (None).
    """
    parts: dict[str, Path | None] = {}
    for part in PARTS:
        if (folder / f"prior_{part}").is_dir():
            parts[part] = folder / f"prior_{part}"
    if "scheduler" not in parts and is_decoder(folder) and (folder / "scheduler").is_dir():
        with suppress(ModelError):  # an unreadable one stays the prior's: what loads it reports what is wrong
            about = read_json_object(folder / "scheduler" / "scheduler_config.json", ModelError)
            if about.get("_class_name") != "UnCLIPScheduler":
                parts["scheduler"] = None
    return parts


def _read_info(folder: Path) -> dict[str, Any]:
    """Reads pops.json, {} without one; ModelError for values of a wrong kind."""
    path, again = folder / "pops.json", "fetch or make it again"
    if not path.exists():
        return {}
    info = read_json_object(path, ModelError, again)
    for key in ("size", "photo_side", "steps", "mix_steps", "guidance", "mix_guidance", "pag_scale"):
        value = info.get(key, 1)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or value < 0 or (value < 1 and not key.endswith(("guidance", "pag_scale"))):
            raise ModelError(f"{path}: {key} cannot be {value!r}; {again}")
    share = info.get("guidance_rescale", 0)
    if type(share) not in (int, float) or not 0 <= share <= 1:
        raise ModelError(f"{path}: guidance_rescale is from 0 to 1, got {share!r:.40}; {again}")
    for key in ("guidance_interval", "guidance_rescale_interval", "pag_interval"):
        shares = info.get(key, [0, 1])
        pair = isinstance(shares, list) and len(shares) == 2 and all(type(share) in (int, float) for share in shares)
        if not pair or not 0 <= shares[0] < shares[1] <= 1:
            raise ModelError(f"{path}: {key} is [start, stop], 0 <= start < stop <= 1, got {shares!r:.40}; {again}")
    layers = info.get("pag_layers", ["mid_block"])
    if not isinstance(layers, list) or not layers or not all(isinstance(layer, str) for layer in layers):
        raise ModelError(f"{path}: pag_layers is a list of layers such as mid_block, got {layers!r:.40}; {again}")
    if not isinstance(info.get("renderer", ""), (str, type(None))):
        raise ModelError(f"{path}: renderer is the name of a folder, got {info['renderer']!r}; {again}")
    return info
