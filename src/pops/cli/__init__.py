"""The command line: one file per command, which parses options, calls Pops and prints; main.py lists them.

Whatever reaches the interpreter is one line, too: Ctrl-C while modules are imported, a stdout that cannot be written.
"""

from __future__ import annotations

import _thread
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


def _last(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Says in one line what no command has caught; after Ctrl-C, Python ends with the signal's code, 130 in a shell."""
    if issubclass(kind, KeyboardInterrupt):
        told = "stopped; no partial files were left"
    elif isinstance(error, OSError) and error.filename is None:
        told = f"stdout cannot be written ({error.strerror or error}); send it elsewhere"
    else:
        sys.__excepthook__(kind, error, trace)
        return
    if sys.stderr is not None:
        print(f"pops: {told}", file=sys.stderr)


def _again(unraisable: sys.UnraisableHookArgs) -> None:
    """Ctrl-C where Python raises nothing (a finaliser, a callback of an import's lock) comes again a moment later."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        timer = threading.Timer(0.01, _interrupt)
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(unraisable)


def _interrupt() -> None:
    import signal

    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)  # ends what the main thread waits for, too
    else:  # Windows
        _thread.interrupt_main()


sys.excepthook = _last
sys.unraisablehook = _again
