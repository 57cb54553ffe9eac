"""What a scene is: a painted backdrop, a ground, a key light, a hemisphere of fill; and the table of scenes.

Knows neither objects nor the renderer. Directions are unit vectors; colours are linear light.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pops.toybox.surface import Float, Rgb, Surface

# Sine of the elevation where the ground ends and the backdrop begins, as on a stop-motion set: the camera
# looks ~12 degrees down, so a true horizon would leave the backdrop an eighth of the image, not a third.
HORIZON = -0.13

Sky = Callable[[Tensor, Tensor, Tensor], Rgb]  # unit direction dx, dy, dz -> colour seen there
Backdrop = Callable[[Tensor, Tensor], Rgb]  # azimuth (rad, 0 = -z, + right), sine of elevation above HORIZON -> colour


@dataclass(frozen=True)
class Setting:
    sky: Sky  # every direction, also below the horizon (for reflections)
    ground: Callable[[Tensor, Tensor], Surface]  # the plane y = 0 at x, z
    sun: tuple[Float, Float, Float]  # unit direction to the key light
    sun_rgb: Rgb  # the key light
    fill_up: Rgb  # ambient from above
    fill_down: Rgb  # ambient from below
    fog_rgb: Rgb  # what the ground fades to, by 1 - exp(-fog * distance)
    fog: float
    horizon: float = HORIZON  # rays with dy above this see the sky even where the plane y = 0 lies ahead


Build = Callable[[Mapping[str, Float]], Setting]  # parameters -> setting


@dataclass(frozen=True)
class Scene:
    name: str
    phrase: str  # "on a beach"
    build: Build
    ranges: Mapping[str, tuple[float, float]]  # parameters, uniform


SCENES: dict[str, Scene] = {}


def scene(name: str, *, phrase: str, **ranges: tuple[float, float]) -> Callable[[Build], Build]:
    def enter(build: Build) -> Build:
        SCENES[name] = Scene(name, phrase, build, {"sun": (-50.0, 50.0), **ranges})
        return build

    return enter


def setting(
    s: Mapping[str, Float],
    backdrop: Backdrop,
    ground: Callable[[Tensor, Tensor], Surface],
    *,
    key: Rgb,
    up: Rgb,
    down: Rgb,
    below: Rgb,
    above: Rgb,
    fog: float = 0.01,
    height: float = 42.0,
) -> Setting:
    """Makes a Setting from a scene's parameters `s` and its parts.

    below: the ground from afar, which reflections see under the horizon and to which the ground fades; above: the plain
    colour overhead, which only reflections see (azimuth has no meaning there); height: the key light's elevation in
    degrees; s["sun"]: its azimuth (0 = from the camera).
    """
    across, rise = s["sun"] * (math.pi / 180), math.radians(height)
    sun = (sin(across) * math.cos(rise), math.sin(rise), cos(across) * math.cos(rise))

    def sky(dx: Tensor, dy: Tensor, dz: Tensor) -> Rgb:
        h = dy - HORIZON
        far = backdrop(torch.atan2(dx, -dz), h.clamp(min=0))
        floor, dome = (h * -25).clamp(0, 1), (h * 4 - 1).clamp(0, 1)
        lamp = (dx * sun[0] + dy * sun[1] + dz * sun[2]).clamp(min=0) ** 48  # the key light in a mirror
        rows = zip(far, above, below, key, strict=True)
        r, g, b = (f + (top - f) * dome + (low - f) * floor + k * lamp for f, top, low, k in rows)
        return r, g, b

    return Setting(sky, ground, sun, key, up, down, below, fog)


def sin(v: Float) -> Float:
    return v.sin() if isinstance(v, Tensor) else math.sin(v)


def cos(v: Float) -> Float:
    return v.cos() if isinstance(v, Tensor) else math.cos(v)
