"""Animals: soft toys with big ears and round eyes. Heads look to +x; the bear faces the camera (+z)."""

import torch
from torch import Tensor

from pops.toybox.field import arc, ball, capsule, cylinder, ellipsoid, fin, smin, sphere, turned, union
from pops.toybox.objects.base import Part, Shape, category


@category(
    "dog",
    natural=((0.85, 0.50, 0.20), (0.72, 0.45, 0.25), (0.88, 0.70, 0.45), (0.40, 0.27, 0.19)),
    yaw=(-50, 0),
    animal=True,
    length=(0.88, 1.05),
    ears=(0.85, 1.15),
    fat=(0.9, 1.12),
)
def dog(s: Shape) -> list[Part]:
    """A corgi: a long low body on short legs, big upright ears, a fluffy tail, a pale snout and chest."""
    long, fat, ear = s["length"], 0.30 * s["fat"], 0.40 * s["ears"]
    front, back = 0.32 * long, -0.52 * long
    hx, hy = front + 0.12, 1.10
    trunk = capsule((back, 0.56, 0.0), (front, 0.60, 0.0), fat, fat * 1.05)
    neck = capsule((front, 0.65, 0.0), (hx, hy, 0.0), 0.27)
    head = ball((hx, hy, 0.0), (0.32, 0.31, 0.35), 0.31)
    ears = capsule((hx - 0.05, hy + 0.18, 0.19), (hx - 0.10, hy + 0.18 + ear, 0.32), 0.19, 0.07)
    tail = capsule((back - 0.16, 0.66, 0.0), (back - 0.27, 1.02, 0.0), 0.11, 0.20)
    leg = capsule((0.0, 0.13, 0.17), (0.0, 0.45, 0.17), 0.13, 0.15)
    middle, reach = (front + back) / 2, (front - back) / 2
    snout = capsule((hx + 0.16, hy - 0.11, 0.0), (hx + 0.38, hy - 0.13, 0.0), 0.17, 0.115)
    chest = sphere((front + 0.09, 0.70, 0.0), 0.285)
    eyes = sphere((hx + 0.245, hy + 0.09, 0.175), 0.068)
    nose = sphere((hx + 0.47, hy - 0.07, 0.0), 0.08)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        m = z.abs()
        d = smin(trunk(x, y, z), neck(x, y, z), 0.15)
        d = smin(d, union(leg((x - middle).abs() - reach, y, m), tail(x, y, z)), 0.1)
        return union(d, smin(head(x, y, z), ears(x, y, m), 0.06))

    return [
        Part(body),
        Part(lambda x, y, z: union(eyes(x, y, z.abs()), nose(x, y, z)), "dark"),
        Part(lambda x, y, z: union(snout(x, y, z), chest(x, y, z)), "light"),
    ]


@category(
    "rabbit",
    natural=((0.88, 0.82, 0.74), (0.62, 0.48, 0.36), (0.55, 0.55, 0.57), (0.93, 0.93, 0.92)),
    yaw=(-60, 0),
    animal=True,
    ears=(0.85, 1.07),
    fat=(0.9, 1.12),
    lean=(-0.12, 0.1),
)
def rabbit(s: Shape) -> list[Part]:
    """Sitting, with long ears, a haunch and a round tail."""
    fat, ear, lean = s["fat"], 0.62 * s["ears"], s["lean"]
    trunk = ball((-0.08, 0.50, 0.0), (0.50, 0.50, 0.40 * fat), 0.40)
    head = ball((0.34, 0.97, 0.0), (0.35, 0.30, 0.31), 0.30)
    ears = capsule((0.22, 1.15, 0.13), (0.10 + lean, 1.12 + ear, 0.21), 0.09, 0.125)
    haunch = sphere((-0.20, 0.35, 0.16 * fat), 0.34)
    foot = capsule((-0.15, 0.10, 0.34 * fat), (0.26, 0.10, 0.36 * fat), 0.11)
    paw = capsule((0.24, 0.50, 0.15), (0.40, 0.10, 0.16), 0.13, 0.10)
    tail = sphere((-0.60, 0.28, 0.0), 0.19)
    eyes = sphere((0.53, 1.06, 0.215), 0.078)
    nose = sphere((0.685, 0.97, 0.0), 0.06)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        m = z.abs()
        d = smin(trunk(x, y, z), union(paw(x, y, m), haunch(x, y, m), foot(x, y, m)), 0.06)
        return smin(d, union(head(x, y, z), ears(x, y, m)), 0.08)

    return [
        Part(body),
        Part(lambda x, y, z: union(eyes(x, y, z.abs()), nose(x, y, z)), "dark"),
        Part(tail, "light"),
    ]


@category(
    "cat",
    natural=((0.88, 0.55, 0.22), (0.22, 0.22, 0.24), (0.62, 0.62, 0.64), (0.92, 0.88, 0.80)),
    yaw=(-65, -10),
    animal=True,
    ears=(0.85, 1.15),
    fat=(0.9, 1.12),
    tail=(0.92, 1.1),
)
def cat(s: Shape) -> list[Part]:
    """Sitting upright: pointed ears, a long tail that curls up behind."""
    fat, ear, ring = s["fat"], 0.30 * s["ears"], 0.33 * s["tail"]
    trunk = capsule((-0.14, 0.40, 0.0), (0.10, 0.92, 0.0), 0.40 * fat, 0.25)
    head = ball((0.24, 1.24, 0.0), (0.33, 0.30, 0.38), 0.30)
    ears = capsule((0.20, 1.42, 0.21), (0.18, 1.46 + ear, 0.28), 0.15, 0.01)
    leg = capsule((0.20, 0.75, 0.14), (0.32, 0.10, 0.15), 0.15, 0.12)
    haunch = sphere((-0.08, 0.30, 0.15 * fat), 0.31)
    tail = arc((-0.52, 0.13 + ring, 0.0), ring, 0.10, 195.0, 125.0)
    muzzle = sphere((0.49, 1.15, 0.055), 0.105)
    eyes = sphere((0.485, 1.30, 0.17), 0.078)
    nose = sphere((0.59, 1.21, 0.0), 0.05)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        m = z.abs()
        d = smin(trunk(x, y, z), union(leg(x, y, m), haunch(x, y, m)), 0.06)
        face = smin(head(x, y, z), ears(x, y, m), 0.06)
        return union(d, face, muzzle(x, y, m), tail(x, y, z))

    return [Part(body), Part(lambda x, y, z: union(eyes(x, y, z.abs()), nose(x, y, z)), "dark")]


@category(
    "duck",
    natural=((0.98, 0.80, 0.15), (0.95, 0.93, 0.88), (0.60, 0.45, 0.30)),
    yaw=(-50, 10),
    animal=True,
    fat=(0.9, 1.12),
    head=(0.92, 1.12),
    neck=(-0.06, 0.1),
)
def duck(s: Shape) -> list[Part]:
    """A bath duck: a boat of a body, a round head, a flat bill."""
    fat, big, up = s["fat"], 0.34 * s["head"], 1.16 + s["neck"]
    trunk = ellipsoid((-0.10, 0.46, 0.0), (0.74, 0.48, 0.48 * fat))
    tail = capsule((-0.45, 0.58, 0.0), (-0.90, 0.92, 0.0), 0.24, 0.05)
    head = sphere((0.36, up, 0.0), big)
    neck = capsule((0.32, 0.55, 0.0), (0.36, up, 0.0), 0.24)
    wing = fin((0.02, 0.58), (-0.38, 0.72), 0.21, 0.11, 0.10, 0.40 * fat)
    bill = fin((0.30 + big, 0.0), (0.42 + big, 0.0), 0.15, 0.17, 0.07, up - 0.05)
    eyes = sphere((0.36 + big * 0.62, up + big * 0.32, big * 0.66), 0.07)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        d = smin(trunk(x, y, z), tail(x, y, z), 0.15)
        d = smin(d, union(neck(x, y, z), head(x, y, z)), 0.1)
        d = torch.maximum(d, -y)
        return union(d, wing(x, y, z.abs()))

    return [
        Part(body),
        Part(lambda x, y, z: eyes(x, y, z.abs()), "dark"),
        Part(lambda x, y, z: bill(x, z, y), "orange"),
    ]


@category(
    "elephant",
    natural=((0.55, 0.57, 0.62), (0.62, 0.58, 0.56), (0.70, 0.62, 0.66)),
    yaw=(-50, 0),
    animal=True,
    ears=(0.88, 1.12),
    fat=(0.92, 1.1),
    trunk=(-0.05, 0.15),
)
def elephant(s: Shape) -> list[Part]:
    """Round, with fan ears, pillar legs, a trunk that curls out, and tusks."""
    ear, fat, curl = s["ears"], s["fat"], s["trunk"]
    barrel = ball((-0.30, 0.84, 0.0), (0.60, 0.50 * fat, 0.48 * fat), 0.47)
    head = sphere((0.30, 1.16, 0.0), 0.38)
    fan = cylinder((-0.16 * ear, 1.18, 0.30), 0.40 * ear, 0.065, 0.06, "z")
    ears = turned(fan, "y", 28.0, (0.22, 0.0, 0.24))
    upper = capsule((0.52, 1.08, 0.0), (0.66, 0.46, 0.0), 0.21, 0.14)
    lower = capsule((0.66, 0.46, 0.0), (0.89, 0.32 + curl, 0.0), 0.14, 0.11)
    leg = capsule((0.34, 0.14, 0.24), (0.34, 0.65, 0.24), 0.185)
    tusk = capsule((0.55, 0.92, 0.20), (0.86, 0.84, 0.25), 0.07, 0.035)
    eyes = sphere((0.59, 1.27, 0.225), 0.07)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        m = z.abs()
        d = smin(barrel(x, y, z), leg((x + 0.30).abs(), y, m), 0.1)
        d = smin(d, head(x, y, z), 0.12)
        d = smin(d, union(upper(x, y, z), lower(x, y, z)), 0.08)
        return torch.maximum(union(d, ears(x, y, m)), -y)

    return [
        Part(body),
        Part(lambda x, y, z: eyes(x, y, z.abs()), "dark"),
        Part(lambda x, y, z: tusk(x, y, z.abs()), "light"),
    ]


@category(
    "fish",
    natural=((0.98, 0.50, 0.15), (0.25, 0.50, 0.80), (0.90, 0.75, 0.20), (0.75, 0.30, 0.40)),
    yaw=(-40, 25),
    animal=True,
    height=(0.9, 1.15),
    tail=(0.9, 1.15),
    crest=(0.6, 1.4),
)
def fish(s: Shape) -> list[Part]:
    """A goldfish: an oval with a forked tail, fins and a round eye."""
    high, spread, crest = 0.52 * s["height"], 0.40 * s["tail"], 0.10 * s["crest"]
    up = high + 0.16
    oval = ellipsoid((0.16, up, 0.0), (0.72, high, 0.30))
    tail = fin((-0.46, 0.02), (-0.76, spread * 0.85), 0.13, 0.215, 0.07)
    dorsal = fin((0.28, up + high * 0.92), (-0.16, up + high + crest * 0.5), 0.10, 0.20, 0.07)
    belly = fin((0.10, up - high * 0.9), (-0.10, 0.14), 0.09, 0.14, 0.06)
    flipper = fin((0.16, up - 0.12), (-0.08, up - 0.20), 0.07, 0.13, 0.05, 0.28)
    side = turned(flipper, "y", -25.0, (0.16, 0.0, 0.28))
    lips = sphere((0.82, up - 0.06, 0.0), 0.13)
    white = sphere((0.48, up + 0.14, 0.20), 0.13)
    pupil = sphere((0.51, up + 0.14, 0.28), 0.085)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        m = z.abs()
        d = smin(oval(x, y, z), tail(x, (y - up).abs(), z), 0.1)
        d = smin(d, union(dorsal(x, y, z), belly(x, y, z), side(x, y, m)), 0.05)
        return smin(d, lips(x, y, z), 0.08)

    return [
        Part(body),
        Part(lambda x, y, z: white(x, y, z.abs()), "light"),
        Part(lambda x, y, z: pupil(x, y, z.abs()), "dark"),
    ]


@category(
    "bear",
    natural=((0.60, 0.40, 0.24), (0.80, 0.62, 0.40), (0.40, 0.26, 0.18)),
    yaw=(-40, 40),
    animal=True,
    fat=(0.9, 1.12),
    ears=(0.9, 1.2),
    head=(0.93, 1.08),
)
def bear(s: Shape) -> list[Part]:
    """A teddy bear that sits facing the camera: round ears, a pale snout, feet forward."""
    fat, ear, big = s["fat"], 0.16 * s["ears"], 0.40 * s["head"]
    hy = 1.30
    belly = ball((0.0, 0.56, 0.0), (0.46 * fat, 0.54, 0.40 * fat), 0.40)
    head = ball((0.0, hy, 0.04), (big * 1.1, big, big), big)
    ears = sphere((big * 0.82, hy + big * 0.80, 0.0), ear)
    arm = capsule((0.38 * fat, 0.88, 0.02), (0.64, 0.46, 0.22), 0.15, 0.17)
    leg = capsule((0.28, 0.20, 0.20), (0.48, 0.21, 0.62), 0.20, 0.215)
    snout = ball((0.0, hy - 0.09, 0.04 + big * 0.86), (0.19, 0.15, 0.14), 0.14)
    nose = sphere((0.0, hy - 0.03, 0.14 + big * 0.86), 0.075)
    eyes = sphere((0.165, hy + 0.08, 0.01 + big * 0.88), 0.065)
    pad = sphere((0.505, 0.21, 0.73), 0.135)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        m = x.abs()
        d = union(head(x, y, z), ears(m, y, z))
        return union(d, smin(belly(x, y, z), union(arm(m, y, z), leg(m, y, z)), 0.06))

    def pale(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return union(snout(x, y, z), pad(x.abs(), y, z))

    return [
        Part(body),
        Part(pale, "light"),
        Part(lambda x, y, z: union(eyes(x.abs(), y, z), nose(x, y, z)), "dark"),
    ]
