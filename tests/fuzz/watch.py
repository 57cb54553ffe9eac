"""What a reader may do with an input: succeed, or raise one clear line of a PopsError, soon and in little memory."""

from __future__ import annotations

import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from pops.errors import PopsError

SECONDS = 5.0  # of the processor, for an input of 100 kB or less
HANGING = 60  # seconds of the clock after which a reader is stopped
MEMORY = 64 * 2**20  # bytes beyond what the result itself takes
LINE = 1000  # characters of a message


class Finding(Exception):
    """A reader did something else."""


class _Hangs(BaseException):
    """Not an Exception, so that no reader takes it for one of its own."""


def watch(read: Callable[[], int]) -> str:
    """Runs a reader; returns "" if it succeeded, else the line with which it refused. read: returns the bytes that the
    result itself takes. Raises Finding.
    """
    base, begun, own, told = _peak(reset=True), time.process_time(), 0, ""
    try:
        with _alarm():
            own = read()
    except PopsError as error:
        told = _line(error)
    except _Hangs:
        raise Finding(f"still running after {HANGING} s") from None
    except (Exception, SystemExit) as error:
        raise Finding(f"{type(error).__name__}: {error}") from error
    seconds, more = time.process_time() - begun, _peak() - base - own
    if seconds > SECONDS:
        raise Finding(f"took {seconds:.1f} s ({told or 'read'})")
    if more > MEMORY:
        raise Finding(f"took {more >> 20} MB beyond its result ({told or 'read'})")
    return told


def _line(error: PopsError) -> str:
    line, pretty = str(error), error.pretty()
    if not line.strip() or "\n" in line or len(line) > LINE or len(pretty) > LINE + 500 or pretty.count("\n") > 2:
        raise Finding(f"not one short line: {pretty[:2000]!r}") from error
    if any(c != "\n" and not c.isprintable() and not 0xDC80 <= ord(c) <= 0xDCFF for c in pretty):
        raise Finding(f"a message that cannot be printed: {pretty!r}") from error
    return line


@contextmanager
def _alarm() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANGING)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _peak(*, reset: bool = False) -> int:
    """Returns the largest memory of the process in bytes: since the last reset where the system can reset it (Linux),
    else since its start, which lets an input hide behind a larger one.
    """
    with suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
