"""Encoded examples on disk: embeddings of every operand and result, in shards that are read memory-mapped.

    SHARDS/about.json                 written last: space, model, preprocessing, roles, counts, shards, source
    SHARDS/train-00000.safetensors    and so on, for each split; n rows each:
        target          [n, D]        the result's embedding; of a row without one, its first operand's
        target.present  [n] bool      whether there is a picture of the result
        image.ROLE      [n, D]        zeros for a missing operand
        image.ROLE.present [n] bool
        text.ROLE       [n] int64     rows of the table of texts; -1 for a missing one
        caption         [n, D]        the caption's embedding (absent without captions); zeros for a missing one
        caption.present [n] bool
        id              [n, bytes]    UTF-8, filled up with zeros
    SHARDS/texts.safetensors          the table of texts: hidden [T, L, W], length [T], embeds [T, D]
    SHARDS/texts.json                 the texts themselves, in the same order

Embeddings are un-normalised CLIP, float16. Knows no model.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.data.splits import SPLITS
from pops.errors import ConfigError, EmbeddingError, SpaceError, ensure
from pops.files import expanded, read_json, read_json_object, shown
from pops.operators.spec import Role

if TYPE_CHECKING:
    from torch import Tensor

FORMAT, VERSION = "pops.shards", 1
ABOUT, TEXTS, TEXT_LIST = "about.json", "texts.safetensors", "texts.json"
OPEN = 256  # shards that are mapped at once


@dataclass(frozen=True)
class Rows:
    """Some rows, embeddings float32 [B, D]. Of missing ones (not `present`, text -1) the values are zeros.

    texts: rows of the table of texts [B]. target: of a row without a picture of the result, its first operand.
    """

    ids: list[str]
    target: Tensor
    target_present: Tensor
    images: dict[str, Tensor]
    present: dict[str, Tensor]
    texts: dict[str, Tensor]
    caption: Tensor | None
    caption_present: Tensor | None


@dataclass(frozen=True)
class TextTable:
    """The texts of all rows, each once: hidden states [T, L, W] and how many of the L are real, embeddings [T, D]."""

    texts: list[str]
    hidden: Tensor
    length: Tensor
    embeds: Tensor


@dataclass(frozen=True)
class About:
    """What a folder of shards holds. shards: (file, split, rows, bytes), in order; crops: versions of each training
    example; source: what was encoded."""

    space: str
    dim: int
    fingerprint: str
    model: str
    fit: str
    side: int
    crops: int
    roles: tuple[Role, ...]
    shards: tuple[tuple[str, str, int, int], ...]
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Number of rows by split."""
        return {split: sum(n for _, s, n, _ in self.shards if s == split) for split in SPLITS}

    def to_json(self) -> str:
        """Returns the text of about.json."""
        preprocessing = {"fit": self.fit, "side": self.side, "crops": self.crops}
        return json.dumps(
            {
                "format": FORMAT,
                "version": VERSION,
                "space": self.space,
                "dim": self.dim,
                "fingerprint": self.fingerprint,
                "model": self.model,
                "preprocessing": preprocessing,
                "roles": [{"name": role.name, "kind": role.kind} for role in self.roles],
                "counts": self.counts,
                "shards": [dict(zip(("file", "split", "rows", "bytes"), shard)) for shard in self.shards],
                "source": dict(self.source),
            },
            indent=2,
        )

    @classmethod
    def read(cls, folder: Path) -> About:
        """Reads about.json; ConfigError in one line if it is not there, of another version, or damaged."""
        name = shown(folder)
        if not (folder / ABOUT).is_file():
            begun = folder.is_dir() and any(folder.glob("*-[0-9]*.safetensors"))
            told = "is not encoded to its end; run pops data encode again" if begun else "holds no encoded examples"
            advice = "" if begun else "; make them: pops data encode FOLDER -o SHARDS"
            raise ConfigError(f"{name} {told}{advice}")
        data = read_json_object(folder / ABOUT, advice="run pops data encode again")
        told = f"{name}/{ABOUT} is not of {FORMAT} {VERSION}; run pops data encode again"
        ensure((data.get("format"), data.get("version")) == (FORMAT, VERSION), told)
        try:
            made = data["preprocessing"]
            return cls(
                str(data["space"]),
                int(data["dim"]),
                str(data["fingerprint"]),
                str(data["model"]),
                str(made["fit"]),
                int(made["side"]),
                int(made["crops"]),
                tuple(Role(str(role["name"]), role["kind"]) for role in data["roles"]),
                tuple((str(s["file"]), str(s["split"]), int(s["rows"]), int(s["bytes"])) for s in data["shards"]),
                dict(data["source"]),
            )
        except (KeyError, TypeError, ValueError) as e:
            raise ConfigError(f"{name}/{ABOUT} is damaged ({e!r}); run pops data encode again") from e


class Shards:
    """Encoded examples, open for reading: nothing is held but what `batch` returns. Rows are numbered over all
    splits; `rows` says which are whose."""

    def __init__(self, path: Path, about: About) -> None:
        self.path, self.about = path, about
        self.roles, self.space, self.dim = about.roles, about.space, about.dim
        self._ends = list(accumulate(rows for _, _, rows, _ in about.shards))
        self._mapped: OrderedDict[int, dict[str, Tensor]] = OrderedDict()

    @classmethod
    def open(cls, path: str | Path) -> Shards:
        """Opens what `pops data encode` wrote; ConfigError or EmbeddingError in one line if it is not whole."""
        where = expanded(path)
        about = About.read(where)
        for name, _, _, size in about.shards:
            file = where / name
            ensure(file.is_file(), f"{shown(file)} is missing; run pops data encode again", EmbeddingError)
            has = file.stat().st_size
            told = f"{shown(file)} has {has} bytes, it was written with {size}; run pops data encode again"
            ensure(has == size, told, EmbeddingError)
        return cls(where, about)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of rows by split."""
        return self.about.counts

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the image roles, in order."""
        return tuple(role.name for role in self.roles if role.kind == "image")

    @property
    def text_roles(self) -> tuple[str, ...]:
        """Names of the text roles, in order."""
        return tuple(role.name for role in self.roles if role.kind == "text")

    def rows(self, split: str) -> range:
        """Returns the numbers of a split's rows."""
        ensure(split in SPLITS, f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
        counts = self.counts
        first = sum(counts[name] for name in SPLITS[: SPLITS.index(split)])
        return range(first, first + counts[split])

    def require_space(self, space: str, fingerprint: str | None = None) -> None:
        """Raises SpaceError unless the embeddings are of this space, and (if given) of this version of its encoder."""
        do = "encode them with the model that is used (pops data encode --model)"
        told = f"{shown(self.path)} holds embeddings of space {self.space!r}, not {space!r}; {do}"
        ensure(self.space == space, told, SpaceError)
        same = fingerprint in (None, self.about.fingerprint)
        ensure(same, f"{shown(self.path)} was made by another version of the encoder of {space!r}; {do}", SpaceError)

    def batch(self, indices: Sequence[int] | Tensor) -> Rows:
        """Reads the rows of these numbers, in this order; IndexError outside."""
        import torch

        wanted = torch.as_tensor(indices, dtype=torch.int64)
        if bool(((wanted < 0) | (wanted >= len(self))).any()):
            raise IndexError(f"rows are numbered 0 to {len(self) - 1}")
        ends = torch.tensor(self._ends)
        shard = torch.searchsorted(ends, wanted, right=True)
        found: dict[str, Tensor] = {}
        for number in shard.unique().tolist():
            places = (shard == number).nonzero().flatten()
            first = self._ends[number - 1] if number else 0
            for name, tensor in self._shard(number).items():
                rows = tensor[wanted[places] - first]
                rows = rows.float() if rows.is_floating_point() else rows
                if name not in found:
                    found[name] = rows.new_zeros(len(wanted), *rows.shape[1:])
                if name == "id" and rows.shape[1] > found[name].shape[1]:
                    found[name] = torch.nn.functional.pad(found[name], (0, rows.shape[1] - found[name].shape[1]))
                if name == "id":
                    found[name][places, : rows.shape[1]] = rows
                else:
                    found[name][places] = rows
        return Rows(
            [bytes(row.tolist()).rstrip(b"\0").decode() for row in found["id"]],
            found["target"],
            found["target.present"],
            {name: found[f"image.{name}"] for name in self.images},
            {name: found[f"image.{name}.present"] for name in self.images},
            {name: found[f"text.{name}"] for name in self.text_roles},
            found.get("caption"),
            found.get("caption.present"),
        )

    @cached_property
    def texts(self) -> TextTable:
        """The table of texts, memory-mapped; empty without a text role."""
        import torch

        if not self.text_roles:
            none = torch.zeros(0, self.dim)
            return TextTable([], none[:, None], torch.zeros(0, dtype=torch.int64), none)
        tensors = mapped(self.path / TEXTS)
        texts = read_json(self.path / TEXT_LIST, EmbeddingError, "run pops data encode again", most=2**32)
        same = set(tensors) == {"hidden", "length", "embeds"} and {len(t) for t in tensors.values()} == {len(texts)}
        ensure(same, f"{shown(self.path / TEXTS)} does not fit {TEXT_LIST}; run pops data encode again", EmbeddingError)
        return TextTable(list(texts), tensors["hidden"], tensors["length"], tensors["embeds"])

    def _shard(self, number: int) -> dict[str, Tensor]:
        if number in self._mapped:
            self._mapped.move_to_end(number)
            return self._mapped[number]
        name, _, rows, _ = self.about.shards[number]
        tensors = mapped(self.path / name)
        wanted = {"target": (rows, self.dim), "target.present": (rows,)}
        for role in self.images:
            wanted |= {f"image.{role}": (rows, self.dim), f"image.{role}.present": (rows,)}
        wanted |= {f"text.{role}": (rows,) for role in self.text_roles}
        wrong = [key for key, shape in wanted.items() if key not in tensors or tuple(tensors[key].shape) != shape]
        told = f"{shown(self.path / name)}: {', '.join(wrong)} is not there or of another shape than {ABOUT} says"
        ensure(not wrong and "id" in tensors, f"{told}; run pops data encode again", EmbeddingError)
        self._mapped[number] = tensors
        while len(self._mapped) > OPEN:
            self._mapped.popitem(last=False)
        return tensors


def mapped(path: Path) -> dict[str, Tensor]:
    """Returns a file's tensors, memory-mapped: only what is looked at is read. EmbeddingError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except (SafetensorError, OSError) as e:
        raise EmbeddingError(f"{shown(path)} cannot be read ({shown(e)}); run pops data encode again") from e
