"""NT-Xent, SimCLR's contrast between two views of an image (Chen et al. 2020, arXiv:2002.05709, equation 1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from multimodal_zoo.nn.processes import gather_with_gradient
from multimodal_zoo.objectives.linear_cross_entropy import linear_cross_entropy
from multimodal_zoo.objectives.pairs import (
    MASKED,
    Concepts,
    check_features,
    everyones_concepts,
    held_logits,
    own_columns,
)


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
    check_features({"first": first, "second": second}, concepts)
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0 (configuration key: temperature)")
    dtype = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    known = everyones_concepts(concepts, len(first), first.device)
    with torch.autocast(first.device.type, enabled=False):
        views = torch.stack([first, second], dim=1)  # a gather keeps the two views of an image side by side
        everyones = gather_with_gradient(views)
        rows = F.normalize(views.to(dtype), dim=-1).flatten(0, 1)
        columns = rows if everyones is views else F.normalize(everyones.to(dtype), dim=-1).flatten(0, 1)
        number = own_columns(len(rows), rows.device)  # each row's own column; its neighbour is the other view
        hide = _Hide(number, len(columns), None if known is None else known.repeated(2))
        held = held_logits(block_size, len(columns))
        return linear_cross_entropy(rows / temperature, columns, None, number ^ 1, held, mask=hide).losses.mean()


class _Hide:
    """Masks what is no negative of a view: itself, and views of other images of its concept."""

    def __init__(self, number: Tensor, columns: int, concepts: Concepts | None) -> None:
        self.number, self.concepts = number, concepts
        self.columns = torch.arange(columns, device=number.device)

    def __call__(self, rows: slice, columns: slice, logits: Tensor) -> None:
        logits.masked_fill_(self.columns[columns] == self.number[rows, None], MASKED)
        if self.concepts is not None:
            logits.masked_fill_(self.concepts.same(rows, columns, self.number ^ 1), MASKED)
