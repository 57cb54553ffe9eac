"""Fuzzes the doors for as long as asked: python -m fuzz --minutes 10 (in tests/), or make fuzz MINUTES=10.

Each try damages a sound input with a generator of its own seed, gives it to the reader, and expects success or one
clear line. Anything else is a finding: it is printed with its door and seed, its input is kept in a folder, and the
exit code is 1. `--repeat FOLDER` reads a kept input again.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path

from fuzz.doors import DOORS, Door, Input
from fuzz.watch import Finding, watch

WARM = 5  # tries that import and cache, of which time and memory do not count


def prepared(name: str, home: Path) -> Door:
    """Makes a door, and reads a few of its inputs, so that imports do not count as an input's memory."""
    home.mkdir(parents=True, exist_ok=True)
    door = DOORS[name](home)
    door.prepare()
    for seed in range(WARM):
        with suppress(Exception):  # a finding is found again when it counts
            door.read(door.draw(random.Random(f"warm {name} {seed}")))
    return door


def attempt(door: Door, seed: int, kept: Path) -> str:
    """Makes one try; returns "read", "refused", or raises Finding, which tells where the input is kept."""
    given = door.draw(random.Random(f"{door.name} {seed}"))
    try:
        return "refused" if watch(lambda: door.read(given)) else "read"
    except Finding as finding:
        folder = kept / door.name / str(seed)
        given.write(folder)
        told = f"{door.name}, seed {seed}: {finding}\n  input: {folder / given.name} ({len(given.content)} bytes)"
        raise Finding(f"{told} {given.content[:120]!r}") from finding


def in_process_pickles() -> None:
    """Reads pickles in this process: a child takes seconds, and tries are many."""
    import io
    from contextlib import redirect_stdout

    from pops import pickles

    def spawn(arguments: list[str], seconds: int) -> subprocess.CompletedProcess[bytes]:
        out = io.StringIO()
        with redirect_stdout(out):
            pickles.child(arguments)
        return subprocess.CompletedProcess([], 0, out.getvalue().encode(), b"")

    pickles._spawn = spawn
    pickles._confine = lambda size, target: None


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--door", action="append", choices=sorted(DOORS), help="one of the doors; all by default")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first try")
    parser.add_argument("--tries", type=int, default=0, help="per door, in place of minutes")
    parser.add_argument("--kept", type=Path, default=Path("out/fuzz"), help="folder of the findings' inputs")
    parser.add_argument("--repeat", type=Path, help="a finding's folder: DOOR/SEED")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    in_process_pickles()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        if asked.repeat:
            [path] = [p for p in asked.repeat.rglob("*") if p.is_file()]
            door = prepared(asked.repeat.parent.name, Path(place))
            print(
                watch(lambda: door.read(Input(path.relative_to(asked.repeat).as_posix(), path.read_bytes()))) or "read"
            )
            return 0
        doors = [prepared(name, Path(place) / name) for name in asked.door or DOORS]
        return _fuzz(doors, asked)


def _fuzz(doors: list[Door], asked: argparse.Namespace) -> int:
    """Gives every door the same time, or as many tries as asked; prints the counts, and every kind of finding once."""
    counts: dict[str, Counter[str]] = {door.name: Counter() for door in doors}
    known: set[str] = set()
    for door in doors:
        begun = time.monotonic()
        seed, end = asked.seed, begun + 60 * asked.minutes / len(doors)
        while (seed - asked.seed < asked.tries) if asked.tries else (time.monotonic() < end):
            try:
                counts[door.name][attempt(door, seed, asked.kept)] += 1
            except Finding as finding:
                counts[door.name]["finding"] += 1
                cause = finding.__cause__.__cause__ if finding.__cause__ else None
                frames = traceback.extract_tb(cause.__traceback__)[-1:] if cause else []
                kind = f"{door.name} {type(cause).__name__} {[(f.filename, f.lineno) for f in frames]}"
                if kind not in known or cause is None:
                    known.add(kind)
                    print(finding, file=sys.stderr)
                    if cause is not None:
                        print("".join(traceback.format_exception(cause)[-6:]), file=sys.stderr)
            seed += 1
        told = ", ".join(f"{count} {what}" for what, count in sorted(counts[door.name].items()))
        print(
            f"{door.name:12} {sum(counts[door.name].values()):6} tries in {time.monotonic() - begun:.0f} s: {told}",
            flush=True,
        )
    found = sum(count["finding"] for count in counts.values())
    print(f"{sum(map(sum, (c.values() for c in counts.values())))} tries from seed {asked.seed}, {found} findings")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
