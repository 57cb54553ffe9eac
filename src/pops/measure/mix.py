"""How well mixes keep their layout and show their content: pairs of toybox with exact masks, and the oracle.

Layouts are images of one object in a studio, with their exact masks; contents are texts, half of them another kind
of object ("a cactus"), half a material ("a tiger rabbit", for a rabbit). Every combination is held out of training.

The silhouette of each mix is read (pops.toybox.silhouette) and compared with the layout's mask, and the oracle returns
the content's probability, over nu and over strength. A pair has the same seed at every setting.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pops.errors import ConfigError, ensure
from pops.progress import named_steps

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from pops.magicmix.mix import MagicMix
    from pops.progress import OnProgress
    from pops.studio import Pops

KINDS = ("object", "material")
NUS = (0.0, 0.25, 0.5, 0.65, 0.8, 0.9, 0.95, 1.0)
STRENGTHS = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0)
ENOUGH = 0.6  # IoU, and share of contents read right, from which a setting counts as keeping both
STEADY = 0.02  # a curve that goes back by less still counts as monotone
SIDE = 96  # pixels of the oracle's images


@dataclass(frozen=True)
class Pairs:
    """Layouts and contents, one row per pair."""

    layouts: list[Image.Image]
    pictures: Tensor  # uint8 [n, 3, SIDE, SIDE], the layouts
    masks: Tensor  # bool [n, SIDE, SIDE], exact
    kinds: list[str]  # of the content: "object" or "material", also the names of the oracle's heads
    names: list[str]  # what the oracle ought to read there
    texts: list[str]
    seeds: list[int]  # of the family, and of the mixes


@dataclass
class Report:
    """Shares from 0 to 1; curves: "nu" and "strength" -> one row per value, see `_row`."""

    model: str
    count: int
    seed: int
    settings: dict[str, Any]
    ceiling: dict[str, float] = field(default_factory=dict)  # IoU of the reader at best
    layouts: dict[str, dict[str, float]] = field(default_factory=dict)  # what is read in the layouts themselves
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    monotone: dict[str, dict[str, bool]] = field(default_factory=dict)
    point: dict[str, dict[str, Any] | None] = field(default_factory=dict)  # kind -> the best row that keeps both


def measure(
    p: Pops,
    *,
    count: int = 200,
    seed: int = 0,
    nus: Sequence[float] = NUS,
    strengths: Sequence[float] = STRENGTHS,
    how: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Measures `count` pairs drawn from `seed`; how: other settings of the mixes than nu and strength (MixSettings).

    On the curve over strength nu is the default (or that of `how`), and vice versa.
    """
    from pops.magicmix.operands import MixSettings, with_defaults

    ensure(count >= 2, f"count must be at least 2, got {count}", ConfigError)
    mixer = p.mixer()
    given = with_defaults(how or {}, p.model.files.info, mixer.native)
    for name, values in (("nu", nus), ("strength", strengths)):
        for value in values:
            MixSettings.of({**given, name: value})
    pairs = draw_pairs(count, seed, on_progress)
    settings = {k: v for k, v in vars(MixSettings.of(given)).items() if k not in ("negative", "inject")}
    report = Report(p.name, count, seed, settings, _ceiling(mixer, pairs))
    report.layouts = _row(pairs, pairs.pictures)
    for name, values in (("nu", nus), ("strength", strengths)):
        rows = []
        for i, value in enumerate(values):
            made = _mixed(mixer, pairs, {**given, name: value}, f"{name} {value:g}", on_progress)
            rows.append({"value": value, **_row(pairs, made)})
            if on_progress:
                on_progress(i + 1, len(values), f"over {name}")
        report.curves[name] = rows
        report.monotone[name] = _monotone(rows)
    for kind in ("all", *KINDS):
        both = [row for row in (r for rows in report.curves.values() for r in rows) if _enough(row[kind])]
        best = max(both, key=lambda row: min(row[kind]["iou"], row[kind]["right"]), default=None)
        over = None if best is None else next(name for name, rows in report.curves.items() if best in rows)
        report.point[kind] = None if best is None else {"over": over, "value": best["value"], **best[kind]}
    return report


def draw_pairs(count: int, seed: int, on_progress: OnProgress | None = None) -> Pairs:
    """Draws pairs of the held-out families `seed`, `seed + 1`, ...; contents are objects and materials in turn."""
    import torch

    from pops.toybox.draw import light, object_paints, paint, setting_of, to_image
    from pops.toybox.pairs import family
    from pops.toybox.shot import shoot
    from pops.toybox.words import article

    images, masks, kinds, names, texts = [], [], [], [], []
    seeds = list(range(seed, seed + count))
    for number in seeds:
        kind = KINDS[(number - seed) % len(KINDS)]
        drawn = family(number, "test", "union" if kind == "object" else "texturing")
        layout, current = drawn.studio, drawn.studio.objects[0].material.name
        name = drawn.other.objects[0].category if kind == "object" else drawn.textured.objects[0].material.name
        if kind == "material" and current == name:  # else nothing would change
            bare = replace(layout.objects[0], material=replace(layout.objects[0].material, kind="plain", name=""))
            layout = replace(layout, objects=(bare,))
        setting = setting_of(layout.scene, layout.setting)
        shot = shoot(layout.objects, layout.camera, SIDE)
        image = paint(light(shot, setting), [object_paints(o) for o in layout.objects])
        images.append(image)
        masks.append(shot.mask > 0.5)
        kinds.append(kind)
        names.append(name)
        # In toybox's captions a material stands before a noun: here the layout's own.
        texts.append(article(name if kind == "object" else f"{name} {layout.objects[0].category}"))
        if on_progress:
            on_progress(len(images), count, "drawing")
    layouts = [to_image(x) for x in images]
    return Pairs(layouts, torch.stack(images), torch.stack(masks), kinds, names, texts, seeds)


def _mixed(mixer: MagicMix, pairs: Pairs, how: Mapping[str, Any], what: str, on_progress: OnProgress | None) -> Tensor:
    """Mixes every pair => uint8 [n, 3, SIDE, SIDE]."""
    on_step = named_steps(on_progress, what)
    return _stacked(mixer.each(pairs.layouts, pairs.texts, seeds=pairs.seeds, on_step=on_step, **how))


def _stacked(images: Sequence[Image.Image]) -> Tensor:
    import numpy as np
    import torch
    from PIL.Image import Resampling

    arrays = [np.asarray(x.convert("RGB").resize((SIDE, SIDE), Resampling.LANCZOS)) for x in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


# --- what is read in images ------------------------------------------------------------------------------------------


def _row(pairs: Pairs, pictures: Tensor) -> dict[str, dict[str, float]]:
    """Returns, for all pairs and each kind of content: mean IoU, mean probability of the content, share read right."""
    import torch

    from pops.toybox.silhouette import Silhouette
    from pops.toybox.silhouette import iou as overlap

    iou = overlap(Silhouette.load().read(pictures), pairs.masks)
    probable, right = _content(pairs, pictures)
    rows = {}
    for kind in ("all", *KINDS):
        some = torch.tensor([kind in ("all", k) for k in pairs.kinds])
        figures = {"iou": iou, "probability": probable, "right": right}
        rows[kind] = {name: float(values[some].mean()) for name, values in figures.items()}
    return rows


def _content(pairs: Pairs, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the oracle's probability of each content [n], and 1 if nothing is more probable, else 0 [n]."""
    import torch

    from pops.toybox.oracle import HEADS, Oracle

    oracle = Oracle.load()
    with torch.no_grad():
        parts = [oracle(batch.float() / 255) for batch in pictures.split(64)]
    probable, right = [], []
    for k, (kind, name) in enumerate(zip(pairs.kinds, pairs.names, strict=True)):
        probabilities = parts[k // 64][kind][k % 64].softmax(0)
        wanted = HEADS[kind].index(name)
        probable.append(float(probabilities[wanted]))
        right.append(float(int(probabilities.argmax()) == wanted))
    return torch.tensor(probable), torch.tensor(right)


def _ceiling(mixer: MagicMix, pairs: Pairs) -> dict[str, float]:
    """Returns the reader's IoU with the exact masks, on the true images and on those after the autoencoder."""
    import torch

    from pops.magicmix.latents import decode, encode_photo
    from pops.magicmix.operands import photo_latent_input
    from pops.toybox.silhouette import Silhouette
    from pops.toybox.silhouette import iou as overlap

    reader = Silhouette.load()
    coded: list[Image.Image] = []
    with torch.no_grad():
        for layout in pairs.layouts:
            size = tuple(round(side / mixer.factor) * mixer.factor for side in (layout.height, layout.width))
            latent = encode_photo(mixer.vae, photo_latent_input(layout, (size[0], size[1])))
            coded += decode(mixer.vae, latent[None])
    return {
        name: float(overlap(reader.read(x), pairs.masks).mean())
        for name, x in (("true_pictures", pairs.pictures), ("autoencoded", _stacked(coded)))
    }


def _monotone(rows: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Returns whether, over all pairs, IoU falls and the content's probability rises along the whole curve."""
    iou, probable = ([row["all"][name] for row in rows] for name in ("iou", "probability"))
    return {
        "iou_falls": all(b <= a + STEADY for a, b in itertools.pairwise(iou)),
        "probability_rises": all(b >= a - STEADY for a, b in itertools.pairwise(probable)),
    }


def _enough(row: Mapping[str, float]) -> bool:
    return row["iou"] >= ENOUGH and row["right"] >= ENOUGH
