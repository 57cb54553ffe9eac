"""Rehearses a release, all but the upload: builds twice, compares, installs in clean environments, tries it offline.

python tools/release.py                          # this Python; dist/ gets the sdist and the wheel
python tools/release.py --python python3.13      # repeatable: others, too

pip takes its own settings (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu for torch's CPU build).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 100 * 10**6  # bytes that the package index takes a file of, unless it is asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", default=[], help="an interpreter to try the wheel with")
    parser.add_argument("--no-install", action="store_true", help="only build and compare")
    args = parser.parse_args()
    if run("git", "status", "--porcelain", "--untracked-files=no").strip():
        sys.exit(
            "some tracked files have changes that are not committed; commit them, for a release is built from a commit"
        )
    with tempfile.TemporaryDirectory(prefix="pops-release-") as folder:
        commit = run("git", "rev-parse", "HEAD").strip()
        first, second = (built(commit, Path(folder) / name) for name in ("first", "second"))
        if [digest(path) for path in first] != [digest(path) for path in second]:
            sys.exit("two builds of one commit differ")
        dist = ROOT / "dist"
        shutil.rmtree(dist, ignore_errors=True)
        dist.mkdir()
        for path in first:
            print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, sha256 {digest(path)}, twice the same bytes")
            if path.stat().st_size > LARGEST:
                sys.exit(f"{path.name} is larger than {LARGEST / 1e6:.0f} MB, which the package index refuses")
            shutil.copy(path, dist)
        wheel = next(path for path in first if path.suffix == ".whl")
        for number, python in enumerate([] if args.no_install else [sys.executable, *args.python]):
            try_out(wheel, python, Path(folder) / f"tried-{number}")


def run(*command: str, **how: object) -> str:
    """Runs a command and returns what it prints; a failure ends the rehearsal with it."""
    done = subprocess.run(command, capture_output=True, text=True, **{"cwd": ROOT, **how})  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return str(done.stdout)


def built(commit: str, room: Path) -> list[Path]:
    """Builds sdist and wheel from a clean copy of the commit, and returns their paths."""
    room.mkdir()
    archive = room / "commit.tar"
    run("git", "archive", "--output", str(archive), commit)
    with tarfile.open(archive) as tar:
        tar.extractall(room / "copy", filter="data")
    when = run("git", "log", "-1", "--format=%ct", commit).strip()
    env = {**os.environ, "SOURCE_DATE_EPOCH": when}
    run(sys.executable, "-m", "hatchling", "build", "-d", str(room / "dist"), cwd=room / "copy", env=env)
    return sorted((room / "dist").iterdir())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def try_out(wheel: Path, python: str, room: Path) -> None:
    """Installs the wheel alone in a clean environment, and composes a picture there, without a network; then with the
    extra `server`, and opens the studio.
    """
    run(python, "-m", "venv", str(room / "venv"))
    bin_ = room / "venv" / ("Scripts" if os.name == "nt" else "bin")
    install = [str(bin_ / "python"), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    run(*install, str(wheel))
    work = room / "work"
    work.mkdir()
    alone = without_network()
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1", "HOME": str(work)}
    expression = "texturing(examples/objects/teapot.png, examples/textures/tiger.png)"
    for command in (
        ["--version"],
        ["examples"],
        ["run", expression, "-o", "out.png"],
        ["run", "out.png", "-o", "again.png"],
    ):
        print("pops", *command, run(*alone, str(bin_ / "pops"), *command, cwd=work, env=env).strip(), sep="  ")
    if digest(work / "out.png") != digest(work / "again.png"):
        sys.exit("a picture that was made again has other bytes")
    run(*alone, str(bin_ / "python"), str(ROOT / "tools" / "import_all.py"), cwd=work, env=env)
    size = sum(path.stat().st_size for path in (room / "venv").rglob("*") if path.is_file())
    run(*install, f"{wheel}[server]")
    studio = [*alone, str(bin_ / "python"), str(ROOT / "tools" / "try_studio.py"), str(bin_ / "pops")]
    print(run(*studio, cwd=work, env=env, timeout=600).strip())
    network = "no network" if alone else "the network left on"
    print(
        f"{run(python, '--version').strip()}: the wheel works in a clean environment of {size / 1e9:.1f} GB ({network})"
    )


def without_network() -> list[str]:
    """Returns the beginning of a command that has no network, where this system can (Linux); else nothing."""
    command = ["unshare", "--net", "--map-root-user"]
    able = shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return command if able else []


if __name__ == "__main__":
    main()
