"""Signed-distance building blocks: makers of solids (`sphere`, `box`, ...) and the operators that join them.

A maker takes sizes once and returns an Sdf: what does not depend on the point is computed once per image. Sizes are
floats or tensors [B, 1], in world units and degrees; blend widths `k` are floats. Distances may be smaller than the
true ones but hardly larger. Knows no category, colour or ray.
"""

import math
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from pops.toybox.surface import Float, Sdf

Point = tuple[Float, Float, Float]
Spot = tuple[Float, Float]

# --- numbers that are floats or tensors ---------------------------------------------------------------------


def cos(a: Float) -> Float:
    return a.cos() if isinstance(a, Tensor) else math.cos(a)


def sin(a: Float) -> Float:
    return a.sin() if isinstance(a, Tensor) else math.sin(a)


def _zero(v: Float) -> bool:
    return not isinstance(v, Tensor) and v == 0


def less(u: Tensor, c: Float) -> Tensor:
    """Returns u - c, without computing anything when c is a plain zero."""
    return u if _zero(c) else u - c


def mad(total: Tensor, u: Tensor, k: Float) -> Tensor:
    """Returns total + u * k in one operation."""
    if isinstance(k, Tensor):
        return torch.addcmul(total, u, k)
    return total if k == 0 else torch.add(total, u, alpha=k)


def length(x: Tensor, y: Tensor, z: Tensor | None = None) -> Tensor:
    d = torch.addcmul(x * x, y, y)
    return (d if z is None else torch.addcmul(d, z, z)).sqrt_()


# --- operators ----------------------------------------------------------------------------------------------


def smin(a: Tensor, b: Tensor, k: float) -> Tensor:
    """Returns the minimum with a fillet about k wide (quadratic, after Quilez)."""
    h = (k - (a - b).abs_()).clamp_min_(0)
    return torch.addcmul(torch.minimum(a, b), h, h, value=-0.25 / k)


def smax(a: Tensor, b: Tensor, k: float) -> Tensor:
    """Returns the maximum with an edge rounded about k wide."""
    h = (k - (a - b).abs_()).clamp_min_(0)
    return torch.addcmul(torch.maximum(a, b), h, h, value=0.25 / k)


def union(*d: Tensor) -> Tensor:
    return reduce(torch.minimum, d)


def turn(u: Tensor, v: Tensor, angle: Float | Tensor) -> tuple[Tensor, Tensor]:
    """Rotates the plane (u, v) by an angle in radians, u towards v; the angle may differ by point."""
    c, s = cos(angle), sin(angle)
    return mad(u * c, v, -s), mad(v * c, u, s)


def turn_x(y: Tensor, z: Tensor, angle: Float | Tensor) -> tuple[Tensor, Tensor]:
    return turn(y, z, angle)


def turn_y(z: Tensor, x: Tensor, angle: Float | Tensor) -> tuple[Tensor, Tensor]:
    return turn(z, x, angle)


def turn_z(x: Tensor, y: Tensor, angle: Float | Tensor) -> tuple[Tensor, Tensor]:
    return turn(x, y, angle)


def turned(solid: Sdf, axis: str, degrees: Float, at: Point = (0.0, 0.0, 0.0)) -> Sdf:
    """Rotates a solid about an axis through `at`, counter-clockwise when looking against the axis."""
    a = degrees * (math.pi / 180)
    c, s = cos(a), sin(a)

    def back(u: Tensor, v: Tensor, cu: Float, cv: Float) -> tuple[Tensor, Tensor]:
        u, v = less(u, cu), less(v, cv)
        u, v = mad(u * c, v, s), mad(v * c, u, -s)
        return less(u, -cu), less(v, -cv)

    def about_x(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return solid(x, *back(y, z, at[1], at[2]))

    def about_y(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        z, x = back(z, x, at[2], at[0])
        return solid(x, y, z)

    def about_z(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return solid(*back(x, y, at[0], at[1]), z)

    return {"x": about_x, "y": about_y, "z": about_z}[axis]


def _along(axis: str, c: Point, solid: Sdf) -> Sdf:
    """Turns a solid around the y axis at the origin to another axis and moves it to c."""
    cx, cy, cz = c
    if axis == "y":
        return lambda x, y, z: solid(less(x, cx), less(y, cy), less(z, cz))
    if axis == "x":
        return lambda x, y, z: solid(less(y, cy), less(x, cx), less(z, cz))
    return lambda x, y, z: solid(less(x, cx), less(z, cz), less(y, cy))


# --- solids -------------------------------------------------------------------------------------------------


def sphere(c: Point, r: Float) -> Sdf:
    cx, cy, cz = c
    return lambda x, y, z: length(less(x, cx), less(y, cy), less(z, cz)) - r


def ellipsoid(c: Point, radii: Point) -> Sdf:
    """Returns a first-order distance (Quilez): exact on the axes; keep the radii within a ratio of about 4."""
    cx, cy, cz = c
    ax, ay, az = (1 / (r * r) for r in radii)
    bx, by, bz = ax * ax, ay * ay, az * az

    def distance(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        x, y, z = (less(u, o).square() for u, o in ((x, cx), (y, cy), (z, cz)))
        k = mad(mad(x * ax, y, ay), z, az)
        slope = mad(mad(x * bx, y, by), z, bz).clamp_min_(1e-9).rsqrt_()
        return (k - k.sqrt()).mul_(slope)

    return distance


def _limb(a: tuple[Float, ...], b: tuple[Float, ...], ra: Float, rb: Float) -> Callable[..., Tensor]:
    """Joins the balls of radius ra about a and rb about b by what lies between, in two or three dimensions."""
    ab = tuple(q - p for p, q in zip(a, b, strict=True))
    inv = 1 / sum(v * v for v in ab)
    unit = [(v * inv, i) for i, v in enumerate(ab) if not _zero(v)]
    bias = sum(u * a[i] for u, i in unit)
    taper = ra - rb

    def distance(*p: Tensor) -> Tensor:
        h = p[unit[0][1]] * unit[0][0]
        for u, i in unit[1:]:
            h = mad(h, p[i], u)
        h = less(h, bias).clamp(0, 1)
        return mad(length(*(mad(less(u, o), h, -v) for u, o, v in zip(p, a, ab, strict=True))), h, taper) - ra

    return distance


def capsule(a: Point, b: Point, ra: Float, rb: Float | None = None) -> Sdf:
    """Returns all within ra of the segment a..b; with rb, the radius goes from ra at a to rb at b."""
    return _limb(a, b, ra, ra if rb is None else rb)


def fin(a: Spot, b: Spot, ra: Float, rb: Float, r: float, z0: Float = 0.0) -> Sdf:
    """A flat capsule in the plane z = z0, a pillow 2 * r thick; ra and rb are its outer radii."""
    flat = _limb(a, b, ra - r, rb - r)
    return lambda x, y, z: length(flat(x, y).clamp_min_(0), less(z, z0)) - r


def ball(c: Point, radii: Point, least: Float) -> Sdf:
    """A nearly round ellipsoid, cheaper: distances are too small by up to least radius / largest radius."""
    cx, cy, cz = c
    ax, ay, az = (least * least / (r * r) for r in radii)

    def distance(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        k = less(x, cx).square() * ax
        return mad(mad(k, less(y, cy).square(), ay), less(z, cz).square(), az).sqrt_() - least

    return distance


def box(c: Point, half: Point, r: float = 0.05) -> Sdf:
    """A box with edges rounded by r, half sizes measured outside; the inside is never deeper than r."""
    cx, cy, cz = c
    hx, hy, hz = (h - r for h in half)

    def distance(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        x = (less(x, cx).abs() - hx).clamp_min_(0)
        y = (less(y, cy).abs() - hy).clamp_min_(0)
        z = (less(z, cz).abs() - hz).clamp_min_(0)
        return length(x, y, z) - r

    return distance


def block(c: Point, half: Point) -> Sdf:
    """A sharp box whose inside has its true depth: for cutting out of other solids."""
    cx, cy, cz = c
    hx, hy, hz = half

    def distance(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        x, y, z = less(x, cx).abs() - hx, less(y, cy).abs() - hy, less(z, cz).abs() - hz
        return torch.maximum(torch.maximum(x, y), z)

    return distance


def cylinder(c: Point, radius: Float, half: Float, r: float = 0.04, axis: str = "y") -> Sdf:
    """A cylinder of half length `half`, edges rounded by r; the inside is never deeper than r."""
    inner, flat = radius - r, half - r

    def distance(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return length((length(x, z) - inner).clamp_min_(0), (y.abs() - flat).clamp_min_(0)) - r

    return _along(axis, c, distance)


def cone(c: Point, r0: Float, r1: Float, half: Float, k: float = 0.06, axis: str = "y") -> Sdf:
    """A frustum: radius r0 at the low end, r1 at the high one (may be 0); edges rounded about k wide."""
    tilt = (r0 - r1) / (2 * half)
    cosine = (1 + tilt * tilt) ** -0.5
    slope, bias = tilt * cosine, (r0 + r1) / 2 * cosine

    def distance(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return smax(mad(length(x, z) * cosine, y, slope) - bias, y.abs() - half, k)

    return _along(axis, c, distance)


def torus(c: Point, ring: Float, r: Float, axis: str = "y") -> Sdf:
    return _along(axis, c, lambda x, y, z: length(length(x, z) - ring, y) - r)


def arc(c: Point, ring: Float, r: Float, middle: float, spread: float) -> Sdf:
    """Part of a torus about the z axis with round ends: `spread` degrees to either side of `middle`."""
    cx, cy, cz = c
    m, s = math.radians(middle), math.radians(spread)
    mc, ms, sc, ss = math.cos(m), math.sin(m), math.cos(s), math.sin(s)
    ex, ey = ring * sc, ring * ss

    def distance(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        x, y = less(x, cx), less(y, cy)
        u, v = mad(x * mc, y, ms), mad(y * mc, x, -ms).abs_()
        inside = mad(v * sc, u, -ss) < 0
        flat = torch.where(inside, (length(u, v) - ring).abs_(), length(u - ex, v - ey))
        return length(flat, less(z, cz)) - r

    return distance


def slab(outline: Tensor, z: Tensor, half: Float, k: float = 0.06) -> Tensor:
    """Extrudes a flat figure, given by its distance in the plane, to a board 2 * half thick."""
    return smax(outline, z.abs() - half, k)


def every(x: Tensor, step: float) -> Tensor:
    """Folds x into one cell of a row that repeats every `step`, with the cell's middle at 0."""
    return mad(x, (x * (1 / step)).round_(), -step)
