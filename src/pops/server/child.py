"""Child: a process of the server's own, which is told and tells lines of JSON, and ends when the server does."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TextIO

MAX_LINE = 32 * 2**20  # bytes
Message = dict[str, Any]


class ChildEnded(Exception):
    """The process is gone; the message says how."""


class Child:
    """The server's end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, module: str, about: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Child:
        """Starts `python -m module`, and tells it its first line."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            limit=MAX_LINE, env={**os.environ, **(environment or {})}, start_new_session=True,
        )  # fmt: skip  # in a session of its own: Ctrl-C reaches the server alone
        child = cls(process)
        await child.tell(about)
        return child

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    async def tell(self, message: Mapping[str, Any]) -> None:
        """Sends a message; ChildEnded where nobody is left to read it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError):
            raise ChildEnded(await self._how()) from None

    async def hear(self, seconds: float | None = None) -> Message:
        """Returns the next message; TimeoutError if none comes in time, ChildEnded if none will."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), seconds)
        if not line.endswith(b"\n"):
            raise ChildEnded(await self._how())
        message: Message = json.loads(line)
        return message

    async def ended(self) -> str:
        """Waits until the process has ended; returns how."""
        return await self._how()

    async def _how(self) -> str:
        code = await self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def stop(self, seconds: float = 5) -> None:
        """Ends the process: by the end of what it is told, or else by force."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Ends the process by force."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


# --- the process's own end -----------------------------------------------------------------------


class Inbox:
    """What the process is told. When the server is gone, the process ends at once, whatever it is doing."""

    def __init__(self, at_once: Callable[[Message], bool] = lambda message: False) -> None:
        """at_once: is handed every message when it comes, and returns whether it was for it alone."""
        self._at_once, self._messages = at_once, queue.SimpleQueue[Message]()
        self.tell = _speaker()
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> Message:
        """Waits for the next message."""
        return self._messages.get()

    def _read(self) -> None:
        for line in sys.stdin.buffer:
            message = json.loads(line)
            if not self._at_once(message):
                self._messages.put(message)
        os._exit(0)


def _speaker() -> Callable[[Mapping[str, Any]], None]:
    """Returns what sends a message; whatever else is printed goes to stderr."""
    out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def tell(message: Mapping[str, Any]) -> None:
        with lock:
            out.write(json.dumps(message) + "\n")
            out.flush()

    return tell
