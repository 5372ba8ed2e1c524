"""Floating-point operations of a forward pass, counted on the meta device.

A multiply-add counts as two, as in published profiles; only matrix products, convolutions and attention count.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from multimodal_zoo.analysis.shadow import ReadZeros, on_meta


def forward_flops(run: Callable[[], object]) -> int:
    """Operations of whatever `run` computes.

    Args:
        run: calls a model; nothing is allocated if the model and its inputs are on the meta device.
    """
    with torch.no_grad(), ReadZeros(), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def image_flops(model: nn.Module, height: int, width: int, channels: int = 3) -> int:
    """Operations of `model.encode_image` for one image of `height` x `width` pixels."""
    ghost = on_meta(model).eval()
    images = torch.empty(1, channels, height, width, device="meta")
    return forward_flops(lambda: ghost.encode_image(images))


def text_flops(model: nn.Module, length: int) -> int:
    """Operations of `model.encode_text` for one text of `length` tokens."""
    ghost = on_meta(model).eval()
    ids = torch.empty(1, length, dtype=torch.long, device="meta")
    return forward_flops(lambda: ghost.encode_text(ids))
