"""A mix asked of a model: what its operands stand for, read from strings; the pictures; and what they keep of it.

Knows no network: a MagicMix is handed to it, and the model encodes photos and evaluates expressions.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pops import __version__
from pops.embedding import READ_SUFFIXES, Embedding
from pops.expression import Expression, parse
from pops.expression.nodes import Node, Photo, Saved, Word
from pops.files import expanded, is_file
from pops.magicmix.operands import MixSettings, is_photo

if TYPE_CHECKING:
    from pops.magicmix.mix import MagicMix
    from pops.models.registry import ModelFiles
    from pops.operators.spec import OperatorSpec

OnProgress = Callable[[int, int, str], None]  # (done, total, what); raising from it cancels

# What begins like an operator call, a weighted sum or a let; all else is words.
_CALL = re.compile(r"\s*(?:(?P<name>[A-Za-z_]\w*)\s*\(|-?[\d.]+\s*\*|let\s+\w+\s*=)")
_OF_THE_LANGUAGE = ("text", "photo")


def read_operand(operand: Any, operators: Collection[str]) -> Any:
    """A string -> Path of a photo, Embedding of a file, Expression, or the text it is; other values as they are.

    operators: names that make `name(...)` an expression. ExpressionError, EmbeddingError where one is broken.
    """
    if isinstance(operand, Node):
        operand = Expression(operand)
    if isinstance(operand, Expression):
        root = operand.root
        if isinstance(root, (Photo, Saved)):
            return read_operand(Path(root.path), operators)
        return root.text if isinstance(root, Word) else operand
    if isinstance(operand, (str, Path)) and str(operand).lower().endswith(READ_SUFFIXES):
        return Embedding.load(operand)
    if not isinstance(operand, str):
        return operand
    call = _CALL.match(operand)
    if call and (call["name"] is None or call["name"] in operators or call["name"] in _OF_THE_LANGUAGE):
        return read_operand(parse(operand), operators)
    return Path(operand.strip()) if is_photo(operand) else operand


def said(operand: Any) -> Any:
    """An operand as a recipe keeps it: paths, texts and expressions as written, values by their kind."""
    if isinstance(operand, (str, Path, Expression)):
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
    """Photos among the operands -> 16 hex digits of each file's sha256, as `pops run` keeps them."""
    found = {}
    for path in (operand for operand in operands if isinstance(operand, Path) and is_file(expanded(operand))):
        with expanded(path).open("rb") as file:
            found[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return found


class Parts(Protocol):
    """What a mix needs of a model; Pops is one."""

    files: ModelFiles
    source: str
    extra: dict[str, Any]
    version: str

    @property
    def operators(self) -> Mapping[str, OperatorSpec]: ...
    def embed(self, photos: Any, *, fit: str = "squash") -> Embedding: ...
    def trace(self, expression: Any, *, seed: Any = 0, on_progress: OnProgress | None = None) -> Any: ...


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
        how: Mapping[str, Any],
    ) -> None:
        """how: see MixSettings; None is the default. fit: how photos as content become square."""
        self.parts, self.layout, self.content = parts, layout, content
        self.seeds, self.num_images, self.fit = list(seeds), num_images, fit
        self.many = isinstance(layout, list) or isinstance(content, list)
        self.given = {name: value for name, value in how.items() if value is not None}
        MixSettings.of(self.given)  # a mistake is told before anything is read
        self.layouts, self.contents = (
            [read_operand(one, parts.operators) for one in (each if isinstance(each, list) else [each])]
            for each in (layout, content)
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
        how = {"guidance": info.get("guidance", 7.5), "size": info.get("size", mixer.native[0]), **self.given}
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
        if output == "pil":
            recipe = self._recipe(how)
            for i, picture in enumerate(pictures):
                picture.info["pops"] = {**recipe, "picture": i}
        return pictures

    def _rows(self, operand: Any, fit: str | None, on_progress: OnProgress | None) -> list[Any]:
        """One operand for all seeds, or one each where it is an expression. fit: photos become embeddings so."""
        from PIL import Image

        if isinstance(operand, Expression):
            rows = self.parts.trace(operand, seed=self.seeds, on_progress=on_progress).result
            return [rows[i] for i in range(rows.n)]
        if fit is not None and isinstance(operand, (Path, Image.Image)):
            return [self.parts.embed(operand, fit=fit)]
        return [operand]

    def _recipe(self, how: Mapping[str, Any]) -> dict[str, Any]:
        parts, settings = self.parts, vars(MixSettings.of(how))
        asked = {"layout": said(self.layout), "content": said(self.content), **settings, "num_images": self.num_images}
        return {
            "model": parts.source,
            **parts.extra,
            "model_version": parts.version,
            "pops": __version__,
            "mix": asked,
            "seeds": self.seeds,
            "inputs": digests([*self.layouts, *self.contents]),
        }


def _part_of(on_progress: OnProgress | None, part: int, parts: int) -> Callable[[int, int], None] | None:
    """The steps of one part of a mix as steps of the whole."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(part * total + done, parts * total, "mixing")
