"""Reads and writes safetensors files: of anyone's, the header is checked before it is parsed, and every fault is one
line of the caller's kind.

The only place that opens them but those of transformers and diffusers. Knows no models.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.errors import ModelError, PopsError, shown
from pops.files import expanded, reason

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER = 16 * 2**20  # bytes; a file's names, shapes and metadata
# The types of numbers that can be computed with. Others (float8, float4, complex) have no comparison and no isfinite.
TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
AGAIN = "fetch or make it again"


class TensorFile:
    """An open safetensors file. Its errors are of the kind that `opened` was given."""

    def __init__(self, path: str | Path, file: Any, kind: type[PopsError], advice: str) -> None:
        self.path, self._file, self._kind, self._advice = path, file, kind, advice

    @cached_property
    def metadata(self) -> dict[str, str]:
        """Text by name."""
        return dict(self._file.metadata() or {})

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor by name; an error for types of numbers beside TYPES."""
        shapes: dict[str, tuple[int, ...]] = {}
        with _refused(self.path, self._kind, self._advice):
            for name in self._file.keys():  # noqa: SIM118  # not a mapping
                part = self._file.get_slice(name)
                if part.get_dtype() not in TYPES:
                    told = f"has numbers of type {part.get_dtype()}, which pops does not read"
                    raise ValueError(f"{shown(name, 60)} {told}")
                shapes[name] = tuple(part.get_shape())
        return shapes

    def read(self, name: str) -> Tensor:
        """Reads a tensor, whose numbers stay in the mapped file until they are used; an error if there is none."""
        with _refused(self.path, self._kind, self._advice):
            value: Tensor = self._file.get_tensor(name)
        return value


@contextmanager
def opened(path: str | Path, kind: type[PopsError] = ModelError, advice: str = AGAIN) -> Iterator[TensorFile]:
    """Opens a safetensors file; raises an error of the given kind, which names the file and ends with the advice, if it
    is none. Errors of the block pass through.
    """
    where = expanded(path)
    with ExitStack() as stack:
        with _refused(path, kind, advice):
            _check_header(where)
            from safetensors import safe_open

            file = stack.enter_context(safe_open(where, framework="pt"))
        yield TensorFile(path, file, kind, advice)


def read_tensors(
    path: str | Path, kind: type[PopsError] = ModelError, advice: str = AGAIN
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads all tensors of a safetensors file, and its metadata; errors as `opened`."""
    with opened(path, kind, advice) as file:
        return {name: file.read(name) for name in file.shapes}, file.metadata


@contextmanager
def _refused(path: str | Path, kind: type[PopsError], advice: str) -> Iterator[None]:
    """Turns whatever the library raises, which is anything at all, into one line."""
    try:
        yield
    except PopsError:
        raise
    except Exception as e:
        raise kind(f"{shown(path)} cannot be read ({reason(e)}); {advice}") from e


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file; OSError, as any writer raises, where the disk is full or fails. Not whole by itself:
    for use within write_whole.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as e:  # which tells the system's number in its text alone
        number = re.search(r"\(os error (\d+)\)", str(e))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from e


def _check_header(path: Path) -> None:
    """Raises OSError or ValueError for what is no regular file, and for a header that does not fit or is too large."""
    if path.exists() and not path.is_file():
        raise ValueError("a folder" if path.is_dir() else "no regular file")
    with path.open("rb") as file:
        size, head = os.fstat(file.fileno()).st_size, file.read(8)
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > size - 8:
        raise ValueError("empty" if not head else "cut off, or no safetensors file")
    if length > MAX_HEADER:
        raise ValueError(f"its header is larger than {MAX_HEADER >> 20} MB")
