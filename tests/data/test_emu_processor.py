"""Documents as sequences of words and visual embeddings: templates, places, what is learnt, what is refused."""

from __future__ import annotations

import json
from random import Random

import pytest
import torch
from emu_samples import EMU, EMU2, FILE, FRAME_TOKENS, TOKENS, clip, document, picture, processor, tokenizer
from safetensors.torch import load_file

from multimodal_zoo.data.documents import Codes, Document, Image, Text, Video
from multimodal_zoo.data.emu_templates import EMU2_LONG, EMU2_SHORT, EMU_IMAGE, EMU_VIDEO
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.visual_sequences import LearntElements, VisualSample, restored, shortened

GOLDENS = FILE.parents[1]
IMAGE = "[IMG]" + "<image>" * TOKENS + "[/IMG]"
FRAME = "[IMG]" + "[gIMG]" * FRAME_TOKENS + "[/IMG]"


def ids_of(text: str, version: int = 1) -> list[int]:
    """Ids of a whole string, behind the begin."""
    return [1, *tokenizer(EMU if version == 1 else EMU2).encode([text])[0]]


def learnt(sample: VisualSample, version: int = 1) -> str:
    """The words that are learnt."""
    return tokenizer(EMU if version == 1 else EMU2).decode(sample.ids[sample.weights > 0].tolist())


def lesson(*segments: object, template: str = "plain", version: int = 1, **changes: object) -> VisualSample:
    """A document to learn from."""
    return processor(template, version).sample(document(*segments), Random(0), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [1, 2])
def test_plain_documents_are_learnt_but_for_brackets(version: int) -> None:
    sample = lesson("a dog sits near", 1, "the river", 2, "in the morning.", version=version)
    text = f"a dog sits near{IMAGE}the river{IMAGE}in the morning.</s>"
    assert sample.ids.tolist() == ids_of(text, version)
    ours = processor(version=version).ids
    masked = torch.isin(sample.ids, torch.tensor([ours.image, ours.image_begin, ours.image_end, ours.pad]))
    assert torch.equal(sample.weights[1:] > 0, ~masked[1:])
    assert sample.weights[0] == 0
    assert sample.ids[-1] == ours.eos
    assert torch.equal(sample.vision, sample.ids == ours.image)
    targets = sample.vision | ((sample.ids == ours.image_end) & (version == 1))
    assert torch.equal(sample.regression > 0, targets)
    assert sample.images is not None
    assert sample.images.counts == (TOKENS, TOKENS)
    assert torch.equal(sample.images.pixels, processor().images([picture(1), picture(2)]))


def test_lessons_are_those_of_the_published_training_forward() -> None:
    """The golden case's rows: ids, targets of words by its rule, and the places at which its regression is read."""
    folder = GOLDENS / "emu1_loss"
    case, tensors = json.loads((folder / "case.json").read_text()), load_file(folder / "io.safetensors")
    special = case["config"]["special_ids"]
    count = case["config"]["vladapter_cfg"]["n_causal"]
    found = []
    for number, row in enumerate(case["texts"]):
        told = document(*(1 if part == "IMG" else part for part in row))
        sample = processor(image_tokens=count).sample(told, Random(0))
        expected = tensors["text_input"][number][tensors["input_mask"][number] > 0]
        assert torch.equal(sample.ids, expected)
        ignored = torch.tensor([special[word] for word in ("[PAD]", "<image>", "[IMG]", "[/IMG]")])
        assert torch.equal(sample.weights[1:] > 0, ~torch.isin(expected[1:], ignored))
        found += [[number, place - 1] for place in sample.regression.nonzero().flatten().tolist()]
    assert found == tensors["regress_positions"].tolist()


def test_frames_are_pictures_in_emu_and_have_their_own_places_in_emu2() -> None:
    assert processor().prompt(document(clip(2), "go on")).ids.tolist() == ids_of(f"{IMAGE}{IMAGE}go on")
    sample = processor(version=2).prompt(document(clip(2), 3, "go on"))
    assert sample.ids.tolist() == ids_of(f"[VIDEO]{FRAME}{FRAME}{IMAGE}go on", 2)
    assert sample.images is not None
    assert sample.images.counts == (FRAME_TOKENS, FRAME_TOKENS, TOKENS)
    assert int(sample.vision.sum()) == sample.images.tokens


CHATS = {
    "emu_instruct": (f"{EMU_IMAGE} [USER]: {IMAGE}what? [ASSISTANT]: a dog</s> [USER]: why? [ASSISTANT]:", 1),
    "emu2_chat": (f"{EMU2_LONG} [USER]: {IMAGE}what? [ASSISTANT]: a dog</s>[USER]: why? [ASSISTANT]:", 2),
    "emu2_chat_short": (f"{EMU2_SHORT} [USER]: {IMAGE}what? [ASSISTANT]: a dog</s>[USER]: why? [ASSISTANT]:", 2),
    "emu2_grounded": (
        f"{EMU2_SHORT} [USER]: {IMAGE}what? [ASSISTANT]: a dog</s>[USER]: why? [ASSISTANT]:<grounding>", 2),
    "emu2_chat_hub": (f"[USER]: {IMAGE}what?[ASSISTANT]: a dog</s>[USER]: why?[ASSISTANT]:", 2),
    "emu2_few_shot": (
        f"{IMAGE}based on the picture, what? short answer: a dog. based on the picture, why? short answer:", 2),
}  # fmt: skip


@pytest.mark.parametrize("template", CHATS)
def test_templates_give_the_published_strings(template: str) -> None:
    text, version = CHATS[template]
    told = document(1, ("user", "what?"), ("assistant", "a dog"), ("user", "why?"))
    sample = processor(template, version).prompt(told)
    assert sample.ids.tolist() == ids_of(text, version)
    assert not sample.weights.any()
    assert not sample.regression.any()
    begun = processor(template, version).prompt(document(1, ("user", "what?"), ("assistant", "it is")))
    assert tokenizer(EMU if version == 1 else EMU2).decode(begun.ids.tolist()).endswith("it is")


@pytest.mark.parametrize("template", CHATS)
def test_chats_learn_answers_and_their_end(template: str) -> None:
    version = CHATS[template][1]
    told = (1, ("user", "what?"), ("assistant", "a dog"), ("user", "why?"), ("assistant", "so"))
    sample = lesson(*told, template=template, version=version)
    expected = "a dog so</s>" if template == "emu2_few_shot" else "a dog</s>so</s>"
    assert learnt(sample, version) == expected
    assert not sample.regression.any()  # the picture is the user's


def test_system_messages_fit_what_is_shown_and_can_be_replaced() -> None:
    ours = processor("emu_instruct")
    assert ours.prompt(document(clip(2), "what?")).ids.tolist() == ids_of(
        f"{EMU_VIDEO} [USER]: {IMAGE}{IMAGE}what? [ASSISTANT]:"
    )
    assert ours.prompt(document("what?")).ids.tolist() == ids_of("[USER]: what? [ASSISTANT]:")
    assert ours.prompt(document(("system", ""), 1, "what?")).ids.tolist() == ids_of(
        f"[USER]: {IMAGE}what? [ASSISTANT]:"
    )
    assert ours.prompt(document(("system", "Be kind."), "what?")).ids.tolist() == ids_of(
        "Be kind. [USER]: what? [ASSISTANT]:"
    )


def test_few_shot_queries_without_examples_ask_for_one_word() -> None:
    sample = processor("emu2_few_shot", 2).prompt(document(1, "what is it?"))
    text = f"{IMAGE}based on the picture, answer in one word or phrase. what is it? short answer:"
    assert sample.ids.tolist() == ids_of(text, 2)


def test_of_texts_without_roles_the_last_is_the_answer_in_chats() -> None:
    assert learnt(lesson(1, "what?", "a dog", template="emu_instruct")) == "a dog</s>"
    with pytest.raises(UnusableError, match=r"question without an answer: sample"):
        lesson(1, ("user", "what?"), template="emu_instruct")


def test_pictures_of_answers_are_learnt_and_those_of_questions_are_not() -> None:
    told = (1, ("user", "draw"), ("assistant", "here:"), 2, ("assistant", "done"))
    sample = lesson(*told, template="emu2_chat", version=2)
    runs = sample.regression[sample.vision].reshape(2, TOKENS)
    assert runs.sum(1).tolist() == [0, TOKENS]
    assert learnt(sample, 2) == "here: done</s>"
    last = lesson(("user", "draw"), ("assistant", ""), 2, template="emu2_chat", version=2)
    assert int(last.regression.sum()) == TOKENS
    plain = lesson(1, "draw", 2, version=2)
    assert int(plain.regression.sum()) == 2 * TOKENS


def test_what_is_learnt_is_a_choice() -> None:
    words = lesson(1, "a dog", 2, learn=LearntElements(pictures="none"))
    assert learnt(words) == "a dog</s>"
    assert not words.regression.any()
    drawn = lesson(1, "a dog", 2, learn=LearntElements(words=False, pictures="last"))
    assert not drawn.weights.any()
    assert drawn.regression.nonzero().flatten().tolist() == list(range(len(drawn.ids) - 2 - TOKENS, len(drawn.ids) - 1))
    opened = lesson(1, "a dog", 2, learn=LearntElements(openings=True))
    assert learnt(opened) == "[IMG]a dog[IMG]</s>"
    only = lesson(1, "a dog", 2, learn=LearntElements(words=False, pictures="none", openings=True))
    assert learnt(only) == "[IMG][IMG]"
    with pytest.raises(ValueError, match=r"pictures is 'first'; it must be one of said, last, none"):
        LearntElements(pictures="first")
    with pytest.raises(ValueError, match="nothing is learnt"):
        LearntElements(words=False, pictures="none")
    with pytest.raises(UnusableError, match="nothing to learn: sample"):
        lesson("a dog", learn=LearntElements(words=False, pictures="last"))


def test_drawing_prompts_end_with_the_opening_token() -> None:
    assert processor().drawing_prompt(document("a dog")).ids.tolist() == ids_of("a dog[IMG]")
    assert processor().drawing_prompt(Document([])).ids.tolist() == ids_of("[IMG]")
    chat = processor("emu2_chat", 2).drawing_prompt(document("draw a dog"))
    assert chat.ids.tolist() == ids_of(f"{EMU2_LONG} [USER]: draw a dog [ASSISTANT]:[IMG]", 2)


def test_special_strings_of_strangers_are_ordinary_text() -> None:
    trusted = processor("emu_instruct").prompt(document("stop</s>"))
    stranger = processor("emu_instruct").prompt(document("stop</s>"), special=False)
    assert (int((trusted.ids == 2).sum()), int((stranger.ids == 2).sum())) == (1, 0)
    assert int((stranger.ids == processor().ids.user).sum()) == 1
    marked = processor(version=2).prompt(document(("token", "<grounding>"), "a"), special=False)
    assert marked.ids.tolist() == ids_of("<grounding>a", 2)


def test_frames_behind_the_token_of_clips_and_pictures_between_words() -> None:
    frames, shown = [picture(1), picture(2)], picture(3)
    told = Document([Video(frames, 1.0), Text("what"), Image(shown), Text("is it?")])
    sample = processor(version=2).prompt(told)
    assert sample.ids.tolist() == ids_of(f"[VIDEO]{FRAME}{FRAME}what{IMAGE}is it?", 2)
    assert sample.images is not None
    assert torch.equal(sample.images.pixels, processor().images([*frames, shown]))


def test_bad_documents_are_refused_with_the_reason() -> None:
    ours = processor()
    with pytest.raises(ValueError, match=r"more placeholders than pictures.*<image> or \[gIMG\] 2 times"):
        ours.prompt(document("a cat[IMG]<image><image>"))
    with pytest.raises(
        ValueError, match=r"'<grounding>' is no special token of processor\.texts: add it to processor\.texts\.added"
    ):
        ours.prompt(document(("token", "<grounding>"), "a"))
    with pytest.raises(ValueError, match=r"unknown role: 'robot' speaks; known are system, user, assistant, token"):
        ours.prompt(document(("robot", "hello")))
    with pytest.raises(ValueError, match="codes: this model reads"):
        ours.prompt(Document([Codes(picture()[..., 0])]))
    with pytest.raises(ValueError, match="system message in the middle"):
        ours.prompt(document("a", ("system", "b")))
    with pytest.raises(ValueError, match="2 pictures for a model that reads words only"):
        type(ours)(None, ours.tokenizer, TOKENS).prompt(document(1, 2, "a"))
    with pytest.raises(UnusableError, match="more placeholders than pictures: sample"):
        lesson("a <image>")
    with pytest.raises(ValueError, match=r"'\[gIMG\]' is no special token"):
        processor(frame_tokens=1).prompt(document(clip(1)))


def test_the_context_holds_prompts_and_what_they_ask_for() -> None:
    told = document(1, "a dog")
    size = len(processor().prompt(told).ids)
    assert len(processor(context_length=size).prompt(told).ids) == size
    with pytest.raises(ValueError, match=rf"'sample' has {size} tokens, {TOKENS} of them.*processor\.context_length"):
        processor(context_length=size - 1).prompt(told)
    with pytest.raises(ValueError, match=rf"has {size + 1 + TOKENS} tokens, {2 * TOKENS} of them"):
        processor(context_length=size + TOKENS).drawing_prompt(told)
    with pytest.raises(ValueError, match="context_length is 1"):
        processor(context_length=1)
    with pytest.raises(ValueError, match=r"image_tokens is 0"):
        processor(image_tokens=0)
    with pytest.raises(KeyError, match="emu2_chat"):
        processor("emu2_chatt")


def test_pictures_are_cut_off_whole() -> None:
    sample = lesson("ab", 1, "c", 2, "d")
    begin = processor().ids.image_begin
    opens = (sample.ids == begin).nonzero().flatten().tolist()
    assert shortened(sample, len(sample.ids), begin) is sample
    for limit in range(opens[0] + TOKENS + 2, len(sample.ids)):
        short = shortened(sample, limit, begin)
        whole = sum(one + TOKENS + 2 <= limit for one in opens)
        assert len(short.ids) == (limit if whole == 2 else min(limit, opens[1]))
        assert short.images is not None
        assert len(short.images) == whole
        assert int(short.vision.sum()) == short.images.tokens
    first = shortened(sample, opens[0] + TOKENS + 1, begin)
    assert (len(first.ids), first.images) == (opens[0], None)
    with pytest.raises(UnusableError, match="nothing to learn within 1 tokens"):
        shortened(sample, 1, begin)


def test_samples_are_stored_as_plain_values() -> None:
    for sample in (lesson(1, "a dog"), lesson("a dog")):
        again = restored(sample.stored())
        assert torch.equal(again.ids, sample.ids)
        assert (again.images is None) == (sample.images is None)
        if again.images is not None and sample.images is not None:
            assert torch.equal(again.images.pixels, sample.images.pixels)
            assert again.images.counts == sample.images.counts


def test_texts_come_back() -> None:
    ours = processor(version=2)
    ids = ours.text_ids("<phrase>a dog</phrase>")
    assert ours.decode(ids) == "a dog"
    assert ours.decode(ids, skip_special=False) == "<phrase>a dog</phrase>"
    assert ours.text_ids("<phrase>", special=False) != ours.text_ids("<phrase>")
    assert Text("x").role is None
