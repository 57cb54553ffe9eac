"""Small random models of the classes that the published recipes use, written to a folder on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from folders import text_tower, write_sdxl, write_tokenizer

CLOTHES = ("Background", "Hat", "Hair", "Upper-clothes", "Pants", "Left-shoe", "Right-shoe", "Bag")


def write_tools(folder: Path) -> dict[str, str]:
    """Writes a model for each tool; returns tool -> its folder."""
    write_sdxl(folder / "sdxl-turbo")
    writers = {"depth": write_depth, "inpaint": write_inpaint, "detector": write_detector}
    writers |= {"matting": write_sam, "parser": write_parser}
    for name, write in writers.items():
        torch.manual_seed(0)
        write(folder / name)
    return {"draw": str(folder / "sdxl-turbo"), **{name: str(folder / name) for name in writers}}


def _unet(channels: int) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16, in_channels=channels, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8,
    )  # fmt: skip


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=8, sample_size=32,
    )  # fmt: skip


def write_depth(folder: Path) -> None:
    from diffusers import PNDMScheduler, StableDiffusionDepth2ImgPipeline
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessorPil

    tokenizer = write_tokenizer(folder / "tokenizer")
    estimator = DPTForDepthEstimation(
        DPTConfig(
            hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32,
            patch_size=16, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
            reassemble_factors=[1, 1, 1, 1],
        )
    )  # fmt: skip
    StableDiffusionDepth2ImgPipeline(
        vae=_vae(), text_encoder=text_tower(tokenizer, projection=False), tokenizer=tokenizer, unet=_unet(5),
        scheduler=PNDMScheduler(skip_prk_steps=True), depth_estimator=estimator,
        feature_extractor=DPTImageProcessorPil(size={"height": 32, "width": 32}),
    ).save_pretrained(folder)  # fmt: skip


def write_inpaint(folder: Path) -> None:
    from diffusers import DDIMScheduler, StableDiffusionInpaintPipeline

    tokenizer = write_tokenizer(folder / "tokenizer")
    StableDiffusionInpaintPipeline(
        vae=_vae(), text_encoder=text_tower(tokenizer, projection=False), tokenizer=tokenizer, unet=_unet(9),
        scheduler=DDIMScheduler(steps_offset=1), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


def write_detector(folder: Path) -> None:
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessorPil, Owlv2Processor

    tokenizer = write_tokenizer(folder)
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 77, "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 64, "patch_size": 16,
    }  # fmt: skip
    model = Owlv2ForObjectDetection(Owlv2Config(text_config=text, vision_config=vision, projection_dim=16))
    with torch.no_grad():  # so that it finds something: around every patch a box of about half the picture's side
        model.box_head.dense2.weight.mul_(0.02)
        model.box_head.dense2.bias.copy_(torch.tensor([0.0, 0.0, 0.9, 0.9]))
        model.class_head.logit_shift.bias.fill_(0.5)
    model.save_pretrained(folder)
    images = Owlv2ImageProcessorPil(size={"height": 64, "width": 64})
    Owlv2Processor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)


def write_sam(folder: Path) -> None:
    from transformers import SamConfig, SamImageProcessorPil, SamModel, SamProcessor

    vision = {
        "hidden_size": 16, "output_channels": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64,
        "patch_size": 16, "window_size": 2, "global_attn_indexes": [0], "num_pos_feats": 4, "mlp_dim": 16,
    }  # fmt: skip
    prompt = {"hidden_size": 8, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 8, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "iou_head_hidden_dim": 8,
    }  # fmt: skip
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    SamModel(config).save_pretrained(folder)
    square = {"height": 64, "width": 64}
    SamProcessor(SamImageProcessorPil(size={"longest_edge": 64}, pad_size=square)).save_pretrained(folder)


def write_parser(folder: Path) -> None:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessorPil

    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], num_attention_heads=[1, 2],
        patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[1, 1], decoder_hidden_size=16,
        id2label=dict(enumerate(CLOTHES)), label2id={name: i for i, name in enumerate(CLOTHES)},
    )  # fmt: skip
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
