"""The paper's four applications as settings to begin with; what the user says of a setting comes first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pops.errors import ensure, suggest

# Style holds the layout until the last tenth of the steps, and begins early enough to change colours; a new object is
# the same with a noun for content; a breed is held less; removal says what the picture shows and marks what is to go
# ("a zebra:0 rabbit"), and is not held at all, for the layout shows it still. Chosen by looking, on `tiny`.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "style": {"nu": 0.7, "k_min": 0.1, "k_max": 0.7},
    "object": {"nu": 0.7, "k_min": 0.1, "k_max": 0.7},
    "breed": {"nu": 0.8, "k_min": 0.2, "k_max": 0.7},
    "remove": {"nu": 1.0, "k_min": 0.3, "k_max": 0.9, "reach": "text"},
}


def preset(name: str) -> Mapping[str, Any]:
    """The settings with this name; ConfigError for an unknown one."""
    ensure(
        name in PRESETS, f"there is no preset {name!r}{suggest(name, PRESETS)}; there are: {', '.join(sorted(PRESETS))}"
    )
    return PRESETS[name]
