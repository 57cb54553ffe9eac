"""From a spec to an image, in three stages whose results can be shared: shoot rays, light, paint.

    shot = shoot(spec.objects, spec.camera, size)     geometry: where every ray ends, normals
    lit = light(shot, setting)                        the scene: sky, ground, shadows, occlusion
    image = paint(lit, paints)                      the materials of the objects: uint8 [3, size, size]

Images that differ only in material share the first two stages, images that differ only in scene share the first.
Everything is plain PyTorch on the device that the caller names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pops.toybox.adjectives import ADJECTIVES
from pops.toybox.materials import MATERIALS, photo_material, plain, random_material
from pops.toybox.objects import EVERY, PAINTS
from pops.toybox.scenes import SCENES
from pops.toybox.scenes.base import Setting
from pops.toybox.shot import Device, Hits, Shot, shoot
from pops.toybox.surface import Float, Paint, Surface
from pops.toybox.trace import Vec, occlusion, soft_shadow
from pops.toybox.world import MaterialSpec, ObjectSpec, SceneSpec, SwatchSpec

GROUND_LIFT = 0.004  # height at which ground points start, so that they do not shade themselves


# --- stage 2: light --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lit:
    """A shot in a scene: what every ray sees behind the objects, and how much light reaches each hit."""

    shot: Shot
    setting: Setting
    sun: tuple[float, float, float]
    behind: Vec  # linear light, all rays
    sun_share: tuple[Tensor, ...]  # per object, per hit, 0..1
    open_share: tuple[Tensor, ...]


def light(shot: Shot, setting: Setting) -> Lit:
    """Computes sky and ground behind the objects, and shadows and occlusion on objects and ground."""
    sun = _unit3(setting.sun)
    eye, d = shot.eye, shot.d
    down = torch.nonzero(~torch.isfinite(shot.t) & (d[1] < setting.horizon)).flatten()
    t = -eye[1] / d[1][down]
    x, z = eye[0] + d[0][down] * t, eye[2] + d[2][down] * t
    ground: Vec = (x, torch.full_like(x, GROUND_LIFT), z)
    up: Vec = (torch.zeros_like(x), torch.ones_like(x), torch.zeros_like(x))
    spots = [_spots(shot, hit) for hit in shot.hits]
    p: Vec = tuple(torch.cat([s.p[k] for s in spots] + [ground[k]]) for k in range(3))  # type: ignore[assignment]
    n: Vec = tuple(torch.cat([s.n[k] for s in spots] + [up[k]]) for k in range(3))  # type: ignore[assignment]
    shade, open_ = _reach(shot, p, n, sun)
    sizes = [s.p[0].numel() for s in spots] + [x.numel()]
    shades, opens = shade.split(sizes), open_.split(sizes)
    behind = _behind(shot, setting, down, t, x, z, sun[1] * shades[-1], opens[-1])
    return Lit(
        shot,
        setting,
        sun,
        behind,
        tuple(v[s.back] for v, s in zip(shades, spots, strict=False)),
        tuple(v[s.back] for v, s in zip(opens, spots, strict=False)),
    )


def _unit3(v: Sequence[Float]) -> tuple[float, float, float]:
    x, y, z = (float(c) for c in v)
    k = 1 / math.sqrt(x * x + y * y + z * z)
    return x * k, y * k, z * k


@dataclass(frozen=True)
class Spots:
    """One hit per pixel, standing for all rays of it: world points and normals [m]; for each ray [n] its spot."""

    p: Vec
    n: Vec
    back: Tensor


def _spots(shot: Shot, hit: Hits) -> Spots:
    if hit.rays.numel() == 0:
        return Spots(hit.p, hit.p, hit.rays)
    order = torch.arange(hit.rays.numel(), device=hit.rays.device)
    first = torch.full((shot.size * shot.size,), hit.rays.numel(), device=hit.rays.device)
    first = first.scatter_reduce(0, hit.pixels, order, "amin")
    used = torch.nonzero(first < hit.rays.numel()).flatten()
    pick = first[used]
    back = torch.empty_like(first)
    back[used] = torch.arange(used.numel(), device=first.device)
    n: Vec = tuple(k[pick] for k in hit.world_n)  # type: ignore[assignment]
    p: Vec = tuple(c[pick] + 0.02 * k for c, k in zip(hit.world_p, n, strict=True))  # type: ignore[assignment]
    return Spots(p, n, back[hit.pixels])


def _reach(shot: Shot, p: Vec, n: Vec, sun: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
    """Returns the shares of sun and open sky, 0..1, that reach world points with normals past all objects."""
    shade, open_ = torch.ones_like(p[0]), torch.ones_like(p[0])
    facing = n[0] * sun[0] + n[1] * sun[1] + n[2] * sun[2] > 0
    for hit in shot.hits:
        thing = hit.placed
        q, m = thing.point(p), thing.direction(n)
        ray = _floats(thing.direction(tuple(torch.tensor(c) for c in sun)))
        lo, hi = thing.solid.box
        lit = torch.nonzero(facing).flatten()
        shade[lit] = shade[lit] * soft_shadow(thing.solid, tuple(c[lit] for c in q), ray)  # type: ignore[arg-type]
        near = (q[0] > lo[0] - 0.35) & (q[0] < hi[0] + 0.35) & (q[2] > lo[2] - 0.35) & (q[2] < hi[2] + 0.35)
        close = torch.nonzero(near).flatten()
        shut = occlusion(thing.solid, tuple(c[close] for c in q), tuple(c[close] for c in m))  # type: ignore[arg-type]
        open_[close] = open_[close] * shut
    return shade, open_


def _floats(v: Sequence[Tensor]) -> tuple[float, float, float]:
    return float(v[0]), float(v[1]), float(v[2])


def _behind(
    shot: Shot, setting: Setting, down: Tensor, t: Tensor, x: Tensor, z: Tensor, ndl: Tensor, open_: Tensor
) -> Vec:
    """Returns the linear light of sky and ground along every ray that hits no object; zero elsewhere."""
    d = shot.d
    out = [torch.zeros_like(d[0]) for _ in range(3)]
    above = torch.nonzero(~torch.isfinite(shot.t) & (d[1] >= setting.horizon)).flatten()
    if above.numel():
        for c, value in zip(out, setting.sky(*(k[above] for k in d)), strict=True):
            c[above] = value if isinstance(value, Tensor) else torch.full_like(c[above], value)
    if down.numel():
        s = setting.ground(x, z)
        mist = 1 - torch.exp(-setting.fog * t)
        for k, c in enumerate(out):
            lit = s.rgb[k] * (setting.sun_rgb[k] * ndl + setting.fill_up[k] * open_) + s.glow[k]
            c[down] = lit + (setting.fog_rgb[k] - lit) * mist
    return out[0], out[1], out[2]


# --- stage 3: materials ----------------------------------------------------------------------------------------------


def paint(lit: Lit, paints: Sequence[Sequence[Paint]]) -> Tensor:
    """Paints the image, uint8 [3, size, size]: paints[k][j] colours part j of object k."""
    shot = lit.shot
    out = [c.clone() for c in lit.behind]
    for k, hit in enumerate(shot.hits):
        if hit.rays.numel() == 0:
            continue
        surface = _by_part(paints[k], hit)
        d: Vec = tuple(c[hit.rays] for c in shot.d)  # type: ignore[assignment]
        colour = shade(surface, hit.world_n, d, lit.setting, lit.sun, lit.sun_share[k], lit.open_share[k])
        for c, value in zip(out, colour, strict=True):
            c[hit.rays] = value
    rgb = tone(torch.stack(out))
    s = shot.samples
    rgb = rgb.view(3, shot.size, s, shot.size, s).mean((2, 4))
    return (rgb * 255 + 0.5).to(torch.uint8)


def _by_part(paints: Sequence[Paint], hit: Hits) -> Surface:
    if len(paints) == 1:
        return _full(paints[0](*hit.p, *hit.n), hit.p[0])
    rows = torch.empty(8, hit.rays.numel(), device=hit.rays.device)
    for j, one in enumerate(paints):
        here = torch.nonzero(hit.part == j).flatten()
        if here.numel():
            s = _full(one(*(c[here] for c in hit.p), *(c[here] for c in hit.n)), hit.p[0][here])
            rows[:, here] = torch.stack((*s.rgb, s.rough, s.metal, *s.glow))  # type: ignore[arg-type]
    return Surface((rows[0], rows[1], rows[2]), rows[3], rows[4], (rows[5], rows[6], rows[7]))


def _full(s: Surface, like: Tensor) -> Surface:
    def wide(v: Float) -> Tensor:
        return v.expand_as(like) if isinstance(v, Tensor) else torch.full_like(like, v)

    r, g, b = (wide(c) for c in s.rgb)
    gr, gg, gb = (wide(c) for c in s.glow)
    return Surface((r, g, b), wide(s.rough), wide(s.metal), (gr, gg, gb))


def shade(
    s: Surface, n: Vec, d: Vec, setting: Setting, sun: tuple[float, float, float], sun_share: Tensor, open_share: Tensor
) -> Vec:
    """Returns the linear light from each point towards the camera: key light, sky, reflected surroundings, glow.

    Lambert + Blinn-Phong normalised highlight + Schlick's Fresnel on the reflected sky.
    """
    rough = torch.as_tensor(s.rough).clamp(0.05, 1)
    metal = torch.as_tensor(s.metal)
    ndl = (n[0] * sun[0] + n[1] * sun[1] + n[2] * sun[2]).clamp_min(0)
    ndv = -(n[0] * d[0] + n[1] * d[1] + n[2] * d[2])
    r: Vec = (d[0] + 2 * ndv * n[0], d[1] + 2 * ndv * n[1], d[2] + 2 * ndv * n[2])
    hx, hy, hz = sun[0] - d[0], sun[1] - d[1], sun[2] - d[2]
    inv = (hx * hx + hy * hy + hz * hz).rsqrt()
    ndh = ((n[0] * hx + n[1] * hy + n[2] * hz) * inv).clamp(0, 1)
    power = (2 / (rough * rough * rough + 0.004)).clamp_max(260.0)
    highlight = torch.pow(ndh, power) * (power + 8) * 0.04 * ndl * sun_share
    fresnel = (1 - ndv.clamp(0, 1)) ** 5 * (1 - 0.85 * rough)
    blur = ((rough - 0.12) * 1.7).clamp(0, 1)
    sky = setting.sky(*r)
    upness = 0.5 + 0.5 * n[1]
    upness_r = 0.5 + 0.5 * r[1]
    key = ndl * sun_share
    out = []
    for k in range(3):
        albedo = torch.as_tensor(s.rgb[k])
        f0 = 0.04 + (albedo - 0.04) * metal
        reflect = f0 + (1 - f0) * fresnel
        fill = setting.fill_down[k] + (setting.fill_up[k] - setting.fill_down[k]) * upness
        around = setting.fill_down[k] + (setting.fill_up[k] - setting.fill_down[k]) * upness_r
        seen = torch.as_tensor(sky[k]) * (1 - blur) + around * blur
        diffuse = albedo * (1 - metal) * (setting.sun_rgb[k] * key + fill * open_share)
        out.append(
            diffuse
            + reflect * (seen.clamp_max(2.5) * (0.35 + 0.65 * open_share) + setting.sun_rgb[k] * highlight)
            + torch.as_tensor(s.glow[k])
        )
    return out[0], out[1], out[2]


def tone(rgb: Tensor) -> Tensor:
    """Maps linear light to sRGB 0..1: the ACES filmic fit of Narkowicz (2015), then gamma."""
    x = rgb.clamp_min(0) * 0.85
    x = (x * (2.51 * x + 0.03)) / (x * (2.43 * x + 0.59) + 0.14)
    return x.clamp(0, 1) ** (1 / 2.2)


# --- specs -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _photo(path: str) -> Tensor:
    with Image.open(path) as image:
        image.draft("RGB", (512, 512))
        pixels = np.asarray(image.convert("RGB").resize((256, 256), Image.Resampling.LANCZOS))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def linear(srgb: tuple[float, float, float]) -> tuple[float, float, float]:
    """Converts sRGB 0..1 => linear light (IEC 61966-2-1)."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in srgb)
    return r, g, b


def material_paint(spec: MaterialSpec) -> Paint:
    if spec.kind == "named":
        return MATERIALS[spec.name].build(dict(spec.params))
    if spec.kind == "random":
        return random_material(spec.seed)
    if spec.kind == "photo":
        return photo_material(_photo(str(Path(spec.name))), spec.scale)
    return plain(linear(spec.rgb))


def object_paints(spec: ObjectSpec) -> list[Paint]:
    """Returns one paint per part: of the body its material, coated by adjectives; of other parts their own colour."""
    body = material_paint(spec.material)
    for name in spec.adjectives:
        coat = ADJECTIVES[name].coat
        if coat is not None:
            body = coat(body)
    parts = EVERY[spec.category].build(dict(spec.shape))
    return [body if part.paint == "body" else plain(linear(PAINTS[part.paint])) for part in parts]


def setting_of(scene: str, params: Sequence[tuple[str, float]] | Mapping[str, float]) -> Setting:
    return SCENES[scene].build(dict(params))


def draw(spec: SceneSpec | SwatchSpec, size: int = 96, samples: int = 2, device: Device = "cpu") -> Tensor:
    """Draws a spec, uint8 [3, size, size]. The same spec gives the same image."""
    if isinstance(spec, SwatchSpec):
        return draw_swatch(spec, size, samples, device)
    lit = light(shoot(spec.objects, spec.camera, size, samples, device), setting_of(spec.scene, spec.setting))
    return paint(lit, [object_paints(o) for o in spec.objects])


def draw_swatch(spec: SwatchSpec, size: int = 96, samples: int = 2, device: Device = "cpu") -> Tensor:
    """Draws a flat exemplar, uint8 [3, size, size]: the plane z = depth of the solid texture, in the studio's light."""
    side = size * samples
    steps = ((torch.arange(side, device=device) + 0.5) / side * 2 - 1) * spec.span / 2
    y, x = (c.reshape(-1) for c in torch.meshgrid(-steps, steps, indexing="ij"))
    z, one, zero = torch.full_like(x, spec.depth), torch.ones_like(x), torch.zeros_like(x)
    surface = _full(material_paint(spec.material)(x, y + 0.9, z, zero, zero, one), x)
    setting = setting_of("studio", {k: (lo + hi) / 2 for k, (lo, hi) in SCENES["studio"].ranges.items()})
    inv = (x * x + y * y + 9.0).rsqrt()
    tilt = 0.12  # leaned back a little, so that polished materials reflect a gradient of the surroundings
    n: Vec = (zero, zero + math.sin(tilt), zero + math.cos(tilt))
    d: Vec = (x * inv, y * inv, -3.0 * inv)
    rgb = tone(torch.stack(shade(surface, n, d, setting, _unit3((-0.35, 0.45, 0.82)), one, one)))
    rgb = rgb.view(3, size, samples, size, samples).mean((2, 4))
    return (rgb * 255 + 0.5).to(torch.uint8)


def to_image(image: Tensor) -> Image.Image:
    """Converts uint8 [3, H, W] => PIL RGB."""
    return Image.fromarray(image.permute(1, 2, 0).cpu().numpy())


def render(spec: SceneSpec | SwatchSpec, size: int = 256, samples: int = 2, device: Device = "cpu") -> Image.Image:
    """Draws a spec, as `draw` does, as a PIL image."""
    return to_image(draw(spec, size, samples, device))
