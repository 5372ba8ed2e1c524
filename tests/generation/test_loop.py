"""The decoding loop: equal to the definition, to itself row by row, and in distribution to the whole vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.decoders.emu3 import Emu3
from multimodal_zoo.generation.guidance import guide_log_probabilities
from multimodal_zoo.generation.loop import Reader, Scoring, generate
from multimodal_zoo.generation.policies import FREE, FreeText
from multimodal_zoo.generation.prompts import PromptBatch, left_padded
from multimodal_zoo.generation.sampling import Sampling, at_step
from multimodal_zoo.nn.cache import KVCache

GREEDY = Sampling(greedy=True)
TEXTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]
AGAINST = [[10], [11, 10, 2, 4, 4, 3], [1, 1]]
GRIDS = [(3, 2), (2, 4), (4, 1)]


def prompts_of(model: Emu3, texts: list[list[int]]) -> PromptBatch:
    ids = model.ids
    return left_padded([[ids.bos, *text, ids.image_start, 0, ids.image_token] for text in texts], ids.pad)


def defined(model: Emu3, prompt: list[int], negative: list[int], grid: tuple[int, int], scale: float) -> list[int]:
    """The likeliest picture by the definition: no cache, no batch, the whole vocabulary."""
    drawn: list[int] = []
    policy = model.picture_steps(left_padded([prompt], model.ids.pad), [grid])
    for step in range(policy.limit):
        both = [
            model.decoder.head(model.decoder(torch.tensor([row + drawn])))[:, -1].detach() for row in (prompt, negative)
        ]
        scores = guide_log_probabilities(*both, scale)[0]
        forced = int(policy.at(step).forced)
        visual = scores[model.ids.visual]
        drawn.append(forced if forced != FREE else int(visual.argmax()) + model.ids.visual_first)
    return drawn


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("scale", [1.0, 3.0, -0.5])
def test_greedy_pictures_are_the_definition(model: Emu3, exact: bool, scale: float) -> None:
    prompts, negative = prompts_of(model, TEXTS), prompts_of(model, AGAINST)
    policy, scoring = model.picture_steps(prompts, GRIDS), Scoring(scale, exact=exact)
    found = model.generate(prompts, policy, negative=negative, sampling=GREEDY, scoring=scoring)
    for number, grid in enumerate(GRIDS):
        rows = [batch.inputs[number][batch.real[number]].tolist() for batch in (prompts, negative)]
        expected = defined(model, *rows, grid, scale)
        length = int(found.lengths[number])
        assert found.ids[number, :length].tolist() == expected
        assert (found.ids[number, length:] == model.ids.pad).all()


SETTINGS = [
    Sampling(),
    Sampling(top_k=5),
    Sampling(temperature=[0.5, 2.0], top_k=9, top_p=0.8),
    Sampling(top_p=0.5),
]


@dataclass(frozen=True)
class Recording(Sampling):
    """Keeps what every step draws from."""

    seen: dict[int, Tensor] = field(default_factory=dict)

    def choose(self, scores: Tensor, numbers: Tensor | None, step: int = 0) -> Tensor:
        """As it is."""
        self.seen[step] = self.probabilities(scores, step)
        return super().choose(scores, numbers, step)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("scale", [1.0, 4.0, [3.0, 1.0, 2.0]])
def test_a_slice_is_drawn_from_with_the_probabilities_of_the_whole(model: Emu3, settings, scale) -> None:
    prompts, negative = prompts_of(model, TEXTS), prompts_of(model, AGAINST)
    policy, ids = model.picture_steps(prompts, GRIDS), model.ids
    runs = {}
    for exact in (True, False):
        sampling = Recording(temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p)
        scoring = Scoring(scale, exact=exact)
        drawn = model.generate(prompts, policy, negative=negative, sampling=sampling, scoring=scoring, seeds=[5, 6, 7])
        runs[exact] = drawn.ids, sampling.seen
    assert torch.equal(runs[True][0], runs[False][0])  # the same numbers chose the same ids
    assert len(runs[False][1]) < len(runs[True][1])
    for step, shares in runs[False][1].items():
        free = policy.at(step).forced == FREE
        whole = runs[True][1][step]
        assert_close(whole[free][:, ids.visual], shares[free], atol=2e-6, rtol=2e-5)
        assert whole[free].sum(-1).sub(whole[free][:, ids.visual].sum(-1)).abs().max() < 1e-6


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(top_k=6)])
def test_rows_come_out_as_they_would_alone(model: Emu3, sampling: Sampling) -> None:
    prompts, negative = prompts_of(model, TEXTS), prompts_of(model, AGAINST)
    together = model.generate(
        prompts, model.picture_steps(prompts, GRIDS), negative=negative, sampling=sampling, scoring=Scoring(3.0)
    )
    for number, grid in enumerate(GRIDS):
        one, other = prompts_of(model, TEXTS[number : number + 1]), prompts_of(model, AGAINST[number : number + 1])
        alone = model.generate(
            one,
            model.picture_steps(one, [grid]),
            negative=other,
            sampling=sampling,
            scoring=Scoring(3.0),
            seeds=[number],
        )
        length = int(together.lengths[number])
        assert int(alone.lengths[0]) == length == alone.ids.shape[1]
        assert torch.equal(alone.ids[0], together.ids[number, :length])


def test_given_ids_cost_no_output_layer_and_no_step_of_their_own(model: Emu3, monkeypatch) -> None:
    calls: dict[str, list[tuple[int, ...]]] = {"read": [], "head": []}
    forward, head = model.decoder.forward, model.decoder.head

    def reading(inputs: Tensor, **options):
        calls["read"].append(tuple(inputs.shape))
        return forward(inputs, **options)

    def scoring(hidden: Tensor, rows=None):
        logits = head(hidden, rows)
        calls["head"].append(tuple(logits.shape))
        return logits

    monkeypatch.setattr(model.decoder, "forward", reading)
    monkeypatch.setattr(model.decoder, "head", scoring)
    prompts = prompts_of(model, TEXTS[:1] * 3)
    policy = model.picture_steps(prompts, [(2, 3)] * 3)
    model.generate(prompts, policy, negative=prompts_of(model, AGAINST[:1] * 3), scoring=Scoring(3.0))
    # two different prompts once, then two rows for each of three pictures; the line end goes with the next drawn id
    assert calls["read"] == [(2, 7), (6, 1), (6, 1), (6, 2), (6, 1), (6, 1)]
    assert calls["head"] == [(6, 20)] * 6
    calls["read"].clear()
    model.generate(prompts, policy, negative=prompts_of(model, AGAINST[:1] * 3))  # no guidance: no second branch
    assert calls["read"] == [(1, 7), (3, 1), (3, 1), (3, 2), (3, 1), (3, 1)]


def test_pictures_of_one_prompt_are_those_of_prompts_apart(model: Emu3) -> None:
    prompts = prompts_of(model, [TEXTS[0], TEXTS[1], TEXTS[0]])
    found = model.generate(prompts, model.picture_steps(prompts, [(3, 3)] * 3), seeds=[1, 1, 2])
    assert not torch.equal(found.ids[0], found.ids[2])
    alone = prompts_of(model, [TEXTS[0]])
    again = model.generate(alone, model.picture_steps(alone, [(3, 3)]), seeds=[2])
    assert torch.equal(again.ids[0], found.ids[2])


def text_by_hand(model: Emu3, row: list[int], steps: int) -> list[int]:
    drawn: list[int] = []
    while len(drawn) < steps and (not drawn or drawn[-1] != model.ids.eos):
        drawn.append(int(model.decoder.head(model.decoder(torch.tensor([row + drawn])))[0, -1].argmax()))
    return drawn


def test_texts_end_by_themselves(model: Emu3) -> None:
    ids = model.ids
    with torch.no_grad():  # the end comes soon in some rows
        model.decoder.output.weight[ids.eos] = 2 * torch.randn(16)
    rows = [[ids.bos, number, *range(number)] for number in range(8)]
    found = model.generate(left_padded(rows, ids.pad), model.text_steps(12), sampling=GREEDY)
    expected = [text_by_hand(model, row, 12) for row in rows]
    assert len({len(row) for row in expected}) > 1
    for number, row in enumerate(expected):
        assert found.ids[number, : len(row)].tolist() == row
        assert found.lengths[number] == len(row)
        assert (found.ids[number, len(row) :] == ids.pad).all()
    ended = [row for row, text in zip(rows, expected, strict=True) if text[-1] == ids.eos and len(text) < 12]
    early = model.generate(left_padded(ended, ids.pad), model.text_steps(12), sampling=GREEDY)
    assert early.ids.shape[1] == max(len(row) for row in expected if row[-1] == ids.eos and len(row) < 12)


def test_texts_may_be_held_to_a_part_of_the_vocabulary(model: Emu3) -> None:
    policy = FreeText(9, None, model.ids.pad, rows=slice(3, 8))
    found = model.generate(left_padded([[model.ids.bos], [1, 2]], 0), policy, seeds=[0, 1])
    assert found.ids.min() >= 3
    assert found.ids.max() < 8
    assert found.lengths.tolist() == [9, 9]


def test_embeddings_serve_as_prompts(model: Emu3) -> None:
    prompts = prompts_of(model, TEXTS)
    embedded = PromptBatch(model.decoder.embed(prompts.inputs).detach(), prompts.real)
    policy = model.picture_steps(prompts, GRIDS)
    expected = generate(model.decoder, prompts, policy, sampling=GREEDY)
    assert torch.equal(generate(model.decoder, embedded, policy, sampling=GREEDY).ids, expected.ids)


def test_a_picture_goes_on_from_rows_that_are_given_or_stand_in_the_prompt(model: Emu3) -> None:
    ids, prompts = model.ids, prompts_of(model, TEXTS[:1])
    whole = model.generate(prompts, model.picture_steps(prompts, [(3, 2)]), sampling=GREEDY).ids
    codes = whole[0, :2] - ids.visual_first
    given = model.generate(prompts, model.picture_steps(prompts, [(3, 2)], [codes[None]]), sampling=GREEDY).ids
    assert torch.equal(given, whole)
    begun = left_padded([[*prompts.inputs[0].tolist(), *whole[0, :4].tolist()]], ids.pad)
    rest = model.generate(begun, model.picture_steps(begun, [(3, 2)]), sampling=GREEDY).ids
    assert torch.equal(rest, whole[:, 4:])
    other = (codes[None] + 1) % ids.codebook_size
    changed = model.generate(prompts, model.picture_steps(prompts, [(3, 2)], [other]), sampling=GREEDY).ids
    assert torch.equal(changed[:, :2] - ids.visual_first, other)
    assert not torch.equal(changed[:, 3:5], whole[:, 3:5])


def test_a_prompt_may_hold_a_picture(model: Emu3) -> None:
    ids = model.ids
    first = [ids.image_start, 0, ids.image_token, ids.visual_first, ids.end_of_line, ids.end_of_frame, ids.image_end]
    row = [ids.bos, *first, 5, ids.image_start, 0, ids.image_token]
    batch = left_padded([row, row[-4:]], ids.pad)
    found = model.generate(batch, model.picture_steps(batch, [(2, 2), (2, 2)]), sampling=GREEDY)
    assert found.ids[0].tolist() == defined(model, row, row, (2, 2), 1.0)


def test_progress_is_told_step_by_step(model: Emu3) -> None:
    prompts, told = prompts_of(model, TEXTS[:2]), []
    found = model.generate(
        prompts,
        model.picture_steps(prompts, GRIDS[:2]),
        on_token=lambda progress: told.append((progress.limit, progress.ids.clone())),
    )
    assert [ids.shape[1] for _, ids in told] == list(range(1, found.ids.shape[1] + 1))
    assert all(limit == found.ids.shape[1] for limit, _ in told)
    assert torch.equal(told[-1][1], found.ids)
    assert all(torch.equal(ids, found.ids[:, : ids.shape[1]]) for _, ids in told)


def test_scores_are_kept_where_they_are_asked_for(model: Emu3) -> None:
    prompts, negative = prompts_of(model, TEXTS[:1]), prompts_of(model, AGAINST[:1])
    scoring = Scoring([2.0, 5.0], exact=True, keep=[0, 2])
    policy = model.picture_steps(prompts, [(2, 2)])
    found = model.generate(prompts, policy, negative=negative, sampling=GREEDY, scoring=scoring)
    assert sorted(found.scores) == [0, 2]
    both = [model.decoder.head(model.decoder(batch.inputs))[:, -1].detach() for batch in (prompts, negative)]
    expected = guide_log_probabilities(*both, at_step([2.0, 5.0], 0))[:, model.ids.visual]
    assert_close(found.scores[0][:, model.ids.visual], expected, atol=1e-4, rtol=1e-4)
    assert found.scores[0].isfinite().sum() == model.ids.codebook_size
    assert found.scores[2].isfinite().nonzero().tolist() == [[0, model.ids.end_of_line]]


@pytest.mark.parametrize(("guidance", "normalised"), [(None, False), (1.0, True)])
def test_without_guidance_scores_are_logits_and_with_scale_1_log_probabilities(
    model: Emu3, guidance: float | None, normalised: bool
) -> None:
    prompts = prompts_of(model, TEXTS[:1])
    scoring = Scoring(guidance, exact=True, keep=[0])
    found = model.generate(prompts, model.text_steps(1), sampling=GREEDY, scoring=scoring).scores[0]
    logits = model.decoder.head(model.decoder(prompts.inputs))[:, -1].detach()
    assert_close(found, logits.log_softmax(-1) if normalised else logits, atol=1e-5, rtol=1e-5)


def test_too_many_tokens_are_refused_before_anything_is_computed(model: Emu3, monkeypatch) -> None:
    prompts = prompts_of(model, TEXTS[2:])  # 9 tokens
    fitting = model.picture_steps(prompts, [(9, 7)])  # the last drawn id is not read: 9 + 9 * 8 - 2 tokens are
    assert model.generate(prompts, fitting, sampling=GREEDY).ids.shape == (1, 75)
    monkeypatch.setattr(model.decoder, "forward", lambda *_, **__: pytest.fail("the model was run"))
    with pytest.raises(ValueError, match=r"9 tokens and 78 read behind it are 87; decoder.max_positions is 80"):
        model.generate(prompts, model.picture_steps(prompts, [(10, 7)]))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"scoring": Scoring(3.0)}, "no negative prompts"),
        ({"seeds": [1]}, "1 seeds for 2 prompts"),
        ({"scoring": Scoring(3.0), "negative": left_padded([[1]], 0)}, "1 negative prompts for 2"),
    ],
)
def test_counts_that_do_not_fit_are_refused(model: Emu3, options, word) -> None:
    prompts = prompts_of(model, TEXTS[:2])
    with pytest.raises(ValueError, match=word):
        model.generate(prompts, model.picture_steps(prompts, GRIDS[:2]), **options)
    with pytest.raises(ValueError, match="1 grids for 2 prompts"):
        model.picture_steps(prompts, GRIDS[:1])


def test_scores_that_are_not_computed_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match="exact=True"):
        Scoring(keep=[0])
    with pytest.raises(ValueError, match="guidance is inf"):
        Scoring(float("inf"))


def test_double_precision_and_half_give_ids_too(model: Emu3) -> None:
    prompts = prompts_of(model, TEXTS)
    policy = model.picture_steps(prompts, GRIDS)
    expected = model.generate(prompts, policy, sampling=GREEDY).ids
    assert torch.equal(model.double().generate(prompts, policy, sampling=GREEDY).ids, expected)


def test_nothing_keeps_a_gradient(model: Emu3) -> None:
    prompts = prompts_of(model, TEXTS[:1])
    with torch.no_grad():
        assert not Reader(model.decoder, prompts, 1).state.requires_grad
    found = model.generate(prompts, model.picture_steps(prompts, GRIDS[:1]))
    model.decoder(found.ids).sum().backward()  # drawn ids are ordinary tensors: preferences are trained on them


def test_a_cache_begins_as_rows_of_another() -> None:
    old = KVCache(layers=2, batch=2, kv_heads=1, capacity=5, head_dim=3)
    stored = [[torch.randn(2, 1, 4, 3) for _ in range(2)] for _ in range(2)]
    for layer, (key, value) in zip(old.layers, stored, strict=True):
        layer.append(key, value)
    new = old.taken(torch.tensor([1, 1, 0]), capacity=9)
    assert len(new) == 4
    key, value = new.layers[1].append(torch.ones(3, 1, 2, 3), torch.ones(3, 1, 2, 3))
    assert torch.equal(key[:, :, :4], stored[1][0][[1, 1, 0]])
    assert torch.equal(value[:, :, :4], stored[1][1][[1, 1, 0]])
    assert len(old) == 4
    with pytest.raises(ValueError, match="holds 4 tokens per row; a capacity of 3"):
        old.taken(torch.tensor([0]), capacity=3)
