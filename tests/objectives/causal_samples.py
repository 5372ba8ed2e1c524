"""A small Emu3 and token batches for the tests of the objectives of sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from multimodal_zoo.decoders.emu3 import Emu3
from multimodal_zoo.objectives.batch import TokenBatch
from multimodal_zoo.registry import build
from multimodal_zoo.tokenizers.emu3_ids import Emu3Ids

IDS = Emu3Ids(0, 1, 2, 3, 4, 5, 6, 7, visual_first=30, codebook_size=10)
WIDTH = 16


def tiny(dropout: float = 0.0, checkpoint: str = "none", kernel: str = "sdpa", seed: int = 0) -> Emu3:
    """Two blocks over 40 ids."""
    attention = {
        "type": "self_attention",
        "width": WIDTH,
        "output_bias": False,
        "dropout": dropout,
        "kernel": kernel,
        "qkv": {"type": "separate_qkv", "width": WIDTH, "heads": 4, "head_dim": 4, "kv_heads": 2, "biased": []},
    }
    norm = {"type": "rms_norm", "width": WIDTH, "eps": 1e-5}
    block = {
        "type": "pre_norm_block",
        "norm": norm,
        "attention": attention,
        "mlp": {"type": "swiglu", "width": WIDTH, "hidden": 24, "bias": False},
    }
    torch.manual_seed(seed)
    decoder = build(
        {
            "type": "causal_decoder",
            "width": WIDTH,
            "vocab_size": 40,
            "max_positions": 64,
            "pad_id": 0,
            "rotary": {"type": "rotary_1d", "head_dim": 4},
            "blocks": {
                "type": "transformer",
                "depth": 2,
                "checkpoint": checkpoint,
                "block": block,
                "init": {"type": "normal_init", "std": 0.2},
            },
            "norm": norm,
            "std": 0.2,
        }
    )
    return Emu3(decoder, IDS)


def documents(lengths: list[int], seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Ids and weights: nothing for the first token, a half for visual ones, nothing for some of the text."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for length in lengths:
        ids = torch.randint(8, 40, (length,), generator=generator)
        weights = torch.where(IDS.is_visual(ids), 0.5, torch.randint(0, 2, (length,), generator=generator).float())
        weights[0] = 0.0
        found.append((ids, weights))
    return found


def rows(packs: list[list[tuple[Tensor, Tensor]]], width: int | None = None) -> TokenBatch:
    """Each pack in a row of its own, padded to the longest or to `width`."""
    width = width or max(sum(len(ids) for ids, _ in pack) for pack in packs)
    shape = (len(packs), width)
    batch = TokenBatch(
        torch.zeros(shape, dtype=torch.long),
        torch.zeros(shape),
        torch.full(shape, -1),
        torch.zeros(shape, dtype=torch.long),
        [f"{number}" for number in range(sum(map(len, packs)))],
    )
    for row, pack in enumerate(packs):
        start = 0
        for number, (ids, weights) in enumerate(pack):
            place = slice(start, start + len(ids))
            batch.ids[row, place], batch.weights[row, place] = ids, weights
            batch.documents[row, place], batch.positions[row, place] = number, torch.arange(len(ids))
            start += len(ids)
    return batch


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
