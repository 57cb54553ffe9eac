"""Foreign files of torch.save -> safetensors. The only reader of pickles; it reads them in a child process.

A pickle is a program. torch's restricted reader (weights_only) runs none of it but has had holes
(CVE-2025-32434), so it works in a process of its own, which may start no other, opens no connection, has
limits, and hands back numbers only. Knows no priors and no embeddings.
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

SECONDS, BYTES_A_SECOND = 120, 20_000_000  # of patience: at least, and for each so many bytes of the file
SLACK = 64 * 2**20  # bytes that may be written beyond what the file holds
SHOWN = 200  # characters of a reason
_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_WRAPPERS = ("state_dict", "model", "prior", "module", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before names
# The objects around embeddings that people saved whole. They become plain mappings: none of these is imported.
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
    """Writes the tensors of `source` (a pickle of torch.save, or .safetensors), as they are, to `target`.

    kind: "weights" (a state dict, bare or wrapped once) or "embeddings" (a tensor "embeds", an output's
    "image_embeds", a list's "0", "1", ...). skip: names to leave out. Raises `error` with one line that
    names the file; `target` may then be half-written.
    """
    size = _size(source, error)
    seconds = _patience(size)
    try:
        done = _spawn([kind, str(source.absolute()), str(target), *skip], seconds)
    except subprocess.TimeoutExpired:
        raise error(f"{source} was not read within {seconds} s, and given up; fetch it again") from None
    except OSError as e:
        raise PopsError(f"no process could be started to read {source} ({e}); free some memory") from e
    answer = _answer(done.stdout)
    if done.returncode or answer is None:
        told = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise error(f"{source} could not be read (code {done.returncode}: {_line(told)}); fetch it again")
    if reason := answer.get("error"):
        raise error(f"{source} {_line(str(reason))}")


def _spawn(arguments: list[str], seconds: int) -> subprocess.CompletedProcess[bytes]:
    """`child(arguments)` in a process of its own, which finds the packages where we do and takes nothing else."""
    path = [p for p in sys.path if p]  # not the working folder
    kept = {k: v for k, v in os.environ.items() if k != "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"}
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-I", "-B", "-c", _CHILD, json.dumps(path), *arguments],
        env=kept | quiet,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
        check=False,
    )


def _size(source: Path, error: type[PopsError]) -> int:
    try:
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


def _patience(size: int) -> int:
    return max(SECONDS, size // BYTES_A_SECOND)


def _answer(stdout: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return None
    return answer if isinstance(answer, dict) else None


def _line(text: str) -> str:
    """Printable, on one line, not long: what a child says may have come out of the file."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


# --- the child ---------------------------------------------------------------------------------------


class _Refusal(Exception):
    """What is wrong with the file, as the rest of a line that begins with its name."""


def child(arguments: list[str]) -> None:
    """kind, source, target, names to skip: the conversion itself. Prints one JSON object."""
    kind, source, target, *skip = arguments
    answer: dict[str, Any] = {}
    try:
        size = Path(source).stat().st_size
        import torch  # noqa: F401  # before the limits: what its import does is not the file's doing

        _confine(size, target)
        held = _read(source, size)
        tensors = _weights(held) if kind == "weights" else _embeddings(held)
        _write({k: v for k, v in tensors.items() if k not in skip}, target, limit=2 * size + SLACK)
    except _Refusal as refusal:
        answer = {"error": str(refusal)}
    except MemoryError:
        answer = {"error": "needs more memory than there is; close other programs"}
    except OSError as e:
        answer = {"error": f"could not be converted ({e.strerror or e}); make room, or fetch it again"}
    print(json.dumps(answer), flush=True)


def _confine(size: int, target: str) -> None:
    """From here on: no other process, no connection, no file written but `target`, limits on time and its size.

    A second wall and no prison: what Python code does is seen, what machine code does is not.
    """
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        elsewhere = event == "open" and arguments[2] & writing and str(arguments[0]) != target
        if elsewhere or event.startswith(_REFUSED):
            raise _Refusal(f"tries to run {event} on being read; it was stopped. Do not use this file")

    sys.addaudithook(refuse)
    if sys.platform == "win32":
        return
    import resource

    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: _patience(size),
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
            raise _Refusal(f"is no .safetensors file that can be read ({e}); fetch it again") from None
    mapped = False
    with Path(source).open("rb") as file:
        if file.read(4) == b"PK\3\4" and not zipfile.is_zipfile(source):
            raise _Refusal("is cut short; fetch it again")
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            parts = archive.infolist()
        if sum(part.file_size for part in parts) > 4 * size + SLACK:
            raise _Refusal("unpacks to far more than it holds; do not use this file")
        mapped = all(part.compress_type == zipfile.ZIP_STORED for part in parts)  # else pages are not the numbers
    known: list[Any] = [(_output, name) for name in _OUTPUTS]
    try:
        with torch.serialization.safe_globals(known):
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except (MemoryError, _Refusal):
        raise
    except Exception as e:  # the reader lets through whatever a broken file makes of its insides
        _explain(e, source)


def _output(*values: Any) -> OrderedDict[str, Any]:
    """Stands for each class of _OUTPUTS: its first field is the embedding."""
    return OrderedDict({"image_embeds": values[0]} if values else {})


def _explain(error: Exception, source: str) -> NoReturn:
    import re

    text = str(error)
    asked = re.search(r"GLOBAL (\S+)", text)
    name = asked[1] if asked else _foreign_name(source)
    if name:
        what = f"asks for {name}, which plain tensors do not need; nothing of it was run"
        raise _Refusal(f"{what}. Take a file of plain tensors") from None
    if "allocate memory" in text:
        raise MemoryError from None
    told = f" ({_line(text.splitlines()[0])})" if isinstance(error, RuntimeError) and text else ""
    raise _Refusal(f"is no file of torch.save that can be read{told}; fetch it again") from None


def _foreign_name(source: str) -> str | None:
    """What a bare pickle, which torch.save did not write, would call; only looked at, never run."""
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
    except Exception:  # no pickle at all
        return None
    return None


def _weights(held: Any) -> dict[str, Tensor]:
    """The state dict, taken out of one wrapping, without the prefixes of training."""
    import torch

    def is_state(value: Any) -> bool:
        return isinstance(value, Mapping) and any(isinstance(v, torch.Tensor) for v in value.values())

    if not isinstance(held, Mapping):
        raise _Refusal(f"holds a {type(held).__name__}, not the weights of a prior; name a learned_prior.pth")
    if not is_state(held):
        inner = [key for key in held if is_state(held[key])]
        key = next((name for name in _WRAPPERS if name in inner), inner[0] if len(inner) == 1 else None)
        if key is None:
            keys = ", ".join(sorted(map(str, held))[:4]) or "nothing"
            raise _Refusal(f"holds {keys}, not the weights of a prior; name a learned_prior.pth")
        held = held[key]
    state = dict(held)
    for prefix in _PREFIXES:
        if all(isinstance(name, str) and name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return {_name(key): _dense(value, _name(key)) for key, value in state.items()}


def _embeddings(held: Any) -> dict[str, Tensor]:
    import torch

    if isinstance(held, torch.Tensor):
        return {"embeds": _dense(held)}
    if isinstance(held, (list, tuple)) and held:
        return {str(i): _dense(value, f"place {i}") for i, value in enumerate(held)}
    fields = {**vars(held), **held} if isinstance(held, OrderedDict) else held
    for key in _EMBEDS:
        if isinstance(fields, Mapping) and isinstance(fields.get(key), torch.Tensor):
            return {key: _dense(fields[key])}
    raise _Refusal(f"holds a {type(held).__name__} and no embedding; save the tensor alone, torch.save(e, path)")


def _name(key: Any) -> str:
    if not isinstance(key, str):
        raise _Refusal(f"names a tensor {key!r}; names are texts")
    return key


def _dense(value: Any, name: str = "") -> Tensor:
    import torch

    here = f" under {name}" if name else ""
    if not isinstance(value, torch.Tensor):
        raise _Refusal(f"holds no tensor{here} (but {type(value).__name__}); take a file of plain tensors")
    if value.layout != torch.strided or value.is_meta or str(value.dtype).removeprefix("torch.") not in _DTYPES:
        raise _Refusal(f"holds no floating-point tensor{here} (but {value.dtype}); convert it first")
    return value.detach()


def _write(tensors: Mapping[str, Tensor], target: str, *, limit: int) -> None:
    """The safetensors format, one tensor after another, so that no second copy of all is in memory."""
    import torch

    if sum(t.numel() * t.element_size() for t in tensors.values()) > limit:  # views of one number, say
        raise _Refusal("describes tensors far larger than it is; do not use this file")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    ordered = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps them aligned
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
