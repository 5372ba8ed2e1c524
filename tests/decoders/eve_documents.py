"""Tiny models of both versions of EVE, and batches of texts and pictures for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.decoders.eve import Eve
from multimodal_zoo.encoders.outputs import ImageFeatures
from multimodal_zoo.nn.patch_cells import Grid, PatchCells, joined
from multimodal_zoo.objectives.batch import PictureTokenBatch
from multimodal_zoo.registry import build

WIDTH, TEACHER_WIDTH, VOCAB, PATCH, WINDOW = 16, 8, 40, 2, 2
#: Text tokens, or the cells of a picture.
Part = int | Grid


def node(version: int, depth: int = 4, parts: Sequence[str] = ("norm", "attention", "mlp")) -> dict[str, Any]:
    """The node of a model without aligning layer."""
    sizes = {
        "vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": depth,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "max_position_embeddings": 128,
    }  # fmt: skip
    decoder = node_from_hf({"model_type": "llama" if version == 1 else "qwen2", **sizes})
    cut = {"width": WIDTH, "hidden": 16, "patch": PATCH, "window": WINDOW}
    if version == 2:
        decoder["blocks"]["block"] = {
            "type": "decoupled_block",
            "block": decoder["blocks"]["block"],
            "parts": list(parts),
        }
    kind = "eve_patch_embedding" if version == 1 else "eve_direct_embedding"
    return {"type": "eve", "decoder": decoder, "vision_embedding": {"type": kind, **cut}}


def tiny(version: int, depth: int = 4, aligned: bool = False, seed: int = 0) -> Eve:
    """A model in evaluation mode, whose two kinds of weights differ."""
    torch.manual_seed(seed)
    config = node(version, depth)
    if aligned:
        config["aligner"] = {
            "type": "patch_aligning", "width": WIDTH, "teacher_width": TEACHER_WIDTH, "depth": depth, "every": 2,
        }  # fmt: skip
    model = build(config, path="model")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1 and "norm" in name:
                weight.add_(torch.randn_like(weight) * 0.1)
            elif ".vision." in name:
                weight.normal_(std=0.3)
    return model.eval()


@dataclass
class Sample:
    """One document: its ids, where tokens of pictures stand, and the pictures."""

    ids: Tensor
    vision: Tensor
    pictures: list[PatchCells]

    def __len__(self) -> int:
        return len(self.ids)


def picture(grid: Grid) -> PatchCells:
    """Random pixels."""
    return PatchCells(torch.randn(grid[0] * grid[1], WINDOW**2, 3 * PATCH**2), (grid,), PATCH, WINDOW)


def sample(*parts: Part) -> Sample:
    """A document of texts and pictures."""
    ids, vision, pictures = [], [], []
    for one in parts:
        if isinstance(one, int):
            ids.append(torch.randint(VOCAB, (one,)))
        else:
            pictures.append(picture(one))
            ids.append(torch.zeros(pictures[-1].tokens[0], dtype=torch.long))
        vision.append(torch.full_like(ids[-1], not isinstance(one, int), dtype=torch.bool))
    return Sample(torch.cat(ids), torch.cat(vision), pictures)


def packed(rows: Sequence[Sequence[Sample]]) -> PictureTokenBatch:
    """Several documents in each row, padded on the right; every text token but a document's first counts."""
    longest = max(sum(map(len, row)) for row in rows)

    def field(values: list[list[Tensor]], pad: float) -> Tensor:
        flat = [torch.cat(row) for row in values]
        return torch.stack([F.pad(one, (0, longest - len(one)), value=pad) for one in flat])

    pictures = [one for row in rows for document in row for one in document.pictures]
    places = [[torch.arange(len(one)) for one in row] for row in rows]
    weights = [[(~one.vision & (torch.arange(len(one)) > 0)).float() for one in row] for row in rows]
    return PictureTokenBatch(
        ids=field([[one.ids for one in row] for row in rows], 0),
        weights=field(weights, 0.0),
        documents=field([[torch.full_like(one.ids, number) for number, one in enumerate(row)] for row in rows], -1),
        positions=field(places, 0),
        keys=[f"{r}.{d}" for r, row in enumerate(rows) for d in range(len(row))],
        vision=field([[one.vision for one in row] for row in rows], False),
        pictures=joined(pictures) if pictures else None,
    )


def padded(samples: Sequence[Sample]) -> PictureTokenBatch:
    """One document in each row."""
    return packed([[one] for one in samples])


def watched(batch: PictureTokenBatch, ratio: int = 1, side: int = 6) -> PictureTokenBatch:
    """The same batch with random views for a teacher of `side` patches of two pixels."""
    assert batch.pictures is not None
    batch.teacher = torch.randn(len(batch.pictures), 3, 2 * side, 2 * side)
    batch.boxes = [(0, 1, rows // ratio, columns // ratio) for rows, columns in batch.pictures.grids]
    return batch


class Squares(nn.Module):
    """An image encoder of two layers, each a map of squares of two pixels."""

    width, prefix_length = TEACHER_WIDTH, 1

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, TEACHER_WIDTH, 2, stride=2)
        self.patches.patch_size = 2
        self.second = nn.Linear(TEACHER_WIDTH, TEACHER_WIDTH)

    def intermediates(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        first = self.patches(images).flatten(2).transpose(1, 2)
        first = torch.cat((torch.zeros_like(first[:, :1]), first), 1)
        return [(first, self.second(first))[layer] for layer in layers]

    def forward(self, images: Tensor) -> ImageFeatures:
        (tokens,) = self.intermediates(images, [-1])
        side = images.shape[-1] // 2
        return ImageFeatures(tokens.mean(1), tokens[:, 1:], (side, side))
