"""Stage 4c: the upscaler, which makes LARGE pixels of the renderer's CANVAS.

    python -m recipes.tiny.render --split train --families 60 --size 512 --samples 1
    python -m recipes.tiny.upscaler --minutes 60
    python -m recipes.tiny.upscaler --toward src/pops/models/tiny/renderer/upscaler --share 0.5

It learns on what the renderer gives, not on shrunken truths: round trips through the autoencoder
with noise on the latents, and, if there is a UNet, truths noised to a quarter and to a half of the way and denoised
again, and whole results: what the UNet draws for the truth's embedding alone, which shows the same things in other
places. Where an input is uncertain, the mean of what may be true is blur; so after a lead of pixels the loss is
adversarial, and pixels hold it only on a leash, mostly by the averages of 4 x 4. A whole result has no truth to be held
to: there the leash is the result's own averages of 8 x 8.

The last command trains nothing: it takes the result half of the way back to an older one, for where adversarial weights
leave specks. The result, `runs/tiny/upscaler/model`, is config.json (the arguments of Upscaler) and model.safetensors
(float16).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pops.diffusion.upscaler import Upscaler
from pops.errors import PopsError
from pops.toybox.draw import draw
from pops.toybox.pairs import OPERATORS, triplet
from recipes.tiny import data, settings
from recipes.tiny.autoencoder import Discriminator, hinge
from recipes.tiny.diffusion import sample, trained
from recipes.tiny.encode import embed, latents, text_states, tokenizer, towers, vae
from recipes.tiny.loop import Budget, Stage, compiled, half, prepare

SCALE = settings.LARGE // settings.CANVAS
CROP = 32  # pixels of a training crop of the input
AMOUNTS = (0.0, 0.1, 0.2)  # noise on the latents of the round trips
BEGINS = (250, 500)  # timesteps from which the UNet denoises truths again
GUIDANCE, STEPS = 3.0, 12  # of the UNet here, guided at all steps; the model ships with fewer, and more guidance
LEAD = 0.25  # by default, the share of the budget over which the adversarial term takes over from pixels
CONFIG = {"channels": 3, "width": 64, "blocks": 8, "scale": SCALE}


def write(model: Upscaler, folder: Path) -> None:
    """Writes config.json and model.safetensors (float16)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"_class_name": "Upscaler", **CONFIG}, indent=2) + "\n")
    state = {k: v.detach().half().cpu().contiguous() for k, v in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def toward(folder: Path, other: Path, share: float) -> Upscaler:
    """Returns a folder's upscaler with its weights a share of the way to those of another folder."""
    model, theirs = Upscaler.load(folder), Upscaler.load(other)
    mixed = {k: torch.lerp(v, theirs.state_dict()[k], share) for k, v in model.state_dict().items()}
    model.load_state_dict(mixed)
    return model


class Renderer:
    """What the renderer makes of pictures: the shipped kinds of degradation, each one way to spoil a truth."""

    def __init__(self, folder: Path | None, device: torch.device) -> None:
        self.coder: AutoencoderTiny = vae(folder).to(device)
        self.unet: UNet2DConditionModel | None = None
        if (settings.WORK / "diffusion" / "checkpoint.pt").exists():
            self.unet, self.eye = trained().to(device), towers().to(device)
            short = {"padding": "max_length", "max_length": settings.PROMPT, "return_tensors": "pt"}
            self.empty = text_states(self.eye, tokenizer()([""], **short)["input_ids"])[1].float().to(device)
        nets = [self.coder] if self.unet is None else [self.coder, self.unet]
        digest = hashlib.sha256(repr((AMOUNTS, BEGINS, GUIDANCE, STEPS, self.ways)).encode())
        for net in nets:
            for value in net.state_dict().values():
                digest.update(f"{float(value.double().sum()):.9g} ".encode())
        self.name = digest.hexdigest()[:16]

    @property
    def ways(self) -> int:
        """How many inputs `spoil` makes of a truth; with a UNet the last is a whole result, unlike it in its places."""
        return self.aligned + (self.unet is not None)

    @property
    def aligned(self) -> int:
        """How many of the inputs, the first ones, show everything where the truth does."""
        return len(AMOUNTS) + (len(BEGINS) if self.unet is not None else 0)

    @torch.no_grad()
    def spoil(self, truths: Tensor) -> Tensor:
        """Truths uint8 [N, 3, LARGE, LARGE] => inputs uint8 [N, ways, 3, CANVAS, CANVAS] on the CPU."""
        device, rows = self.coder.device, []
        for part in truths.split(32):
            small = F.avg_pool2d(part.to(device).float(), SCALE).round().to(torch.uint8)
            z = latents(self.coder, small).float().to(device)
            gen = torch.Generator().manual_seed(int(small[0].sum()))
            made = [z + amount * torch.randn(z.shape, generator=gen).to(z) for amount in AMOUNTS]
            if self.unet is not None:
                e, nothing = embed(self.eye, small).to(device), self.empty.expand(len(z), -1, -1)
                made += [sample(self.unet, e, nothing, self.empty, GUIDANCE, STEPS, z, begin) for begin in BEGINS]
                made.append(sample(self.unet, e, nothing, self.empty, GUIDANCE, STEPS))
            rows.append(torch.stack([data.to_bytes(self.coder.decode(m).sample) for m in made], 1).cpu())
        return torch.cat(rows)


class Pairs:
    """Truths and inputs on a device; `grow` adds those of truths that were rendered meanwhile."""

    def __init__(self, renderer: Renderer, device: torch.device) -> None:
        self.renderer, self.device, self.count = renderer, device, 0
        self.truths = torch.zeros(0, 3, settings.LARGE, settings.LARGE, dtype=torch.uint8, device=device)
        self.inputs = torch.zeros(
            0, renderer.ways, 3, settings.CANVAS, settings.CANVAS, dtype=torch.uint8, device=device
        )
        self.grow()
        if not len(self.truths):
            folder = settings.data(settings.LARGE)
            raise SystemExit(
                f"no shards in {folder}: run `python -m recipes.tiny.render --size {settings.LARGE}` first"
            )

    def grow(self) -> None:
        paths = data.shards("train", settings.LARGE)
        for path in paths[self.count :]:
            truths = load_file(path)["images"]
            self.truths = torch.cat([self.truths, truths.to(self.device)])
            self.inputs = torch.cat([self.inputs, self.spoiled(path, truths).to(self.device)])
        self.count = len(paths)

    def spoiled(self, path: Path, truths: Tensor) -> Tensor:
        """Returns the inputs of a shard, stored beside it for the same autoencoder and UNet."""
        kept, by = path.with_name(f"inputs-{path.stem}.safetensors"), {"renderer": self.renderer.name}
        if kept.exists():
            with safe_open(kept, "pt") as file:
                if file.metadata() == by:
                    return load_file(kept)["inputs"]
        inputs = self.renderer.spoil(truths)
        save_file({"inputs": inputs}, kept, by)
        return inputs

    def crops(self, count: int, gen: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Random crops of inputs and the same places of truths, in 0..1, half of them mirrored; which are aligned."""
        at: dict[str, Any] = {"generator": gen, "device": self.device}
        rows = torch.randint(len(self.truths), (count,), **at)
        ways = torch.randint(self.inputs.shape[1], (count,), **at)
        corners = torch.randint(settings.CANVAS - CROP + 1, (count, 2), **at)
        mirrored = torch.rand(count, 1, **at) < 0.5

        def cut(scale: int, take: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
            line = torch.arange(CROP * scale, device=self.device)
            y, x = scale * corners[:, :1] + line, scale * corners[:, 1:] + line
            x = torch.where(mirrored, x.flip(1), x)
            values = take(y[:, :, None], x[:, None, :]).permute(0, 3, 1, 2).float() / 255
            return values.contiguous(memory_format=torch.channels_last)

        n = (slice(None), None, None)
        return (
            cut(1, lambda y, x: self.inputs[rows[n], ways[n], :, y, x]),
            softened(cut(SCALE, lambda y, x: self.truths[rows[n], :, y, x])),
            ways < self.renderer.aligned,
        )


def softened(truths: Tensor) -> Tensor:
    """Blurs by 1, 2, 1 both ways: truths of one sample a pixel have stairs for edges, which would be learnt."""
    line = torch.tensor([0.25, 0.5, 0.25], device=truths.device)
    kernel = (line[:, None] * line).expand(truths.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(truths, (1, 1, 1, 1), "reflect"), kernel, groups=truths.shape[1])


class Finishing(nn.Module):
    """What the stage trains together: the upscaler, and the discriminator that it is to please."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.upscaler, self.discriminator = Upscaler(**CONFIG), Discriminator()


def losses(
    nets: Finishing,
    enlarge: Callable[[Tensor], Tensor],
    small: Tensor,
    truth: Tensor,
    aligned: Tensor,
    adversarial: float,
    lead: float,
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """Loss of both networks in one: each one's term leaves the other's weights alone.

    aligned: bool [B], the crops whose input shows what the truth does, in the same places.
    lead: 1 for pixels alone, with which training has to begin, to 0.
    """
    with half(small.device):
        made = enlarge(small)
        # clamped, else ever larger values would please it ever more
        pleased, told = hinge(nets.discriminator, 2 * truth - 1, 2 * made.clamp(0, 1) - 1)
    made = made.float()

    def off(target: Tensor, pool: int, chosen: Tensor) -> Tensor:
        """Mean absolute difference of averages of pool x pool pixels; crops that are not chosen count as 0."""
        there = F.avg_pool2d(made, pool) - F.avg_pool2d(target, pool * target.shape[-1] // made.shape[-1])
        return (there.abs().mean((1, 2, 3)) * chosen).mean()

    l1, coarse, own = off(truth, 1, aligned), off(truth, SCALE, aligned), off(small, 2 * SCALE, ~aligned)
    pixels = (0.1 + 0.9 * lead) * l1 + 0.25 * coarse + 0.5 * own
    loss = adversarial * (1 - lead) * pleased + 2 * pixels + told  # pixels as in -1..1
    return loss, {"l1": l1.detach(), "coarse": coarse.detach(), "own": own.detach(), "told": told.detach()}


class Watch:
    """Held-out inputs, results and truths, one above the other, as the stage goes on; writes the model folder."""

    def __init__(self, stage: Stage, renderer: Renderer) -> None:
        self.stage = stage
        specs = [triplet(name, seed, "test").result for seed in range(2) for name in OPERATORS]
        truths = torch.stack([draw(s, settings.LARGE, 1) for s in specs])
        inputs = renderer.spoil(truths)
        turn = torch.arange(len(specs)) % renderer.ways  # every way of spoiling in turn
        self.aligned = (turn < renderer.aligned).to(stage.device)
        chosen = inputs[torch.arange(len(specs)), turn].float() / 255
        self.truths, self.inputs = truths.to(stage.device), chosen.to(stage.device)

    @torch.no_grad()
    def __call__(self) -> None:
        model = Upscaler(**CONFIG).to(self.stage.device)
        state = {k: v for k, v in self.stage.average.values.items() if k.startswith("upscaler.")}
        model.load_state_dict({k.removeprefix("upscaler."): v for k, v in state.items()})
        write(model, self.stage.folder / "model")
        large = F.interpolate(self.inputs, scale_factor=SCALE, mode="nearest")
        made, truths = model(self.inputs), data.to_unit(self.truths)
        error = (F.avg_pool2d(2 * made - 1, SCALE) - F.avg_pool2d(truths, SCALE))[self.aligned].abs().mean()
        sharp = gradient(made) / gradient(truths / 2 + 0.5)
        row = f"step {self.stage.step}: held out averages {error:.4f} off, gradients {sharp:.3f} of the truths'"
        print(self.stage.name, row, flush=True)
        with (self.stage.folder / "held_out.txt").open("a") as log:
            log.write(row + "\n")
        data.sheet([2 * large - 1, 2 * made - 1, truths], self.stage.folder / "grid.png")


def gradient(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels."""
    return x.diff(dim=-1).abs().mean() + x.diff(dim=-2).abs().mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Budget.add_arguments(parser, 20000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--adversarial", type=float, default=0.1)
    parser.add_argument("--lead", type=float, default=LEAD, help="share of the budget that pixels alone lead")
    parser.add_argument("--vae", type=Path, default=None, help="a folder of the autoencoder to use")
    parser.add_argument("--follow", action="store_true", help="take in pictures as they are rendered")
    parser.add_argument("--look", type=int, default=1000, help="steps from one look at held-out pictures to the next")
    parser.add_argument("--toward", type=Path, default=None, help="a folder to whose weights the result is taken")
    parser.add_argument("--share", type=float, default=0.5, help="of the way there")
    args = parser.parse_args()
    if args.toward is not None:
        made = settings.WORK / "upscaler" / "model"
        try:
            write(toward(made, args.toward, args.share), made)
        except PopsError as e:
            raise SystemExit(str(e)) from None
        return
    device = prepare(args)
    renderer = Renderer(args.vae, device)
    pairs, looked = Pairs(renderer, device), time.time()
    nets = Finishing().to(device, memory_format=torch.channels_last)
    print(
        sum(p.numel() for p in nets.upscaler.parameters()) / 1e6,
        "M parameters;",
        len(pairs.truths),
        "truths",
        flush=True,
    )
    groups: list[dict[str, object]] = [
        {"params": list(nets.upscaler.parameters()), "lr": args.lr},
        {"params": list(nets.discriminator.parameters()), "lr": 2 * args.lr},
    ]
    stage = Stage(
        "upscaler", nets, Budget.of(args), args.lr, ema=0.998, weight_decay=0.0, groups=groups, betas=(0.5, 0.99)
    )
    enlarge = compiled(nets.upscaler, device)

    def step_loss(step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        nonlocal looked
        if args.follow and time.time() - looked > 20:
            pairs.grow()
            looked = time.time()
        lead = max(0.0, 1 - stage.share / max(args.lead, 1e-9))
        return losses(nets, enlarge, *pairs.crops(args.batch, stage.generator()), args.adversarial, lead)

    stage.run(step_loss, Watch(stage, renderer), log_every=100, picture_every=args.look)


if __name__ == "__main__":
    main()
