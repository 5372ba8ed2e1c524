"""Supervision by tokens: patches and words that find each other (FILIP, arXiv 2111.07783)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.encoders.heads import head_of
from multimodal_zoo.encoders.image_tokens import token_width
from multimodal_zoo.objectives.image_text import Pair, read_pairs, views_of
from multimodal_zoo.objectives.self_supervision import require_width
from multimodal_zoo.objectives.token_matching import token_wise_loss
from multimodal_zoo.objectives.views import Needs, Views
from multimodal_zoo.registry import OBJECTIVES

if TYPE_CHECKING:
    from multimodal_zoo.encoders.dual_encoder import DualEncoder


@OBJECTIVES.register_module(name="token_wise")
class TokenWise(nn.Module):
    """InfoNCE over the mean, over one side's tokens, of the most similar token of the other side.

    Args:
        pairs: each an image view and a text view; the loss is their mean.
        top_k: tokens of each sample that are candidates, those most similar to the other side of their own pair (the
            later published code: 16); None: all of them (the first release, and the paper).
        padding: whether padding is compared too (both published versions), or real tokens alone (the paper).
        head: name of the model's head.
        block_size: pairs of either side compared at a time: memory and speed, never the result. 16 suits the caches of
            a processor; an accelerator is busier with more.
    """

    def __init__(
        self,
        pairs: Sequence[Pair] = (("first", "masked"),),
        top_k: int | None = 16,
        padding: bool = True,
        head: str = "token_wise",
        block_size: int = 16,
    ) -> None:
        super().__init__()
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}; it takes a number from 1, or null for all tokens")
        self.pairs = read_pairs(pairs, "objective.parts.*.pairs")
        self.top_k, self.padding, self.head, self.block_size = top_k, padding, head, block_size

    @property
    def needs(self) -> Needs:
        """The views of the pairs with their tokens."""
        views = views_of(self.pairs)
        if self.padding:
            return views._replace(image_tokens=views.images, text_tokens=views.texts)
        return views._replace(image_tokens=views.images, real_tokens=views.texts)

    def check(self, model: DualEncoder) -> None:
        """The model must have the head, of the widths of both towers' tokens; raises ValueError."""
        head = head_of(model, self.head)
        require_width(f"model.heads.{self.head}.image_width", head.image_width, token_width(model.image))
        require_width(f"model.heads.{self.head}.text_width", head.text_width, model.text.width)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Loss and accuracies, means over the pairs."""
        head = head_of(views.model, self.head)
        images, texts = views_of(self.pairs)[:2]
        image_tokens = {name: F.normalize(head.image(views.image(name).tokens), dim=-1) for name in images}
        text_tokens = {name: F.normalize(head.text(views.text(name).tokens), dim=-1) for name in texts}
        found = []
        for image, text in self.pairs:
            mask = None if self.padding else views.text(text).mask
            found.append(
                token_wise_loss(
                    image_tokens[image],
                    text_tokens[text],
                    head.scale(),
                    self.top_k,
                    text_mask=mask,
                    concepts=views.concepts,
                    block_size=self.block_size,
                )
            )
        loss, image_to_text, text_to_image = (torch.stack(values).mean() for values in zip(*found, strict=True))
        return {"loss": loss, "image_to_text_accuracy": image_to_text, "text_to_image_accuracy": text_to_image}
