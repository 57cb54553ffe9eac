"""Trains the oracle, a convolutional classifier of object, material, scene and adjective in an image.

    python -m recipes.tiny.oracle --steps 3000

Trained on toybox's images only, never on tiny's, it shares nothing with tiny's towers. It reads the rendered images in
`pops bench toybox`; its own score on held-out test images is the ceiling there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from pops.toybox.oracle import HEADS, Oracle
from recipes.tiny import data, settings
from recipes.tiny.loop import Budget, Stage, compiled, half, prepare


def augment(images: Tensor, gen: torch.Generator) -> Tensor:
    """Applies small shifts, blur, contrast and noise, since a renderer's images are softer than toybox's."""
    x = images.float() / 255
    n, at = len(x), {"generator": gen, "device": x.device}
    host = torch.Generator().manual_seed(gen.initial_seed() + 1)  # what is the same for a batch, without waiting
    dy, dx = (int(v) for v in torch.randint(-4, 5, (2,), generator=host))
    x = torch.roll(x, (dy, dx), (2, 3))
    if float(torch.rand((), generator=host)) < 0.5:
        scale = 0.35 + 0.65 * float(torch.rand((), generator=host))
        x = F.interpolate(F.interpolate(x, scale_factor=scale, mode="area"), size=images.shape[-1], mode="bilinear")
    gain = 0.85 + 0.3 * torch.rand(n, 1, 1, 1, **at)
    x = (x - 0.5) * gain + 0.5 + 0.03 * torch.randn(n, 3, 1, 1, **at)
    return (x + 0.04 * torch.randn(x.shape, **at)).clamp(0, 1)


def weight_of_none(labels: Tensor) -> float:
    """Returns the loss weight by which "none" counts as much as an average name.

    Most images have no adjective and many no named material, so a soft image would be read as "none" too often.
    """
    none = float((labels < 0).float().mean())
    named = labels[labels >= 0]
    return min(1.0, (1 - none) / len(named.unique()) / none) if none and len(named) else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    Budget.add_arguments(parser, 3000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--start", type=Path, default=None, help="a checkpoint to begin with, of an earlier run")
    args = parser.parse_args()
    device = prepare(args)
    pictures = data.load(shrunk=True)
    torch.manual_seed(0)
    oracle = Oracle()
    if args.start is not None:
        fits = torch.load(args.start, weights_only=True, map_location="cpu")["average"]
        own = oracle.state_dict()
        oracle.load_state_dict({k: fits[k] if k in fits and fits[k].shape == v.shape else v for k, v in own.items()})
    oracle = oracle.to(device, memory_format=torch.channels_last)
    print(sum(p.numel() for p in oracle.parameters()) / 1e6, "M parameters", flush=True)
    stage = Stage("oracle", oracle, Budget.of(args), args.lr, ema=0.99, weight_decay=0.05)
    weights = [weight_of_none(pictures.labels[:, k]) for k in range(len(HEADS))]
    means = [float(torch.where(pictures.labels[:, k] < 0, w, 1.0).mean()) for k, w in enumerate(weights)]

    images, labels, fast = pictures.images.to(device), pictures.labels.to(device), compiled(oracle, device)

    def step_loss(step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        gen = stage.generator()
        rows = torch.randint(len(pictures), (args.batch,), generator=gen, device=device)
        x = augment(images[rows], gen).contiguous(memory_format=torch.channels_last)
        with half(device):
            answers = fast(x)
        loss, figures = x.new_zeros(()), {}
        for k, (name, names) in enumerate(HEADS.items()):
            label = labels[rows, k]
            target = torch.where(label < 0, torch.full_like(label, len(names)), label)
            logits = answers[name].float()
            each = F.cross_entropy(logits, target, label_smoothing=0.05, reduction="none")
            weight = torch.where(label < 0, weights[k], 1.0)
            loss = loss + (each * weight).mean() / means[k]
            known = label >= 0
            figures[name] = ((logits.argmax(1) == target) & known).sum() / known.sum().clamp_min(1)
        return loss, figures

    stage.run(step_loss)
    state = {k: v.half() if v.is_floating_point() else v for k, v in stage.average.values.items()}
    save_file({k: v.cpu().contiguous() for k, v in state.items()}, settings.WORK / "oracle.safetensors")


if __name__ == "__main__":
    main()
