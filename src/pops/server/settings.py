"""What a server is started with: where its data lie, what it loads, whom it answers, and its limits."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pops.errors import ConfigError, ensure
from pops.recipe import MAX_IMAGES, SHIPPED, Loading

SAME_MACHINE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Limits:
    """What one server takes on; a request beyond a limit is refused with a status that says so."""

    queue: int = 256  # jobs that wait
    json_body: int = 2**20  # bytes of a request that is no photo
    photo_body: int = 64 * 2**20  # bytes of an uploaded photo, with what surrounds it
    project_body: int = 512 * 2**20  # bytes of a project's file, packed and unpacked
    photo_pixels: int = 50_000_000
    photo_seconds: float = 20  # to decode one
    photo_memory: int = 2 * 2**30  # bytes that the process that decodes photos may have
    length: int = 8_000  # characters of an expression
    depth: int = 32  # of calls, sums and lets within one another
    images: int = 64  # of a job
    image_pixels: int = 2**24  # of one image, enlarged
    threads: int = 64  # that a recipe may ask for
    seconds: float = 600  # of a job
    disk: int = 10 * 2**30  # bytes of photos and images
    history: int = 1_000  # ended jobs that are kept, with their images
    projects: int = 1_000
    listeners: int = 2_000  # event streams that are open at a time

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            ensure(value > 0, f"the limit {name} must be above 0, got {value}", ConfigError)
        ensure(self.images <= MAX_IMAGES, f"the limit images is at most {MAX_IMAGES}, got {self.images}", ConfigError)


@dataclass(frozen=True)
class Settings:
    """How a server is started. models: the first is that of recipes which name none."""

    data: Path
    models: tuple[Loading, ...] = (Loading(model=SHIPPED),)
    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = None
    hosts: tuple[str, ...] = ()  # names, beside this machine's own, by which browsers may reach the server
    libraries: Mapping[str, Path] = field(default_factory=dict)  # of photos, by the name that recipes use
    examples: Path | None = None  # a folder of photos that recipes may name: examples/...
    shared: bool = False  # whether images of several jobs are computed in one batch
    gallery: bool = False  # takes in what the first page shows of the worked examples at the start
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        told = "--host {} is reached from other machines; add --token TOKEN (or POPS_TOKEN)"
        ensure(self.token is not None or is_loopback(self.host), told.format(self.host), ConfigError)
        ensure(self.token is None or len(self.token) >= 8, "--token has fewer than 8 characters; use more", ConfigError)
        plain = self.token is None or (self.token.isascii() and self.token.isprintable() and " " not in self.token)
        ensure(plain, "--token takes ASCII letters, digits and signs, without spaces", ConfigError)
        names = [str(loading.model) for loading in self.models]
        ensure(bool(names), "a server needs a model; add --model", ConfigError)
        ensure(len(set(names)) == len(names), "--model names the same model twice; name it once", ConfigError)

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """The names that a request's Host may have."""
        own = () if self.host in ("", "0.0.0.0", "::") else (self.host,)
        return frozenset(name.lower() for name in (*SAME_MACHINE, *own, *self.hosts))

    @property
    def default(self) -> str:
        """The name of the model of recipes that name none."""
        return str(self.models[0].model)


def is_loopback(host: str) -> bool:
    """Returns whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
