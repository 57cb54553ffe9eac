"""Converts other programs' torch.save files to safetensors. The only reader of pickles, in a child process.

A pickle is a program. torch's restricted reader (weights_only) does not run it but has had holes (CVE-2025-32434). So
it works in a process of its own, which may not start another, opens no connection, has limits on time and size, and
returns nothing but numbers. Knows no priors and no embeddings.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pops.errors import PopsError

if TYPE_CHECKING:
    from torch import Tensor

SECONDS, BYTES_PER_SECOND = 120, 20_000_000  # the time limit: at least, and by the size of the file
SLACK = 64 * 2**20  # bytes by which what is written may be larger than the file
SHOWN = 200  # characters of a reason that are shown
_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_WRAPPERS = ("state_dict", "model", "prior", "module", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before names
# Objects with embeddings that people save whole. They are read as plain mappings: none of these classes is imported.
_OUTPUTS = (
    "diffusers.pipelines.kandinsky.pipeline_kandinsky_prior.KandinskyPriorPipelineOutput",
    "diffusers.pipelines.deprecated.kandinsky.pipeline_kandinsky_prior.KandinskyPriorPipelineOutput",
    "transformers.models.clip.modeling_clip.CLIPVisionModelOutput",
    "transformers.models.clip.modeling_clip.CLIPImageEmbeddingOutput",
)
_EMBEDS = ("image_embeds", "embeds")
_REFUSED = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "subprocess.", "socket.")
_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pops.pickles import child; child(sys.argv[2:])"


def convert(source: Path, target: Path, *, kind: str, error: type[PopsError], skip: Iterable[str] = ()) -> None:
    """Converts `source` (a pickle of torch.save, or .safetensors) to the .safetensors file `target`, values unchanged.

    kind: "weights" (a state dict, bare or wrapped once) or "embeddings" (a tensor, written as "embeds"; an output's
    "image_embeds"; a list, as "0", "1", ...). skip: names of tensors to leave out. Raises `error` with one line that
    names the file; `target` may then be half-written.
    """
    size = _size(source, error)
    seconds = _time_limit(size)
    try:
        done = _spawn([kind, str(source.absolute()), str(target), *skip], seconds)
    except subprocess.TimeoutExpired:
        raise error(f"{source} was not read within {seconds} s; fetch it again") from None
    except OSError as e:
        raise PopsError(f"cannot start a process to read {source} ({e}); free some memory") from e
    answer = _answer(done.stdout)
    if done.returncode or answer is None:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise error(f"{source} cannot be read (code {done.returncode}: {_line(last)}); fetch it again")
    if reason := answer.get("error"):
        raise error(f"{source} {_line(str(reason))}")


def _spawn(arguments: list[str], seconds: int) -> subprocess.CompletedProcess[bytes]:
    """Runs `child(arguments)` in a process of its own, isolated but for this process's import path."""
    path = [p for p in sys.path if p]  # without "", the working folder
    inherited = {k: v for k, v in os.environ.items() if k != "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"}
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-I", "-B", "-c", _CHILD, json.dumps(path), *arguments],
        env=inherited | quiet,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
        check=False,
    )


def _size(source: Path, error: type[PopsError]) -> int:
    try:
        if source.exists() and not source.is_file() and not source.is_dir():
            raise error(f"{source} is not a regular file; save it as a file first")
        with source.open("rb") as file:
            head = file.read(64)
            size = os.fstat(file.fileno()).st_size
    except IsADirectoryError:
        raise error(f"{source} is a folder; name a file") from None
    except FileNotFoundError:
        raise error(f"{source} does not exist; check the path") from None
    except OSError as e:
        raise error(f"{source} cannot be read ({e.strerror or e}); check its permissions") from e
    if not size:
        raise error(f"{source} is empty; fetch it again")
    if head.startswith(b"version https://git-lfs"):
        raise error(f"{source} is a git-lfs pointer and not the file itself; run: git lfs pull")
    return size


def _time_limit(size: int) -> int:
    """Returns seconds for a file of `size` bytes."""
    return max(SECONDS, size // BYTES_PER_SECOND)


def _answer(stdout: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(stdout.strip().splitlines()[-1])
    except (ValueError, IndexError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _line(text: str) -> str:
    """Returns the text printable, on one line and not long: what the child writes may come from the file."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


# --- the child ---------------------------------------------------------------------------------------


class _Refusal(Exception):
    """Says what is wrong with the file, as the rest of a line that begins with its name."""


def child(arguments: list[str]) -> None:
    """Runs the conversion in the child; arguments: kind, source, target, names to skip. Prints one JSON object."""
    kind, source, target, *skip = arguments
    answer: dict[str, Any] = {}
    try:
        size = Path(source).stat().st_size
        import torch  # noqa: F401  # before the limits, which its import would exceed

        _confine(size, target)
        content = _read(source, size)
        tensors = _weights(content) if kind == "weights" else _embeddings(content)
        _write({k: v for k, v in tensors.items() if k not in skip}, target, limit=2 * size + SLACK)
    except _Refusal as refusal:
        answer = {"error": str(refusal)}
    except MemoryError:
        answer = {"error": "needs more memory than is free; close other programs"}
    except OSError as e:
        answer = {"error": f"cannot be converted ({e.strerror or e}); free disk space, or fetch it again"}
    except Exception as e:  # the readers of zip files and pickles raise anything at all
        answer = {"error": f"is not a readable file ({type(e).__name__}: {_line(str(e))}); fetch it again"}
    print(json.dumps(answer), flush=True)


def _confine(size: int, target: str) -> None:
    """Forbids other processes, connections and writing any file but `target`, and limits time and size of writing.

    A second line of defence, not a sandbox: audit hooks see what Python code does, not what machine code does.
    """
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        elsewhere = event == "open" and arguments[2] & writing and str(arguments[0]) != target
        if elsewhere or event.startswith(_REFUSED):
            raise _Refusal(f"tries to run {event} when it is read, which was stopped; do not use this file")

    sys.addaudithook(refuse)
    if sys.platform == "win32":
        return
    import resource

    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: _time_limit(size),
        resource.RLIMIT_FSIZE: 2 * size + 2 * SLACK,
    }
    for which, most in limits.items():
        _, hard = resource.getrlimit(which)
        resource.setrlimit(which, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _read(source: str, size: int) -> Any:
    import torch

    if source.lower().endswith(".safetensors"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(source)
        except SafetensorError as e:
            raise _Refusal(f"is not a readable .safetensors file ({e}); fetch it again") from None
    mapped = False
    with Path(source).open("rb") as file:
        if file.read(4) == b"PK\3\4" and not zipfile.is_zipfile(source):
            raise _Refusal("is truncated; fetch it again")
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            parts = archive.infolist()
        if sum(part.file_size for part in parts) > 4 * size + SLACK:
            raise _Refusal("unpacks to far more than its size; do not use this file")
        mapped = all(part.compress_type == zipfile.ZIP_STORED for part in parts)  # compressed parts cannot be mapped
    known: list[Any] = [(_output, name) for name in _OUTPUTS]
    try:
        with torch.serialization.safe_globals(known):
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except (MemoryError, _Refusal):
        raise
    except Exception as e:  # torch's reader raises anything at all for a broken file
        _explain(e, source)


def _output(*values: Any) -> OrderedDict[str, Any]:
    """Stands in for each class of _OUTPUTS, whose first field is the embedding."""
    return OrderedDict({"image_embeds": values[0]} if values else {})


def _explain(error: Exception, source: str) -> NoReturn:
    import re

    text = str(error)
    asked = re.search(r"GLOBAL (\S+)", text)
    name = asked[1] if asked else _foreign_name(source)
    if name:
        what = f"asks for {name}, which plain tensors do not need; nothing of it was run"
        raise _Refusal(f"{what}. Use a file of plain tensors") from None
    if "allocate memory" in text:
        raise MemoryError from None
    reason = f" ({_line(text.splitlines()[0])})" if isinstance(error, RuntimeError) and text else ""
    raise _Refusal(f"is not a readable file of torch.save{reason}; fetch it again") from None


def _foreign_name(source: str) -> str | None:
    """Returns the first name that a bare pickle, not of torch.save, would import; reads it without running it."""
    import pickletools

    texts: list[str] = []
    try:
        with Path(source).open("rb") as file:
            for code, value, _ in pickletools.genops(file):
                if code.name == "GLOBAL":
                    return str(value).replace(" ", ".")
                if code.name == "STACK_GLOBAL":
                    return ".".join(texts[-2:])
                if isinstance(value, str):
                    texts.append(value)
    except Exception:  # not a pickle at all
        return None
    return None


def _weights(content: Any) -> dict[str, Tensor]:
    """Returns the state dict, unwrapped once if need be, without the prefixes that training wrappers put there."""
    import torch

    def is_state(value: Any) -> bool:
        return isinstance(value, Mapping) and any(isinstance(v, torch.Tensor) for v in value.values())

    if not isinstance(content, Mapping):
        raise _Refusal(f"holds a {type(content).__name__}, not the weights of a prior; name a learned_prior.pth")
    if not is_state(content):
        inner = [key for key in content if is_state(content[key])]
        key = next((name for name in _WRAPPERS if name in inner), inner[0] if len(inner) == 1 else None)
        if key is None:
            keys = ", ".join(sorted(map(str, content))[:4]) or "nothing"
            raise _Refusal(f"holds {keys}, not the weights of a prior; name a learned_prior.pth")
        content = content[key]
    state = dict(content)
    for prefix in _PREFIXES:
        if all(isinstance(name, str) and name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return {_name(key): _dense(value, _name(key)) for key, value in state.items()}


def _embeddings(content: Any) -> dict[str, Tensor]:
    """Returns the tensors that may be embeddings, named as `convert` says."""
    import torch

    if isinstance(content, torch.Tensor):
        return {"embeds": _dense(content)}
    if isinstance(content, (list, tuple)) and content:
        return {str(i): _dense(value, f"place {i}") for i, value in enumerate(content)}
    fields = {**vars(content), **content} if isinstance(content, OrderedDict) else content
    for key in _EMBEDS:
        if isinstance(fields, Mapping) and isinstance(fields.get(key), torch.Tensor):
            return {key: _dense(fields[key])}
    raise _Refusal(f"holds a {type(content).__name__} without an embedding; save the tensor alone: torch.save(e, path)")


def _name(key: Any) -> str:
    if not isinstance(key, str):
        raise _Refusal(f"names a tensor {key!r}; names must be strings")
    return key


def _dense(value: Any, name: str = "") -> Tensor:
    import torch

    here = f" under {name}" if name else ""
    if not isinstance(value, torch.Tensor):
        raise _Refusal(f"does not hold a tensor{here} (but {type(value).__name__}); use a file of plain tensors")
    if value.layout != torch.strided or value.is_meta or str(value.dtype).removeprefix("torch.") not in _DTYPES:
        raise _Refusal(f"does not hold a floating-point tensor{here} (but {value.dtype}); convert it first")
    return value.detach()


def _write(tensors: Mapping[str, Tensor], target: str, *, limit: int) -> None:
    """Writes the safetensors format one tensor at a time, without a second copy of all in memory."""
    import torch

    if sum(t.numel() * t.element_size() for t in tensors.values()) > limit:  # such as large views of one number
        raise _Refusal("describes tensors far larger than its size; do not use this file")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    ordered = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps all aligned
    at = 0
    for name in ordered:
        t = tensors[name]
        end = at + math.prod(t.shape) * t.element_size()
        dtype = _DTYPES[str(t.dtype).removeprefix("torch.")]
        header[name] = {"dtype": dtype, "shape": list(t.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with Path(target).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            if not bool(tensors[name].isfinite().all()):
                raise _Refusal(f"holds NaN or infinity in {name}; fetch it again")
            file.write(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
