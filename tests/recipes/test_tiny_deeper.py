"""A UNet with more transformer blocks computes at first what the one computes whose weights it was given."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from recipes.tiny.deeper import carry

SHAPE = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
    "cross_attention_dim": 12,
}


def net(blocks: int | tuple[int, ...], seed: int) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(**SHAPE, transformer_layers_per_block=blocks).eval()


@torch.no_grad()
def test_a_deeper_unet_begins_as_the_old_one() -> None:
    old, new = net(1, 0), net((2, 1), 1)
    x = torch.randn(2, 4, 8, 8), torch.tensor([300, 7]), torch.randn(2, 3, 12)
    carry(old, new)
    assert sum(p.numel() for p in new.parameters()) > sum(p.numel() for p in old.parameters())
    torch.testing.assert_close(new(*x).sample, old(*x).sample, rtol=1e-5, atol=1e-5)


def test_what_a_deeper_unet_adds_can_learn() -> None:
    old, new = net(1, 0), net((2, 1), 1)
    carry(old, new)
    new(torch.randn(2, 4, 8, 8), 300, torch.randn(2, 3, 12)).sample.square().mean().backward()
    added = "down_blocks.0.attentions.0.transformer_blocks.1.ff.net.2.weight"
    assert float(new.get_parameter(added).grad.abs().max()) > 0


def test_weights_without_a_place_are_named() -> None:
    with pytest.raises(ValueError, match=r"tensors have no place in the new network, such as .*transformer_blocks\.1"):
        carry(net((2, 1), 0), net(1, 0))
