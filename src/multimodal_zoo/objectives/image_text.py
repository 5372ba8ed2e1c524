"""Supervision of images by texts: CLIP's own, DeCLIP's multi-view and nearest-neighbour terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.nn.processes import gather
from multimodal_zoo.objectives.contrastive import contrastive_loss
from multimodal_zoo.objectives.linear_cross_entropy import linear_cross_entropy
from multimodal_zoo.objectives.pairs import MASKED, everyones_concepts, held_logits, own_columns
from multimodal_zoo.objectives.queue import NeighbourQueue
from multimodal_zoo.objectives.views import Needs, Views
from multimodal_zoo.registry import OBJECTIVES

if TYPE_CHECKING:
    from multimodal_zoo.encoders.dual_encoder import DualEncoder

#: An image view and a text view.
Pair = Sequence[str]


def read_pairs(pairs: Sequence[Pair], key: str) -> tuple[tuple[str, str], ...]:
    """Pairs of an image view and a text view.

    Raises:
        ValueError: none, or something that is no pair.
    """
    found = tuple(tuple(pair) for pair in pairs)
    if not found or any(len(pair) != 2 for pair in found):
        raise ValueError(f"{key} is {[list(pair) for pair in pairs]}; it needs pairs [image view, text view]")
    return tuple((image, text) for image, text in found)


def views_of(pairs: Sequence[tuple[str, str]]) -> Needs:
    """The views that pairs name."""
    images, texts = (tuple(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1))
    return Needs(images=images, texts=texts)


@OBJECTIVES.register_module(name="multi_view_contrast")
class MultiViewContrast(nn.Module):
    """Symmetric InfoNCE, the mean over pairs of views (DeCLIP, arXiv 2110.05208, section 3).

    With both image views and both text views that is the published term of DeCLIP, which holds CLIP's own as the first
    of four pairs; with one pair it is CLIP's (arXiv 2103.00020).

    Args:
        pairs: each an image view and a text view.
        block_size: rows of a similarity matrix held at a time.
    """

    def __init__(self, pairs: Sequence[Pair], block_size: int = 256) -> None:
        super().__init__()
        self.pairs = read_pairs(pairs, "objective.parts.*.pairs")
        self.block_size = block_size

    @property
    def needs(self) -> Needs:
        """The views of the pairs."""
        return views_of(self.pairs)

    def check(self, model: DualEncoder) -> None:
        """Every dual encoder will do."""

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Loss and accuracies, means over the pairs."""
        scale = views.model.scale()
        found = [
            contrastive_loss(
                views.image(image).normalised, views.text(text).normalised, scale, views.concepts, self.block_size
            )
            for image, text in self.pairs
        ]
        loss, image_to_text, text_to_image = (torch.stack(values).mean() for values in zip(*found, strict=True))
        return {"loss": loss, "image_to_text_accuracy": image_to_text, "text_to_image_accuracy": text_to_image}


@OBJECTIVES.register_module(name="image_text_contrast")
class ImageTextContrast(MultiViewContrast):
    """Symmetric InfoNCE of one image view and one text view: CLIP's objective (arXiv 2103.00020, figure 3).

    Args:
        image: the image view.
        text: the text view.
        block_size: rows of the similarity matrix held at a time.
    """

    def __init__(self, image: str = "plain", text: str = "plain", block_size: int = 256) -> None:
        super().__init__([(image, text)], block_size)


def one_sided_loss(
    rows: Tensor, columns: Tensor, scale: Tensor, concepts: Tensor | None, block_size: int = 256
) -> Tensor:
    """Cross-entropy of `scale * rows @ columns.T` along rows: only one side asks.

    Exact under data parallelism: the columns of all processes are the candidates of this process's rows.

    Args:
        rows: (batch, width), L2-normalised.
        columns: (batch, width), L2-normalised; row i's own is column i of its process. No gradient reaches them.
        scale: scalar.
        concepts: (batch,) long; pairs of one concept are no negatives of each other. Negative ids: no concept.
        block_size: rows whose logits are held at a time; changes memory and speed, not the result.
    """
    target = own_columns(len(rows), rows.device)
    known = everyones_concepts(concepts, len(rows), rows.device)

    def mask(some: slice, candidates: slice, logits: Tensor) -> None:
        """Overwrite pairs of one concept, but for each row's own."""
        if known is not None:
            logits.masked_fill_(known.same(some, candidates, target), MASKED)

    dtype = torch.promote_types(rows.dtype, torch.float32)
    with torch.autocast(rows.device.type, enabled=False):  # similarities decide by small differences
        asking, everyones = scale.to(dtype) * rows.to(dtype), gather(columns).to(dtype)
        held = held_logits(block_size, len(everyones))
        return linear_cross_entropy(asking, everyones, None, target, held, mask=mask).losses.mean()


@OBJECTIVES.register_module(name="nearest_neighbour")
class NearestNeighbour(nn.Module):
    """Images also meet the text that is nearest to theirs in a queue of earlier ones (DeCLIP, section 3).

    Each text view's feature is looked up in the queue as it was before the step; the neighbour takes its place in the
    loss, from image to text only. Gradient reaches the images and the temperature. After the look-up the texts enter
    the queue, in the order of `enqueue`, while training.

    Args:
        queue: earlier texts (`neighbour_queue`, ...).
        pairs: each an image view and the text view whose neighbour it meets.
        enqueue: text views that enter the queue, in order.
    """

    def __init__(self, queue: NeighbourQueue, pairs: Sequence[Pair], enqueue: Sequence[str]) -> None:
        super().__init__()
        self.queue = queue
        self.pairs = read_pairs(pairs, "objective.parts.*.pairs")
        self.enqueue = tuple(enqueue)

    @property
    def needs(self) -> Needs:
        """The views of the pairs, and those that enter the queue."""
        return views_of(self.pairs) | Needs(texts=self.enqueue)

    def check(self, model: DualEncoder) -> None:
        """The queue must hold what the model makes.

        Raises:
            ValueError: another width.
        """
        if self.queue.width != model.embed_dim:
            raise ValueError(
                f"queue.width is {self.queue.width}, the model's embeddings are {model.embed_dim} wide; set "
                f"queue.width={model.embed_dim}"
            )

    def check_batch(self, size: int) -> None:
        """The queue must hold what one step stores at a time: a batch, or those of all processes.

        Raises:
            ValueError: it is smaller.
        """
        if (stored := self.queue.stored(size)) > self.queue.size:
            raise ValueError(
                f"queue.size is {self.queue.size}, smaller than the batch of {stored} pairs; raise queue.size or lower "
                "data.batch_size"
            )

    def forward(self, views: Views) -> dict[str, Tensor]:
        """The loss, the mean over the pairs."""
        self.check_batch(len(views.batch))
        texts = views_of(self.pairs).texts
        asked = [views.text(name).normalised.detach() for name in texts]
        _, found = self.queue.nearest(torch.cat(asked))  # one look-up for all text views
        neighbours = dict(zip(texts, F.normalize(found, dim=-1).chunk(len(texts)), strict=True))
        scale = views.model.scale()
        losses = [
            one_sided_loss(views.image(image).normalised, neighbours[text], scale, views.concepts)
            for image, text in self.pairs
        ]
        if self.training:
            for name in self.enqueue:
                self.queue.enqueue(views.text(name).normalised.detach())
        return {"loss": torch.stack(losses).mean()}
