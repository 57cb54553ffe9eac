"""Open-air scenes: desert, beach, snow, forest, meadow, sunset mountains, autumn park."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pops.toybox.scenes.base import Setting, scene, setting
from pops.toybox.scenes.brush import (
    added,
    billow,
    copies,
    detail,
    disc,
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
    stroke,
    warmed,
    wheel,
)
from pops.toybox.surface import Float, Rgb, Surface

DAY = (1.75, 1.65, 1.5)  # key light of a clear day


@scene("desert", phrase="in a desert", warm=(-0.08, 0.12), shift=(-3, 3), cactus=(-0.06, 0.06))
def desert(s: Mapping[str, Float]) -> Setting:
    sand, shade = warmed(rgb("e0a45c"), s["warm"]), warmed(rgb("b8703a"), s["warm"])

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        c = mix(rgb("ffe9c0"), rgb("5aaee0"), ramp(0.0, 0.22, h))
        far = 0.085 * hills(a, 7, s["shift"]) + 0.015
        c = mix(
            c,
            mix(rgb("d98a50"), rgb("f0bf80"), ramp(-0.3, 0.5, (a * 14 + 25 * h + s["shift"]).sin())),
            inside(h - far),
        )
        near = 0.045 * hills(a, 11, 2 * s["shift"] + 1)
        c = mix(c, mix(sand, shade, ramp(-0.2, 0.6, (a * 9 - 40 * h + s["shift"]).sin())), inside(h - near))
        u, k = copies(a + s["cactus"], 17, 0.5)
        v = h - 0.02 * hashed(k)
        d = stroke(u, v, (0, 0), (0, 0.12)) - 0.013
        for side, low, top in ((-0.036, 0.045, 0.085), (0.034, 0.062, 0.1)):
            arm = torch.minimum(stroke(u, v, (0, low), (side, low)), stroke(u, v, (side, low), (side, top)))
            d = torch.minimum(d, arm - 0.009)
        return mix(c, mix(rgb("2f6b35"), rgb("5f9a4a"), ramp(-0.01, 0.01, u)), inside(d))

    def ground(x: Tensor, z: Tensor) -> Surface:
        wind = (z * 7 + 1.6 * (x * 0.9 + s["shift"]).sin() + 0.8 * (x * 2.1 + z).sin()).sin()
        return Surface(mix(sand, shade, ramp(0.1, 1.1, wind) * 0.6 * detail(x, z)), rough=0.9)

    return setting(
        s,
        backdrop,
        ground,
        key=(1.9, 1.7, 1.4),
        up=(0.5, 0.55, 0.65),
        down=(0.4, 0.28, 0.16),
        above=rgb("4a9ad8"),
        below=sand,
    )


@scene("beach", phrase="on a beach", shift=(-3, 3), palm=(0.06, 0.2), sea=(-0.03, 0.03))
def beach(s: Mapping[str, Float]) -> Setting:
    sand = rgb("e8cb90")
    deep, shoal = wheel(0.56 + s["sea"], 0.24, 0.24), wheel(0.49 + s["sea"], 0.42, 0.36)

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        c = mix(rgb("b4e2fa"), rgb("2f8ae4"), ramp(0.07, 0.23, h))
        cloud, light = puffs(a, h, 9, s["shift"], 0.15, 0.028)
        c = mix(c, mix(rgb("d4e4f0"), (1.0, 1.0, 1.0), light), cloud)
        glint = ramp(0.55, 0.9, (h * 420 + 3 * (a * 40 + s["shift"]).sin()).sin() * (a * 55 + h * 90).sin())
        sea = mix(mix(shoal, deep, ramp(0.02, 0.075, h)), (0.9, 1.0, 1.0), glint * 0.4)
        c = mix(c, sea, inside(h - 0.078))
        shore = 0.016 + 0.006 * (a * 17 + s["shift"]).sin()
        c = mix(c, (1.0, 1.0, 1.0), inside((h - shore).abs() - 0.006, 0.006))
        c = mix(c, scaled(sand, 0.8), inside(h - shore + 0.004))
        u = a - s["palm"] + 0.02  # the palm: a bent trunk and drooping fronds
        trunk = inside((u - 2.5 * (h - 0.02) ** 2).abs() - 0.007 + 0.015 * h) * inside(h - 0.15)
        c = mix(c, rgb("7a5230"), trunk)
        u, v = u - 0.042, h - 0.148
        v = v + 5.5 * u * u
        turn = torch.atan2(v, u)
        frond = length(u, v) - 0.035 - 0.055 * (3.5 * turn + 1.2).cos().abs()
        return mix(c, mix(rgb("1f7a35"), rgb("58b048"), ramp(-0.02, 0.03, v)), inside(frond, 0.008))

    def ground(x: Tensor, z: Tensor) -> Surface:
        grain = billow(x * 3 + s["shift"], z * 3) * detail(x, z)
        shell, rnd = dots(x * 1.1 + s["shift"], z * 1.1, 0.07, 0.3)
        rgb_ = mix(sand, rgb("c49c68"), ramp(0.0, 1.0, grain) * 0.6)
        rgb_ = mix(rgb_, mix(rgb("fff4ee"), rgb("f08a78"), rnd), inside(shell, 0.03))
        return Surface(rgb_, rough=0.9)

    return setting(
        s,
        backdrop,
        ground,
        key=DAY,
        up=(0.5, 0.6, 0.7),
        down=(0.4, 0.34, 0.24),
        above=rgb("3a8fe0"),
        below=sand,
    )


@scene("snow", phrase="in the snow", shift=(-3, 3), fir=(-0.3, 0.3), dusk=(0, 1))
def snow(s: Mapping[str, Float]) -> Setting:
    white, shade = rgb("f2f7ff"), rgb("a9c4ea")

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        c = mix(mix(rgb("c4e0f6"), rgb("f0ccd8"), s["dusk"]), rgb("4f8fd4"), ramp(0.03, 0.22, h))
        top = 0.03 + 0.14 * peaks(a, 9, s["shift"])
        facet = ramp(-0.1, 0.1, (a * 33 + 40 * h + s["shift"]).sin())
        c = mix(
            c,
            mix(mix(rgb("7f9ccc"), rgb("5677ac"), facet), white, ramp(-0.06, -0.03, h - top - 0.02 * facet)),
            inside(h - top),
        )
        for n, phase, size in ((31, 0.0, 0.085), (19, 0.4, 0.12)):
            u, k = copies(a + s["fir"], n, phase)
            tall = size * (0.75 + 0.5 * hashed(k, n))
            level = (tall - h) / tall * 4  # four tiers of boughs, each dusted with snow at its foot
            tier = level.frac()
            d = u.abs() - 0.05 * tall / 0.12 * (level / 4 * 0.7 + 0.3 * tier) * 0.8
            fir = mix(rgb("1f4f4a"), white, ramp(0.1, -0.4, tier - 0.45) * 0.85)
            c = mix(c, fir, inside(torch.maximum(d, h - tall)))
        c = mix(c, mix(white, shade, ramp(0.03, 0.0, h) * 0.5), inside(h - 0.022 * hills(a, 9, s["shift"])))
        flake, _ = dots(a * 34 + s["shift"], h * 34, 0.11, 0.5)
        return mix(c, (1.0, 1.0, 1.0), inside(flake, 0.1) * ramp(0.6, 0.3, h))

    def ground(x: Tensor, z: Tensor) -> Surface:
        drift = billow(x * 1.3 + s["shift"], z * 2.2)
        return Surface(mix(white, shade, ramp(0.0, 1.1, drift) * 0.75 * detail(x, z)), rough=0.75)

    return setting(
        s,
        backdrop,
        ground,
        key=(1.05, 1.02, 0.98),
        up=(0.3, 0.37, 0.5),
        down=(0.4, 0.45, 0.55),
        above=rgb("8fb8e4"),
        below=scaled(white, 0.95),
    )


@scene("forest", phrase="in a forest", shift=(-3, 3), moss=(-0.02, 0.03), trunks=(-0.3, 0.3))
def forest(s: Mapping[str, Float]) -> Setting:
    earth, moss = rgb("5a4428"), wheel(0.27 + s["moss"], 0.11, 0.09)
    layers = (  # trunks round the circle, their half width, bark, brightness from afar to near
        (61, 0.008, rgb("7f9a68")),
        (37, 0.014, rgb("56603c")),
        (19, 0.026, rgb("3f2c1c")),
    )

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        leaves = billow(a * 60 + s["shift"], h * 75)
        c = mix(rgb("d4e69a"), rgb("5f9a4c"), ramp(0.02, 0.2, h))
        c = mix(c, rgb("3f7a35"), ramp(0.0, 0.5, leaves) * ramp(0.04, 0.14, h))
        for n, wide, bark in layers:
            u, k = copies(a + s["trunks"], n, 0.3 * n)
            u = u + (hashed(k, n) - 0.5) * 3 / n
            side = ramp(-wide, wide, u)
            c = mix(
                c,
                mix(scaled(bark, 0.6), scaled(bark, 1.5), side),
                inside(u.abs() - wide * (1 + 0.5 * ramp(0.04, 0.0, h))),
            )
        canopy = h - 0.16 + 0.035 * leaves
        c = mix(c, mix(rgb("1f4a20"), rgb("4f8f35"), ramp(-0.2, 0.8, leaves)), ramp(-0.004, 0.004, canopy))
        bush = 0.028 + 0.016 * billow(a * 45, h * 30 + s["shift"])
        return mix(c, mix(rgb("25501f"), rgb("5c8f38"), ramp(-0.02, 0.01, h - bush)), inside(h - bush))

    def ground(x: Tensor, z: Tensor) -> Surface:
        patch = billow(x * 1.1 + s["shift"], z * 1.4)
        rgb_ = mix(earth, moss, ramp(-0.3, 0.4, patch))
        leaf, rnd = dots(x * 3.2, z * 3.2 + s["shift"], 0.17, 0.45)
        rgb_ = mix(rgb_, mix(rgb("9a6a2c"), rgb("7f9a3c"), rnd), inside(leaf, 0.08) * 0.8 * detail(x, z))
        return Surface(rgb_, rough=0.9)

    return setting(
        s,
        backdrop,
        ground,
        key=(1.8, 1.75, 1.4),
        up=(0.42, 0.52, 0.36),
        down=(0.16, 0.16, 0.09),
        above=rgb("5f9a4c"),
        below=mix(earth, moss, 0.6),
    )


@scene("meadow", phrase="in a flower meadow", shift=(-3, 3), hue=(-0.03, 0.02), flowers=(0, 1))
def meadow(s: Mapping[str, Float]) -> Setting:
    grass, dark = wheel(0.255 + s["hue"], 0.24, 0.2), wheel(0.3 + s["hue"], 0.13, 0.12)
    petals = wheel(0.75 + 0.3 * s["flowers"], 0.5, 0.45)

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        c = mix(rgb("b4e0fc"), rgb("2f8ae8"), ramp(0.04, 0.22, h))
        cloud, light = puffs(a, h, 11, s["shift"], 0.135, 0.03)
        c = mix(c, mix(rgb("dbe8f4"), (1.0, 1.0, 1.0), light), cloud)
        for n, tall, phase, hill in (
            (7, 0.1, 0.0, "7fc29a"),
            (9, 0.075, 2.0, "66b858"),
            (5, 0.045, 4.0, "86cc4c"),
        ):
            top = tall * hills(a, n, s["shift"] + phase)
            c = mix(c, mix(scaled(rgb(hill), 0.75), rgb(hill), ramp(-0.04, 0.0, h - top)), inside(h - top))
        return c

    def ground(x: Tensor, z: Tensor) -> Surface:
        near = detail(x, z)
        blade = (x * 19 + 2 * (z * 5).sin()).sin() * (z * 8 + 2 * (x * 7).sin()).sin()
        rgb_ = mix(
            grass,
            dark,
            (ramp(-0.2, 0.9, blade) * 0.7 + 0.3 * ramp(-0.2, 0.8, billow(x, z + s["shift"]))) * near,
        )
        for scale, shift, bloom, eye in (
            (1.5, 0.0, petals, rgb("ffd23c")),
            (1.9, 5.5, (0.95, 0.95, 0.95), rgb("ffc81e")),
        ):
            d, _ = dots(x * scale + shift + s["shift"], z * scale, 0.17, 0.6)
            rgb_ = mix(mix(rgb_, bloom, inside(d, 0.06)), eye, inside(d + 0.1, 0.05))
        return Surface(rgb_, rough=0.9)

    return setting(
        s,
        backdrop,
        ground,
        key=DAY,
        up=(0.5, 0.6, 0.68),
        down=(0.2, 0.28, 0.1),
        above=rgb("4aa4f0"),
        below=mix(grass, dark, 0.3),
    )


@scene(
    "sunset mountains",
    phrase="in the mountains at sunset",
    shift=(-3, 3),
    disc=(-0.2, -0.07),
    warm=(-0.05, 0.1),
)
def sunset_mountains(s: Mapping[str, Float]) -> Setting:
    soil, heath = rgb("4f3c50"), rgb("86607a")

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        c = mix(mix(rgb("ffd070"), rgb("ff7a50"), ramp(0.03, 0.11, h)), rgb("7a4a9a"), ramp(0.1, 0.23, h))
        c = mix(
            c,
            rgb("ff9a80"),
            ramp(0.3, 0.8, billow(a * 9 + s["shift"], h * 90)) * ramp(0.08, 0.13, h) * ramp(0.5, 0.2, h),
        )
        r = length(a - s["disc"], h - 0.105)
        c = added(c, (0.9, 0.5, 0.15), (r * -18).exp())
        c = mix(c, (1.8, 1.45, 0.7), inside(r - 0.042))
        ranges = (
            (9, 0.15, 0.0, "c06088", "e89080"),
            (13, 0.105, 1.3, "7c3f7c", "b45c80"),
            (17, 0.06, 2.6, "452858", "6a3a6c"),
        )
        for n, tall, phase, dark, mist in ranges:
            top = tall * peaks(a, n, s["shift"] + phase)
            c = mix(c, mix(rgb(mist), rgb(dark), ramp(-0.06, 0.0, h - top)), inside(h - top))
        return warmed(c, s["warm"])

    def ground(x: Tensor, z: Tensor) -> Surface:
        tuft = billow(x * 2.2 + s["shift"], z * 3)
        rgb_ = mix(soil, heath, ramp(-0.3, 0.7, tuft) * (0.3 + 0.7 * detail(x, z)))
        stone, rnd = dots(x * 1.3 + s["shift"], z * 1.3, 0.16, 0.35)
        return Surface(mix(rgb_, mix(rgb("8a6a80"), rgb("b08c98"), rnd), inside(stone, 0.06)), rough=0.85)

    return setting(
        s,
        backdrop,
        ground,
        key=(2.1, 1.5, 1.05),
        up=(0.5, 0.36, 0.55),
        down=(0.25, 0.14, 0.18),
        above=rgb("6a4898"),
        below=mix(soil, heath, 0.4),
        height=32,
    )


@scene("autumn park", phrase="in an autumn park", shift=(-3, 3), crowns=(-0.3, 0.3), warm=(-0.06, 0.08))
def autumn_park(s: Mapping[str, Float]) -> Setting:
    turf, leaves = rgb("b8903c"), (rgb("d8541c"), rgb("f0b428"), rgb("a83018"))
    rows = (
        (29, 0.095, 0.028, 0.7),
        (17, 0.125, 0.042, 0.1),
    )  # trees round the circle, crown height and radius, phase

    def backdrop(a: Tensor, h: Tensor) -> Rgb:
        c = mix(rgb("fff0d0"), rgb("9cc8e4"), ramp(0.05, 0.24, h))
        c = mix(c, rgb("c88a48"), inside(h - 0.05 - 0.012 * billow(a * 40 + s["shift"], h * 20)))
        ruffle = 0.012 * billow(a * 95, h * 95)
        for n, tall, radius, phase in rows:
            u, k = copies(a + s["crowns"], n, phase)
            rnd = hashed(k, n)
            v = h - tall * (0.85 + 0.35 * rnd)
            c = mix(c, rgb("4a3020"), inside(torch.maximum(u.abs() - 0.007 * radius / 0.03, v)))
            crown = mix(mix(leaves[0], leaves[1], ramp(0.3, 0.6, rnd)), leaves[2], ramp(0.7, 0.85, rnd))
            shaded = mix(scaled(crown, 0.55), scaled(crown, 1.25), ramp(-0.03, 0.03, v + 2 * ruffle))
            c = mix(c, shaded, inside(disc(u, v, 0.0, 0.0, radius * 1.15) + ruffle))
        return warmed(mix(c, turf, inside(h - 0.012)), s["warm"])

    def ground(x: Tensor, z: Tensor) -> Surface:
        rgb_ = mix(turf, rgb("8f9440"), ramp(-0.2, 0.7, billow(x * 0.9, z + s["shift"])))
        for scale, shift in ((2.6, 0.0), (3.3, 4.5), (2.1, 9.2)):
            d, rnd = dots((x + 0.3 * z) * scale + shift + s["shift"], (z - 0.3 * x) * scale, 0.27, 0.75)
            leaf = mix(mix(leaves[0], leaves[1], ramp(0.3, 0.5, rnd)), leaves[2], ramp(0.65, 0.8, rnd))
            rgb_ = mix(rgb_, leaf, inside(d, 0.1) * (0.35 + 0.65 * detail(x, z)))
        return Surface(warmed(rgb_, s["warm"]), rough=0.85)

    return setting(
        s,
        backdrop,
        ground,
        key=(1.75, 1.55, 1.25),
        up=(0.5, 0.52, 0.5),
        down=(0.32, 0.2, 0.08),
        above=rgb("9cc8e4"),
        below=rgb("b87c34"),
    )
