"""Ranks and recalls of retrieval, in blocks of queries: the whole similarity matrix never exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Similarities held at once; 2**24 float32 values are 64 MiB.
BLOCK = 2**24


@dataclass(frozen=True)
class PairScores:
    """The similarities of all pairs, computed some rows at a time.

    Attributes:
        rows: numbers of queries -> their similarities (rows, gallery).
        queries: how many there are.
        gallery: how many items each is compared with.
    """

    rows: Callable[[slice | Tensor], Tensor]
    queries: int
    gallery: int

    def take(self, numbers: Tensor) -> PairScores:
        """Those of a few queries."""
        return given(self.rows(numbers))

    def blocks(self, block: int) -> Iterator[tuple[slice, Tensor]]:
        """Parts of the queries and their similarities, at most `block` of them at once."""
        size = max(1, block // max(1, self.gallery))
        for start in range(0, self.queries, size):
            part = slice(start, start + size)
            yield part, self.rows(part)


def inner_products(queries: Tensor, gallery: Tensor) -> PairScores:
    """Similarities of vectors (queries, width) and (gallery, width), normalised, by their inner product."""
    return PairScores(lambda part: queries[part] @ gallery.T, len(queries), len(gallery))


def given(matrix: Tensor) -> PairScores:
    """Similarities (queries, gallery) that are known already."""
    return PairScores(lambda part: matrix[part], *matrix.shape)


def ranks(scores: PairScores, query_labels: Tensor, gallery_labels: Tensor, *, block: int = BLOCK) -> Tensor:
    """Rank of the best-placed relevant gallery item of each query.

    A gallery item is relevant when its label equals the query's: with image numbers as labels this is exact
    matching (any of several captions counts, as in CLIP_benchmark), with concept numbers matching by concept.
    Equal similarities keep the order of the gallery, so a model that maps everything to one point scores at chance.

    Args:
        scores: how well each gallery item fits each query.
        query_labels: (queries,) integers.
        gallery_labels: (gallery,) integers.
        block: the most similarities held at once.

    Returns:
        (queries,) integers, 0 for a hit in first place.

    Raises:
        ValueError: nothing to rank, a shape that does not fit, or a query without any relevant item.
    """
    if not scores.queries or not scores.gallery:
        raise ValueError(f"retrieval needs queries and a gallery, got {scores.queries} queries, {scores.gallery} items")
    if scores.queries != len(query_labels) or scores.gallery != len(gallery_labels):
        sizes = (scores.queries, len(query_labels), scores.gallery, len(gallery_labels))
        raise ValueError("queries/labels {}/{} and gallery/labels {}/{} must be of equal length".format(*sizes))
    lost = ~torch.isin(query_labels, gallery_labels)
    if lost.any():
        numbers = lost.nonzero().flatten()[:5].tolist()
        raise ValueError(f"{int(lost.sum())} queries have no relevant item in the gallery, the first are {numbers}")
    found = torch.empty(scores.queries, dtype=torch.long)
    for part, similarity in scores.blocks(block):
        places = torch.arange(scores.gallery, device=similarity.device)
        relevant = query_labels[part, None].to(similarity.device) == gallery_labels[None].to(similarity.device)
        nearest = similarity.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)  # (rows, 1)
        place = (relevant & (similarity == nearest)).float().argmax(dim=1, keepdim=True)  # first of the equal ones
        ahead = (similarity > nearest) | ((similarity == nearest) & (places[None] < place))
        found[part] = ahead.sum(dim=1).cpu()
    return found


def best(scores: PairScores, count: int, *, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """The best gallery items of each query.

    Args:
        scores: how well each gallery item fits each query.
        count: items per query, at most the size of the gallery.
        block: the most similarities held at once.

    Returns:
        similarities and gallery numbers, both (queries, count), best first.
    """
    found = [s.topk(min(count, scores.gallery), dim=1) for _, s in scores.blocks(block)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def recall_at(ranks: Tensor, places: Sequence[int]) -> dict[str, float]:
    """Share of queries with a relevant item among the first k, for each k: `{"R@1": ..., "R@5": ...}`."""
    return {f"R@{k}": (ranks < k).double().mean().item() for k in places}


def rank_summary(ranks: Tensor) -> dict[str, float]:
    """Mean and median rank counted from 1; the median of an even number of ranks is rounded down."""
    ordered = ranks.sort().values
    middle = int(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2
    return {"mean_rank": ranks.double().mean().item() + 1, "median_rank": float(middle + 1)}


def interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` independent trials (Wilson 1927)."""
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))  # rounding may pass the share
