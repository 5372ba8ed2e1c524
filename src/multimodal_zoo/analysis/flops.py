"""Floating-point operations of a forward pass, counted on the meta device.

A multiply-add counts as two, as in published profiles; only matrix products, convolutions and attention count. Of
blocks that are alike one is run (`thinning`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from multimodal_zoo.analysis.shadow import ReadZeros, on_meta, recompute_by
from multimodal_zoo.analysis.thinning import by_depth


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
    return _evaluated(model, lambda ghost: ghost.encode_image(_image(height, width, channels)))


def text_flops(model: nn.Module, length: int) -> int:
    """Operations of `model.encode_text` for one text of `length` tokens."""
    return _evaluated(model, lambda ghost: ghost.encode_text(_text(length)))


def full_image_flops(model: nn.Module, height: int, width: int, channels: int = 3) -> int:
    """Operations of the image tower with the features of all tokens, and of its projection: what profiles publish.

    An embedding alone costs less where the last block leaves out the tokens that nothing reads.
    """
    return _evaluated(model, lambda ghost: ghost.image_projection(ghost.image(_image(height, width, channels)).pooled))


def full_text_flops(model: nn.Module, length: int) -> int:
    """Operations of the text tower with the features of all tokens, and of its projection: what profiles publish."""
    return _evaluated(model, lambda ghost: ghost.text_projection(ghost.text(_text(length)).pooled))


def step_flops(model: nn.Module, side: int, length: int, checkpoint: str = "none") -> int:
    """Operations of a training step for one image and one text, forward and backward, without the objective.

    Patch dropout and frozen parts do as they do in training.

    Args:
        model: a dual encoder on any device.
        side: of the image, in pixels.
        length: tokens of the text.
        checkpoint: the policy of every stack; what is computed again counts again.
    """

    def measure(given: nn.Module) -> int:
        """A step of two pairs."""
        pairs = (_image(side, side, 3).expand(2, -1, -1, -1), _text(length).expand(2, -1))
        return trained_flops(given, pairs, checkpoint)

    return by_depth(model, measure) // 2


def trained_flops(model: nn.Module, inputs: tuple[Tensor, ...], checkpoint: str = "none") -> int:
    """Operations of a forward pass in training and of the gradients of all that it gives.

    Args:
        model: on any device; a copy runs.
        inputs: on meta.
        checkpoint: the policy of every stack.
    """
    ghost = on_meta(model).train()
    recompute_by(ghost, checkpoint)
    with ReadZeros(), FlopCounterMode(display=False) as counter:
        results = [found for found in tree_leaves(ghost(*inputs)) if isinstance(found, Tensor)]
        roots = [result for result in results if result.requires_grad]
        if roots:  # nothing trains otherwise
            torch.autograd.backward(roots, [torch.empty_like(root) for root in roots])
    return int(counter.get_total_flops())


def _evaluated(model: nn.Module, run: Callable[[nn.Module], object]) -> int:
    """Operations of what a copy on meta, in evaluation mode, computes."""

    def measure(given: nn.Module) -> int:
        """Those of a copy with the blocks given."""
        ghost = on_meta(given).eval()
        return forward_flops(lambda: run(ghost))

    return by_depth(model, measure)


def _image(height: int, width: int, channels: int) -> Tensor:
    return torch.empty(1, channels, height, width, device="meta")


def _text(length: int) -> Tensor:
    return torch.empty(1, length, dtype=torch.long, device="meta")
