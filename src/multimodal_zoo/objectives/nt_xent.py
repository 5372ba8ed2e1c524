"""NT-Xent, SimCLR's contrast between two views of an image (Chen et al. 2020, arXiv:2002.05709, equation 1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_zoo.nn.processes import gather_with_gradient, rank
from multimodal_zoo.objectives.blockwise import MASKED, everyones_concepts
from multimodal_zoo.objectives.chunked_cross_entropy import linear_cross_entropy


def nt_xent(
    first: Tensor,
    second: Tensor,
    temperature: float = 0.1,
    concepts: Tensor | None = None,
    block_size: int = 256,
) -> Tensor:
    """Each of a batch's 2 * batch views finds the other view of its image among both views of all images.

    Similarity is the cosine divided by the temperature, a view never meets itself, and the cross-entropies are
    averaged over this process's 2 * batch views. Exact under data parallelism as `contrastive_loss` is: parameter
    gradients averaged over processes are those of one process with the whole batch.

    Args:
        first: (batch, width), features of the first view, of any length. Half precision is compared in float32.
        second: (batch, width), of the second view; row i shows the image of row i of `first`.
        temperature: what cosines are divided by.
        concepts: (batch,) long; images of one concept are not negatives of each other. Negative ids: no concept.
        block_size: views compared with all others at a time; changes memory and speed, not the result.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes that do not fit, an empty batch, a temperature that is not positive, a `block_size` below
            one.
    """
    _check(first, second, temperature, concepts)
    dtype = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    known = everyones_concepts(concepts, len(first), first.device)
    with torch.autocast(first.device.type, enabled=False):
        views = torch.stack([first, second], dim=1)  # a gather keeps the two views of an image side by side
        everyones = gather_with_gradient(views)
        rows = F.normalize(views.to(dtype), dim=-1).flatten(0, 1)
        columns = rows if everyones is views else F.normalize(everyones.to(dtype), dim=-1).flatten(0, 1)
        number = len(rows) * rank() + torch.arange(len(rows), device=rows.device)  # each row's own column
        hide = _Hide(number, *known)
        return linear_cross_entropy(rows / temperature, columns, None, number ^ 1, block_size, hide)


class _Hide:
    """Masks what is no negative of a view: itself, and views of other images of its concept."""

    def __init__(self, number: Tensor, own: Tensor | None, everyones: Tensor | None) -> None:
        self.number = number
        self.own = None if own is None else own.repeat_interleave(2)
        self.everyones = None if everyones is None else everyones.repeat_interleave(2)

    def __call__(self, block: slice, logits: Tensor) -> None:
        number = self.number[block, None]
        if self.own is not None:
            own = self.own[block, None]
            same = (own == self.everyones) & (own >= 0)
            logits.masked_fill_(same.scatter_(1, number ^ 1, False), MASKED)
        logits.scatter_(1, number, MASKED)


def _check(first: Tensor, second: Tensor, temperature: float, concepts: Tensor | None) -> None:
    if first.ndim != 2 or first.shape != second.shape or not len(first):
        shapes = f"first {tuple(first.shape)}, second {tuple(second.shape)}"
        raise ValueError(f"features of both views must be (batch, width) with batch > 0, not {shapes}")
    if not (first.is_floating_point() and second.is_floating_point()):
        raise ValueError(f"features must be floating-point, not {first.dtype} and {second.dtype}")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0 (configuration key: temperature)")
    if concepts is not None and concepts.shape != first.shape[:1]:
        raise ValueError(f"concepts must be ({len(first)},), one id for each image, not {tuple(concepts.shape)}")
