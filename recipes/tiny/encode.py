"""Between stages: encodes every image and caption with the finished towers and autoencoder, for stages 3 and 4.

    python -m recipes.tiny.encode
    python -m recipes.tiny.encode latents --vae FOLDER    # with another autoencoder than this recipe's checkpoints

Row for row with the shards: latents.safetensors and embeds.safetensors; of test families: held_out.safetensors. Of
captions: captions.safetensors (embeddings, and the last hidden states of their own tokens) and prompts.safetensors
(padded hidden states, as in Stable Diffusion pipelines). All in `--out`.

What was not trained here is taken from the shipped model: the towers with their tokenizer, and the autoencoder.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from pops.toybox.draw import draw
from pops.toybox.pairs import family
from recipes.tiny import autoencoder, data, settings
from recipes.tiny.clip import Towers
from recipes.tiny.loop import half
from recipes.tiny.tokenizer import load_or_write


def averaged(stage: str, module: torch.nn.Module) -> torch.nn.Module:
    """Loads the averaged weights of a stage's checkpoint into the module."""
    module.load_state_dict(average_of(stage))
    return module.eval()


def average_of(stage: str) -> dict[str, Tensor]:
    path = settings.WORK / stage / "checkpoint.pt"
    return torch.load(path, weights_only=True, map_location="cpu")["average"]


def tokenizer() -> CLIPTokenizer:
    """Loads the tokenizer that belongs to the towers."""
    here = (settings.WORK / "clip" / "checkpoint.pt").exists()
    return load_or_write() if here else CLIPTokenizer.from_pretrained(settings.PACKAGE / "tokenizer")


def towers() -> Towers:
    """Loads the towers as they were trained here, or the shipped ones, whose heads for training are random."""
    words = tokenizer()
    clip = Towers(len(words), words.bos_token_id, words.eos_token_id)
    if (settings.WORK / "clip" / "checkpoint.pt").exists():
        return averaged("clip", clip)  # type: ignore[return-value]
    clip.vision = CLIPVisionModelWithProjection.from_pretrained(settings.PACKAGE / "image_encoder", dtype=torch.float32)
    clip.text = CLIPTextModelWithProjection.from_pretrained(settings.PACKAGE / "text_encoder", dtype=torch.float32)
    return clip.eval()


def vae(folder: Path | None = None) -> AutoencoderTiny:
    """Loads the autoencoder: from a folder, or this recipe's latest (the decoder's own stage comes after the
    autoencoder's, with the same encoder), or the shipped one.
    """
    here = [s for s in ("decoder", "autoencoder") if (settings.WORK / s / "checkpoint.pt").exists()]
    if folder is None and here:
        model = autoencoder.build()
        state = average_of(here[0])
        model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if "discriminator." not in k})
        return model.eval()
    folder = folder or settings.PACKAGE / "renderer" / "vae"
    print(f"autoencoder from {folder}", flush=True)
    return AutoencoderTiny.from_pretrained(folder, torch_dtype=torch.float32).eval()


@torch.no_grad()
def embed(model: Towers, images: Tensor) -> Tensor:
    """Encodes uint8 [N, 3, S, S] of any size, shrunk as pops shrinks photos => float32 [N, DIM], on the CPU."""
    device = model.temperature.device
    small = (data.shrink(b).to(device) for b in images.split(1024))
    return torch.cat(
        [model.vision(pixel_values=data.to_unit(b)).image_embeds.cpu() for s in small for b in s.split(256)]
    )


@torch.no_grad()
def latents(model: AutoencoderTiny, images: Tensor) -> Tensor:
    """Encodes uint8 [N, 3, S, S] => float16 [N, LATENT, S / 8, S / 8], on the CPU."""
    rows = []
    for b in images.split(32 if model.device.type == "cpu" else 256):
        x = data.to_unit(b.to(model.device)).contiguous(memory_format=torch.channels_last)
        with half(model.device):
            rows.append(model.encode(x).latents.half().contiguous().cpu())
    return torch.cat(rows)


def held_out_pictures(families: int = 8) -> Tensor:
    """Draws test images of each operator's held-out combinations, results and operands, for inspection."""
    rows = []
    for focus, name in (("texturing", "textured"), ("scene", "base"), ("union", "both"), ("instruct", "edited")):
        for seed in range(families):
            rows.append(draw(family(seed, "test", focus).pictures()[name], settings.CANVAS))
    order = torch.arange(len(rows)).view(4, -1).T.flatten()  # the operators in turn
    return torch.stack(rows)[order]


@torch.no_grad()
def text_states(model: Towers, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Encodes token ids [N, L] => (embeddings [N, DIM], last hidden states [N, L, DIM]) in float16, on the CPU."""
    embeds, hidden, device = [], [], model.temperature.device
    for k in range(0, len(ids), 256):
        part = None if mask is None else mask[k : k + 256].to(device)
        out = model.text(input_ids=ids[k : k + 256].to(device), attention_mask=part)
        embeds.append(out.text_embeds.half().cpu())
        hidden.append(out.last_hidden_state.half().cpu())
    return torch.cat(embeds), torch.cat(hidden)


def write_latents(out: Path, pictures: data.Pictures, coder: AutoencoderTiny) -> None:
    """Writes latents.safetensors, held_out.safetensors and the autoencoder's folder: needs stage 2b alone."""
    coder.save_pretrained(out / "vae")
    held = held_out_pictures()
    save_file({"images": held, "latents": latents(coder, held)}, out / "held_out.safetensors")
    save_file({"latents": latents(coder, pictures.images)}, out / "latents.safetensors")


def write_embeddings(out: Path, pictures: data.Pictures, device: torch.device, each: int = 3) -> None:
    """Writes embeds.safetensors, captions.safetensors and prompts.safetensors: needs stage 2a alone.

    each: how many captions a picture has, drawn from all that are true.
    """
    clip, words = towers().to(device), tokenizer()
    others: dict[str, Tensor] = {}
    for split, name, count in (("union", "company", "companies"), ("more", "more", "mores")):
        images, seeds = data.load_others(split)
        made = embed(clip, images).half() if len(images) else torch.zeros(0, settings.DIM).half()
        others |= {name: made, count: torch.tensor(seeds)}
    rows = {
        "embeds": embed(clip, pictures.images).half(),
        "families": torch.tensor(pictures.families),
        "grids": torch.tensor(pictures.grids),
        **others,
    }
    save_file(rows, out / "embeds.safetensors")
    captions = data.load_captions(pictures.families, pictures.grids, pictures.changes)
    rng = random.Random(0)
    some, drawn = torch.tensor([rng.choices(of, k=each) for of in captions.of]).unique(return_inverse=True)
    texts = [captions.texts[int(k)] for k in some]
    tokens = words([*texts, ""], padding="longest", truncation=True, return_tensors="pt")
    embeds, hidden = text_states(clip, tokens["input_ids"], tokens["attention_mask"])
    save_file(
        {"embeds": embeds, "hidden": hidden, "length": tokens["attention_mask"].sum(1), "of": drawn},
        out / "captions.safetensors",
    )
    short = {"padding": "max_length", "max_length": settings.PROMPT, "truncation": True, "return_tensors": "pt"}
    save_file(
        {
            "hidden": text_states(clip, words(texts, **short)["input_ids"])[1],
            "empty": text_states(clip, words([""], **short)["input_ids"])[1],
            "of": drawn,
        },
        out / "prompts.safetensors",
    )
    print(len(pictures), "images,", len(texts), "captions", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("latents", "embeddings", "all"), default="all")
    parser.add_argument("--vae", type=Path, default=None, help="a folder of the autoencoder to use")
    parser.add_argument("--out", type=Path, default=settings.WORK)
    parser.add_argument("--captions", type=int, default=3, help="captions a picture, drawn from all that are true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pictures = data.load(guides=False)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part != "embeddings":
        write_latents(args.out, pictures, vae(args.vae).to(args.device))
    if args.part != "latents":
        write_embeddings(args.out, pictures, torch.device(args.device), args.captions)


if __name__ == "__main__":
    main()
