"""Supervision of each side by itself: views of an image by each other, words of a text by the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.encoders.heads import head_of
from multimodal_zoo.nn.processes import summed, world_size
from multimodal_zoo.objectives.linear_cross_entropy import linear_cross_entropy
from multimodal_zoo.objectives.nt_xent import nt_xent
from multimodal_zoo.objectives.pairs import held_logits
from multimodal_zoo.objectives.views import Needs, Views
from multimodal_zoo.registry import OBJECTIVES

if TYPE_CHECKING:
    from multimodal_zoo.encoders.dual_encoder import DualEncoder


def require_width(key: str, found: int, wanted: int) -> None:
    """Refuse a head that does not fit its tower.

    Raises:
        ValueError: with the key to set.
    """
    if found != wanted:
        raise ValueError(f"{key} is {found}, but what it reads is {wanted} wide; set {key}={wanted}")


class _TwoViews(nn.Module):
    """What SimCLR and SimSiam have in common: two image views and a head."""

    def __init__(self, first: str, second: str, head: str) -> None:
        super().__init__()
        self.first, self.second, self.head = first, second, head

    @property
    def needs(self) -> Needs:
        """Both image views."""
        return Needs(images=(self.first, self.second))


@OBJECTIVES.register_module(name="simclr")
class Simclr(_TwoViews):
    """Two views of an image find each other among all views of all images (SLIP, arXiv 2112.12750; SimCLR's NT-Xent).

    The head takes the image tower's pooled features, not the embedding; each view has its own batch statistics.

    Args:
        first: an image view.
        second: another one.
        temperature: of the cosines.
        head: name of the model's head.
    """

    def __init__(
        self, first: str = "first", second: str = "second", temperature: float = 0.1, head: str = "simclr"
    ) -> None:
        super().__init__(first, second, head)
        self.temperature = temperature

    def check(self, model: DualEncoder) -> None:
        """The model must have the head, of the image tower's width; raises ValueError."""
        require_width(f"model.heads.{self.head}.width", head_of(model, self.head).width, model.image.width)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """The loss of this process's views."""
        head = head_of(views.model, self.head)
        first, second = (head(views.image(name).pooled) for name in (self.first, self.second))
        return {"loss": nt_xent(first, second, self.temperature, views.concepts)}


@OBJECTIVES.register_module(name="simsiam")
class Simsiam(_TwoViews):
    """One view's prediction meets the other view's projection, which gets no gradient (DeCLIP, section 3).

    The head takes the projected embeddings as they are, not normalised; each view has its own batch statistics.

    Args:
        first: an image view.
        second: another one.
        head: name of the model's head.
    """

    def __init__(self, first: str = "first", second: str = "second", head: str = "simsiam") -> None:
        super().__init__(first, second, head)

    def check(self, model: DualEncoder) -> None:
        """The model must have the head, of the embeddings' width; raises ValueError."""
        require_width(f"model.heads.{self.head}.width", head_of(model, self.head).width, model.embed_dim)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Minus the mean cosine, between -1 and 1."""
        head = head_of(views.model, self.head)
        (z1, p1), (z2, p2) = (head(views.image(name).embedding) for name in (self.first, self.second))
        cosines = F.cosine_similarity(p1, z2.detach(), dim=-1) + F.cosine_similarity(p2, z1.detach(), dim=-1)
        return {"loss": -cosines.mean() / 2}


@OBJECTIVES.register_module(name="masked_words")
class MaskedWords(nn.Module):
    """Words behind mask words are named (DeCLIP, section 3, after BERT, arXiv 1810.04805).

    In CLIP's causal tower a masked place sees what stands before it. The head is computed at masked places alone, and a
    batch in which nothing is masked gives 0 (the published code gives NaN).

    Args:
        text: the masked text view.
        head: name of the model's head.
        block_size: masked places whose logits are held at a time.
    """

    def __init__(self, text: str = "masked", head: str = "masked_words", block_size: int = 256) -> None:
        super().__init__()
        self.text, self.head, self.block_size = text, head, block_size

    @property
    def needs(self) -> Needs:
        """The masked text view."""
        return Needs(texts=(self.text,), masked_words=(self.text,))

    def check(self, model: DualEncoder) -> None:
        """The model must have the head, of the text tower's width and vocabulary; raises ValueError."""
        head = head_of(model, self.head)
        require_width(f"model.heads.{self.head}.width", head.width, model.text.width)
        if head.vocab_size != model.text.vocab_size:
            raise ValueError(
                f"model.heads.{self.head}.vocab_size is {head.vocab_size}, the text tower's is "
                f"{model.text.vocab_size}; they must be equal"
            )

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Cross-entropy of this process's masked places: the mean over processes is the mean over all places."""
        head, words = head_of(views.model, self.head), views.text(self.text).words
        labels, held = views.labels(self.text), held_logits(self.block_size, head.vocab_size)
        losses = linear_cross_entropy(words, head.weight, head.bias, labels, held).losses
        masked = summed(torch.tensor(len(labels), device=labels.device)).clamp_min(1)
        return {"loss": losses.sum() * world_size() / masked}
