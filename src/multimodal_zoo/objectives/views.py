"""A batch through the towers: each view is encoded once, when a supervision first asks, and only as far as asked."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from multimodal_zoo.encoders.dual_encoder import pooled_features
from multimodal_zoo.encoders.text_transformer import end_positions, filled
from multimodal_zoo.objectives.batch import ImageTextBatch, MultiViewBatch

if TYPE_CHECKING:
    from multimodal_zoo.encoders.dual_encoder import DualEncoder


class Needs(NamedTuple):
    """Which views a supervision reads, and of which it reads more than the embedding.

    Attributes:
        images: image views.
        texts: text views.
        image_tokens: image views whose tokens it reads.
        text_tokens: text views of which it reads the tokens at every place of the context, padding too.
        real_tokens: text views of which it reads the tokens at the places of real tokens.
        masked_words: text views of which it reads the tokens at masked places.
    """

    images: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    image_tokens: tuple[str, ...] = ()
    text_tokens: tuple[str, ...] = ()
    real_tokens: tuple[str, ...] = ()
    masked_words: tuple[str, ...] = ()

    def __or__(self, other: object) -> Needs:
        """The views of both, each once, in order of appearance."""
        if not isinstance(other, Needs):
            return NotImplemented
        return Needs(*(tuple(dict.fromkeys((*mine, *theirs))) for mine, theirs in zip(self, other, strict=True)))


class EncodedImage:
    """One view of the images.

    Args:
        model: encodes it.
        images: (batch, 3, height, width).
        dense: whether the tokens are wanted.
    """

    def __init__(self, model: DualEncoder, images: Tensor, dense: bool) -> None:
        self._model = model
        if dense:
            features = model.image(images)
            self.pooled, self._tokens = features.pooled, features.tokens
        else:
            self.pooled, self._tokens = pooled_features(model.image, images), None

    @property
    def tokens(self) -> Tensor:
        """The patches (batch, tokens, width), before the final norm.

        Raises:
            ValueError: the image tower gives none.
        """
        if self._tokens is None or self._tokens.shape[1] == 0:
            raise ValueError(
                f"model.image: {type(self._model.image).__name__} gives no tokens, which a token-wise supervision "
                "needs; choose another encoder@model.image or leave that part of the objective out"
            )
        return self._tokens

    @cached_property
    def embedding(self) -> Tensor:
        """Projected, not normalised: (batch, embed_dim)."""
        return self._model.image_projection(self.pooled)

    @cached_property
    def normalised(self) -> Tensor:
        """L2-normalised embedding, (batch, embed_dim)."""
        return F.normalize(self.embedding, dim=-1)


class EncodedText:
    """One view of the texts.

    Args:
        model: encodes it.
        ids: (batch, longest), padded.
        labels: original ids at masked places, -100 elsewhere, where masked places are wanted; or None.
        dense: whether all tokens are wanted.
    """

    def __init__(self, model: DualEncoder, ids: Tensor, labels: Tensor | None, dense: bool) -> None:
        self._model, self._labels = model, labels
        self._tokens: Tensor | None = None
        self._mask: Tensor | None = None
        self._words: Tensor | None = None
        chosen = getattr(model.text, "chosen", None)
        if dense or (labels is not None and not callable(chosen)):
            features = model.text(ids)
            self.pooled, self._tokens, self._mask = features.pooled, features.tokens, features.mask
        elif labels is not None:
            self.pooled, self._words = _ends_and_words(chosen, ids, labels)
        else:
            self.pooled = pooled_features(model.text, ids)

    @property
    def tokens(self) -> Tensor:
        """The last layer at every place, (batch, places, width)."""
        assert self._tokens is not None, "the supervision did not say that it needs the tokens of this text view"
        return self._tokens

    @property
    def mask(self) -> Tensor:
        """(batch, places) bool: real tokens."""
        assert self._mask is not None, "the supervision did not say that it needs the tokens of this text view"
        return self._mask

    @property
    def words(self) -> Tensor:
        """The last layer at masked places, text by text: (masked, width)."""
        if self._words is not None:
            return self._words
        assert self._labels is not None
        return self.tokens[:, : self._labels.shape[1]][self._labels >= 0]

    @cached_property
    def embedding(self) -> Tensor:
        """Projected, not normalised: (batch, embed_dim)."""
        return self._model.text_projection(self.pooled)

    @cached_property
    def normalised(self) -> Tensor:
        """L2-normalised embedding, (batch, embed_dim)."""
        return F.normalize(self.embedding, dim=-1)


def _ends_and_words(chosen: object, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled features and masked words, nothing else being computed in the last block."""
    assert callable(chosen)
    places = torch.arange(ids.shape[1], device=ids.device)
    ends, masked = places == end_positions(ids)[:, None], labels >= 0
    wanted = ends | masked
    tokens = chosen(ids, wanted)  # (wanted, width), text by text
    return tokens[ends[wanted]], tokens[masked[wanted]]


class Views:
    """The views of a batch, encoded when they are asked for.

    Args:
        model: encodes them.
        batch: has the views; a batch of plain pairs has one of each side, `plain`.
        needs: everything that will be asked for.

    Raises:
        ValueError: the batch lacks a view.
    """

    def __init__(self, model: DualEncoder, batch: MultiViewBatch | ImageTextBatch, needs: Needs) -> None:
        if isinstance(batch, ImageTextBatch):
            batch = MultiViewBatch({"plain": batch.images}, {"plain": batch.ids}, {}, batch.keys, batch.concepts)
        require_views("image", needs.images, batch.images)
        require_views("text", needs.texts, batch.texts)
        require_views("masked text", needs.masked_words, batch.labels)
        self.model, self.batch, self.needs = model, batch, needs
        self._images: dict[str, EncodedImage] = {}
        self._texts: dict[str, EncodedText] = {}

    @property
    def concepts(self) -> Tensor | None:
        """What the pairs show, or None."""
        return self.batch.concepts

    def image(self, name: str) -> EncodedImage:
        """One image view."""
        if name not in self._images:
            self._images[name] = EncodedImage(self.model, self.batch.images[name], name in self.needs.image_tokens)
        return self._images[name]

    def text(self, name: str) -> EncodedText:
        """One text view; its tokens cover the whole context where a supervision needs padding too."""
        if name not in self._texts:
            ids = self.batch.texts[name]
            labels = self.batch.labels.get(name) if name in self.needs.masked_words else None
            if name in self.needs.text_tokens:
                ids = filled(self.model.text, ids)
            dense = name in self.needs.text_tokens or name in self.needs.real_tokens
            self._texts[name] = EncodedText(self.model, ids, labels, dense)
        return self._texts[name]

    def labels(self, name: str) -> Tensor:
        """Original ids at the masked places of a text view, text by text: (masked,)."""
        labels = self.batch.labels[name]
        return labels[labels >= 0]


def require_views(side: str, needed: Collection[str], given: Collection[str]) -> None:
    """Refuse data that lacks a view.

    Raises:
        ValueError: with the missing views and the keys to change.
    """
    if missing := [name for name in needed if name not in given]:
        group = "images" if side == "image" else "texts"
        raise ValueError(
            f"the objective needs the {side} views {', '.join(missing)}, the data gives {', '.join(given) or 'none'}; "
            f"choose a data set with such views (data.{group}) or another objective"
        )
