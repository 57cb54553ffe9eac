"""Things with wheels, engines or plugs."""

from collections.abc import Callable

import torch
from torch import Tensor

from pops.toybox.field import (
    block,
    box,
    capsule,
    cone,
    cylinder,
    ellipsoid,
    fin,
    mad,
    smax,
    smin,
    sphere,
    torus,
    union,
)
from pops.toybox.objects.base import Part, Shape, category
from pops.toybox.surface import Float


@category(
    "lamp",
    natural=((0.85, 0.75, 0.55), (0.30, 0.50, 0.48), (0.78, 0.32, 0.26), (0.90, 0.88, 0.84)),
    yaw=(-180, 180),
    shade=(0.88, 1.1),
    height=(0.94, 1.06),
    bulge=(0.20, 0.32),
)
def lamp(s: Shape) -> list[Part]:
    """A table lamp: a wide shade on a turned foot."""
    wide, high = 0.72 * s["shade"], s["height"]
    low, top = 0.95 * high, 1.75 * high
    middle, half = (low + top) / 2, (top - low) / 2
    shade = cone((0.0, middle, 0.0), wide, wide * 0.52, half, 0.05)
    foot = cone((0.0, 0.08, 0.0), 0.48, 0.30, 0.08, 0.06)
    bulb = ellipsoid((0.0, 0.44 * high, 0.0), (s["bulge"], 0.29, s["bulge"]))
    stem = capsule((0.0, 0.1, 0.0), (0.0, 1.0 * high, 0.0), 0.085)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        d = smin(smin(foot(x, y, z), bulb(x, y, z), 0.1), stem(x, y, z), 0.06)
        return union(d, shade(x, y, z))

    return [Part(body)]


@category(
    "car",
    natural=((0.85, 0.15, 0.12), (0.15, 0.40, 0.75), (0.95, 0.75, 0.15), (0.30, 0.65, 0.55)),
    yaw=(-50, 30),
    cabin=(0.88, 1.12),
    wheel=(0.9, 1.1),
    height=(0.92, 1.12),
)
def car(s: Shape) -> list[Part]:
    """A tin car: bonnet to +x, round cabin, fat tyres."""
    wheel, high, cabin = 0.24 * s["wheel"], s["height"], s["cabin"]
    low = 0.50
    roof = 0.70 + 0.50 * high
    hull = box((0.0, low, 0.0), (0.95, 0.30, 0.48), 0.2)
    cab = ellipsoid((-0.12, 0.72, 0.0), (0.58 * cabin, roof - 0.72, 0.42))
    pane = block((-0.12, 0.91 + 0.06 * high, 0.0), (0.37 * cabin, 0.10, 1.0))
    post = 0.06
    glass = ellipsoid((-0.12, 0.72, 0.0), (0.58 * cabin + 0.012, roof - 0.71, 0.432))
    tyre = cylinder((0.54, wheel, 0.42), wheel, 0.12, 0.06, "z")
    arch = cylinder((0.54, wheel, 0.42), wheel + 0.04, 0.3, 0.1, "z")
    lamp = sphere((0.90, low + 0.07, 0.28), 0.10)
    hub = cylinder((0.54, wheel, 0.52), wheel * 0.68, 0.045, 0.02, "z")

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        d = smin(hull(x, y, z), cab(x, y, z), 0.12)
        m, n = x.abs(), z.abs()
        return union(torch.maximum(d, -arch(m, y, n)), hub(m, y, n))

    def windows(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        d = torch.maximum(glass(x, y, z), pane(x, y, z))
        return torch.maximum(d, post - (x + 0.12).abs())

    return [
        Part(body),
        Part(lambda x, y, z: tyre(x.abs(), y, z.abs()), "dark"),
        Part(windows, "glass"),
        Part(lambda x, y, z: lamp(x, y, z.abs()), "light"),
    ]


@category(
    "rocket",
    natural=((0.92, 0.92, 0.92), (0.85, 0.20, 0.18), (0.70, 0.74, 0.80)),
    yaw=(-40, 40),
    fat=(0.9, 1.15),
    fins=(0.88, 1.12),
    window=(0.88, 1.12),
)
def rocket(s: Shape) -> list[Part]:
    """A comic rocket on its fins, with a porthole."""
    fat, tip, pane = 0.38 * s["fat"], 0.72 * s["fins"], 0.17 * s["window"]
    hull = ellipsoid((0.0, 0.80, 0.0), (fat, 1.08, fat))
    blade = fin((fat * 0.75, 0.62), (tip, 0.12), 0.22, 0.12, 0.075)
    rim = torus((0.0, 1.10, fat - 0.03), pane, 0.055, "z")
    glass = ellipsoid((0.0, 1.10, fat - 0.04), (pane, pane, 0.06))
    nozzle = cylinder((0.0, 0.16, 0.0), 0.22, 0.08, 0.03)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        ax, az = x.abs(), z.abs()
        wide, thin = torch.maximum(ax, az), torch.minimum(ax, az)
        d = smax(hull(x, y, z), 0.22 - y, 0.05)
        d = smin(d, blade(wide, y, thin), 0.05)
        return torch.maximum(union(d, rim(x, y, z)), -y)

    return [Part(body), Part(glass, "glass"), Part(nozzle, "dark")]


@category(
    "robot",
    natural=((0.62, 0.68, 0.74), (0.90, 0.55, 0.20), (0.35, 0.62, 0.68), (0.85, 0.82, 0.75)),
    yaw=(-40, 40),
    fat=(0.92, 1.12),
    head=(0.9, 1.15),
    arms=(-0.08, 0.12),
)
def robot(s: Shape) -> list[Part]:
    """A tin robot facing the camera: box on box, aerial, lit eyes, claw arms."""
    fat, head, lift = s["fat"], s["head"], s["arms"]
    hx, hz = 0.36 * head, 0.28 * head
    torso = box((0.0, 0.72, 0.0), (0.40 * fat, 0.34, 0.29), 0.07)
    skull = box((0.0, 1.32, 0.0), (hx, 0.27, hz), 0.08)
    leg = box((0.20 * fat, 0.24, 0.0), (0.13, 0.22, 0.15), 0.04)
    foot = box((0.22 * fat, 0.09, 0.06), (0.19, 0.09, 0.25), 0.06)
    arm = capsule((0.40 * fat, 0.90, 0.0), (0.66 * fat, 0.58 + lift, 0.14), 0.105)
    fist = sphere((0.68 * fat, 0.50 + lift, 0.17), 0.17)
    aerial = capsule((0.0, 1.6, 0.0), (0.0, 1.74, 0.0), 0.045)
    knob = sphere((0.0, 1.78, 0.0), 0.10)
    eyes = sphere((0.155 * head, 1.40, hz - 0.02), 0.095)
    mouth = box((0.0, 1.21, hz), (0.17, 0.035, 0.03), 0.01)
    panel = box((0.0, 0.78, 0.28), (0.22, 0.15, 0.04), 0.02)
    lights = sphere((0.10, 0.78, 0.32), 0.065)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        m = x.abs()
        d = union(torso(x, y, z), skull(x, y, z), aerial(x, y, z))
        return union(d, leg(m, y, z), foot(m, y, z), smin(arm(m, y, z), fist(m, y, z), 0.04))

    return [
        Part(body),
        Part(lambda x, y, z: union(eyes(x.abs(), y, z), lights(x.abs(), y, z)), "glow"),
        Part(lambda x, y, z: union(mouth(x, y, z), panel(x, y, z)), "dark"),
        Part(knob, "accent"),
    ]


@category(
    "coffee machine",
    natural=((0.75, 0.76, 0.78), (0.80, 0.20, 0.16), (0.22, 0.22, 0.24), (0.60, 0.78, 0.72)),
    yaw=(-55, -10),
    height=(0.93, 1.07),
    width=(0.92, 1.1),
    pot=(0.92, 1.08),
)
def coffee_machine(s: Shape) -> list[Part]:
    """A filter machine open to the right: tank and column, brew head above, a glass jug on the plate."""
    high, wide, pot = 1.72 * s["height"], 0.50 * s["width"], 0.35 * s["pot"]
    column = box((-0.52, high / 2, 0.0), (0.24, high / 2, wide), 0.09)
    head = box((0.02, high - 0.22, 0.0), (0.76, 0.22, wide), 0.10)
    plate = box((0.02, 0.10, 0.0), (0.78, 0.10, wide), 0.05)
    drip = cone((0.22, high - 0.51, 0.0), 0.14, 0.26, 0.10, 0.04)
    jug = ellipsoid((0.22, 0.19 + pot, 0.0), (pot * 1.12, pot, pot * 1.12))
    collar = cylinder((0.22, 0.24 + 2 * pot, 0.0), 0.23, 0.05)
    ear = torus((0.22 + pot * 1.12, 0.22 + pot, 0.0), pot * 0.55, 0.06, "z")
    lamp = sphere((0.77, high - 0.22, 0.22), 0.075)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        d = smin(column(x, y, z), union(head(x, y, z), plate(x, y, z)), 0.04)
        return union(d, drip(x, y, z))

    def fittings(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return union(collar(x, y, z), ear(x, y, z))

    return [
        Part(body),
        Part(jug, "coffee"),
        Part(fittings, "dark"),
        Part(lambda x, y, z: lamp(x, y, z.abs()), "accent"),
    ]


@category(
    "boat",
    natural=((0.90, 0.88, 0.84), (0.30, 0.50, 0.72), (0.80, 0.28, 0.22), (0.70, 0.48, 0.28)),
    yaw=(-35, 35),
    sail=(0.9, 1.06),
    hull=(0.9, 1.12),
    jib=(0.85, 1.1),
)
def boat(s: Shape) -> list[Part]:
    """A toy sailing boat, bow to +x: a deep hull, a mainsail and a jib."""
    deep, top = 0.48 * s["hull"], 1.74 * s["sail"]
    shell = ellipsoid((0.0, deep, 0.0), (0.98, deep, 0.44))
    well = ellipsoid((0.0, deep + 0.06, 0.0), (0.76, 0.20, 0.26))
    mast = capsule((0.08, 0.3, 0.0), (0.08, top, 0.0), 0.05)
    main = _sail(0.04, deep + 0.16, 0.80, top)
    jib = _sail(0.12, deep + 0.14, 0.64 * s["jib"], 0.92 * top)

    def sails(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return smax(union(main(-x, y), jib(x, y)), z.abs() - 0.06, 0.05)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        hull = smax(smax(shell(x, y, z), y - deep - 0.02, 0.04), -well(x, y, z), 0.03)
        return torch.maximum(union(hull, sails(x, y, z)), -y)

    return [Part(body), Part(mast, "wood")]


def _sail(luff: Float, foot: Float, reach: Float, head: Float) -> Callable[[Tensor, Tensor], Tensor]:
    """A right triangle in the plane: upright at x = luff, its foot at y = foot from there to luff + reach."""
    slope = reach / (head - foot)
    steep = (1 + slope * slope) ** -0.5
    edge = luff + reach + foot * slope

    def distance(x: Tensor, y: Tensor) -> Tensor:
        leech = (mad(x, y, slope) - edge) * steep
        return torch.maximum(torch.maximum(leech, luff - x), foot - y)

    return distance
