"""Visual embeddings one after another: the cache against whole passes, batches against single prompts, progress."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from emu_documents import COUNTS, FRAME, OPEN, PICTURE, documents, prompts_of, sample, tiny
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.data.visual_sequences import VisualSample
from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.generation.prompts import PromptBatch

SYSTEMS = pytest.mark.parametrize("system", ["emu", "emu2"])


@torch.no_grad()
def whole_passes(model: Emu, one: VisualSample, count: int) -> Tensor:
    """The published way: the whole sequence is read anew for each embedding."""
    ids = torch.cat([one.ids, torch.tensor([OPEN])])
    vision = torch.cat([one.vision, torch.tensor([False])])
    states = model.embed(ids[None], vision[None], None if one.images is None else model.encode(one.images))
    found: list[Tensor] = []
    for _ in range(count):
        found.append(model.regression_head(model.decoded(states)[:, -1]))
        states = torch.cat([states, model.project(found[-1])[:, None]], dim=1)
    return torch.stack(found, dim=1)


@SYSTEMS
def test_one_prompt_or_many_with_and_without_a_cache(system: str) -> None:
    """Prompts of different lengths with no, one and several pictures, in every order; padding changes nothing."""
    model, rows = tiny(system), documents(system)
    expected = [whole_passes(model, one, 5)[0] for one in rows]
    assert expected[0].shape == (5, model.visual_width)
    for group in ([0], [5], [1, 5], list(range(6)), [5, 4, 3, 2, 1, 0], [1, 1, 1]):
        found = model.imagine(prompts_of(model, [rows[number] for number in group], opened=True), 5)
        assert_close(found, torch.stack([expected[number] for number in group]), atol=1e-4, rtol=1e-4)


@SYSTEMS
def test_more_embeddings_begin_with_fewer(system: str) -> None:
    model, one = tiny(system), sample(system, 3)
    long = model.imagine(prompts_of(model, [one], opened=True), 9)
    for count in (1, 4):
        assert_close(model.imagine(prompts_of(model, [one], opened=True), count), long[:, :count])


@SYSTEMS
def test_what_is_imagined_can_be_read_again(system: str) -> None:
    """Generated embeddings as the picture of a prompt: their next predictions are what generation saw."""
    model, count = tiny(system), COUNTS[system][0]
    one = sample(system, 2, PICTURE)
    opened = torch.tensor([[*one.ids[:2].tolist(), OPEN]])
    prompt = PromptBatch(model.decoder.embed(opened), torch.ones_like(opened, dtype=torch.bool))
    with torch.no_grad():
        visual = model.imagine(prompt, count)[0]
        hidden = model(one.ids[None], vision=one.vision[None], visual=visual)[0]
    assert_close(model.regression_head(hidden[2 : 2 + count]), visual, atol=1e-4, rtol=1e-4)


def test_progress_is_told() -> None:
    model, told = tiny("emu2"), []
    model.imagine(prompts_of(model, [sample("emu2", 2, FRAME)], opened=True), 3, lambda *now: told.append(now))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_only_the_last_state_of_the_last_layer_is_kept() -> None:
    """Each step reads one position; no gradient is recorded."""
    model, seen = tiny("emu"), []
    model.decoder.norm.register_forward_hook(lambda _, args, out: seen.append(out.shape[1]))
    found = model.imagine(prompts_of(model, [sample("emu", 3, PICTURE)], opened=True), 4)
    assert seen == [1, 1, 1, 1]
    assert not found.requires_grad


@pytest.mark.parametrize(("count", "message"), [(0, "0 visual embeddings asked for"), (95, r"decoder\.max_positions")])
def test_counts_that_cannot_be(count: int, message: str) -> None:
    model: Any = tiny("emu")
    with pytest.raises(ValueError, match=message):
        model.imagine(prompts_of(model, [sample("emu", 3)], opened=True), count)
