"""Layouts of training sequences, against the same written as strings, and what of them is learnt."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from emu3_samples import CHAT, document, processor

from multimodal_zoo.data.documents import Codes, Document, Image, Text
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.token_sequences import TokenWeights, sequences
from multimodal_zoo.registry import build

OURS = processor()
ALL = TokenWeights(text=1.0, vision=0.5, layout=0.25, prompt=0.125, end=2.0)
CAPTION = {"type": "text_caption"}
DRAW = {"type": "text_to_image_layout", "captions": CAPTION, "null_prompt_probability": 0.0, "end": True}
NAME = {"type": "image_to_text_layout", "captions": CAPTION}


def sample(layout: dict[str, Any], one: Document, weights: TokenWeights = ALL, seed: int = 0) -> Any:
    (found,) = sequences([one], OURS, build(layout), weights, Random(seed))
    return found


def shown(layout: dict[str, Any], one: Document, seed: int = 0) -> str:
    """A sequence as text, its pictures as [first code]."""
    found = []
    for piece in OURS.pieces(sample(layout, one, seed=seed).ids):
        found.append(piece if isinstance(piece, str) else f"[{int(piece[0, 0])}]")
    return "".join(found).replace("<|extra_203|>", "<").replace("<|extra_204|>", ">")


CODES = [Codes(np.full((1, 2), i)) for i in range(4)]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (DRAW, "<text 3[3]>"),
        (DRAW | {"end": False}, "<text 3[3]"),
        (DRAW | {"null_prompt_probability": 1.0}, "<[3]>"),
        (NAME, "<[3]text 3>"),
        (NAME | {"end": False}, "<[3]text 3"),
        ({"type": "document_layout"}, "<[3]text 3>"),
    ],
)
def test_pairs(layout: dict[str, Any], expected: str) -> None:
    assert shown(layout, document(3)) == expected


def test_documents_of_any_kind() -> None:
    layout = {"type": "document_layout"}
    assert shown(layout, Document([Text("only text")])) == "<only text>"
    page = Document([Text("a"), CODES[1], CODES[2], Text("b"), CODES[3]])
    assert shown(layout, page) == "<a[1][2]b[3]>"
    assert shown(layout | {"end": False}, Document([CODES[1]])) == "<[1]"


def test_conversations() -> None:
    turns = [
        CODES[1], CODES[2], Text("Which?", "user"), Text("The first", "assistant"),
        Text("And this", "user"), Text("No", "assistant"),
    ]  # fmt: skip
    expected = f"<{CHAT.format(image='[1][2]', text='Which?')} The first> USER: And this. ASSISTANT: No>"
    assert shown({"type": "chat_layout"}, Document(turns)) == expected
    found = sample({"type": "chat_layout"}, Document(turns), TokenWeights(1.0, 0.0, 0.0, 0.0, 1.0))
    learnt = OURS.decode(found.ids[found.weights > 0], skip_special=False)
    assert learnt == " The first<|extra_204|> No<|extra_204|>"  # a first stage of chat learns no vision


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([Text("a", "user")], "no answer at the end: k"),
        ([Text("a", "assistant")], r"turns out of order: k \(assistant in place of user\)"),
        ([Text("a", "user"), Text("b", "user")], r"turns out of order: k \(user in place of assistant\)"),
        ([Text("a", "user"), Text("b", "assistant"), CODES[0]], "no answer at the end: k"),
        ([Text("s", "system"), Text("a", "user"), Text("b", "assistant")], r"\(system in place of user\)"),
    ],
)
def test_conversations_out_of_order_are_counted_as_unusable(turns: list[Any], reason: str) -> None:
    with pytest.raises(UnusableError, match=reason):
        sample({"type": "chat_layout"}, Document(turns, {"key": "k"}))


def test_texts_without_roles_are_no_conversation() -> None:
    with pytest.raises(ValueError, match=r"document 'k' is no conversation.*data.layout.type is chat_layout"):
        sample({"type": "chat_layout"}, Document([Text("a"), Text("b")], {"key": "k"}))


def test_each_kind_has_its_weight() -> None:
    found = sample(DRAW, document(1, (1, 2), "ab"))
    start, end = [0.25] * 5, [0.25] * 3  # start, three letters of the size, image token; line, frame and picture end
    assert found.weights.tolist() == [0.0, 1.0, 1.0, *start, 0.5, 0.5, *end, 2.0]
    asked = sample({"type": "chat_layout"}, Document([Text("q", "user"), Text("a", "assistant")]))
    assert set(asked.weights[:-3].tolist()) == {0.0, 0.125}
    assert asked.weights[-3:].tolist() == [1.0, 1.0, 2.0]
    assert found.ids.dtype == torch.long
    assert found.weights.dtype == torch.float32


def test_the_released_fine_tuning_learns_visual_tokens_only() -> None:
    found = sample(DRAW | {"end": False}, document(1), TokenWeights(0, 1, 0, 0, 0))
    assert torch.equal(found.weights > 0, OURS.ids.is_visual(found.ids))
    assert found.key == "1"
    written = sample(DRAW | {"end": False}, document(1, text="a<|visual token 000003|>b"), TokenWeights(0, 1, 0, 0, 0))
    assert written.weights[:4].tolist() == [0, 0, 1, 0]


def test_texts_are_dropped_at_their_rate() -> None:
    layout = build(DRAW | {"null_prompt_probability": 0.25})
    random = Random(0)
    dropped = sum(len(layout(document(1), OURS, random)) == 3 for _ in range(2000))
    assert abs(dropped - 500) < 4 * (2000 * 0.25 * 0.75) ** 0.5


def test_mixtures_are_drawn_by_weight() -> None:
    mixture = {"type": "layout_mixture", "layouts": {"draw": DRAW, "name": NAME}, "weights": {"name": 3, "draw": 1}}
    both = [shown(mixture, document(3), seed) for seed in range(400)]
    assert set(both) == {"<text 3[3]>", "<[3]text 3>"}
    assert abs(both.count("<text 3[3]>") - 100) < 40
    with pytest.raises(ValueError, match=r"data\.layout\.weights"):
        build(mixture | {"weights": {"draw": 1}})
    with pytest.raises(ValueError, match=r"data\.layout\.weights"):
        build(mixture | {"weights": {"draw": 1, "name": 0}})


def test_special_strings_in_texts() -> None:
    text = document(1, text="<|extra_204|>")
    assert (sample(NAME, text).ids == OURS.ids.eos).sum() == 2
    assert (sample(NAME | {"special": False}, text).ids == OURS.ids.eos).sum() == 1


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"'k' has a image that is not encoded.*mmzoo tokenize"):
        sample(DRAW, Document([Image(np.zeros((8, 8), np.uint8)), Text("a")], {"key": "k"}))
    with pytest.raises(ValueError, match="'k' has no picture"):
        sample(DRAW, Document([Text("a")], {"key": "k"}))
    with pytest.raises(ValueError, match="null_prompt_probability is 2"):
        build(DRAW | {"null_prompt_probability": 2})
    for bad in ([0.0] * 5, [1, 1, -1, 0, 0]):
        with pytest.raises(ValueError, match=r"data\.weights"):
            TokenWeights(*bad)
    with pytest.raises(ValueError, match=r"data\.layout\.turn"):
        build({"type": "chat_layout", "turn": "{text}"})
