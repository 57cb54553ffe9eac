"""Between stages: encodes every image and caption with the finished towers and autoencoder, for stages 3 and 4.

    python -m recipes.tiny.encode

Row for row with the shards: latents.safetensors and embeds.safetensors; of test families: held_out.safetensors. Of
captions: captions.safetensors (embeddings, and the last hidden states of their own tokens) and prompts.safetensors
(padded hidden states, as in Stable Diffusion pipelines).
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from torch import Tensor

from pops.toybox.pairs import draw_family, family
from recipes.tiny import autoencoder, data, settings
from recipes.tiny.clip import Towers
from recipes.tiny.tokenizer import load_or_write


def averaged(stage: str, module: torch.nn.Module) -> torch.nn.Module:
    """Loads the averaged weights of a stage's checkpoint into the module."""
    state = torch.load(settings.WORK / stage / "checkpoint.pt", weights_only=True)
    module.load_state_dict(state["average"])
    return module.eval()


def towers() -> Towers:
    tokenizer = load_or_write()
    return averaged("clip", Towers(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id))  # type: ignore[return-value]


def vae() -> AutoencoderTiny:
    """Loads the autoencoder, with the decoder of its own later stage if that was run; the encoder is the same."""
    later = (settings.WORK / "decoder" / "checkpoint.pt").exists()
    return averaged("decoder" if later else "autoencoder", autoencoder.build())  # type: ignore[return-value]


@torch.no_grad()
def embed(model: Towers, images: Tensor) -> Tensor:
    """Encodes uint8 [N, 3, S, S] => float32 [N, DIM]."""
    return torch.cat([model.vision(pixel_values=data.to_unit(b)).image_embeds for b in images.split(128)])


@torch.no_grad()
def latents(model: AutoencoderTiny, images: Tensor) -> Tensor:
    rows = []
    for b in images.split(32):
        with torch.autocast("cpu", torch.bfloat16):
            rows.append(
                model.encode(data.to_unit(b).contiguous(memory_format=torch.channels_last)).latents.half().contiguous()
            )
    return torch.cat(rows)


def held_out_pictures(families: int = 8) -> Tensor:
    """Draws test images of each operator's held-out combinations, results and operands, for inspection."""
    rows = []
    for focus, name in (("texturing", "textured"), ("scene", "base"), ("union", "both"), ("instruct", "edited")):
        for seed in range(families):
            pictures, _ = draw_family(family(seed, "test", focus), settings.SIZE)
            rows.append(pictures[name])
    order = torch.arange(len(rows)).view(4, -1).T.flatten()  # the operators in turn
    return torch.stack(rows)[order]


@torch.no_grad()
def text_states(model: Towers, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Encodes token ids [N, L] => (embeddings [N, DIM], last hidden states [N, L, DIM]) in float16."""
    embeds, hidden = [], []
    for k in range(0, len(ids), 256):
        out = model.text(input_ids=ids[k : k + 256], attention_mask=None if mask is None else mask[k : k + 256])
        embeds.append(out.text_embeds.half())
        hidden.append(out.last_hidden_state.half())
    return torch.cat(embeds), torch.cat(hidden)


def write_latents(out: Path, pictures: data.Pictures) -> None:
    """Writes latents.safetensors, held_out.safetensors and the autoencoder's folder: needs stage 2b alone."""
    coder = vae()
    coder.save_pretrained(out / "vae")
    held = held_out_pictures()
    save_file({"images": held, "latents": latents(coder, held)}, out / "held_out.safetensors")
    save_file({"latents": latents(coder, pictures.images)}, out / "latents.safetensors")


def write_embeddings(out: Path, pictures: data.Pictures) -> None:
    """Writes embeds.safetensors, captions.safetensors and prompts.safetensors: needs stage 2a alone."""
    clip, tokenizer = towers(), load_or_write()
    images, companies = data.load_companies()
    rows = {
        "embeds": embed(clip, pictures.images).half(),
        "families": torch.tensor(pictures.families),
        "grids": torch.tensor(pictures.grids),
        "company": embed(clip, images).half(),
        "companies": torch.tensor(companies),
    }
    save_file(rows, out / "embeds.safetensors")
    captions = data.load_captions(pictures.families, pictures.grids, pictures.changes)
    rng = random.Random(0)
    tokens = tokenizer([*captions.texts, ""], padding="longest", truncation=True, return_tensors="pt")
    embeds, hidden = text_states(clip, tokens["input_ids"], tokens["attention_mask"])
    three = torch.tensor([rng.choices(rows, k=3) for rows in captions.of])
    save_file(
        {"embeds": embeds, "hidden": hidden, "length": tokens["attention_mask"].sum(1), "of": three},
        out / "captions.safetensors",
    )
    short = {"padding": "max_length", "max_length": settings.PROMPT, "truncation": True, "return_tensors": "pt"}
    save_file(
        {
            "hidden": text_states(clip, tokenizer(captions.texts, **short)["input_ids"])[1],
            "empty": text_states(clip, tokenizer([""], **short)["input_ids"])[1],
            "of": three,
        },
        out / "prompts.safetensors",
    )
    print(len(pictures), "images,", len(captions.texts), "captions", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=("latents", "embeddings", "all"), default="all")
    args = parser.parse_args()
    pictures = data.load(guides=False)
    if args.part != "embeddings":
        write_latents(settings.WORK, pictures)
    if args.part != "latents":
        write_embeddings(settings.WORK, pictures)


if __name__ == "__main__":
    main()
