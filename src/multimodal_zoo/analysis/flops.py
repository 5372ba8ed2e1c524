"""Floating-point operations of a forward pass, counted on the meta device.

A multiply-add counts as two, as in published profiles; only matrix products, convolutions and attention count.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
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
    return forward_flops(lambda: ghost.encode_image(_image(height, width, channels)))


def text_flops(model: nn.Module, length: int) -> int:
    """Operations of `model.encode_text` for one text of `length` tokens."""
    ghost = on_meta(model).eval()
    return forward_flops(lambda: ghost.encode_text(_text(length)))


def full_image_flops(model: nn.Module, height: int, width: int, channels: int = 3) -> int:
    """Operations of the image tower with the features of all tokens, and of its projection: what profiles publish.

    An embedding alone costs less where the last block leaves out the tokens that nothing reads.
    """
    ghost = on_meta(model).eval()
    return forward_flops(lambda: ghost.image_projection(ghost.image(_image(height, width, channels)).pooled))


def full_text_flops(model: nn.Module, length: int) -> int:
    """Operations of the text tower with the features of all tokens, and of its projection: what profiles publish."""
    ghost = on_meta(model).eval()
    return forward_flops(lambda: ghost.text_projection(ghost.text(_text(length)).pooled))


def _image(height: int, width: int, channels: int) -> Tensor:
    return torch.empty(1, channels, height, width, device="meta")


def _text(length: int) -> Tensor:
    return torch.empty(1, length, dtype=torch.long, device="meta")
