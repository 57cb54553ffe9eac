"""Encodes a folder of examples into shards: embeddings of every picture and text, each content once a run.

A shard is kept if what it was made of is unchanged, so a stopped run goes on where it was, and a folder that grew is
encoded at its end only. about.json is written last; until then the shards do not open.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pops.data.folder import Example, Folder
from pops.data.shards import ABOUT, TEXT_LIST, TEXTS, About
from pops.data.splits import SPLITS
from pops.errors import EmbeddingError, PhotoError, SpaceError, UserError, ensure
from pops.files import LOCK, digest, expanded, only_writer, parse_json, shown, write_whole
from pops.images import FITS, load_photo, read_rgb
from pops.tensors import write_tensors

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.progress import OnProgress
    from pops.space import TextEncoding

logger = logging.getLogger("pops.data")

ROWS = 4096  # of a shard
BATCH = 64  # pictures read, and encoded, together, unless the encoder has a number of its own (together)
READERS = 4  # threads that read pictures while the encoder works
KEPT = 20_000  # embeddings of pictures that are kept for further rows that show them
CROP = 0.8  # shortest side of a crop, of the picture's
MADE = "made"  # the one key of a file's metadata: safetensors writes several in any order
_SHARD = re.compile(rf"({'|'.join(SPLITS)})-\d{{5,}}\.safetensors")


class Encoder(Protocol):
    """Encodes pictures and texts; Space is one."""

    id: str
    dim: int

    @property
    def fingerprint(self) -> str: ...
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor: ...
    def encode_texts(self, texts: Sequence[str]) -> TextEncoding: ...


@dataclass(frozen=True)
class Encoded:
    """What a run did: about the shards, how many of them it wrote, pictures encoded, seconds."""

    about: About
    written: int
    pictures: int
    seconds: float


@dataclass(frozen=True)
class _Picture:
    """A picture's content, whole or a crop of it: left, top, and side, each a share of what is there."""

    digest: str
    crop: tuple[float, float, float] | None = None


def encode_folder(
    folder: Folder | str | Path,
    shards: str | Path,
    encoder: Encoder,
    *,
    model: str,
    fit: str = "squash",
    side: int = 512,
    crops: int = 1,
    rows: int = ROWS,
    on_progress: OnProgress | None = None,
) -> Encoded:
    """Encodes the examples of a folder into the folder `shards`, which it brings up to date if it is there.

    fit, side: how pictures become square before the encoder; crops: how many versions of each training example, the
    operands of all but the first cropped at random (seeded by the example's id). Raises SpaceError if the shards are
    of another space or encoder, ConfigError if they were made otherwise, PhotoError or ConfigError that names the row
    of a picture that cannot be read, or of a text that is too long.
    """
    ensure(fit in FITS, f"fit must be one of {', '.join(FITS)}, got {fit!r}")
    ensure(crops >= 1, f"crops must be at least 1, got {crops}")
    ensure(rows >= 1, f"rows of a shard must be at least 1, got {rows}")
    read = folder if isinstance(folder, Folder) else Folder.read(folder)
    where, begun = expanded(shards), time.monotonic()
    with only_writer(where, "pops data encode"):
        run = _Run(read, where, encoder, (model, fit, side, crops, rows))
        run.check_place()
        run.encode_texts()
        run.encode(on_progress)
        about = run.finish()
    seconds = time.monotonic() - begun
    logger.info("encoded %s into %s in %.1f s", read.path, where, seconds)
    return Encoded(about, run.written, run.pictures, round(seconds, 3))


class _Run:
    """One run."""

    def __init__(self, folder: Folder, where: Path, encoder: Encoder, how: tuple[str, str, int, int, int]) -> None:
        self.folder, self.where, self.encoder = folder, where, encoder
        self.model, self.fit, self.side, self.crops, self.size = how
        self.texts: dict[str, int] = {}  # text -> row of the table
        self.captions = False
        self.kept: OrderedDict[_Picture, Tensor] = OrderedDict()
        self.shards: list[tuple[str, str, int, int]] = []
        self.written = self.pictures = 0
        made = {"space": encoder.id, "fingerprint": encoder.fingerprint, "fit": fit_of(self.fit, self.side)}
        self.made = {**made, "crops": str(self.crops)}

    # --- what is there already

    def check_place(self) -> None:
        """Raises ConfigError for a folder with other things in it, SpaceError for shards of another space."""
        name = shown(self.where)
        ours = {ABOUT, TEXTS, TEXT_LIST, LOCK}
        others = [p.name for p in self.where.iterdir() if p.name not in ours and not _SHARD.fullmatch(p.name)]
        others = [other for other in others if not other.startswith(".")]  # unfinished writes
        told = f"{name} holds other files, such as {shown(others[0] if others else '')}; choose a new folder (-o)"
        ensure(not others, told)
        if (self.where / ABOUT).is_file():
            about = About.read(self.where)
            self._require(about.space, about.fingerprint)
        for path in sorted(self.where.glob("*.safetensors")):
            made = _made_of(path)
            if made is not None:
                self._require(made.get("space", ""), made.get("fingerprint", ""))

    def _require(self, space: str, fingerprint: str) -> None:
        name, do = shown(self.where), "choose another folder (-o), or remove this one"
        told = f"{name} holds embeddings of space {shown(space)!r}, the model's is {self.encoder.id!r}; {do}"
        ensure(space == self.encoder.id, told, SpaceError)
        told = f"{name} was made by another version of the encoder of {space!r}; {do}"
        ensure(fingerprint == self.encoder.fingerprint, told, SpaceError)

    def _keeps(self, path: Path, source: str) -> bool:
        """Returns whether a file was made of this source, in this way; else what there is will change."""
        if path.is_file() and _made_of(path) == {**self.made, "source": source}:
            return True
        (self.where / ABOUT).unlink(missing_ok=True)  # from here on the shards are not whole
        return False

    def _write(self, path: Path, tensors: Mapping[str, Tensor], source: str) -> None:
        with write_whole(path) as temporary:
            write_tensors(temporary, tensors, {MADE: json.dumps({**self.made, "source": source})})
        self.written += 1

    # --- texts

    def encode_texts(self) -> None:
        """Encodes every text of a text role once, into the table of texts."""
        first: dict[str, str] = {}  # text -> where it is
        for example in self.folder.rows():
            for text in example.texts.values():
                if text and text not in first:
                    first[text] = self.folder.where(example)
            self.captions = self.captions or example.caption is not None
        self.texts = {text: row for row, text in enumerate(first)}
        if not self.folder.texts:
            return
        import torch

        texts = list(first)
        source = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
        if self._keeps(self.where / TEXTS, source):
            return
        encoding = self.encoder.encode_texts(texts or [""])
        self._check_lengths(texts, [first[t] for t in texts], encoding.truncated)
        hidden = torch.nn.utils.rnn.pad_sequence([h.half() for h in encoding.hidden], batch_first=True)
        length = torch.tensor([len(h) for h in encoding.hidden])
        tensors = {"hidden": hidden, "length": length, "embeds": encoding.embeds.half()}
        with write_whole(self.where / TEXT_LIST) as temporary:
            temporary.write_text(json.dumps(texts or [""], ensure_ascii=False), encoding="utf-8")
        self._write(self.where / TEXTS, tensors, source)

    def _check_lengths(self, texts: Sequence[str], where: Sequence[str], truncated: Sequence[bool]) -> None:
        for text, place, cut in zip(texts, where, truncated):
            told = f"{place}: the text {shown(text, 40)!r} is too long for the text encoder; shorten it"
            ensure(not cut, told)

    # --- pictures

    def encode(self, on_progress: OnProgress | None) -> None:
        """Writes every shard that is not there as it should be, and removes those that are too many."""
        total = sum(-(-n * self._versions(split) // self.size) for split, n in self.folder.counts.items())
        for split in SPLITS:
            examples = self.folder.rows(split)
            versions = self._versions(split)
            count = len(examples) * versions
            for number, first in enumerate(range(0, count, self.size)):
                if on_progress:
                    on_progress(len(self.shards), total, f"encoding {split}")
                places = range(first, min(count, first + self.size))
                rows = [(examples[i // versions], i % versions) for i in places]
                self._shard(f"{split}-{number:05}.safetensors", split, rows)
        if on_progress:
            on_progress(total, total, "encoding")
        for path in self.where.glob("*.safetensors"):
            if _SHARD.fullmatch(path.name) and path.name not in {name for name, *_ in self.shards}:
                (self.where / ABOUT).unlink(missing_ok=True)
                path.unlink()

    def _versions(self, split: str) -> int:
        return self.crops if split == SPLITS[0] else 1

    def _shard(self, name: str, split: str, rows: Sequence[tuple[Example, int]]) -> None:
        digests: dict[Path, str] = {}
        for example, _ in rows:
            for path in filter(None, (*example.images.values(), example.target)):
                if path not in digests:
                    digests[path] = self._digest(path, example)
        # What the shard is made of: of every row its id, the contents of its pictures, its texts.
        parts = [
            (
                _row_id(example, version),
                [None if p is None else digests[p] for p in (*example.images.values(), example.target)],
                [self.texts.get(t, -1) for t in example.texts.values()],
                example.caption if self.captions else None,
            )
            for example, version in rows
        ]
        about = [self.captions, [(r.name, r.kind) for r in self.folder.roles], parts]
        source = hashlib.sha256(json.dumps(about).encode()).hexdigest()
        path = self.where / name
        if not self._keeps(path, source):
            self._write(path, self._tensors(rows, digests), source)
        self.shards.append((name, split, len(rows), path.stat().st_size))

    def _digest(self, path: Path, example: Example) -> str:
        try:
            return digest(path)
        except OSError as e:
            what = "there is no file" if isinstance(e, FileNotFoundError) else "cannot read"
            told = f"{self.folder.where(example)}: {what} {shown(path)}"
            raise PhotoError(f"{told}; pops data check {shown(self.folder.path)} lists all that is wrong") from e

    def _tensors(self, rows: Sequence[tuple[Example, int]], digests: Mapping[Path, str]) -> dict[str, Tensor]:
        import torch

        def picture(example: Example, version: int, role: str, path: Path | None) -> _Picture | None:
            if path is None:
                return None
            return _Picture(digests[path], None if not version or not role else _crop(example.id, role, version))

        columns: dict[str, list[_Picture | None]] = {
            f"image.{role}": [picture(e, v, role, e.images[role]) for e, v in rows] for role in self.folder.images
        }
        operand = columns[f"image.{self.folder.images[0]}"]
        targets = [picture(e, v, "", e.target) for e, v in rows]
        columns["target"] = [t or o for t, o in zip(targets, operand)]
        sources: dict[_Picture, tuple[Path, Example]] = {}
        for name, column in columns.items():
            for (example, _), wanted in zip(rows, column):
                role = name.removeprefix("image.")
                path = (
                    example.images.get(role)
                    if name != "target"
                    else example.target or example.images[self.folder.images[0]]
                )
                if wanted is not None and path is not None:
                    sources.setdefault(wanted, (path, example))
        vectors = self._vectors(sources)
        zero = torch.zeros(self.encoder.dim, dtype=torch.float16)
        tensors: dict[str, Tensor] = {}
        for name, column in columns.items():
            tensors[name] = torch.stack([zero if p is None else vectors[p] for p in column])
            tensors[f"{name}.present"] = torch.tensor([p is not None for p in column])
        tensors["target.present"] = torch.tensor([t is not None for t in targets])
        for role in self.folder.texts:
            tensors[f"text.{role}"] = torch.tensor([self.texts.get(e.texts[role], -1) for e, _ in rows])
        if self.captions:
            tensors |= self._captions([e for e, _ in rows])
        tensors["id"] = _bytes([_row_id(e, v) for e, v in rows])
        return tensors

    def _captions(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        import torch

        first = {e.caption: self.folder.where(e) for e in reversed(examples) if e.caption}
        found = torch.zeros(len(examples), self.encoder.dim, dtype=torch.float16)
        if first:
            encoding = self.encoder.encode_texts(list(first))
            self._check_lengths(list(first), list(first.values()), encoding.truncated)
            rows = dict(zip(first, encoding.embeds.half()))
            for i, example in enumerate(examples):
                if example.caption:
                    found[i] = rows[example.caption]
        return {"caption": found, "caption.present": torch.tensor([bool(e.caption) for e in examples])}

    def _vectors(self, sources: Mapping[_Picture, tuple[Path, Example]]) -> dict[_Picture, Tensor]:
        """Encodes pictures that were not encoded lately, reading some ahead of the encoder."""
        found = {p: self.kept[p] for p in sources if p in self.kept}
        todo = [p for p in sources if p not in found]
        size = getattr(self.encoder, "together", BATCH)
        batches = [todo[i : i + size] for i in range(0, len(todo), size)]
        with ThreadPoolExecutor(READERS, thread_name_prefix="pops-encode") as readers:
            try:
                ahead = [readers.submit(self._read, p, *sources[p]) for p in batches[0]] if batches else []
                for i, batch in enumerate(batches):
                    photos = [future.result() for future in ahead]
                    after = batches[i + 1] if i + 1 < len(batches) else []
                    ahead = [readers.submit(self._read, p, *sources[p]) for p in after]
                    vectors = self.encoder.encode_images(photos).half()
                    told = "an embedding is too large for float16; use another model"
                    ensure(bool(vectors.isfinite().all()), told, EmbeddingError)
                    found |= dict(zip(batch, vectors))
                    self.pictures += len(batch)
            except BaseException:
                readers.shutdown(cancel_futures=True)
                raise
        for p in sources:
            self.kept[p] = found[p]
            self.kept.move_to_end(p)
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return found

    def _read(self, picture: _Picture, path: Path, example: Example) -> Image.Image:
        try:
            if picture.crop is None:
                return load_photo(path, fit=self.fit, size=self.side)
            whole = read_rgb(path)
            left, top, share = picture.crop
            width, height = (max(1, round(share * n)) for n in whole.size)
            x, y = round(left * (whole.width - width)), round(top * (whole.height - height))
            return load_photo(whole.crop((x, y, x + width, y + height)), fit=self.fit, size=self.side)
        except UserError as e:
            told = f"pops data check {shown(self.folder.path)} lists all that is wrong"
            raise PhotoError(f"{self.folder.where(example)}: {e} ({told})") from e

    # --- the end

    def finish(self) -> About:
        """Writes about.json, unless it says the same already; returns what it says."""
        encoder = self.encoder
        source = {
            "folder": self.folder.path.resolve().name,
            "metadata": {path.name: digest(path) for path in self.folder.metadata},
            "split": "drawn" if self.folder.made_split else "given",
        }
        about = About(
            encoder.id, encoder.dim, encoder.fingerprint, self.model, self.fit, self.side, self.crops,
            self.folder.roles, tuple(self.shards), source,
        )  # fmt: skip
        text = about.to_json()
        path = self.where / ABOUT
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            with write_whole(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return about


def fit_of(fit: str, side: int) -> str:
    """Returns how pictures become square, as shards store it."""
    return f"{fit} {side}"


def _row_id(example: Example, version: int) -> str:
    return f"{example.id}~{version}" if version else example.id


def _crop(id_: str, role: str, version: int) -> tuple[float, float, float]:
    rng = random.Random(f"crop {id_}/{role}/{version}")
    return rng.random(), rng.random(), rng.uniform(CROP, 1.0)


def _bytes(ids: Sequence[str]) -> Tensor:
    import torch

    coded = [id_.encode("utf-8", "replace") for id_ in ids]
    width = max(map(len, coded), default=1)
    return torch.tensor([list(c.ljust(width, b"\0")) for c in coded], dtype=torch.uint8)


def _made_of(path: Path) -> dict[str, str] | None:
    """Returns what a shard says it was made of; None if it cannot be read, so that it is written again."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            made = parse_json((file.metadata() or {}).get(MADE, "{}"))
    except (SafetensorError, OSError, ValueError):
        return None
    return {key: str(value) for key, value in made.items()} if isinstance(made, dict) else None
