"""Words and visual embeddings by turns, against a loop that reads everything anew, rows alone and together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import multimodal_zoo as zoo
from multimodal_zoo.generation.interleaved import PageLayout, WrittenPage, interleave
from multimodal_zoo.generation.prompts import PromptBatch
from multimodal_zoo.generation.sampling import Sampling

OPEN, CLOSE, END, PAD, PLACES = 6, 7, 2, 0, 3
NEVER = (PAD,)


@pytest.fixture(scope="module", params=["emu_tiny", "emu2_tiny"])
def model(request: Any) -> Any:
    torch.manual_seed(1)
    overrides = ["model.decoder.vocab_size=12", "model.decoder.blocks.depth=2", "model.decoder.max_positions=64"]
    overrides += ["model.decoder.width=32"]
    if request.param == "emu_tiny":
        overrides += ["model.connector.width=32"]
    made = zoo.create(request.param, overrides=overrides).eval()
    with torch.no_grad():
        made.decoder.output.weight.normal_()  # far from uniform
        made.decoder.token_embedding.weight.normal_()
    return made


def layout(limit: int = 24, pictures: int = 2) -> PageLayout:
    return PageLayout(limit, OPEN, CLOSE, END, PLACES, pictures, NEVER)


def prompts(model: Any, *rows: list[int]) -> PromptBatch:
    ids = [torch.tensor(row) for row in rows]
    return model.prompts(ids, [torch.zeros_like(row, dtype=torch.bool) for row in ids], None, PAD)


@torch.no_grad()
def anew(model: Any, row: list[int], lay: PageLayout) -> list[Tensor]:
    """The same greedily, over the whole sequence in every step, without any of the loop's code."""
    states = model.embed(torch.tensor([row]))
    parts: list[Tensor] = []
    words: list[int] = []
    visual: list[Tensor] | None = None
    for step in range(1, lay.limit + 1):
        hidden = model.decoder(states)[:, -1]
        if visual is not None and len(visual) < lay.places:
            visual.append(model.regression_head(hidden)[0])
            states = torch.cat([states, model.project(visual[-1])[None, None]], 1)
            continue
        if visual is not None:
            parts.append(torch.stack(visual))
            visual, word = None, lay.closing
        else:
            scores = model.decoder.head(hidden)[0]
            scores[[lay.closing, *lay.never]] = float("-inf")
            done = sum(part.ndim == 2 for part in parts)
            if done >= lay.pictures or step + lay.places > lay.limit:
                scores[lay.opening] = float("-inf")
            word = int(scores.argmax())
            if word in (lay.opening, lay.end):
                parts += [torch.tensor(words)] if words else []
                words = []
            else:
                words.append(word)
            if word == lay.end:
                return parts
            visual = [] if word == lay.opening else None
        states = torch.cat([states, model.embed(torch.tensor([[word]]))], 1)
    return parts + ([torch.stack(visual)] if visual else []) + ([torch.tensor(words)] if words else [])


def same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert [tuple(one.shape) for one in found] == [tuple(one.shape) for one in expected]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_pages_are_those_of_a_loop_without_a_cache(model: Any) -> None:
    rows = [[1, first, second] for first in (3, 4) for second in range(3, 10)]
    lay, pictures = layout(), 0
    for row in rows:
        (page,) = interleave(model, prompts(model, row), lay)
        same(page.parts, anew(model, row, lay))
        pictures += sum(part.ndim == 2 for part in page.parts)
    assert pictures > 3  # the comparison is not about words alone


def test_rows_of_a_batch_are_those_alone(model: Any) -> None:
    rows = [[1, 4, 9], [1, 3], [1, 5, 5, 8, 11], [1, 10, 3, 3]]
    for sampling in (None, Sampling(temperature=1.5)):
        together = interleave(model, prompts(model, *rows), layout(), sampling=sampling, seeds=[5, 6, 7, 8])
        for row, seed, page in zip(rows, (5, 6, 7, 8), together, strict=True):
            (alone,) = interleave(model, prompts(model, row), layout(), sampling=sampling, seeds=[seed])
            same(page.parts, alone.parts)
            assert (page.ended, page.steps) == (alone.ended, alone.steps)


def test_no_picture_is_begun_that_cannot_be_finished(model: Any) -> None:
    told: list[tuple[int, int]] = []
    pages = interleave(model, prompts(model, *[[1, first] for first in range(3, 12)]), layout(PLACES),
                       on_step=lambda done, limit: told.append((done, limit)))  # fmt: skip
    assert all(part.ndim == 1 for page in pages for part in page.parts)
    assert told[-1][1] == PLACES
    for lay in (layout(20, 0), layout(20, 1)):
        pages = interleave(model, prompts(model, *[[1, first] for first in range(3, 12)]), lay)
        assert max(sum(part.ndim == 2 for part in page.parts) for page in pages) <= lay.pictures
        assert all(len(part) == PLACES for page in pages for part in page.parts if part.ndim == 2)


def test_a_page_takes_words_and_pictures_in_order() -> None:
    page, lay = WrittenPage(), layout(20)
    read = [
        page.take(word, torch.full((2,), float(step)), lay) for step, word in enumerate([5, 6, 9, 9, 9, 9, 8, 2, 4])
    ]
    assert read == [5, OPEN, None, None, None, CLOSE, 8, END, END]
    assert [part.tolist() for part in page.parts] == [[5], [[2.0, 2.0], [3.0, 3.0], [4.0, 4.0]], [8]]
    assert (page.ended, page.steps) == (True, 8)


def test_wrong_layouts_are_refused(model: Any) -> None:
    for wrong in ({"limit": 0}, {"places": 0}, {"pictures": -1}):
        given = {"limit": 4, "opening": 6, "closing": 7, "end": 2, "places": 3, "pictures": 1} | wrong
        with pytest.raises(ValueError, match="a page of"):
            PageLayout(**given)
    with pytest.raises(ValueError, match="max_positions"):
        interleave(model, prompts(model, [1, 3]), layout(64))
    with pytest.raises(ValueError, match="2 seeds for 1 prompts"):
        interleave(model, prompts(model, [1, 3]), layout(), seeds=[1, 2])
