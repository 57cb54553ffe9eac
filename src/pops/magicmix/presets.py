"""The paper's four applications as settings to begin with; what the user says of a setting comes first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pops.errors import ensure, suggest

# Style holds the layout until the last tenth of the steps, and begins early enough to change colours; a new object is
# the same with a noun for content; a breed is held less; removal is a content whose attention works the other way, and
# hardly held, for the layout shows what is to go. Chosen by looking, on `tiny`.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "style": {"nu": 0.7, "k_min": 0.1, "k_max": 0.7},
    "object": {"nu": 0.7, "k_min": 0.1, "k_max": 0.7},
    "breed": {"nu": 0.8, "k_min": 0.2, "k_max": 0.7},
    "remove": {"nu": 1.0, "k_min": 0.3, "k_max": 0.95, "strength": -2.0},
}


def preset(name: str) -> Mapping[str, Any]:
    """The settings with this name; ConfigError for an unknown one."""
    ensure(
        name in PRESETS, f"there is no preset {name!r}{suggest(name, PRESETS)}; there are: {', '.join(sorted(PRESETS))}"
    )
    return PRESETS[name]
