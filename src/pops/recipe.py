"""Recipe: what was asked of pops, whole, as one typed value.

Whatever enters pops (the command line, Python, a picture that pops made, JSON) becomes a Recipe, and every picture
carries the one that made it. A Recipe is plain data: it touches no model, and only `read` and `from_png` touch files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, TypedDict

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainValidator,
    PrivateAttr,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from pops.errors import ConfigError, ensure, suggest
from pops.expression import load as load_tree
from pops.expression import parse
from pops.expression.grammar import to_text
from pops.expression.nodes import Given, path_node, walk
from pops.files import expanded, is_file, parse_json, read_json_object
from pops.images import PHOTO_SUFFIXES, find_recipe, picture_of
from pops.prior.options import check_options
from pops.seeds import check_seed, seed_list

if TYPE_CHECKING:
    from typing import Unpack

    from PIL import Image

SHIPPED = "tiny"  # the model that comes with pops
VERSION = 1  # of the format; a reader refuses a later one
MAX_IMAGES = 10_000  # of one recipe
MAX_ENLARGE = 16
MAX_LENGTH = 100_000  # characters of an expression
TREES = (".yaml", ".yml", ".json")
IN_PYTHON = "$given"  # what stands for a value that was given in Python


def _text_of(least: int, most: int) -> Any:
    """Type of a text. pydantic's own refuses bytes of a file's name that are no Unicode (surrogates, in Python)."""

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError("it is a text")
        if not least <= len(value) <= most:
            raise ValueError(f"it has {least} to {most} characters")
        return value

    schema = Annotated[str, Field(min_length=least, max_length=most)]
    return Annotated[str, PlainValidator(check, json_schema_input_type=schema)]


if TYPE_CHECKING:
    Text: TypeAlias = str
    Name: TypeAlias = str
else:
    Text = _text_of(0, MAX_LENGTH)
    Name = _text_of(1, 4096)  # of a file, a model, a backend
Scale = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _in_order(shares: tuple[float, float] | None) -> tuple[float, float] | None:
    if shares is not None and not shares[0] < shares[1]:
        raise ValueError("its start must be less than its stop")
    return shares


Interval = Annotated[tuple[Share, Share] | None, Field(strict=False), AfterValidator(_in_order)]


def _refuse_bools(value: object) -> object:
    """Lax tuples take whatever can become an int; a bool or a text is a mistake all the same."""
    if isinstance(value, (list, tuple)):
        wrong = [item for item in value if type(item) is not int]
        if wrong:
            raise ValueError(f"whole numbers only, got {wrong[0]!r:.40}")
    return value


_whole = BeforeValidator(_refuse_bools)


def _in_range(seeds: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(check_seed(seed) for seed in seeds)


Seeds = Annotated[
    tuple[int, ...], Field(min_length=1, max_length=MAX_IMAGES, strict=False), _whole, AfterValidator(_in_range)
]


class Part(BaseModel):
    """What the parts of a recipe share: frozen, no unknown fields, mistakes as ConfigErrors in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)
    place: ClassVar[str] = ""  # of the part in a recipe

    if not TYPE_CHECKING:  # editors see the fields

        def __init__(self, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as e:
                raise ConfigError(_mistake(e, type(self))) from None

    def __hash__(self) -> int:
        return hash(json.dumps(_as_json(self.model_dump()), sort_keys=True))

    def given(self) -> dict[str, Any]:
        """Returns the fields that differ from their defaults."""
        fields = type(self).model_fields
        return {k: v for k, v in self if v != fields[k].get_default(call_default_factory=True)}


class Making(Part):
    """How embeddings are made; None is each operator's own default, and a call's own options come first."""

    place: ClassVar[str] = "making."
    steps: StrictInt | None = None  # of the sampler, 1 to 1000
    guidance: float | None = None  # classifier-free guidance, 0 to 100; 1 is none
    strength: float | None = None  # of results, 0 to 10: 0 the mean of their image operands, 1 as they are
    sampler: StrictStr = "ancestral"
    fit: Literal["squash", "crop", "pad"] = "squash"  # how a photo becomes square

    def model_post_init(self, context: object) -> None:
        """Checks the settings of sampling."""
        check_options({k: v for k, v in self if k != "fit" and v is not None})


class Rendering(Part):
    """How an embedding becomes images; None is the renderer's own default. A mix is an image already."""

    place: ClassVar[str] = "rendering."
    steps: Annotated[StrictInt, Field(ge=1, le=1000)] | None = None
    guidance: Scale | None = None
    guidance_interval: Interval = None  # (start, stop), shares of the steps between which guidance acts
    guidance_rescale: Annotated[float, Field(ge=0, le=1)] | None = None  # 0 for none
    pag_scale: Scale | None = None  # of perturbed-attention guidance; 0 for none
    size: Annotated[tuple[int, int] | None, Field(strict=False), _whole] = None  # (height, width) in pixels
    prompt: Text = ""
    negative: Text = ""
    scale: float | str | dict[str, JsonValue] | None = None  # the embedding's weight, a preset's name, or one per block
    control: dict[Name, Name] = Field(default_factory=dict)  # kind ("depth", ...) -> photo, or "map:" and a ready image
    control_scale: Scale | dict[Name, Scale] | None = None
    seeds: Seeds | None = None  # unless given: the recipe's
    upscale: Annotated[StrictInt, Field(ge=1, le=MAX_ENLARGE)] | None = None  # by the renderer's upscaler; 1: not
    enlarge: Annotated[StrictInt, Field(ge=1, le=MAX_ENLARGE)] = 1  # times, after rendering


class Loading(Part):
    """What is loaded. In a recipe None means "whatever is loaded" where no model is named, else "none"."""

    place: ClassVar[str] = "loading."
    model: Name | None = None  # a name, a folder or a hub id
    decoder: Name | None = None  # a renderer's folder or hub id, in place of the model's own
    operators: dict[Name, Name] = Field(default_factory=dict)  # beside the model's own: name -> folder or file
    renderer: Name | None = None  # a backend's name, a renderer's folder or hub id
    library: Name | None = None  # of photos, for the renderer "retrieval"
    adapter: Name | None = None  # the IP-Adapter's file, in place of the renderer's own
    controlnets: dict[Name, Name] = Field(default_factory=dict)  # kind -> folder or hub id
    device: Name | None = None  # auto, cpu, cuda or mps
    dtype: Name | None = None  # of the weights: float32, float16 or bfloat16
    precision: Name | None = None  # of the prior alone: dtype's, or int8
    offload: bool | None = None  # renderers keep each network on the device only while it runs
    max_batch: Annotated[StrictInt, Field(ge=1, le=MAX_IMAGES)] | None = None  # images rendered together
    threads: Annotated[StrictInt, Field(ge=1, le=4096)] | None = None  # of torch on the CPU; sums round by them


class Sweep(Part):
    """One axis of a grid of mixes: an option of mix(...) and its values."""

    place: ClassVar[str] = "sweep."
    name: Literal["nu", "k_min", "k_max", "strength", "guidance", "steps"]
    values: Annotated[tuple[StrictInt | StrictFloat, ...], Field(min_length=1, max_length=400, strict=False)]


class Options(TypedDict, total=False):
    """A recipe's settings by the names of the command line and of Python; None leaves a setting as it is."""

    seed: int | Sequence[int] | None
    num_images: int | None
    image: int | None
    sweep: Sequence[Sweep] | None
    shows: Literal["image", "tree", "equation", "grid"] | None
    steps: int | None
    guidance: float | None
    strength: float | None
    sampler: str | None
    fit: str | None
    render_steps: int | None
    render_guidance: float | None
    render_guidance_interval: tuple[float, float] | None
    guidance_rescale: float | None
    pag_scale: float | None
    render_seed: int | Sequence[int] | None
    size: tuple[int, int] | None
    prompt: str | None
    negative: str | None
    scale: Any
    control: Mapping[str, str] | None
    control_scale: float | Mapping[str, float] | None
    upscale: int | None
    enlarge: int | None
    model: str | Path | None
    decoder: str | Path | None
    operators: Mapping[str, str | Path] | None
    renderer: str | None
    library: str | Path | None
    adapter: str | Path | None
    controlnets: Mapping[str, str | Path] | None
    device: str | None
    dtype: str | None
    precision: str | None
    offload: bool | None
    max_batch: int | None
    threads: int | None


class Recipe(Part):
    """What was asked: an expression, seeds, and how it is made, rendered and loaded.

    Image j of seed s has seed s + j. `inputs` and `versions` tell what there was when the recipe was made: 16 hex
    digits of the sha256 of each file that was read, and versions of software and model; `found` is the photo that the
    renderer "retrieval" answered with. None of the three changes what is made.
    """

    version: Literal[1] = 1
    expression: Text
    seeds: Seeds = (0,)
    num_images: Annotated[StrictInt, Field(ge=1, le=MAX_IMAGES)] = 1  # per seed
    image: Annotated[StrictInt, Field(ge=0)] | None = None  # only this one of all, counted from 0
    sweep: Annotated[tuple[Sweep, ...], Field(max_length=2, strict=False)] = ()  # a labelled grid over options of a mix
    shows: Literal["image", "tree", "equation", "grid"] = "image"  # what the picture is of
    making: Making = Making()
    rendering: Rendering = Rendering()
    loading: Loading = Loading()
    inputs: dict[Name, Text] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    found: dict[str, JsonValue] | None = None

    _foreign: dict[str, str] = PrivateAttr(default_factory=dict)  # see `foreign`

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.__dict__ == other.__dict__  # wherever it was read from

    __hash__ = Part.__hash__

    def model_post_init(self, context: object) -> None:
        """Checks what several fields say together."""
        count = len(self.seeds) * self.num_images
        ensure(count <= MAX_IMAGES, f"{count} images are more than {MAX_IMAGES}; ask for fewer seeds or --num-images")
        told = f"the recipe names image {self.image} of {count}; choose from 0 to {count - 1}"
        ensure(self.image is None or self.image < count, told)
        ensure(not self.sweep or count == 1, "a grid shows one image per cell; give one --seed and --num-images 1")
        ensure(not self.sweep or self.shows == "image", "a grid has no tree and no equation; draw one of a single mix")
        names = [axis.name for axis in self.sweep]
        ensure(len(set(names)) == len(names), "both --sweep name the same setting; give another")

    # --- what others wrote

    def loads(self) -> dict[str, str]:
        """Returns what running it would load beside the shipped model and installed renderers: setting -> name."""
        from pops.render.registry import names

        own = self.loading
        found = {name: getattr(own, name) for name in ("model", "decoder", "renderer", "library", "adapter")}
        found |= {f"operators.{name}": path for name, path in own.operators.items()}
        found |= {f"controlnets.{kind}": path for kind, path in own.controlnets.items()}
        safe = {"model": [SHIPPED], "renderer": names()}
        return {name: path for name, path in found.items() if path is not None and path not in safe.get(name, ())}

    @property
    def foreign(self) -> Mapping[str, str]:
        """What it would load that a file says and nobody else (setting -> name): empty unless it was read from one.

        Such a recipe may be a stranger's, and a model, an operator or a library is a file or a repository of his
        choice. Pops loads none of it unless it is loaded already, given anew (`changed`) or trusted (`trusted`).
        """
        return self._foreign

    def trusted(self) -> Recipe:
        """Returns the recipe as one whose author is trusted: all that it names may be loaded."""
        return self._with_foreign({})

    def _with_foreign(self, foreign: Mapping[str, str]) -> Recipe:
        copy = self.model_copy()
        copy._foreign = dict(foreign)
        return copy

    # --- from and to other forms

    @classmethod
    def of(cls, expression: str, **options: Unpack[Options]) -> Recipe:
        """Returns the recipe of an expression and settings by name: Recipe.of("union(a.png, b.png)", seed=3)."""
        return cls(expression=expression).changed(**options)

    @classmethod
    def read(cls, source: str | Path) -> Recipe:
        """Reads whatever stands for a recipe: the text of an expression; a tree file (.yaml, .json); a recipe's .json;
        a picture that pops made. A photo without a recipe is an expression of that photo.

        Raises ExpressionError, ConfigError or PhotoError, naming the file, where there is none in it.
        """
        text = str(source)
        path = expanded(source)
        suffix = path.suffix.lower()
        if suffix in TREES and (is_file(path) or not set(text) & set("()*+")):
            if suffix == ".json" and is_file(path):
                data = read_json_object(path, ConfigError, "give a recipe or a tree")
                if isinstance(data.get("expression"), str):
                    return cls.of_data(data, str(source))
            return cls(expression=str(load_tree(path)))
        if suffix in PHOTO_SUFFIXES and is_file(path):
            if find_recipe(path) is not None:
                return cls.from_png(path)
            return cls(expression=to_text(path_node(text)))
        return cls(expression=text)

    @classmethod
    def of_data(cls, data: Mapping[str, Any], where: str) -> Recipe:
        """Returns the recipe that plain data holds; ConfigError, naming where it came from, for anything else."""
        version = data.get("version", VERSION)
        if type(version) is not int or version != VERSION:
            newer = type(version) is int and version > VERSION
            told = "update pops" if newer else f'write "version": {VERSION}'
            raise ConfigError(f"the recipe in {where} has the format {version!r}, this pops reads {VERSION}; {told}")
        try:
            recipe = cls(**data)
        except (ConfigError, TypeError) as e:
            raise ConfigError(f"the recipe in {where} cannot be used: {e}") from None
        return recipe._with_foreign(recipe.loads())

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Returns the recipe that `to_json` wrote; ConfigError for anything else."""
        try:
            data = parse_json(text)
        except ValueError as e:
            raise ConfigError(f"this is no recipe: no JSON ({e})") from None
        ensure(isinstance(data, dict), "this is no recipe: no JSON object")
        return cls.of_data(data, "this JSON")

    @classmethod
    def from_png(cls, path: str | Path) -> Recipe:
        """Returns the recipe inside a picture that pops made (.png, .jpg or .webp); PhotoError where there is none."""
        from pops.images import read_recipe

        data = read_recipe(path)
        told = f"the recipe in {path} was written by an earlier pops, and cannot be read; make the image again"
        ensure("version" in data, told)
        return cls.of_data(data, str(path))

    def to_data(self) -> dict[str, Any]:
        """Returns the recipe as plain data, without fields that have their defaults."""
        data = _as_json(self.model_dump(exclude_defaults=True))
        return {"version": VERSION, "expression": self.expression, "seeds": list(self.seeds), **data}

    def to_json(self, *, indent: int | None = 2) -> str:
        """Returns the recipe as JSON text, which `from_json` reads."""
        return json.dumps(self.to_data(), indent=indent, ensure_ascii=False)

    def attach(self, image: Image.Image) -> Image.Image:
        """Puts the recipe into the image's `info["pops"]`, from where its `save` writes it; returns the image."""
        return picture_of(image, self.to_data())

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Returns the JSON schema of recipes."""
        return cls.model_json_schema()

    # --- changes

    def changed(self, **options: Unpack[Options]) -> Recipe:
        """Returns the recipe with other settings, by the names of Options; None changes nothing.

        Other seeds or another number of images ask for all images, each with the seed of its row. Another model takes
        with it what was said of the one before: decoder, adapter, ControlNets, operators, precision. Operators and
        ControlNets are added to the recipe's own; control replaces them all.
        """
        given = {name: value for name, value in options.items() if value is not None}
        unknown = [name for name in given if name not in PLACES]
        if unknown:
            raise TypeError(f"a recipe has no setting {unknown[0]!r}{suggest(unknown[0], PLACES)}")
        parts: dict[str, dict[str, Any]] = {"": {}, "making": {}, "rendering": {}, "loading": {}}
        if "seed" in given or "num_images" in given:
            parts[""]["image"] = None
        if "seed" in given:
            parts["rendering"]["seeds"] = None
        if given.get("model") not in (None, self.loading.model):
            parts["loading"] = {"decoder": None, "adapter": None, "controlnets": {}, "operators": {}, "precision": None}
        for name, value in given.items():
            part, field = PLACES[name]
            parts[part][field] = _plain(name, value)
        for name in ("operators", "controlnets"):  # those of the recipe stay, unless they are given anew
            if name in given and given.get("model") in (None, self.loading.model):
                parts["loading"][name] = {**getattr(self.loading, name), **parts["loading"][name]}
        changed: dict[str, Any] = {name: _with(part, parts[name]) for name, part in self if name in parts}
        whole: Recipe = _with(self, {**changed, **parts[""]})
        left = whole.loads() if self._foreign else {}
        kept = {k: v for k, v in self._foreign.items() if left.get(k) == v and not _is_given(k, given)}
        return whole._with_foreign(kept)

    def of_rows(self, rows: range) -> Recipe:
        """Returns the recipe of some of its rows alone: with their seeds."""
        some: dict[str, Any] = {"seeds": _some(self.seeds, rows)}
        if self.rendering.seeds is not None:
            some["rendering"] = self.rendering.model_copy(update={"seeds": _some(self.rendering.seeds, rows)})
        return self.model_copy(update=some)

    def of_figure(self, name: str) -> Recipe:
        """Returns the recipe of a figure; one that is drawn beside images is never enlarged with them."""
        rendering = self.rendering if name == self.shows else self.rendering.model_copy(update={"enlarge": 1})
        return self.model_copy(update={"shows": name, "rendering": rendering})

    def numbers(self, rows: int) -> list[int]:
        """Returns the numbers of the images that are asked for, of all that so many rows have."""
        return list(range(rows * self.num_images)) if self.image is None else [self.image]

    def in_python(self) -> list[str]:
        """Returns the operands and controls that were given in Python, which no recipe can hold."""
        operands = {f"${node.key}": None for node in walk(parse(self.expression).root) if isinstance(node, Given)}
        controls = [photo for photo in self.rendering.control.values() if photo.startswith("$")]
        return [*operands, *controls]


def _as_json(value: Any) -> Any:
    """Values of a recipe as JSON has them: lists for tuples. (pydantic's own way loses names that are no Unicode.)"""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def _is_given(setting: str, given: Mapping[str, Any]) -> bool:
    """Whether options name this setting: "model", or "operators.union" in a mapping of operators."""
    name, _, key = setting.partition(".")
    return name in given and (not key or key in given[name])


def _some(seeds: tuple[int, ...], rows: range) -> tuple[int, ...]:
    """The seeds of some rows; one seed stands for all."""
    return seeds if len(seeds) == 1 else seeds[rows.start : rows.stop]


def _with(part: Any, fields: Mapping[str, Any]) -> Any:
    """The part with other values of some fields, checked anew."""
    return type(part)(**{**dict(part), **fields}) if fields else part


_TOP = {"seed": "seeds", "num_images": "num_images", "image": "image", "sweep": "sweep", "shows": "shows"}
_RENDERING = ("size", "prompt", "negative", "scale", "control", "control_scale", "upscale", "enlarge")
# Option -> (part of the recipe, field).
PLACES: dict[str, tuple[str, str]] = {
    **{option: ("", field) for option, field in _TOP.items()},
    **{name: ("making", name) for name in Making.model_fields},
    **{name: ("rendering", name) for name in _RENDERING},
    "render_steps": ("rendering", "steps"),
    "render_guidance": ("rendering", "guidance"),
    "render_guidance_interval": ("rendering", "guidance_interval"),
    "guidance_rescale": ("rendering", "guidance_rescale"),
    "pag_scale": ("rendering", "pag_scale"),
    "render_seed": ("rendering", "seeds"),
    **{name: ("loading", name) for name in Loading.model_fields},
}


def _plain(option: str, value: Any) -> Any:
    """A value as a field takes it: paths as text, one seed as several."""
    if option in ("seed", "render_seed"):
        return tuple(seed_list(value))
    if isinstance(value, Path) and option not in ("operators", "controlnets", "control"):
        return str(value)
    if option in ("operators", "controlnets", "control"):
        ensure(isinstance(value, Mapping), f"{option} is a mapping of names to paths, got {value!r:.60}")
    if isinstance(value, Mapping):
        return {key: _plain("", item) for key, item in value.items()}
    if isinstance(value, bool):
        return value
    if isinstance(value, Real):  # NumPy's numbers, too
        return int(value) if isinstance(value, Integral) else float(value)
    if option in ("size", "render_guidance_interval") and isinstance(value, Iterable):
        return tuple(_plain("", side) for side in value)
    return value


def _mistake(error: ValidationError, kind: type[Part]) -> str:
    """The first of pydantic's findings as one line: which field, what it is, what it takes."""
    first = error.errors(include_url=False, include_context=False)[0]
    steps = [step for i, step in enumerate(first["loc"]) if i == 0 or isinstance(step, int)]
    where = kind.place + ".".join(str(step) for step in steps)
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        known = list(kind.model_fields)
        return f"unknown setting {where!r}{suggest(name, known)}; choose from {', '.join(known)}"
    if first["type"] == "missing":
        return f"{where} is missing"
    value = repr(first["input"])
    shown = value if len(value) <= 60 else value[:57] + "..."
    message = first["msg"].removeprefix("Value error, ")
    return f"{where} cannot be {shown}: {message[:1].lower()}{message[1:]}"
