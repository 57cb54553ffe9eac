"""Houses and castles: toy blocks with the gate to the camera (+z)."""

import torch
from torch import Tensor

from pops.toybox.field import box, cone, cylinder, every, fin, mad, smax, union
from pops.toybox.objects.base import Part, Shape, category


@category(
    "house",
    natural=((0.85, 0.45, 0.32), (0.90, 0.82, 0.62), (0.55, 0.70, 0.80), (0.75, 0.72, 0.68)),
    yaw=(-32, 32),
    width=(0.9, 1.1),
    roof=(0.88, 1.15),
    wall=(0.9, 1.12),
)
def house(s: Shape) -> list[Part]:
    """A gable, a door between two windows, a chimney."""
    wide, wall = 0.67 * s["width"], 0.80 * s["wall"]
    rise = 0.74 * s["roof"]
    apex, eaves = wall + rise, wide + 0.20
    slope = rise / (wide + 0.02)
    steep = (1 + slope * slope) ** -0.5
    chimney = box((wide * 0.58, apex - 0.32, -0.2), (0.12, 0.38, 0.12), 0.03)
    door = box((0.0, 0.27, 0.58), (0.155, 0.28, 0.03), 0.02)
    panes = box((wide * 0.64, 0.48, 0.58), (0.125, 0.14, 0.03), 0.02)
    attic = cylinder((0.0, wall + 0.20, 0.60), 0.13, 0.05, 0.02, "z")
    flank = box((wide, 0.48, 0.0), (0.03, 0.14, 0.14), 0.02)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        m = x.abs()
        roof = mad(y, m, slope).sub_(apex).mul_(steep)
        n = z.abs()
        walls = torch.maximum(smax(m - wide, n - 0.58, 0.03), torch.maximum(roof, -y))
        tent = smax(roof.abs() - 0.075, torch.maximum(n - 0.72, m - eaves), 0.05)
        return union(walls, tent, chimney(x, y, z))

    def windows(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        m = x.abs()
        return union(panes(m, y, z), attic(x, y, z), flank(m, y, z))

    return [Part(body), Part(door, "wood"), Part(windows, "glow")]


@category(
    "castle",
    natural=((0.68, 0.68, 0.70), (0.85, 0.76, 0.58), (0.72, 0.58, 0.62)),
    yaw=(-32, 32),
    tower=(0.9, 1.12),
    roof=(0.85, 1.15),
    keep=(0.94, 1.06),
)
def castle(s: Shape) -> list[Part]:
    """Four round towers under pointed roofs, crenellated walls, a tall keep, a dark gate."""
    r, roof, keep = 0.23 * s["tower"], 0.22 * s["roof"], s["keep"]
    top = 0.92
    tower = cylinder((0.66, top / 2, 0.60), r, top / 2, 0.03)
    spire = cone((0.66, top + roof, 0.60), r + 0.09, 0.0, roof, 0.04)
    wall = box((0.0, 0.30, 0.0), (0.66, 0.34, 0.60), 0.03)
    merlon = box((0.0, 0.70, 0.58), (0.065, 0.10, 0.06), 0.02)
    donjon = cylinder((0.0, 0.65 * keep, -0.1), 0.32, 0.65 * keep, 0.03)
    crest = cone((0.0, 1.30 * keep + 0.27, -0.1), 0.42, 0.0, 0.27, 0.04)
    gate = fin((0.0, 0.0), (0.0, 0.33), 0.18, 0.18, 0.04, 0.60)
    slits = fin((0.66, 0.62), (0.66, 0.72), 0.055, 0.055, 0.03, 0.59 + r)

    def body(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        ax, az = x.abs(), z.abs()
        d = union(wall(x, y, z), tower(ax, y, az), spire(ax, y, az))
        teeth = merlon(every(x, 0.26), y, torch.maximum(az, ax - 0.06))
        return union(d, teeth, donjon(x, y, z), crest(x, y, z))

    def dark(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return torch.maximum(union(gate(x, y, z), slits(x.abs(), y, z)), -y)

    return [Part(body), Part(dark, "dark")]
