"""What is asked of a training run, as one typed value: a file of YAML, a folder of examples, or options.

    data: mirrored            a folder of examples, or of what pops data encode wrote
    model: tiny
    from: texturing           an operator to start from; base; or nearest, which is the default
    lr: 1e-4                  any setting of TrainConfig

What is not set is chosen by the data (see defaults). Reads no data and touches no model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_type_hints

import yaml
from pydantic import ConfigDict, Field, StrictInt, StrictStr, TypeAdapter, ValidationError

from pops.errors import ConfigError, ensure, suggest
from pops.files import expanded, shown
from pops.recipe import SHIPPED, Part
from pops.training.config import TrainConfig

NEAREST, BASE = "nearest", "base"
SUFFIXES = (".yaml", ".yml", ".json")
GRID_ROWS = 3
MAX_SPEC = 2**20  # bytes of a file
# Settings that follow from the data, the name and the command, and are no choice of a spec.
_FIXED = ("operator",)
Name = Annotated[StrictStr, Field(min_length=1, max_length=4096)]


class TrainSpec(Part):
    """A run: which data, which model, where to start, and the settings that differ from the defaults."""

    model_config = ConfigDict(populate_by_name=True)
    place: ClassVar[str] = ""
    data: Name
    model: Name = SHIPPED
    name: StrictStr | None = None  # the operator's; unless given, the folder's
    summary: StrictStr = ""  # its result in a few words
    start: Annotated[Name, Field(alias="from")] = NEAREST  # an operator's name or folder, base, or nearest
    shots: Annotated[StrictInt, Field(ge=1)] | None = None  # train on so many examples only
    minutes: Annotated[float, Field(gt=0, le=60 * 24 * 365)] | None = None  # of training, at most
    sampling_steps: Annotated[StrictInt, Field(ge=1, le=1000)] | None = None  # the operator's default
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None  # the operator's default; 1 is none
    grid: Annotated[StrictInt, Field(ge=0, le=32)] = GRID_ROWS  # examples of the validation grid
    settings: dict[str, Any] = Field(default_factory=dict)  # of TrainConfig, by name

    @classmethod
    def read(cls, source: str | Path, changes: Mapping[str, Any] | None = None) -> TrainSpec:
        """Reads a spec from a YAML file, or makes that of a folder; changes come on top, keys as in the file.

        Paths in a file begin at the file's folder. ConfigError in one line for anything else.
        """
        path, found = expanded(source), {}
        ensure(path.exists(), f"there is no {shown(source)}; give a folder of examples or a spec (.yaml)")
        if path.is_dir():
            found = {"data": str(path)}
        else:
            found = _read_file(path)
            if isinstance(found.get("data"), str):
                found["data"] = str(path.parent / expanded(found["data"]))
        return cls.of({**found, **(changes or {})}, where=shown(source))

    @classmethod
    def of(cls, data: Mapping[str, Any], where: str = "the spec") -> TrainSpec:
        """Makes a spec of plain values by key; ConfigError that names `where` for an unknown key or a bad value."""
        own = {field.alias or name: name for name, field in cls.model_fields.items() if name != "settings"}
        known = [*own, *settings_of_config()]
        mine: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        for key, value in data.items():
            unknown = (
                f"{where}: unknown key {shown(repr(key))}{suggest(str(key), known)}; choose from {', '.join(known)}"
            )
            ensure(key in known, unknown)
            if key in own:
                mine[key] = value
            else:
                settings[key] = _checked(key, value, where)
        ensure("data" in mine, f"{where} names no data; add data: and a folder of examples")
        try:
            return cls(**mine, settings=settings)
        except ConfigError as e:
            raise ConfigError(f"{where}: {e}") from None

    @property
    def operator_name(self) -> str:
        """Name of the operator: as given, or the data's folder's as one plain word."""
        if self.name is not None:
            return self.name
        word = re.sub(r"\W+", "_", expanded(self.data).absolute().name).strip("_").lower()
        return word if word.isidentifier() else f"my_{word}".rstrip("_")

    def to_data(self) -> dict[str, Any]:
        """Returns plain values by key, as a file holds them; what is not set is left out."""
        given = {k: v for k, v in self.model_dump(by_alias=True).items() if k != "settings" and v not in (None, "")}
        return {**given, **self.settings}


@cache
def settings_of_config() -> Mapping[str, Any]:
    """Returns the settings of TrainConfig that a spec may name, with their types."""
    return {name: kind for name, kind in get_type_hints(TrainConfig).items() if name not in _FIXED}


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Parses settings of a command line, such as lr=1e-4; values are read as YAML reads them."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        ensure(bool(key and equals and text), f"--set takes KEY=VALUE, such as lr=1e-4; got {shown(word)!r}")
        try:
            found[key.strip()] = _number(yaml.safe_load(text))
        except yaml.YAMLError:
            raise ConfigError(f"--set {shown(word)} cannot be read; write a number or a word after the =") from None
    return found


def _checked(key: str, value: Any, where: str) -> Any:
    """Returns the value of a setting in its type."""
    kind = settings_of_config()[key]
    try:
        value = _number(value)
        ensure(kind is bool or not isinstance(value, bool), f"{where}: {key} cannot be {value}; give a number")
        return TypeAdapter(kind).validate_python(value, strict=kind is not float)
    except ValidationError:
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a word")
        raise ConfigError(f"{where}: {key} must be {wanted}, got {shown(repr(value), 60)}") from None


def _number(value: Any) -> Any:
    """YAML reads 1e-4 as text, since its numbers need a dot; here it is a number."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value.strip()):
        return float(value)
    return value


def _read_file(path: Path) -> dict[str, Any]:
    name = shown(path)
    ensure(path.suffix.lower() in SUFFIXES, f"{name} is no spec; give a folder of examples or a .yaml file")
    try:
        ensure(path.stat().st_size <= MAX_SPEC, f"{name} is larger than a spec can be; give a .yaml file of settings")
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{name} cannot be read ({getattr(e, 'strerror', None) or 'no text'})") from e
    except (yaml.YAMLError, RecursionError) as e:
        mark = getattr(e, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{name} is no YAML{place}; write one key and its value a line, such as lr: 1e-4") from e
    ensure(isinstance(data, dict), f"{name} holds no settings; write one key and its value a line, such as lr: 1e-4")
    return dict(data)
