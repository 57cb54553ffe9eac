"""Every file is written whole: each system call of a write fails, or the process is killed there, one after the other.

Afterwards the old file or the new one is there, whole, and the next write sweeps up what was left. With strace (Linux)
the system's own calls are made to fail; without it, Python's.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pops.embedding import Embedding
from pops.errors import PopsError
from pops.files import write_whole
from pops.images import load_photo, save_picture
from pops.loading.manifest import verify
from pops.operators.folder import write_folder
from pops.training import checkpoints
from pops.training.config import TrainConfig

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
OWN = ("operator.json", "adapter.safetensors", "prior.safetensors")
CALLS = (
    "openat", "write", "writev", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "renameat", "renameat2",
    "mkdir", "mkdirat", "link", "linkat", "chmod", "fchmod", "fchmodat", "unlink", "unlinkat", "rmdir", "close",
)  # fmt: skip
OF_PYTHON = ("mkdir", "open", "fsync", "replace", "rename", "chmod", "rmdir", "unlink", "link")  # of os; and io.open
COLOURS = {"old": (200, 0, 0), "new": (0, 0, 200)}


@dataclass(frozen=True)
class Writer:
    """Something that is written. what: "old" or "new"; held: which of them lies there, whole, or an exception."""

    name: str
    write: Callable[[Path, str], object]
    held: Callable[[Path], str]
    rest: tuple[str, ...] = ()  # files beside it that belong to it


def _write_text(path: Path, what: str) -> None:
    with write_whole(path) as temporary:
        temporary.write_text(what * 50_000)


def _held_text(path: Path) -> str:
    text = path.read_text()
    assert text in ("old" * 50_000, "new" * 50_000)
    return text[:3]


def _write_picture(path: Path, what: str) -> None:
    save_picture(Image.new("RGB", (64, 64), COLOURS[what]), path, {"expression": what})


def _held_picture(path: Path) -> str:
    return "old" if load_photo(path, size=8).getpixel((1, 1)) == COLOURS["old"] else "new"


def _write_embedding(path: Path, what: str) -> None:
    Embedding(torch.full((100, 8), float(what == "new")), "s").save(path)


def _held_embedding(path: Path) -> str:
    vectors = Embedding.load(path).vectors
    assert vectors.shape == (100, 8)
    return "new" if bool(vectors.all()) else "old"


def _write_checkpoint(path: Path, what: str) -> None:
    tensors = {"param/a": torch.full((64,), float(what == "new"))}
    checkpoints.save(path.parent, TrainConfig(), 2 if what == "new" else 1, {}, tensors)


def _held_checkpoint(path: Path) -> str:
    meta, tensors = checkpoints.read_latest(path.parent)
    assert bool(tensors["param/a"].all()) == (meta["step"] == "2")
    return "new" if meta["step"] == "2" else "old"


def _write_operator(path: Path, what: str) -> None:
    with write_folder(path, OWN) as temporary:
        (temporary / "adapter.safetensors").write_text(what)
        (temporary / "operator.json").write_text('{"of": "' + what + '"}')


def _held_operator(path: Path) -> str:
    assert verify(path) == 2
    what = (path / "adapter.safetensors").read_text()
    assert what in (path / "operator.json").read_text()
    return what


WRITERS = (
    Writer("a.txt", _write_text, _held_text),
    Writer("a.png", _write_picture, _held_picture),
    Writer("a.safetensors", _write_embedding, _held_embedding),
    Writer(checkpoints.CHECKPOINT, _write_checkpoint, _held_checkpoint, (checkpoints.CONFIG, checkpoints.BEFORE)),
    Writer("op", _write_operator, _held_operator),
)
writers = pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: str(writer.name))


def child(action: Callable[[], object]) -> int:
    """Runs an action in a process of its own, which stops first; returns the process. Exit code 3 is a refusal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that the child does not need
        process = os.fork()
    if process:
        return process
    code = 4
    try:
        signal.raise_signal(signal.SIGSTOP)
        action()
        code = 0
    except (PopsError, OSError):
        code = 3
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def check(writer: Writer, path: Path, code: int, fault: str) -> str:
    """Checks what lies there after a fault, and that the next write leaves nothing else; returns which it was."""
    held = writer.held(path)
    assert held == "new" or code != 0, f"{fault}: nothing was told, and the old one is there"
    writer.write(path, "new")
    assert writer.held(path) == "new", fault
    others = {p.name for p in path.parent.iterdir()} - {path.name, *writer.rest}
    assert not others, f"{fault}: {others} were left"
    return held


def ended(process: int) -> int:
    """Waits for a process; returns its exit code, or minus the signal that killed it."""
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


# --- Python's calls ---------------------------------------------------------------------------------------------------


def counting(calls: list[int], kill: bool) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    """Yields what takes the place of Python's calls: the one after calls[0] others fails, or ends the process."""

    def counted(own: Callable[..., Any], always: bool) -> Callable[..., Any]:
        def call(*args: Any, **how: Any) -> Any:
            if always or (len(args) > 1 and isinstance(args[1], str) and set(args[1]) & set("wax+")):
                calls[0] -= 1
                if calls[0] == -1:
                    if kill:
                        os._exit(9)
                    raise OSError(5, "Input/output error")
            return own(*args, **how)

        return call

    yield from ((os, name, counted(getattr(os, name), True)) for name in OF_PYTHON)
    yield io, "open", counted(io.open, False)


@pytest.mark.parametrize("kill", [False, True], ids=["fails", "killed"])
@writers
def test_a_call_of_python_that_fails_or_ends_all(tmp_path: Path, writer: Writer, kill: bool) -> None:
    seen = Counter[str]()
    for number in range(200):
        path = tmp_path / str(number) / writer.name
        writer.write(path, "old")

        def action(path: Path = path, number: int = number) -> None:
            for owner, name, call in list(counting([number], kill)):
                setattr(owner, name, call)
            writer.write(path, "new")

        process = child(action)
        os.waitpid(process, os.WUNTRACED)
        os.kill(process, signal.SIGCONT)
        code = ended(process)
        assert code in (0, 3, 9)
        seen[check(writer, path, code, f"call {number}")] += 1
        if code == 0 and number > 20:
            break
    assert seen["old"] >= 2 and seen["new"] >= 1, seen


# --- the system's calls -----------------------------------------------------------------------------------------------


def traced(action: Callable[[], object], log: Path, inject: str = "") -> int:
    """Runs an action under strace from where it stops; returns its exit code. Skips the test where it is forbidden."""
    process = child(action)
    os.waitpid(process, os.WUNTRACED)
    command = ["strace", "-f", "-p", str(process), "-o", str(log), "-e", f"trace={','.join(CALLS)}"]
    tracer = subprocess.Popen(
        [*command, *(["-e", f"inject={inject}"] if inject else [])], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr is not None
    told = tracer.stderr.readline()
    if "attached" not in told:
        os.kill(process, signal.SIGKILL)
        ended(process)
        tracer.communicate()
        pytest.skip(f"strace cannot trace here: {told.strip()}")
    os.kill(process, signal.SIGCONT)
    code = ended(process)
    tracer.communicate(timeout=60)
    return code


def test_each_system_call_that_fails_or_ends_all(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace here")
    thorough = os.environ.get("FAULTS") == "all"
    for writer in WRITERS if thorough else WRITERS[:1]:
        faults(tmp_path, writer, every=1 if thorough else 3)


def faults(tmp_path: Path, writer: Writer, every: int) -> Counter[str]:
    """Makes each call of a write fail, and kills it there; every: one of so many of a kind of call."""
    begun, home = time.monotonic(), tmp_path / f"{writer.name}.d"
    first = home / "first" / writer.name
    writer.write(first, "old")
    assert traced(lambda: writer.write(first, "new"), tmp_path / "log") == 0
    lines = (tmp_path / "log").read_text().splitlines()
    counts = Counter(line.split(maxsplit=1)[1].partition("(")[0] for line in lines if "(" in line)
    seen = Counter[str]()
    for name, count in counts.items():
        if name not in CALLS:
            continue
        for when in range(1, count + 1, every):
            for what in ("error=EIO", "error=ENOSPC", "signal=KILL"):
                fault = f"{name}:{what}:when={when}"
                path = home / fault.replace(":", "-") / writer.name
                writer.write(path, "old")
                code = traced(lambda path=path: writer.write(path, "new"), tmp_path / "log", fault)  # type: ignore[misc]
                assert code in (0, 3, -9), f"{fault}: exit code {code}"
                seen[check(writer, path, code, fault)] += 1
                shutil.rmtree(path.parent)
    print(f"{writer.name}: {sum(seen.values())} faults, {dict(seen)}, {time.monotonic() - begun:.0f} s")
    assert seen["old"] > 0 and seen["new"] > 0
    return seen
