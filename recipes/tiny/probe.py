"""Finds where tiny loses what an image shows: the oracle reads held-out truths as they are, and after each part.

    python -m recipes.tiny.probe autoencoder                             # this recipe's latest, 16 truths an operator
    python -m recipes.tiny.probe autoencoder --vae src/pops/models/tiny/renderer/vae
    python -m recipes.tiny.probe renderer --guidance 2 3 4
    python -m recipes.tiny.probe noise --begin 250 500 750

`noise`: the renderer begins with the truth's own latents, noised to a timestep of 1000, which shows at which noise it
loses what they contain. The parts are loaded from their training's checkpoints, so that a stage can be measured before
it is published. The last line of each way gives PSNR and SSIM over all truths.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pops.measure.operators import ASKED, answer_of
from pops.toybox.oracle import HEADS, WEIGHTS, Oracle
from pops.toybox.pairs import OPERATORS, draw_triplet, triplet
from recipes.tiny import data, settings
from recipes.tiny.autoencoder import psnr, ssim
from recipes.tiny.diffusion import newest, sample, trained
from recipes.tiny.encode import embed, latents, towers, vae


def truths(operator: str, count: int) -> tuple[Tensor, list[dict[str, str]]]:
    """Returns true results of held-out triplets, uint8 [count, 3, CANVAS, CANVAS], drawn once and stored, and answers.

    Seeds count from 0.
    """
    path = settings.WORK / f"probe-{operator}-{settings.CANVAS}.safetensors"
    specs = [triplet(operator, seed, "test") for seed in range(count)]
    images = load_file(path)["images"] if path.exists() else torch.zeros(0, 3, settings.CANVAS, settings.CANVAS)
    if len(images) < count:
        images = torch.stack([draw_triplet(t, settings.CANVAS)[1] for t in specs])
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"images": images}, path)
    return images[:count], [answer_of(t.result) for t in specs]


@torch.no_grad()
def read(oracle: Oracle, images: Tensor, answers: list[dict[str, str]], operator: str) -> str:
    """Returns the percentages of images in which each attribute, and all of them, are read right.

    The oracle reads SIZE pixels, as in `pops bench toybox`.
    """
    logits = [oracle(b.float() / 255) for b in data.shrink(images).split(64)]
    said = {k: torch.cat([row[k] for row in logits]).argmax(1).tolist() for k in HEADS}
    right = torch.tensor(
        [[(*HEADS[k], "")[said[k][i]] == a[k] for k in ASKED[operator]] for i, a in enumerate(answers)]
    ).float()
    each = ", ".join(f"{k} {100 * v:.1f}" for k, v in zip(ASKED[operator], right.mean(0).tolist(), strict=True))
    return f"{each}, all {100 * float(right.prod(1).mean()):.1f}"


def autoencoded(folder: Path | None) -> Callable[[Tensor], Tensor]:
    model = vae(folder)

    @torch.no_grad()
    def run(images: Tensor) -> Tensor:
        x = data.to_unit(images).split(16)
        return torch.cat([data.to_bytes(model.decode(model.encode(b).latents).sample) for b in x])

    return run


@torch.no_grad()
def rendered(guidance: float, steps: int, begin: int | None = None) -> Callable[[Tensor], Tensor]:
    """Returns a function that renders images again from their own embeddings, by the renderer as far as it is trained.

    begin: starts from their own latents noised to this timestep; None: from noise.
    """
    eye, coder = towers(), vae()
    unet = trained()
    empty = load_file(newest() / "prompts.safetensors")["empty"].float()

    def run(images: Tensor) -> Tensor:
        rows = []
        for b in images.split(25):
            e = embed(eye, b)
            how: dict[str, Any] = {} if begin is None else {"clean": latents(coder, b).float(), "begin": begin}
            z = sample(unet, e, empty.expand(len(e), -1, -1), empty, guidance, steps, **how)
            rows.append(data.to_bytes(coder.decode(z).sample))
        return torch.cat(rows)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("autoencoder", "renderer", "noise"))
    parser.add_argument("--vae", nargs="+", type=Path, default=[None], help="autoencoder: folders to compare")
    parser.add_argument("--guidance", nargs="+", type=float, default=[3.0], help="renderer: the guidances to compare")
    parser.add_argument("--begin", nargs="+", type=int, default=[250, 500, 750, 1000], help="noise: the times")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--count", type=int, default=16, help="truths an operator")
    parser.add_argument("--operators", default=",".join(OPERATORS))
    parser.add_argument("--oracle", type=Path, default=WEIGHTS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    oracle = Oracle.load(args.oracle)
    ways: dict[str, Callable[[Tensor], Tensor]] = {"true pictures": lambda images: images}
    with torch.no_grad():
        if args.part == "autoencoder":
            ways |= {f"autoencoder {folder or ''}".strip(): autoencoded(folder) for folder in args.vae}
        elif args.part == "noise":
            ways |= {f"from {t}": rendered(args.guidance[0], args.steps, t) for t in args.begin}
        else:
            ways |= {f"guidance {g:g}": rendered(g, args.steps) for g in args.guidance}
        asked = {operator: truths(operator, args.count) for operator in args.operators.split(",")}
        for name, way in ways.items():
            shown = {operator: way(images) for operator, (images, _) in asked.items()}
            for operator, (_, answers) in asked.items():
                print(f"{operator}, {name}: {read(oracle, shown[operator], answers, operator)}", flush=True)
            a, b = (data.to_unit(torch.cat(v)) for v in (list(shown.values()), [i for i, _ in asked.values()]))
            print(f"{name}: {len(a)} pictures, PSNR {psnr(a, b):.2f} dB, SSIM {ssim(a, b):.4f}", flush=True)


if __name__ == "__main__":
    main()
