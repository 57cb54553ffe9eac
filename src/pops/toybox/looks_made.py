"""Materials that were made: metals, cloth, building, glazes, toys and sweets.

Positions come in object units; the object is about 1.8 of them.
"""

import torch
from torch import Tensor

from pops.toybox.looks import Params, material
from pops.toybox.patterns import cells, chance, fbm, grade, hexes, mix, noise, ramp, rise, saw, spots, tone, wrap
from pops.toybox.surface import Paint, Surface

ANY = (-0.5, 0.5)
HUE = (-0.03, 0.03)


@material("gold", rough=(0.12, 0.24))
def gold(m: Params) -> Paint:
    light, deep = tone("#ffd76a"), tone("#f5b52e")

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        return Surface(mix(deep, light, rise(noise(x * 2, y * 2, z * 2), -1.0, 1.0)), m["rough"], 1.0)

    return paint


@material("chrome", rough=(0.02, 0.07))
def chrome(m: Params) -> Paint:
    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        return Surface((0.86 + 0 * x, 0.89 + 0 * x, 0.93 + 0 * x), m["rough"], 1.0)

    return paint


@material("copper", patina=(0.35, 0.7))
def copper(m: Params) -> Paint:
    red, pale, green = tone("#f08a5d"), tone("#ffb48c"), tone("#4fc4a4")

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        worn = rise(fbm(x * 1.4, y * 1.4, z * 1.4) + 0.5 * ny, m["patina"], m["patina"] + 0.3)
        rgb = mix(mix(red, pale, rise(noise(x * 3, y * 3, z * 3), -1, 1)), green, worn)
        return Surface(rgb, 0.2 + 0.7 * worn, 1 - worn)

    return paint


@material("rust", hue=(-0.01, 0.015), cover=(-0.6, -0.3))
def rust(m: Params) -> Paint:
    steel, orange, brown, dark = (
        tone("#8fb6c9"),
        tone("#d9691e", m["hue"]),
        tone("#a2420f", m["hue"]),
        tone("#5e2410", m["hue"]),
    )

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        f, g = fbm(x * 1.3, y * 1.3, z * 1.3), fbm(x * 3 + 5, y * 3, z * 3)
        rot = ramp(g + 0.4 * f, ((-1.2, dark), (-0.1, brown), (1.2, orange)))
        bare = rise(f + 0.15 * g, m["cover"] - 0.35, m["cover"] - 0.55)
        return Surface(mix(rot, steel, bare), 0.95 - 0.5 * bare, 0.3 * bare)

    return paint


@material("brick", hue=(-0.02, 0.03))
def brick(m: Params) -> Paint:
    mortar, red, dark = tone("#e6ddd0"), tone("#c9482e", m["hue"]), tone("#8f2d20", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        row = (v * 5.2).floor()
        u = u * 2.5 + 0.5 * torch.remainder(row, 2)
        fu, fv = saw(u + 0.5), saw(v * 5.2 + 0.5)
        joint = torch.maximum(rise(fu, 0.86, 0.9), rise(fv, 0.72, 0.8))
        return Surface(mix(mix(red, dark, chance(u.floor(), row)), mortar, 1 - (1 - joint) ** 2), 0.9)

    return paint


@material("knit", hue=ANY)
def knit(m: Params) -> Paint:
    wool, cream, third = tone("#d6304a", m["hue"]), tone("#fff3e0"), tone("#26648f", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        slant = saw(u * 6.5)
        row = v * 8.5 + slant * 0.55
        loop = row.floor()
        yarn = saw(row + 0.5)  # 1 between two rows of stitches
        band = torch.remainder(loop, 8)
        check = torch.remainder(loop + (u * 6.5).round(), 2)
        rgb = mix(wool, cream, ((band == 0) | (band == 4)).to(u.dtype))
        rgb = mix(rgb, mix(third, cream, check), (band == 2).to(u.dtype))
        shade = 1 - 0.55 * torch.maximum(rise(yarn, 0.6, 1.0), rise(slant, 0.25, 0.0) * 0.7)
        return Surface(grade(rgb, shade), 1.0)

    return paint


@material("denim", hue=HUE)
def denim(m: Params) -> Paint:
    indigo, pale, thread = tone("#2b4f8f", m["hue"]), tone("#86a9d6", m["hue"]), tone("#f5a142")

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        twill = saw((u + v) * 9) * 0.45 + 0.3 * noise(x * 2, y * 2, z * 2)
        seam = torch.minimum((saw(u * 1.1) - 0.14).abs() / 1.1, (saw(v * 1.1 + 0.3) - 0.14).abs() / 1.1)
        dash = rise(saw((u + v) * 5.5), 0.25, 0.35)
        return Surface(mix(mix(indigo, pale, rise(twill, -0.1, 0.8)), thread, rise(seam, 0.055, 0.04) * dash), 0.95)

    return paint


@material("polka dots", hue=ANY, size=(0.26, 0.32))
def polka_dots(m: Params) -> Paint:
    ground, dot = tone("#e5264f", m["hue"]), tone("#ffffff")

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        du, dv, _, _ = hexes(u * 2.9, v * 2.9)
        d = (du * du + dv * dv).sqrt()
        return Surface(mix(ground, dot, rise(d, m["size"] + 0.03, m["size"])), 0.4)

    return paint


@material("plaid", hue=(-0.08, 0.08))
def plaid(m: Params) -> Paint:
    red, green, line = tone("#e02a33", m["hue"]), tone("#0e5a3a", m["hue"]), tone("#ffe9a0")
    both = tone("#10263a", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        a, b = saw(u * 1.6), saw(v * 1.6)
        rgb = ramp(rise(a, 0.68, 0.71) + rise(b, 0.68, 0.71), ((0.0, red), (1.0, green), (2.0, both)))
        thin = torch.maximum(rise((a - 0.3).abs(), 0.075, 0.055), rise((b - 0.3).abs(), 0.075, 0.055))
        return Surface(mix(rgb, line, 0.9 * thin), 0.95)

    return paint


@material("terrazzo", hue=ANY)
def terrazzo(m: Params) -> Paint:
    ground = tone("#f7f0e8")
    chips = [tone(c, m["hue"]) for c in ("#e4604e", "#2f7f86", "#f1b13c", "#3d3a5c", "#8fc0a9")]

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        wall, tag = cells(x * 4.4, y * 4.4, z * 4.4)
        chip = ramp(tag * 6.5, [(i + (i > 0) * 0.02, c) for i, c in enumerate(chips)])
        size = 0.09 + 0.1 * torch.frac(tag * 17)
        return Surface(mix(ground, chip, rise(wall, size, size + 0.04) * rise(tag, 0.72, 0.71)), 0.2)

    return paint


@material("honeycomb", hue=(-0.02, 0.01))
def honeycomb(m: Params) -> Paint:
    wax, honey, amber = tone("#7a3b06", m["hue"]), tone("#ffc22e", m["hue"]), tone("#f08c0a", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        du, dv, i, j = hexes(u * 4, v * 4)
        du, dv = du.abs(), dv.abs()
        edge = torch.maximum(du, du * 0.5 + dv * 0.8660254)  # 0.5 on the wall
        rgb = mix(mix(honey, amber, chance(i, j)), wax, rise(edge, 0.38, 0.43))
        return Surface(mix(rgb, tone("#fff0b8"), 0.7 * rise((du - 0.12).abs() + (dv - 0.14).abs(), 0.1, 0.05)), 0.18)

    return paint


@material("porcelain", hue=(-0.03, 0.04))
def porcelain(m: Params) -> Paint:
    white, blue, wash = tone("#fbfcff"), tone("#1238b0", m["hue"]), tone("#6f95e8", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        du, dv, _, _ = hexes(u * 1.55, v * 1.55)
        r, turn = (du * du + dv * dv).sqrt(), torch.atan2(dv, du)
        petal = r - 0.09 * torch.cos(turn * 6)
        flower = torch.maximum(rise((petal - 0.3).abs(), 0.06, 0.04), rise(r, 0.12, 0.09))
        vine = rise(
            (torch.sin(u * 9 + 1.2 * torch.sin(v * 7)) + torch.sin(v * 9 + 1.2 * torch.sin(u * 7))).abs(),
            0.34,
            0.2,
        )
        rgb = mix(white, wash, rise(petal, 0.27, 0.24) * 0.6)
        return Surface(mix(rgb, blue, torch.maximum(flower, vine * rise(petal, 0.4, 0.43))), 0.07)

    return paint


@material("candy stripes", hue=ANY, turn=(0.5, 0.9))
def candy_stripes(m: Params) -> Paint:
    white, red, pink = tone("#ffffff"), tone("#e8173c", m["hue"]), tone("#ff8fa8", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        t = saw(x * m["turn"] * 1.9 + y * 1.9 + z * 0.5)
        return Surface(mix(mix(white, red, rise(t, 0.52, 0.56)), pink, rise((t - 0.2).abs(), 0.09, 0.06)), 0.15)

    return paint


@material("checkers", hue=ANY)
def checkers(m: Params) -> Paint:
    light, dark = tone("#fff8e6"), tone("#1f6f8b", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        odd = torch.remainder((u * 3.6).floor() + (v * 3.6).floor(), 2)
        return Surface(mix(light, dark, odd), 0.35)

    return paint


@material("harlequin", hue=(-0.06, 0.06))
def harlequin(m: Params) -> Paint:
    gems = [tone(c, m["hue"]) for c in ("#e8304f", "#ffcf33", "#2a9d63", "#2f6fd6", "#8e44ad")]

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        a, b = u * 2.7 + v * 1.7, u * 2.7 - v * 1.7
        rgb = ramp(torch.remainder(a.floor() * 2 + b.floor(), 5), [(float(i), c) for i, c in enumerate(gems)])
        line = torch.minimum(saw(a), saw(b))
        return Surface(mix(rgb, tone("#fff6e0"), rise(line, 0.13, 0.09)), 0.4)

    return paint


@material("mosaic", hue=ANY)
def mosaic(m: Params) -> Paint:
    grout = tone("#f2eee4")
    tiles = [tone(c, m["hue"]) for c in ("#0b6fa4", "#18a7b5", "#7fd6d0", "#0e4d85", "#e8c05a")]

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        u, v = u * 6.2, v * 6.2
        rgb = ramp(chance(u.floor(), v.floor()) * 5, [(i + (i > 0) * 0.02, c) for i, c in enumerate(tiles)])
        return Surface(mix(rgb, grout, rise(torch.minimum(saw(u), saw(v)), 0.26, 0.16)), 0.12)

    return paint


@material("stained glass", hue=(-0.06, 0.06))
def stained_glass(m: Params) -> Paint:
    lead = tone("#1c1c22")
    panes = [tone(c, m["hue"]) for c in ("#e8243c", "#2456e0", "#ffc21a", "#17a35a", "#8a2be0", "#ff7a1a")]

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        wall, tag = cells(x * 2.5, y * 2.5, z * 2.5)
        rgb = ramp(tag * 6, [(i + (i > 0) * 0.02, c) for i, c in enumerate(panes)])
        pane = rise(wall, 0.05, 0.08)
        rgb = mix(lead, rgb, pane)
        return Surface(rgb, 0.08, 0.0, grade(rgb, 0.3 * pane))

    return paint


@material("camouflage", hue=(-0.03, 0.05))
def camouflage(m: Params) -> Paint:
    sand, green, brown, dark = (tone(c, m["hue"]) for c in ("#c9bd84", "#6b8e3a", "#7a5230", "#26331d"))

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        fields = [noise(x * 1.9 + 3 * i, y * 2.5, z * 1.9 - 2 * i) for i in range(3)]
        rgb = mix(sand, green, rise(fields[0], -0.15, -0.07))
        return Surface(mix(mix(rgb, brown, rise(fields[1], 0.55, 0.63)), dark, rise(fields[2], 0.85, 0.93)), 0.9)

    return paint


@material("circuit board", hue=(-0.03, 0.06))
def circuit_board(m: Params) -> Paint:
    board, trace, chip = tone("#0c7d4f", m["hue"]), tone("#ffd666"), tone("#20242c")

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        u, v = u * 4.2, v * 4.2
        i, j = u.floor(), v.floor()
        du, dv, pick = u - i - 0.5, v - j - 0.5, chance(i, j)
        du = torch.where(pick > 0.5, du, -du)  # Truchet tiles: two quarter rings, one way round or the other
        ring = torch.minimum(((du - 0.5) ** 2 + (dv - 0.5) ** 2).sqrt(), ((du + 0.5) ** 2 + (dv + 0.5) ** 2).sqrt())
        pad = (saw(u) ** 2 + (saw(v) - 1) ** 2).sqrt() / 2
        gold = torch.maximum(rise((ring - 0.5).abs(), 0.13, 0.09), rise(pad, 0.2, 0.16) * rise((pad - 0.06), 0.0, 0.04))
        square = (pick - 0.12 < 0) & (torch.maximum(du.abs(), dv.abs()) < 0.4)
        return Surface(mix(mix(board, trace, gold), chip, square.to(u.dtype)), 0.3, 0.5 * gold)

    return paint


@material("sprinkles", hue=ANY)
def sprinkles(m: Params) -> Paint:
    icing = tone("#ff9ec4", m["hue"])
    sugars = [tone(c) for c in ("#ffffff", "#ffd91a", "#1f9bff", "#e8203c", "#2bbf4a", "#7a3cff")]

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        du, dv, i, j = hexes(u * 3.6, v * 3.6)
        pick = chance(i, j)
        along = pick * 40
        du, dv = du + 0.16 * torch.sin(along * 3), dv + 0.16 * torch.cos(along * 5)
        a, b = du * along.cos() + dv * along.sin(), dv * along.cos() - du * along.sin()
        rod = ((a.abs() - 0.2).clamp_min(0) ** 2 + b * b).sqrt()
        rgb = ramp(torch.frac(pick * 7) * 6, [(i + (i > 0) * 0.02, c) for i, c in enumerate(sugars)])
        return Surface(mix(icing, rgb, rise(rod, 0.125, 0.095)), 0.2)

    return paint


@material("swiss cheese", hue=(-0.015, 0.015), moves=True)
def swiss_cheese(m: Params) -> Paint:
    cheese, hole, rim = tone("#ffd23f", m["hue"]), tone("#b8720a", m["hue"]), tone("#fff0a0", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        d, tag = spots(x * 2.6, y * 2.6, z * 2.6)
        size = 0.28 + 0.2 * tag
        rgb = mix(cheese, rim, rise((d - size).abs(), 0.08, 0.04))
        return Surface(mix(rgb, hole, rise(d, size, size - 0.05)), 0.45)

    return paint


@material("wicker", hue=HUE)
def wicker(m: Params) -> Paint:
    straw, tan, dark = tone("#f6d596", m["hue"]), tone("#c78f45", m["hue"]), tone("#4f2b0b", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        u, v = u * 4.0, v * 4.0
        odd = torch.remainder(u.floor() + v.floor(), 2)
        along, across = torch.where(odd > 0, u, v), torch.where(odd > 0, v, u)
        reeds = saw(across * 2)  # two reeds side by side in each square, turned in every other one
        shade = rise(reeds, 0.05, 0.6) * (0.45 + 0.55 * rise(saw(along), 0.0, 0.8))
        return Surface(ramp(shade, ((0.0, dark), (0.5, tan), (1.0, straw))), 0.7)

    return paint


@material("gingham", hue=ANY)
def gingham(m: Params) -> Paint:
    white, half, full = tone("#ffffff"), tone("#7fa6ef", m["hue"]), tone("#1d4fc4", m["hue"])

    def paint(x: Tensor, y: Tensor, z: Tensor, nx: Tensor, ny: Tensor, nz: Tensor) -> Surface:
        u, v = wrap(x, y, z, nx, ny, nz)
        t = rise(saw(u * 2.4), 0.48, 0.52) + rise(saw(v * 2.4), 0.48, 0.52)
        return Surface(ramp(t, ((0.0, white), (1.0, half), (2.0, full))), 0.9)

    return paint
