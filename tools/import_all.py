"""Imports every module of pops; one that needs an extra which is not installed may say so, in a PopsError.

python tools/import_all.py
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

import pops

EXTRAS = {  # what a bare installation has not: the packages of the extras
    "cv2", "fastapi", "lancedb", "numba", "pillow_heif", "prometheus_client", "pyarrow", "scipy", "starlette",
    "uvicorn",
}  # fmt: skip


def main() -> None:
    failed = []
    for module in pkgutil.walk_packages(pops.__path__, "pops."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as e:
            if (e.name or "").partition(".")[0] not in EXTRAS:
                failed.append(f"{module.name}: {e}")
        except Exception as e:
            failed.append(f"{module.name}: {type(e).__name__}: {e}")
    print("\n".join(failed) or "every module was imported")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
