"""Two towers and a common space."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.encoders.matching import mapped_patches, mapped_words
from multimodal_zoo.encoders.outputs import Embeddings
from multimodal_zoo.nn.shown_weights import ShowsWeights
from multimodal_zoo.registry import ENCODERS


class _StraightThrough(torch.autograd.Function):
    """`min(x, maximum)` in value only: the gradient is that of `x`, above the maximum too (DeCLIP's code)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, maximum: float) -> Tensor:
        return x.clamp(max=maximum)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        """Pass the gradient on."""
        return gradients[0], None


class _Ceiling(torch.autograd.Function):
    """`min(x, maximum)` whose gradient still reaches an `x` above the maximum when descent would bring it down.

    A plain clamp would have no gradient there: a temperature that overshot its limit once could never come back.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, maximum: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.maximum = maximum
        return x.clamp(max=maximum)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        """Pass the gradient below the maximum, and above it when descent lowers `x`."""
        (x,) = ctx.saved_tensors
        (gradient,) = gradients
        return torch.where((x <= ctx.maximum) | (gradient > 0), gradient, 0.0), None


@ENCODERS.register_module(name="logit_scale")
class LogitScale(nn.Module):
    """A learned inverse temperature, kept as its logarithm (arXiv 2103.00020, section 2.5).

    Args:
        initial: first value of the scale itself, `1 / temperature`.
        maximum: the scale never acts above this value; the parameter is not changed. Infinity is no limit.
    """

    def __init__(self, initial: float = 1 / 0.07, maximum: float = 100.0) -> None:
        super().__init__()
        if not 0 < initial <= maximum:
            raise ValueError(f"logit_scale.initial is {initial}; expected a value above 0 and up to {maximum}")
        self.initial, self.maximum = initial, maximum
        self.weight = nn.Parameter(torch.tensor(math.log(initial)))

    def reset_parameters(self) -> None:
        """Set the first value."""
        nn.init.constant_(self.weight, math.log(self.initial))

    def forward(self) -> Tensor:
        """The scale, a scalar of at most `maximum`."""
        return _Ceiling.apply(self.weight.exp(), self.maximum)


@ENCODERS.register_module(name="straight_through_logit_scale")
class StraightThroughLogitScale(LogitScale):
    """A learned inverse temperature that is cut in value only, as DeCLIP's published code does it.

    Above the maximum the parameter still gets the gradient of the uncut scale, in both directions.
    """

    def forward(self) -> Tensor:
        """The scale, a scalar of at most `maximum`."""
        return _StraightThrough.apply(self.weight.exp(), self.maximum)


@ENCODERS.register_module(name="linear_projection")
class LinearProjection(nn.Linear):
    """From a tower's width to the common space.

    Args:
        width: width of the tower.
        embed_dim: width of the common space.
        bias: whether there is a bias (DeCLIP's text tower, most of EVA-CLIP); CLIP has none.
        std: deviation of the first weights; None stands for `width ** -0.5`.
    """

    def __init__(self, width: int, embed_dim: int, bias: bool = False, std: float | None = None) -> None:
        self.std = width**-0.5 if std is None else std
        super().__init__(width, embed_dim, bias)
        self.width, self.embed_dim = width, embed_dim

    def reset_parameters(self) -> None:
        """Normal with a deviation of `std`, zero bias."""
        nn.init.normal_(self.weight, std=self.std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


@ENCODERS.register_module(name="identity_projection")
class IdentityProjection(nn.Module):
    """For a tower that lives in the common space already.

    Args:
        width: width of the tower.
        embed_dim: width of the common space, the same number.
    """

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        if width != embed_dim:
            raise ValueError(
                f"identity_projection cannot map width {width} to embed_dim {embed_dim}; use linear_projection"
            )
        self.width, self.embed_dim = width, embed_dim

    def forward(self, features: Tensor) -> Tensor:
        """The features, as they are."""
        return features


def pooled_features(encoder: nn.Module, inputs: Tensor) -> Tensor:
    """The pooled features; an encoder that can compute them alone, cheaper than with all tokens, has `pooled`."""
    alone = getattr(encoder, "pooled", None)
    return alone(inputs) if callable(alone) else encoder(inputs).pooled


def normed_patches(encoder: nn.Module, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Patch tokens `(batch, patches, width)` behind the final norm of any image encoder, and their grid.

    An encoder that gives its patches without the final norm has `norm_patches`.
    """
    features = encoder(images)
    norm = getattr(encoder, "norm_patches", None)
    return norm(features.tokens) if callable(norm) else features.tokens, features.grid


@ENCODERS.register_module(name="dual_encoder")
class DualEncoder(ShowsWeights):
    """An image tower and a text tower whose projections meet in one space (CLIP, arXiv 2103.00020).

    Args:
        image: image encoder; gives `ImageFeatures`.
        text: text encoder; gives `TextFeatures`.
        image_projection: from the image tower's width to `embed_dim`.
        text_projection: from the text tower's width to `embed_dim`.
        logit_scale: gives the inverse temperature.
        embed_dim: width of the common space.
        heads: further layers that objectives train beside the towers, by name (`simsiam`, ...); None leaves one out.
        matching: how images and texts are compared, where not by their global embeddings (`token_matching`); or None.
    """

    def __init__(
        self,
        image: nn.Module,
        text: nn.Module,
        image_projection: nn.Module,
        text_projection: nn.Module,
        logit_scale: nn.Module,
        embed_dim: int,
        heads: Mapping[str, nn.Module | None] | None = None,
        matching: nn.Module | None = None,
    ) -> None:
        super().__init__()
        for side, tower, projection in (("image", image, image_projection), ("text", text, text_projection)):
            if tower.width != projection.width or projection.embed_dim != embed_dim:
                raise ValueError(
                    f"{side}_projection maps {projection.width} to {projection.embed_dim}; the {side} tower has width "
                    f"{tower.width} and embed_dim is {embed_dim}"
                )
        self.embed_dim = embed_dim
        self.image, self.text = image, text
        self.image_projection, self.text_projection = image_projection, text_projection
        self.logit_scale = logit_scale
        self.heads = nn.ModuleDict({name: head for name, head in (heads or {}).items() if head is not None})
        self.matching = matching

    def encode_image(self, images: Tensor) -> Tensor:
        """L2-normalised embeddings `(batch, embed_dim)` of images `(batch, 3, height, width)`."""
        return F.normalize(self.image_projection(pooled_features(self.image, images)), dim=-1)

    def encode_patches(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Every patch in the common space, `(batch, patches, embed_dim)`: final norm and projection on each token.

        Args:
            images: `(batch, 3, height, width)`.
            normalize: whether each token is L2-normalised; a teacher's are not.
        """
        tokens = self.image_projection(normed_patches(self.image, images)[0])
        return F.normalize(tokens, dim=-1) if normalize else tokens

    def encode_text(self, ids: Tensor) -> Tensor:
        """L2-normalised embeddings `(batch, embed_dim)` of token ids `(batch, tokens)`."""
        return F.normalize(self.text_projection(pooled_features(self.text, ids)), dim=-1)

    def encode_image_tokens(self, images: Tensor, head: str = "token_wise") -> Tensor:
        """Patches mapped by a head and not normalised, `(batch, patches, width)`: what FILIP compares."""
        return mapped_patches(self, images, head)

    def encode_text_tokens(self, ids: Tensor, head: str = "token_wise", padding: bool = True) -> Tensor:
        """Text tokens mapped by a head and not normalised, `(batch, context, width)`; see `mapped_words`."""
        return mapped_words(self, ids, head, padding)

    def scale(self) -> Tensor:
        """The inverse temperature, a scalar that is already exponentiated and at most the maximum."""
        return self.logit_scale()

    def forward(self, images: Tensor, ids: Tensor) -> Embeddings:
        """Embeddings of images `(batch, 3, height, width)` and of token ids `(batch, tokens)`."""
        return Embeddings(self.encode_image(images), self.encode_text(ids), self.scale())
