"""The command line: one file per command, which parses options, calls Pops and prints; main.py lists them.

Whatever reaches the interpreter is one line, too: Ctrl-C while modules are imported, a stdout that cannot be written.
"""

import sys
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


sys.excepthook = _last
