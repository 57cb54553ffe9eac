"""A mix asked of a model: what its operands stand for, read from strings; the pictures; and what they keep of it.

Knows no network: a MagicMix is handed to it, and the model encodes photos and evaluates expressions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pops import __version__
from pops.embedding import READ_SUFFIXES, Embedding
from pops.errors import ConfigError, ExpressionError, OperandError, ensure
from pops.expression import Expression, parse
from pops.expression.nodes import MIX, Node, Photo, Saved, Word
from pops.files import digest, expanded, is_file
from pops.magicmix.latents import is_latent
from pops.magicmix.operands import MixSettings, is_photo, with_defaults
from pops.magicmix.prompt import Prompt
from pops.magicmix.schedule import parse_nu
from pops.rendering import given
from pops.request import OnProgress, OnStep, inputs_of

if TYPE_CHECKING:
    from PIL import Image

    from pops.expression.plan import Plan
    from pops.magicmix.mix import MagicMix
    from pops.models.hub import ModelFiles
    from pops.operators.spec import OperatorSpec
    from pops.request import Trace

# What begins like an operator call, a weighted sum or a let; all else is words.
_CALL = re.compile(r"\s*(?:(?P<name>[A-Za-z_]\w*)\s*\(|-?[\d.]+\s*\*|let\s+\w+\s*=)")
_OF_THE_LANGUAGE = ("text", "photo", "saved", MIX)


def read_operand(operand: Any, operators: Collection[str]) -> Any:
    """A string -> Path of a photo or a latent, Embedding of a file, Expression, or the text it is; other values as
    they are, and {"expression": text}, as a recipe keeps one, as the Expression.

    operators: names that make `name(...)` an expression. ExpressionError, EmbeddingError where one is broken.
    """
    if isinstance(operand, Node):
        operand = Expression(operand)
    if isinstance(operand, Mapping) and isinstance(operand.get("expression"), str):
        operand = parse(operand["expression"])
    if isinstance(operand, Expression):
        root = operand.root
        if isinstance(root, (Photo, Saved)):
            return read_operand(Path(root.path), operators)
        return root.text if isinstance(root, Word) else operand
    if isinstance(operand, (str, Path)) and str(operand).lower().endswith(READ_SUFFIXES):
        return Path(operand) if is_latent(operand) else Embedding.load(operand)
    if not isinstance(operand, str):
        return operand
    call = _CALL.match(operand)
    if call and (call["name"] is None or call["name"] in operators or call["name"] in _OF_THE_LANGUAGE):
        return read_operand(parse(operand), operators)
    return Path(operand.strip()) if is_photo(operand) else operand


def said(operand: Any) -> Any:
    """An operand as a recipe keeps it: paths, texts and expressions as written, values by their kind."""
    if isinstance(operand, Node):
        operand = Expression(operand)
    if isinstance(operand, Expression):  # not as text: `a.png + b.png` alone would be words
        return {"expression": str(operand)}
    if isinstance(operand, (str, Path)):
        return str(operand)
    if isinstance(operand, Embedding):
        return operand.provenance.get("expression", "an embedding given in Python")
    if isinstance(operand, Mapping):
        return {str(said(part)): weight for part, weight in operand.items()}
    if isinstance(operand, (list, tuple)):
        return [said(item) for item in operand]
    if isinstance(operand, (int, float)):
        return operand
    return getattr(operand, "filename", None) or f"a {type(operand).__name__} given in Python"


def digests(operands: Collection[Any]) -> dict[str, str]:
    """Files among the operands, and in expressions -> 16 hex digits of each one's sha256, as `pops run` keeps them."""
    found: dict[str, str] = {}
    for operand in operands:
        if isinstance(operand, Expression):
            found |= inputs_of(operand.plan())
        elif isinstance(operand, (str, Path)) and is_file(expanded(operand)):
            found[str(operand)] = digest(operand)
    return found


def given_in_python(operand: Any) -> bool:
    """Whether no recipe can say what the operand was."""
    if isinstance(operand, (list, Mapping)):
        return any(given_in_python(one) for one in operand)
    if isinstance(operand, tuple):
        return True  # a mapping says the same of texts
    return not isinstance(operand, (str, Path, Expression, Node))


class Parts(Protocol):
    """What a mix needs of a model; Pops is one."""

    files: ModelFiles
    source: str
    extra: dict[str, Any]
    version: str

    @property
    def operators(self) -> Mapping[str, OperatorSpec]: ...
    def embed(self, photos: Any, *, fit: str = "squash") -> Embedding: ...
    def trace(self, expression: Any, *, seed: Any = 0, on_progress: OnProgress | None = None, **how: Any) -> Any: ...


class Mixing:
    """One request; `run` gives all pictures, layouts first, then contents, then seeds."""

    def __init__(
        self,
        parts: Parts,
        layout: Any,
        content: Any,
        *,
        seeds: Sequence[int],
        num_images: int,
        fit: str,
        renderer: str | None,
        how: Mapping[str, Any],
    ) -> None:
        """how: see MixSettings; None is the default. fit: how photos as content become square; renderer: whose networks
        mix, as it was asked for."""
        self.parts, self.layout, self.content, self.renderer = parts, layout, content, renderer
        self.seeds, self.num_images, self.fit = list(seeds), num_images, fit
        self.many = isinstance(layout, list) or isinstance(content, list)
        self.given = {name: value for name, value in how.items() if value is not None}
        MixSettings.of(self.given)  # a mistake is told before anything is read
        self.layouts, self.contents = (
            [read_operand(one, parts.operators) for one in _each(operand)] for operand in (layout, content)
        )

    def run(
        self,
        mixer: MagicMix,
        *,
        output: str = "pil",
        on_progress: OnProgress | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> list[Any]:
        """The pictures, each with its recipe in info["pops"]; or latents."""
        # 1) The model's own guidance and size; photos as content, and expressions, become embeddings, a row a seed.
        info = self.parts.files.info
        how = with_defaults(self.given, info, mixer.native)
        layouts = [self._rows(one, None, on_progress) for one in self.layouts]
        contents = [self._rows(one, self.fit, on_progress) for one in self.contents]

        # 2) All seeds together, or one by one where an expression has a row for each.
        vary = any(len(rows) > 1 for rows in [*layouts, *contents])
        together = [[i] for i in range(len(self.seeds))] if vary else [list(range(len(self.seeds)))]
        found = [
            mixer(
                [rows[some[0] % len(rows)] for rows in layouts],
                [rows[some[0] % len(rows)] for rows in contents],
                seed=[self.seeds[i] for i in some],
                num_images=self.num_images,
                output=output,
                on_step=_part_of(on_progress, part, len(together)),
                on_note=on_note,
                **how,
            )
            for part, some in enumerate(together)
        ]
        each = len(together[0]) * self.num_images  # pictures of one pair in one part
        starts = range(0, len(found[0]), each)
        pictures = [picture for start in starts for some in found for picture in some[start : start + each]]

        # 3) Their recipes.
        if output != "latent":
            recipe = self._recipe(how)
            for i, picture in enumerate(pictures):
                made = picture[0] if output == "both" else picture
                made.info["pops"] = {**recipe, "picture": i}
        return pictures

    def _rows(self, operand: Any, fit: str | None, on_progress: OnProgress | None) -> list[Any]:
        """One operand for all seeds, or one each where it is an expression. fit: photos become embeddings so."""
        from PIL import Image

        if isinstance(operand, Expression):
            trace = self.parts.trace(
                operand, seed=self.seeds, fit=self.fit, renderer=self.renderer, on_progress=on_progress
            )
            if fit is None and trace.mixed is not None:
                return list(trace.mixed)
            return [trace.result[i] for i in range(trace.result.n)]
        if fit is not None and isinstance(operand, Path) and is_latent(operand):
            raise OperandError(
                f"{operand} is a latent, which can be a layout; a content is a text, a photo, an embedding"
            )
        if fit is not None and isinstance(operand, (Path, Image.Image)):
            return [self.parts.embed(operand, fit=fit)]
        return [operand]

    def _recipe(self, how: Mapping[str, Any]) -> dict[str, Any]:
        parts, settings = self.parts, vars(MixSettings.of(how))
        asked = {"layout": said(self.layout), "content": said(self.content), **settings, "num_images": self.num_images}
        asked |= {"fit": self.fit} | ({"renderer": self.renderer} if self.renderer else {})
        python = [name for name in ("layout", "content") if given_in_python(getattr(self, name))]
        asked |= {"in_python": python} if python else {}
        return {
            "model": parts.source,
            **parts.extra,
            "model_version": parts.version,
            "pops": __version__,
            "mix": asked,
            "seeds": self.seeds,
            "inputs": digests([*_named(self.layout), *_named(self.content), *self.layouts, *self.contents]),
        }


def _each(operand: Any) -> list[Any]:
    return operand if isinstance(operand, list) else [operand]


def _named(operand: Any) -> list[Any]:
    """The paths and texts among operands as they were given."""
    return [one for one in _each(operand) if isinstance(one, (str, Path))]


def _part_of(on_progress: OnProgress | None, part: int, parts: int) -> Callable[[int, int], None] | None:
    """The steps of one part of a mix as steps of the whole."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(part * total + done, parts * total, "mixing")


# --- mixes in expressions
# ------------------------------------------------------------------------------------------


def mix_settings(options: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The options of mix(...) in an expression, as MixSettings takes them; ConfigError where they do not fit."""
    given = {name: parse_nu(value) if name == "nu" and isinstance(value, str) else value for name, value in options}
    MixSettings.of(given)
    return given


def mix_calls(options: Sequence[tuple[str, Any]]) -> int:
    """Network calls of a mix with these options, about: what progress counts."""
    window = MixSettings.of(mix_settings(options)).window
    return window.steps - window.start


def check_mixes(layout: Plan, text: str) -> None:
    """ExpressionError, with the spot in `text`, for options and words of a mix that cannot be."""
    for level in layout.levels:
        for job in level.jobs if level.operator == MIX else ():
            try:
                mix_settings(level.options)
                for operand in job.operands:
                    if isinstance(operand, Word):
                        Prompt.of(operand.text)
            except ConfigError as e:
                raise ExpressionError(str(e), text, job.node.span) from None


def mix_each(
    mixer: MagicMix,
    layouts: Sequence[Any],
    contents: Sequence[Any],
    *,
    seeds: Sequence[int],
    options: Sequence[tuple[str, Any]],
    info: Mapping[str, Any],
    on_step: OnStep | None,
) -> list[Image.Image]:
    """Picture i of layout i, content i and seed i; a text that would be cut is a mistake, as an operator's is."""

    def refuse(line: str) -> None:
        raise OperandError(f"{line}; use fewer words")

    how = with_defaults(mix_settings(options), info, mixer.native)
    return mixer.each(layouts, contents, seeds=seeds, on_step=on_step, on_note=refuse, **how)


def finished(
    trace: Trace, renderer: str, *, seeds: Sequence[int], num_images: int, how: Mapping[str, Any]
) -> list[Image.Image]:
    """The pictures of an evaluation that is a mix, each with its recipe; ConfigError for settings of a rendering."""
    useless = ", ".join(sorted(given(how)))
    ensure(not useless, f"a mix is not rendered: {useless} would change nothing; set it inside mix(...)", ConfigError)
    pictures = [picture.copy() for picture in trace.mixed or ()]  # one that stands for all rows is one object
    fits = len(pictures) == trace.result.n * num_images
    ensure(fits, f"this evaluation made {len(pictures)} pictures; give trace the same num_images", ConfigError)
    made = {"renderer": renderer, "seeds": list(seeds), "num_images": num_images}
    for i, picture in enumerate(pictures):
        picture.info["pops"] = {**trace.result.provenance, "render": made, "picture": i}
    return pictures
