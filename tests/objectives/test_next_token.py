"""The next-token objective against whole logits: weights, packing, frozen parts, several processes' divisors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from causal_samples import IDS, documents, gradients, rows, tiny
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo.decoders.emu3 import Emu3
from multimodal_zoo.objectives import next_token
from multimodal_zoo.objectives.next_token import NextToken


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
    real = next_token.linear_cross_entropy
    monkeypatch.setattr(
        next_token, "linear_cross_entropy", lambda hidden, *rest: seen.append(len(hidden)) or real(hidden, *rest)
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
