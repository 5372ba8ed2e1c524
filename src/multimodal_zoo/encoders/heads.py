"""The layers that supervisions train beside the two towers: they belong to a checkpoint, not to the embeddings."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from multimodal_zoo.registry import ENCODERS


def head_of(model: Any, name: str, otherwise: str = "choose a model that has it", kind: str | None = None) -> Any:
    """A head of a model.

    Args:
        model: with `heads`, or without any.
        name: of the head.
        otherwise: what else can be done where it is not there.
        kind: the head that is added for it, an option of the group `head`; None: the one of that name.

    Raises:
        ValueError: the model has none of that name, with the override that adds it.
    """
    heads = getattr(model, "heads", {})
    if name not in heads:
        raise ValueError(
            f"needs model.heads.{name}, the model has {', '.join(heads) or 'no heads'}; add "
            f"+head@model.heads.{name}={kind or name}, or {otherwise}"
        )
    return heads[name]


@ENCODERS.register_module(name="simclr_head")
class SimclrHead(nn.Module):
    """Three layers from the image tower's features to the space where views are compared (SLIP, arXiv 2112.12750).

    Args:
        width: of the image tower's pooled features.
        hidden: width of both hidden layers.
        output: width of the space.
    """

    def __init__(self, width: int, hidden: int = 4096, output: int = 256) -> None:
        super().__init__()
        self.width, self.hidden, self.output = width, hidden, output
        self.linear1, self.norm1 = nn.Linear(width, hidden), nn.BatchNorm1d(hidden)
        self.linear2, self.norm2 = nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden)
        self.linear3 = nn.Linear(hidden, output)
        # in every published checkpoint and never called; without gradient no optimiser touches it
        self.idle_norm = nn.BatchNorm1d(hidden).requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """One view's features `(batch, width)` to `(batch, output)`; batch statistics are those of the view."""
        hidden = self.norm1(self.linear1(features)).relu()
        return self.linear3(self.norm2(self.linear2(hidden)).relu())


class SimsiamProjector(nn.Module):
    """Three linear layers, each with a batch norm, ReLU behind the first two (SimSiam, arXiv 2011.10566, section 4)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear1, self.norm1 = nn.Linear(width, hidden), nn.BatchNorm1d(hidden)
        self.linear2, self.norm2 = nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden)
        self.linear3, self.norm3 = nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden)

    def forward(self, embeddings: Tensor) -> Tensor:
        """`(batch, width)` to `(batch, hidden)`."""
        hidden = self.norm1(self.linear1(embeddings)).relu()
        hidden = self.norm2(self.linear2(hidden)).relu()
        return self.norm3(self.linear3(hidden))


class SimsiamPredictor(nn.Module):
    """A bottleneck that predicts one view's projection from the other's."""

    def __init__(self, hidden: int, bottleneck: int) -> None:
        super().__init__()
        self.linear1, self.norm1 = nn.Linear(hidden, bottleneck), nn.BatchNorm1d(bottleneck)
        self.linear2 = nn.Linear(bottleneck, hidden)

    def forward(self, projections: Tensor) -> Tensor:
        """`(batch, hidden)` to the same."""
        return self.linear2(self.norm1(self.linear1(projections)).relu())


@ENCODERS.register_module(name="simsiam_head")
class SimsiamHead(nn.Module):
    """Projector and predictor of DeCLIP's image self-supervision, on projected embeddings that are not normalised.

    Args:
        width: of the embeddings (the model's `embed_dim`).
        hidden: width of the projector.
        bottleneck: inner width of the predictor.
    """

    def __init__(self, width: int, hidden: int = 1024, bottleneck: int = 512) -> None:
        super().__init__()
        self.width = width
        self.projector = SimsiamProjector(width, hidden)
        self.predictor = SimsiamPredictor(hidden, bottleneck)

    def forward(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Projection and prediction `(batch, hidden)` of one view's embeddings `(batch, width)`."""
        projection = self.projector(embeddings)
        return projection, self.predictor(projection)


@ENCODERS.register_module(name="masked_word_head")
class MaskedWordHead(nn.Linear):
    """From the text tower's tokens to the vocabulary; not tied to the token embedding.

    Args:
        width: of the text tower.
        vocab_size: number of ids.
    """

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__(width, vocab_size)
        self.width, self.vocab_size = width, vocab_size


@ENCODERS.register_module(name="token_wise_head")
class TokenWiseHead(nn.Module):
    """Maps tokens of both towers into one space, with a temperature of its own (FILIP, arXiv 2111.07783).

    Args:
        image_width: of the image tower's tokens.
        text_width: of the text tower's tokens.
        embed_dim: width of the space.
        logit_scale: gives the inverse temperature.
    """

    def __init__(self, image_width: int, text_width: int, embed_dim: int, logit_scale: nn.Module) -> None:
        super().__init__()
        self.image_width, self.text_width, self.embed_dim = image_width, text_width, embed_dim
        self.image = nn.Linear(image_width, embed_dim)
        self.text = nn.Linear(text_width, embed_dim)
        self.logit_scale = logit_scale

    def scale(self) -> Tensor:
        """The inverse temperature, a scalar."""
        return self.logit_scale()
