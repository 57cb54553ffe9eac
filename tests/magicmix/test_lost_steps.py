"""Fractions of few steps that are no step: what then has no effect is told."""

from __future__ import annotations

from typing import Any

import pytest

from pops.magicmix.operands import MixSettings


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"steps": 10, "k_max": 0.08, "k_min": 0.0}, "k_max 0.08 of 10 steps is less than one step: the content has"),
        ({"steps": 1}, "k_max 0.6 of 1 step is less than one step: the content has no effect"),
        ({"steps": 10, "k_max": 0.2, "k_min": 0.1}, "k_min 0.1 to k_max 0.2 of 10 steps leaves no step to mix: nu"),
        ({"steps": 4, "nu": 0.5}, "k_min 0.3 to k_max 0.6 of 4 steps leaves no step to mix: nu has no effect"),
        ({"steps": 10, "k_max": 0.0, "k_min": 0.0}, None),  # asked for: the layout as it is
        ({"steps": 10, "k_max": 0.5, "k_min": 0.5, "nu": 0.5}, None),  # asked for: no window
        ({"steps": 4}, None),  # nothing was asked for but few steps
        ({"steps": 10, "k_max": 0.3, "k_min": 0.1}, None),
        ({}, None),
    ],
)
def test_what_is_lost_is_told(given: dict[str, Any], says: str | None) -> None:
    told = MixSettings(**given).lost()
    assert told is None if says is None else told is not None and told.startswith(says)
    assert told is None or "; give more steps or a " in told


def test_a_mix_tells_it(random_model: Any) -> None:
    import pops

    told: list[str] = []
    p = pops.load(random_model, device="cpu")
    p.mix("red tiger", "tiger", steps=10, k_max=0.08, k_min=0, on_note=told.append)
    assert len(told) == 1 and "the content has no effect" in told[0]
