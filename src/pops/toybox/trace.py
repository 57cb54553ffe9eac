"""Where rays meet an object: sphere tracing, normals, soft shadows and occlusion of one signed-distance solid.

Everything here works in the object's own space on flat arrays of points, components apart. It knows no colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pops.toybox.surface import Sdf

Vec = tuple[Tensor, Tensor, Tensor]
Box = tuple[tuple[float, float, float], tuple[float, float, float]]

REACH = ((-1.7, -0.02, -1.7), (1.7, 3.0, 1.7))  # a box that contains every object, warped or not
SAFETY = 0.88  # share of the distance by which a step advances, since warped distances are only approximate
COARSE = 4  # rays along each side of the block for which one cone goes ahead


@dataclass(frozen=True)
class Solid:
    """A signed-distance solid and the tight box around it."""

    sdf: Sdf
    parts: Sequence[Sdf]
    box: Box


def solid(parts: Sequence[Sdf], device: torch.device | str = "cpu", cells: int = 26) -> Solid:
    """Joins the parts and finds their bounding box from the distances on a coarse grid."""

    def sdf(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        d = parts[0](x, y, z)
        for part in parts[1:]:
            d = torch.minimum(d, part(x, y, z))
        return d

    axes = [torch.linspace(lo, hi, cells, device=device) for lo, hi in zip(*REACH, strict=True)]
    x, y, z = (g.reshape(-1) for g in torch.meshgrid(*axes, indexing="ij"))
    half = [float(a[1] - a[0]) / 2 for a in axes]
    reach = 1.25 * (half[0] ** 2 + half[1] ** 2 + half[2] ** 2) ** 0.5
    near = sdf(x, y, z) < reach
    if not bool(near.any()):
        raise ValueError("the object is empty: no point of the world is inside it")
    low = [max(float(c[near].min()) - h, b) for c, h, b in zip((x, y, z), half, REACH[0], strict=True)]
    high = [min(float(c[near].max()) + h, b) for c, h, b in zip((x, y, z), half, REACH[1], strict=True)]
    return Solid(sdf, parts, ((low[0], low[1], low[2]), (high[0], high[1], high[2])))


def enter(o: Vec, d: Vec, box: Box) -> tuple[Tensor, Tensor]:
    """Returns where rays enter and leave a box: (t_in, t_out), t_in >= 0; a ray with t_in >= t_out misses."""
    t_in, t_out = torch.zeros_like(d[0]), torch.full_like(d[0], 1e9)
    for oc, dc, lo, hi in zip(o, d, *box, strict=True):
        inv = 1.0 / torch.where(dc.abs() < 1e-9, torch.full_like(dc, 1e-9), dc)
        a, b = (lo - oc) * inv, (hi - oc) * inv
        t_in = torch.maximum(t_in, torch.minimum(a, b))
        t_out = torch.minimum(t_out, torch.maximum(a, b))
    return t_in, t_out


def march(s: Solid, o: Vec, d: Vec, t: Tensor, t_out: Tensor, steps: int = 36, eps: float = 0.0025) -> Tensor:
    """Traces spheres from t (Hart 1996), one origin per ray or one for all: t of the first hit, inf for a miss.

    Every few steps the rays that are still running are gathered.
    """
    found = torch.full_like(t, float("inf"))
    live = torch.nonzero(t < t_out).flatten()
    one = o[0].numel() == 1
    ol = o if one else tuple(c[live] for c in o)
    dl, tl, end = tuple(c[live] for c in d), t[live], t_out[live]
    last = torch.full_like(tl, 1.0)
    for step in range(steps):
        last = s.sdf(*(oc + dc * tl for oc, dc in zip(ol, dl, strict=True)))
        hit = last < eps
        tl = torch.where(hit, tl, tl + last * SAFETY)
        if step % 4 == 3:
            done = hit | (tl > end)
            found[live[hit]] = tl[hit]
            keep = torch.nonzero(~done).flatten()
            if keep.numel() == 0:
                return found
            live, tl, end, last = live[keep], tl[keep], end[keep], last[keep]
            dl = tuple(c[keep] for c in dl)
            ol = ol if one else tuple(c[keep] for c in ol)
    close = last < 4 * eps  # a grazing ray that ran out of steps
    found[live[close]] = tl[close]
    return found


def hits_of_grid(s: Solid, o: Vec, d: Vec, side: int, spread: float) -> Tensor:
    """Returns first hits of a square grid of rays [side * side] from one origin; spread: angle between rays, radians.

    For each block of COARSE x COARSE rays one cone is traced first: the rays begin where the cone first comes near the
    solid, or are dropped if it never does.
    """
    grid = [c.view(side, side) for c in d]
    blocks = side // COARSE
    centre = [c.unfold(0, COARSE, COARSE).unfold(1, COARSE, COARSE).mean((2, 3)).reshape(-1) for c in grid]
    norm = (centre[0] ** 2 + centre[1] ** 2 + centre[2] ** 2).rsqrt()
    cone: Vec = (centre[0] * norm, centre[1] * norm, centre[2] * norm)
    radius = spread * COARSE * 0.75
    lo, hi = s.box
    grown = (tuple(c - 0.12 for c in lo), tuple(c + 0.12 for c in hi))
    t, t_out = enter(o, cone, grown)  # type: ignore[arg-type]
    index = torch.nonzero(t < t_out).flatten()
    start = torch.full((blocks * blocks,), float("inf"), device=d[0].device)
    tl, end, dl = t[index], t_out[index], tuple(c[index] for c in cone)
    for _ in range(7):
        gap = s.sdf(*(oc + dc * tl for oc, dc in zip(o, dl, strict=True))) * SAFETY - radius * tl
        tl = tl + gap.clamp_min(0)
    start[index] = torch.where(tl < end, tl, torch.full_like(tl, float("inf")))
    begin = start.view(blocks, 1, blocks, 1).expand(blocks, COARSE, blocks, COARSE).reshape(-1)
    live = torch.nonzero(begin < 1e9).flatten()
    found = torch.full_like(d[0], float("inf"))
    if live.numel():
        rays: Vec = (d[0][live], d[1][live], d[2][live])
        _, t_out = enter(o, rays, s.box)
        found[live] = march(s, o, rays, begin[live], t_out + 1e-3)
    return found


def normals(s: Solid, p: Vec, e: float = 0.006) -> Vec:
    """Returns outward unit normals from four probes on a tetrahedron, in one evaluation."""
    signs = ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1))
    x, y, z = (torch.cat([c + e * k[i] for k in signs]) for i, c in enumerate(p))
    a, b, c, d = s.sdf(x, y, z).chunk(4)
    nx, ny, nz = a - b - c + d, -a - b + c + d, -a + b - c + d
    inv = (nx * nx + ny * ny + nz * nz + 1e-20).rsqrt()
    return nx * inv, ny * inv, nz * inv


def soft_shadow(s: Solid, p: Vec, light: tuple[float, float, float], sharp: float = 7.0, steps: int = 11) -> Tensor:
    """Returns the share of a light that reaches each point, 0..1: the narrowest cone along the shadow ray (Quilez)."""
    lx, ly, lz = light
    rays = tuple(torch.full_like(p[0], c) for c in light)
    t, t_out = enter(p, rays, s.box)  # type: ignore[arg-type]
    reached = torch.ones_like(p[0])
    index = torch.nonzero(t < t_out).flatten()
    if index.numel() == 0:
        return reached
    x, y, z = (c[index] for c in p)
    tl, end, seen = t[index].clamp_min(0.03), t_out[index], torch.ones_like(x)
    for _ in range(steps):
        d = s.sdf(x + lx * tl, y + ly * tl, z + lz * tl)
        seen = torch.where(tl < end, torch.minimum(seen, sharp * d / tl), seen)
        tl = tl + (d * SAFETY).clamp(0.04, 0.4)
    seen = seen.clamp(0, 1)
    reached[index] = seen * seen * (3 - 2 * seen)
    return reached


def occlusion(s: Solid, p: Vec, n: Vec, strength: float = 1.0) -> Tensor:
    """Returns the ambient light at each point, 0..1: how much closer the solid is than in open space (Evans 2006)."""
    shut = torch.zeros_like(p[0])
    for reach, weight in ((0.05, 1.6), (0.14, 0.8), (0.32, 0.45)):
        d = s.sdf(*(pc + nc * reach for pc, nc in zip(p, n, strict=True)))
        shut = shut + (reach - d).clamp_min(0) / reach * weight * 0.35
    return 1.0 - (strength * shut).clamp(0, 0.85)
