"""Stage 2b: the latent autoencoder, diffusers' AutoencoderTiny: no full-resolution layers but the outermost, no norms.

    python -m recipes.tiny.autoencoder --steps 6000

Three of the latent channels are held to the average-pooled picture (plain autoencoders of this size are slow to find
the red-green axis, docs/log.md), and every channel to mean 0 and variance 1, so that the latents need no scaling.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from recipes.tiny import data, settings
from recipes.tiny.loop import Stage

WIDTH = 64
CHANNELS = torch.channels_last
CONFIG = {
    "latent_channels": settings.LATENT,
    "encoder_block_out_channels": (WIDTH,) * 4,
    "decoder_block_out_channels": (WIDTH,) * 4,
    "num_encoder_blocks": (0, 0, 2, 3),
    "num_decoder_blocks": (3, 3, 1, 0),
}
COLOUR = 2.0  # latent units of the three colour channels for one unit of the picture (-1..1)


def build() -> AutoencoderTiny:
    torch.manual_seed(0)
    return AutoencoderTiny(**CONFIG).to(memory_format=torch.channels_last)  # type: ignore[no-any-return]


def widened(old: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a narrower run in the shapes of this one: channels that it did not have keep their random start."""
    out = {}
    for key, value in new.items():
        out[key] = value.clone()
        corner = tuple(slice(0, min(n, m)) for n, m in zip(old[key].shape, value.shape, strict=True))
        out[key][corner] = old[key][corner]
    return out


def gradient_loss(a: Tensor, b: Tensor) -> Tensor:
    """L1 of the finite differences along both axes."""
    dx = (a[..., 1:] - a[..., :-1]) - (b[..., 1:] - b[..., :-1])
    dy = (a[..., 1:, :] - a[..., :-1, :]) - (b[..., 1:, :] - b[..., :-1, :])
    return dx.abs().mean() + dy.abs().mean()


def ssim_loss(a: Tensor, b: Tensor) -> Tensor:
    """1 - SSIM (Wang 2004) over 7 x 7 windows, for pictures in -1..1."""

    def blur(v: Tensor) -> Tensor:
        return F.avg_pool2d(v, 7, 2)

    ma, mb = blur(a), blur(b)
    va, vb, vab = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
    c1, c2 = 0.02**2, 0.06**2
    return 1 - ((2 * ma * mb + c1) * (2 * vab + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))).mean()


def losses(model: AutoencoderTiny, x: Tensor, gen: torch.Generator, bf16: bool) -> tuple[Tensor, dict[str, float]]:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        z = model.encode(x).latents
        y = model.decode(z + 0.05 * torch.randn(z.shape, generator=gen)).sample
    z, y = z.float(), y.float()
    pooled = F.avg_pool2d(x, 8)
    colour = F.mse_loss(z[:, :3], COLOUR * pooled)
    moments = z[:, 3:].mean((0, 2, 3)).square().mean() + (z[:, 3:].std((0, 2, 3)) - 1).square().mean()
    l1 = (y - x).abs().mean()
    coarse = (F.avg_pool2d(y, 8) - pooled).abs().mean()
    s = ssim_loss(y, x)
    loss = l1 + 0.5 * gradient_loss(y, x) + 0.15 * s + 0.5 * coarse + 0.2 * colour + 0.05 * moments
    mse = float((y - x).square().mean().detach()) / 4
    return loss, {
        "l1": float(l1.detach()),
        "ssim": 1 - float(s.detach()),
        "psnr": -10 * torch.tensor(mse).log10().item(),
        "colour": float(colour.detach()),
        "moments": float(moments.detach()),
    }


@torch.no_grad()
def grid(model: AutoencoderTiny, x: Tensor, path: Path) -> None:
    """Pictures above their reconstructions."""
    y = model.decode(model.encode(x).latents).sample
    both = torch.cat([torch.cat(list(x), 2), torch.cat(list(y.float()), 2)], 1)
    Image.fromarray(((both.clamp(-1, 1) + 1) * 127.5).to(torch.uint8).permute(1, 2, 0).numpy()).save(path)


def texture_loss(a: Tensor, b: Tensor) -> Tensor:
    """L1 of the local strength of fine detail, at two scales: a pattern that is there, if not to the pixel, is better
    than its average.
    """
    total = torch.zeros(())
    for _ in range(2):
        fine = [(v - F.avg_pool2d(v, 3, 1, 1)).square() for v in (a, b)]
        strength = [(F.avg_pool2d(f, 8, 4) + 1e-4).sqrt() for f in fine]
        total = total + (strength[0] - strength[1]).abs().mean()
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return total


def decoder_losses(
    model: AutoencoderTiny, eye: nn.Module, x: Tensor, z: Tensor, e: Tensor, gen: torch.Generator, noise: float
) -> tuple[Tensor, dict[str, float]]:
    """As `losses`, for a decoder alone: latents come from the finished encoder, with up to `noise` on them.

    eye: the image tower, which should see in the picture what it sees in the true one (embeddings e [B, DIM]).
    """
    amount = noise * torch.rand(len(z), 1, 1, 1, generator=gen)
    with torch.autocast("cpu", torch.bfloat16):
        y = model.decode((z + amount * torch.randn(z.shape, generator=gen)).contiguous(memory_format=CHANNELS)).sample
        seen = eye(pixel_values=y).image_embeds
    y = y.float()
    l1, s, t = (y - x).abs().mean(), ssim_loss(y, x), texture_loss(y, x)
    look = 1 - F.cosine_similarity(seen.float(), e).mean()
    coarse = (F.avg_pool2d(y, 8) - F.avg_pool2d(x, 8)).abs().mean()
    loss = l1 + 0.5 * gradient_loss(y, x) + 0.2 * s + 0.5 * coarse + 0.5 * t + 0.15 * look
    mse = float((y - x).square().mean().detach()) / 4
    return loss, {
        "l1": float(l1.detach()),
        "ssim": 1 - float(s.detach()),
        "psnr": -10 * torch.tensor(mse).log10().item(),
        "texture": float(t.detach()),
        "look": float(look.detach()),
    }


def train_decoder(args: argparse.Namespace) -> None:
    """Goes on with the decoder alone, on the latents that `encode` wrote: what was trained on them stays valid."""
    from recipes.tiny.encode import towers

    pictures = data.load(guides=False)
    model = build()
    start = args.start or settings.WORK / "autoencoder" / "checkpoint.pt"
    model.load_state_dict(torch.load(start, weights_only=True)["average"])
    model.encoder.requires_grad_(False)
    z = load_file(settings.WORK / "latents.safetensors")["latents"]
    e = load_file(settings.WORK / "embeds.safetensors")["embeds"]
    eye = towers().vision.requires_grad_(False)
    groups = [{"params": list(model.decoder.parameters())}]
    stage = Stage("decoder", model, args.steps, args.lr, ema=0.99, weight_decay=0.0, groups=groups, decay=0.8)
    sample = data.to_unit(pictures.images[torch.arange(14) * 37 % len(pictures)])

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        gen = stage.generator()
        rows = torch.randint(len(pictures), (args.batch,), generator=gen)
        x = data.to_unit(pictures.images[rows]).contiguous(memory_format=CHANNELS)
        return decoder_losses(model, eye, x, z[rows].float(), e[rows].float(), gen, args.noise)

    stage.run(step_loss, lambda: grid(model, sample, stage.folder / "grid.png"), picture_every=250)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--start", type=Path, default=None, help="weights to begin with, of an earlier run")
    parser.add_argument("--decoder", action="store_true", help="after `encode`: go on with the decoder alone")
    parser.add_argument("--noise", type=float, default=0.3, help="with --decoder: the largest noise on the latents")
    parser.add_argument("--fp32", action="store_true")
    parser.add_argument("--decay", type=float, default=0.4, help="share of the steps over which the rate falls")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.decoder:
        train_decoder(args)
        return
    pictures = data.load()
    model = build()
    if args.start is not None:
        model.load_state_dict(widened(torch.load(args.start, weights_only=True), model.state_dict()))
    print(sum(p.numel() for p in model.parameters()) / 1e6, "M parameters", flush=True)
    stage = Stage("autoencoder", model, args.steps, args.lr, ema=0.995, weight_decay=0.0, decay=args.decay)
    sample = data.to_unit(pictures.images[torch.arange(14) * 37 % len(pictures)])

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        gen = stage.generator()
        rows = torch.randint(len(pictures), (args.batch,), generator=gen)
        x = data.to_unit(pictures.images[rows]).contiguous(memory_format=torch.channels_last)
        return losses(model, x, gen, not args.fp32)

    stage.run(step_loss, lambda: grid(model, sample, stage.folder / "grid.png"), picture_every=250)


if __name__ == "__main__":
    main()
