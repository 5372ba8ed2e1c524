"""Queries to embeddings, and what a search found to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from multimodal_zoo.data.pictures import load as decode
from multimodal_zoo.data.pictures import open_picture, to_rgb
from multimodal_zoo.data.places import in_order
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.evaluation.features import embed_images
from multimodal_zoo.evaluation.match_grid import Tile
from multimodal_zoo.evaluation.nearest import Hit
from multimodal_zoo.evaluation.samples import text_embeddings
from multimodal_zoo.registry import build

#: Texts or pictures in a forward pass.
BATCH = 64


def embed_queries(model: Any, queries: Sequence[str | Path | Image], device: torch.device) -> np.ndarray:
    """Embeddings of texts and pictures in the order of the queries: float32 (queries, width).

    Raises:
        ValueError: a picture that cannot be read.
    """
    texts = {n: query for n, query in enumerate(queries) if isinstance(query, str)}
    pictures = {n: query for n, query in enumerate(queries) if not isinstance(query, str)}
    found: dict[int, Any] = {}
    if texts:
        rows = text_embeddings(model, model.processor, list(texts.values()), batch_size=BATCH, device=device)
        found |= dict(zip(texts, rows.numpy(), strict=True))
    if pictures:
        try:
            rows = embed_images(model, pictures.values(), model.processor.images, batch_size=BATCH, device=device)
        except UnusableError as error:
            raise ValueError(f"the query {error.key} cannot be used: {error.reason}") from error
        found |= dict(zip(pictures, rows.numpy(), strict=True))
    return np.stack([found[n] for n in range(len(queries))])


def find_pictures(manifest: dict[str, Any], found: Sequence[Sequence[Hit]]) -> list[list[Tile]]:
    """Tiles of the matches, with their pictures where the data still has them; else with the caption."""
    try:
        order = in_order(build(manifest["data"], path="data"))
    except (OSError, ValueError, LookupError, ImportError):  # moved, or not on this machine
        order = None
    pictures: dict[tuple[int, ...], Any] = {}
    for hit in {hit.place: hit for hits in found for hit in hits}.values():
        try:
            document = None if order is None else order.at(hit.place)
            if document is not None and document.key == hit.key:
                pictures[hit.place] = to_rgb(decode(open_picture(document.image)))
            else:  # the data changed since; a folder's pictures go by their path
                pictures[hit.place] = to_rgb(decode(open_picture(Path(manifest["data"]["folder"]) / hit.key)))
        except (UnusableError, LookupError, OSError, ValueError):
            pictures[hit.place] = None
    return [[Tile(pictures.get(h.place), h.text or h.key, f"{h.score:.3f}") for h in hits] for hits in found]
