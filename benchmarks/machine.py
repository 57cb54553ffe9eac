"""What the machine can do at best (bytes read and operations per second), and what it is. Knows no models."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pops.prior.linear import Precision, compute_dtype, linear

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")
READ = 2**28  # floats, a GiB: far beyond every cache
SIDE, ROWS = 4096, 2048  # of the matrices whose product is timed


def timed(run: Callable[[], Result], device: torch.device) -> tuple[float, Result]:
    """Returns the seconds that `run` took, including all work it queued on the device, and its result."""
    wait(device)
    begun = time.perf_counter()
    result = run()
    wait(device)
    return time.perf_counter() - begun, result


def wait(device: torch.device) -> None:
    """Waits until the device has done all queued work."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def read_rate(device: torch.device, tries: int = 5) -> float:
    """Measures bytes per second read from memory by all threads: the best of several sums and maxima."""
    import torch

    x = torch.ones(READ, device=device)
    return x.nbytes / min(timed(run, device)[0] for run in (x.sum, x.max) for _ in range(tries))


def matrix_rate(precision: Precision, device: torch.device, tries: int = 4) -> float:
    """Measures operations per second (two per multiply-add) of a large product, the best of our layer and torch's."""
    import torch

    dtype = compute_dtype(precision)
    weight = torch.empty(SIDE, SIDE, device=device).uniform_(-1, 1)
    x = torch.empty(ROWS, SIDE, device=device).uniform_(-1, 1).to(dtype)
    layer = linear(weight, torch.zeros(SIDE, device=device), precision, device)
    runs: list[Callable[[], Any]] = [lambda: layer(x, False)]
    if precision != "int8":
        square = weight.to(dtype)
        runs.append(lambda: x @ square)
    with torch.no_grad():
        return 2 * ROWS * SIDE**2 / min(timed(run, device)[0] for run in runs for _ in range(tries))


def described(device: torch.device) -> dict[str, Any]:
    """Describes the machine: names, versions, and how busy it is."""
    from importlib.metadata import version

    import torch

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": load,  # of the last minute, before anything was measured
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers")},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def free_memory(device: torch.device) -> int | None:
    """Returns the bytes available without swapping; None if not known."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    group = Path("/sys/fs/cgroup")  # a container's limit, if any
    try:
        most, used = (int((group / f"memory.{what}").read_text(encoding="utf-8")) for what in ("max", "current"))
    except (OSError, ValueError):
        return free
    return min(free, most - used)
