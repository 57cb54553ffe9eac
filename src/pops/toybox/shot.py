"""Where every ray of an image ends: the camera, objects standing in the world, and their hits.

The first stage of drawing; it knows no light and no colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pops.toybox.adjectives import ADJECTIVES
from pops.toybox.objects import EVERY
from pops.toybox.trace import Solid, Vec, hits_of_grid, normals, solid
from pops.toybox.world import Camera, ObjectSpec

Device = torch.device | str


@dataclass(frozen=True)
class Placed:
    """An object in the world: its solid, and the transform from world space to its own. at: where its own origin is,
    turned with the object, in world units."""

    solid: Solid
    cos: float
    sin: float
    x: float
    scale: float
    at: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def point(self, p: Sequence[Tensor | float]) -> tuple[Tensor, Tensor, Tensor]:
        x, y, z = p[0] - self.x, p[1], p[2]
        k, (ax, ay, az) = 1 / self.scale, self.at
        turned = x * self.cos - z * self.sin - ax, y - ay, x * self.sin + z * self.cos - az
        return turned[0] * k, turned[1] * k, turned[2] * k  # type: ignore[return-value]

    def direction(self, d: Sequence[Tensor | float]) -> tuple[Tensor, Tensor, Tensor]:
        x, y, z = d
        return x * self.cos - z * self.sin, y, x * self.sin + z * self.cos  # type: ignore[return-value]

    def outward(self, d: Vec) -> Vec:
        """Transforms a direction from object space to world space."""
        x, y, z = d
        return x * self.cos + z * self.sin, y, -x * self.sin + z * self.cos


@dataclass(frozen=True)
class Hits:
    """Where rays meet one object: ray indices [n], points and normals in object space, part, normals in the world."""

    placed: Placed
    rays: Tensor
    pixels: Tensor
    p: Vec
    n: Vec
    world_p: Vec
    world_n: Vec
    part: Tensor


@dataclass(frozen=True)
class Shot:
    size: int
    samples: int
    eye: tuple[float, float, float]
    d: Vec  # unit directions of all rays [(size * samples)^2], row by row
    t: Tensor  # distance to the nearest object along each ray, inf for none
    hits: tuple[Hits, ...]

    @property
    def mask(self) -> Tensor:
        """Share of each pixel that objects cover, [size, size]."""
        return self._pixels(torch.isfinite(self.t).float())

    @property
    def depth(self) -> Tensor:
        """Distance to what each pixel shows, ground included, [size, size], world units, at most 30."""
        ground = torch.where(
            self.d[1] < -1e-4, -self.eye[1] / self.d[1].clamp_max(-1e-4), torch.full_like(self.t, 30.0)
        )
        return self._pixels(torch.minimum(self.t, ground).clamp_max(30.0))

    def _pixels(self, v: Tensor) -> Tensor:
        s = self.samples
        return v.view(self.size, s, self.size, s).mean((1, 3))


def _rays(camera: Camera, side: int, device: Device) -> tuple[tuple[float, float, float], Vec, float]:
    a = math.radians(camera.azimuth)
    eye = (camera.distance * math.sin(a), camera.height, camera.distance * math.cos(a))
    fx, fy, fz = -eye[0], camera.aim - eye[1], -eye[2]
    k = 1 / math.sqrt(fx * fx + fy * fy + fz * fz)
    fx, fy, fz = fx * k, fy * k, fz * k
    flat = math.sqrt(fx * fx + fz * fz)
    rx, rz = -fz / flat, fx / flat  # to the right
    ux, uy, uz = -rz * fy, rz * fx - rx * fz, rx * fy  # up: right x forward
    half = math.tan(math.radians(camera.fov) / 2)
    steps = ((torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side * 2 - 1) * half
    v, u = torch.meshgrid(-steps, steps, indexing="ij")
    u, v = u.reshape(-1), v.reshape(-1)
    dx, dy, dz = fx + u * rx + v * ux, fy + v * uy, fz + u * rz + v * uz
    inv = (dx * dx + dy * dy + dz * dz).rsqrt()
    return eye, (dx * inv, dy * inv, dz * inv), 2 * half / side


def place(spec: ObjectSpec, device: Device = "cpu") -> Placed:
    """Builds the object's solid, warped by adjectives of shape, where the spec places it."""
    sdfs = [part.sdf for part in EVERY[spec.category].build(dict(spec.shape))]
    for name in spec.adjectives:
        warp = ADJECTIVES[name].warp
        if warp is not None:
            sdfs = [warp(sdf) for sdf in sdfs]
    yaw = math.radians(spec.yaw)
    size, *at = spec.fit or (1.0, 0.0, 0.0, 0.0)
    x, y, z = (spec.scale * c for c in at)
    return Placed(solid(sdfs, device), math.cos(yaw), math.sin(yaw), spec.x, spec.scale * size, (x, y, z))


def shoot(
    objects: Sequence[ObjectSpec], camera: Camera, size: int = 96, samples: int = 2, device: Device = "cpu"
) -> Shot:
    """Sends samples x samples rays through every pixel and finds where they meet the objects."""
    side = size * samples
    if side % 4:
        raise ValueError(f"size * samples must be a multiple of 4, got {size} * {samples}")
    eye, d, spread = _rays(camera, side, device)
    things = [place(o, device) for o in objects]
    distances = []
    for thing in things:
        origin = tuple(torch.tensor([c], device=device) for c in eye)
        t = hits_of_grid(thing.solid, thing.point(origin), thing.direction(d), side, spread)
        distances.append(t * thing.scale)
    if not things:
        return Shot(size, samples, eye, d, torch.full_like(d[0], float("inf")), ())
    t, owner = torch.stack(distances).min(0)
    hits = tuple(
        _hits(thing, torch.nonzero((owner == k) & torch.isfinite(t)).flatten(), t, eye, d, size, samples)
        for k, thing in enumerate(things)
    )
    return Shot(size, samples, eye, d, t, hits)


def _hits(
    thing: Placed, rays: Tensor, t: Tensor, eye: tuple[float, float, float], d: Vec, size: int, samples: int
) -> Hits:
    at = t[rays]
    world_p: Vec = (eye[0] + d[0][rays] * at, eye[1] + d[1][rays] * at, eye[2] + d[2][rays] * at)
    p = thing.point(world_p)
    if rays.numel() == 0:
        return Hits(thing, rays, rays, p, p, world_p, world_p, rays)
    n = normals(thing.solid, p)
    parts = thing.solid.parts
    part = torch.stack([f(*p) for f in parts]).argmin(0) if len(parts) > 1 else torch.zeros_like(rays)
    side = size * samples
    pixels = (rays // side // samples) * size + rays % side // samples
    return Hits(thing, rays, pixels, p, n, world_p, thing.outward(n), part)
