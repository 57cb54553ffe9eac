"""The table of materials, its decorator, and surfaces laid over one another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from pops.toybox.patterns import each, lerp, mix
from pops.toybox.surface import Float, Paint, Rgb, Surface

Params = Mapping[str, Float]
Builder = Callable[[Params], Paint]
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Material:
    name: str
    build: Builder
    ranges: Ranges  # parameters, uniform
    bump: float = 0.0


MATERIALS: dict[str, Material] = {}


def material(
    name: str, *, bump: float = 0.0, moves: bool = True, **ranges: tuple[float, float]
) -> Callable[[Builder], Builder]:
    """Registers a builder. Its paint gets positions scaled, and moved unless the pattern has a middle."""
    everywhere = {"scale": (0.85, 1.15)} | (dict.fromkeys(("ox", "oy", "oz"), (-9.0, 9.0)) if moves else {})

    def enter(draw: Builder) -> Builder:
        def build(m: Params) -> Paint:
            paint, k = draw(m), m["scale"]
            ox, oy, oz = (m[axis] if moves else 0.0 for axis in ("ox", "oy", "oz"))
            return lambda x, y, z, nx, ny, nz: paint(x * k + ox, y * k + oy, z * k + oz, nx, ny, nz)

        MATERIALS[name] = Material(name, build, everywhere | ranges, bump)
        return draw

    return enter


def plain(rgb: Rgb, rough: Float = 0.55, metal: Float = 0.0) -> Paint:
    """Returns a paint of one colour (linear light)."""
    return lambda x, y, z, nx, ny, nz: Surface(each(lambda c: c + 0 * x, rgb), rough, metal)


def over(under: Surface, top: Surface, t: Tensor) -> Surface:
    """Blends surfaces: `top` where t = 1, `under` where t = 0."""
    return Surface(
        mix(under.rgb, top.rgb, t),
        lerp(under.rough, top.rough, t),
        lerp(under.metal, top.metal, t),
        mix(under.glow, top.glow, t),
    )
