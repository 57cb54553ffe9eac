"""One object in several poses: the data by which spatial control is trained and measured.

All images of `poses` share objects, materials and scene, and differ in where things stand, how they are turned, and
in the viewpoint. `nearness` is the exact depth image that goes with each.
"""

from __future__ import annotations

import random
from dataclasses import replace

import torch
from torch import Tensor

from pops.toybox.pairs import TEST_SEEDS, family
from pops.toybox.shot import Shot
from pops.toybox.world import CORE, Camera, ObjectSpec, SceneSpec, Vocabulary

PAIRS = 0.2  # share of the seeds that show two objects


def poses(
    seed: int, split: str = "train", count: int = 3, names: Vocabulary = CORE, pairs: float = PAIRS
) -> tuple[SceneSpec, ...]:
    """Draws `count` poses of the objects of a seed, in one scene; their combinations are of the split, as for families.

    pairs: the share of the seeds that show two objects.
    """
    f = family(seed, split, names=names)
    rng = random.Random(seed * 31 + 17 + (TEST_SEEDS if split == "test" else 0))
    spec = f.both if rng.random() < pairs else f.base
    return tuple(posed(spec, rng) for _ in range(count))


def posed(spec: SceneSpec, rng: random.Random) -> SceneSpec:
    """Draws other positions, rotations and another viewpoint for the objects of a scene."""
    return replace(spec, objects=tuple(_moved(o, rng, len(spec.objects)) for o in spec.objects), camera=_seen(rng))


def _moved(o: ObjectSpec, rng: random.Random, among: int) -> ObjectSpec:
    turned = o.yaw + rng.uniform(-50, 50)
    if among > 1:
        return replace(o, yaw=turned, x=o.x + rng.uniform(-0.1, 0.1), scale=o.scale * rng.uniform(0.8, 1.1))
    scale = rng.uniform(0.62, 1.05)
    room = 0.75 * (1.15 - scale) + 0.1  # a smaller object may stand further from the middle
    return replace(o, yaw=turned, x=rng.uniform(-room, room), scale=scale)


def _seen(rng: random.Random) -> Camera:
    return Camera(azimuth=rng.uniform(-5, 5), height=rng.uniform(1.6, 2.4), aim=rng.uniform(0.78, 0.88))


def nearness(shot: Shot) -> Tensor:
    """Returns the inverse depth of each pixel, [size, size]: 0 for the image's farthest, 1 for its nearest.

    As depth estimators of the MiDaS family return it (arXiv 1907.01341) and depth ControlNets read it.
    """
    inverse = 1 / shot.depth
    low, high = inverse.min(), inverse.max()
    return (inverse - low) / (high - low).clamp_min(torch.finfo(inverse.dtype).eps)
