"""The paper's four applications as settings to start from; a setting that the user gives comes first."""

from __future__ import annotations

from collections.abc import Mapping

from pops.errors import ensure, suggest

# Style keeps the layout until the last tenth of the steps, and starts early enough to change colours. A new object is
# the same, with a noun as content. A breed keeps less of the layout. Removal describes the image and marks what is to
# go ("a zebra:0 rabbit"); nu is 1, since the layout still shows it. Chosen by eye, on `tiny`.
PRESETS: Mapping[str, Mapping[str, float | str]] = {
    "style": {"nu": 0.7, "k_min": 0.1, "k_max": 0.7},
    "object": {"nu": 0.7, "k_min": 0.1, "k_max": 0.7},
    "breed": {"nu": 0.8, "k_min": 0.2, "k_max": 0.7},
    "remove": {"nu": 1.0, "k_min": 0.3, "k_max": 0.9, "reach": "text"},
}


def preset(name: str) -> Mapping[str, float | str]:
    """Returns the settings with this name; ConfigError for an unknown one."""
    told = f"unknown preset {name!r}{suggest(name, PRESETS)}; choose from {', '.join(sorted(PRESETS))}"
    ensure(name in PRESETS, told)
    return PRESETS[name]
