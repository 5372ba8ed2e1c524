"""Tokens of two kinds in one batch, sorted so that each kind lies in one piece."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class _Permuted(torch.autograd.Function):
    """Rows in another order; the gradient is taken back by the inverse order, which is faster than adding up rows."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The rows of the gradient where they came from."""
        _, inverse = ctx.saved_tensors
        return gradients[0].index_select(0, inverse), None, None


@dataclass(frozen=True, eq=False)
class Route:
    """Where tokens of text and of pictures stand.

    Attributes:
        vision: bool (batch, tokens), True at tokens of pictures.
        text: long (n,), places of the others in the flat batch.
        pictures: long (m,), places of those of pictures.
        inverse: long (n + m,), where the token of each place went when text was put first.
    """

    vision: Tensor
    text: Tensor
    pictures: Tensor
    inverse: Tensor

    @staticmethod
    def of(vision: Tensor) -> Route:
        """The route of flags (batch, tokens)."""
        flat = vision.flatten()
        text, pictures = (~flat).nonzero(as_tuple=True)[0], flat.nonzero(as_tuple=True)[0]
        return Route(vision, text, pictures, torch.cat((text, pictures)).argsort())

    def at(self, places: Tensor | None) -> Route:
        """The route of the tokens at places (batch, n); None: of all."""
        return self if places is None else Route.of(self.vision.gather(1, places))

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Text (n, ...) and picture tokens (m, ...) of tokens (batch, tokens, ...)."""
        rows = _Permuted.apply(tokens.flatten(0, 1), torch.cat((self.text, self.pictures)), self.inverse)
        return rows[: len(self.text)], rows[len(self.text) :]

    def merge(self, text: Tensor, pictures: Tensor) -> Tensor:
        """The way back: (batch, tokens, ...)."""
        order = torch.cat((self.text, self.pictures))
        rows = _Permuted.apply(torch.cat((text, pictures)), self.inverse, order)
        return rows.unflatten(0, self.vision.shape)
