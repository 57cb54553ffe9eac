"""Model folders with random weights, made on the spot: the layouts of the real ones, made small.

`write_model(folder)` makes a whole model (prior's repo layout, renderer/ and pops.json),
`write_renderer(folder)` a renderer alone, `write_kandinsky_decoder(folder)` a Kandinsky 2.2 decoder,
`write_sdxl(folder)` an SDXL renderer, `write_controlnet(folder, renderer)` a ControlNet for one,
`write_estimator(folder)` a depth estimator, `write_tokenizer(folder)` a byte-level CLIP tokenizer.
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


def write_kandinsky_decoder(folder: Path, *, controlnet: bool = False, seed: int = 2) -> Path:
    """The Kandinsky 2.2 decoder's layout (unet, movq, scheduler, model_index.json) at 16 x 16 pixels, or that of the
    decoder with a depth hint at 64 x 64. The scheduler reads the variance that the UNet learned."""
    from diffusers import (
        DDPMScheduler,
        KandinskyV22ControlnetPipeline,
        KandinskyV22Pipeline,
        UNet2DConditionModel,
        VQModel,
    )

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=8 if controlnet else 4,
        out_channels=8,
        addition_embed_type="image_hint" if controlnet else "image",
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
    if controlnet:  # random as it comes, a hint is nearly nothing after eight layers
        with torch.no_grad():
            for layer in unet.add_embedding.input_hint_block[::2]:
                layer.weight.mul_(3)
                layer.bias.zero_()
    deeper = 2 if controlnet else 0  # a hint is for 8 pixels a latent
    movq = VQModel(
        block_out_channels=(32,) * (2 + deeper),
        down_block_types=("DownEncoderBlock2D",) * (1 + deeper) + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * (1 + deeper),
        latent_channels=4,
        layers_per_block=1,
        num_vq_embeddings=12,
        vq_embed_dim=4,
        norm_type="spatial",
    )
    scheduler = DDPMScheduler(
        beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, variance_type="learned_range"
    )
    pipeline = KandinskyV22ControlnetPipeline if controlnet else KandinskyV22Pipeline
    pipeline(unet=unet, movq=movq, scheduler=scheduler).save_pretrained(folder)
    return folder


def adapter_weights(unet: Any, dim: int = DIM) -> dict[str, torch.Tensor]:
    """Random IP-Adapter weights for this UNet and vectors of width dim, in the keys of the public files."""
    width = unet.config.cross_attention_dim
    weights = {
        "image_proj.proj.weight": torch.randn(IMAGE_TOKENS * width, dim) * dim**-0.5,
        "image_proj.proj.bias": torch.zeros(IMAGE_TOKENS * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    state = unet.state_dict()
    attentions = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(attentions):
        like = state[name.replace("processor", "to_k.weight")]
        for part in ("to_k_ip", "to_v_ip"):
            weights[f"ip_adapter.{2 * number + 1}.{part}.weight"] = torch.randn(like.shape) * DIM**-0.5
    return weights


def write_sdxl(folder: Path, *, seed: int = 3, zeros: bool = True) -> Path:
    """SDXL's layout at 32 x 32 pixels, with the blocks of the real UNet, and ip_adapter/ip_adapter.safetensors."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from safetensors.torch import save_file

    tokenizer = write_tokenizer(folder / "tokenizer")
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * DIM,
        attention_head_dim=(2, 4, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=DIM + 6 * 8,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
        scaling_factor=0.13025,
        force_upcast=True,
    )
    StableDiffusionXLPipeline(
        unet=unet,
        vae=vae,
        text_encoder=text_tower(tokenizer, projection=False),
        tokenizer=tokenizer,
        text_encoder_2=text_tower(tokenizer, projection=True),
        tokenizer_2=tokenizer,
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    ).save_pretrained(folder)
    (folder / "ip_adapter").mkdir(exist_ok=True)
    save_file(adapter_weights(unet), folder / "ip_adapter" / "ip_adapter.safetensors")
    return folder


def write_controlnet(folder: Path, renderer: Path, *, seed: int = 4) -> Path:
    """A ControlNet for a renderer's UNet, whose residuals are not zero, as they come."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(renderer / "unet")
    torch.manual_seed(seed)
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))
    with torch.no_grad():
        for layer in [net.controlnet_cond_embedding.conv_out, net.controlnet_mid_block, *net.controlnet_down_blocks]:
            layer.weight.normal_(std=0.2)
    net.save_pretrained(folder)
    return folder


def write_estimator(folder: Path, *, seed: int = 5, **config: Any) -> Path:
    """A depth estimator of Depth Anything's layout that reads 28 x 28 pixels."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessorPil

    torch.manual_seed(seed)
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=1,
        image_size=28,
        patch_size=14,
        out_features=["stage1", "stage2"],
        reshape_hidden_states=False,
    )
    sizes = {"reassemble_factors": [2, 1], "neck_hidden_sizes": [8, 8], "fusion_hidden_size": 8, "head_hidden_size": 8}
    network = DepthAnythingForDepthEstimation(
        DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=16, **sizes, **config)
    )
    network.save_pretrained(folder)
    side = {"height": 28, "width": 28}
    DPTImageProcessorPil(size=side, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)
    return folder


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


def vectors(n: int, seed: int = 0) -> torch.Tensor:
    """Embeddings [n, DIM] of the random models."""
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed))


def pixels(pictures: Sequence[Any]) -> Any:
    """Pictures of one size as whole numbers [n, height, width, 3]."""
    import numpy as np

    return np.stack([np.asarray(p).astype(int) for p in pictures])


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-5, atol=1e-5)


def size_of(path: str) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as picture:
        return picture.size
