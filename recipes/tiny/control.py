"""Stage 4b: trains a depth ControlNet for the finished renderer.

    python -m recipes.tiny.poses --seeds 2000
    python -m recipes.tiny.control --steps 1400 --batch 20

The renderer is frozen. A sample is an image of one pose, its depth (exact, or as estimated), and the embedding of the
same objects in another random pose: so the network learns to take appearance from the embedding and place from the
depth. It has no cross-attention; the layers that it shares with the renderer's encoder start from those.
"""

from __future__ import annotations

import argparse

import torch
from diffusers import AutoencoderTiny, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForDepthEstimation

from recipes.tiny import data, encode, poses, settings
from recipes.tiny.diffusion import SCHEDULER, SIDE, UNET, trained
from recipes.tiny.loop import Stage

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
    return net.to(memory_format=torch.channels_last)  # type: ignore[no-any-return]


def renderer() -> UNet2DConditionModel:
    """Loads the finished renderer's UNet, frozen."""
    return trained().requires_grad_(False)  # type: ignore[no-any-return]


def supply() -> dict[str, Tensor]:
    """Returns latents, embeddings and hints of all poses, encoded once and stored."""
    path = settings.WORK / "poses.safetensors"
    rows = poses.load()
    if not path.exists() or len(load_file(path)["latents"]) != len(rows["images"]):
        made = {
            "latents": encode.latents(encode.vae(), rows["images"]),
            "embeds": encode.embed(encode.towers(), rows["images"]).half(),
            "read": read_hints(rows["images"]),
        }
        save_file(made, path)
    return {**load_file(path), "exact": rows["hints"]}


@torch.no_grad()
def read_hints(images: Tensor) -> Tensor:
    """Estimates nearness from images with the finished estimator: uint8 [N, S, S], like the exact ones."""
    net = AutoModelForDepthEstimation.from_pretrained(settings.WORK / "depth_estimator", dtype=torch.float32).eval()
    out = []
    for batch in images.split(32):
        near = 1 / net(data.to_unit(batch)).predicted_depth.clamp_min(1e-3)
        low, high = near.amin((1, 2), keepdim=True), near.amax((1, 2), keepdim=True)
        out.append(((near - low) / (high - low) * 255).round().to(torch.uint8))
    return torch.cat(out)


def hint(rows: Tensor) -> Tensor:
    """Converts hints uint8 [B, S, S] => [B, 3, S, S] in 0..1."""
    return (rows.float() / 255)[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = supply()
    empty = load_file(settings.WORK / "prompts.safetensors")["empty"].float()
    unet = renderer()
    net = build_control(unet)
    print(sum(p.numel() for p in net.parameters()) / 1e6, "M parameters", flush=True)
    stage = Stage("control", net, args.steps, args.lr, ema=0.995, weight_decay=0.0)
    abar = DDIMScheduler(**SCHEDULER).alphas_cumprod
    seeds = len(rows["latents"]) // poses.POSES

    def step_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        gen = stage.generator()
        seed = torch.randint(seeds, (args.batch,), generator=gen) * poses.POSES
        shown, seen = (seed + torch.randint(poses.POSES, (args.batch,), generator=gen) for _ in range(2))
        z, e = rows["latents"][shown].float(), rows["embeds"][seen].float()
        e[: args.batch // 10] = 0  # for guidance's unconditional branch
        exact = torch.rand(args.batch, 1, 1, generator=gen) < 0.5
        hints = torch.where(exact, rows["exact"][shown], rows["read"][shown])
        t = torch.randint(1000, (args.batch,), generator=gen)
        a = abar[t].view(-1, 1, 1, 1)
        eps = torch.randn(z.shape, generator=gen)
        noisy = (a.sqrt() * z + (1 - a).sqrt() * eps).contiguous(memory_format=torch.channels_last)
        want = a.sqrt() * eps - (1 - a).sqrt() * z
        with torch.autocast("cpu", torch.bfloat16):
            down, mid = net(noisy, t, NO_TEXT.expand(len(z), -1, -1), hint(hints), return_dict=False)
            got = unet(
                noisy,
                t,
                empty.expand(len(z), -1, -1),
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
    vae = AutoencoderTiny.from_pretrained(settings.WORK / "vae")
    mirror = build_control()
    mirror.load_state_dict(stage.average.values)
    at = torch.arange(columns) * poses.POSES
    e, hints = rows["embeds"][at].float(), hint(rows["read"][at + 1])
    scheduler = DDIMScheduler(**SCHEDULER)
    scheduler.set_timesteps(12)
    z = torch.randn(columns, settings.LATENT, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        both = torch.cat([z, z])
        down, mid = mirror(both, t, NO_TEXT.expand(2 * columns, -1, -1), hints.repeat(2, 1, 1, 1), return_dict=False)
        v = unet(
            both,
            t,
            empty.expand(2 * columns, -1, -1),
            added_cond_kwargs={"image_embeds": [torch.cat([torch.zeros_like(e), e])[:, None]]},
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample
        uncond, cond = v.chunk(2)
        z = scheduler.step(uncond + 2 * (cond - uncond), t, z).prev_sample
    made = (vae.decode(z).sample.clamp(-1, 1) + 1) / 2
    sheet = torch.cat([torch.cat(list(made), 2), torch.cat(list(hints), 2)], 1)
    image = Image.fromarray((sheet * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
    image.save(stage.folder / "grid.png")


if __name__ == "__main__":
    main()
