"""The mean best match between two sets of token sequences, a tile of their products at a time.

One product of a tile serves both directions: its maximum over the right side's tokens is the best match of each token
on the left, its maximum over the left side's tokens that of each token on the right. Forward keeps where the maxima
are, one byte each for sequences of up to 256 tokens, as long as that is little beside the tokens themselves; it grows
with the square of the batch, so that in large ones backward looks for them again and memory stays linear. The
gradient of a tile's products has one entry for each maximum, so it is a sparse matrix, and backward multiplies it with
the tokens of either side. The array of all products, four axes of it, never exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Product with an empty place. Finite, so that nothing becomes nan.
ABSENT = -1e30
#: From how many threads on a processor multiplies whole tiles sooner than one thread sums their few entries up.
DENSE_FROM_THREADS = 8
#: Places of the maxima are kept up to this share of the tokens' own bytes.
KEPT_SHARE = 0.5


class Sequences(NamedTuple):
    """Token sequences, some of whose places may be empty.

    Attributes:
        tokens: (samples, tokens, width), float32 or float64.
        mask: (samples, tokens) bool, true where there is a token, once in each sample at least; None: everywhere.
    """

    tokens: Tensor
    mask: Tensor | None = None

    def weights(self) -> Tensor:
        """(samples, tokens): the share of each token in its sample's mean, 0 for empty places."""
        if self.mask is None:
            return self.tokens.new_full(self.tokens.shape[:2], 1 / self.tokens.shape[1])
        return self.mask / self.mask.sum(1, keepdim=True).to(self.tokens.dtype)


def best_matches(queries: Sequences, candidates: Sequences, block_size: int) -> Tensor:
    """Mean over a sample's tokens of their largest product with a candidate's tokens.

    Args:
        queries: samples whose tokens look for a match.
        candidates: samples in whose tokens they look; of the same width and precision.
        block_size: samples of either side in a tile.

    Returns:
        (queries, candidates).
    """
    sides = queries.tokens, candidates.tokens
    return _BestMatches.apply(*sides, queries.weights(), None, candidates.mask, block_size)[0]


def mutual_matches(left: Tensor, right: Sequences, block_size: int) -> tuple[Tensor, Tensor]:
    """`best_matches` of left samples in right ones, and of right samples in left ones, for the products of one.

    Args:
        left: (samples, tokens, width), without empty places.
        right: of the same width and precision.
        block_size: samples of either side in a tile.

    Returns:
        Two tensors (left samples, right samples): left tokens look in the first, right tokens in the second.
    """
    weights = Sequences(left).weights(), right.weights()
    return _BestMatches.apply(left, right.tokens, *weights, right.mask, block_size)


class _BestMatches(torch.autograd.Function):
    """Matches from left to right and, where the right side has weights, from right to left."""

    @staticmethod
    def forward(
        ctx: Any,
        left: Tensor,
        right: Tensor,
        left_weights: Tensor,
        right_weights: Tensor | None,
        right_mask: Tensor | None,
        block_size: int,
    ) -> tuple[Tensor, Tensor | None]:
        samples, others, n = len(left), len(right), left.shape[1]
        forth = left.new_empty(samples, others)
        back = None if right_weights is None else torch.empty_like(forth)
        places = None
        if any(ctx.needs_input_grad[:2]):
            places = _kept_places(left, right, mutual=back is not None)
        for rows, columns, products in _tiles(left, right, right_mask, block_size):
            best = _maxima(products, 3, None if places is None else places[rows, columns, :n].transpose(1, 2))
            forth[rows, columns] = torch.einsum("inl,in->il", best, left_weights[rows])
            if back is not None and right_weights is not None:
                best = _maxima(products, 1, None if places is None else places[rows, columns, n:])
                back[rows, columns] = torch.einsum("ilm,lm->il", best, right_weights[columns])
        ctx.save_for_backward(left, right, left_weights, right_weights, right_mask, places)
        ctx.block_size = block_size
        return forth, back

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, forth: Tensor, back: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of both sides' tokens, from where the maxima were."""
        left, right, left_weights, right_weights, right_mask, places = ctx.saved_tensors
        gradients = left.new_zeros(left.shape), right.new_zeros(right.shape)
        spread = _spread_dense if _prefers_dense(left) else _spread_sparse
        mutual = right_weights is not None
        for rows, columns, found in _places(left, right, right_mask, places, mutual, ctx.block_size):
            values = forth[rows, columns, None] * left_weights[rows, None]
            if right_weights is not None and back is not None:
                values = torch.cat([values, back[rows, columns, None] * right_weights[columns]], dim=2)
            entries = _entries(found, left.shape[1], right.shape[1])
            tokens = left[rows].flatten(0, 1), right[columns].flatten(0, 1)
            totals = gradients[0][rows].flatten(0, 1), gradients[1][columns].flatten(0, 1)
            spread(entries, values, tokens, totals)
        return *gradients, None, None, None, None


def _empty_places(left: Tensor, right: Tensor, mutual: bool) -> Tensor:
    """Room for the partner of each left token in each right sample and, where matches are mutual, the other way."""
    n, m = left.shape[1], right.shape[1]
    shape = (len(left), len(right), n + m if mutual else n)
    return left.new_empty(shape, dtype=_smallest_integer(max(n, m)))


def _kept_places(left: Tensor, right: Tensor, mutual: bool) -> Tensor | None:
    """Room for all places, or None where it would be much beside the tokens."""
    n, m = left.shape[1], right.shape[1]
    size = len(left) * len(right) * (n + m if mutual else n) * _smallest_integer(max(n, m)).itemsize
    return _empty_places(left, right, mutual) if size <= KEPT_SHARE * (left.nbytes + right.nbytes) else None


def _places(
    left: Tensor, right: Tensor, right_mask: Tensor | None, kept: Tensor | None, mutual: bool, block_size: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Sample ranges of each tile and where its maxima are, (rows, columns, n or n + m): kept, or looked for again."""
    if kept is not None:
        for rows, columns in _grid(len(left), len(right), block_size):
            yield rows, columns, kept[rows, columns]
        return
    n = left.shape[1]
    for rows, columns, products in _tiles(left, right, right_mask, block_size):
        found = _empty_places(left[rows], right[columns], mutual)
        _maxima(products, 3, found[..., :n].transpose(1, 2))
        if mutual:
            _maxima(products, 1, found[..., n:])
        yield rows, columns, found


def _maxima(products: Tensor, axis: int, places: Tensor | None) -> Tensor:
    """Maxima along an axis; where they are goes into `places`, if anybody wants to know."""
    if places is None:
        return products.amax(axis)
    best, where = products.max(axis)
    places.copy_(where)
    return best


def _smallest_integer(count: int) -> torch.dtype:
    """The smallest type that numbers `count` places."""
    return next(kind for kind in (torch.uint8, torch.int16, torch.int32) if count - 1 <= torch.iinfo(kind).max)


def _prefers_dense(tokens: Tensor) -> bool:
    return tokens.device.type != "cpu" or torch.get_num_threads() >= DENSE_FROM_THREADS


def _grid(rows: int, columns: int, block_size: int) -> Iterator[tuple[slice, slice]]:
    """Ranges of samples of both sides, tile by tile."""
    for row in range(0, rows, block_size):
        for column in range(0, columns, block_size):
            yield slice(row, min(row + block_size, rows)), slice(column, min(column + block_size, columns))


def _tiles(
    left: Tensor, right: Tensor, right_mask: Tensor | None, block_size: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Sample ranges and products (rows, tokens, columns, tokens) of each tile; the next one overwrites them."""
    (samples, n, _), (others, m, _) = left.shape, right.shape
    buffer = left.new_empty(min(samples, block_size) * n * min(others, block_size) * m)
    bias = None if right_mask is None else left.new_zeros(others, m).masked_fill_(~right_mask, ABSENT)
    for rows, columns in _grid(samples, others, block_size):
        mine, theirs = left[rows].flatten(0, 1), right[columns].flatten(0, 1)
        products = buffer[: len(mine) * len(theirs)].view(len(mine), len(theirs))
        if bias is None:
            torch.mm(mine, theirs.T, out=products)
        else:
            torch.addmm(bias[columns].flatten(), mine, theirs.T, out=products)
        yield rows, columns, products.view(-1, n, columns.stop - columns.start, m)


def _entries(places: Tensor, n: int, m: int) -> Tensor:
    """Row and column of each match in a tile of products, rows being left tokens and columns right ones.

    Args:
        places: (rows, columns, n or n + m), the partner of each left token and, behind them, of each right token.
        n: tokens of a left sample.
        m: tokens of a right sample.

    Returns:
        (2, rows, columns, n or n + m).
    """
    rows, columns, _ = places.shape
    entries = places.new_empty(2, *places.shape, dtype=torch.long)
    first_row = torch.arange(0, rows * n, n, device=places.device)[:, None, None]
    first_column = torch.arange(0, columns * m, m, device=places.device)[:, None]
    entries[0, ..., :n] = first_row + torch.arange(n, device=places.device)
    entries[1, ..., :n] = first_column + places[..., :n]
    if places.shape[2] > n:
        entries[0, ..., n:] = first_row + places[..., n:]
        entries[1, ..., n:] = first_column + torch.arange(m, device=places.device)
    return entries


def _spread_dense(
    entries: Tensor, values: Tensor, tokens: tuple[Tensor, Tensor], totals: tuple[Tensor, Tensor]
) -> None:
    """Add to each side's gradients what a tile gives, through the written-out gradient of its products."""
    (left, right), (left_total, right_total) = tokens, totals
    matrix = left.new_zeros(len(left) * len(right))
    matrix.index_add_(0, (entries[0] * len(right) + entries[1]).flatten(), values.flatten())
    matrix = matrix.view(len(left), len(right))
    left_total.addmm_(matrix, right)
    right_total.addmm_(matrix.T, left)


def _spread_sparse(
    entries: Tensor, values: Tensor, tokens: tuple[Tensor, Tensor], totals: tuple[Tensor, Tensor]
) -> None:
    """The same from the entries alone.

    A token that looked has one entry in each sample of the other side, so its gradient is a bag of them. Those that
    were found have any number: their entries are summed one by one.
    """
    (left, right), (left_total, right_total) = tokens, totals
    n = len(left) // len(values)
    rows, columns = entries[..., :n]
    left_total += _bags(columns.transpose(1, 2), values[..., :n].transpose(1, 2), right)
    right_total += _sums(columns, rows, values[..., :n], len(right), left)
    if values.shape[2] > n:
        rows, columns = entries[..., n:]
        right_total += _bags(rows.permute(1, 2, 0), values[..., n:].permute(1, 2, 0), left)
        left_total += _sums(rows, columns, values[..., n:], len(left), right)


def _bags(places: Tensor, values: Tensor, tokens: Tensor) -> Tensor:
    """Weighted sums of tokens, (bags, width), one for each vector along the last axis of `places`."""
    weights = values.flatten(0, 1)
    return F.embedding_bag(places.flatten(0, 1), tokens, mode="sum", per_sample_weights=weights)


def _sums(into: Tensor, out_of: Tensor, values: Tensor, size: int, tokens: Tensor) -> Tensor:
    """(size, width): row `into` has the sum of `values` times the tokens `out_of` over all entries."""
    entries = torch.stack([into.flatten(), out_of.flatten()])
    matrix = torch.sparse_coo_tensor(entries, values.flatten(), (size, len(tokens)), check_invariants=False)
    return torch.sparse.mm(matrix, tokens)
