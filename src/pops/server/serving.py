"""Runs the application on a port: says where it listens, why it cannot, and stops without losing anything."""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn

from pops.errors import ConfigError, ModelError
from pops.server.app import create_app
from pops.server.settings import Settings

BACKLOG = 1024


class JsonLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        data = {"time": when, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            data["error"] = self.formatException(record.exc_info)
        return json.dumps(data)


@contextmanager
def logs_on_stderr(*, as_json: bool = False, level: int = logging.INFO) -> Iterator[None]:
    """Has the loggers of pops and uvicorn write to stderr, from this level on; afterwards they are as they were."""
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if as_json else plain)
    loggers = [logging.getLogger(name) for name in ("pops", "uvicorn")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, (handlers, propagate, own) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(own)


class _Server(uvicorn.Server):
    """Uvicorn, which waits for open streams when it stops: they are ended first."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.config.app.state.core.events.close()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


def bound(host: str, port: int) -> socket.socket:
    """Returns a socket that listens there; ConfigError that says why it cannot. Port 0 takes a free one."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )[0]
    except OSError as e:
        raise ConfigError(f"there is no address {host!r} ({e.strerror}); choose another --host") from None
    # the protocol by name: asyncio sets TCP_NODELAY on no other, and then every answer's body waits 40 ms
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as e:
        listener.close()
        raise ConfigError(f"port {port} on {host} cannot be used ({e.strerror}); choose another --port") from None
    return listener


def serve(settings: Settings, listening: Callable[[str], None], *, access: bool = True) -> None:
    """Runs a server until it is told to stop (Ctrl-C, SIGTERM). listening: is given its address, as soon as it answers.

    Raises ConfigError where the port or the folder cannot be used, ModelError where a model cannot be loaded.
    """
    listener = bound(settings.host, settings.port)
    try:
        app = create_app(settings)
        _run(app, settings, listener, listening, access)
    finally:
        listener.close()


def _run(app: Any, settings: Settings, listener: socket.socket, listening: Callable[[str], None], access: bool) -> None:
    port = listener.getsockname()[1]
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    config = uvicorn.Config(
        app, lifespan="on", log_config=None, access_log=access, server_header=False, proxy_headers=False,
        timeout_graceful_shutdown=10, h11_max_incomplete_event_size=32 * 1024,
    )  # fmt: skip
    server = _Server(config)
    failed: list[ModelError] = []
    start = app.state.core.start

    async def started() -> None:
        try:
            await start()
        except ModelError as e:
            failed.append(e)
            raise
        listening(f"http://{shown}:{port}")

    app.state.core.start = started
    # Uvicorn logs the traceback of a start that failed, and exits; here the caller is given the error, to tell it.
    log = logging.getLogger("uvicorn.error")

    def unless_failed(_: logging.LogRecord) -> bool:
        return not failed

    log.addFilter(unless_failed)
    # Uvicorn raises the signal that stopped it once more, for the handler of before: a server that stopped as it was
    # told to ends with exit code 0.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listener])
    except SystemExit:
        if not failed:
            raise
    finally:
        log.removeFilter(unless_failed)
        for number, handler in before.items():
            signal.signal(number, handler)
    if failed:
        raise failed[0]
