"""Crockery and other hollow things of the kitchen."""

from torch import Tensor

from pops.toybox.field import capsule, cone, cylinder, ellipsoid, length, mad, smax, smin, sphere, torus, union
from pops.toybox.objects.base import Part, Shape, category

CHINA = ((0.93, 0.92, 0.89), (0.35, 0.55, 0.75), (0.80, 0.35, 0.30), (0.55, 0.72, 0.60))


@category("teapot", natural=CHINA, yaw=(-40, 40), height=(0.88, 1.12), fat=(0.92, 1.05), spout=(-0.06, 0.1))
def teapot(s: Shape) -> list[Part]:
    """A round pot: spout to the right, handle to the left, lid with a knob."""
    high, fat, lift = 0.54 * s["height"], 0.56 * s["fat"], s["spout"]
    up = high + 0.03
    top = up + high
    pot = ellipsoid((0.0, up, 0.0), (fat, high, fat))
    foot = cylinder((0.0, 0.06, 0.0), fat * 0.62, 0.06)
    lid = ellipsoid((0.0, top - 0.06, 0.0), (fat * 0.60, 0.15, fat * 0.60))
    knob = sphere((0.0, top + 0.17, 0.0), 0.12)
    root = capsule((fat * 0.7, up - 0.18, 0.0), (fat + 0.20, up + 0.14, 0.0), 0.19, 0.12)
    spout = capsule((fat + 0.20, up + 0.14, 0.0), (fat + 0.33, up + 0.40 + lift, 0.0), 0.12, 0.085)
    handle = torus((-fat - 0.06, up + 0.06, 0.0), 0.28, 0.08, "z")

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        d = smin(pot(x, y, z), smin(root(x, y, z), spout(x, y, z), 0.06), 0.08)
        d = smin(d, foot(x, y, z), 0.06)
        return union(d, smin(lid(x, y, z), knob(x, y, z), 0.05), handle(x, y, z))

    return [Part(body)]


@category("mug", natural=CHINA, yaw=(-45, 35), height=(0.85, 1.08), fat=(0.92, 1.08), taper=(0.9, 1.05))
def mug(s: Shape) -> list[Part]:
    """A straight cup of coffee with one big ear on the right."""
    high, fat = 0.68 * s["height"], 0.63 * s["fat"]
    low = fat * s["taper"]
    off = -0.22
    outside = cone((off, high, 0.0), low, fat, high, 0.06)
    inside = cylinder((off, 2 * high, 0.0), fat - 0.09, 0.30, 0.05)
    ear = torus((off + fat * 0.96, high * 1.02, 0.0), 0.39, 0.105, "z")
    coffee = cylinder((off, 2 * high - 0.14, 0.0), fat - 0.07, 0.05, 0.01)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return smax(smin(outside(x, y, z), ear(x, y, z), 0.05), -inside(x, y, z), 0.03)

    return [Part(body), Part(coffee, "coffee")]


@category(
    "vase",
    natural=((0.30, 0.45, 0.70), (0.85, 0.45, 0.30), (0.90, 0.88, 0.82), (0.40, 0.62, 0.52)),
    yaw=(-180, 180),
    belly=(0.18, 0.26),
    neck=(0.36, 0.44),
    height=(1.7, 1.88),
    phase=(-0.25, 0.25),
)
def vase(s: Shape) -> list[Part]:
    """A turned vase: a full belly, a narrow neck, a flared lip. The outline is a sine."""
    high, belly, neck = s["height"], s["belly"], s["neck"]
    wave, phase = 5.9 / high, s["phase"] - 0.25
    mouth = cylinder((0.0, high - 0.02, 0.0), neck - 0.15, 0.03, 0.01)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        outline = mad(length(x, z), (y * wave + phase).sin_(), -belly) - neck
        return smax(outline * 0.78, (y - high / 2).abs() - high / 2, 0.06)

    return [Part(body), Part(mouth, "dark")]
