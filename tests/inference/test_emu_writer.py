"""Emu and Emu2 that answer: prompts, beams, memory of pictures, continuations, what an answer is cut to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from multimodal_zoo.data.documents import Document, Image, Seen, Text, Video
from multimodal_zoo.evaluation.likelihood import likelihoods
from multimodal_zoo.generation.beams import Beams
from multimodal_zoo.generation.remembering import Remembering
from multimodal_zoo.inference.chat import answer
from multimodal_zoo.inference.emu_writer import PUBLISHED, EmuWriter
from multimodal_zoo.inference.visual_memory import VisualMemory, content_of, memory_of
from multimodal_zoo.inference.writers import writer_of
from multimodal_zoo.zoo import create

CPU = torch.device("cpu")


def picture(seed: int) -> np.ndarray:
    """Random colours."""
    return np.random.default_rng(seed).integers(0, 256, (24, 30, 3)).astype(np.uint8)


@pytest.fixture(scope="module", params=["emu_tiny", "emu2_tiny"])
def model(request: pytest.FixtureRequest) -> Any:
    """A small model of either generation."""
    return create(request.param, overrides=["model.decoder.blocks.depth=2"], seed=2).eval()


DOCUMENTS = [
    Document([Image(picture(0)), Text("a heart"), Image(picture(1))]),
    Document([Video([picture(0), picture(2)], 1.0), Text("what is it?")]),
    Document([Text("hello")]),
    Document([Image(picture(1)), Text("and this?")]),
]


@pytest.mark.parametrize("beams", [None, Beams(3, -1.0, 3)])
def test_answers_do_not_depend_on_what_is_beside_them(model: Any, beams: Beams | None) -> None:
    whole = answer(model, DOCUMENTS, max_new_tokens=5, beams=beams)
    assert whole == [answer(model, one, max_new_tokens=5, beams=beams)[0] for one in DOCUMENTS]
    assert all("[" not in text for text in whole)


def test_prompts_are_those_of_the_model_without_memory(model: Any) -> None:
    found = writer_of(model, "a test").prompts(DOCUMENTS, True, CPU)
    samples = [model.processor.prompt(one) for one in DOCUMENTS]
    with torch.no_grad():
        visual = torch.cat([model.encode(one.images) for one in samples if one.images is not None])
    ids, places = [one.ids for one in samples], [one.vision for one in samples]
    expected = model.prompts(ids, places, visual, model.processor.ids.pad)
    torch.testing.assert_close(found.inputs, expected.inputs, atol=1e-5, rtol=1e-4)
    assert torch.equal(found.real, expected.real)


def test_pictures_are_encoded_once_until_weights_change(model: Any) -> None:
    memory = VisualMemory()
    seen = memory.seen(model, DOCUMENTS)
    clips = model.processor.frame_tokens is not None  # a picture as a frame is another
    assert memory.encoded == 3 + clips
    assert isinstance(seen[0].segments[0], Seen)
    assert memory.seen(model, seen)[0].segments[0] is seen[0].segments[0]
    memory.seen(model, [Document([Image(picture(1).copy())])])
    assert memory.encoded == 3 + clips
    with torch.no_grad():
        next(iter(model.image_encoder.parameters())).add_(0.0)
    memory.seen(model, DOCUMENTS[:1])
    assert memory.encoded == 5 + clips
    assert memory_of(model) is memory_of(model)
    assert content_of(picture(1)) != content_of(picture(2))
    small = VisualMemory(limit=0)
    small.seen(model, DOCUMENTS[:1])
    small.seen(model, DOCUMENTS[:1])
    assert small.encoded == 4


def test_frames_of_one_array_are_those_of_a_list(model: Any) -> None:
    frames = np.stack([picture(seed) for seed in (0, 0, 1, 2, 2, 0)])
    clips: list[Any] = [list(frames), frames]
    first, second = (VisualMemory().seen(model, [Document([Video(clip, 1.0)])]) for clip in clips)
    for one, other in zip(first[0].segments[0].frames, second[0].segments[0].frames, strict=True):
        torch.testing.assert_close(one.visual, other.visual)


def test_seen_pictures_must_fit(model: Any) -> None:
    visual = torch.zeros(2, model.visual_width)
    with pytest.raises(ValueError, match=r"its pictures have \[2\] embeddings, processor.image_tokens"):
        model.processor.prompt(Document([Seen(visual)]))
    right = torch.zeros(model.processor.image_tokens, model.visual_width)
    with pytest.raises(ValueError, match="a model saw 1 of its 2 pictures"):
        model.processor.prompt(Document([Seen(right), Image(picture(0))]))


def test_shots_are_read_once_for_several_queries(model: Any) -> None:
    """Answers over a shared beginning are those of whole readings, with fewer tokens read."""
    shots = [Image(picture(3)), Text("one"), Image(picture(4)), Text("two")]
    queries = [Document([*shots, Image(picture(number))]) for number in range(5, 9)]
    expected = answer(model, queries, max_new_tokens=4)
    reader = Remembering(model.decoder)
    found = answer(model, queries, max_new_tokens=4, reader=reader, batch_size=1)
    assert found == expected
    whole = sum(len(model.processor.prompt(one).ids) + 3 for one in queries)
    assert reader.read < 0.7 * whole


def test_continuations_go_on_from_prompts(model: Any) -> None:
    writer = EmuWriter(model, model.processor)
    plain = writer.continuation("", "a heart", end=True)
    assert plain == [*model.processor.text_ids("a heart"), model.processor.ids.eos]
    name = "emu_instruct" if model.processor.frame_tokens is None else "emu2_chat"
    chat = EmuWriter(model, model.processor.written_as(name))
    ids = chat.continuation("what?", "a heart", end=False)
    assert chat.decode(ids) == "a heart"
    assert chat.continuation("what?", "a heart", end=True) == [*ids, model.processor.ids.eos]
    prompt = chat.prompts([Document([Image(picture(0)), Text("what?", "user")])], False, CPU)
    scores = likelihoods(model.decoder, prompt, [ids, chat.continuation("what?", "cats", end=True)]).scores
    assert torch.isfinite(scores).all()
    assert len(writer.blank("", CPU)) == len(chat.blank("what?", CPU)) == 1


def test_answers_end_where_a_picture_begins(model: Any) -> None:
    ids = model.processor.ids
    row = [*model.processor.text_ids("a heart"), ids.image_begin, *model.processor.text_ids("more")]
    assert writer_of(model, "a test").decode(row) == "a heart"


def test_published_settings_are_those_of_the_scripts() -> None:
    assert PUBLISHED["coco"] == (Beams(5, -1.0, 8), 20)
    assert PUBLISHED["emu2_chat"][0].length_penalty == 2.0
    assert all(beams.count == 5 and beams.counts_start for beams, _ in PUBLISHED.values())


def test_what_is_kept_of_a_picture_takes_its_own_memory(model: Any) -> None:
    memory = VisualMemory()
    seen = memory.seen(model, [Document([Image(picture(number)) for number in range(20, 24)])])[0].segments
    tensors = [one.visual for one in seen if isinstance(one, Seen)]
    assert len(tensors) == 4
    assert all(one.untyped_storage().nbytes() == one.nbytes for one in tensors)


def test_a_model_made_without_bookkeeping_answers_too() -> None:
    with torch.inference_mode():
        made = create("emu_tiny", overrides=["model.decoder.blocks.depth=1"], seed=2).eval()
    assert len(answer(made, DOCUMENTS[:1], max_new_tokens=2)) == 1
