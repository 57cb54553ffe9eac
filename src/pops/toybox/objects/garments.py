"""What figures wear: each garment standing alone, its base on the ground, its front to the camera (+z).

They are a table of their own: nothing that draws from CATEGORIES meets them, so no other image changes. Pairs have a
parameter `gap`, how far each of the two is from the middle, which a wearer sets.
"""

import torch
from torch import Tensor

from pops.toybox.field import arc, ball, box, capsule, cone, cylinder, smax, smin, sphere, torus, turned, union
from pops.toybox.objects.base import GARMENTS, Part, Shape, category

BRIGHT = ((0.80, 0.16, 0.18), (0.16, 0.38, 0.75), (0.20, 0.58, 0.30), (0.93, 0.74, 0.18), (0.55, 0.25, 0.60))
LEATHER = ((0.45, 0.26, 0.13), (0.16, 0.15, 0.16), (0.72, 0.20, 0.18), (0.85, 0.70, 0.45))


@category("cap", natural=BRIGHT, yaw=(-30, 30), table=GARMENTS, height=(0.9, 1.15), bobble=(0.8, 1.2))
def cap(s: Shape) -> list[Part]:
    """A knitted cap: a dome, a rolled rim, a bobble."""
    high, big = 0.74 * s["height"], 0.20 * s["bobble"]
    dome = ball((0.0, 0.16, 0.0), (0.66, high, 0.66), 0.60)
    rim = torus((0.0, 0.16, 0.0), 0.62, 0.15)
    bobble = sphere((0.0, 0.16 + high + big * 0.7, 0.0), big)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return union(smax(dome(x, y, z), 0.10 - y, 0.04), rim(x, y, z))

    return [Part(body), Part(bobble, "light")]


@category("glasses", natural=BRIGHT + LEATHER, yaw=(-25, 25), table=GARMENTS, rim=(0.85, 1.2), lens=(0.92, 1.08))
def glasses(s: Shape) -> list[Part]:
    """Round sunglasses: two rims, a bridge, temples that go back."""
    thick, r = 0.075 * s["rim"], 0.33 * s["lens"]
    up = 0.45
    ring = torus((0.42, up, 0.0), r, thick, "z")
    bridge = capsule((0.0, up + 0.06, 0.02), (0.13, up + 0.03, 0.0), thick * 0.9)
    temple = capsule((0.78, up + 0.08, -0.02), (0.86, up + 0.10, -0.80), thick * 0.8)
    lens = cylinder((0.42, up, 0.0), r, 0.03, 0.01, "z")

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        m = x.abs()
        return union(ring(m, y, z), bridge(m, y, z), temple(m, y, z))

    return [Part(body), Part(lambda x, y, z: lens(x.abs(), y, z), "dark")]


@category("scarf", natural=BRIGHT, yaw=(-25, 25), table=GARMENTS, thick=(0.9, 1.15), end=(0.85, 1.1))
def scarf(s: Shape) -> list[Part]:
    """A thick ring of cloth with one end that hangs down in front."""
    r, low = 0.20 * s["thick"], 1.05 - 0.95 * s["end"]
    ring = torus((0.0, 1.05, 0.0), 0.62, r)
    knot = sphere((0.26, 1.00, 0.62), r * 1.12)
    end = box((0.30, (1.0 + low) / 2, 0.70), (0.20, (1.0 - low) / 2, 0.09), 0.06)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return union(smin(ring(x, y, z), knot(x, y, z), 0.08), end(x, y, z))

    return [Part(body)]


@category("bow tie", natural=BRIGHT, yaw=(-20, 20), table=GARMENTS, wide=(0.9, 1.12), high=(0.9, 1.15))
def bow_tie(s: Shape) -> list[Part]:
    """Two flared wings and a knot."""
    wide, high = 0.95 * s["wide"], 0.46 * s["high"]
    up = 0.58
    wing = turned(cone((0.0, wide / 2, 0.0), 0.12, high, wide / 2, 0.08), "z", -90.0)
    knot = box((0.0, up, 0.06), (0.17, 0.19, 0.20), 0.08)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return wing(x.abs(), y - up, z * 1.9) * 0.5

    return [Part(body), Part(knot, "dark")]


@category("boots", natural=LEATHER + BRIGHT, yaw=(-35, 35), table=GARMENTS, gap=(0.44, 0.50), shaft=(0.9, 1.1))
def boots(s: Shape) -> list[Part]:
    """A pair of wellingtons, toes to the camera: rolled cuffs, dark soles."""
    gap, high = s["gap"], 0.78 * s["shaft"]
    shaft = capsule((gap, 0.30, -0.08), (gap, high, -0.08), 0.29, 0.31)
    foot = capsule((gap, 0.25, -0.06), (gap, 0.22, 0.40), 0.26, 0.24)
    cuff = torus((gap, high, -0.08), 0.30, 0.08)
    sole = box((gap, 0.045, 0.14), (0.27, 0.05, 0.52), 0.04)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        m = x.abs()
        d = smin(smax(shaft(m, y, z), y - high, 0.04), foot(m, y, z), 0.12)
        return union(torch.maximum(d, 0.05 - y), cuff(m, y, z))

    return [Part(body), Part(lambda x, y, z: sole(x.abs(), y, z), "dark")]


@category("mittens", natural=BRIGHT, yaw=(-25, 25), table=GARMENTS, gap=(0.40, 0.46), fat=(0.92, 1.1))
def mittens(s: Shape) -> list[Part]:
    """A pair, fingers down: thumbs inwards, pale cuffs on top."""
    gap, fat = s["gap"], s["fat"]
    hand = ball((gap, 0.34, 0.0), (0.27 * fat, 0.34, 0.24), 0.24)
    thumb = capsule((gap - 0.16, 0.38, 0.06), (gap - 0.30, 0.26, 0.12), 0.085)
    cuff = torus((gap, 0.64, 0.0), 0.17, 0.085)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        m = x.abs()
        return smin(hand(m, y, z), thumb(m, y, z), 0.05)

    return [Part(body), Part(lambda x, y, z: cuff(x.abs(), y, z), "light")]


@category("bag", natural=LEATHER + BRIGHT, yaw=(-30, 30), table=GARMENTS, wide=(0.9, 1.15), high=(0.9, 1.1))
def bag(s: Shape) -> list[Part]:
    """A handbag: a soft box, a clasp, one round handle."""
    wide, high = 0.66 * s["wide"], 0.42 * s["high"]
    sack = box((0.0, high, 0.0), (wide, high, 0.30), 0.14)
    handle = arc((0.0, 2 * high - 0.04, 0.0), 0.36, 0.07, 90.0, 95.0)
    clasp = sphere((0.0, 1.5 * high, 0.30), 0.10)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return union(sack(x, y, z), handle(x, y, z))

    return [Part(body), Part(clasp, "metal")]
