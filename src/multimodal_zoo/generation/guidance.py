"""Classifier-free guidance (arXiv 2207.12598) over next-token scores."""

from __future__ import annotations

import torch
from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """`scale * (conditional - unconditional) + unconditional`.

    Logits serve as well as log-probabilities: the two differ by a constant for each row, which softmax cancels, and a
    slice of the vocabulary as well as the whole.

    Args:
        conditional: scores behind the prompt, (rows, n).
        unconditional: scores behind the negative prompt, the same shape.
        scale: 1 leaves the prompt alone, more leads away from the negative prompt.
    """
    return torch.lerp(unconditional, conditional, scale)


def guide_log_probabilities(conditional: Tensor, unconditional: Tensor | None, scale: float) -> Tensor:
    """The same on log-probabilities over the whole vocabulary, as the published script has them.

    Args:
        conditional: logits behind the prompt, (rows, vocab_size).
        unconditional: logits behind the negative prompt; None, if the scale is 1.
        scale: as in `guide`.
    """
    known = conditional.log_softmax(-1)
    return known if unconditional is None else guide(known, unconditional.log_softmax(-1), scale)
