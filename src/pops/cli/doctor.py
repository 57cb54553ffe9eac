"""pops doctor: checks the installation and the machine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pops.cli.shell import Debug, Json, command, print_json

PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "huggingface_hub", "pillow")
LOW_DISK_GB = 2.0


@command
def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Do not contact the hub.")] = False,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Verify this model's or operator folder's files.")
    ] = "tiny",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Check versions, devices, memory, disk, the hub and the shipped model.

    The exit code is 1 if pops cannot run.

    Examples:

    \b
        pops doctor
        pops doctor --json --offline
    """
    from pops import __version__

    checks: dict[str, Callable[[], str]] = {
        "python": lambda: f"{sys.version.split()[0]} on {sys.platform}",
        **{name: partial(_installed, name) for name in PACKAGES},
        "devices": _devices,
        "memory": _memory,
        "disk": _disk,
        "tiny": _tiny,
        "cached": _cached,
    }
    if model != "tiny":
        checks["model"] = partial(_verified, model)
    if not offline:
        checks["hub"] = _hub
    rows = [_checked(name, check) for name, check in checks.items()]
    required = ("python", *PACKAGES, "devices", "tiny", "model")
    ok = not any(row["state"] == "bad" and row["check"] in required for row in rows)
    if json_output:
        print_json({"ok": ok, "pops": __version__, "checks": rows})
    else:
        typer.echo(f"pops {__version__}")
        for row in rows:
            typer.echo(f"  {row['state']:<5}{row['check']:<17}{row['found']}")
    if not ok:
        raise typer.Exit(1)


class _Warning(Exception):
    """A non-fatal finding."""


def _checked(name: str, check: Callable[[], str]) -> dict[str, str]:
    """Runs one check; returns its name, state (ok, warn, bad) and finding."""
    try:
        return {"check": name, "state": "ok", "found": check()}
    except _Warning as e:
        return {"check": name, "state": "warn", "found": str(e)}
    except Exception as e:  # whatever a check raises is its finding
        first = (str(e) or type(e).__name__).splitlines()[0]
        return {"check": name, "state": "bad", "found": first}


def _installed(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        raise RuntimeError(f"not installed; run: pip install {name}") from None


def _devices() -> str:
    import torch

    found = [f"cpu ({os.cpu_count()} cores, {torch.get_num_threads()} threads)"]
    found += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return ", ".join(found + (["mps"] if torch.backends.mps.is_available() else []))


def _memory() -> str:
    from pops.models.hub import TINY_MEMORY

    try:
        page, total = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        free = os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "unknown on this system"
    text = f"{page * total / 1e9:.1f} GB, {page * free / 1e9:.1f} GB free"
    if page * total / 1e9 < TINY_MEMORY:
        raise _Warning(f"{text}; the model tiny needs {TINY_MEMORY:g} GB")
    return text


def _disk() -> str:
    cache = _cache_folder()
    existing = next(p for p in (cache, *cache.parents) if p.exists())
    free = shutil.disk_usage(existing).free / 1e9
    text = f"{free:.1f} GB free for {cache}"
    if free < LOW_DISK_GB:
        raise _Warning(f"{text}; larger models need more")
    return text


def _cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _cached() -> str:
    cache = _cache_folder()
    names = sorted(p.name.removeprefix("models--").replace("--", "/") for p in cache.glob("models--*"))
    return ", ".join(names) or "no models of the hub are on this machine"


def _hub() -> str:
    import urllib.request

    from huggingface_hub import constants

    try:
        with urllib.request.urlopen(constants.ENDPOINT, timeout=5):  # https only: the endpoint's own scheme
            return f"{constants.ENDPOINT} is reachable"
    except OSError as e:
        raise _Warning(f"{constants.ENDPOINT} is not reachable ({e}); the model tiny works without it") from e


def _tiny() -> str:
    """Opens every weights file of the shipped model and reads its operators' specs."""
    from pops.studio import load
    from pops.tensors import opened

    tiny = load("tiny").model
    files = tiny.files
    weights = sorted(files.folder.rglob("*.safetensors"))
    tensors = 0
    for path in weights:
        with opened(path) as file:
            tensors += len(file.shapes)
    operators = ", ".join(tiny.operators) or "none"
    size = sum(path.stat().st_size for path in weights) / 1e6
    _verified("tiny")
    return f"{len(weights)} files, {tensors} tensors, {size:.0f} MB; operators: {operators}"


def _verified(model: str) -> str:
    """Compares every file of a model or an operator folder that has a manifest with it."""
    from pops.files import expanded
    from pops.loading.manifest import has_manifest, verify
    from pops.models.hub import resolve

    operator = (expanded(model) / "operator.json").is_file()
    folders = (expanded(model),) if operator else resolve(model).verified
    count = sum(verify(folder, whole=True) for folder in folders if has_manifest(folder))
    if not count:
        raise _Warning(f"{model} has no manifest to verify its files with")
    return f"{count} files of {model} are as their manifest says"
