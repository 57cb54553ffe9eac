"""Distant places: volcano, under water, the moon, candy land."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pops.toybox.scenes.base import Setting, scene, setting
from pops.toybox.scenes.brush import (
    added,
    billow,
    copies,
    detail,
    dots,
    hashed,
    hills,
    inside,
    length,
    mix,
    peaks,
    puffs,
    ramp,
    rgb,
    scaled,
    wheel,
)
from pops.toybox.surface import Float, Rgb, Surface

LAVA, EMBER = (2.6, 0.75, 0.1), (1.0, 0.1, 0.02)


def cracks(u: Tensor, v: Tensor) -> Tensor:  # distance-like: 0 on a net of crooked lines
    return torch.minimum(billow(u, v).abs(), billow(v * 0.9 + 4, u * 1.1 + 7).abs())


@scene("volcano", phrase="on a volcano", shift=(-3, 3), cone=(-0.16, 0.16), smoke=(0, 1))
def volcano(s: Mapping[str, Float]) -> Setting:
    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        soot = billow(a * 16 + s["shift"], h * 34)
        c = mix(rgb("e0552a"), mix(rgb("4a1420"), rgb("3a2434"), s["smoke"]), ramp(0.0, 0.2, h + 0.02 * soot))
        c = mix(c, rgb("201018"), ramp(0.1, 0.9, soot) * ramp(0.06, 0.16, h) * 0.7)
        ridge = 0.05 * peaks(a, 11, s["shift"])
        c = mix(c, rgb("3a1a1c"), inside(h - ridge))
        u = a - s["cone"]
        plume = length(u * 1.1, (h - 0.15) * 0.8)
        c = added(c, (1.6, 0.45, 0.06), (plume * -22).exp())
        rim = 0.132 + 0.006 * (a * 90).sin()
        slope = (u.abs() - 0.045) - (0.14 - h).clamp(min=0) ** 1.35 * 2.6
        side = mix(rgb("2a1618"), rgb("57302c"), ramp(-0.08, 0.08, u + 0.01 * soot))
        c = mix(c, side, inside(torch.maximum(slope, h - rim)))
        low = 0.14 - h
        run = torch.minimum(
            (u - 0.9 * low * low + 0.006 * (h * 110).sin()).abs(),
            (u + 0.55 * low + 0.006 * (h * 90 + 2).sin()).abs(),
        )
        run = torch.minimum(run, (u - 0.75 * low + 0.008 * (h * 70).sin()).abs() + 0.002)
        c = mix(c, LAVA, inside(torch.maximum(run - 0.008 - 0.02 * low, h - rim)))
        spray, _ = dots(a * 60 + s["shift"], h * 60, 0.13, 0.5)
        return mix(c, LAVA, inside(spray, 0.15) * ramp(0.11, 0.04, plume) * ramp(0.135, 0.145, h))

    def ground(x: Tensor, z: Tensor) -> Surface:
        d = cracks(x * 1.25 + s["shift"], z * 1.25)
        hot, halo = ramp(0.16, 0.04, d), ramp(0.5, 0.0, d)
        glow = mix(scaled(EMBER, 0.35 * halo * halo), LAVA, hot)
        return Surface(mix(rgb("4a4044"), rgb("2c2628"), ramp(-0.4, 0.6, billow(x * 4, z * 4))), rough=0.8, glow=glow)

    return setting(
        s,
        backdrop,
        ground,
        key=(1.9, 1.65, 1.45),
        up=(0.36, 0.28, 0.28),
        down=(0.5, 0.17, 0.06),
        above=rgb("4a2028"),
        below=rgb("5a2a20"),
    )


@scene("underwater", phrase="under water", shift=(-3, 3), hue=(-0.04, 0.04), reef=(-0.3, 0.3))
def underwater(s: Mapping[str, Float]) -> Setting:
    deep, shallow = wheel(0.56 + s["hue"], 0.17, 0.17), wheel(0.5 + s["hue"], 0.5, 0.35)
    sand = rgb("9cbc98")

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        c = mix(deep, shallow, ramp(0.0, 0.26, h))
        beam = (a * 26 + h * 14 + s["shift"]).sin() + (a * 43 + h * 22 + 2 * s["shift"]).sin()
        c = mix(c, (0.75, 1.0, 0.95), ramp(0.3, 1.8, beam) * ramp(0.0, 0.2, h) * 0.6)
        c = mix(c, scaled(deep, 0.6), inside(h - 0.07 * hills(a, 9, s["shift"])) * 0.8)
        u, k = copies(a + s["reef"], 37, 0.2)  # kelp
        rnd = hashed(k, 5.0)
        bend = u - 0.012 * (h * 55 + 9 * rnd + s["shift"]).sin()
        kelp = torch.maximum(bend.abs() - 0.012 * (1.1 - h / (0.08 + 0.12 * rnd)).clamp(min=0), h - 0.08 - 0.12 * rnd)
        c = mix(c, rgb("1f8a5c"), inside(kelp))
        u, k = copies(a + s["reef"], 23, 0.7)  # coral: round lobes on stalks
        rnd = hashed(k, 6.0)
        r = length(u, h)
        coral = r - (0.03 + 0.03 * rnd) * (1.0 + 0.35 * (torch.atan2(h, u) * 9).cos())
        hue = 0.9 + 0.2 * (rnd * 5.1).frac()
        c = mix(c, scaled(wheel(hue, 0.45, 0.4), 0.5 + 9 * r), inside(coral))
        bubble, _ = dots(a * 22 + s["shift"], h * 22, 0.13, 0.35)
        return mix(c, (0.85, 1.0, 1.0), inside(bubble.abs() - 0.03, 0.06) * 0.8)

    def ground(x: Tensor, z: Tensor) -> Surface:
        net = ramp(0.22, 0.0, cracks(x * 1.7 + s["shift"], z * 1.7)) * detail(x, z)
        ripple = ramp(0.2, 1.0, (z * 6 + 1.5 * (x * 1.2).sin()).sin()) * 0.35
        rgb_ = mix(mix(sand, rgb("7fa08c"), ripple), (1.0, 1.0, 0.9), net * 0.35)
        return Surface(rgb_, rough=0.9, glow=scaled((0.12, 0.32, 0.28), net))

    return setting(
        s,
        backdrop,
        ground,
        key=(1.15, 1.6, 1.55),
        up=(0.3, 0.62, 0.68),
        down=(0.16, 0.34, 0.36),
        above=shallow,
        below=mix(scaled(sand, 0.5), deep, 0.5),
        fog=0.045,
    )


@scene("space", phrase="on the moon, in space", shift=(-3, 3), planet=(0.05, 0.19), hue=(-0.08, 0.12))
def space(s: Mapping[str, Float]) -> Setting:
    dust, pit = rgb("a4a4aa"), rgb("68686f")
    ocean = wheel(0.6 + s["hue"], 0.35, 0.33)

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        haze = ramp(0.0, 1.2, billow(a * 7 + s["shift"], h * 16 + 2))
        c = mix((0.003, 0.003, 0.01), (0.07, 0.02, 0.13), haze)
        for scale, radius in ((30, 0.06), (46, 0.09), (21, 0.055)):
            star, rnd = dots(a * scale + s["shift"], h * scale, radius, 0.4)
            c = mix(c, mix((1.5, 1.4, 1.1), (1.0, 1.2, 1.6), rnd), inside(star, 0.12) * ramp(0.95, 0.7, h))
        u, v = (a - s["planet"]) / 0.07, (h - 0.115) / 0.07
        r2 = u * u + v * v
        bulge = (1 - r2).clamp(min=0.001).sqrt()
        land = billow(u * 1.6 / (0.4 + bulge) + s["shift"], v * 2.4)
        globe = mix(ocean, rgb("4f9a4c"), ramp(0.2, 0.4, land))
        globe = mix(globe, (0.95, 0.97, 1.0), ramp(0.3, 0.7, billow(u * 2 + 3, v * 6 + s["shift"])))
        globe = scaled(globe, (0.35 * bulge + 0.55 * v - 0.5 * u + 0.35).clamp(0.03, 1.2) * 1.3)
        c = mix(c, (0.25, 0.5, 1.0), ramp(1.45, 0.95, r2) * 0.5)
        c = mix(c, globe, ramp(1.03, 0.95, r2))
        return mix(
            c,
            mix(rgb("58585e"), rgb("8c8c92"), ramp(-0.02, 0.0, h - 0.04 * peaks(a, 13, s["shift"]))),
            inside(h - 0.035 * hills(a, 9, s["shift"])),
        )

    def ground(x: Tensor, z: Tensor) -> Surface:
        rgb_ = mix(dust, pit, ramp(0.0, 1.0, billow(x * 3 + s["shift"], z * 3)) * 0.4 * detail(x, z))
        for scale, radius in ((0.75, 0.3), (1.7, 0.22)):
            d, _ = dots(x * scale + s["shift"], z * scale + 0.37, radius, 0.6)
            rgb_ = mix(rgb_, pit, inside(d, 0.12) * 0.85)
            rgb_ = mix(rgb_, rgb("d0d0d6"), inside((d - 0.03).abs() - 0.02, 0.05) * 0.8)
        return Surface(rgb_, rough=0.95)

    return setting(
        s,
        backdrop,
        ground,
        key=(1.9, 1.88, 1.85),
        up=(0.3, 0.3, 0.36),
        down=(0.24, 0.24, 0.26),
        above=(0.01, 0.01, 0.025),
        below=scaled(dust, 0.7),
    )


@scene("candy land", phrase="in candy land", shift=(-3, 3), hue=(-0.05, 0.05), sticks=(-0.3, 0.3))
def candy_land(s: Mapping[str, Float]) -> Setting:
    icing = wheel(0.92 + s["hue"], 0.46, 0.34)

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        c = mix(rgb("fdd8ec"), rgb("6cc4f4"), ramp(0.04, 0.22, h))
        cloud, light = puffs(a, h, 11, s["shift"], 0.15, 0.026)
        c = mix(c, mix(rgb("ee78b4"), rgb("ffc4e4"), light), cloud)
        far = 0.09 * hills(a, 9, s["shift"])
        c = mix(c, mix(rgb("9a5cf0"), rgb("d8bcff"), ramp(-0.3, 0.3, (210 * (h - far)).sin())), inside(h - far))
        near = 0.055 * hills(a, 13, s["shift"] + 2)
        c = mix(c, mix(rgb("34c494"), rgb("d4fae8"), ramp(-0.3, 0.3, (a * 120 + h * 160).sin())), inside(h - near))
        u, k = copies(a + s["sticks"], 19, 0.5)  # lollipops
        rnd = hashed(k, 4.0)
        v, radius = h - 0.1 - 0.035 * rnd, 0.036
        c = mix(c, (1.0, 0.98, 0.95), inside(torch.maximum(u.abs() - 0.005, v)))
        r = length(u, v)
        swirl = ramp(-0.3, 0.3, (2 * torch.atan2(v, u) + r * 130).sin())
        return mix(
            c,
            mix(scaled(wheel((rnd * 5.7).frac(), 0.5, 0.45), 1.1), (1.0, 0.95, 0.95), swirl),
            inside(r - radius),
        )

    def ground(x: Tensor, z: Tensor) -> Surface:
        rgb_ = mix(icing, scaled(icing, 0.8), ramp(-0.5, 1.0, billow(x * 1.2 + s["shift"], z * 1.2)))
        i, j = x * 2.6 + s["shift"], z * 2.6
        k, m = i.floor(), j.floor()
        rnd = hashed(k, m)
        turn = rnd * 3.14
        u, v = i - k - 0.5, j - m - 0.5
        along, across = u * turn.cos() + v * turn.sin(), v * turn.cos() - u * turn.sin()
        sprinkle = length((along.abs() - 0.2).clamp(min=0), across) - 0.085
        return Surface(mix(rgb_, wheel((rnd * 7.3).frac(), 0.5, 0.45), inside(sprinkle, 0.06)), rough=0.35)

    return setting(
        s,
        backdrop,
        ground,
        key=(1.45, 1.4, 1.35),
        up=(0.55, 0.55, 0.62),
        down=(0.42, 0.28, 0.36),
        above=rgb("9cd8f4"),
        below=icing,
    )
