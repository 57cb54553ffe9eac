"""The settings of sampling, checked in one place: steps, guidance, sampler, strength. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from pops.errors import ConfigError, ensure, shown, suggest
from pops.prior.samplers import check_sampler

MAX_STEPS = 1000
MAX_GUIDANCE = 100.0
MAX_STRENGTH = 10.0
SAMPLING = ("steps", "guidance", "sampler", "strength")
MOST = {"guidance": MAX_GUIDANCE, "strength": MAX_STRENGTH}


def check_options(options: Mapping[str, object]) -> None:
    """Checks settings of sampling by name; ConfigError for an unknown name or a value that cannot be."""
    for key, value in options.items():
        given = shown(repr(value) if isinstance(value, str) else value, 60)
        if key not in SAMPLING:
            near = suggest(key, SAMPLING)
            raise ConfigError(f"unknown option '{shown(key, 60)}'{near}; choose from {', '.join(SAMPLING)}")
        if key == "steps":
            whole = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_STEPS
            ensure(whole, f"steps must be from 1 to {MAX_STEPS}, a whole number, got {given}", ConfigError)
        elif key in MOST:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            fine = number and 0 <= value <= MOST[key]  # type: ignore[operator]  # a number by then; not NaN
            ensure(fine, f"{key} must be from 0 to {MOST[key]:g}, got {given}", ConfigError)
        else:
            ensure(isinstance(value, str), f"sampler must be a name, got {given}", ConfigError)
            check_sampler(str(value))
