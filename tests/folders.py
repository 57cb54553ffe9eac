"""Model folders with random weights, made on the spot: the layouts of the real ones, made small.

`write_model(folder)` makes a whole model (prior's repo layout, renderer/ and pops.json),
`write_renderer(folder)` a renderer alone, `write_decoder(folder)` a Kandinsky 2.2 decoder,
`write_tokenizer(folder)` a byte-level CLIP tokenizer.
The same seed gives the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

DIM = 32  # width of the space, of the towers and of the renderer's text conditioning
IMAGE_TOKENS = 4  # what the IP-Adapter makes of one embedding
START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = ["r e", "re d</w>", "t i", "ti g", "tig e", "tige r</w>"]  # "red" and "tiger" become one token each


def write_model(
    folder: Path, *, seed: int = 0, space: str | None = "random-32", renderer: bool = True, slots: int = 77
) -> Path:
    """A model of the Kandinsky 2.2 prior's layout; `space=None` leaves pops.json out. Returns the folder."""
    from diffusers import KandinskyV22PriorPipeline, PriorTransformer, UnCLIPScheduler
    from transformers import CLIPImageProcessorPil

    tokenizer = write_tokenizer(folder / "tokenizer")
    torch.manual_seed(seed)
    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=16, num_layers=2, embedding_dim=DIM, num_embeddings=slots
    )
    with torch.no_grad():
        prior.clip_mean.copy_(0.1 * torch.randn(1, DIM))
        prior.clip_std.copy_(0.5 + torch.rand(1, DIM))
        prior.positional_embedding.normal_(std=0.3)  # zeros as they come, which would hide a wrong order
        prior.prd_embedding.normal_(std=0.3)
    pipe = KandinskyV22PriorPipeline(
        prior=prior,
        image_encoder=vision_tower(),
        text_encoder=text_tower(tokenizer, projection=True),
        tokenizer=tokenizer,
        scheduler=UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample=True, clip_sample_range=5.0
        ),
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    )
    pipe.save_pretrained(folder)
    if renderer:
        write_renderer(folder / "renderer", seed=seed + 1)
    if space is not None:
        info: dict[str, Any] = {"name": "random", "version": "0", "space": space}
        info |= {"size": 32, "steps": 2, "guidance": 2.0}
        if renderer:
            info["renderer"] = "renderer"
        (folder / "pops.json").write_text(json.dumps(info, indent=2))
    return folder


def write_renderer(folder: Path, *, seed: int = 1) -> Path:
    """Stable Diffusion's layout at 32 x 32 pixels, and ip_adapter/ip_adapter.safetensors beside it."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from safetensors.torch import save_file

    tokenizer = write_tokenizer(folder / "tokenizer")
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=DIM,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    )
    pipe = StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=text_tower(tokenizer, projection=False),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)
    (folder / "ip_adapter").mkdir(exist_ok=True)
    save_file(adapter_weights(unet), folder / "ip_adapter" / "ip_adapter.safetensors")
    return folder


def write_decoder(folder: Path, *, seed: int = 2) -> Path:
    """The Kandinsky 2.2 decoder's layout: unet, movq, scheduler, model_index.json."""
    from diffusers import DDPMScheduler, KandinskyV22Pipeline, UNet2DConditionModel, VQModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=8,
        addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(16, 32),
        layers_per_block=1,
        encoder_hid_dim=DIM,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
    )
    movq = VQModel(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        layers_per_block=1,
        num_vq_embeddings=12,
        vq_embed_dim=4,
        norm_type="spatial",
    )
    KandinskyV22Pipeline(
        unet=unet, movq=movq, scheduler=DDPMScheduler(beta_schedule="linear", beta_start=0.00085, beta_end=0.012)
    ).save_pretrained(folder)
    return folder


def adapter_weights(unet: Any) -> dict[str, torch.Tensor]:
    """Random IP-Adapter weights for this UNet, in the keys of the public .safetensors files."""
    weights = {
        "image_proj.proj.weight": torch.randn(IMAGE_TOKENS * DIM, DIM) * DIM**-0.5,
        "image_proj.proj.bias": torch.zeros(IMAGE_TOKENS * DIM),
        "image_proj.norm.weight": torch.ones(DIM),
        "image_proj.norm.bias": torch.zeros(DIM),
    }
    state = unet.state_dict()
    attentions = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(attentions):
        like = state[name.replace("processor", "to_k.weight")]
        for part in ("to_k_ip", "to_v_ip"):
            weights[f"ip_adapter.{2 * number + 1}.{part}.weight"] = torch.randn(like.shape) * DIM**-0.5
    return weights


def write_tokenizer(folder: Path) -> Any:
    """A CLIPTokenizer of 77 positions over all bytes and a few merges, saved in `folder`; returns it."""
    from transformers import CLIPTokenizer

    letters = _byte_letters()
    merged = [merge.replace(" ", "") for merge in MERGES]
    words = [*letters, *(letter + "</w>" for letter in letters), *merged, START, END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return CLIPTokenizer.from_pretrained(folder)


def vision_tower() -> Any:
    """A CLIP image encoder for 32 x 32 pixels."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=DIM,
        intermediate_size=2 * DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=DIM,
    )
    return CLIPVisionModelWithProjection(config).eval()


def text_tower(tokenizer: Any, *, projection: bool) -> Any:
    """A CLIP text encoder for the tokenizer's words, with or without the projection into the space."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=DIM,
        intermediate_size=2 * DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=DIM,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def _byte_letters() -> list[str]:
    """The printable letter of each of the 256 bytes, in GPT-2's byte-level alphabet."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def draw(renderer: Any, vectors: torch.Tensor, *, seeds: Sequence[int], size: Any = None, **options: Any) -> list[Any]:
    """Renderer.render with its options by name and its own size."""
    from pops.render import RenderOptions

    return renderer.render(vectors, seeds, size or renderer.capabilities.native, RenderOptions(**options))
