"""Embedding: vectors of a CLIP space with their provenance, and their files, pops' own and other programs'.

Knows nothing of how a vector is computed or rendered.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pops.errors import EmbeddingError, SpaceError, ensure
from pops.files import MAX_JSON, expanded, is_file, parse_json, shown, write_whole
from pops.tensors import opened, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

FORMAT, VERSION, KEY = "pops.embedding", "1", "embeds"
SUFFIX = ".safetensors"
PICKLED = (".ipadpt", ".pth", ".pt")  # written by torch.save: ComfyUI's, diffusers', the papers' code's
READ_SUFFIXES = (SUFFIX, ".npy", *PICKLED)
WRITTEN_SUFFIXES = (SUFFIX, ".npy", ".ipadpt")
# Rows of [1, rows, dim] that are one image, the grid of a vision transformer with or without its class token.
PATCH_TOKENS = (50, 196, 197, 256, 257, 576, 577, 729, 730)
MOST_ROWS = 12  # that a notebook shows
MAX_NUMBERS = 2**28  # of an embedding's file: a gigabyte
UNKNOWN_SPACE = "unknown"  # of files that do not name their space: any space of the same width accepts them


@dataclass(frozen=True, eq=False)
class Embedding:
    """One or more vectors [n, dim] of the space `space`: un-normalised, float32, on the CPU.

    Tensors of another float type or device are converted; EmbeddingError for another shape, and for NaN or infinity.
    space: UNKNOWN_SPACE if not known; any space of the same width accepts it. provenance: how the vectors were made
    (JSON), not interpreted here.
    """

    vectors: Tensor
    space: str
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import torch

        v = self.vectors
        if not isinstance(v, torch.Tensor) or not v.is_floating_point():
            kind = getattr(v, "dtype", type(v).__name__)
            raise EmbeddingError(f"vectors must be a float tensor [n, dim], got {kind}")
        if v.ndim != 2 or min(v.shape) < 1:
            raise EmbeddingError(f"vectors must be a tensor [n, dim] with n, dim >= 1, got {list(v.shape)}")
        v = v.detach().to("cpu", torch.float32).contiguous()
        bad = (~torch.isfinite(v)).any(dim=1).nonzero().flatten().tolist()
        ensure(not bad, f"NaN or infinity in vector {', '.join(map(str, bad[:4]))} of {len(v)}", EmbeddingError)
        told = "space is empty; give the id of the model's space, or 'unknown'"
        ensure(isinstance(self.space, str) and self.space != "", told, EmbeddingError)
        object.__setattr__(self, "vectors", v)
        object.__setattr__(self, "provenance", dict(self.provenance))

    @property
    def n(self) -> int:
        """Number of vectors."""
        return int(self.vectors.shape[0])

    @property
    def dim(self) -> int:
        """Width of the space."""
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int | slice) -> Embedding:
        """Returns some of the vectors as an Embedding (of one vector for an int); IndexError outside."""
        if isinstance(index, int):
            index = range(self.n)[index]
            index = slice(index, index + 1)
        return Embedding(self.vectors[index], self.space, self.provenance)

    def __iter__(self) -> Iterator[Embedding]:
        return (self[i] for i in range(self.n))

    def __repr__(self) -> str:
        return f"Embedding({self.n} x {self.dim}, space={self.space!r})"

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: rows and space, what made it, and each row's norm."""
        from pops.notebook import block, code, line, table

        norms = [f"{norm:.4g}" for norm in self.vectors[:MOST_ROWS].norm(dim=1).tolist()]
        told = self.provenance.get("seeds")
        seeds = told if isinstance(told, list) and len(told) == self.n else [""] * self.n
        rows = list(zip(range(self.n), seeds, norms))
        made = _made_by(self.provenance)
        counted = f"{self.n} row{'s' if self.n > 1 else ''} of {self.dim} numbers"
        return block(
            f"<b>Embedding</b>{line(counted, f'space {self.space}')}",
            code(made) if made else "",
            table(["row", "seed" if told else "", "norm"], rows),
            line(f"and {self.n - MOST_ROWS} more rows") if self.n > MOST_ROWS else "",
        )

    def require_space(self, space: str) -> None:
        """Raises SpaceError unless the embedding is of this space, or either is unknown (then the width decides)."""
        if self.space != space and UNKNOWN_SPACE not in (self.space, space):
            raise SpaceError(f"an embedding of space {self.space!r} cannot be used in space {space!r}; encode it there")

    @staticmethod
    def cat(embeddings: Sequence[Embedding]) -> Embedding:
        """Joins all vectors in order; SpaceError for different spaces, EmbeddingError for different widths."""
        import torch

        space = _same_space(embeddings)
        made = [e.provenance for e in embeddings]
        provenance = made[0] if all(p == made[0] for p in made) else {"parts": made}
        return Embedding(torch.cat([e.vectors for e in embeddings]), space, provenance)

    @staticmethod
    def weighted(terms: Sequence[tuple[float, Embedding]]) -> Embedding:
        """Returns the sum of weight * embedding; one vector broadcasts to many, other counts must be equal."""
        embeddings = [e for _, e in terms]
        space = _same_space(embeddings)
        weights = [float(w) for w, _ in terms]
        ensure(all(map(math.isfinite, weights)), f"weights must be finite numbers, got {weights}", EmbeddingError)
        counts = sorted({e.n for e in embeddings} - {1})
        ensure(
            len(counts) <= 1,
            f"a sum of embeddings with {' and '.join(map(str, counts))} vectors; use equally many, or one",
            EmbeddingError,
        )
        total = sum(w * e.vectors for w, e in zip(weights, embeddings, strict=True))
        made = [{"weight": w, **e.provenance} for w, e in zip(weights, embeddings, strict=True)]
        return Embedding(total, space, {"sum": made})  # type: ignore[arg-type]  # not the int 0

    def save(self, path: str | Path) -> None:
        """Writes a file, whole or not at all, in the format of its suffix; EmbeddingError for another suffix.

        .safetensors: tensor "embeds", with space and provenance in the metadata. The others hold only the numbers,
        float32 [n, dim]: .npy for NumPy, .ipadpt for ComfyUI (IPAdapter Load Embeds).
        """
        path = Path(path)
        suffix = path.suffix.lower()
        endings = ", ".join(WRITTEN_SUFFIXES[:-1]) + f" or {WRITTEN_SUFFIXES[-1]}"
        ensure(suffix in WRITTEN_SUFFIXES, f"{path}: an embedding's file must end in {endings}", EmbeddingError)
        content = self._bytes(suffix)
        with write_whole(path) as temporary:
            temporary.write_bytes(content)

    def _bytes(self, suffix: str) -> bytes:
        if suffix == SUFFIX:
            from safetensors.torch import save

            metadata = {
                "format": FORMAT,
                "version": VERSION,
                "space": self.space,
                "provenance": json.dumps(self.provenance, default=str),
            }
            content: bytes = save({KEY: self.vectors}, metadata)
            return content
        buffer = io.BytesIO()
        if suffix == ".npy":
            import numpy as np

            np.save(buffer, self.vectors.numpy(), allow_pickle=False)
        else:
            import torch

            torch.save(self.vectors, buffer)
        return buffer.getvalue()

    @staticmethod
    def load(path: str | Path) -> Embedding:
        """Reads what `save` wrote, and other programs' embeddings; EmbeddingError names the file.

        .npy, and files of torch.save (.ipadpt, .pth, .pt), hold: a tensor [dim], [n, dim] or [1, n, dim]; or an output
        with `image_embeds`, as the papers' code saves it; or diffusers' list of one [2 B, n, dim], whose first half,
        the negative embeddings, is left out. They are taken as un-normalised and of UNKNOWN_SPACE. Pickles are read in
        a child process (see pops.pickles).
        """
        where, name = expanded(path), shown(path)
        if not is_file(where):
            with suppress(OSError):  # is_dir raises for a name too long for the file system
                kind = "a folder" if where.is_dir() else "not a regular file" if where.exists() else ""
                ensure(not kind, f"{name} is {kind}; name a file that Embedding.save wrote", EmbeddingError)
            raise EmbeddingError(f"{name} does not exist; name a file that Embedding.save wrote")
        if where.suffix.lower() in READ_SUFFIXES[1:]:
            vectors = _read_npy(where) if where.suffix.lower() == ".npy" else _read_pickle(where)
            try:
                return Embedding(vectors, UNKNOWN_SPACE, {"file": str(path)})
            except EmbeddingError as e:
                raise EmbeddingError(f"{name} holds no embedding ({e}); save it again") from e
        vectors, metadata = _read(where)
        try:
            text = metadata.get("provenance", "{}")
            ensure(len(text) <= MAX_JSON, "its provenance is longer than 16 MB", EmbeddingError)
            provenance = parse_json(text)
            ensure(isinstance(provenance, dict), "its provenance is not a JSON object", EmbeddingError)
            return Embedding(vectors, metadata.get("space", ""), provenance)
        except (ValueError, EmbeddingError) as e:
            raise EmbeddingError(f"{name} is damaged ({e}); save the embedding again") from e


def _made_by(provenance: Mapping[str, Any], depth: int = 0) -> str:
    """Returns the provenance in one line: an expression, a file, or those of the parts; "" where it says nothing."""
    for key in ("expression", "file"):
        if isinstance(provenance.get(key), str):
            return str(provenance[key])
    parts = provenance.get("sum", provenance.get("parts"))
    if not isinstance(parts, list) or depth > 3:
        return ""
    told = []
    for part in parts[:MOST_ROWS]:
        about = part if isinstance(part, Mapping) else {}
        made, weight = _made_by(about, depth + 1) or "…", about.get("weight")
        told.append(f"{weight:g}*({made})" if isinstance(weight, float) else made)
    return (" + " if "sum" in provenance else ", ").join([*told, *["…"][: len(parts) - MOST_ROWS > 0]])


def _read(path: Path) -> tuple[Tensor, dict[str, str]]:
    """Reads the tensor and the metadata of an embedding's file, and no other tensors in it."""
    name, told = shown(path), "name a file that Embedding.save wrote"
    with opened(path, EmbeddingError, "save it again") as file:
        about = file.metadata
        ours = about.get("format") == FORMAT and KEY in file.shapes
        ensure(ours, f"{name} holds no embedding of pops; {told}", EmbeddingError)
        version = about.get("version")
        told = f"{name} has version {shown(version, 20)}, this pops reads {VERSION}; update pops"
        ensure(version == VERSION, told, EmbeddingError)
        _check_amount(math.prod(file.shapes[KEY]), path)
        return file.read(KEY), about


def _check_amount(count: int, path: Path) -> None:
    """Raises EmbeddingError for more numbers than embeddings have: a file of few bytes can name terabytes."""
    told = f"{shown(path)} holds {count} numbers, more than {MAX_NUMBERS}; save fewer vectors in a file"
    ensure(count <= MAX_NUMBERS, told, EmbeddingError)


def _read_npy(path: Path) -> Tensor:
    import numpy as np
    import torch

    try:
        array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        numbers = isinstance(array, np.ndarray) and array.dtype.kind == "f"
        ensure(numbers, f"{shown(path)} holds no floating-point array; save one with numpy.save", EmbeddingError)
        _check_amount(array.size, path)
        with np.errstate(over="ignore"):  # which becomes infinity, and is refused as such
            return _rows(torch.from_numpy(array.astype(np.float32)), path)
    except EmbeddingError:
        raise
    except Exception as e:  # its header is Python text, and numpy raises whatever reading that raises
        raise EmbeddingError(f"{shown(path)} is not a readable .npy file of numbers; save it with numpy.save") from e


def _read_pickle(path: Path) -> Tensor:
    from pops.pickles import convert

    with TemporaryDirectory(prefix="pops-") as folder:
        target = Path(folder) / f"read{SUFFIX}"
        convert(path, target, kind="embeddings", error=EmbeddingError)
        read = {name: tensor.clone() for name, tensor in read_tensors(target, EmbeddingError)[0].items()}
    if "0" not in read:
        return _rows(next(iter(read.values())), path)
    both = read["0"]
    if both.ndim == 3 and len(both) <= 2:
        _rows(both[-1:], path)  # raises for patch tokens
    ensure(
        len(read) == 1 and both.ndim in (2, 3),
        f"{path} holds a list of {len(read)} tensors, the first {list(both.shape)}; diffusers stores an embedding as "
        "a list of one [2, n, dim]",
        EmbeddingError,
    )
    n = len(both)
    return (both[n // 2 :] if n % 2 == 0 else both).reshape(-1, both.shape[-1])


def _rows(stored: Tensor, path: Path) -> Tensor:
    """Reshapes [dim], [n, dim], [1, n, dim] or [n, 1, dim] => [n, dim]; EmbeddingError for other shapes."""
    shape = stored.shape
    told = f"{path} holds {list(shape)}: the patch tokens of one image, as IP-Adapter plus reads them"
    tokens = stored.ndim == 3 and len(stored) == 1 and shape[1] in PATCH_TOKENS
    ensure(not tokens, f"{told}; give the pooled embedding, [n, dim], as the plain one reads it", EmbeddingError)
    fits = stored.ndim in (1, 2) or (stored.ndim == 3 and 1 in shape[:2])
    wanted = "an embedding is [dim], [n, dim] or [1, n, dim]"
    ensure(fits, f"{path} holds a tensor {list(shape)}; {wanted}", EmbeddingError)
    return stored.reshape(-1, shape[-1])


def _same_space(embeddings: Sequence[Embedding]) -> str:
    """Returns the one space of all; SpaceError for different spaces, EmbeddingError for different widths or none."""
    ensure(len(embeddings) > 0, "no embeddings to combine; give at least one", EmbeddingError)
    space = next((e.space for e in embeddings if e.space != UNKNOWN_SPACE), UNKNOWN_SPACE)
    for e in embeddings:
        e.require_space(space)
        same = e.dim == embeddings[0].dim
        ensure(same, f"vectors of {embeddings[0].dim} and {e.dim} numbers cannot be combined", EmbeddingError)
    return space
