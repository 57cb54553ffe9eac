"""What the language knows of MagicMix: the operator mix(layout, content), its roles and its options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

from pops.errors import ConfigError, suggest
from pops.magicmix.operands import MixSettings
from pops.magicmix.prompt import Prompt
from pops.magicmix.schedule import parse_nu

_SIZE = re.compile(r"(\d{1,5})[xX×](\d{1,5})")


@dataclass(frozen=True)
class MixRole:
    """An operand of a mix: a photo, a text, an image, an embedding or, as layout, a latent."""

    name: str
    kind: Literal["any"] = "any"


@dataclass(frozen=True)
class MixSpec:
    """mix(layout, content) as the planner sees it, an operator like any other."""

    name: str = "mix"
    roles: tuple[MixRole, ...] = (MixRole("layout"), MixRole("content"))

    @property
    def arity(self) -> tuple[int, int | None]:
        """Fewest and most operands."""
        return len(self.roles), len(self.roles)

    def check_options(self, options: Mapping[str, int | float | str]) -> None:
        """Checks the options of one call; ConfigError for an unknown name or a value that cannot be."""
        mix_settings(options)

    def check_text(self, text: str) -> None:
        """Checks a text operand; ConfigError for a strength out of range ("tiger:3")."""
        Prompt.of(text)


MIX = MixSpec()


def mix_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of mix(...) in an expression as MixSettings takes them: nu="0.9,0.5" and size="96x128" are
    written as words there. Raises ConfigError where they do not fit.
    """
    settings = dict(options)
    for name in settings:
        if name not in MixSettings.__dataclass_fields__:
            known = MixSettings.__dataclass_fields__
            raise ConfigError(f"unknown option '{name}'{suggest(name, known)}; choose from {', '.join(known)}")
    if isinstance(settings.get("nu"), str):
        settings["nu"] = parse_nu(settings["nu"])
    if isinstance(settings.get("size"), str):
        found = _SIZE.fullmatch(settings["size"].strip())
        if found is None:
            raise ConfigError(f"size is a number of pixels, or HEIGHTxWIDTH, got {settings['size']!r}")
        settings["size"] = (int(found[1]), int(found[2]))
    MixSettings.of(settings)
    return settings


def _plain(value: Any) -> Any:
    """Python's own number for one of NumPy's."""
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


def mix_options(settings: Mapping[str, Any]) -> tuple[tuple[str, int | float | str], ...]:
    """Returns settings, as Python calls give them, as the options of mix(...) in an expression; None is left out."""
    options: dict[str, int | float | str] = {}
    for name, value in settings.items():
        if value is None:
            continue
        if isinstance(value, (list, tuple)):
            options[name] = ("x" if name == "size" else ",").join(str(_plain(v)) for v in value)
        else:
            options[name] = _plain(value)
    mix_settings(options)
    return tuple(sorted(options.items()))
