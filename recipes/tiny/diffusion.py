"""Stage 4: trains the renderer, a Stable Diffusion UNet and an IP-Adapter for image embeddings, together.

    python -m recipes.tiny.encode        # latents and embeddings of all images, by the finished stages 2a and 2b
    python -m recipes.tiny.answers       # the operators' results on training triplets
    python -m recipes.tiny.diffusion --minutes 120

The adapter has diffusers' format (`image_proj`, `ip_adapter` keys). Its projection has no biases: a zero embedding, the
adapter's negative, then adds exactly zero, and the pipeline without the adapter is the same model.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pops.toybox.pairs import CHANGE_PICTURES, CHANGES, GRID, GRID_PICTURES, PICTURES
from recipes.tiny import data, settings
from recipes.tiny.answers import SHARES as SHARES_OF_ANSWERS
from recipes.tiny.deeper import carry
from recipes.tiny.encode import averaged, embed, towers
from recipes.tiny.loop import Budget, Stage, compiled, half, prepare

SIDE = settings.CANVAS // 8
TOKENS = 4  # image tokens: as many as diffusers expects of a plain projection
# 11.4 M parameters with the adapter: version 6's 10.6, and a second transformer block in the layers at 16 x 16, where
# patterns are decided (1.78 => 2.04 GFLOP a forward of one). A training goes on from the older weights (see deeper.py).
# Wider ones were measured, from nothing, on one CPU thread, bf16, batch 16, and a float32 forward of 2: (128, 224)
# 14.9 M, 15 samples/s, 83 ms; (112, 224) 14.1 M, 16/s, 79 ms; (128, 256) 18.1 M, 14/s, 96 ms; (128, 192), two layers a
# block, 17.8 M, 11/s, 126 ms; (128, 224) with attention at 8 x 8 alone 13.6 M, 23/s, 66 ms, but a pattern's size is
# that of the finer level, where attention had to be added once already (docs/log.md).
UNET: dict[str, Any] = {
    "sample_size": SIDE,
    "in_channels": settings.LATENT,
    "out_channels": settings.LATENT,
    "block_out_channels": (96, 192),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,  # one number for all levels: diffusers' ControlNetModel takes no tuple
    "transformer_layers_per_block": (2, 1),
    "attention_head_dim": (2, 4),  # the number of heads, despite its name
    "norm_num_groups": 16,
    "cross_attention_dim": settings.DIM,
}
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
}
SHARES = {
    "base": 1.0,
    "textured": 1.0,
    "swatch": 0.25,
    "studio": 1.0,
    "elsewhere": 1.0,
    "empty": 0.4,
    "edited": 1.2,
    "other": 1.0,
    "both": 1.6,
}


def build(start: Path | None = None) -> UNet2DConditionModel:
    """Builds the UNet with the adapter's processors and projection, all trainable but the projection's biases.

    start: a renderer's folder of these widths and at most as many layers (at any size of latents), whose weights it
    has; None for random ones.
    """
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET)
    unet._load_ip_adapter_weights([fresh_adapter(unet)])
    if start is not None:
        old = UNet2DConditionModel.from_pretrained(start / "unet", torch_dtype=torch.float32)
        old._load_ip_adapter_weights([adapter_in(start)])
        carry(old, unet)
    for name, p in unet.named_parameters():
        p.requires_grad_(not (name.startswith("encoder_hid_proj") and name.endswith("bias")))
    return unet.to(memory_format=torch.channels_last)


def fresh_adapter(unet: UNet2DConditionModel) -> dict[str, dict[str, Tensor]]:
    """Returns random weights of an adapter of this UNet."""
    dim = settings.DIM
    projection = {
        "proj.weight": torch.randn(TOKENS * dim, dim) / dim**0.5,
        "proj.bias": torch.zeros(TOKENS * dim),
        "norm.weight": torch.ones(dim),
        "norm.bias": torch.zeros(dim),
    }
    crossing = [n for n in unet.attn_processors if n.endswith("attn2.processor")]
    layers: dict[str, Tensor] = {}
    for k, name in enumerate(crossing):
        width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        layers |= {f"{2 * k + 1}.to_{v}_ip.weight": torch.randn(width, dim) / dim**0.5 for v in "kv"}
    return {"image_proj": projection, "ip_adapter": layers}


def adapter_in(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Returns the weights of the adapter in a renderer's folder, float32."""
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in load_file(folder / "ip_adapter" / "ip_adapter.safetensors").items():
        part, _, name = key.partition(".")
        parts[part][name] = value.float()
    return parts


def split(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Splits a trained state into the UNet's own tensors, and the adapter's under its standard keys."""
    unet, proj, adapter = {}, {}, {}
    names = sorted(
        {k.split(".processor.")[0] for k in state if ".processor.to_k_ip" in k}, key=list(_order(state)).index
    )
    for key, value in state.items():
        if key.startswith("encoder_hid_proj."):
            tail = key.split("image_projection_layers.0.")[1]
            proj[tail.replace("image_embeds.", "proj.")] = value
        elif ".processor." in key:
            place, tail = key.split(".processor.")
            adapter[f"{2 * names.index(place) + 1}.{tail.replace('.0.', '.')}"] = value
        else:
            unet[key] = value
    return unet, {"image_proj": proj, "ip_adapter": adapter}


def _order(state: dict[str, Tensor]) -> list[str]:
    """Returns the cross-attention layers in the order in which diffusers numbers them: that of attn_processors."""
    fresh = UNet2DConditionModel(**UNET)
    return [n.removesuffix(".processor") for n in fresh.attn_processors if n.endswith("attn2.processor")]


def trained() -> UNet2DConditionModel:
    """Loads the UNet with the averaged weights of its training."""
    return averaged("diffusion", build())


class Supply:
    """Latents, embeddings and prompts of all training images, drawn by weight; the operators' answers, if written.

    All of it lies on the device.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        rows = load_file(folder / "embeds.safetensors", device=str(device))
        self.latents, self.embeds = load_file(folder / "latents.safetensors", str(device))["latents"], rows["embeds"]
        text = load_file(folder / "prompts.safetensors", device=str(device))
        self.prompts, self.captions, self.empty = text["hidden"], text["of"], text["empty"].float()
        self.spread = self.embeds.float().std(0)
        families, grids = int(rows["families"]), int(rows["grids"])
        changes = (len(self.latents) - families * len(PICTURES) - grids * GRID_PICTURES) // CHANGE_PICTURES
        of_family = torch.tensor([SHARES[n] for n in PICTURES])
        of_grid = torch.tensor(
            [1.0] * GRID * GRID + [SHARES["swatch"]] * GRID + [SHARES["empty"]] * GRID + [1.0] * GRID
        )
        of_change = torch.tensor([1.0] + [SHARES["edited"]] * CHANGES)
        self.weights = torch.cat([of_family.repeat(families), of_grid.repeat(grids), of_change.repeat(changes)])
        self.weights = self.weights.to(device)
        path = folder / "answers.safetensors"
        self.answers = load_file(path, device=str(device)) if path.exists() else None
        if self.answers is not None:
            others = [self.answers[name] for name in ("company", "more") if name in self.answers]
            self.latents = torch.cat([self.latents, *others])
            share = torch.tensor(list(SHARES_OF_ANSWERS.values()), device=device)
            which = self.answers["operator"]
            self.chances = (share / which.bincount(minlength=len(share)))[which]

    def batch(self, n: int, gen: torch.Generator, noise: float) -> tuple[Tensor, Tensor, Tensor]:
        """Draws (latents, image embeddings, prompt states).

        60 % have an image alone, 15 % both, 15 % a text alone, 10 % neither. Of those with an image alone, half have an
        operator's answer instead of the image's own embedding, if there are answers.
        """
        at = {"generator": gen, "device": self.latents.device}
        rows = torch.multinomial(self.weights, n, replacement=n > len(self.weights), generator=gen)
        texts, nothing = round(0.3 * n), max(1, round(0.1 * n))
        e = self.embeds[rows].float()
        if self.answers is not None:
            some = slice(texts, texts + (n - texts - nothing) // 2)
            count = some.stop - some.start
            k = torch.multinomial(self.chances, count, replacement=count > len(self.chances), generator=gen)
            rows[some] = self.answers["of"][k]
            guidance = torch.randint(self.answers["embeds"].shape[1], (len(k),), **at)
            e[some] = self.answers["embeds"][k, guidance].float()
        z = self.latents[rows].float()
        amount = noise * torch.rand(n, 1, **at)
        e = e + amount * self.spread * torch.randn(e.shape, **at)
        prompt = self.empty.expand(n, -1, -1).clone()
        which = torch.randint(self.captions.shape[1], (texts,), **at)
        prompt[:texts] = self.prompts[self.captions[rows[:texts], which]].float()
        e[: texts // 2] = 0
        e[n - nothing :] = 0
        return z, e, prompt


def newest(folder: Path = settings.WORK) -> Path:
    """The folder of encoded images to train on: the last `encoded-*` (which gpu.sh makes), or `folder` itself."""
    found = sorted(p.parent for p in folder.glob("encoded-*/prompts.safetensors"))
    return found[-1] if found else folder


def timesteps(n: int, gen: torch.Generator) -> Tensor:
    """Draws timesteps: four fifths near 350, where patterns are decided and were lost (docs/log.md), the rest uniform.

    A logit-normal, as in arXiv 2403.03206, section 3.1, with its middle moved.
    """
    at: dict[str, Any] = {"generator": gen, "device": gen.device}
    middle = torch.sigmoid(0.9 * torch.randn(n, **at) - 0.6)
    t = torch.where(torch.rand(n, **at) < 0.8, middle, torch.rand(n, **at))
    return (1000 * t).long().clamp(0, 999)


@torch.no_grad()
def sample(
    unet: UNet2DConditionModel,
    e: Tensor,
    prompt: Tensor,
    empty: Tensor,
    guidance: float,
    steps: int = 15,
    clean: Tensor | None = None,
    begin: int = 1000,
) -> Tensor:
    """Samples latents for embeddings and prompts [n, ...], guided; from noise, or from `clean` noised to `begin`.

    On the device of the embeddings; the noise is the same on all.
    """
    scheduler = DDIMScheduler(**SCHEDULER)
    scheduler.set_timesteps(steps)
    times = [t for t in scheduler.timesteps if t < begin]
    z = torch.randn(len(e), settings.LATENT, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(e)
    if clean is not None:
        z = scheduler.add_noise(clean, z, times[0].to(z.device))
    both_e = torch.cat([torch.zeros_like(e), e])
    both_p = torch.cat([empty.expand_as(prompt), prompt])
    for t in times:
        v = unet(torch.cat([z, z]), t, both_p, added_cond_kwargs={"image_embeds": [both_e[:, None]]}).sample
        uncond, cond = v.chunk(2)
        z = scheduler.step(uncond + guidance * (cond - uncond), t, z).prev_sample
    return z


def train(rank: int, args: argparse.Namespace) -> None:
    """Runs one worker of the training."""
    device = prepare(args)
    torch.set_num_threads(max(1, args.threads // args.workers))
    if args.workers > 1:
        meeting = settings.WORK / "diffusion.meeting"
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=args.workers)
    unet = build(args.start if args.start.exists() else None).to(device)
    stage = Stage("diffusion", unet, Budget.of(args), args.lr, ema=args.ema, decay=args.decay, save_seconds=240)
    abar = DDIMScheduler(**SCHEDULER).alphas_cumprod.to(device)
    fast = compiled(unet, device)
    # on a CPU attention as plain products: for so few tokens its backward is faster than the fused one's (docs/log.md)
    attention = [SDPBackend.MATH] if device.type == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]

    def loss_of(z: Tensor, e: Tensor, prompt: Tensor, gen: torch.Generator) -> tuple[Tensor, dict[str, Tensor | float]]:
        t = timesteps(len(z), gen)
        a = abar[t].view(-1, 1, 1, 1)
        eps = torch.randn(z.shape, generator=gen, device=device)
        noisy = (a.sqrt() * z + (1 - a).sqrt() * eps).contiguous(memory_format=torch.channels_last)
        want = a.sqrt() * eps - (1 - a).sqrt() * z
        with half(device), sdpa_kernel(attention):
            got = fast(noisy, t, prompt, added_cond_kwargs={"image_embeds": [e[:, None]]}).sample
        return (got.float() - want).square().mean(), {}

    if args.follow and device.type == "cuda":  # compile while there are no latents yet
        at: dict[str, Any] = {"device": device}
        n, gen = args.batch // args.workers, torch.Generator(device).manual_seed(0)
        e, prompt = torch.zeros(n, settings.DIM, **at), torch.zeros(n, settings.PROMPT, settings.DIM, **at)
        stage.rehearse(lambda step: loss_of(torch.zeros(n, settings.LATENT, SIDE, SIDE, **at), e, prompt, gen))
    while args.follow and not (newest() / "prompts.safetensors").exists():
        time.sleep(0.5)
    folder, looked = newest(), time.time()
    supply = Supply(folder, device)
    print(f"diffusion: {len(supply.latents)} images from {folder}", flush=True)

    def step_loss(step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        nonlocal folder, supply, looked
        if args.follow and time.time() - looked > 10:
            looked = time.time()
            if newest() != folder:
                folder = newest()
                supply = Supply(folder, device)
                print(f"diffusion: step {step}: {len(supply.latents)} images from {folder}", flush=True)
        gen = stage.generator()
        return loss_of(*supply.batch(args.batch // args.workers, gen, args.noise), gen)

    stage.run(step_loss, lambda: grid(stage, supply, folder), picture_every=args.look)


def grid(stage: Stage, supply: Supply, folder: Path) -> None:
    """Draws held-out images after the autoencoder, and the renderer's images from their embeddings."""
    device = stage.device
    vae = AutoencoderTiny.from_pretrained(folder / "vae").to(device)
    held = load_file(folder / "held_out.safetensors")
    n = min(12, len(held["images"]))
    embeds = embed(towers().to(device), held["images"][:n]).to(device)
    mirror = build().to(device)
    mirror.load_state_dict(stage.average.values)
    z = sample(mirror, embeds, supply.empty.expand(n, -1, -1), supply.empty, 2.0)
    with torch.no_grad():
        shown = [vae.decode(r).sample for r in (held["latents"][:n].float().to(device), z)]
    data.sheet(shown, stage.folder / "grid.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    Budget.add_arguments(parser, 8000)
    parser.add_argument("--batch", type=int, default=32, help="over all workers")
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--noise", type=float, default=0.25, help="largest noise on the embedding, in its own spread")
    parser.add_argument("--decay", type=float, default=0.4, help="share of the budget over which the rate falls")
    shipped = settings.PACKAGE / "renderer"
    parser.add_argument("--start", type=Path, default=shipped, help="a renderer's folder to begin with")
    parser.add_argument("--follow", action="store_true", help="take in `encoded-*` folders as they are finished")
    parser.add_argument("--look", type=int, default=1000, help="steps from one look at held-out images to the next")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that share a batch; on few cores faster than threads"
    )
    args = parser.parse_args()
    (settings.WORK / "diffusion.meeting").unlink(missing_ok=True)
    if args.workers == 1:
        train(0, args)
    else:
        torch.multiprocessing.spawn(train, (args,), nprocs=args.workers)


if __name__ == "__main__":
    main()
