"""Furniture, clothes, food and an instrument."""

import math

import torch
from torch import Tensor

from pops.toybox.field import (
    box,
    capsule,
    cylinder,
    every,
    length,
    mad,
    slab,
    smax,
    smin,
    sphere,
    torus,
    union,
)
from pops.toybox.objects.base import Part, Shape, category


@category(
    "chair",
    natural=((0.65, 0.42, 0.24), (0.85, 0.82, 0.76), (0.30, 0.52, 0.50), (0.80, 0.30, 0.24)),
    yaw=(-50, 50),
    back=(0.92, 1.1),
    seat=(0.92, 1.08),
    width=(0.92, 1.1),
)
def chair(s: Shape) -> list[Part]:
    """A kitchen chair facing the camera: four legs, a seat, two posts and two slats."""
    wide, seat, top = 0.48 * s["width"], 0.78 * s["seat"], 1.74 * s["back"]
    board = box((0.0, seat, 0.0), (wide + 0.06, 0.085, 0.52), 0.06)
    leg = box((wide - 0.06, seat / 2, 0.40), (0.085, seat / 2, 0.085), 0.04)
    post = box((wide - 0.06, (seat + top) / 2, -0.42), (0.085, (top - seat) / 2, 0.085), 0.05)
    slats = box((0.0, top - 0.20, -0.42), (wide - 0.05, 0.17, 0.06), 0.04)
    lower = box((0.0, (seat + top) / 2 - 0.06, -0.42), (wide - 0.05, 0.085, 0.06), 0.04)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        m = x.abs()
        d = union(board(x, y, z), leg(m, y, z.abs()), post(m, y, z))
        return union(d, slats(x, y, z), lower(x, y, z))

    return [Part(body)]


@category(
    "donut",
    natural=((0.92, 0.45, 0.60), (0.36, 0.20, 0.12), (0.50, 0.75, 0.85)),
    yaw=(-35, 35),
    fat=(0.9, 1.12),
    wave=(0.04, 0.09),
)
def donut(s: Shape) -> list[Part]:
    """Standing, so that the hole shows: icing and sprinkles in front, dough behind."""
    fat, wave = 0.33 * s["fat"], s["wave"]
    ring, cell = 0.58, 2 * math.pi / 7
    up = ring + fat - 0.022
    dough = torus((0.0, up, -0.02), ring, fat - 0.025, "z")
    crumb = capsule((ring - 0.10, -0.05, fat * 0.97), (ring - 0.13, 0.05, fat * 0.95), 0.036)
    outer = capsule((ring + 0.10, -0.04, fat * 0.97), (ring + 0.17, 0.03, fat * 0.90), 0.036)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        y = y - up
        d = length(length(x, y) - ring, z) - fat
        edge = (torch.atan2(y, x) * 7).sin_() * wave
        return smax(d, (0.09 - z + edge) * 0.8, 0.06)

    def sprinkles(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        y = y - up
        r, a = length(x, y), torch.atan2(y, x)
        return union(crumb(r, r * every(a, cell), z), outer(r, r * every(a + cell * 0.45, cell), z))

    return [Part(body), Part(dough, "dough"), Part(sprinkles, "light")]


@category(
    "hat",
    natural=((0.13, 0.12, 0.14), (0.45, 0.20, 0.50), (0.35, 0.25, 0.18), (0.90, 0.88, 0.84)),
    yaw=(-180, 180),
    height=(0.88, 1.1),
    brim=(0.92, 1.08),
    flare=(0.0, 0.12),
)
def hat(s: Shape) -> list[Part]:
    """A top hat with a ribbon."""
    high, brim, flare = 1.32 * s["height"], 0.88 * s["brim"], s["flare"]
    slope = flare / high
    rim = cylinder((0.0, 0.09, 0.0), brim, 0.075, 0.07)
    ribbon = cylinder((0.0, 0.29, 0.0), 0.545, 0.12, 0.02)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        tube = smax(mad(length(x, z), y, -slope) - 0.51, y - (high + 0.1), 0.08)
        return torch.maximum(smin(tube, rim(x, y, z), 0.08), -y)

    return [Part(body), Part(ribbon, "accent")]


@category(
    "guitar",
    natural=((0.80, 0.48, 0.20), (0.60, 0.22, 0.12), (0.88, 0.70, 0.42)),
    yaw=(-40, 40),
    waist=(0.9, 1.1),
    hips=(0.93, 1.08),
    neck=(0.95, 1.04),
)
def guitar(s: Shape) -> list[Part]:
    """Standing upright, its face to the camera."""
    hips, chest, top = 0.55 * s["hips"], 0.41 * s["waist"], 1.69 * s["neck"]
    neck = box((0.0, 1.3, 0.12), (0.10, top - 1.3, 0.09), 0.04)
    head = box((0.0, top, 0.12), (0.17, 0.16, 0.09), 0.05)
    pegs = sphere((0.20, 0.07, 0.12), 0.065)
    hole = cylinder((0.0, 0.86, 0.20), 0.175, 0.03, 0.01, "z")
    bridge = box((0.0, 0.40, 0.21), (0.22, 0.055, 0.04), 0.02)
    board = box((0.0, 1.30, 0.21), (0.075, top - 1.44, 0.035), 0.02)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        outline = smin(length(x, y - hips) - hips, length(x, y - 1.04) - chest, 0.14)
        tuners = pegs(x.abs(), (y - top).abs(), z)
        return union(slab(outline, z, 0.20, 0.09), neck(x, y, z), head(x, y, z), tuners)

    def dark(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return union(hole(x, y, z), bridge(x, y, z), board(x, y, z))

    return [Part(body), Part(dark, "dark")]


@category(
    "boot",
    natural=((0.55, 0.33, 0.18), (0.90, 0.75, 0.15), (0.20, 0.20, 0.22), (0.70, 0.20, 0.20)),
    yaw=(-45, 30),
    shaft=(0.94, 1.1),
    toe=(0.96, 1.08),
    fat=(0.92, 1.1),
)
def boot(s: Shape) -> list[Part]:
    """A wellington, toe to +x: round toe, tall shaft with a rolled cuff, dark sole and heel."""
    high, toe, fat = 1.62 * s["shaft"], 0.60 * s["toe"], s["fat"]
    back = -0.36
    leg = 0.34 * fat
    shaft = capsule((back, 0.42, 0.0), (back, high, 0.0), 0.33 * fat, leg)
    foot = capsule((back + 0.04, 0.38, 0.0), (toe, 0.34, 0.0), 0.30, 0.27)
    cuff = torus((back, high, 0.0), leg, 0.075)
    hole = cylinder((back, high, 0.0), leg - 0.05, 0.035, 0.01)
    sole = box(((toe + back) / 2, 0.10, 0.0), ((toe - back) / 2 + 0.30, 0.055, 0.27), 0.05)
    heel = box((back - 0.02, 0.07, 0.0), (0.27, 0.07, 0.25), 0.04)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        d = smin(smax(shaft(x, y, z), y - high, 0.04), foot(x, y, z), 0.2)
        return union(torch.maximum(d, 0.11 - y), cuff(x, y, z))

    return [
        Part(body),
        Part(lambda x, y, z: union(sole(x, y, z), heel(x, y, z), hole(x, y, z)), "dark"),
    ]


@category(
    "crown",
    natural=((0.95, 0.75, 0.20), (0.85, 0.85, 0.88), (0.85, 0.55, 0.35)),
    yaw=(-36, 36),
    points=(0.8, 1.15),
    flare=(0.10, 0.22),
    height=(0.92, 1.1),
)
def crown(s: Shape) -> list[Part]:
    """A flared band with eight points, a ball on each, gems around."""
    spike, flare, high = 0.50 * s["points"], s["flare"], 0.66 * s["height"]
    cell = 2 * math.pi / 8
    tip = high + spike
    ball = sphere((0.60 + flare * tip, tip, 0.0), 0.115)
    gem = sphere((0.65 + flare * 0.25, 0.26, 0.0), 0.105)
    rim = torus((0.0, 0.09, 0.0), 0.62, 0.09)
    slope = spike * 2 / (cell * 0.72)
    steep = (1 + slope * slope) ** -0.5

    def fold(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        r = length(x, z)
        return r, r * every(torch.atan2(x, z), cell)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        r, across = fold(x, z)
        wall = mad(r, y, -flare).sub_(0.59).abs_() - 0.07
        edge = mad(y, across.abs(), slope).sub_(tip).mul_(steep)
        band = smax(torch.maximum(wall, -y), edge, 0.04)
        return union(band, rim(x, y, z), ball(r, y, across))

    def gems(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        r, across = fold(x, z)
        return gem(r, y, across)

    return [Part(body), Part(gems, "accent")]
