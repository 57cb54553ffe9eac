"""Rooms and the town: studio, kitchen, library, theatre stage, night city."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pops.toybox.scenes.base import Setting, scene, setting
from pops.toybox.scenes.brush import (
    TURN,
    billow,
    copies,
    detail,
    disc,
    hashed,
    inside,
    length,
    mix,
    ramp,
    rgb,
    scaled,
    stroke,
    warmed,
    wheel,
)
from pops.toybox.surface import Float, Rgb, Surface

CAMERA_Z = 5.1  # where streaks on wet ground converge


def planks(x: Tensor, z: Tensor, shift: Float, light: Rgb, dark: Rgb, *, per_unit: float) -> Rgb:  # boards along x
    row = (z * per_unit).floor()
    grain = (z * 21 + 3 * (x * 0.8 + row * 2.4 + shift).sin()).sin() * 0.15
    seam = inside(((z * per_unit).frac().abs() - 0.5).abs().mul(-1) + 0.46, 0.06)
    butt = inside(((x * 0.3 + hashed(row)).frac().abs() - 0.5).abs().mul(-1) + 0.49, 0.02)
    tone = hashed(row, (x * 0.3 + hashed(row)).floor()) * 0.5 + 0.25 + grain * detail(x, z)
    return mix(mix(light, dark, tone), scaled(dark, 0.35), torch.maximum(seam, butt) * (0.3 + 0.7 * detail(x, z)))


@scene("studio", phrase="in a photo studio", hue=(0, 1), tone=(0.15, 0.75))
def studio(s: Mapping[str, Float]) -> Setting:
    paper = wheel(s["hue"], 0.6, 0.45 * s["tone"])

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        wall = mix(paper, scaled(paper, 0.62), ramp(0.0, 0.3, h))
        wall = mix(scaled(wall, 1.1), scaled(wall, 0.75), ramp(0.05, 0.5, a.abs()))
        panel = inside((a.abs() - 2.2).abs() - 0.35, 0.1) * inside(
            (h - 0.28).abs() - 0.12, 0.1
        )  # two soft boxes, mirrored by shiny things
        return mix(wall, (3.0, 3.0, 3.0), panel)

    def ground(x: Tensor, z: Tensor) -> Surface:
        pool = ramp(7.0, 0.5, length(x, z))
        return Surface(scaled(paper, 0.72 + 0.1 * pool), rough=0.6)

    return setting(
        s,
        backdrop,
        ground,
        key=(1.35, 1.32, 1.28),
        up=(0.52, 0.52, 0.54),
        down=(0.34, 0.34, 0.34),
        above=scaled(paper, 0.8),
        below=paper,
        fog=0.05,
        height=50,
    )


@scene("kitchen", phrase="in a kitchen", hue=(0.3, 0.62), shift=(-3, 3), shelf=(-0.3, 0.3))
def kitchen(s: Mapping[str, Float]) -> Setting:
    light, dark = rgb("d9a566"), rgb("b37a40")
    tile = wheel(s["hue"], 0.5, 0.2)

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        u, v = a * 18, h * 22
        joint = torch.minimum((u - u.round()).abs(), (v - v.round()).abs())
        glaze = 0.82 + 0.18 * hashed((u - u.round()).sub(u).round(), (v - v.round()).sub(v).round())
        c = mix(rgb("f4f0e6"), scaled(tile, glaze), ramp(0.04, 0.11, joint))
        c = mix(c, rgb("8a5c34"), inside((h - 0.09).abs() - 0.007))
        u, k = copies(a + s["shelf"], 43, 0.3)  # jars and cups along the shelf
        rnd = hashed(k, 2.0)
        wide, tall = 0.024 + 0.022 * rnd, 0.03 + 0.035 * (rnd * 5.3).frac()
        jar = torch.maximum(u.abs() - wide, (h - 0.097 - tall / 2).abs() - tall / 2)
        shade = 1.1 - 0.5 * ramp(-0.04, 0.04, u)
        c = mix(c, scaled(wheel((rnd * 9.1).frac() * 0.22 - 0.04, 0.5, 0.42), shade), inside(jar))
        u, k = copies(a + s["shelf"], 41, 0.9)  # pans hang below it
        pan = torch.minimum(
            disc(u, h, 0.0, 0.04, 0.014 + 0.012 * hashed(k, 8.0)), stroke(u, h, (0, 0.05), (0, 0.09)) - 0.004
        )
        return mix(c, mix(rgb("c8643c"), rgb("f0a070"), ramp(0.02, -0.02, u)), inside(pan))

    def ground(x: Tensor, z: Tensor) -> Surface:
        return Surface(planks(x, z, s["shift"], light, dark, per_unit=1.4), rough=0.4)

    return setting(
        s,
        backdrop,
        ground,
        key=(1.55, 1.48, 1.35),
        up=(0.55, 0.55, 0.54),
        down=(0.34, 0.26, 0.18),
        above=rgb("e8e4dc"),
        below=mix(light, dark, 0.5),
    )


@scene("library", phrase="in a library", shift=(-3, 3), books=(0, 3), warm=(-0.05, 0.1))
def library(s: Mapping[str, Float]) -> Setting:
    carpet, border = rgb("1f4a5c"), rgb("c8983c")

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        row = (h * 15.4).floor()
        v = h * 15.4 - row
        u = a * 62 + 7.3 * row + s["shift"]
        u = u + 0.55 * (u * 0.83).sin()  # books of uneven width
        book = u.floor()
        rnd = hashed(book, row)
        spine = wheel((rnd * 7.7).frac() * 0.75 - 0.08 + 0.03 * s["books"], 0.17, 0.13)
        spine = scaled(spine, 0.45 + 1.5 * (u - book) * (1 - (u - book)) * 2)
        spine = mix(spine, rgb("f0c860"), inside((v - 0.6).abs() - 0.04, 0.05) * 0.8)
        c = mix(rgb("24140c"), spine, inside(v - 0.66 - 0.2 * (rnd * 3.3).frac(), 0.04))
        wood = rgb("7c4a26")
        c = mix(c, wood, inside(0.44 - (v - 0.5).abs(), 0.05))
        u, _ = copies(a, 15, s["shift"])
        return warmed(mix(c, scaled(wood, 1.3), inside(u.abs() - 0.013)), s["warm"])

    def ground(x: Tensor, z: Tensor) -> Surface:
        wood = planks(x, z, s["shift"], rgb("8a5a34"), rgb("5c3820"), per_unit=2.0)
        r = length(x, z)
        figure = billow(r * 4, 3 * (torch.atan2(x, z) * 4).sin() + s["shift"])
        rug = mix(carpet, rgb("2f6a7c"), ramp(0.1, 0.4, figure))
        rug = mix(rug, border, inside((r - 2.3).abs() - 0.07, 0.05))
        return Surface(warmed(mix(wood, rug, inside(r - 2.6, 0.05)), s["warm"]), rough=0.7)

    return setting(
        s,
        backdrop,
        ground,
        key=(1.9, 1.6, 1.2),
        up=(0.5, 0.44, 0.36),
        down=(0.24, 0.16, 0.12),
        above=rgb("5a4434"),
        below=rgb("70452a"),
    )


@scene("stage", phrase="on a theatre stage", shift=(-3, 3), hue=(-0.06, 0.03), spot=(-0.3, 0.3))
def stage(s: Mapping[str, Float]) -> Setting:
    velvet = wheel(s["hue"], 0.2, 0.22)

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        fold = (a * 48 + 0.8 * (a * 13 + s["shift"]).sin() + 3 * h).sin()
        c = mix(scaled(velvet, 0.16), scaled(velvet, 1.5), ramp(-1.1, 1.1, fold))
        c = scaled(c, 0.5 + 0.7 * ramp(0.4, 0.0, length(a - s["spot"] * 0.3, h - 0.08)))
        c = mix(c, rgb("e8b838"), inside(h - 0.012))
        swag, _ = copies(a, 23, s["shift"])  # the gathered valance with its golden fringe
        hem = 0.16 + 2.0 * swag * swag
        drape = mix(scaled(velvet, 0.5), scaled(velvet, 1.7), ramp(-1.0, 1.0, (190 * (h - hem)).sin()))
        c = mix(c, drape, inside(hem - h))
        return mix(c, rgb("f4c848"), inside((h - hem).abs() - 0.006))

    def ground(x: Tensor, z: Tensor) -> Surface:
        wood = planks(z, x, s["shift"], rgb("c08850"), rgb("96602f"), per_unit=1.6)
        pool = ramp(2.5, 1.9, length(x - s["spot"], z))
        return Surface(scaled(wood, 0.28 + 0.9 * pool), rough=0.35)

    return setting(
        s,
        backdrop,
        ground,
        key=(2.0, 1.85, 1.55),
        up=(0.38, 0.3, 0.3),
        down=(0.26, 0.17, 0.1),
        above=scaled(velvet, 0.35),
        below=scaled(rgb("96602f"), 0.35),
        fog=0.0,
        height=55,
    )


@scene("night city", phrase="in a city at night", shift=(-3, 3), neon=(0, 1), blue=(-0.04, 0.05))
def night_city(s: Mapping[str, Float]) -> Setting:
    night = wheel(0.63 + s["blue"], 0.06, 0.055)
    rows = (
        (53, 0.15, 0.6, rgb("2a3a6e")),
        (37, 0.105, 0.0, rgb("141a3c")),
    )  # towers round the circle, height, phase, wall

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        c = mix(rgb("5a4a9a"), night, ramp(0.02, 0.24, h))
        moon = disc(a, h, s["shift"] * 0.06, 0.17, 0.018)
        c = mix(c, (1.3, 1.25, 1.0), inside(moon))
        for n, tall, phase, wall in rows:
            u, k = copies(a + 0.05 * s["shift"], n, phase)
            rnd = hashed(k, n)
            tower = torch.maximum(u.abs() - (0.4 + 0.2 * rnd) * TURN / n, h - tall * (0.55 + 0.65 * (rnd * 7.9).frac()))
            i, j = u * 62, h * 62
            lit = (hashed(i.round() + 31 * k, j.round()) - 0.42).gt(0)
            pane = inside(torch.maximum((i - i.round()).abs() - 0.3, (j - j.round()).abs() - 0.3), 0.2) * lit
            glow = mix((1.5, 1.0, 0.3), wheel(s["neon"] + rnd, 0.7, 0.6), rnd.gt(0.75) * 0.8)
            c = mix(c, mix(wall, glow, pane * inside(tower + 0.008)), inside(tower))
        u, k = copies(a, 61, s["shift"])  # street lamps and signs at the foot of the towers
        sign = inside(length(u * 1.4, h - 0.02) - 0.011, 0.01)
        return mix(c, scaled(wheel(hashed(k) + s["neon"], 0.55, 0.55), 2.0), sign)

    def ground(x: Tensor, z: Tensor) -> Surface:
        away = (CAMERA_Z - z).clamp(min=0.5)
        u, k = copies(
            x / away + 0.008 * (z * 5 + 2 * (x * 3).sin()).sin(), 61, s["shift"]
        )  # wet asphalt mirrors the signs
        streak = (u * u * -1500).exp() * ramp(1.5, 14.0, away) * (0.7 + 0.3 * (z * 4 + k).sin())
        wet = ramp(-0.2, 0.4, billow(x * 0.8 + s["shift"], z * 0.8))
        glow = scaled(wheel(hashed(k) + s["neon"], 0.5, 0.5), streak * (0.5 + 0.5 * wet) * 1.3)
        return Surface(mix(rgb("34364e"), rgb("22243c"), wet), rough=0.5 - 0.35 * wet, glow=glow)

    return setting(
        s,
        backdrop,
        ground,
        key=(1.75, 1.65, 1.55),
        up=(0.26, 0.28, 0.5),
        down=(0.16, 0.13, 0.26),
        above=scaled(night, 1.3),
        below=rgb("20223c"),
    )
