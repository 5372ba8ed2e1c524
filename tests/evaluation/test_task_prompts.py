"""How published models were asked, against the texts of lmms-eval's tasks."""

from __future__ import annotations

import pytest

from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.emu_templates import TEMPLATES
from multimodal_zoo.evaluation.asking import Asking
from multimodal_zoo.evaluation.task_prompts import (
    EVE,
    LETTER,
    LETTER_CHINESE,
    PUBLISHED,
    SHORT,
    emu_caption_text,
    prompt_of,
    way_of,
)
from multimodal_zoo.generation.beams import Beams

MMVET = "First please perform reasoning, and think step by step to provide best answer to the following question: \n\n"


@pytest.mark.parametrize(
    ("task", "given", "expected"),
    [
        ("vqav2_val", f"What?\n{SHORT}", f"What?\n{SHORT}"),
        ("gqa", "What?", f"What?\n{SHORT}"),
        ("scienceqa_img", f"Which?\nA. x\nB. y\n\n{LETTER}", f"Which?\nA. x\nB. y\n{LETTER}"),
        ("mmvet", f"{MMVET}Why?", "Why?"),
        ("textvqa_val", f"Who?\n{SHORT}", f"Who?\nReference OCR token: NOKIA, 5\n{SHORT}"),
        ("pope_adv", SHORT, f"{SHORT}\n{SHORT}"),  # a question is never taken away whole
    ],
)
def test_endings_are_the_published_ones(task: str, given: str, expected: str) -> None:
    prompt = prompt_of(EVE, task)
    assert prompt is not None
    assert prompt.asked(given, {"ocr_tokens": ["NOKIA", "5"]}) == expected
    assert prompt.asked(expected, {"ocr_tokens": ["NOKIA", "5"]}) == expected


def test_rows_are_laid_out_as_published() -> None:
    row = {"question": "Which?", "hint": "Look.", "A": "x", "B": "y", "C": "nan", "D": None}
    english, chinese = (prompt_of(EVE, task) for task in ("mmbench_en_dev", "mmbench_cn_dev"))
    assert english is not None
    assert chinese is not None
    assert english.asked("Look. Which? There are several options:\nA. x", row) == f"Look.\nWhich?\nA. x\nB. y\n{LETTER}"
    assert chinese.asked("", {**row, "hint": "nan"}) == f"Which?\nA. x\nB. y\n{LETTER_CHINESE}"
    mme = prompt_of(EVE, "mme")
    assert mme is not None
    asked = {"question": "Is it red? Please answer yes or no. "}
    assert mme.asked(f"Is it red?\n{SHORT}", asked) == f"Is it red? Please answer yes or no.\n{SHORT}"


def test_lengths_are_the_published_ones() -> None:
    long = {task for task, prompt in EVE.items() if prompt.max_new_tokens == 1024}
    assert long == {"scienceqa*", "mmbench_cn*", "mmbench*", "mmvet*"}
    assert all(prompt.max_new_tokens == 128 for task, prompt in EVE.items() if task not in long)


def test_other_tasks_stay_as_they_are() -> None:
    assert prompt_of(EVE, "chartqa") is None
    assert way_of(None) == {}
    with pytest.raises(ValueError, match="prompts is 'other'"):
        way_of("other")


def test_every_published_way_can_be_asked() -> None:
    for name, tasks in PUBLISHED.items():
        for task, prompt in tasks.items():
            asking = Asking(**prompt.asking)
            assert bool(prompt.asking) == (name != "eve"), (name, task)
            Beams(**(asking.beams or {}))
            assert asking.template is None or asking.template in TEMPLATES


def test_emu_is_asked_with_words_around_the_question() -> None:
    prompt = prompt_of(way_of("emu_instruct"), "ok_vqa_val2014")
    assert prompt is not None
    question = prompt.asked(f"What is it?\n{SHORT}", {})
    document = Asking(**prompt.asking).document(Document([Text(question)]))
    texts = [(one.text, one.role) for one in document.segments if isinstance(one, Text)]
    assert texts[0][0].endswith("one word or phrase. What is it?")
    assert texts[1] == ("the answer is:", "assistant")
    caption = prompt_of(way_of("emu_instruct"), "coco2014_cap_val")
    assert caption is not None
    assert caption.asked("Describe it.", {}) == emu_caption_text({})
    assert Asking(**caption.asking).clean_up == "caption"
    chat = prompt_of(way_of("emu2_chat"), "mmvet")
    assert chat is not None
    assert (chat.max_new_tokens, chat.asking["template"]) == (1024, "emu2_chat")
