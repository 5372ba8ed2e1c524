"""Beam search against an exhaustive one, against each row alone, and its penalties by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from multimodal_zoo.generation.beams import Beams, beam_search
from multimodal_zoo.generation.loop import Scoring, generate
from multimodal_zoo.generation.penalties import Penalties
from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.prompts import left_padded
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.generation.trie import Trie
from multimodal_zoo.registry import build

WIDTH, VOCAB, END, PAD = 16, 7, 2, 0
POLICY, SHORT = FreeText(4, END, PAD), FreeText(3, END, PAD)


def decoder(seed: int = 0) -> Any:
    """A small LLaMA with uneven scores."""
    torch.manual_seed(seed)
    norm = {"type": "rms_norm", "width": WIDTH, "eps": 1e-6}
    qkv = {"type": "separate_qkv", "width": WIDTH, "heads": 2, "head_dim": 8, "kv_heads": 2, "biased": []}
    block = {"type": "pre_norm_block", "norm": norm,
             "attention": {"type": "self_attention", "width": WIDTH, "output_bias": False, "qkv": qkv},
             "mlp": {"type": "swiglu", "width": WIDTH, "hidden": 24, "bias": False}}  # fmt: skip
    made = build({
        "type": "causal_decoder", "width": WIDTH, "vocab_size": VOCAB, "max_positions": 64, "tied": False,
        "rotary": {"type": "rotary_1d", "head_dim": 8, "base": 10000}, "norm": norm,
        "blocks": {"type": "transformer", "depth": 2, "init": {"type": "normal_init", "std": 0.3}, "block": block},
    })  # fmt: skip
    return made.eval()


MODEL = decoder()
PROMPTS = [[1, 5, 3], [1, 4], [1, 6, 6, 5, 3]]


def log_probabilities(prompt: list[int], texts: list[tuple[int, ...]]) -> list[float]:
    """Of texts of one length behind a prompt, summed over their ids."""
    with torch.no_grad():
        scores = MODEL.head(MODEL(torch.tensor([[*prompt, *text] for text in texts]))).log_softmax(-1)
    own = scores[:, len(prompt) - 1 : -1].gather(2, torch.tensor(texts)[..., None])
    return own.sum((1, 2)).tolist()


def best_text(prompt: list[int], penalty: float, started: bool) -> tuple[int, ...]:
    """The best of all texts of up to three ids, whole ones and those that are cut off."""
    others = [one for one in range(VOCAB) if one != END]
    found: list[tuple[float, tuple[int, ...]]] = []
    for length in range(SHORT.limit + 1):
        whole = length < SHORT.limit
        texts = [(*words, END) if whole else words for words in itertools.product(others, repeat=length)]
        counted = length + (1 if whole else started)
        found += [
            (one / counted**penalty, text) for one, text in zip(log_probabilities(prompt, texts), texts, strict=True)
        ]
    return max(found)[1]


@pytest.mark.parametrize(("penalty", "started"), [(0.0, True), (1.0, True), (1.0, False)])
def test_enough_beams_find_the_best_text(penalty: float, started: bool) -> None:
    """With as many beams as there are beginnings nothing is lost but what closes a row early; here nothing is."""
    beams = Beams(VOCAB**2, penalty, 0, 1.0, started)
    for prompt in PROMPTS:
        found = beam_search(MODEL, left_padded([prompt], PAD), SHORT, beams)
        assert tuple(found.ids[0, : int(found.lengths[0])].tolist()) == best_text(prompt, penalty, started)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("penalty", [-1.0, 0.0, 2.0])
def test_rows_come_out_as_alone(count: int, penalty: float) -> None:
    beams, policy = Beams(count, penalty, 2, 1.3), FreeText(6, END, PAD)
    whole = beam_search(MODEL, left_padded(PROMPTS, PAD), policy, beams)
    for row, prompt in enumerate(PROMPTS):
        alone = beam_search(MODEL, left_padded([prompt], PAD), policy, beams)
        assert whole.ids[row, : int(whole.lengths[row])].tolist() == alone.ids[0].tolist()
        assert set(whole.ids[row, int(whole.lengths[row]) :].tolist()) <= {PAD}


def test_embedded_prompts_give_the_same_texts() -> None:
    embedded = [MODEL.embed(torch.tensor(row)).detach() for row in PROMPTS]
    one, two = (beam_search(MODEL, left_padded(rows, PAD), POLICY, Beams(3)) for rows in (PROMPTS, embedded))
    assert torch.equal(one.ids, two.ids)
    assert torch.equal(one.lengths, two.lengths)


def test_one_beam_is_the_likeliest_id_at_every_step() -> None:
    prompts = left_padded(PROMPTS, PAD)
    beams = beam_search(MODEL, prompts, POLICY, Beams(1, min_length=0))
    plain = generate(MODEL, prompts, POLICY, sampling=Sampling(greedy=True))
    assert torch.equal(beams.ids, plain.ids)


@pytest.mark.parametrize("count", [1, 3])
def test_texts_have_a_least_length(count: int) -> None:
    prompts = left_padded(PROMPTS, PAD)
    for started, least in ((False, 4), (True, 5)):
        beams = Beams(count, -1.0, least, 1.0, started)
        found = beam_search(MODEL, prompts, FreeText(8, END, PAD), beams)
        assert int(found.lengths.min()) > 4 or int(found.lengths.min()) >= 5 - started


def test_only_allowed_texts_are_written() -> None:
    allowed = Trie([[3, 4, END], [3, 5, END], [6, END]])
    prompts = left_padded(PROMPTS, PAD)
    for row, prompt in enumerate(PROMPTS):
        texts = [(3, 4, END), (3, 5, END), (6, END)]
        scores = {text: log_probabilities(prompt, [text])[0] for text in texts}
        found = beam_search(MODEL, prompts, POLICY, Beams(3, 0.0), allowed=allowed)
        assert tuple(found.ids[row, : int(found.lengths[row])].tolist()) == max(scores, key=scores.__getitem__)
    one = beam_search(MODEL, prompts, POLICY, Beams(1), allowed=allowed)
    rows = [tuple(row[: int(count)].tolist()) for row, count in zip(one.ids, one.lengths, strict=True)]
    assert set(rows) <= {(3, 4, END), (3, 5, END), (6, END)}


def test_repetition_lowers_what_was_said() -> None:
    scores = torch.tensor([[2.0, -1.0, 0.5, -2.0], [1.0, 1.0, 1.0, 1.0]])
    ids = torch.tensor([[0, 3], [2, 2]])
    found = Penalties(2.0)(scores, ids, None)
    assert found.tolist() == [[1.0, -1.0, 0.5, -4.0], [1.0, 1.0, 0.5, 1.0]]
    started = Penalties(2.0, start=1)(scores, ids, None)
    assert started.tolist() == [[1.0, -2.0, 0.5, -4.0], [1.0, 0.5, 0.5, 1.0]]
    part = Penalties(2.0)(scores[:, :2], ids, None, first=2)  # scores of ids 2 and 3
    assert part.tolist() == [[2.0, -2.0], [0.5, 1.0]]
    early = Penalties(min_length=3)(scores, ids, 1)
    assert early[:, 1].tolist() == [-math.inf, -math.inf]
    assert torch.equal(Penalties(min_length=3, start=1)(scores, ids, 1), scores)
    assert torch.equal(Penalties()(scores, ids[:, :0], 1), scores)


def test_drawn_texts_are_penalised_too() -> None:
    prompts, scoring = left_padded(PROMPTS, PAD), Scoring(penalties=Penalties(1.0, 5))
    found = generate(MODEL, prompts, FreeText(8, END, PAD), sampling=Sampling(), scoring=scoring, seeds=[1, 2, 3])
    assert int(found.lengths.min()) >= 6


def test_progress_is_told_and_wrong_settings_are_named() -> None:
    seen: list[Tensor] = []
    beam_search(MODEL, left_padded(PROMPTS, PAD), POLICY, Beams(2), on_token=lambda one: seen.append(one.ids))
    assert [one.shape[1] for one in seen] == list(range(1, len(seen) + 1))
    with pytest.raises(ValueError, match=r"beams\.count is 0"):
        Beams(0)
    with pytest.raises(ValueError, match="repetition_penalty is 0"):
        Beams(2, repetition_penalty=0)
    with pytest.raises(ValueError, match="beams need texts"):
        beam_search(MODEL, left_padded(PROMPTS, PAD), FreeText(4, None, PAD), Beams(2))
