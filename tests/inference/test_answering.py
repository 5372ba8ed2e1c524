"""Answers: the published prompt, batches of unequal questions, bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import multimodal_zoo as zoo
from multimodal_zoo.data.documents import Codes, Document, Image, Text
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.inference.chat import answer
from multimodal_zoo.inference.writers import writer_of

PICTURE = np.arange(40 * 40 * 3, dtype=np.uint8).reshape(40, 40, 3)
QUESTIONS = [
    Document([Image(PICTURE), Text("What is this?")]),
    Document([Image(PICTURE), Image(255 - PICTURE), Text("Which is darker")]),
    "Tell me a story, please",
    Document([Image(PICTURE)]),
]


@pytest.fixture(scope="module")
def model():
    overrides = ["model.decoder.blocks.depth=1", "model.decoder.max_positions=300"]
    return zoo.create("emu3_tiny", overrides=overrides)


def by_hand(model, document: Document, steps: int) -> str:
    """The likeliest answer without cache or batch."""
    transform = model.processor.images
    codes = [model.encode(transform([s.image])[0][None])[0] for s in document.segments if isinstance(s, Image)]
    text = next((s.text for s in document.segments if isinstance(s, Text)), "")
    row = model.processor.understanding_prompt(text, codes)
    drawn: list[int] = []
    with torch.no_grad():
        while len(drawn) < steps and (not drawn or drawn[-1] != model.ids.eos):
            drawn.append(int(model.decoder.head(model.decoder(torch.tensor([row + drawn])))[0, -1].argmax()))
    return model.processor.decode(drawn)


def test_answers_are_the_likeliest_and_do_not_depend_on_each_other(model) -> None:
    model.eval()
    found = answer(model, QUESTIONS, max_new_tokens=8)
    documents = [one if isinstance(one, Document) else Document([Text(one)]) for one in QUESTIONS]
    assert found == [by_hand(model, one, 8) for one in documents]
    assert answer(model, QUESTIONS, max_new_tokens=8, batch_size=3) == found
    model.train()
    assert answer(model, QUESTIONS, max_new_tokens=8) == found  # no dropout
    assert model.training


def test_sampled_answers_have_seeds_of_their_own(model) -> None:
    sampling = Sampling(temperature=1.5)
    found = answer(model, QUESTIONS, sampling=sampling, max_new_tokens=6, seed=4)
    assert answer(model, QUESTIONS[1:2], sampling=sampling, max_new_tokens=6, seed=5) == found[1:2]
    assert answer(model, QUESTIONS, sampling=sampling, max_new_tokens=6, seed=5) != found


def test_codes_serve_as_pictures(model, monkeypatch) -> None:
    (seen,) = writer_of(model, "a test").seen(QUESTIONS[:1], torch.device("cpu"))
    assert [type(segment) for segment in seen.segments] == [Codes, Text]
    expected = answer(model, QUESTIONS[:1], max_new_tokens=5)
    monkeypatch.setattr(model, "vision_tokenizer", None)
    assert answer(model, seen, max_new_tokens=5) == expected
    with pytest.raises(ValueError, match="no visual tokenizer"):
        answer(model, QUESTIONS[0])


def test_an_answer_is_as_long_as_positions_allow(model) -> None:
    prompt = model.processor.understanding_prompt("a", [])
    with torch.no_grad():
        kept = model.decoder.output.weight[model.ids.eos].clone()
        model.decoder.output.weight[model.ids.eos] = 0  # it never ends by itself
    told = []
    answer(model, "a", on_token=lambda progress: told.append(progress.limit))
    assert told[-1] == 300 - len(prompt) + 1
    with pytest.raises(ValueError, match=r"read behind it are 3\d\d; decoder.max_positions is 300"):
        answer(model, "a", max_new_tokens=301)
    with torch.no_grad():
        model.decoder.output.weight[model.ids.eos] = kept


def test_what_is_no_question_is_refused(model) -> None:
    with pytest.raises(ValueError, match="has 2 texts; a question is one"):
        answer(model, Document([Text("a"), Text("b")]))
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        answer(model, "a", max_new_tokens=0)
    with pytest.raises(ValueError, match="seed lists 1 for 2"):
        answer(model, ["a", "b"], seed=[1])
    with pytest.raises(TypeError, match="answer needs an Emu3"):
        answer(torch.nn.Identity(), "a")
    assert answer(model, []) == []
