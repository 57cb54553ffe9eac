"""Stage 2b: the latent autoencoder, diffusers' AutoencoderTiny, on crops of CANVAS-pixel pictures.

    python -m recipes.tiny.render
    python -m recipes.tiny.autoencoder --minutes 110           # both halves, by pixels
    python -m recipes.tiny.autoencoder --sharpen --minutes 40  # then the decoder alone, against a discriminator

It has no norms and no layers at full size but the outermost, so that crops teach it as well as whole pictures and
several times as many. Three of the latent channels are held to the average-pooled picture (plain autoencoders of this
size are slow to find the red-green axis, docs/log.md), and every channel to mean 0 and variance 1, so that the latents
need no scaling.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pops.toybox.draw import draw
from pops.toybox.pairs import OPERATORS, triplet
from recipes.tiny import data, settings
from recipes.tiny.loop import Budget, Stage, compiled, half, prepare

WIDTH = 64
CROP = 64  # pixels of a training crop
CONFIG = {
    "latent_channels": settings.LATENT,
    "encoder_block_out_channels": (WIDTH,) * 4,
    "decoder_block_out_channels": (WIDTH,) * 4,
    "num_encoder_blocks": (0, 0, 6, 8),
    "num_decoder_blocks": (8, 6, 2, 0),
}
COLOUR = 2.0  # latent units of the three colour channels for one unit of the picture (-1..1)


def build() -> AutoencoderTiny:
    torch.manual_seed(0)
    return AutoencoderTiny(**CONFIG).to(memory_format=torch.channels_last)


@torch.no_grad()
def carry(old: AutoencoderTiny, new: AutoencoderTiny) -> None:
    """Gives `new` the weights of `old`, which has the same levels and at most as many blocks in each.

    Blocks that `old` lacks are made to add nothing at first: their input is never negative, so they pass it through.
    """
    for a, b in ((old.encoder.layers, new.encoder.layers), (old.decoder.layers, new.decoder.layers)):
        ours, theirs = iter(b), iter([*a, nn.Identity()])
        source = next(theirs)
        for layer in ours:
            if isinstance(layer, AutoencoderTinyBlock) and not isinstance(source, AutoencoderTinyBlock):
                nn.init.zeros_(layer.conv[-1].weight)
                nn.init.zeros_(layer.conv[-1].bias)
                continue
            layer.load_state_dict(source.state_dict())
            source = next(theirs)


def gradient_loss(a: Tensor, b: Tensor) -> Tensor:
    """L1 of the finite differences along both axes."""
    dx = (a[..., 1:] - a[..., :-1]) - (b[..., 1:] - b[..., :-1])
    dy = (a[..., 1:, :] - a[..., :-1, :]) - (b[..., 1:, :] - b[..., :-1, :])
    return dx.abs().mean() + dy.abs().mean()


def ssim(a: Tensor, b: Tensor, stride: int = 1) -> Tensor:
    """Mean SSIM (Wang et al. 2004) with their Gaussian window, 11 x 11 and sigma 1.5, for pictures in -1..1."""
    line = torch.exp(-((torch.arange(11, dtype=a.dtype, device=a.device) - 5) ** 2) / (2 * 1.5**2))
    line = line / line.sum()
    channels = a.shape[1]

    def blur(v: Tensor) -> Tensor:
        v = F.conv2d(v, line.view(1, 1, 1, 11).expand(channels, -1, -1, -1), groups=channels, stride=(1, stride))
        return F.conv2d(v, line.view(1, 1, 11, 1).expand(channels, -1, -1, -1), groups=channels, stride=(stride, 1))

    ma, mb = blur(a), blur(b)
    va, vb, vab = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
    c1, c2 = 0.02**2, 0.06**2
    return (((2 * ma * mb + c1) * (2 * vab + c2)) / ((ma * ma + mb * mb + c1) * (va + vb + c2))).mean()


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal to noise in dB, for pictures in -1..1."""
    return -10 * ((a - b).square().mean() / 4).clamp_min(1e-9).log10()


def crops(images: Tensor, count: int, gen: torch.Generator, crop: int = CROP) -> Tensor:
    """Random crops, half of them mirrored: uint8 [N, 3, S, S] => float32 [count, 3, crop, crop] in -1..1.

    The generator is on the images' device.
    """
    side = images.shape[-1] - crop
    at: dict[str, Any] = {"generator": gen, "device": images.device}
    rows = torch.randint(len(images), (count,), **at)
    corners = torch.randint(side + 1, (count, 2), **at)
    mirrored = torch.rand(count, **at) < 0.5
    line = torch.arange(crop, device=images.device)
    y, x = corners[:, :1] + line, corners[:, 1:] + line
    x = torch.where(mirrored[:, None], x.flip(1), x)
    cut = images[rows[:, None, None], :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
    return data.to_unit(cut).contiguous(memory_format=torch.channels_last)


def latent_noise(x: Tensor, gen: torch.Generator) -> Tensor:
    """Standard normal noise in the shape of the latents of x."""
    n, _, h, w = x.shape
    return torch.randn(n, settings.LATENT, h // 8, w // 8, generator=gen, device=x.device)


def losses(model: AutoencoderTiny, x: Tensor, noise: Tensor, bf16: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of both halves by pixels; what is logged beside it."""
    with half(x.device, bf16):
        z = model.encode(x).latents
        y = model.decode(z + 0.03 * noise.to(z.dtype)).sample
    z, y = z.float(), y.float()
    colour = F.mse_loss(z[:, :3], COLOUR * F.avg_pool2d(x, 8))
    moments = z[:, 3:].mean((0, 2, 3)).square().mean() + (z[:, 3:].std((0, 2, 3)) - 1).square().mean()
    l1, mse = (y - x).abs().mean(), (y - x).square().mean()
    alike = ssim(y, x, stride=2)
    loss = l1 + 0.5 * gradient_loss(y, x) + 4 * mse + 0.15 * (1 - alike) + 0.2 * colour + 0.05 * moments
    figures = {"l1": l1, "ssim": alike, "psnr": psnr(y.detach(), x), "colour": colour, "moments": moments}
    return loss, {k: v.detach() for k, v in figures.items()}


@torch.no_grad()
def held_out_truths(count: int = 16) -> Tensor:
    """True results of each operator's held-out triplets at CANVAS pixels, float32 in -1..1."""
    specs = [triplet(name, seed, "test") for seed in range(count) for name in OPERATORS]
    return data.to_unit(torch.stack([draw(t.result, settings.CANVAS) for t in specs]))


class Watch:
    """Held-out truths above what the averaged weights make of them, and the figures of that, as a stage goes on."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.x, self.model = stage, held_out_truths().to(stage.device), build().to(stage.device)

    @torch.no_grad()
    def __call__(self) -> None:
        state = {k.removeprefix("model."): v for k, v in self.stage.average.values.items() if "discriminator." not in k}
        self.model.load_state_dict(state)
        y = torch.cat([self.model.decode(self.model.encode(b).latents).sample for b in self.x.split(16)])
        row = f"step {self.stage.step}: held out {psnr(y.clamp(-1, 1), self.x):.2f} dB, SSIM {ssim(y, self.x):.4f}"
        print(self.stage.name, row, flush=True)
        with (self.stage.folder / "held_out.txt").open("a") as log:
            log.write(row + "\n")
        data.sheet([self.x[:10], y[:10]], self.stage.folder / "grid.png", scale=2)


class Discriminator(nn.Module):
    """Says for each 8-pixel patch whether it is of a true picture: hinge, spectral norm (arXiv 1802.05957)."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        torch.manual_seed(1)
        widths = [3, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [spectral_norm(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.2)]
        layers += [spectral_norm(nn.Conv2d(widths[-1], 1, 3, 1, 1))]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Sharpening(nn.Module):
    """What the second part trains together: the decoder, and the discriminator that it is to please."""

    def __init__(self, model: AutoencoderTiny) -> None:
        super().__init__()
        self.model, self.discriminator = model, Discriminator()


def hinge(discriminator: nn.Module, true: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what `made` has to lower, which leaves the discriminator alone, and what the discriminator has to."""
    discriminator.requires_grad_(False)
    pleased = -discriminator(made).float().mean()
    discriminator.requires_grad_(True)
    told = F.relu(1 - discriminator(true).float()).mean() + F.relu(1 + discriminator(made.detach()).float()).mean()
    return pleased, told


def sharpening_losses(
    nets: Sharpening, x: Tensor, amount: Tensor, noise: Tensor, adversarial: float, bf16: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the decoder and the discriminator in one: each one's term leaves the other's weights alone."""
    with half(x.device, bf16):
        with torch.no_grad():
            z = nets.model.encode(x).latents
        y = nets.model.decode(z + (amount * noise).to(z.dtype)).sample
        pleased, told = hinge(nets.discriminator, x, y)
    y = y.float()
    l1, mse, alike = (y - x).abs().mean(), (y - x).square().mean(), ssim(y, x, stride=2)
    coarse = (F.avg_pool2d(y, 4) - F.avg_pool2d(x, 4)).abs().mean()
    pixels = 0.5 * l1 + 0.25 * gradient_loss(y, x) + mse + 0.15 * (1 - alike) + coarse
    loss = pixels + adversarial * pleased + told
    return loss, {"l1": l1.detach(), "psnr": psnr(y.detach(), x), "told": told.detach()}


class Supply:
    """Crops of the training pictures; with --follow, of those too that are rendered meanwhile."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        self.pictures = data.Growing(settings.CANVAS, device)
        self.batch, self.every = args.batch, 20.0 if args.follow else float("inf")
        self.last = time.time()

    def __call__(self, gen: torch.Generator) -> Tensor:
        if time.time() - self.last > self.every:
            self.pictures.grow()
            self.last = time.time()
        return crops(self.pictures.images, self.batch, gen)


def train_pixels(args: argparse.Namespace) -> None:
    """Both halves, from the shipped weights unless there is a checkpoint."""
    device, model = prepare(args), build()
    carry(AutoencoderTiny.from_pretrained(args.start), model)
    model.to(device)
    stage = Stage("autoencoder", model, Budget.of(args), args.lr, ema=0.995, weight_decay=0.0, decay=0.5)
    supply, fast = Supply(args, device), compiled(losses, device)

    def step_loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        gen = stage.generator()
        x = supply(gen)
        return fast(model, x, latent_noise(x, gen), not args.fp32)

    stage.run(step_loss, Watch(stage), log_every=100, picture_every=args.look)


def train_sharp(args: argparse.Namespace) -> None:
    """Goes on with the decoder alone: what was trained on the encoder's latents stays valid.

    Latents bear noise of up to 0.15, as the renderer's do.
    """
    device, model = prepare(args), build()
    first = torch.load(settings.WORK / "autoencoder" / "checkpoint.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(first["average"])
    model.encoder.requires_grad_(False)
    nets = Sharpening(model).to(device)
    groups: list[dict[str, object]] = [
        {"params": list(nets.model.decoder.parameters()), "lr": args.lr / 4},
        {"params": list(nets.discriminator.parameters()), "lr": args.lr / 2},
    ]
    stage = Stage(
        "decoder", nets, Budget.of(args), args.lr, ema=0.998, weight_decay=0.0, groups=groups, betas=(0.5, 0.99)
    )
    supply = Supply(args, device)
    nets.model.decoder.forward = compiled(nets.model.decoder.forward, device)

    def step_loss(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        gen = stage.generator()
        x = supply(gen)
        amount = 0.15 * torch.rand(len(x), 1, 1, 1, generator=gen, device=device)
        return sharpening_losses(nets, x, amount, latent_noise(x, gen), args.adversarial, not args.fp32)

    stage.run(step_loss, Watch(stage), log_every=100, picture_every=args.look)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    Budget.add_arguments(parser, 20000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--follow", action="store_true", help="take in pictures as they are rendered")
    parser.add_argument("--look", type=int, default=1000, help="steps from one look at held-out pictures to the next")
    parser.add_argument("--start", type=Path, default=settings.PACKAGE / "renderer" / "vae", help="a folder of weights")
    parser.add_argument("--sharpen", action="store_true", help="go on with the decoder alone")
    parser.add_argument("--adversarial", type=float, default=0.05, help="with --sharpen: weight of that term")
    parser.add_argument("--fp32", action="store_true")
    args = parser.parse_args()
    (train_sharp if args.sharpen else train_pixels)(args)


if __name__ == "__main__":
    main()
