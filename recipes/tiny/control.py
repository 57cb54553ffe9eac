"""Stage 4b: trains a depth ControlNet for the finished renderer.

    python -m recipes.tiny.poses --seeds 2000
    python -m recipes.tiny.control --steps 1400 --batch 20
    python -m recipes.tiny.control --minutes 15 --begin src/pops/models/tiny/renderer/controlnets/depth  # goes on

The renderer is frozen. A sample is an image of one pose, its depth (exact, or as estimated), and the embedding of the
same objects in another random pose: so the network learns to take appearance from the embedding and place from the
depth. It has no cross-attention; the layers that it shares with the renderer's encoder start from those.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForDepthEstimation

from recipes.tiny import data, encode, poses, settings
from recipes.tiny.diffusion import SCHEDULER, SIDE, UNET, newest, trained
from recipes.tiny.loop import Budget, Stage, half, prepare

CONTROL = {
    **{key: UNET[key] for key in ("in_channels", "block_out_channels", "layers_per_block", "norm_num_groups")},
    "attention_head_dim": 4,
    "cross_attention_dim": UNET["cross_attention_dim"],
    "conditioning_channels": 3,
    "conditioning_embedding_out_channels": (16, 32, 64, 96),
    "down_block_types": ("DownBlock2D",) * len(UNET["block_out_channels"]),
    "mid_block_type": "UNetMidBlock2D",
}
NO_TEXT = torch.zeros(1, 1, settings.DIM)  # the unused text input of a network without cross-attention


def build_control(unet: UNet2DConditionModel | None = None) -> ControlNetModel:
    """Builds the ControlNet, with the renderer's weights where it has the same layers (arXiv 2302.05543, 3.2)."""
    torch.manual_seed(0)
    net = ControlNetModel(**CONTROL)
    if unet is not None:
        state, of_unet = net.state_dict(), unet.state_dict()
        same = {k: of_unet[k] for k, v in state.items() if k in of_unet and of_unet[k].shape == v.shape}
        net.load_state_dict({**state, **same})
    return net.to(memory_format=torch.channels_last)


def renderer() -> UNet2DConditionModel:
    """Loads the finished renderer's UNet, frozen."""
    return trained().requires_grad_(False)


def supply(device: torch.device) -> dict[str, Tensor]:
    """Returns latents, embeddings and hints of all poses, encoded once and stored."""
    path = settings.WORK / "poses.safetensors"
    rows = poses.load()
    if not path.exists() or len(load_file(path)["latents"]) != len(rows["images"]):
        made = {
            "latents": encode.latents(encode.vae().to(device), rows["images"]),
            "embeds": encode.embed(encode.towers().to(device), rows["images"]).half(),
            "read": read_hints(rows["images"], device),
        }
        save_file(made, path)
    return {**load_file(path), "exact": rows["hints"]}


@torch.no_grad()
def read_hints(images: Tensor, device: torch.device) -> Tensor:
    """Estimates nearness from images with the finished estimator: uint8 [N, S, S], like the exact ones."""
    here = settings.WORK / "depth_estimator"
    folder = here if here.exists() else settings.PACKAGE / "depth_estimator"
    net = AutoModelForDepthEstimation.from_pretrained(folder, dtype=torch.float32).eval().to(device)
    out = []
    for batch in images.split(32):
        depth = net(data.to_unit(data.shrink(batch).to(device))).predicted_depth[:, None]
        near = F.interpolate(1 / depth.clamp_min(1e-3), images.shape[-2:], mode="bilinear")[:, 0]
        low, high = near.amin((1, 2), keepdim=True), near.amax((1, 2), keepdim=True)
        out.append(((near - low) / (high - low) * 255).round().to(torch.uint8).cpu())
    return torch.cat(out)


def hint(rows: Tensor) -> Tensor:
    """Converts hints uint8 [B, S, S] => [B, 3, S, S] in 0..1."""
    return (rows.float() / 255)[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    Budget.add_arguments(parser, 1400)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--begin", type=Path, default=None, help="a folder of a ControlNet to go on from")
    args = parser.parse_args()
    device = prepare(args)
    rows = {k: v.to(device) for k, v in supply(device).items()}
    empty = load_file(newest() / "prompts.safetensors")["empty"].float().to(device)
    unet = renderer().to(device)
    net = build_control(unet).to(device)
    if args.begin is not None:
        net.load_state_dict(ControlNetModel.from_pretrained(args.begin).float().state_dict())
    print(sum(p.numel() for p in net.parameters()) / 1e6, "M parameters", flush=True)
    stage = Stage("control", net, Budget.of(args), args.lr, ema=0.995, weight_decay=0.0)
    abar = DDIMScheduler(**SCHEDULER).alphas_cumprod.to(device)
    no_text, at = NO_TEXT.to(device), {"device": device}
    seeds = len(rows["latents"]) // poses.POSES

    def step_loss(step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        gen, n = stage.generator(), args.batch
        seed = torch.randint(seeds, (n,), generator=gen, **at) * poses.POSES
        shown, seen = (seed + torch.randint(poses.POSES, (n,), generator=gen, **at) for _ in range(2))
        z, e = rows["latents"][shown].float(), rows["embeds"][seen].float()
        e[: n // 10] = 0  # for guidance's unconditional branch
        exact = torch.rand(n, 1, 1, generator=gen, **at) < 0.5
        hints = torch.where(exact, rows["exact"][shown], rows["read"][shown])
        t = torch.randint(1000, (n,), generator=gen, **at)
        a = abar[t].view(-1, 1, 1, 1)
        eps = torch.randn(z.shape, generator=gen, **at)
        noisy = (a.sqrt() * z + (1 - a).sqrt() * eps).contiguous(memory_format=torch.channels_last)
        want = a.sqrt() * eps - (1 - a).sqrt() * z
        with half(device):
            down, mid = net(noisy, t, no_text.expand(n, -1, -1), hint(hints), return_dict=False)
            got = unet(
                noisy,
                t,
                empty.expand(n, -1, -1),
                added_cond_kwargs={"image_embeds": [e[:, None]]},
                down_block_additional_residuals=down,
                mid_block_additional_residual=mid,
            ).sample
        loss = (got.float() - want).square().mean()
        return loss, {}

    stage.run(step_loss, lambda: grid(stage, unet, empty, rows), picture_every=500)


@torch.no_grad()
def grid(stage: Stage, unet: UNet2DConditionModel, empty: Tensor, rows: dict[str, Tensor], columns: int = 12) -> None:
    """Draws two rows: images from embeddings of one pose with the depth of another, and that depth."""
    vae = encode.vae().to(stage.device)
    mirror = build_control().to(stage.device)
    mirror.load_state_dict(stage.average.values)
    at = torch.arange(columns) * poses.POSES % (len(rows["embeds"]) - 1)
    e, hints = rows["embeds"][at].float(), hint(rows["read"][at + 1])
    scheduler = DDIMScheduler(**SCHEDULER)
    scheduler.set_timesteps(12)
    z = torch.randn(columns, settings.LATENT, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(e)
    no_text, both_e = NO_TEXT.to(e).expand(2 * columns, -1, -1), torch.cat([torch.zeros_like(e), e])
    for t in scheduler.timesteps:
        both = torch.cat([z, z])
        down, mid = mirror(both, t, no_text, hints.repeat(2, 1, 1, 1), return_dict=False)
        v = unet(
            both,
            t,
            empty.expand(2 * columns, -1, -1),
            added_cond_kwargs={"image_embeds": [both_e[:, None]]},
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample
        uncond, cond = v.chunk(2)
        z = scheduler.step(uncond + 2 * (cond - uncond), t, z).prev_sample
    data.sheet([vae.decode(z).sample, 2 * hints - 1], stage.folder / "grid.png")


if __name__ == "__main__":
    main()
