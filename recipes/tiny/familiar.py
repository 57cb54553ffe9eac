"""What tiny was trained on, so that it can say when an operand is like none of it: the folder familiar/.

    python -m recipes.tiny.familiar --unlike FOLDER --photos FOLDER

A small network learns to tell toybox's pictures from all others: crops of photographs, cut-out things on backdrops,
noise. --unlike: folders of such pictures; --photos: folders of photographs of which every second one is learnt from,
and the others are for the report alone. Both may be given several times. The threshold is that which a share of
held-back training pictures exceeds (1 - QUANTILE), and none of examples/. Then the words of all training captions are
listed.

python -m recipes.tiny.familiar --report --photos FOLDER    # only the figures of the finished folder, WORK's or tiny's
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pops.images import load_photo
from pops.models.familiar import CONFIG, FAMILIAR, STRIDE, WEIGHTS, Familiar
from pops.toybox.draw import draw_swatch
from pops.toybox.pairs import change, company, draw_family, draw_grid, family, grid
from pops.toybox.words import captions
from pops.toybox.world import CORE, random_material_spec, sample_swatch, sample_swatch_seeded
from recipes.tiny import data, settings
from recipes.tiny.encode import vae
from recipes.tiny.loop import Budget, Stage, prepare
from recipes.tiny.unlike import Unlike, files, spoilt

ABOUT = "drawings of toybox"
LAYERS = ((5, 16), (3, 32), (3, 48), (3, 64))  # kernel and channels of each layer, all of stride STRIDE
BATCH = 48  # pictures of each kind in a step
DRAWN, OTHERS, CODED = 6000, 12000, 1000  # pictures of training, pictures unlike them, and of training as tiny draws
QUANTILE = 0.99  # share of held-back pictures of training that are familiar
MARGIN = 0.1  # of the threshold above the strangest of examples/
HELD_BACK = 10  # one picture of training in so many
TEST_FAMILIES, TEST_SEED = 64, 50_000
SWATCHES = 15  # of each material; eight times as many of none that has a name
SEEDS = 1500  # families, grids, changes, companies whose captions give the words
SMALL_WORDS = [
    "a", "an", "the", "and", "or", "of", "in", "on", "at", "by", "to", "from", "for", "with", "without", "into", "onto",
    "over", "under", "near", "beside", "behind", "before", "between", "through", "as", "is", "are", "be", "it", "its",
    "this", "that", "there", "some", "very", "more", "most", "less", "no", "not", "only", "one", "like",
    "picture", "photo", "photograph", "image", "drawing", "view",
]  # fmt: skip


class Network(nn.Module):
    """What `pops.models.familiar.strangeness_of` computes, with normalised layers for training."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *(width for _, width in LAYERS)]
        self.conv = nn.ModuleList(
            nn.Conv2d(before, width, kernel, STRIDE, kernel // 2)
            for before, (kernel, width) in zip(widths, LAYERS, strict=False)
        )
        self.norm = nn.ModuleList(nn.BatchNorm2d(width) for _, width in LAYERS)
        self.head = nn.Linear(widths[-1], 1)

    def forward(self, pixels: Tensor) -> Tensor:
        x = data.to_unit(pixels).contiguous(memory_format=torch.channels_last)
        for conv, norm in zip(self.conv, self.norm, strict=True):
            x = norm(conv(x)).relu()
        return self.head(x.mean((2, 3)))[:, 0]

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """Returns the weights in float16, each layer's normalisation within its convolution."""
        found = {"head.weight": self.head.weight[0], "head.bias": self.head.bias[0]}
        layers: list[Any] = list(zip(self.conv, self.norm, strict=True))
        for i, (conv, norm) in enumerate(layers):
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            found[f"conv.{i}.weight"] = conv.weight * scale[:, None, None, None]
            found[f"conv.{i}.bias"] = (conv.bias - norm.running_mean) * scale + norm.bias
        return {name: tensor.half().contiguous() for name, tensor in found.items()}


# --- pictures


def other_sizes() -> Tensor:
    """Draws training pictures in other sizes than the shards', shrunk: edges and fine patterns depend on the size."""
    rows = []
    for seeds, size, samples in ((range(5000, 5040), 96, 2), (range(6000, 6030), 256, 1), (range(6030, 6045), 256, 2)):
        drawn = [torch.stack(list(draw_family(family(seed), size, samples)[0].values())) for seed in seeds]
        rows.append(data.shrink(torch.cat(drawn)))
    rows.append(data.shrink(torch.cat([torch.stack(draw_grid(grid(seed), 192, 1)[0]) for seed in range(3000, 3012)])))
    return torch.cat(rows)


def swatches() -> Tensor:
    """Draws more exemplars of every material than the shards have, in several sizes: operands that are all pattern."""
    specs = [sample_swatch_seeded(name, 9000 + k) for name in CORE.materials for k in range(SWATCHES)]
    for k in range(SWATCHES * 8):
        rng = random.Random(f"familiar {k}")
        specs.append(sample_swatch(random_material_spec(rng), rng))
    sizes = (settings.SIZE, settings.CANVAS, 2 * settings.CANVAS)
    return torch.cat([data.shrink(draw_swatch(spec, sizes[i % 3])[None]) for i, spec in enumerate(specs)])


@torch.no_grad()
def coded(pictures: Tensor, gen: torch.Generator) -> Tensor:
    """Returns pictures as tiny would draw them: through its autoencoder, with some noise on the latents."""
    coder, rows = vae(), []
    for some in pictures.split(32):
        latents = coder.encode(data.to_unit(some)).latents
        noise = torch.rand(len(some), 1, 1, 1, generator=gen) * 0.35 * latents.std()
        latents = latents + noise * torch.randn(latents.shape, generator=gen)
        rows.append(data.shrink(data.to_bytes(coder.decode(latents).sample)))
    return torch.cat(rows)


def familiar_pictures() -> Tensor:
    """Draws or loads training pictures => uint8 [n, 3, SIZE, SIZE]: as they are, and each kind spoilt."""
    rng, gen = random.Random(1), torch.Generator().manual_seed(1)
    pictures = data.load(guides=False)
    chosen = pictures.images[torch.randperm(len(pictures), generator=gen)[:DRAWN]]
    companies = data.load_others("union")[0][::4]
    plain = torch.cat([data.shrink(chosen), data.shrink(companies), other_sizes(), swatches()])
    changed = torch.cat([plain, coded(chosen[:CODED], gen)])
    images = (Image.fromarray(x.permute(1, 2, 0).numpy()) for x in changed)
    return torch.cat([plain, torch.stack([spoilt(image, rng) for image in images])])


def kept(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """Makes pictures once and keeps them in a file, so that a stopped stage goes on with the same."""
    if not path.exists():
        save_file({"images": make().contiguous()}, path)
    return load_file(path)["images"]


# --- words


def words() -> list[str]:
    """Returns the words of all captions that the training could show, and small ones, sorted."""
    specs = [s for seed in range(SEEDS) for s in family(seed).pictures().values()]
    specs += [s for seed in range(SEEDS // 4) for kind in (grid, change, company) for s in kind(seed).pictures()]
    found = {word for spec in specs for text in captions(spec) for word in re.findall(r"[a-z]+", text.lower())}
    return sorted(found.union(SMALL_WORDS))


# --- the stage


def train(budget: Budget, familiar: Tensor, unlike: Tensor) -> Network:
    """Trains on batches with as many pictures of each kind; returns the network with its averaged weights."""
    network = Network().to(memory_format=torch.channels_last)
    stage = Stage(FAMILIAR, network, budget, lr=2e-3, ema=0.99, weight_decay=0.02, decay=0.6)
    target = torch.cat([torch.zeros(BATCH), torch.ones(BATCH)])

    def step_loss(step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        gen = torch.Generator().manual_seed(step)
        chosen = [kind[torch.randint(len(kind), (BATCH,), generator=gen)] for kind in (familiar, unlike)]
        score = network(torch.cat(chosen))
        wrong = ((score > 0) != (target > 0)).float().mean()
        return nn.functional.binary_cross_entropy_with_logits(score, target), {"wrong": wrong}

    stage.run(step_loss)
    network.load_state_dict(stage.average.values)
    return network.eval()


def write(folder: Path, network: Network, held_back: Tensor) -> None:
    """Writes familiar/ with the threshold that held-back pictures of training, and those of examples/, give."""
    tensors = network.folded()
    judge = Familiar(tensors, side=settings.SIZE, threshold=0.0, about=ABOUT, words=())
    own = float(judge.strangeness(_images(held_back)).quantile(QUANTILE))
    threshold = max(own, float(judge.strangeness(examples()).max()) + MARGIN)
    print(f"threshold {threshold:.3f}: {100 * QUANTILE:g} % of {len(held_back)} held-back pictures are below {own:.3f}")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS)
    about = {"about": ABOUT, "side": settings.SIZE, "threshold": round(threshold, 6), "words": words()}
    (folder / CONFIG).write_text(json.dumps(about, indent=2) + "\n")


def examples() -> list[Image.Image]:
    """The pictures of examples/ that are operands: toybox's, and what users try first."""
    folder = settings.ROOT / "examples"
    return [_square(path) for path in files([folder / kind for kind in ("objects", "textures", "scenes")])]


def report(familiar: Familiar, photos: list[Path]) -> None:
    """Prints which share of held-out pictures of each kind, of photographs and of captions is unfamiliar."""
    drawn: dict[str, list[Tensor]] = {}
    for seed in range(TEST_SEED, TEST_SEED + TEST_FAMILIES):
        focus = ("texturing", "union", "scene", "instruct")[seed % 4]
        for name, picture in draw_family(family(seed, "test", focus), settings.CANVAS)[0].items():
            drawn.setdefault(name, []).append(picture)
    kinds = {f"test pictures, {name}": _images(data.shrink(torch.stack(some))) for name, some in drawn.items()}
    more = [draw_swatch(sample_swatch_seeded(name, TEST_SEED + k)) for name in CORE.materials for k in range(6)]
    rows = {
        **kinds,
        "test pictures of toybox, all": [image for images in kinds.values() for image in images],
        "exemplars of named materials, other ones": _images(torch.stack(more)),
        "examples/ (none, by the threshold)": examples(),
        "photographs, those not learnt from": [_square(path) for path in photos[1::2]],
        "photographs, all": [_square(path) for path in photos],
    }
    for name, images in rows.items():
        flagged = sum(familiar.unfamiliar(images))
        print(f"{name}: {flagged} of {len(images)} unfamiliar ({100 * flagged / max(1, len(images)):.1f} %)")
    texts = [t for seed in range(TEST_SEED, TEST_SEED + 500) for s in family(seed, "test").pictures().values()
             for t in captions(s)]  # fmt: skip
    print(f"captions of test families: {sum(bool(familiar.unknown(t)) for t in texts)} of {len(texts)} unfamiliar")


def _images(pictures: Tensor) -> list[Image.Image]:
    return [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in pictures]


def _square(path: Path) -> Image.Image:
    return load_photo(path, size=settings.SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unlike", type=Path, action="append", default=[], help="folder of pictures to learn from")
    parser.add_argument(
        "--photos", type=Path, action="append", default=[], help="folder of photographs, half for tests"
    )
    parser.add_argument("--report", action="store_true", help="train nothing")
    Budget.add_arguments(parser, steps=3400)
    args = parser.parse_args()
    prepare(args)
    photos, folder = [p for f in args.photos for p in files([f])], settings.WORK / FAMILIAR
    if not args.report:
        if not args.unlike and not photos:
            raise SystemExit("no pictures to tell toybox's from: give folders of them, --unlike FOLDER --photos FOLDER")
        folder.mkdir(parents=True, exist_ok=True)
        paths = [*files(args.unlike), *photos[::2]]
        familiar = kept(folder / "familiar_pictures.safetensors", familiar_pictures)
        unlike = kept(folder / "unlike_pictures.safetensors", lambda: Unlike(paths).draw(OTHERS))
        back = torch.arange(len(familiar)) % HELD_BACK == 0
        write(folder / "model", train(Budget.of(args), familiar[~back], unlike), familiar[back])
    made = folder / "model"
    report(Familiar.load(made if made.exists() else settings.PACKAGE / FAMILIAR), photos)


if __name__ == "__main__":
    main()
