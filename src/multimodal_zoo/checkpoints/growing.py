"""Vocabularies that grow: rows for new tokens behind those of a checkpoint."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn

from multimodal_zoo.checkpoints.views import Change
from multimodal_zoo.decoders.causal_decoder import CausalDecoder

#: How new rows begin: as the mean of the others (Emu's published code), or scattered around it as the others are, so
#: that they differ from each other where they do not learn.
NEW_TOKENS = ("mean", "scattered")


def growing(model: nn.Module, way: str) -> Change:
    """What puts rows behind the vocabulary of a file with fewer tokens than the model has; other tensors stay.

    Args:
        model: holds causal decoders.
        way: a name of `NEW_TOKENS`.

    Raises:
        ValueError: another word.
    """
    if way not in NEW_TOKENS:
        raise ValueError(f"initial_weights.new_tokens is {way!r}; it takes {', '.join(NEW_TOKENS)}")
    rows = {}
    for name, part in model.named_modules():
        if isinstance(part, CausalDecoder):
            place = f"{name}." if name else ""
            rows.update({f"{place}{leaf}.weight": part.vocab_size for leaf in ("token_embedding", "output")})

    def change(name: str, tensor: Tensor) -> Tensor:
        """The tensor with rows for the new tokens."""
        lacking = rows.get(name, 0) - tensor.shape[0] if tensor.dim() == 2 else 0
        if lacking <= 0:
            return tensor
        if tensor.is_meta:  # torch.cat would import torch's compiler for it
            return tensor.new_empty(rows[name], tensor.shape[1])
        return torch.cat([tensor, _new(tensor, lacking, way, zlib.crc32(name.encode()))])

    return change


def _new(table: Tensor, count: int, way: str, seed: int) -> Tensor:
    """Rows `(count, width)` for a table; the same in every process."""
    exact = table.float()
    new = exact.mean(0).expand(count, -1)
    if way == "scattered":
        drawn = torch.randn(count, table.shape[1], generator=torch.Generator().manual_seed(seed))
        new = new + drawn.to(exact) * exact.std(0)
    return new.to(table.dtype)


def chained(*changes: Change | None) -> Change | None:
    """Several changes one after the other; None for none."""
    wanted = [change for change in changes if change is not None]
    if not wanted:
        return None

    def change(name: str, tensor: Tensor) -> Tensor:
        """The tensor after all changes."""
        for one in wanted:
            tensor = one(name, tensor)
        return tensor

    return change
