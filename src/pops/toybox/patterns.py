"""Solid patterns: noise, cells and lattices as functions of position, and the colours they choose between.

Noise is read from a periodic table of values and slopes, 16 samples per wavelength: one lookup for any number of
octaves. Cells come from a table, too. Both have faint seams and are for colours only; displaced surfaces use sines
(adjectives.py). The tables are computed on first use, once per process and device (about a second, 80 MB). Positions
are tensors [...], parameters floats or tensors that broadcast. Knows no material and no object.
"""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pops.toybox.surface import Float, Rgb

_SIDE, _PERIOD = 128, 8  # noise table: samples per side, wavelengths per side
_CELLS, _FINE = 8, 8  # cell table: cells per side, samples per cell and axis


# ---- colours -----------------------------------------------------------------------------------------------


def tone(code: str, hue: Float = 0.0) -> Rgb:
    """Converts sRGB "#rrggbb", its hue rotated by `hue` (1: the whole circle), to linear light."""
    r, g, b = (int(code[i : i + 2], 16) / 255 for i in (1, 3, 5))
    turn = torch.as_tensor(hue, dtype=torch.float32) * math.tau
    cos, sin = turn.cos(), turn.sin() / math.sqrt(3)
    grey = (r + g + b) / 3 * (1 - cos)
    turned = (r * cos + grey + sin * (b - g), g * cos + grey + sin * (r - b), b * cos + grey + sin * (g - r))
    return each(lambda c: linear(c) if c.ndim else linear(c).item(), turned)


def each(f: Callable[..., Float], *colours: Sequence[Float]) -> Rgb:
    """Applies `f` to the reds, to the greens and to the blues."""
    r, g, b = (f(*c) for c in zip(*colours, strict=True))
    return r, g, b


def linear(srgb: Tensor) -> Tensor:
    """Converts sRGB 0..1 (clamped) to linear light."""
    srgb = srgb.clamp(0, 1)
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def mix(a: Rgb, b: Rgb, t: Float) -> Rgb:
    """Blends colours: `a` where t = 0, `b` where t = 1."""
    return each(lambda p, q: lerp(p, q, t), a, b)


def lerp(a: Float, b: Float, t: Float) -> Float:
    return a if a is b else a + (b - a) * t


def ramp(t: Tensor, stops: Sequence[tuple[float, Rgb]]) -> Rgb:
    """Interpolates colours linearly between `stops`, (t, colour) with rising t."""
    (low, rgb), *rest = stops
    for high, after in rest:
        rgb = mix(rgb, after, rise(t, low, high))
        low = high
    return rgb


def grade(rgb: Rgb, gain: Float) -> Rgb:
    return each(lambda c: c * gain, rgb)


# ---- shaping -----------------------------------------------------------------------------------------------


def rise(t: Tensor, low: Float, high: Float) -> Tensor:
    """Returns 0 below `low`, 1 above `high` (which may be the smaller one), linear between."""
    return ((t - low) * (1 / (high - low))).clamp(0, 1)


def saw(t: Tensor) -> Tensor:
    """Returns a triangle wave of period 1 between 0 (at whole numbers) and 1."""
    return (t - t.round()).abs() * 2


def chance(i: Tensor, j: Float = 0.0) -> Tensor:
    """Hashes a pair of whole numbers to 0..1; the same on every device."""
    h = (i * 0.754878 + j * 0.569840).frac()
    return ((h + 1.37) * (i * 0.61803 + j * 0.41421 + 3.1)).frac().abs()


def wrap(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> tuple[Tensor, Tensor]:
    """Projects to (u, v) on the axis plane that faces the normal most: front (x, y), side (z, y), top (x, z)."""
    ax, ay, az = nx.abs(), ny.abs() * 0.85, nz.abs()
    side, top = ax > az, ay > torch.maximum(ax, az)
    return torch.where(side & ~top, z, x), torch.where(top, z, y)


def hexes(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Finds hexagons with centres 1 apart -> (u, v from the nearest centre, and that centre's column and row)."""
    tall = math.sqrt(3)
    iu, iv = u.round(), (v / tall).round()
    ju, jv = (u - 0.5).round() + 0.5, (v / tall - 0.5).round() + 0.5
    du, dv, eu, ev = u - iu, v - iv * tall, u - ju, v - jv * tall
    odd = eu * eu + ev * ev < du * du + dv * dv
    return (
        torch.where(odd, eu, du),
        torch.where(odd, ev, dv),
        torch.where(odd, ju, iu) * 2,
        torch.where(odd, jv, iv) * 2,
    )


# ---- tables ------------------------------------------------------------------------------------------------


def noise(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Returns blobs about 1 apart, distributed as a standard normal: `noise > 0.52` covers 30 % of space."""
    return _look_up(_noise_table(False, x.device), x, y, z)


def fbm(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Returns cloudy noise of many sizes, the largest about 1.5, distributed as a standard normal."""
    return _look_up(_noise_table(True, x.device), x, y, z)


def cells(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Finds Voronoi cells about 1 apart -> (distance to the nearest wall 0..0.5, a number in 0..1 for the cell)."""
    row, (x, y, z) = _cell_row(x, y, z)
    wall = row[3] * x + row[4] * y + row[5] * z + row[6]
    return wall.abs(), torch.where(wall > 0, row[7], row[8])


def spots(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the same cells -> (distance to the cell's centre, its number)."""
    row, (x, y, z) = _cell_row(x, y, z)
    dx, dy, dz = x - row[0], y - row[1], z - row[2]
    return (dx * dx + dy * dy + dz * dz).sqrt(), row[7]


def _look_up(table: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    p = tuple((c + 8 * _PERIOD) * (_SIDE / _PERIOD) for c in (x, y, z))  # offset: truncation is floor above 0
    whole = tuple(c.to(torch.int32) for c in p)
    i, j, k = (c & (_SIDE - 1) for c in whole)
    value, gx, gy, gz = table[(i * _SIDE + j) * _SIDE + k].unbind(-1)
    return value + gx * (p[0] - whole[0]) + gy * (p[1] - whole[1]) + gz * (p[2] - whole[2])


def _cell_row(x: Tensor, y: Tensor, z: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    side = _CELLS * _FINE
    p = tuple(c - _CELLS * torch.floor(c / _CELLS) for c in (x, y, z))
    i, j, k = ((c * _FINE).to(torch.int32).clamp_max(side - 1) for c in p)
    return _cell_table(x.device)[(i * side + j) * side + k].unbind(-1), p


@functools.lru_cache(maxsize=8)
def _noise_table(rough: bool, device: torch.device) -> Tensor:
    """Returns the value and slope at each sample, [128^3, 4].

    White noise, filtered in frequency: a band about one wavelength (blobs), or a power law (clouds, `rough`).
    """
    white = torch.randn(_SIDE, _SIDE, _SIDE, generator=torch.Generator().manual_seed(11 + rough))
    f = torch.fft.fftfreq(_SIDE, 1 / _SIDE)
    half = f[: _SIDE // 2 + 1]
    k = (f[:, None, None] ** 2 + f[:, None] ** 2 + half**2).sqrt() / _PERIOD  # waves per unit
    if rough:
        band = (k + 1e-3) ** -2.5 * (1 - torch.exp(-((k / 0.6) ** 4))) * torch.exp(-((k / 5) ** 2))
    else:
        band = torch.exp(-(((k - 0.8) / 0.3) ** 2))
    field = torch.fft.irfftn(torch.fft.rfftn(white) * band, s=white.shape)
    field = (field - field.mean()) / field.std()
    slopes = [(field.roll(-1, axis) - field.roll(1, axis)) / 2 for axis in range(3)]
    return torch.stack([field - sum(slopes) / 2, *slopes], -1).reshape(-1, 4).to(device)


@functools.lru_cache(maxsize=8)
def _cell_table(device: torch.device) -> Tensor:
    """Returns one row per sample, [64^3, 9], from which distances between the samples are exact, too.

    A row: the centre of its cell, the plane of the nearest wall (unit normal, offset; positive inside), the numbers of
    its cell and of the one behind that wall.
    """
    gen = torch.Generator().manual_seed(5)
    jitter = 0.5 + 0.8 * (torch.rand(_CELLS, _CELLS, _CELLS, 3, generator=gen) - 0.5)
    number = torch.rand(_CELLS, _CELLS, _CELLS, 1, generator=gen)
    axis = (torch.arange(_CELLS * _FINE) + 0.5) / _FINE
    p = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    lattice = p[::_FINE, ::_FINE, ::_FINE].long()
    steps = [torch.tensor((a, b, c)) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]

    def centre(step: Tensor) -> Tensor:  # [64, 64, 64, 4]: the centre one lattice step away, and its number
        i, j, k = ((lattice + step) % _CELLS).unbind(-1)
        at = torch.cat([lattice + step + jitter[i, j, k], number[i, j, k]], -1)
        return at.repeat_interleave(_FINE, 0).repeat_interleave(_FINE, 1).repeat_interleave(_FINE, 2)

    def distance(c: Tensor) -> Tensor:
        return ((c[..., :3] - p) ** 2).sum(-1, keepdim=True)

    near = centre(steps[0])
    for step in steps[1:]:
        c = centre(step)
        near = torch.where(distance(c) < distance(near), c, near)
    least, wall = torch.full_like(p[..., :1], 9.0), torch.zeros(*p.shape[:3], 5)
    for step in steps:
        c = centre(step)
        gap = near[..., :3] - c[..., :3]
        normal = gap / gap.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        offset = -(normal * (c[..., :3] + near[..., :3]) / 2).sum(-1, keepdim=True)
        d = (normal * p).sum(-1, keepdim=True) + offset
        closer = (d < least) & (gap.abs().sum(-1, keepdim=True) > 1e-3)
        least, wall = (
            torch.where(closer, d, least),
            torch.where(closer, torch.cat([normal, offset, c[..., 3:]], -1), wall),
        )
    return torch.cat([near[..., :3], wall[..., :4], near[..., 3:], wall[..., 4:]], -1).reshape(-1, 9).to(device)
