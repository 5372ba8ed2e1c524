"""NT-Xent, SimCLR's contrast between two views of an image (Chen et al. 2020, arXiv:2002.05709, equation 1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_zoo.objectives.blockwise import MASKED, everyones_concepts
from multimodal_zoo.objectives.gather import gather_with_gradient, rank, world_size


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.1, concepts: Tensor | None = None) -> Tensor:
    """Each of a batch's 2 * batch views finds the other view of its image among both views of all images.

    Similarity is the cosine divided by the temperature, a view never meets itself, and the cross-entropies are
    averaged over this process's 2 * batch rows. Exact under data parallelism like `contrastive_loss`: parameter
    gradients averaged over processes are those of one process with the whole batch.

    Args:
        first: (batch, width), features of the first view, of any length; compared in float32 if they are of half
            precision.
        second: (batch, width), of the second view; row i shows the image of row i of `first`.
        temperature: what cosines are divided by.
        concepts: (batch,) long; images of one concept are not negatives of each other. Negative ids: no concept.

    Returns:
        Scalar.

    Raises:
        ValueError: shapes that do not fit, an empty batch, a temperature that is not positive.
    """
    _check(first, second, temperature, concepts)
    dtype = torch.promote_types(first.dtype, torch.float32)
    own, everyones = everyones_concepts(concepts, len(first), first.device)
    with torch.autocast(first.device.type, enabled=False):
        views = torch.stack([first.to(dtype), second.to(dtype)], dim=1)
        views = F.normalize(views, dim=-1)  # (batch, 2, width): a gather keeps the two views of an image side by side
        columns = gather_with_gradient(views)
        rows = views.transpose(0, 1).flatten(0, 1)
        logits = rows @ columns.transpose(0, 1).flatten(0, 1).T / temperature
        return F.cross_entropy(_without_self(logits, own, everyones), _partners(len(first), first.device))


def _partners(batch: int, device: torch.device) -> Tensor:
    """Column of the other view of each row's image."""
    number = rank() * batch + torch.arange(batch, device=device)
    return torch.cat([number + world_size() * batch, number])


def _without_self(logits: Tensor, own: Tensor | None, everyones: Tensor | None) -> Tensor:
    """The logits with those masked that are no negatives: a row's own entry, and other images of its concept."""
    batch = len(logits) // 2
    others = _partners(batch, logits.device).roll(batch)  # each row's own column
    barred = torch.zeros_like(logits, dtype=torch.bool)
    if own is not None and everyones is not None:
        barred = ((own[:, None] == everyones) & (own[:, None] >= 0)).repeat(2, 2)
        barred.scatter_(1, _partners(batch, logits.device)[:, None], False)
    return logits.masked_fill(barred.scatter_(1, others[:, None], True), MASKED)


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
