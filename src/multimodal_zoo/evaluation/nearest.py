"""Exact nearest neighbours in a folder of embeddings, shard after shard: memory does not grow with the folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multimodal_zoo.evaluation.shard_files import read_columns
from multimodal_zoo.packages import needed

#: What a row of a shard says of itself, beside its embeddings.
FACTS = ("key", "text", "shard", "place")


class Hit(NamedTuple):
    """One row that was found.

    Attributes:
        score: inner product with the query; the cosine, since embeddings are normalised.
        key: the document's name in its data set.
        text: its first text.
        shard: the tar shard that it came from, or empty.
        place: where it stands in the data, as `data.places` counts.
    """

    score: float
    key: str
    text: str
    shard: str
    place: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, without what is empty."""
        return {name: value for name, value in self._asdict().items() if value not in ("", ())}


def _torch(queries: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    import torch

    scores = torch.from_numpy(queries) @ torch.from_numpy(rows).T
    found, numbers = scores.topk(count, dim=1)
    # which of equal ones topk takes is left open: where more are equal to the last one, all are sorted
    open_ended = (scores >= found[:, -1:]).sum(dim=1) > count
    if open_ended.any():
        found[open_ended], numbers[open_ended] = (
            part[:, :count] for part in scores[open_ended].sort(dim=1, descending=True, stable=True)
        )
    return found.numpy(), numbers.numpy()


def _faiss(queries: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """What an IndexFlatIP computes, without its copy of the rows; among equal scores faiss itself chooses."""
    faiss = needed("faiss", "search=faiss", "eval", "choose search=torch")
    scores, numbers = faiss.knn(queries, rows, count, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, numbers


#: Name of a library -> `(queries, rows, count) -> scores and row numbers (queries, count)`, best first, exact.
SEARCHES: dict[str, Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]] = {
    "torch": _torch,
    "faiss": _faiss,
}


def nearest(
    queries: np.ndarray, blocks: Iterable[np.ndarray], count: int, search: str
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of all blocks with the largest inner products.

    Args:
        queries: float32 (queries, width).
        blocks: (rows, width) each, float32 or float16; they are numbered through.
        count: rows per query.
        search: a name of `SEARCHES`.

    Returns:
        scores and row numbers, both (queries, count) or fewer columns when there are fewer rows; best first, of equal
        scores the earlier row (faiss may leave out earlier ones).

    Raises:
        ValueError: a block of another width, an unknown search.
        ModuleNotFoundError: faiss was asked for and is missing.
    """
    if search not in SEARCHES:
        raise ValueError(f"search: {search!r} is unknown; choose one of {', '.join(SEARCHES)}")
    scores = np.empty((len(queries), 0), np.float32)
    numbers = np.empty((len(queries), 0), np.int64)
    first = 0
    for block in blocks:
        if block.shape[1] != queries.shape[1]:
            raise ValueError(f"the queries have width {queries.shape[1]}, the embeddings {block.shape[1]}")
        rows = np.require(block, np.float32, ["C", "W"])  # torch takes no read-only memory
        more, where = SEARCHES[search](queries, rows, min(count, len(rows)))
        scores, numbers = np.hstack((scores, more)), np.hstack((numbers, where + first))
        best = np.lexsort((numbers, -scores), axis=1)[:, :count]
        scores, numbers = np.take_along_axis(scores, best, 1), np.take_along_axis(numbers, best, 1)
        first += len(rows)
    return scores, numbers


def search_shards(queries: np.ndarray, shards: Sequence[Path], column: str, count: int, search: str) -> list[list[Hit]]:
    """The documents of a folder that are nearest to each query; one shard is in memory and one is being read.

    Args:
        queries: float32 (queries, width), normalised.
        shards: files of one folder, in order.
        column: `image_embedding` or `text_embedding`.
        count: documents per query.
        search: a name of `SEARCHES`.

    Raises:
        ValueError: shards without that column, or of another width than the queries, or damaged ones.
    """
    sizes: list[int] = []

    def blocks() -> Iterator[np.ndarray]:
        """The column of each shard; their sizes are noted in passing."""
        for path, found in zip(shards, ahead(lambda path: read_columns(path, [column]), shards), strict=True):
            if column not in found:
                raise ValueError(f"{path.name} has no column {column!r}; the folder was made without it")
            if found[column].ndim != 2:
                raise ValueError(f"{path} is damaged: {column} is of shape {found[column].shape}, not of rows")
            sizes.append(len(found[column]))
            yield found[column]

    scores, numbers = nearest(queries, blocks(), count, search)
    ends = np.cumsum(sizes)
    owner = np.searchsorted(ends, numbers, side="right")
    facts = {int(n): read_columns(shards[n], FACTS) for n in np.unique(owner)}
    for n, columns in facts.items():
        if differing := [name for name, values in columns.items() if len(values) != sizes[n]]:
            raise ValueError(f"{shards[n]} is damaged: {differing[0]} and {column} differ in their numbers of rows")
    return [
        [
            _hit(facts[int(shard)], int(number - ends[shard] + sizes[shard]), float(score))
            for score, number, shard in zip(*row, strict=True)
        ]
        for row in zip(scores, numbers, owner, strict=True)
    ]


def ahead(read: Callable[[Path], Any], paths: Sequence[Path]) -> Iterator[Any]:
    """`read(path)` for each path, the next one already under way in a thread."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(read, paths[0]) if paths else None
        for following in [*paths[1:], None]:
            assert waiting is not None
            ready = waiting.result()
            waiting = pool.submit(read, following) if following is not None else None
            yield ready


def _hit(facts: dict[str, np.ndarray], row: int, score: float) -> Hit:
    words = {name: str(facts[name][row]) if name in facts else "" for name in ("key", "text", "shard")}
    return Hit(round(score, 6), **words, place=tuple(int(n) for n in facts["place"][row]) if "place" in facts else ())
