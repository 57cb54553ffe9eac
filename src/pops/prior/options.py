"""The settings of sampling, checked in one place: steps, guidance, sampler. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pops.errors import ConfigError, ensure, suggest
from pops.prior.samplers import check_sampler

MAX_STEPS = 1000
MAX_GUIDANCE = 100.0
SAMPLING = ("steps", "guidance", "sampler")


def check_options(options: Mapping[str, object]) -> None:
    """Checks settings of sampling by name; ConfigError for an unknown name or a value that cannot be."""
    for key, value in options.items():
        if key not in SAMPLING:
            raise ConfigError(f"unknown option '{key}'{suggest(key, SAMPLING)}; choose from {', '.join(SAMPLING)}")
        if key == "steps":
            whole = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_STEPS
            ensure(whole, f"steps must be from 1 to {MAX_STEPS}, a whole number, got {value!r}", ConfigError)
        elif key == "guidance":
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            fine = number and 0 <= value <= MAX_GUIDANCE  # type: ignore[operator]  # a number by then
            ensure(fine, f"guidance must be from 0 to {MAX_GUIDANCE:g}, got {value!r}", ConfigError)
        else:
            ensure(isinstance(value, str), f"sampler must be a name, got {value!r}", ConfigError)
            check_sampler(str(value))
