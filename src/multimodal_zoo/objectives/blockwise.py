"""InfoNCE in both directions from blocks of the similarity matrix: memory grows with the batch, not with its square.

Each process owns a slab of the similarity matrix, its own images against the texts of all processes. Forward passes
over the slab once, in blocks of rows, and keeps the running log-sum-exp of each row (image to text) and each column
(text to image); the processes then combine their columns. Backward computes each block again, turns it into the
gradient of both directions together and spends one product on either side. That is four matrix products in all, where
two separate cross-entropies take six, and no logit is computed by two processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable

from multimodal_zoo.nn.processes import gather, rank, summed, world_size
from multimodal_zoo.objectives.pairs import MASKED, Concepts, everyones_concepts, own_columns


class InfoNCE(NamedTuple):
    """What one process's pairs give.

    Attributes:
        loss: mean over its pairs of both directions' cross-entropies, scalar.
        image_to_text: (batch,) bool, whether the image is nearest to its own text; a tie is a miss.
        text_to_image: (batch,) bool, the other direction.
    """

    loss: Tensor
    image_to_text: Tensor
    text_to_image: Tensor


def info_nce(image: Tensor, texts: Tensor, scale: Tensor, concepts: Tensor | None, block_size: int) -> InfoNCE:
    """Symmetric InfoNCE of this process's images against all texts.

    Args:
        image: (batch, width), float32 or float64.
        texts: (processes * batch, width), gathered with gradient.
        scale: scalar, what similarities are multiplied by.
        concepts: (batch,) ids of what the pairs show, or None.
        block_size: rows of the similarity matrix held at a time.
    """
    known = everyones_concepts(concepts, len(image), image.device)
    return InfoNCE(*_InfoNCE.apply(image, texts, scale, known, block_size))


class _Slab:
    """The rows of the similarity matrix that belong to this process, a block at a time."""

    def __init__(self, image: Tensor, texts: Tensor, concepts: Concepts | None, block_size: int) -> None:
        self.image, self.texts, self.concepts = image, texts, concepts
        self.own_column = own_columns(len(image), image.device)
        self.first = rank() * len(image)  # column of the first row's own text
        self.own = slice(self.first, self.first + len(image))
        rows = min(block_size, len(image))
        self.buffers = [image.new_empty(rows, len(texts)) for _ in range(2)]

    def blocks(self, scale: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Row range, logits and scratch space of each block; both tensors are overwritten by the next."""
        rows = len(self.buffers[0])
        for start in range(0, len(self.image), rows):
            block = slice(start, min(start + rows, len(self.image)))
            logits, scratch = (buffer[: block.stop - start] for buffer in self.buffers)
            torch.mm(self.image[block] * scale, self.texts.T, out=logits)
            if self.concepts is not None:
                logits.masked_fill_(self.concepts.same(block, slice(None), self.own_column), MASKED)
            yield block, logits, scratch

    def own_pairs(self, block: slice, values: Tensor) -> Tensor:
        """A view of the entries that belong to the pairs themselves."""
        return values[:, self.first + block.start :].diagonal()


class _InfoNCE(torch.autograd.Function):
    """Loss and hits in forward; backward recomputes the blocks."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, texts: Tensor, scale: Tensor, concepts: Concepts | None, block_size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(image.device.type, enabled=False):
            slab = _Slab(image, texts, concepts, block_size)
            own, row_lse, row_rival, column_lse, column_rival = _statistics(slab, scale)
        ctx.save_for_backward(image, texts, scale, row_lse, column_lse)
        ctx.concepts, ctx.block_size = concepts, block_size
        image_to_text, text_to_image = own > row_rival, own > column_rival[slab.own]
        ctx.mark_non_differentiable(image_to_text, text_to_image)
        return (row_lse + column_lse[slab.own] - 2 * own).mean() / 2, image_to_text, text_to_image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of images, texts and scale, from the kept log-sum-exps alone."""
        image, texts, scale, row_lse, column_lse = ctx.saved_tensors
        with torch.autocast(image.device.type, enabled=False):
            slab = _Slab(image, texts, ctx.concepts, ctx.block_size)
            gradients = _gradients(slab, scale, row_lse, column_lse, upstream)
        return *gradients, None, None


def _statistics(slab: _Slab, scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Own logit, log-sum-exp and best rival of each row, log-sum-exp and best rival of each column."""
    own, row_lse, row_rival = (slab.image.new_empty(len(slab.image)) for _ in range(3))
    column_max, column_rival = (slab.image.new_full((len(slab.texts),), MASKED) for _ in range(2))
    column_sum = slab.image.new_zeros(len(slab.texts))
    for block, logits, scratch in slab.blocks(scale):
        pairs = slab.own_pairs(block, logits)
        own[block] = pairs
        pairs.fill_(MASKED)
        row_rival[block] = logits.amax(1)
        column_rival = torch.maximum(column_rival, logits.amax(0))
        pairs.copy_(own[block])
        row_max = torch.maximum(own[block], row_rival[block])
        torch.sub(logits, row_max[:, None], out=scratch)
        row_lse[block] = row_max + scratch.exp_().sum(1).log_()
        highest = column_rival.clone()
        mine = slice(slab.first + block.start, slab.first + block.stop)
        highest[mine] = torch.maximum(highest[mine], own[block])
        highest = torch.maximum(highest, column_max)
        column_sum = column_sum * (column_max - highest).exp_() + logits.sub_(highest).exp_().sum(0)
        column_max = highest
    return own, row_lse, row_rival, *_over_processes(column_max + column_sum.log_(), column_rival)


def _over_processes(column_lse: Tensor, column_rival: Tensor) -> tuple[Tensor, Tensor]:
    """Log-sum-exp and best rival of whole columns from each process's part of them."""
    if world_size() == 1:
        return column_lse, column_rival
    both = torch.stack([column_lse, column_rival])
    dist.all_reduce(both, dist.ReduceOp.MAX)
    highest, rival = both
    return highest + summed((column_lse - highest).exp_()).log(), rival


def _gradients(
    slab: _Slab, scale: Tensor, row_lse: Tensor, column_lse: Tensor, upstream: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of images, texts and scale, all of them sums over the slab but the scale's (see `_own_share`)."""
    weight = upstream / (2 * len(slab.image))
    alone = world_size() == 1
    weights = weight if alone else gather(weight.reshape(1)).repeat_interleave(len(slab.image))  # each column's owner's
    image_gradient, text_gradient = torch.empty_like(slab.image), torch.zeros_like(slab.texts)
    by_column = slab.image.new_zeros(len(slab.texts))  # the columns' part of the scale's gradient
    for block, logits, scratch in slab.blocks(scale):
        torch.sub(logits, column_lse, out=scratch).exp_()
        if not alone:
            scratch.mul_(weights)
            by_column += (scratch * logits).sum(0)
        rows = logits.sub_(row_lse[block, None]).exp_()
        both = rows.add_(scratch) if alone else rows.mul_(weight).add_(scratch)
        slab.own_pairs(block, both).sub_(2 if alone else 2 * weight)
        torch.mm(both, slab.texts, out=image_gradient[block])
        text_gradient.addmm_(both.T, slab.image[block])
    if alone:
        image_gradient.mul_(weight)
        text_gradient.mul_(weight)
    scale_gradient = (image_gradient * slab.image).sum() + _others_share(slab, by_column / scale)
    return image_gradient.mul_(scale), text_gradient.mul_(scale), scale_gradient.reshape(scale.shape)


def _others_share(slab: _Slab, by_column: Tensor) -> Tensor:
    """What moves the scale's gradient from the slab's share to the share of this process's own loss.

    The scale is a parameter of every process, so each must receive the gradient of its own loss: the columns of other
    processes in this slab go out, the own columns in other processes' slabs come in.
    """
    if world_size() == 1:
        return by_column.new_zeros(())
    return summed(by_column)[slab.own].sum() - by_column.sum()
