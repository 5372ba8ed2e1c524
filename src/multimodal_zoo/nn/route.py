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
        order: long (batch * tokens,), places in the flat batch: those of text, then those of pictures.
        inverse: long (batch * tokens,), where the token of each place stands in that order.
        texts: number of text tokens.
    """

    vision: Tensor
    order: Tensor
    inverse: Tensor
    texts: int

    @staticmethod
    def of(vision: Tensor) -> Route:
        """The route of flags (batch, tokens); an accelerator is waited for once."""
        flat = vision.flatten()
        order = flat.to(torch.uint8).argsort(stable=True)
        return Route(vision, order, order.argsort(), len(flat) - int(flat.sum()))

    def at(self, places: Tensor | None) -> Route:
        """The route of the tokens at places (batch, n); None: of all."""
        return self if places is None else Route.of(self.vision.gather(1, places))

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Text (n, ...) and picture tokens (m, ...) of tokens (batch, tokens, ...)."""
        rows = _Permuted.apply(tokens.flatten(0, 1), self.order, self.inverse)
        return rows[: self.texts], rows[self.texts :]

    def merge(self, text: Tensor, pictures: Tensor) -> Tensor:
        """The way back: (batch, tokens, ...)."""
        rows = _Permuted.apply(torch.cat((text, pictures)), self.inverse, self.order)
        return rows.unflatten(0, self.vision.shape)
