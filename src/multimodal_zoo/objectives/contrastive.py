"""Symmetric contrastive loss over image-text pairs (CLIP, Radford et al. 2021, arXiv:2103.00020, figure 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.processes import gather_with_gradient
from multimodal_zoo.objectives.batch import ImageTextBatch
from multimodal_zoo.objectives.blockwise import info_nce
from multimodal_zoo.objectives.chunks import encode_in_chunks, row_mixing_layer
from multimodal_zoo.objectives.pairs import check_features, check_scale
from multimodal_zoo.registry import OBJECTIVES

if TYPE_CHECKING:
    from multimodal_zoo.encoders.dual_encoder import DualEncoder


class ContrastiveLoss(NamedTuple):
    """A contrastive loss and how often it was right.

    Attributes:
        loss: scalar, mean over this process's pairs of the cross-entropies of both directions.
        image_to_text_accuracy: share of images nearest to their own text among all texts; a tie is a miss.
        text_to_image_accuracy: share of texts nearest to their own image.
    """

    loss: Tensor
    image_to_text_accuracy: Tensor
    text_to_image_accuracy: Tensor


def contrastive_loss(
    image: Tensor, text: Tensor, scale: Tensor, concepts: Tensor | None = None, block_size: int = 256
) -> ContrastiveLoss:
    """Cross-entropy of `scale * image @ text.T` along rows and along columns, averaged.

    Exact under data parallelism: each process passes its own rows and receives the loss of its own rows against the
    pairs of all; features receive gradient from every process's loss. Parameter gradients averaged over processes are
    those of one process with the whole batch. Half-precision features are compared in float32.

    Args:
        image: (batch, width), L2-normalised image features; row i belongs to row i of `text`.
        text: (batch, width), L2-normalised text features.
        scale: scalar, inverse temperature.
        concepts: (batch,) long; pairs of one concept are not negatives of each other. Negative ids: no concept.
        block_size: rows of the similarity matrix held at a time; changes memory and speed, not the result.

    Raises:
        ValueError: shapes that do not fit, an empty batch, a `block_size` below one.
    """
    check_features({"image": image, "text": text}, concepts)
    check_scale(scale)
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}; it must be at least 1 (configuration key: objective.block_size)")
    dtype = torch.promote_types(image.dtype, torch.float32)
    texts = gather_with_gradient(text)  # before the cast: half precision travels as it is
    loss, image_hits, text_hits = info_nce(image.to(dtype), texts.to(dtype), scale.to(dtype), concepts, block_size)
    return ContrastiveLoss(loss, image_hits.to(dtype).mean(), text_hits.to(dtype).mean())


@OBJECTIVES.register_module(name="contrastive")
class ContrastiveObjective(nn.Module):
    """CLIP's objective: image and text of a pair meet, all other pairs of the batch are pushed apart.

    Args:
        block_size: rows of the similarity matrix held at a time.
        chunk_size: pairs encoded at a time, features being cached (see `encode_in_chunks`); None encodes the whole
            batch at once.
    """

    def __init__(self, block_size: int = 256, chunk_size: int | None = None) -> None:
        super().__init__()
        for key, value in (("block_size", block_size), ("chunk_size", chunk_size)):
            if value is not None and value < 1:
                raise ValueError(f"{key} is {value}; it must be at least 1 (configuration key: objective.{key})")
        self.block_size = block_size
        self.chunk_size = chunk_size

    def forward(self, model: DualEncoder, batch: ImageTextBatch) -> dict[str, Tensor]:
        """Loss and metrics of this process's pairs.

        Returns:
            "loss", to back-propagate; "image_to_text_accuracy", "text_to_image_accuracy" and "logit_scale", detached.

        Raises:
            ValueError: `chunk_size` is set and the model has batch norm in training mode, which mixes rows.
        """
        image, text, scale = self._encode(model, batch)
        loss, image_to_text, text_to_image = contrastive_loss(image, text, scale, batch.concepts, self.block_size)
        return {
            "loss": loss,
            "image_to_text_accuracy": image_to_text,
            "text_to_image_accuracy": text_to_image,
            "logit_scale": scale.detach(),
        }

    def _encode(self, model: DualEncoder, batch: ImageTextBatch) -> tuple[Tensor, Tensor, Tensor]:
        if self.chunk_size is None or self.chunk_size >= len(batch):
            return model(batch.images, batch.ids)
        if (name := row_mixing_layer(model)) is not None:
            raise ValueError(
                f"objective.chunk_size={self.chunk_size} with batch norm in {name!r}: its statistics would be "
                "those of a chunk. Set objective.chunk_size=null, or put the layer in eval mode"
            )
        image = encode_in_chunks(model.encode_image, batch.images, self.chunk_size)
        return image, encode_in_chunks(model.encode_text, batch.ids, self.chunk_size), model.scale()

    def extra_repr(self) -> str:
        """What print() shows."""
        return f"block_size={self.block_size}, chunk_size={self.chunk_size}"
