"""Floating-point operations of a forward pass, counted on the meta device.

A multiply-add counts as two, as in published profiles; only matrix products, convolutions and attention count.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from multimodal_zoo.analysis.shadow import ReadZeros, on_meta, recompute_by


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


def step_flops(model: nn.Module, side: int, length: int, checkpoint: str = "none") -> int:
    """Operations of a training step for one image and one text, forward and backward, without the objective.

    Patch dropout and frozen parts do as they do in training.

    Args:
        model: a dual encoder on any device.
        side: of the image, in pixels.
        length: tokens of the text.
        checkpoint: the policy of every stack; what is computed again counts again.
    """
    ghost = on_meta(model).train()
    recompute_by(ghost, checkpoint)

    def run() -> None:
        """A step of two pairs."""
        results = ghost(_image(side, side, 3).expand(2, -1, -1, -1), _text(length).expand(2, -1))
        roots = [result for result in results if result.requires_grad]
        if roots:
            torch.autograd.backward(roots, [torch.empty_like(root) for root in roots])

    with ReadZeros(), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops()) // 2


def _image(height: int, width: int, channels: int) -> Tensor:
    return torch.empty(1, channels, height, width, device="meta")


def _text(length: int) -> Tensor:
    return torch.empty(1, length, dtype=torch.long, device="meta")
