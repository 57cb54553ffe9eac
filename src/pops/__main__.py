"""`python -m pops` is the command `pops`."""

from __future__ import annotations

from pops.cli.main import app

if __name__ == "__main__":
    app(prog_name="pops")
