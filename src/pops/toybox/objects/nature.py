"""Things that grow, and one that melts."""

import torch
from torch import Tensor

from pops.toybox.field import capsule, cone, ellipsoid, fin, length, mad, smax, smin, sphere, torus, union
from pops.toybox.objects.base import Part, Shape, category


@category(
    "tree",
    natural=((0.28, 0.55, 0.22), (0.45, 0.62, 0.22), (0.85, 0.50, 0.15), (0.20, 0.45, 0.30)),
    yaw=(-180, 180),
    crown=(0.92, 1.1),
    trunk=(0.85, 1.15),
    lumps=(0.05, 0.09),
)
def tree(s: Shape) -> list[Part]:
    """A round lumpy crown on a short trunk."""
    wide, lumps = 0.76 * s["crown"], s["lumps"]
    crown = ellipsoid((0.0, 1.16, 0.0), (wide, 0.64, wide))
    trunk = capsule((0.0, 0.0, 0.0), (0.0, 0.75, 0.0), 0.18 * s["trunk"], 0.14 * s["trunk"])
    roots = ellipsoid((0.0, 0.0, 0.0), (0.30, 0.16, 0.30))

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        bumps = (x * 7.5 + 0.6).sin_() * (y * 7.5).sin_() * (z * 7.5 + 0.9).sin_()
        return mad(crown(x, y, z), bumps, lumps) * 0.8

    def bark(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return torch.maximum(smin(trunk(x, y, z), roots(x, y, z), 0.12), -y)

    return [Part(body), Part(bark, "wood")]


@category(
    "cactus",
    natural=((0.30, 0.55, 0.28), (0.42, 0.62, 0.40), (0.22, 0.45, 0.32)),
    yaw=(-35, 35),
    fat=(0.9, 1.12),
    left=(-0.08, 0.12),
    right=(-0.12, 0.08),
    arms=(0.92, 1.1),
)
def cactus(s: Shape) -> list[Part]:
    """A saguaro: a ribbed column with an arm bent up on either side."""
    fat, reach = 0.27 * s["fat"], 0.60 * s["arms"]
    ly, ry = 0.82 + s["left"], 0.66 + s["right"]
    trunk = capsule((0.0, 0.0, 0.0), (0.0, 1.60, 0.0), fat)
    left = capsule((0.0, ly - 0.04, 0.0), (-reach, ly, 0.0), 0.165)
    left_up = capsule((-reach, ly, 0.0), (-reach, ly + 0.42, 0.0), 0.165, 0.17)
    right = capsule((0.0, ry - 0.04, 0.0), (reach, ry, 0.0), 0.165)
    right_up = capsule((reach, ry, 0.0), (reach, ry + 0.58, 0.0), 0.165, 0.17)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        one = smin(left(x, y, z), left_up(x, y, z), 0.08)
        other = smin(right(x, y, z), right_up(x, y, z), 0.08)
        d = smin(trunk(x, y, z), union(one, other), 0.06)
        across = x.abs()
        across = torch.minimum(across, (across - reach).abs_())
        ribs = (torch.atan2(z, across) * 9).cos_().mul_(length(across, z).clamp_max_(0.3))
        return torch.maximum(mad(d, ribs, -0.07), -y) * 0.85

    return [Part(body)]


@category(
    "mushroom",
    natural=((0.82, 0.14, 0.12), (0.72, 0.48, 0.28), (0.90, 0.55, 0.20)),
    yaw=(-180, 180),
    cap=(0.95, 1.1),
    high=(0.88, 1.1),
    stem=(0.85, 1.15),
)
def mushroom(s: Shape) -> list[Part]:
    """A toadstool: a broad dome on a pale stem."""
    wide, dome, stem = 0.88 * s["cap"], 0.82 * s["high"], 0.25 * s["stem"]
    brim = 0.72
    cap = ellipsoid((0.0, brim, 0.0), (wide, dome, wide))
    stalk = cone((0.0, 0.40, 0.0), stem * 1.35, stem, 0.40, 0.08)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return smax(cap(x, y, z), brim - y, 0.14)

    return [Part(body), Part(stalk, "light")]


@category(
    "pumpkin",
    natural=((0.95, 0.48, 0.08), (0.85, 0.38, 0.10), (0.90, 0.72, 0.45)),
    yaw=(-180, 180),
    flat=(0.85, 1.1),
    ribs=(0.05, 0.085),
    stem=(-0.12, 0.12),
)
def pumpkin(s: Shape) -> list[Part]:
    """A ribbed ball with a bent stalk."""
    high, depth, bend = 0.66 * s["flat"], 2.4 * s["ribs"], s["stem"]
    flesh = ellipsoid((0.0, high, 0.0), (0.88, high, 0.88))
    stalk = capsule((0.0, 2 * high - 0.12, 0.0), (bend, 2 * high + 0.24, 0.0), 0.14, 0.09)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        groove = (torch.atan2(z, x) * 4.5).cos_().abs_()
        dip = length(x, z).clamp_max_(0.5)
        return mad(flesh(x, y, z), (1 - groove) * dip, depth) * 0.8

    return [Part(body), Part(stalk, "leaf")]


@category(
    "pear",
    natural=((0.78, 0.80, 0.25), (0.60, 0.70, 0.25), (0.85, 0.65, 0.25)),
    yaw=(-60, 60),
    fat=(0.92, 1.08),
    top=(0.88, 1.12),
    height=(0.94, 1.04),
)
def pear(s: Shape) -> list[Part]:
    """Two balls grown together, a stalk and a leaf."""
    fat, top, high = 0.64 * s["fat"], 0.30 * s["top"], 1.22 * s["height"]
    low = ellipsoid((0.0, 0.55, 0.0), (fat, 0.57, fat))
    tip = sphere((0.0, high, 0.0), top)
    stalk = capsule((0.0, high + top - 0.08, 0.0), (0.08, high + top + 0.24, 0.0), 0.05, 0.06)
    leaf = fin((0.16, high + top + 0.08), (0.36, high + top + 0.14), 0.10, 0.07, 0.045)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return smin(low(x, y, z), tip(x, y, z), 0.45)

    return [Part(body), Part(stalk, "wood"), Part(leaf, "leaf")]


@category(
    "snowman",
    natural=((0.95, 0.96, 0.98), (0.86, 0.92, 0.98)),
    yaw=(-40, 40),
    fat=(0.92, 1.1),
    head=(0.9, 1.12),
    arms=(-0.1, 0.15),
)
def snowman(s: Shape) -> list[Part]:
    """Three balls, a carrot, coal buttons, twig arms and a scarf."""
    fat, head, lift = 0.54 * s["fat"], 0.30 * s["head"], s["arms"]
    hy = 1.52
    low = sphere((0.0, fat * 0.86, 0.0), fat)
    middle = sphere((0.0, 1.02, 0.0), 0.39)
    top = sphere((0.0, hy, 0.0), head)
    carrot = capsule((0.0, hy - 0.02, head - 0.05), (0.05, hy - 0.05, head + 0.30), 0.075, 0.015)
    eyes = sphere((0.11, hy + 0.10, head * 0.88), 0.055)
    button = sphere((0.0, 1.10, 0.39), 0.06)
    second = sphere((0.0, 0.90, 0.385), 0.06)
    arm = capsule((0.32, 1.08, 0.0), (0.82, 1.22 + lift, 0.1), 0.05)
    scarf = torus((0.0, 1.30, 0.0), 0.25, 0.085)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        d = smin(smin(low(x, y, z), middle(x, y, z), 0.05), top(x, y, z), 0.05)
        return torch.maximum(d, -y)

    def coal(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return union(eyes(x.abs(), y, z), button(x, y, z), second(x, y, z), arm(x.abs(), y, z))

    return [Part(body), Part(coal, "dark"), Part(carrot, "orange"), Part(scarf, "accent")]
