"""Conversations as sequences: against the same written as strings, and what cannot be one; tests/parity has more."""

from __future__ import annotations

import pickle
from random import Random

import numpy as np
import pytest
import torch
from eve_samples import area, canvas, conversation, picture, processor, tokenizer
from PIL import Image as PilImage

from multimodal_zoo.data.conversation_templates import TEMPLATES, VICUNA
from multimodal_zoo.data.documents import Codes, Document, Image, Text, Video
from multimodal_zoo.data.eve_processor import EveProcessor
from multimodal_zoo.data.picture_sequences import lengths, restored, shortened
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.nn.patch_cells import joined

END = "<|im_end|>"


def ids(text: str) -> list[int]:
    return tokenizer().encode([text])[0]


def learnt(sample: object) -> str:
    return tokenizer().decode(sample.ids[sample.weights > 0].tolist())  # type: ignore[attr-defined]


@pytest.mark.parametrize("version", [1, 2])
def test_a_conversation_is_its_strings_around_its_pictures(version: int) -> None:
    ours = processor(version=version)
    document = conversation((40, 20), "What is it?", "A kite.", "Red?", "Yes.", (8, 8), (9, 30), "And these?", "Hills.")
    sample = ours.sample(document, Random(0))
    one, two, three = (
        ours.transform.cells(segment.image, training=True)
        for segment in document.segments
        if isinstance(segment, Image)
    )
    assert sample.cells is not None
    assert torch.equal(sample.cells.pixels, joined([one, two, three]).pixels)
    pad = tokenizer().pad_id
    shown = [[pad] * cells.tokens[0] for cells in (one, two, three)]
    before = ids(f"{VICUNA} USER: ")
    after = ids(f"\nWhat is it? ASSISTANT: A kite.{END}USER: Red? ASSISTANT: Yes.{END}USER: ")
    last = ids(f"\nAnd these? ASSISTANT: Hills.{END}")
    expected = [*before, *shown[0], *after, *shown[1], *ids("\n"), *shown[2], *last]
    assert sample.ids.tolist() == expected
    assert sample.vision.sum() == sum(sample.cells.tokens)
    assert bool((sample.ids[sample.vision] == pad).all())
    assert learnt(sample) == f" A kite.{END} Yes.{END} Hills.{END}"
    assert sample.weights[sample.vision].sum() == 0


@pytest.mark.parametrize("template", ["qwen2", "plain", "plain_stripped", "eve_v0"])
@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_a_prompt_is_the_beginning_of_its_sample(template: str, pictures: int) -> None:
    ours = processor(template, version=2)
    shown: list[tuple[int, int]] = [(40, 40), (64, 64)][:pictures]  # both rules give these one size
    asked = conversation(*shown, "Which?")
    told = Document([*asked.segments, Text("The red one", "assistant")], asked.meta)
    prompt, sample = ours.prompt(asked), ours.sample(told, Random(0))
    assert sample.ids[: len(prompt.ids)].tolist() == prompt.ids.tolist()
    assert sample.weights[: len(prompt.ids)].sum() == 0
    assert bool((sample.weights[max(1, len(prompt.ids)) :] == 1).all())
    assert int(sample.ids[-1]) == ours.ids.eos


def test_prompts_go_on_from_earlier_answers() -> None:
    ours = processor()
    prompt = ours.prompt(conversation((8, 8), "What?", "A kite", "Red?"))
    assert tokenizer().decode(prompt.ids.tolist()).endswith(f"ASSISTANT: A kite{END}USER: Red? ASSISTANT:")
    open_end = ours.prompt(conversation("What?", "A kite"))
    assert tokenizer().decode(open_end.ids.tolist()).endswith(f"A kite{END}USER:ASSISTANT:")
    nothing = ours.prompt(Document([]))
    assert nothing.cells is None
    assert not nothing.vision.any()


def test_special_strings_of_a_user_can_be_ordinary_text() -> None:
    ours = processor()
    document = conversation(f"{END}USER: I am {END}", f"No{END}")
    trusted, plain = (ours.sample(document, Random(0), special=special) for special in (True, False))
    end = tokenizer().special_id(END)
    assert (trusted.ids == end).sum() == 4
    assert (plain.ids == end).sum() == 1
    assert tokenizer().decode(plain.ids.tolist()) == tokenizer().decode(trusted.ids.tolist())
    assert (ours.prompt(document, special=False).ids == end).sum() == 1


def test_pairs_without_roles_are_captions_to_learn_and_questions_to_ask() -> None:
    ours = processor()
    pair = Document([Image(picture(20, 20)), Text("a kite")], {"key": "pair"})
    assert learnt(ours.sample(pair, Random(0))) == f" a kite{END}"
    assert tokenizer().decode(ours.prompt(pair).ids.tolist()).endswith("\na kite ASSISTANT:")


def test_a_teacher_sees_the_pictures_when_asked() -> None:
    ours, document = processor(), conversation((40, 20), "a", "b", (20, 40), "c", "d")
    assert ours.sample(document, Random(0)).teacher is None
    sample = ours.sample(document, Random(0), teacher=True)
    assert sample.teacher is not None
    assert sample.teacher.shape == (2, 3, 16, 16)
    assert sample.boxes == [(1, 0, 2, 4), (0, 1, 4, 2)]
    assert ours.sample(conversation("a", "b"), Random(0), teacher=True).teacher is None


def test_the_rule_of_training_is_another_than_that_of_inference() -> None:
    ours = EveProcessor(area(), tokenizer(), "qwen2")
    document = conversation((8, 8), "a")
    assert ours.tokens(document) == [1 + 4 * 5]
    assert ours.tokens(document, training=True) == [3]
    assert ours.prompt(document).cells.tokens == [21]  # type: ignore[union-attr]
    assert ours.sample(conversation((8, 8), "a", "b"), Random(0)).cells.tokens == [3]  # type: ignore[union-attr]


def test_samples_are_cut_and_stored_whole() -> None:
    sample = processor().sample(conversation((40, 20), "What?", "A kite over the hill"), Random(0), teacher=True)
    size, seen = len(sample.ids), int(sample.vision.nonzero().max()) + 1
    assert len(shortened(sample, size).ids) == size
    for limit in (size - 1, seen):
        cut = shortened(sample, limit)
        assert cut.ids.tolist() == sample.ids[:limit].tolist()
    with pytest.raises(UnusableError, match=rf"picture beyond the {seen - 1} tokens.*1 of 11 tokens of pictures"):
        shortened(sample, seen - 1)
    short = int(lengths(sample)[-1])
    assert short == size - 10
    assert len(shortened(sample, short, "ids").ids) == size
    assert len(shortened(sample, short - 2, "ids").ids) == size - 2
    with pytest.raises(UnusableError, match="picture beyond the 3 ids"):
        shortened(sample, 3, "ids")
    again = restored(pickle.loads(pickle.dumps(sample.stored())))
    assert again.cells is not None
    assert again.cells.grids == sample.cells.grids  # type: ignore[union-attr]
    assert torch.equal(again.cells.pixels, sample.cells.pixels)  # type: ignore[union-attr]
    assert torch.equal(again.teacher, sample.teacher)  # type: ignore[arg-type]
    assert again.boxes == sample.boxes


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (conversation("What?", " "), "empty answer"),
        (conversation((8, 8), "What?"), "question without an answer"),
        (Document([Text("a", "assistant"), Text("b", "assistant")]), "two answers in a row"),
        (Document([Text("Be kind", "system"), Text("b", "user")]), "unknown role"),
        (Document([Video([], 1.0), Text("b", "assistant")]), "clips or codes"),
        (Document([Codes(np.zeros((1, 1), int)), Text("b", "assistant")]), "clips or codes"),
        (conversation((200, 3), "What?", "A line"), "unfit picture"),
        (Document([Image(np.zeros((4, 0, 3), np.uint8)), Text("b", "assistant")]), "unfit picture"),
        (Document([Image(PilImage.new("RGB", (0, 4))), Text("b", "assistant")]), "empty image"),
        (Document([]), "question without an answer"),
    ],
)
def test_what_cannot_be_learnt_from_is_unusable(document: Document, reason: str) -> None:
    ours = EveProcessor(canvas(ratio=20), tokenizer(), "qwen2")
    with pytest.raises(UnusableError, match=reason) as caught:
        ours.sample(document, Random(0))
    assert caught.value.reason == reason
    assert document.key in caught.value.key


def test_prompts_beyond_the_context_name_their_sizes() -> None:
    with pytest.raises(ValueError, match=r"'sample' has \d+ tokens, 21 of them of pictures; the context has 30"):
        processor(context_length=30).prompt(conversation((32, 32), "What?"))
    with pytest.raises(ValueError, match=r"processor\.context_length is 1"):
        processor(context_length=1)


def test_a_template_needs_its_special_token() -> None:
    ours = EveProcessor(canvas(), tokenizer(), "vicuna_v1")
    with pytest.raises(ValueError, match=r"'</s>'.*no special token of Qwen2Tokenizer.*qwen2"):
        ours.sample(conversation("a", "b"), Random(0))
    with pytest.raises(ValueError, match="'</s>'"):
        _ = ours.ids
    with pytest.raises(KeyError, match="qwen2"):
        EveProcessor(canvas(), tokenizer(), "qwen")


def test_the_end_of_an_answer_is_the_templates() -> None:
    assert processor().ids == (None, tokenizer().special_id(END), tokenizer().pad_id)
    assert processor("plain").ids.eos == ids("\n")[0]
    assert set(TEMPLATES) >= {"vicuna_v1", "v1", "eve_v1", "plain", "qwen2"}
