"""Materials that grew: coats, skins, stones, plants, ice and fire.

Positions come in object units; the object is about 1.8 of them.
"""

import math

import torch
from torch import Tensor

from pops.toybox.looks import Params, material
from pops.toybox.patterns import cells, each, fbm, grade, hexes, mix, noise, ramp, rise, saw, spots, tone, wrap
from pops.toybox.surface import Paint, Surface

HUE = (-0.03, 0.03)


@material("tiger", hue=(-0.015, 0.015), wobble=(0.7, 1.2))
def tiger(m: Params) -> Paint:
    fur, pale, black = tone("#f58a1f", m["hue"]), tone("#fff0d8"), tone("#140d08")

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        bend = noise(x * 1.6, y * 1.6, z * 1.6) * m["wobble"]
        wave = saw(x * 2.7 + bend * 0.28 + torch.sin(y * 4 + z * 3) * 0.16)
        broken = noise(x * 2.2 + 5, y * 1.1, z * 1.1)
        stripe = rise(wave + 0.1 * broken, 0.56, 0.64)
        return Surface(mix(mix(fur, pale, rise(ny, -0.35, -0.7)), black, stripe), 0.75)

    return paint


@material("zebra", wobble=(0.8, 1.3))
def zebra(m: Params) -> Paint:
    white, black = tone("#faf8f2"), tone("#121114")

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        bend = noise(x * 0.9, y * 0.9, z * 0.9) * m["wobble"]
        wave = saw(x * 3.1 + y * 1.2 + bend * 0.32)
        return Surface(mix(white, black, rise(wave, 0.47, 0.55)), 0.6)

    return paint


@material("leopard", hue=(-0.015, 0.015))
def leopard(m: Params) -> Paint:
    fur, heart, black = tone("#f7c264", m["hue"]), tone("#c07a22", m["hue"]), tone("#1d120a")

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        wall, _ = cells(x * 3.9, y * 3.9, z * 3.9)  # a rosette is a ring inside each cell, broken by noise
        wall = wall + 0.03 * noise(x * 6, y * 6, z * 6)
        ring = rise(wall, 0.1, 0.14) * rise(wall, 0.27, 0.23) * rise(noise(x * 5 + 3, y * 5, z * 5), -0.9, -0.6)
        return Surface(mix(mix(fur, heart, rise(wall, 0.2, 0.26)), black, ring), 0.75)

    return paint


@material("giraffe", hue=HUE, gap=(0.07, 0.1))
def giraffe(m: Params) -> Paint:
    cream, brown, dark = tone("#fbe6b4"), tone("#b8621b", m["hue"]), tone("#8a4310", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        wall, tag = cells(x * 2.7, y * 2.7, z * 2.7)
        patch = rise(wall + 0.012 * noise(x * 8, y * 8, z * 8), m["gap"], m["gap"] + 0.03)
        return Surface(mix(cream, mix(brown, dark, tag), patch), 0.7)

    return paint


@material("cow", cover=(-0.1, 0.2))
def cow(m: Params) -> Paint:
    white, black = tone("#fbfaf6"), tone("#17151a")

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        blob = noise(x * 1.3, y * 1.3, z * 1.3) + 0.14 * noise(x * 3.5, y * 3.5, z * 3.5)
        return Surface(mix(white, black, rise(blob, m["cover"], m["cover"] + 0.1)), 0.65)

    return paint


@material("fish scales", hue=(-0.08, 0.12))
def fish_scales(m: Params) -> Paint:
    deep, mid, light = tone("#0a4f74", m["hue"]), tone("#17a9a4", m["hue"]), tone("#b9fbe4", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        u, v = u * 3.6, v * 5.6
        below = torch.full_like(u, 9.0)
        for k in (1, 0):  # discs of radius 0.72 hang from every half row; the lower row lies on top
            row = v.floor() + k
            du = saw(u + 0.5 * torch.remainder(row, 2)) / 2
            r = (du * du + ((row - v) * 0.64) ** 2).sqrt()
            below = torch.where(r < 0.66, r, below) if k == 1 else torch.where((r < 0.3) & (below > 9), r, below)
        t = below.clamp_max(0.66)
        return Surface(ramp(t, ((0.1, light), (0.4, mid), (0.56, mid), (0.64, deep))), 0.22, 0.3)

    return paint


@material("marble", turn=(-1, 1), vein=(0.8, 1.2))
def marble(m: Params) -> Paint:
    white, grey, dark = tone("#f7f5f2"), tone("#9aa3ae"), tone("#353c47")

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        rough = fbm(x * 1.5, y * 1.5, z * 1.5)
        f = noise(x * 0.7, y * 0.7, z * 0.7) + 0.3 * rough
        vein = saw(0.55 * f + 0.45 * x - 0.45 * m["turn"] * y)
        fine = saw(0.6 * f + 0.2 * rough + 0.9 * y + 0.5 * z)
        rgb = mix(white, grey, 0.8 * rise(vein, 0.4, 0.0))
        return Surface(
            mix(rgb, dark, torch.maximum(rise(vein, 0.13 * m["vein"], 0.03), 0.75 * rise(fine, 0.09, 0.02))),
            0.16,
        )

    return paint


@material("jade", hue=HUE)
def jade(m: Params) -> Paint:
    deep, mid, pale = tone("#0f8a55", m["hue"]), tone("#39b878", m["hue"]), tone("#b4ecc4", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        f = fbm(x * 1.3 + 0.4 * torch.sin(y * 4), y * 1.3, z * 1.3)
        rgb = ramp(f, ((-1.2, deep), (0.2, mid), (1.7, pale)))
        return Surface(rgb, 0.12, 0.0, grade(rgb, 0.12))

    return paint


@material("agate", hue=(-0.5, 0.5), wobble=(0.8, 1.2))
def agate(m: Params) -> Paint:
    bands = [tone(c, m["hue"]) for c in ("#fff3ea", "#f08a9b", "#8f2f6b", "#ffd9b0", "#c2506e", "#fff3ea")]

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        t = noise(x * 0.55, y * 0.55, z * 0.55) * m["wobble"] + 0.05 * noise(x * 3, y * 3, z * 3)
        return Surface(ramp(saw(t), [(i / 5, c) for i, c in enumerate(bands)]), 0.12)

    return paint


@material("lava", hue=(-0.015, 0.02), crack=(0.06, 0.09))
def lava(m: Params) -> Paint:
    crust, ash, hot, bright = (
        tone("#4d403f"),
        tone("#7d6d68"),
        tone("#ff3d00", m["hue"]),
        tone("#ffd24a", m["hue"]),
    )

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        bend = 0.16 * noise(x * 2.5, y * 2.5, z * 2.5)
        wall, tag = cells(x * 2.1 + bend, y * 2.1 + bend, z * 2.1 - bend)
        wall = wall + 0.012 * noise(x * 7, y * 7, z * 7)
        heat, core = rise(wall, m["crack"] + 0.05, m["crack"] - 0.03), rise(wall, m["crack"], 0.0)
        glow = mix(grade(hot, 1.2 * heat + 0.2 * rise(wall, 0.26, 0.08)), grade(bright, 2.2), core)
        return Surface(mix(crust, ash, tag), 0.85, 0.0, glow)

    return paint


@material("ice", hue=(-0.02, 0.03), cracks=(0.8, 1.2))
def ice(m: Params) -> Paint:
    deep, blue, white = tone("#58b6ea", m["hue"]), tone("#b5e8fb", m["hue"]), tone("#ffffff")

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        wall, tag = cells(x * 1.5, y * 1.5, z * 1.5)
        fine, _ = cells(x * 3.4 + 3, y * 3.4, z * 3.4)
        crack = torch.maximum(rise(wall, 0.055 * m["cracks"], 0.02), 0.55 * rise(fine, 0.05, 0.01))
        frost = rise(fbm(x * 2, y * 2, z * 2) + ny, 0.9, 2.0)
        rgb = mix(mix(deep, blue, 0.6 * tag + 0.4 * rise(ny, -0.5, 0.8)), white, torch.maximum(crack, 0.85 * frost))
        return Surface(rgb, 0.06, 0.0, grade(rgb, 0.15))

    return paint


@material("moss", hue=(-0.04, 0.02))
def moss(m: Params) -> Paint:
    dark, mid, light, flower = (
        tone("#3b6b16", m["hue"]),
        tone("#6fa022", m["hue"]),
        tone("#a8d24a", m["hue"]),
        tone("#fffbe8"),
    )

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        d, tag = spots(x * 5, y * 5, z * 5)
        tuft = fbm(x * 4, y * 4, z * 4)
        rgb = ramp(tuft * 0.35 - d * 1.3, ((-1.1, dark), (-0.6, mid), (0.0, light)))
        return Surface(mix(rgb, flower, rise(d, 0.24, 0.18) * rise(tag, 0.72, 0.74)), 1.0)

    return paint


@material("wood", hue=(-0.01, 0.02), knots=(0.7, 1.2))
def wood(m: Params) -> Paint:
    light, mid, dark = tone("#ecc081", m["hue"]), tone("#c28040", m["hue"]), tone("#6b3a17", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        bend = noise(x * 0.45, y * 0.75, z * 0.75) * m["knots"]
        ring = y * 4.2 + z * 2.4 + bend * 1.1
        grain = noise(x * 1.5, y * 10, z * 10)
        rgb = ramp(ring - ring.floor() + 0.05 * grain, ((0.0, light), (0.6, mid), (0.9, dark), (1.0, light)))
        return Surface(rgb, 0.5)

    return paint


@material("birch", hue=HUE)
def birch(m: Params) -> Paint:
    white, grey, black, peel = tone("#f7f1e6"), tone("#d3c9ba"), tone("#231f1d"), tone("#d98f58", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        dash = noise(x * 1.5, y * 5.5, z * 1.5)
        fine = noise(x * 3, y * 13, z * 3)
        rgb = mix(mix(white, grey, rise(fine, 0.3, 1.2)), peel, rise(fbm(x * 1.6 + 7, y * 2.4, z * 1.6), 1.5, 1.7))
        return Surface(mix(rgb, black, torch.maximum(rise(dash, 1.0, 1.15), rise(fine, 1.7, 1.9))), 0.8)

    return paint


@material("watermelon", hue=HUE, stripes=(9.6, 10.4), moves=False)
def watermelon(m: Params) -> Paint:
    light, dark, edge = tone("#a8dc5c", m["hue"]), tone("#14602a", m["hue"]), tone("#3f9a3c", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        jag = 0.1 * noise(x * 3, y * 5, z * 3) + 0.05 * noise(x * 8, y * 9, z * 8)
        wave = saw(torch.atan2(x, z) * (10 / math.tau) + jag * m["stripes"] / 7)
        return Surface(ramp(wave, ((0.36, light), (0.48, edge), (0.6, dark))), 0.2)

    return paint


@material("strawberry", hue=(-0.02, 0.015))
def strawberry(m: Params) -> Paint:
    red, deep, seed = tone("#ee2238", m["hue"]), tone("#a80b26", m["hue"]), tone("#ffdd70")

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        du, dv, _, _ = hexes(u * 3.9, v * 3.0)
        pip = (du * du * 2.6 + (dv + 0.25 * du.abs()) ** 2).sqrt()
        return Surface(mix(mix(red, deep, rise(pip, 0.36, 0.2)), seed, rise(pip, 0.2, 0.14)), 0.28)

    return paint


@material("cactus skin", hue=HUE, moves=False)
def cactus(m: Params) -> Paint:
    dark, green, spine = tone("#14683f", m["hue"]), tone("#62bd5c", m["hue"]), tone("#fff6d0")

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        rib = saw(u * 3.4)  # 0 on the crest, 1 in the groove
        u, v = u * 3.4, v * 3.4 + 0.5 * torch.remainder((u * 3.4).round(), 2)
        du, dv = (u - u.round()).abs(), (v - v.round()).abs()
        star = torch.minimum(torch.minimum(du, dv), (du - dv).abs() * 0.7)
        spines = rise(star, 0.065, 0.04) * rise(du * du + dv * dv, 0.09, 0.075)
        return Surface(mix(mix(green, dark, rise(rib, 0.45, 1.0)), spine, spines), 0.6)

    return paint


@material("opal", turn=(0, 1))
def opal(m: Params) -> Paint:
    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        t = 0.22 * fbm(x * 1.3, y * 1.3, z * 1.3) + 0.45 * nx + 0.55 * ny + 0.3 * x + m["turn"]
        rgb = each(lambda phase: 0.62 + 0.34 * torch.cos(math.tau * (t + phase)), (0.0, 0.33, 0.67))
        return Surface(rgb, 0.1, 0.25, grade(rgb, 0.12))

    return paint


@material("galaxy", hue=(-0.06, 0.06))
def galaxy(m: Params) -> Paint:
    night, blue, pink = tone("#221559", m["hue"]), tone("#2f5fe0", m["hue"]), tone("#e04fc4", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        f, g = fbm(x * 1.1, y * 1.1, z * 1.1), fbm(x * 1.1 + 3, y * 1.1 + 3, z * 1.1)
        rgb = mix(mix(night, blue, rise(f, 0.0, 1.3)), pink, rise(g, 0.25, 1.3))
        d, tag = spots(x * 6, y * 6, z * 6)
        star = rise(d, 0.08 + 0.22 * tag * tag, 0.03)
        glow = each(lambda c: 0.35 * c + 1.3 * star, rgb)
        return Surface(rgb, 0.35, 0.0, glow)

    return paint
