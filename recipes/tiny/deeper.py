"""Gives a UNet with more transformer blocks at its levels the weights of one with fewer, so that it computes the same.

Blocks that the old one lacks add nothing at first: the last matrices of their three residual branches are zeros.
"""

from __future__ import annotations

import re

import torch
from torch import nn

ENDS = re.compile(r".+\.transformer_blocks\.\d+\.(attn[12]\.to_out\.0|ff\.net\.2)\.(weight|bias)")


@torch.no_grad()
def carry(old: nn.Module, new: nn.Module) -> None:
    """Copies old's weights into new, which has the same layers and perhaps more blocks in its transformers."""
    have = old.state_dict()
    for name, value in new.state_dict().items():
        if name in have:
            value.copy_(have.pop(name))
        elif ENDS.fullmatch(name):
            value.zero_()
    if have:
        raise ValueError(f"{len(have)} tensors have no place in the new network, such as {min(have)}")
