"""Materials without a name: a wide random family, so that models see more than the named ones, and photos."""

import colorsys
import math
from collections.abc import Callable
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from pops.toybox.patterns import cells, chance, fbm, grade, hexes, linear, noise, rise, saw, spots, wrap
from pops.toybox.surface import Paint, Surface

# solid position and unit normal -> where on the palette, 0..1
Field = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def random_material(seed: int) -> Paint:
    """Draws pattern, palette, scale, orientation and finish from `seed`."""
    rng = Random(seed)
    kind = rng.choice(tuple(KINDS))
    colours = _palette(rng, rng.choices((2, 3, 4), (4, 4, 2))[0])
    table = _ladder(colours, smooth=kind == "gradient" or (kind in SOFT and rng.random() < 0.5))
    field, turn = KINDS[kind](rng), _rotation(rng)
    scale, (ox, oy, oz) = rng.uniform(0.75, 1.35), (rng.uniform(-9, 9) for _ in range(3))
    rough, metal, glow = _finish(rng)

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        px, py, pz = (scale * (a * x + b * y + c * z) for a, b, c in turn)
        qx, qy, qz = (a * nx + b * ny + c * nz for a, b, c in turn)
        t = field(px + ox, py + oy, pz + oz, qx, qy, qz)
        rgb = table.to(x.device)[(t.clamp(0, 1) * 255).long()]
        r, g, b = rgb.unbind(-1)
        return Surface((r, g, b), rough, metal, grade((r, g, b), glow) if glow else (0.0, 0.0, 0.0))

    return paint


def photo_material(image: Tensor, scale: float = 1.2) -> Paint:
    """Projects `image` [3, H, W] sRGB 0..1 from three sides, `scale` object units wide, mirrored beyond."""
    small = functional.interpolate(image[None].float(), size=(128, 128), mode="bilinear", antialias=True)[0]
    texels = linear(small).permute(1, 2, 0).reshape(-1, 3)

    def texel(u: Tensor, v: Tensor) -> Tensor:
        i, j = (((saw(p / (2 * scale)) * 128).long()).clamp_max(127) for p in (v, u))
        return texels.to(u.device)[(127 - i) * 128 + j]

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        weights = [n * n for n in (nx, ny, nz)]
        weights = [w * w * w * w for w in weights]
        total = weights[0] + weights[1] + weights[2] + 1e-9
        half = scale / 2  # the middle of the image at x = 0
        shots = texel(z + half, y), texel(x + half, z + half), texel(x + half, y)
        shares = torch.stack([w / total for w in weights], -1)[..., None]
        r, g, b = (torch.stack(shots, -2) * shares).sum(-2).unbind(-1)
        return Surface((r, g, b), 0.55)

    return paint


# ---- colours -----------------------------------------------------------------------------------------------


def _palette(rng: Random, n: int) -> list[tuple[float, float, float]]:
    """Draws `n` sRGB colours, each well apart in lightness or hue from the one before."""
    mode = rng.choice(("wild", "wild", "analogous", "opposite", "triad", "shades", "neutral"))
    base = rng.random()
    spread = {"analogous": 0.09, "opposite": 0.5, "triad": 1 / 3, "shades": 0.0, "neutral": 0.0}.get(mode, 0.0)
    colours: list[tuple[float, float, float]] = []
    while len(colours) < n:
        i = len(colours)
        hue = rng.random() if mode == "wild" else base + spread * i + rng.uniform(-0.03, 0.03)
        s, v = rng.choice(((1.0, 1.0), (0.85, 0.95), (0.9, 0.65), (0.45, 1.0), (0.75, 0.4)))
        if i and (mode == "neutral" or rng.random() < 0.25):
            s, v = rng.choice(((0.04, 1.0), (0.1, 0.95), (0.3, 0.14), (0.05, 0.6)))
        rgb = colorsys.hsv_to_rgb(hue % 1, s, v * rng.uniform(0.92, 1.0))
        if not i or min(math.dist(rgb, c) for c in colours) > 0.4:
            colours.append(rgb)
        elif rng.random() < 0.1:  # no darker or lighter shade is left
            mode = "wild"
    if max(sum(c) for c in colours) < 1.3:  # never all dark
        r, g, b = colours[0]
        colours[0] = 0.4 + 0.6 * r, 0.4 + 0.6 * g, 0.4 + 0.6 * b
    return colours


def _ladder(colours: list[tuple[float, float, float]], smooth: bool) -> Tensor:
    """Returns [256, 3] linear light: the colours in equal steps, or blended into each other."""
    steps = torch.linspace(0, len(colours) - 1e-3 if not smooth else len(colours) - 1, 256)
    low = steps.long()
    rgb = linear(torch.tensor(colours))
    if not smooth:
        return rgb[low]
    return torch.lerp(rgb[low], rgb[(low + 1).clamp_max(len(colours) - 1)], (steps - low)[:, None])


def _finish(rng: Random) -> tuple[float, float, float]:  # rough, metal, glow
    return rng.choice(
        (
            (rng.uniform(0.6, 0.95), 0.0, 0.0),
            (rng.uniform(0.6, 0.95), 0.0, 0.0),
            (rng.uniform(0.08, 0.3), 0.0, 0.0),
            (rng.uniform(0.3, 0.6), 0.0, 0.0),
            (rng.uniform(0.1, 0.4), 1.0, 0.0),
            (rng.uniform(0.3, 0.8), 0.0, rng.choice((0.0, 0.3))),
        )
    )


def _rotation(rng: Random) -> tuple[tuple[float, float, float], ...]:
    """Draws a rotation: none two times in five, else any."""
    if rng.random() < 0.4:
        return (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
    w, x, y, z = (rng.gauss(0, 1) for _ in range(4))
    s = 2 / (w * w + x * x + y * y + z * z)
    return (
        (1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)),
        (s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)),
        (s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)),
    )


# ---- pattern kinds: a builder draws its numbers once, the field uses them ----------------------------------


def _stripes(rng: Random) -> Field:
    f, wobble, tilt = rng.uniform(1.1, 3.0), rng.choice((0, 0, 0.15, 0.4)), rng.uniform(-1, 1)
    return lambda x, y, z, nx, ny, nz: saw(x * f + y * f * tilt + (wobble * noise(x, y, z) if wobble else 0))


def _dots(rng: Random) -> Field:
    f, size, ring = rng.uniform(1.8, 4.0), rng.uniform(0.2, 0.42), rng.random() < 0.3

    def field(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
        u, v = wrap(x, y, z, nx, ny, nz)
        du, dv, i, j = hexes(u * f, v * f)
        d = (du * du + dv * dv).sqrt()
        return rise(d, 0.5, 0.1) if ring else (d < size) * (0.51 + 0.48 * chance(i, j))

    return field


def _balls(rng: Random) -> Field:
    f, size = rng.uniform(2.2, 4.5), rng.uniform(0.3, 0.5)

    def field(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
        d, tag = spots(x * f, y * f, z * f)
        return (d < size * (0.6 + 0.4 * tag)) * (0.51 + 0.48 * torch.frac(tag * 7))

    return field


def _checks(rng: Random) -> Field:
    f, solid, tilt = rng.uniform(2.2, 4.5), rng.random() < 0.5, rng.choice((0.0, 0.6, 1.0))

    def field(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
        u, v = wrap(x, y, z, nx, ny, nz)
        u, v = (u + tilt * v, v - tilt * u)
        if solid:
            return torch.remainder((x * f).floor() + (y * f).floor() + (z * f).floor(), 2)
        return 0.5 * (
            torch.remainder((u * f).floor() + (v * f).floor(), 2) + chance((u * f / 2).floor(), (v * f / 2).floor())
        )

    return field


def _plaid(rng: Random) -> Field:
    f, a, b = rng.uniform(1.2, 2.4), rng.uniform(0.3, 0.6), rng.uniform(0.05, 0.2)

    def field(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
        u, v = wrap(x, y, z, nx, ny, nz)
        p, q = saw(u * f), saw(v * f)
        thin = torch.minimum((p - b).abs(), (q - b).abs()) < 0.06
        return torch.where(thin, 0.99, 0.35 * (p > a) + 0.35 * (q > a))

    return field


def _blobs(rng: Random) -> Field:
    f, spread = rng.uniform(0.9, 3.2), rng.uniform(0.18, 0.5)
    return lambda x, y, z, nx, ny, nz: 0.5 + spread * noise(x * f, y * f, z * f)


def _clouds(rng: Random) -> Field:
    f = rng.uniform(0.8, 2.4)
    return lambda x, y, z, nx, ny, nz: 0.5 + 0.28 * fbm(x * f, y * f, z * f)


def _tiles(rng: Random) -> Field:
    f, line = rng.uniform(1.8, 4.5), rng.choice((0.0, 0.06, 0.1))

    def field(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
        wall, tag = cells(x * f, y * f, z * f)
        return torch.where(wall < line, 0.0, 0.1 + 0.9 * tag) if line else tag

    return field


def _cracks(rng: Random) -> Field:
    f, wide = rng.uniform(1.5, 3.5), rng.uniform(0.1, 0.35)
    return lambda x, y, z, nx, ny, nz: rise(cells(x * f, y * f, z * f)[0], 0.0, wide)


def _swirls(rng: Random) -> Field:
    f, bend = rng.uniform(0.5, 1.4), rng.uniform(0.4, 1.1)

    def field(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
        t = bend * fbm(x * f, y * f, z * f) + (x + 0.6 * y) * f
        return saw(t)

    return field


def _contours(rng: Random) -> Field:
    f, bands = rng.uniform(0.6, 1.3), rng.uniform(0.8, 2.2)
    return lambda x, y, z, nx, ny, nz: saw(bands * noise(x * f, y * f, z * f))


def _waves(rng: Random) -> Field:
    f, a, g = rng.uniform(1.3, 3.0), rng.uniform(0.1, 0.35), rng.uniform(3, 8)

    def field(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
        u, v = wrap(x, y, z, nx, ny, nz)
        return saw(v * f + a * torch.sin(u * g))

    return field


def _zigzag(rng: Random) -> Field:
    f, a, g = rng.uniform(1.3, 2.8), rng.uniform(0.3, 0.9), rng.uniform(1.5, 3.2)

    def field(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
        u, v = wrap(x, y, z, nx, ny, nz)
        t = v * f + a * saw(u * g)
        return t - t.floor()

    return field


def _triangles(rng: Random) -> Field:
    f = rng.uniform(1.8, 3.6)

    def field(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
        u, v = wrap(x, y, z, nx, ny, nz)
        a, b, c = v * f * 1.1547, (u - v * 0.57735) * f, (u + v * 0.57735) * f
        up = torch.remainder(a.floor() + b.floor() + c.floor(), 2)
        return 0.5 * up + 0.5 * chance(b.floor(), a.floor())

    return field


def _rings(rng: Random) -> Field:
    f, cx, cy, cz = rng.uniform(1.4, 3.2), *(rng.uniform(-0.6, 0.6) for _ in range(3))

    def field(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
        px, py, pz = (p - 2 * (p / 2).round() - c for p, c in ((x, cx), (y, cy), (z, cz)))
        return saw((px * px + py * py + pz * pz).sqrt() * f)

    return field


def _hexagons(rng: Random) -> Field:
    f, line = rng.uniform(2.2, 4.2), rng.choice((0.0, 0.42, 0.45))

    def field(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
        u, v = wrap(x, y, z, nx, ny, nz)
        du, dv, i, j = hexes(u * f, v * f)
        edge = torch.maximum(du.abs(), du.abs() * 0.5 + dv.abs() * 0.8660254)
        tag = chance(i, j)
        return torch.where(edge > line, 0.0, 0.2 + 0.8 * tag) if line else tag

    return field


def _bricks(rng: Random) -> Field:
    f, tall = rng.uniform(1.8, 3.4), rng.uniform(1.3, 2.4)

    def field(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
        u, v = wrap(x, y, z, nx, ny, nz)
        v = v * f * tall
        u = u * f + 0.5 * torch.remainder(v.floor(), 2)
        joint = (saw(u) < 0.1) | (saw(v) < 0.18)
        return torch.where(joint, 0.0, 0.3 + 0.7 * chance(u.floor(), v.floor()))

    return field


def _speckles(rng: Random) -> Field:
    f, cover = rng.uniform(3.0, 5.0), rng.uniform(0.3, 1.0)
    return lambda x, y, z, nx, ny, nz: torch.where(
        noise(x * f, y * f, z * f) > cover, 0.55 + 0.44 * (noise(x, y, z) > 0), 0.0
    )


def _gradient(rng: Random) -> Field:
    return lambda x, y, z, nx, ny, nz: saw(0.3 * y + 0.1 * x)


def _crosses(rng: Random) -> Field:
    f, arm = rng.uniform(2.0, 3.6), rng.uniform(0.1, 0.17)

    def field(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Tensor:
        u, v = wrap(x, y, z, nx, ny, nz)
        du, dv, i, j = hexes(u * f, v * f)
        a, b = torch.minimum(du.abs(), dv.abs()), torch.maximum(du.abs(), dv.abs())
        return ((a < arm) & (b < 0.4)) * (0.51 + 0.48 * chance(i, j))

    return field


def _plain(rng: Random) -> Field:
    return lambda x, y, z, nx, ny, nz: 0 * x


KINDS: dict[str, Callable[[Random], Field]] = {
    "stripes": _stripes,
    "dots": _dots,
    "balls": _balls,
    "checks": _checks,
    "plaid": _plaid,
    "blobs": _blobs,
    "clouds": _clouds,
    "tiles": _tiles,
    "cracks": _cracks,
    "swirls": _swirls,
    "contours": _contours,
    "waves": _waves,
    "zigzag": _zigzag,
    "triangles": _triangles,
    "rings": _rings,
    "hexagons": _hexagons,
    "bricks": _bricks,
    "speckles": _speckles,
    "gradient": _gradient,
    "crosses": _crosses,
    "plain": _plain,
}
SOFT = {"stripes", "blobs", "clouds", "swirls", "contours", "waves", "rings", "cracks"}
