"""Stage 2c: trains a depth estimator, transformers' GLPNForDepthEstimation, and toybox's silhouette reader.

    python -m recipes.tiny.depth --steps 2400

Both are trained only on the images of `poses`, whose exact answers are known: depth as nearness (inverse depth, 0..1 in
each image) for spatial control; the silhouette (share of a pixel that objects cover) for benchmarks that measure where
a rendered object stands. Images are blurred and noised at random, since renderers' images are softer.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import DPTImageProcessorPil, GLPNConfig, GLPNForDepthEstimation

from pops.toybox.silhouette import Silhouette
from recipes.tiny import data, poses, settings
from recipes.tiny.loop import Budget, Stage, half, prepare

CONFIG = {
    "num_encoder_blocks": 4,
    "depths": [1, 1, 2, 1],
    "sr_ratios": [8, 4, 2, 1],
    "hidden_sizes": [24, 48, 80, 112],
    "num_attention_heads": [1, 2, 4, 4],
    "mlp_ratios": [2, 2, 3, 3],
    "decoder_hidden_size": 32,
    "max_depth": 30,  # world units, as Shot.depth
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "initializer_range": 0.1,  # for such narrow layers; with transformers' 0.02 activations vanish
}
FAR, NEAR = 1 / 30, 1 / 3.0  # inverse depths of nearness 0 and 1 in training; users normalise each image


class Readers(nn.Module):
    """Both networks, trained together."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.depth = GLPNForDepthEstimation(GLPNConfig(**CONFIG))
        self.silhouette = Silhouette()


def near_of(net: GLPNForDepthEstimation, x: Tensor) -> Tensor:
    """Estimates nearness [B, 1, S, S] of images [B, 3, S, S] in 0..1. The network itself takes -1..1, returns depth."""
    depth = net(x * 2 - 1).predicted_depth.float()[:, None]
    return (1 / depth.clamp_min(0.5) - FAR) / (NEAR - FAR)


def processor() -> DPTImageProcessorPil:
    """Returns the depth network's preprocessing: resizes to SIZE and scales to -1..1, neither of which GLPN's does."""
    side = settings.SIZE
    return DPTImageProcessorPil(
        size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3, keep_aspect_ratio=False
    )


def spoiled(x: Tensor, gen: torch.Generator) -> Tensor:
    """Blurs and noises half of the images [B, 3, S, S] in 0..1, by a smaller size, as renderers' images are."""
    at = {"generator": gen, "device": x.device}
    share = 0.4 + 0.6 * float(torch.rand((), generator=torch.Generator().manual_seed(gen.initial_seed() + 1)))
    small = F.interpolate(x, scale_factor=share, mode="bilinear", antialias=True)
    soft = F.interpolate(small, x.shape[-2:], mode="bilinear")
    soft = (soft + 0.03 * torch.randn(x.shape, **at)).clamp(0, 1)
    return torch.where(torch.rand(len(x), 1, 1, 1, **at) < 0.5, soft, x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    Budget.add_arguments(parser, 2400)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--lr", type=float, default=2e-3)
    args = parser.parse_args()
    device = prepare(args)
    rows = shrunk(poses.load())
    nets = Readers().to(device)
    print({k: sum(p.numel() for p in m.parameters()) / 1e6 for k, m in nets.named_children()}, "M", flush=True)
    stage = Stage("depth", nets, Budget.of(args), args.lr, ema=0.995, weight_decay=0.01)

    here = {k: v.to(device) for k, v in rows.items()}

    def step_loss(step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        gen = stage.generator()
        at = torch.randint(len(here["images"]), (args.batch,), generator=gen, device=device)
        flip = torch.rand(args.batch, 1, 1, 1, generator=gen, device=device) < 0.5
        x = spoiled(here["images"][at].float() / 255, gen)
        near, mask = ((here[k][at].float() / 255)[:, None] for k in ("hints", "masks"))
        x, near, mask = (torch.where(flip, v.flip(3), v) for v in (x, near, mask))
        with half(device):
            read = near_of(nets.depth, x)
            logits = nets.silhouette(x)
        logits = logits.float()
        depth = (read - near).abs().mean() + 0.5 * slope(read - near)
        cover = F.binary_cross_entropy_with_logits(logits, mask)
        return depth + cover, {"depth": (read - near).abs().mean().detach(), "iou": iou(logits > 0, mask > 0.5)}

    stage.run(step_loss, lambda: finish(stage, rows), picture_every=500)


def shrunk(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Shrinks the poses' images, hints and masks to SIZE: both networks read what the image tower sees."""
    flat = {k: data.shrink(rows[k][:, None])[:, 0] for k in ("hints", "masks")}
    return {"images": data.shrink(rows["images"]), **flat}


def slope(error: Tensor) -> Tensor:
    """Returns the mean absolute gradient of the error along both axes, so that edges count."""
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Returns intersection over union, mean over images."""
    both, either = (a & b).sum((1, 2, 3)), (a | b).sum((1, 2, 3))
    return (both / either.clamp_min(1)).mean()


@torch.no_grad()
def finish(stage: Stage, rows: dict[str, Tensor]) -> None:
    """Writes both networks with their averaged weights, and a grid: images, estimated depth, silhouettes."""
    nets = Readers()
    nets.load_state_dict(stage.average.values)
    nets.eval().half().float()  # the precision in which they are stored
    folder = settings.WORK / "depth_estimator"
    nets.depth.half().save_pretrained(folder)
    nets.depth.float()
    processor().save_pretrained(folder)
    half = {k: v.half().contiguous() for k, v in nets.silhouette.state_dict().items()}
    save_file(half, settings.WORK / "silhouette.safetensors")
    x = rows["images"][torch.arange(14) * 37 % len(rows["images"])].float() / 255
    near = near_of(nets.depth, x).clamp(0, 1).expand(-1, 3, -1, -1)
    cover = nets.silhouette(x).sigmoid().expand(-1, 3, -1, -1)
    data.sheet([2 * v - 1 for v in (x, near, cover.expand(-1, 3, -1, -1))], stage.folder / "grid.png")


if __name__ == "__main__":
    main()
