"""Adjectives: warps wrap a distance function, coats wrap a paint.

Every warp keeps the object on the ground y = 0 and divides by its steepest stretch, so that the result stays a lower
bound of the distance; bumps are sums of sines, which keep normals smooth. Knows no object and no material.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pops.toybox.looks import over
from pops.toybox.patterns import cells, each, fbm, grade, hexes, mix, noise, ramp, rise, saw, spots, tone, wrap
from pops.toybox.surface import Paint, Sdf, Surface

Point = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]  # x, y, z and unit normal nx, ny, nz
Layer = Callable[[Surface, Point], Surface]
Warp = Callable[[Sdf], Sdf]


@dataclass(frozen=True)
class Adjective:
    name: str
    kind: Literal["shape", "look"]
    warp: Warp | None = None
    coat: Callable[[Paint], Paint] | None = None
    reach: float = 1.0  # how many times larger than the object's own box the warped one may be


ADJECTIVES: dict[str, Adjective] = {}


def shape(name: str, reach: float = 1.0) -> Callable[[Warp], Warp]:
    """Registers a warp as the adjective `name`."""

    def enter(warp: Warp) -> Warp:
        ADJECTIVES[name] = Adjective(name, "shape", warp=warp, reach=reach)
        return warp

    return enter


def look(name: str) -> Callable[[Layer], Layer]:
    """Registers a layer (surface below, point) -> surface as the adjective `name`."""

    def enter(layer: Layer) -> Layer:
        ADJECTIVES[name] = Adjective(name, "look", coat=_coat(layer))
        return layer

    return enter


def _coat(layer: Layer) -> Callable[[Paint], Paint]:
    return lambda paint: lambda *point: layer(paint(*point), point)


def _light(s: Surface, x: Tensor) -> Tensor:
    """Returns the perceived lightness of the layer below, 0..1, by which its pattern stays visible."""
    return (0.2 * s.rgb[0] + 0.7 * s.rgb[1] + 0.1 * s.rgb[2] + 0 * x).clamp_min(0).sqrt()


# ---- shapes ------------------------------------------------------------------------------------------------


def _stretch(sdf: Sdf, wide: float, high: float) -> Sdf:
    return lambda x, y, z: sdf(x * (1 / wide), y * (1 / high), z * (1 / wide)) * min(wide, high)


@shape("tiny")
def tiny(sdf: Sdf) -> Sdf:
    return _stretch(sdf, 0.5, 0.5)


@shape("enormous", reach=1.3)
def enormous(sdf: Sdf) -> Sdf:
    return _stretch(sdf, 1.3, 1.3)


@shape("tall", reach=1.2)
def tall(sdf: Sdf) -> Sdf:
    return _stretch(sdf, 0.55, 1.2)


@shape("flat", reach=1.15)
def flat(sdf: Sdf) -> Sdf:
    return _stretch(sdf, 1.15, 0.38)


@shape("twisted", reach=1.2)
def twisted(sdf: Sdf) -> Sdf:
    def warped(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        angle = 2.0 * (y - 0.7)
        c, s = torch.cos(angle), torch.sin(angle)
        return sdf(c * x - s * z, y, s * x + c * z) * 0.55

    return warped


@shape("wavy", reach=1.15)
def wavy(sdf: Sdf) -> Sdf:
    def warped(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return sdf(x + 0.11 * torch.sin(y * 8.5), y, z + 0.08 * torch.cos(y * 8.5)) * 0.6

    return warped


@shape("leaning", reach=1.4)
def leaning(sdf: Sdf) -> Sdf:
    return lambda x, y, z: sdf(x + 0.3 - 0.45 * y, y, z) * 0.8


@shape("spiky", reach=1.15)
def spiky(sdf: Sdf) -> Sdf:
    """Adds cones along the normal, on a honeycomb in the axis plane that faces it. Four evaluations."""
    e, k = 0.04, 1.12

    def warped(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        x, y, z = x * k, (y - 0.05) * k, z * k
        d = sdf(x, y, z)
        nx, ny, nz = sdf(x + e, y, z) - d, sdf(x, y + e, z) - d, sdf(x, y, z + e) - d
        t = d * (nx * nx + ny * ny + nz * nz + 1e-8).rsqrt()  # the nearest surface point is t along the slope
        u, v = wrap(x - t * nx, y - t * ny, z - t * nz, nx, ny, nz)
        du, dv, *_ = hexes(u * 3.7, v * 3.7)
        cone = (1 - (du * du + dv * dv + 0.002).sqrt() * 2.1).clamp_min(0)
        return (d - 0.27 * cone) * 0.3

    return warped


@shape("inflated", reach=1.1)
def inflated(sdf: Sdf) -> Sdf:
    return lambda x, y, z: sdf(x * 1.12, (y - 0.13) * 1.12, z * 1.12) * (1 / 1.12) - 0.13


@shape("melting", reach=1.3)
def melting(sdf: Sdf) -> Sdf:
    def warped(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        drip = torch.sin(x * 7.0 + 1.0) * torch.sin(z * 7.0 + 2.0)
        sag = sdf(x + 0.05 * torch.sin(y * 6.0), y * 1.35 + 0.22 * drip, z + 0.05 * torch.cos(y * 5.0)) * 0.55 - 0.02
        # the slice at y = 0.3, spread out
        foot = sdf(x * 0.9, torch.full_like(y, 0.3), z * 0.9) - 0.16 - 0.06 * drip
        puddle = torch.maximum(foot * 0.8, y - 0.06)
        h = (0.12 - (sag - puddle).abs()).clamp_min(0)
        return torch.minimum(sag, puddle) - h * h * (0.25 / 0.12)

    return warped


@shape("blocky", reach=1.1)
def blocky(sdf: Sdf) -> Sdf:
    k = math.tau / 0.25  # steps 0.25 wide: coordinates change little within a step and fast across its edge

    def step(p: Tensor) -> Tensor:
        p = p - torch.sin(k * p) * (0.9 / k)
        return p - torch.sin(k * p) * (0.8 / k)

    return lambda x, y, z: sdf(step(x), step(y), step(z)) * 0.36


@shape("full of holes")
def full_of_holes(sdf: Sdf) -> Sdf:
    return lambda x, y, z: torch.maximum(sdf(x, y, z), 0.125 - 0.8 * _to_lattice(x, y, z, 0.36)) * 0.85


def _to_lattice(x: Tensor, y: Tensor, z: Tensor, step: float) -> Tensor:
    """Returns the distance to the nearest point of a rotated lattice, with which no flat side is aligned."""
    x, y, z = x * (2 / 3 / step), y * (2 / 3 / step), z * (2 / 3 / step)
    # a rotation and scaling: the rows are orthogonal and of equal length
    u, v, w = x - 0.5 * y + z, x + y - 0.5 * z + 0.2, y + z - 0.5 * x
    u, v, w = u - u.round(), v - v.round(), w - w.round()
    return (u * u + v * v + w * w + 0.002).sqrt() * step


def _tufts(x: Tensor, y: Tensor, z: Tensor) -> Tensor:  # -1..1, tufts about 0.12 apart
    a, b, c = 25 * x + 2 * torch.sin(9 * y), 25 * y + 2 * torch.sin(9 * z), 25 * z + 2 * torch.sin(9 * x)
    return torch.sin(a) * torch.sin(b) * torch.sin(c) + 0.35 * torch.sin(1.9 * (a + b)) * torch.sin(1.9 * (b + c))


def _fluffy_shape(sdf: Sdf) -> Sdf:
    return lambda x, y, z: (sdf(x * 1.1, (y - 0.08) * 1.1, z * 1.1) * (1 / 1.1) - 0.08 - 0.035 * _tufts(x, y, z)) * 0.5


def _fluffy_look(s: Surface, point: Point) -> Surface:
    x, y, z, *_ = point
    tip = rise(_tufts(x, y, z), -0.7, 0.8)
    pale = each(lambda c: 0.6 * c + 0.3, s.rgb)
    rgb = mix(grade(s.rgb, 0.55), pale, tip)
    return Surface(rgb, 1.0, 0.0, each(lambda a, b: a + b, s.glow, grade(rgb, 0.08)))


ADJECTIVES["fluffy"] = Adjective("fluffy", "shape", _fluffy_shape, _coat(_fluffy_look), reach=1.1)


# ---- looks -------------------------------------------------------------------------------------------------


@look("golden")
def golden(s: Surface, point: Point) -> Surface:
    light = _light(s, point[0])
    return Surface(mix(tone("#eb9c1c"), tone("#ffdf80"), light), 0.12 + 0.1 * light, 1.0)


@look("wooden")
def wooden(s: Surface, point: Point) -> Surface:
    x, y, z, *_ = point
    ring = y * 4.2 + z * 2.4 + 0.9 * noise(x * 0.5 + 3, y * 0.8, z * 0.8)
    grain = ring - ring.floor() + 0.05 * noise(x * 1.5, y * 10, z * 10)
    rgb = ramp(
        grain,
        ((0.0, tone("#e9bd80")), (0.6, tone("#bf7d3e")), (0.9, tone("#683816")), (1.0, tone("#e9bd80"))),
    )
    return Surface(grade(rgb, 0.5 + 0.6 * _light(s, x)), 0.5)


@look("frozen")
def frozen(s: Surface, point: Point) -> Surface:
    x, y, z, _, ny, _ = point
    wall, tag = cells(x * 1.9, y * 1.9, z * 1.9)
    ice = mix(tone("#4fb4ee"), tone("#b9ecff"), 0.5 * tag + 0.5 * _light(s, x))
    frost = torch.maximum(rise(wall, 0.05, 0.02), 0.9 * rise(0.5 * fbm(x * 2, y * 2, z * 2) + ny, 0.5, 0.9))
    rgb = mix(mix(s.rgb, ice, 0.8 + 0 * x), tone("#ffffff"), frost)
    return Surface(rgb, 0.05 + 0.5 * frost, 0.0, grade(rgb, 0.15))


@look("burning")
def burning(s: Surface, point: Point) -> Surface:
    x, y, z, *_ = point
    flame = noise(x * 2.6, y * 1.1, z * 2.6) * 0.34 + noise(x * 6, y * 2.4, z * 6) * 0.1 + 0.95 - 0.75 * y
    fire = ramp(
        flame,
        ((0.0, tone("#7a0c00")), (0.3, tone("#ff3300")), (0.65, tone("#ff9a0a")), (1.0, tone("#fff0a0"))),
    )
    hot = rise(flame, 0.05, 0.2)
    char = Surface(grade(s.rgb, 0.3 + 0.3 * rise(y, 0.6, 1.8)), 0.9, s.metal)
    return over(char, Surface(grade(fire, 0.2), 0.9, 0.0, grade(fire, 1.25)), hot)


@look("rusty")
def rusty(s: Surface, point: Point) -> Surface:
    x, y, z, *_ = point
    f, g = fbm(x * 1.4 + 2, y * 1.4, z * 1.4), fbm(x * 3, y * 3 + 5, z * 3)
    rot = ramp(g + 0.4 * f, ((-1.2, tone("#4f1d0c")), (0.0, tone("#a4430f")), (1.2, tone("#e07a28"))))
    return over(s, Surface(rot, 0.95, 0.0), rise(f + 0.25 * g, -0.3, -0.1))


@look("mossy")
def mossy(s: Surface, point: Point) -> Surface:
    x, y, z, _, ny, _ = point
    tuft = fbm(x * 4, y * 4, z * 4)
    moss = ramp(tuft, ((-1.2, tone("#2f5c12")), (0.2, tone("#6a9e20")), (1.5, tone("#bcd648"))))
    return over(s, Surface(moss, 1.0), rise(ny + 0.45 * fbm(x * 1.3 + 1, y * 1.3, z * 1.3) + 0.1 * tuft, 0.0, 0.15))


@look("snowy")
def snowy(s: Surface, point: Point) -> Surface:
    x, y, z, _, ny, _ = point
    snow = mix(tone("#d6e6fa"), tone("#ffffff"), rise(ny, 0.1, 0.7))
    cover = rise(ny + 0.18 * noise(x * 3.2, y * 3.2, z * 3.2) + 0.05 * noise(x * 8, y * 8, z * 8), 0.22, 0.34)
    flake = rise(spots(x * 5.5, y * 5.5, z * 5.5)[0], 0.2, 0.14)  # flakes on the bare sides
    return over(s, Surface(snow, 0.95, 0.0, grade(snow, 0.12)), torch.maximum(cover, flake))


@look("striped")
def striped(s: Surface, point: Point) -> Surface:
    x, y, z, *_ = point
    t = (x * 1.5 + y * 1.05 + z * 0.3) * 1.1
    t = t - t.floor()
    ink = mix(tone("#1a1840"), tone("#ffffff"), (t < 0.5).to(t.dtype))
    return over(s, Surface(ink, 0.5), rise(saw(t * 2), 0.5, 0.56))


@look("spotted")
def spotted(s: Surface, point: Point) -> Surface:
    du, dv, _, _ = hexes(*(c * 2.6 for c in wrap(*point)))
    d = (du * du + dv * dv).sqrt()
    ink = mix(tone("#231a4a"), tone("#ffffff"), rise(d, 0.22, 0.25))
    return over(s, Surface(ink, 0.5), rise(d, 0.35, 0.32))


@look("rainbow")
def rainbow(s: Surface, point: Point) -> Surface:
    x, y, *_ = point
    bands = [tone(c) for c in ("#f0223a", "#ff8a14", "#ffe21a", "#1fb84a", "#1f78f0", "#7a2bd0", "#f0223a")]
    t = 0.62 * y + 0.42 * x
    rgb = ramp(t - t.floor(), [(i / 6, c) for i, c in enumerate(bands)])
    return Surface(grade(rgb, 0.5 + 0.6 * _light(s, x)), 0.35)


@look("cracked")
def cracked(s: Surface, point: Point) -> Surface:
    x, y, z, *_ = point
    bend = 0.14 * noise(x * 3, y * 3, z * 3)
    wall = cells(x * 2.0 + bend, y * 2.0 - bend, z * 2.0 + bend)[0]
    fine = cells(x * 4.2 + 3, y * 4.2 - bend, z * 4.2)[0]
    crack = torch.maximum(rise(wall, 0.075, 0.045), rise(fine, 0.045, 0.02) * rise(noise(x, y, z), -0.2, 0.1))
    return over(s, Surface(tone("#0d0a0a"), 1.0), crack)


@look("shiny")
def shiny(s: Surface, point: Point) -> Surface:
    return Surface(each(lambda c: 0.3 + 0.7 * c, s.rgb), 0.02, 1.0, s.glow)


@look("glass")
def glass(s: Surface, point: Point) -> Surface:
    _, _, _, nx, ny, _ = point
    # as through a lens: the scene upside down, light gathered low and opposite the sun, a dark band between
    lens = rise(ny + 0.25 * nx, 0.75, -0.65)
    rgb = ramp(
        lens,
        ((0.0, tone("#d8f4f2")), (0.35, tone("#5f9aa0")), (0.6, tone("#a6dcd8")), (1.0, tone("#f4fffb"))),
    )
    rgb = mix(rgb, each(lambda c: 0.15 + 0.85 * c, s.rgb), 0.3)
    return Surface(grade(rgb, 0.45), 0.02, 0.0, grade(rgb, 0.5 * lens + 0.12))


@look("neon")
def neon(s: Surface, point: Point) -> Surface:
    top = torch.maximum(torch.maximum(s.rgb[0] + 0 * point[0], s.rgb[1] + 0 * point[0]), s.rgb[2] + 0 * point[0]) + 0.02
    vivid = each(lambda c: (c / top) ** 1.6, s.rgb)
    return Surface(grade(vivid, 0.5), 0.6, 0.0, grade(vivid, 0.9))


@look("muddy")
def muddy(s: Surface, point: Point) -> Surface:
    x, y, z, *_ = point
    mud = ramp(fbm(x * 2, y * 2, z * 2), ((-1.2, tone("#4a2f18")), (1.2, tone("#8a6238"))))
    splash = rise(spots(x * 3.2, y * 3.2, z * 3.2)[0], 0.3, 0.24) * rise(y, 1.5, 1.1)
    level = rise(y + 0.1 * noise(x * 3, y * 2, z * 3), 0.62, 0.54)
    return over(s, Surface(mud, 0.3), torch.maximum(level, splash))


@look("black and white")
def black_and_white(s: Surface, point: Point) -> Surface:
    grey = _light(s, point[0]) ** 2
    glow = 0.3 * s.glow[0] + 0.6 * s.glow[1] + 0.1 * s.glow[2]
    return Surface((grey, grey, grey), s.rough, s.metal, (glow, glow, glow))


@look("chequered")
def chequered(s: Surface, point: Point) -> Surface:
    u, v = wrap(*point)
    i, j = (u * 3.4).floor(), (v * 3.4).floor()
    ink = mix(tone("#17161c"), tone("#ffffff"), torch.remainder(i + j, 2))
    band = rise(saw(point[1] * 0.85 + 0.27), 0.46, 0.44)  # rings of racing flag, the material between them
    return over(s, Surface(ink, 0.35), band)
