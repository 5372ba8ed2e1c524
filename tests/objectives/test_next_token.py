"""The next-token objective against whole logits: weights, packing, frozen parts, several processes' divisors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo.decoders.emu3 import Emu3
from multimodal_zoo.objectives import next_token
from multimodal_zoo.objectives.batch import TokenBatch
from multimodal_zoo.objectives.next_token import NextToken
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


def directly(model: Emu3, pack: list[tuple[Tensor, Tensor]], normalise: str) -> dict[str, Tensor]:
    """The same numbers from the whole logits of one document after the other."""
    parts = []
    for ids, weights in pack:
        logits = F.linear(model.decoder(ids[None]), model.decoder.head_weight)[0, :-1]
        losses = F.cross_entropy(logits, ids[1:], reduction="none")
        parts.append((losses, weights[1:], IDS.is_visual(ids[1:]), logits.argmax(-1) == ids[1:]))
    losses, weights, visual, hits = (torch.cat(part) for part in zip(*parts, strict=True))
    counted = weights > 0
    total = weights.sum() if normalise == "weights" else counted.sum().float()
    return {
        "loss": (weights * losses).sum() / total,
        "loss_weight": total,
        "text_loss": losses[counted & ~visual].mean(),
        "vision_loss": losses[counted & visual].mean(),
        "accuracy": hits[counted].float().mean(),
        "vision_share": visual[counted].float().mean(),
    }


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("normalise", ["weights", "count"])
@pytest.mark.parametrize("held_logits", [7, 2**23])
@pytest.mark.parametrize("checkpoint", ["none", "block"])
def test_padded_and_packed_rows_equal_documents_one_by_one(normalise: str, held_logits: int, checkpoint: str) -> None:
    model = tiny(checkpoint=checkpoint)
    pack = documents([5, 1, 12, 7, 2])
    expected = directly(model, pack, normalise)
    theirs = gradients(model, expected["loss"])
    assert theirs
    batches = {
        "padded": rows([[one] for one in pack], width=15),
        "packed": rows([pack], width=30),
        "both": rows([pack[:3], pack[3:]]),
    }
    for name, batch in batches.items():
        found = NextToken(normalise, held_logits)(model, batch)
        for key, value in expected.items():
            assert_close(found[key].detach(), value.detach(), atol=1e-6, rtol=1e-5, msg=f"{name} {key}")
        for key, gradient in gradients(model, found["loss"]).items():
            assert_close(gradient, theirs[key], atol=1e-6, rtol=1e-4, msg=f"{name} {key}")


def test_only_what_counts_reaches_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = next_token.token_losses
    monkeypatch.setattr(
        next_token, "token_losses", lambda hidden, *rest: seen.append(len(hidden)) or real(hidden, *rest)
    )
    batch = rows([documents([9, 6])])
    NextToken()(tiny(), batch)
    assert seen == [int((batch.weights > 0).sum())]


def test_a_batch_without_anything_to_learn_gives_zero() -> None:
    model, batch = tiny(), rows([documents([6])])
    found = NextToken()(model, replace(batch, weights=torch.zeros_like(batch.weights)))
    assert found["loss"] == 0
    assert found["accuracy"] == 0
    assert all(gradient.abs().max() == 0 for gradient in gradients(model, found["loss"]).values())


def test_double_precision_and_frozen_head() -> None:
    model, pack = tiny().double(), documents([9, 6])
    model.decoder.output.requires_grad_(False)
    expected = directly(model, pack, "weights")["loss"]
    theirs = gradients(model, expected)
    found = NextToken(held_logits=11)(model, rows([pack]))["loss"]
    assert found.dtype == torch.float64
    assert_close(found, expected, atol=1e-12, rtol=1e-12)
    mine = gradients(model, found)
    assert "decoder.output.weight" not in mine
    for key, gradient in mine.items():
        assert_close(gradient, theirs[key], atol=1e-12, rtol=1e-9)


def test_a_model_whose_ids_are_all_text() -> None:
    model = tiny()

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = model.decoder

        def forward(self, ids: Tensor, positions: Tensor, documents: Tensor) -> Tensor:
            return model(ids, positions, documents)

    batch = rows([documents([9, 6])])
    found, whole = NextToken()(Plain(), batch), NextToken()(model, batch)
    assert_close(found["loss"], whole["loss"])
    assert found["vision_share"] == 0
    assert found["vision_loss"] == 0


def test_what_does_not_suit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"objective\.normalise is 'mean'; it takes weights, count"):
        NextToken("mean")
    with pytest.raises(ValueError, match="next_token needs a model with a causal decoder, not Linear"):
        NextToken().check(nn.Linear(2, 2))
    NextToken().check(tiny())
