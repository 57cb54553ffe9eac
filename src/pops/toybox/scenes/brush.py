"""Building blocks of backdrops and grounds: colours, soft edges, noise, repeated shapes, silhouettes.

Everything takes coordinates [...] and parameters that are floats or [B, 1]; masks run from 0 to 1.
Backdrop coordinates are azimuth `a` (radians) and `h` (sine of elevation above the horizon): the image
shows |a| < 0.28 and 0 < h < 0.2, and one of its 96 pixels is 0.006 wide.
"""

import math

import torch
from torch import Tensor

from pops.toybox.scenes.base import sin
from pops.toybox.surface import Float, Rgb

TURN = 2 * math.pi


def rgb(code: str) -> tuple[float, float, float]:  # sRGB "f0c080" -> linear
    r, g, b = (int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return decoded(r), decoded(g), decoded(b)


def decoded(c: float) -> float:  # one sRGB value to linear light
    return c / 12.92 if c <= 0.04045 else float(((c + 0.055) / 1.055) ** 2.4)


def mix(a: Rgb, b: Rgb, t: Float) -> Rgb:
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t


def scaled(c: Rgb, k: Float) -> Rgb:
    return c[0] * k, c[1] * k, c[2] * k


def added(c: Rgb, light: Rgb, k: Float) -> Rgb:
    return c[0] + light[0] * k, c[1] + light[1] * k, c[2] + light[2] * k


def warmed(c: Rgb, w: Float) -> Rgb:  # w > 0 warmer, w < 0 cooler
    return (c[0] * (1 + w), c[1] * (1 + 0.2 * w), c[2] * (1 - w))


def wheel(hue: Float, light: Float = 0.45, chroma: Float = 0.4) -> Rgb:  # hue in turns: 0 red, 1/3 green, 2/3 blue
    t = (hue + 0.25) * TURN
    r, g, b = (light + chroma * sin(t - TURN * i / 3) for i in range(3))
    return r, g, b


def ramp(lo: Float, hi: Float, v: Tensor) -> Tensor:  # smoothstep; lo > hi falls
    t = ((v - lo) / (hi - lo)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def inside(d: Tensor, soft: float = 0.004) -> Tensor:  # signed distance -> mask
    return (0.5 - d / soft).clamp(0, 1)


def billow(u: Tensor, v: Tensor) -> Tensor:  # smooth noise of warped sines, about -1..1, features ~3 units wide
    p = (u + 1.9 * (0.63 * v).sin()).sin()
    q = (1.31 * v + 1.7 * (0.71 * u).sin()).sin()
    return 0.4 * (p + q) + 0.3 * (1.9 * u - 1.3 * v + 1.5 * p).sin() + 0.2 * (2.3 * u + 3.1 * v + 1.7 * q).sin()


def hashed(n: Tensor, m: Float = 0.0) -> Tensor:  # whole numbers -> 0..1, the same on CPU and GPU
    return ((n * 12.9898 + m * 78.233).sin() * 437.58).frac().abs()


def copies(a: Tensor, n: int, phase: Float = 0.0) -> tuple[Tensor, Tensor]:
    """Repeats n times round the circle: returns the offset (radians) from the nearest copy's middle, and its number."""
    u = a * (n / TURN) + phase
    k = u.round()
    return (u - k) * (TURN / n), k.remainder(n)


def peaks(a: Tensor, n: int, phase: Float) -> Tensor:  # mountain skyline 0..1, n large peaks round the full circle
    return (
        1.0
        - 0.55 * (a * (n / 2) + phase).sin().abs()
        - 0.25 * (a * (1.5 * n) + 2.7 * phase).sin().abs()
        - 0.12 * (a * (4.5 * n) + phase).sin().abs()
    )


def hills(a: Tensor, n: int, phase: Float) -> Tensor:  # rolling skyline 0..1
    return 0.5 + 0.32 * (a * n + phase).sin() + 0.18 * (a * (2 * n) + 1.7 * phase).sin()


def length(u: Tensor, v: Tensor) -> Tensor:  # several times faster on CPUs than torch.hypot
    return (u * u + v * v).sqrt()


def stroke(
    u: Tensor, v: Tensor, start: tuple[float, float], end: tuple[float, float]
) -> Tensor:  # distance from a line segment
    du, dv = end[0] - start[0], end[1] - start[1]
    t = (((u - start[0]) * du + (v - start[1]) * dv) / (du * du + dv * dv)).clamp(0, 1)
    return length(u - start[0] - t * du, v - start[1] - t * dv)


def disc(u: Tensor, v: Tensor, cu: Float, cv: Float, radius: Float) -> Tensor:  # signed distance
    return length(u - cu, v - cv) - radius


def puffs(a: Tensor, h: Tensor, n: int, phase: Float, base: float, size: float = 0.03) -> tuple[Tensor, Tensor]:
    """Returns n flat-bottomed clouds round the circle, `base` above the horizon: mask and light (0 below .. 1)."""
    u, k = copies(a, n, phase)
    rnd = hashed(k, 3.0)
    u, v = u / size + (rnd - 0.5) * 3, (h - base) / size - (rnd - 0.5) * 1.5
    d = disc(u, v, 0.0, 0.45, 0.9)
    for cu, cv, radius in ((-1.05, 0.15, 0.6), (1.0, 0.2, 0.7), (1.85, 0.0, 0.4), (-1.8, 0.0, 0.35)):
        d = torch.minimum(d, disc(u, v, cu, cv, radius))
    return inside(torch.maximum(d, -0.3 - v), 0.3), (0.5 + 0.5 * v).clamp(0, 1)


def dots(u: Tensor, v: Tensor, radius: Float, share: float = 1.0) -> tuple[Tensor, Tensor]:
    """Puts one jittered dot per unit square in `share` of them: signed distance and a number 0..1 per dot."""
    i, j = u.floor(), v.floor()
    rnd = hashed(i, j)
    u, v = u - i - 0.3 - 0.4 * rnd, v - j - 0.3 - 0.4 * (rnd * 7.3).frac()
    return length(u, v) - radius + (rnd * 3.7).frac().gt(share) * 9.0, (rnd * 17.1).frac()


def detail(x: Tensor, z: Tensor) -> Tensor:  # 1 near the object, less afar: keeps ground patterns from sparkling
    return 1 / (1 + 0.006 * (x * x + (z - 2) * (z - 2)))
