"""The example photos that ship with pops: drawings of toybox, PNG, in objects/, textures/, scenes/ and poses/."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pops.errors import ConfigError, ensure
from pops.files import write_whole

_INSTALLED = Path(__file__).parent / "example_photos"
_IN_A_CLONE = Path(__file__).parents[2] / "examples"


def folder() -> Path:
    """Returns the folder of the example photos; ConfigError where this installation has none."""
    found = _INSTALLED if _INSTALLED.is_dir() else _IN_A_CLONE
    ensure(
        (found / "objects").is_dir(),
        f"the example photos are missing: {found}; install pops-diffusion again",
        ConfigError,
    )
    return found


def copy_to(where: Path) -> Iterator[Path]:
    """Copies the example photos to a folder, and yields each path; a file that exists is left and not yielded."""
    home = folder()
    for photo in sorted(home.rglob("*.png")):
        path = where / photo.relative_to(home)
        if not path.exists():
            with write_whole(path) as room:
                room.write_bytes(photo.read_bytes())
            yield path
