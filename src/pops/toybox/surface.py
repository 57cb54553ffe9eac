"""What a point of an image looks like before light falls on it, and the types of the functions that say so.

Knows no shapes, patterns or light: objects, materials and scenes share these types.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Float = float | Tensor  # a parameter: a float (one image) or a tensor [B, 1] (a batch)
Rgb = tuple[Float, Float, Float]  # linear light unless a comment says sRGB; tensors shaped like the coordinates
Sdf = Callable[[Tensor, Tensor, Tensor], Tensor]  # x, y, z -> signed distance, all of one shape


@dataclass
class Surface:
    rgb: Rgb  # albedo, linear
    rough: Float = 0.6  # 0 mirror .. 1 chalk
    metal: Float = 0.0  # 0 dielectric .. 1 metal
    glow: Rgb = (0.0, 0.0, 0.0)  # emitted light, linear


# position x, y, z and unit normal nx, ny, nz, all in object space -> what is there
Paint = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Surface]
