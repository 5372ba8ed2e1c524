"""Feature caching: batches larger than memory, with the gradient of the whole batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def encode_in_chunks(encode: Callable[[Tensor], Tensor], inputs: Tensor, chunk: int) -> Tensor:
    """Encode `inputs` a few rows at a time, keeping only the features.

    Each chunk is one activation checkpoint (Chen et al. 2016, arXiv:1604.06174): forward keeps its features, backward
    runs it again with the same random numbers and frees it before the next chunk. A loss over all features therefore
    sees the whole batch while memory holds the activations of one chunk, as in GradCache (Gao et al. 2021,
    arXiv:2101.06983), and the gradient is that of the unsplit batch. Layers that mix rows (batch norm) are not exact.

    Args:
        encode: rows to features, (rows, ...) -> (rows, width).
        inputs: (batch, ...).
        chunk: rows at a time.

    Returns:
        (batch, width).

    Raises:
        ValueError: `chunk` is not positive.
    """
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; it must be at least 1 (configuration key: objective.chunk_size)")
    if not torch.is_grad_enabled():
        return torch.cat([encode(part) for part in inputs.split(chunk)])
    return torch.cat([checkpoint(encode, part, use_reentrant=False) for part in inputs.split(chunk)])


def row_mixing_layer(model: nn.Module) -> str | None:
    """Name of the first layer whose result for a row depends on the other rows (batch norm while it trains), or None.

    With such a layer neither chunks nor several processes give exactly what one process gives on the whole batch.
    """
    return next((name for name, part in model.named_modules() if isinstance(part, _BatchNorm) and part.training), None)
