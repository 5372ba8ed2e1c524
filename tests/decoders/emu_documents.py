"""Tiny models of Emu and Emu2, and batches of words and pictures for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.data.visual_batches import visual_rows_batch
from multimodal_zoo.data.visual_sequences import VisualSample
from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.nn.counted_images import CountedImages, joined_images
from multimodal_zoo.objectives.visual_batch import VisualTokenBatch
from multimodal_zoo.registry import build

#: Sizes of both models; Emu gives 3 embeddings of a picture, Emu2 any of 1, 4, 16.
WIDTH, TOWER, VOCAB, SIDE, QUERIES = 16, 12, 40, 8, 3
PAD, OPEN, CLOSE = 0, 1, 2
#: Embeddings of a picture and of a frame.
COUNTS = {"emu": (QUERIES, QUERIES), "emu2": (4, 1)}


def tower(depth: int = 2, post_norm: bool = False) -> dict[str, Any]:
    """The node of an image encoder with a grid of 4 x 4."""
    qkv = {"type": "packed_qkv_keyless", "width": TOWER, "heads": 2, "head_dim": 6}
    block = {
        "type": "post_norm_block" if post_norm else "pre_norm_block",
        "norm": {"type": "layer_norm", "width": TOWER, "eps": 1e-6},
        "attention": {"type": "self_attention", "width": TOWER, "qkv": qkv},
        "mlp": {"type": "mlp", "width": TOWER, "hidden": 20, "activation": "gelu"},
    }
    sizes = {"image_size": SIDE, "patch_size": 2}
    return {
        "type": "vision_transformer", "width": TOWER, "image_size": SIDE,
        "patches": {"type": "patch_embedding", "width": TOWER, "patch_size": 2, "bias": True},
        "prefix": {"type": "class_token", "width": TOWER, "std": 0.5},
        "positions": {"type": "resizable_positions", "width": TOWER, "prefix": 1, "std": 0.5, **sizes},
        "blocks": {"type": "transformer", "depth": depth, "block": block},
        "pool": {"type": "class_token_pool", "norm": {"type": "layer_norm", "width": TOWER, "eps": 1e-6}},
    }  # fmt: skip


def causal_former(context: int = TOWER, dropout: float = 0.0, queries: int = QUERIES) -> dict[str, Any]:
    """The node of a Causal Former whose inner width is none of the others."""
    norm, drop = {"type": "rms_norm", "width": 10, "eps": 1e-6}, {"type": "branch_dropout", "rate": dropout}
    attention = {"width": 10, "output_bias": False, "scale": 1.0, "dropout": dropout}
    qkv = {"type": "separate_qkv", "width": 10, "heads": 3, "head_dim": 4, "kv_heads": 3, "biased": []}
    cross = {"type": "cross_attention", "context_width": context, "heads": 3, "head_dim": 4, "bias": False}
    block = {
        "type": "cross_block", "norm": norm, "layer_scale": drop,
        "attention": {**attention, "type": "self_attention", "qkv": qkv},
        "cross_attention": {**attention, **cross},
        "mlp": {"type": "mlp", "width": 10, "hidden": 14, "activation": "relu", "bias": False, "inner_norm": drop},
    }  # fmt: skip
    return {
        "type": "causal_former", "width": WIDTH, "queries": queries, "depth": 2, "dropout": dropout, "std": 0.5,
        "norm": norm, "context_norm": {"type": "layer_norm", "width": context, "eps": 1e-6}, "block": block,
        "positions": {"type": "relative_bias", "heads": 3, "buckets": 4, "max_distance": 5, "std": 0.5},
    }  # fmt: skip


def node(system: str, depth: int = 2) -> dict[str, Any]:
    """The node of a whole model, `emu` or `emu2`."""
    sizes = {
        "vocab_size": VOCAB, "hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": depth,
        "num_attention_heads": 4, "initializer_range": 0.3, "max_position_embeddings": 96,
    }  # fmt: skip
    made = {"type": "emu", "decoder": node_from_hf({"model_type": "llama", **sizes})}
    if system == "emu":
        return {**made, "image_encoder": tower(), "connector": causal_former()}
    up = {"type": "linear_layer", "in_features": TOWER, "out_features": WIDTH, "bias": False}
    connector = {"type": "pooled_tokens", "width": TOWER}
    return {**made, "image_encoder": tower(post_norm=True), "connector": connector, "input_projection": up}


def tiny(system: str, seed: int = 0, **changes: Any) -> Emu:
    """A model in evaluation mode, with other parts where `changes` name them."""
    torch.manual_seed(seed)
    model = build({**node(system), **changes}, path="model")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
            elif "decoder" not in name:
                weight.normal_(std=0.4)
    return model.eval()


@dataclass(frozen=True)
class Shown:
    """A picture of a document, in the terms of `COUNTS`."""

    frame: bool = False


PICTURE, FRAME = Shown(), Shown(frame=True)


def sample(system: str, *parts: int | Shown) -> VisualSample:
    """A document of so many words, pictures and frames, in the order given; all of it is learnt."""
    ids, vision, regression, counts = [], [], [], []
    for part in parts:
        if isinstance(part, int):
            ids += torch.randint(3, VOCAB, (part,)).tolist()
            vision += [False] * part
            regression += [0.0] * part
            continue
        count = COUNTS[system][int(part.frame)]
        counts.append(count)
        ids += [OPEN, *[PAD] * count, CLOSE]
        vision += [False, *[True] * count, False]
        regression += [0.0, *[1.0] * count, float(system == "emu")]
    weights = torch.tensor([float(one > CLOSE) for one in ids])
    weights[0] = 0
    images = CountedImages(torch.randn(len(counts), 3, SIDE, SIDE), tuple(counts)) if counts else None
    return VisualSample(torch.tensor(ids), weights, torch.tensor(vision), torch.tensor(regression), images, "")


def documents(system: str) -> list[VisualSample]:
    """A picture between words, words alone, pictures and a frame, a frame at the end, a picture in front, a word."""
    shapes: list[tuple[int | Shown, ...]] = [
        (3, PICTURE, 2),
        (6,),
        (1, PICTURE, FRAME, PICTURE, 4),
        (2, FRAME),
        (PICTURE, 1),
        (1,),
    ]
    return [sample(system, *shape) for shape in shapes]


def packed(rows: Sequence[Sequence[VisualSample]]) -> VisualTokenBatch:
    """Several documents in each row."""
    return visual_rows_batch(rows, PAD)


def padded(rows: Sequence[VisualSample]) -> VisualTokenBatch:
    """One document in each row."""
    return packed([[one] for one in rows])


def pictures_of(rows: Sequence[VisualSample]) -> CountedImages | None:
    """All pictures of some documents."""
    found = [one.images for one in rows if one.images is not None]
    return joined_images(found) if found else None


def as_type(batch: VisualTokenBatch, dtype: torch.dtype) -> VisualTokenBatch:
    """The same batch with pixels of another type."""
    if batch.images is not None:
        batch.images = CountedImages(batch.images.pixels.to(dtype), batch.images.counts)
    return batch


def prompts_of(model: Emu, rows: Sequence[VisualSample], opened: bool = False) -> Any:
    """Documents as prompts; with what opens a picture behind them."""
    behind = torch.tensor([OPEN] if opened else [], dtype=torch.long)
    ids = [torch.cat([one.ids, behind]) for one in rows]
    vision = [torch.cat([one.vision, torch.zeros(len(behind), dtype=torch.bool)]) for one in rows]
    images = pictures_of(rows)
    with torch.no_grad():
        visual: Tensor | None = None if images is None else model.encode(images)
    return model.prompts(ids, vision, visual, PAD)
