"""Causal attention over documents packed into rows: document by document, so that memory grows with the tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from multimodal_zoo.nn.masks import Causal, Combined, Document, Mask, Runs

#: Causal attention of one document: `(query, key, value, scale, dropout) -> result`.
One = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]
#: Rows of at least so many tokens are worked off document by document; below, one call with a dense mask is faster.
LEAST_TOKENS = 512


def causal_documents(mask: Mask | None, queries: int, keys: int) -> Document | None:
    """The documents of a mask that says "causal, within documents" of whole rows and nothing else, or None."""
    if not isinstance(mask, Combined) or torch.compiler.is_compiling() or queries != keys or len(mask.members) != 2:
        return None
    causal = [part for part in mask.members if isinstance(part, Causal) and part.offset == 0]
    documents = [part for part in mask.members if isinstance(part, Document) and part.ids.shape[1] == keys]
    return documents[0] if causal and documents else None


def packed_runs(mask: Mask | None, queries: int, keys: int) -> Runs | None:
    """The documents of such a mask where working them off one by one pays, else None.

    It does not for short rows of several documents; it cannot where documents do not lie in one piece.
    """
    documents = causal_documents(mask, queries, keys)
    if documents is None or (keys < LEAST_TOKENS and documents.ids.device.type != "cpu"):
        return None  # an accelerator would have to wait for the lengths
    runs = documents.runs
    return runs if runs is not None and (keys >= LEAST_TOKENS or alone(runs)) else None


def alone(runs: Runs) -> bool:
    """Whether every row holds one document, at its beginning, and otherwise padding."""
    return all(row[0].real and not any(run.real for run in row[1:]) for row in runs)


def attend_runs(
    query: Tensor, key: Tensor, value: Tensor, runs: Runs, scale: float, dropout: float, one: One
) -> Tensor:
    """Causal attention within each document.

    Args:
        query: `(batch, heads, tokens, head_dim)`.
        key: `(batch, kv_heads, tokens, head_dim)`.
        value: `(batch, kv_heads, tokens, value_dim)`.
        runs: the documents of each row.
        scale: factor on the logits.
        dropout: probability of dropping an attention weight.
        one: attention of one document.

    Returns:
        `(batch, heads, tokens, value_dim)`; anything finite at padding.
    """
    if alone(runs):  # what follows a document does not change it
        return one(query, key, value, scale, dropout)
    if all(row == runs[0] for row in runs):
        return _row(query, key, value, runs[0], scale, dropout, one)
    rows = zip(query.split(1), key.split(1), value.split(1), runs, strict=True)
    return torch.cat([_row(*parts, scale, dropout, one) for parts in rows])


def _row(query: Tensor, key: Tensor, value: Tensor, row: tuple, scale: float, dropout: float, one: One) -> Tensor:
    lengths = [run.length for run in row]
    parts = zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), row, strict=True)
    found = [
        one(q, k, v, scale, dropout) if run.real else v.new_zeros((*q.shape[:3], v.shape[3])) for q, k, v, run in parts
    ]
    return found[0] if len(found) == 1 else torch.cat(found, dim=2)


def cumulative(runs: Runs, device: torch.device) -> tuple[Tensor, int]:
    """The borders of all documents, rows laid end to end, int32 `(documents + 1,)`, and the longest document."""
    lengths = [run.length for row in runs for run in row]
    borders = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return borders.to(device), max(lengths)
