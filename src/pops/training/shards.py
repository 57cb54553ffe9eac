"""Files of training samples: shards and tables of embeddings, written whole, read and checked.

A folder holds shards (any `*.safetensors` with a "target") and at most one `tables.safetensors`. All embeddings are
un-normalised CLIP, float16 or float32. A shard's tensors, N samples each:

    target    [N, D]                the true result's embedding
    operands  [N, k, D]             image operands in order (absent for the base prior)
    words     [N] or [N, C] int64   rows of table `word_hidden`: the text operand, after the images; or the caption
    text      [N] or [N, C] int64   rows of table `text_embeds`: what loss "instruct" compares with; or the caption

If there are C columns, a sample draws one, the same for both. The tables:

    word_hidden [W, L, D], word_length [W]   the text encoder's last hidden states, padded; how many are not padding
    text_embeds [T, D]                       projected text embeddings
    empty       [2] int64                    rows (of word_hidden, of text_embeds) of "", for dropped captions
    pool        [P, D]                       images for `random_share` (absent: the targets)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pops.errors import EmbeddingError, ensure
from pops.files import write_whole
from pops.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

TABLES = "tables.safetensors"
SHARD_KEYS = ("target", "operands", "words", "text")
TABLE_KEYS = ("word_hidden", "word_length", "text_embeds", "empty", "pool")


# -- writing ---------------------------------------------------------------------------------------


def write_shard(
    path: str | Path,
    *,
    target: Tensor,
    operands: Tensor | None = None,
    words: Tensor | None = None,
    text: Tensor | None = None,
) -> None:
    """Writes one shard, embeddings as float16, indices as int64; shapes as in the module's text."""
    _write(Path(path), {"target": target, "operands": operands, "words": words, "text": text})


def write_tables(
    folder: str | Path,
    *,
    word_hidden: Sequence[Tensor] | None = None,
    text_embeds: Tensor | None = None,
    empty: tuple[int, int] | None = None,
    pool: Tensor | None = None,
) -> None:
    """Writes the tables of a folder; word_hidden: the hidden states [length, D] of each text, padded here."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    tables = {"text_embeds": text_embeds, "pool": pool}
    if word_hidden is not None:
        tables["word_hidden"] = pad_sequence([rows.to(torch.float16) for rows in word_hidden], batch_first=True)
        tables["word_length"] = torch.tensor([len(rows) for rows in word_hidden])
    if empty is not None:
        tables["empty"] = torch.tensor(empty)
    _write(Path(folder) / TABLES, tables)


def _write(path: Path, tensors: Mapping[str, Tensor | None]) -> None:
    import torch

    kept = {
        key: value.detach().cpu().to(torch.float16 if value.is_floating_point() else torch.int64).contiguous().clone()
        for key, value in tensors.items()
        if value is not None
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        write_tensors(temporary, kept, {"format": "pops.training-data", "version": "1"})


# -- reading and checking --------------------------------------------------------------------------


def read_folder(folder: str | Path) -> dict[str, Tensor]:
    """Reads and checks every tensor of a folder by name, shards joined in order of their names.

    EmbeddingError names the file, and the row of a broken record.
    """
    import torch

    folder = Path(folder)
    paths = sorted(p for p in folder.glob("*.safetensors") if p.name != TABLES)
    ensure(len(paths) > 0, f"no shards (*.safetensors) in {folder}; write some (write_shard)", EmbeddingError)
    tables = _read(folder / TABLES, TABLE_KEYS) if (folder / TABLES).is_file() else {}
    check_tables(tables, str(folder / TABLES))
    shards = [_read(path, SHARD_KEYS) for path in paths]
    for path, shard in zip(paths, shards, strict=True):
        check_samples(shard, str(path), tables)
        for key in SHARD_KEYS:
            a, b = shards[0].get(key), shard.get(key)
            same = (a is None) == (b is None) and (a is None or b is None or a.shape[1:] == b.shape[1:])
            first = paths[0].name
            ensure(same, f"{path}: {key!r} does not fit that of {first}; use one folder per task", EmbeddingError)
    return {key: torch.cat([shard[key] for shard in shards]) for key in shards[0]} | tables


def _read(path: Path, keys: Sequence[str]) -> dict[str, Tensor]:
    tensors, _ = read_tensors(path, EmbeddingError, "write it again")
    unknown = sorted(set(tensors) - set(keys))
    ensure(not unknown, f"{path}: unknown tensor {', '.join(unknown)}; a file holds {', '.join(keys)}", EmbeddingError)
    return tensors


def _check_finite(value: Tensor, name: str, where: str) -> None:
    ok = value.reshape(len(value), -1).isfinite().all(dim=1)
    if not bool(ok.all()):
        row = int((~ok).nonzero()[0])
        raise EmbeddingError(f"{where}: {name!r} row {row} is not finite; make that record again or leave it out")


def _check_shape(value: Tensor, dims: tuple[int, ...], name: str, where: str) -> None:
    ensure(
        value.dim() in dims,
        f"{where}: {name!r} has shape {tuple(value.shape)}, expected {' or '.join(map(str, dims))} axes",
        EmbeddingError,
    )


def check_samples(shard: Mapping[str, Tensor | None], where: str, tables: Mapping[str, Tensor | None]) -> None:
    """Checks shapes, that values are finite and indices in range; EmbeddingError names `where` and the row."""
    target = shard.get("target")
    if target is None:
        raise EmbeddingError(f"{where}: no 'target' in it; a shard holds the true results' embeddings")
    _check_shape(target, (2,), "target", where)
    ensure(len(target) > 0, f"{where}: it holds no samples", EmbeddingError)
    _check_finite(target, "target", where)
    for name, table in (
        ("operands", None),
        ("words", tables.get("word_hidden")),
        ("text", tables.get("text_embeds")),
    ):
        value = shard.get(name)
        if value is None:
            continue
        _check_shape(value, (3,) if name == "operands" else (1, 2), name, where)
        same = len(value) == len(target)
        ensure(same, f"{where}: {name!r} has {len(value)} rows, 'target' has {len(target)}", EmbeddingError)
        if name == "operands":
            width, dim = value.shape[2], target.shape[1]
            ensure(width == dim, f"{where}: 'operands' are {width} wide, 'target' is {dim}", EmbeddingError)
            _check_finite(value, name, where)
            continue
        rows = 0 if table is None else len(table)
        bad = ((value < 0) | (value >= rows)).reshape(len(value), -1).any(dim=1)
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise EmbeddingError(f"{where}: {name!r} row {row} points outside its table of {rows} rows")


def check_tables(tables: Mapping[str, Tensor | None], where: str) -> None:
    """Checks that the tables fit each other; EmbeddingError names `where`. Absent ones are None or no key."""
    hidden, length = tables.get("word_hidden"), tables.get("word_length")
    both = (hidden is None) == (length is None)
    ensure(both, f"{where}: word_hidden and word_length belong together; write both", EmbeddingError)
    for name, dims in (("word_hidden", (3,)), ("text_embeds", (2,)), ("pool", (2,))):
        value = tables.get(name)
        if value is not None:
            _check_shape(value, dims, name, where)
            _check_finite(value, name, where)
    if hidden is not None and length is not None:
        good = len(length) == len(hidden) and bool(((length > 0) & (length <= hidden.shape[1])).all())
        wanted = f"from 1 to {hidden.shape[1]}, one per row of word_hidden"
        ensure(good, f"{where}: 'word_length' must be {wanted}", EmbeddingError)
    empty = tables.get("empty")
    if empty is not None:
        ensure(tuple(empty.shape) == (2,), f"{where}: 'empty' must hold two row numbers", EmbeddingError)
        for row, name in zip(empty.tolist(), ("word_hidden", "text_embeds"), strict=True):
            table = tables.get(name)
            rows = 0 if table is None else len(table)
            ensure(0 <= row < rows, f"{where}: 'empty' points outside {name} ({row} of {rows})", EmbeddingError)
