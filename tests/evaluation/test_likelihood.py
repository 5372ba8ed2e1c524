"""Likelihoods of continuations behind a shared prompt, against whole sequences."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import multimodal_zoo as zoo
from multimodal_zoo.evaluation.likelihood import continuation_scores

SMALL = ["model.decoder.width=32", "model.decoder.blocks.depth=2", "model.decoder.blocks.block.mlp.hidden=48"]
SMALL += ["model.decoder.blocks.block.attention.qkv.head_dim=8"]


@pytest.fixture(scope="module")
def decoder() -> nn.Module:
    part = zoo.create("emu3_tiny", overrides=SMALL).decoder.eval()
    for parameter in part.parameters():
        parameter.data.mul_(8.0)  # random weights of the usual size find everything equally likely
    return part


@pytest.mark.parametrize("at_once", [1, 2, 64])
def test_scores_are_those_of_whole_sequences(decoder, at_once) -> None:
    prompt, continuations = [7, 11, 13, 2], [[5], [6, 7, 8], [9, 10], [6, 7, 9]]
    with torch.no_grad():
        found = continuation_scores(decoder, prompt, continuations, at_once)
        for tokens, score in zip(continuations, found, strict=True):
            logits = decoder.head(decoder(torch.tensor([prompt + tokens])))[0].log_softmax(dim=-1)
            places = range(len(prompt) - 1, len(prompt) + len(tokens) - 1)
            expected = sum(logits[place, token] for place, token in zip(places, tokens, strict=True))
            torch.testing.assert_close(score, expected, atol=1e-4, rtol=1e-5)
    assert found.std() > 0.1


def test_all_continuations_of_one_token_are_a_distribution(decoder) -> None:
    with torch.no_grad():
        found = continuation_scores(decoder, [3], [[token] for token in range(decoder.vocab_size)])
    assert found.exp().sum().item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("prompt", "continuations"), [([], [[1]]), ([1], [[2], []])])
def test_empty_sequences_are_refused(decoder, prompt, continuations) -> None:
    with pytest.raises(ValueError, match="one token at least"):
        continuation_scores(decoder, prompt, continuations)
