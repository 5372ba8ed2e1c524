"""How a dual encoder compares images and texts: by one vector each, or by the tokens of both."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from multimodal_zoo.encoders.heads import head_of
from multimodal_zoo.encoders.text_transformer import filled
from multimodal_zoo.nn.best_matches import Sequences, best_matches, mutual_matches
from multimodal_zoo.registry import ENCODERS

#: Token similarities held at once; 2**22 float32 values are 16 MiB.
BLOCK = 2**22


class Matching(Protocol):
    """What an evaluation asks of a model's way of comparing; parts of `model.matching` have it.

    Features are what the encoders give, not normalised; the evaluation normalises them along the last axis.

    Attributes:
        vectors: whether features are one vector a sample, compared by inner product; if not, `scores` compares them.
    """

    vectors: bool

    def encode_image(self, model: Any, images: Tensor) -> Tensor:
        """Features `(batch, ...)` of images `(batch, 3, height, width)`."""
        ...

    def encode_text(self, model: Any, ids: Tensor) -> Tensor:
        """Features `(batch, ...)` of token ids `(batch, tokens)`."""
        ...

    def readout(self, model: Any, images: Tensor) -> Tensor:
        """One vector an image `(batch, width)` before any projection: what a linear probe reads."""
        ...

    def class_mean(self, prompts: Tensor) -> Tensor:
        """The mean `(...)` of the normalised features `(prompts, ...)` of one class."""
        ...

    def image_scores(self, images: Tensor, texts: Tensor) -> Tensor:
        """How well each text fits each image, `(images, texts)`, from normalised features."""
        ...

    def scores(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Both directions from normalised features: `(images, texts)` and `(texts, images)`."""
        ...


class GlobalMatching:
    """Cosine similarity of the embeddings: what a model without a `matching` does (CLIP, arXiv 2103.00020)."""

    vectors = True

    def encode_image(self, model: Any, images: Tensor) -> Tensor:
        """The model's embeddings `(batch, embed_dim)`."""
        return model.encode_image(images)

    def encode_text(self, model: Any, ids: Tensor) -> Tensor:
        """The model's embeddings `(batch, embed_dim)`."""
        return model.encode_text(ids)

    def readout(self, model: Any, images: Tensor) -> Tensor:
        """The image tower's pooled output `(batch, width)`."""
        return model.image(images).pooled

    def class_mean(self, prompts: Tensor) -> Tensor:
        """Mean embedding `(embed_dim)` of `(prompts, embed_dim)`."""
        return prompts.mean(dim=0)

    def image_scores(self, images: Tensor, texts: Tensor) -> Tensor:
        """Inner products `(images, texts)`."""
        return images @ texts.T

    def scores(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Inner products `(images, texts)`, and the same the other way round."""
        return images @ texts.T, texts @ images.T


@ENCODERS.register_module(name="token_matching")
class TokenMatching(nn.Module):
    """Each token takes its best match on the other side, a sample's score is their mean (FILIP, arXiv 2111.07783).

    For models whose global embeddings were never trained. It has no parameters: the mapped tokens are those of a head.

    Args:
        head: the model's head that maps tokens of both towers into one space.
        padding: whether texts are filled up to the tower's context and the filled places take part, as in the published
            code and weights; False leaves them out, as FILIP's paper has it.
    """

    vectors = False

    def __init__(self, head: str = "token_wise", padding: bool = True) -> None:
        super().__init__()
        self.head, self.padding = head, padding

    def extra_repr(self) -> str:
        """The arguments; results that were saved for other ones are not used again."""
        return f"head={self.head!r}, padding={self.padding}"

    def encode_image(self, model: Any, images: Tensor) -> Tensor:
        """Mapped patches `(batch, patches, width)`."""
        return model.encode_image_tokens(images, self.head)

    def encode_text(self, model: Any, ids: Tensor) -> Tensor:
        """Mapped tokens `(batch, context, width)`; without padding, zeros stand at the filled places."""
        return model.encode_text_tokens(ids, self.head, self.padding)

    def readout(self, model: Any, images: Tensor) -> Tensor:
        """The mean of the patches `(batch, width)`: no loss ever reached the pooled output of such a model."""
        return _patches(model, images).mean(dim=1)

    def class_mean(self, prompts: Tensor) -> Tensor:
        """Mean over `(prompts, places, width)` place by place, of the prompts that have the place."""
        present = prompts.ne(0).any(dim=-1).sum(dim=0)
        return prompts.sum(dim=0) / present.clamp(min=1)[:, None]

    def image_scores(self, images: Tensor, texts: Tensor) -> Tensor:
        """Mean over an image's patches of the best token of a text: `(images, texts)`."""
        return image_token_scores(images, texts)

    def scores(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Both directions from one product of all tokens."""
        return token_scores(images, texts)


def matching_of(model: Any) -> Matching:
    """How a model compares images and texts; embeddings, unless its `matching` says otherwise."""
    return getattr(model, "matching", None) or GlobalMatching()


def mapped_patches(model: Any, images: Tensor, head: str) -> Tensor:
    """Patches before the final norm, mapped and not normalised.

    Args:
        model: a dual encoder with that head.
        images: `(batch, 3, height, width)`.
        head: name of the head.

    Returns:
        `(batch, patches, width of the head's space)`.

    Raises:
        ValueError: no such head, or an image tower that gives no tokens.
    """
    return _matched(model, head).image(_patches(model, images))


def mapped_words(model: Any, ids: Tensor, head: str, padding: bool) -> Tensor:
    """The text tower's tokens behind its final norm, mapped and not normalised.

    Args:
        model: a dual encoder with that head.
        ids: `(batch, tokens)`.
        head: name of the head.
        padding: whether the places that fill a text up to the context have tokens like any other, as published; else
            they are zeros.

    Returns:
        `(batch, context, width of the head's space)`.

    Raises:
        ValueError: no such head, or texts longer than the context.
    """
    mapped = _matched(model, head).text
    features = model.text(filled(model.text, ids))
    tokens = mapped(features.tokens)
    return tokens if padding else tokens * features.mask[..., None]


def image_token_scores(images: Tensor, texts: Tensor) -> Tensor:
    """Mean over image tokens of the largest product with a token of each text (FILIP, equation 4).

    Args:
        images: `(images, n, width)`, normalised.
        texts: `(texts, m, width)`, normalised (or class matrices); a place of zeros is absent.

    Returns:
        `(images, texts)`.
    """
    return best_matches(Sequences(images), Sequences(texts, _present(texts)), _tile(images, texts))


def token_scores(images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of both directions from one product: `image_token_scores`, and the mean over a text's tokens.

    Args:
        images: `(images, n, width)`, normalised.
        texts: `(texts, m, width)`, normalised; a place of zeros is absent.

    Returns:
        `(images, texts)` and `(texts, images)`.
    """
    of_images, of_texts = mutual_matches(images, Sequences(texts, _present(texts)), _tile(images, texts))
    return of_images, of_texts.T


def _tile(images: Tensor, texts: Tensor) -> int:
    """Samples of either side whose products are held at once."""
    return max(1, int((BLOCK / (images.shape[1] * texts.shape[1])) ** 0.5))


def _present(texts: Tensor) -> Tensor | None:
    """Which places of each text are there, `(texts, m)`; None where all are."""
    present = texts.ne(0).any(dim=-1)
    return None if bool(present.all()) else present


def _patches(model: Any, images: Tensor) -> Tensor:
    tokens = model.image(images).tokens
    if tokens is None or tokens.shape[1] == 0:
        raise ValueError(
            f"model.matching compares tokens, and model.image ({type(model.image).__name__}) gives none; choose "
            "another encoder@model.image, or model.matching=null"
        )
    return tokens


def _matched(model: Any, name: str) -> Any:
    return head_of(model, name, "compare global embeddings with model.matching=null", kind="token_wise")
