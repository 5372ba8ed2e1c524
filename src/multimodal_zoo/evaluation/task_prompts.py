"""How published models were asked in lmms-eval's tasks: what stands behind a question, and how long answers may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
LETTER_CHINESE = "请直接回答选项字母。"
#: What tasks put around questions of their own accord, which a published way replaces.
OPENINGS = (
    "First please perform reasoning, and think step by step to provide best answer to the following question: \n\n",
)
ENDINGS = (SHORT, LETTER, LETTER_CHINESE, "请直接使用所提供的选项字母作为答案回答。")


#: What stands in MMBench's tables where there is nothing.
NOTHING = ("", "nan", "none", "None")


def present(row: Mapping[str, Any], name: str) -> bool:
    """Whether a column of MMBench's tables says something."""
    return str(row.get(name) or "").strip() not in NOTHING


def mmbench_text(row: Mapping[str, Any]) -> str:
    """A row of MMBench's tables as it was asked: hint, question, and options, each on lines of their own."""
    hint = [str(row["hint"])] if present(row, "hint") else []
    return "\n".join([*hint, str(row["question"]), *(f"{name}. {row[name]}" for name in "ABCD" if present(row, name))])


def mme_text(row: Mapping[str, Any]) -> str:
    """A question of MME as its files have it, which says itself that yes or no is wanted."""
    return str(row["question"]).strip()


@dataclass(frozen=True)
class TaskPrompt:
    """One task's way of asking.

    Attributes:
        ending: the last line of a question; empty for none.
        max_new_tokens: most tokens of an answer.
        words: whether the words that a text reader found in the picture stand behind the question (TextVQA).
        layout: the question from the task's row, where the task's own text is another; None takes the task's text.
        asking: arguments of `asking`: words around the question, beginning of the answer, beams, what of it counts;
            empty where the likeliest token is taken at every step and the whole answer counts.
    """

    ending: str
    max_new_tokens: int
    words: bool = False
    layout: Callable[[Mapping[str, Any]], str] | None = None
    asking: Mapping[str, Any] = field(default_factory=dict)

    def asked(self, context: str, sample: Mapping[str, Any]) -> str:
        """A task's text with this way's ending in place of its own.

        Args:
            context: the task's text.
            sample: its row; `ocr_tokens` lists the words found in the picture.
        """
        text = context if self.layout is None else self.layout(sample)
        for opening in OPENINGS:
            text = text.removeprefix(opening)
        lines = text.rstrip().split("\n")
        while len(lines) > 1 and lines[-1].strip() in ("", *ENDINGS):
            lines.pop()
        if self.words and not any(line.startswith("Reference OCR token:") for line in lines):
            lines.append(f"Reference OCR token: {', '.join(sample.get('ocr_tokens') or [])}")
        return "\n".join([*lines, self.ending] if self.ending else lines)


#: EVE (baaivision/EVE, scripts of both versions): pattern of a task's name -> how it is asked. Greedy throughout.
EVE = {
    "vqav2*": TaskPrompt(SHORT, 128),
    "gqa*": TaskPrompt(SHORT, 128),
    "vizwiz*": TaskPrompt(SHORT, 128),
    "textvqa*": TaskPrompt(SHORT, 128, words=True),
    "pope*": TaskPrompt(SHORT, 128),
    "mme": TaskPrompt(SHORT, 128, layout=mme_text),
    "seedbench*": TaskPrompt(LETTER, 128),
    "scienceqa*": TaskPrompt(LETTER, 1024),
    "mmbench_cn*": TaskPrompt(LETTER_CHINESE, 1024, layout=mmbench_text),
    "mmbench*": TaskPrompt(LETTER, 1024, layout=mmbench_text),
    "mmvet*": TaskPrompt("", 1024),
}


def emu_caption_text(row: Mapping[str, Any]) -> str:
    """How Emu-I is asked for a description."""
    del row
    return "please provide an accurate and concise description of the given image."


def _beams(length_penalty: float, min_length: int = 1) -> dict[str, Any]:
    """Beams as in Emu's published code."""
    return {"count": 5, "length_penalty": length_penalty, "min_length": min_length, "counts_start": True}


_EMU_SHORT = {
    "form": "based on the content of the image and common sense, please provide an accurate answer consisting of only "
    "one word or phrase. {question}",
    "opening": "the answer is:",
    "clean_up": "short_answer",
    "beams": _beams(-1.0),
}
_EMU_CAPTION = {
    "opening": "the image depicts a photo of",
    "clean_up": "caption",
    "beams": _beams(-1.0, min_length=8),
}
#: Tasks of descriptions.
CAPTIONS = ("coco*cap*", "nocaps*", "flickr30k*")
#: Emu-I (baaivision/Emu, Emu1/mm_eval). VizWiz is asked without its question whether the answer is known.
EMU_INSTRUCT = {
    **{task: TaskPrompt("", 20, layout=emu_caption_text, asking=_EMU_CAPTION) for task in CAPTIONS},
    **{task: TaskPrompt("", 20, asking=_EMU_SHORT) for task in ("vqav2*", "ok_vqa*", "okvqa*", "vizwiz*", "gqa*")},
    "mmvet*": TaskPrompt("", 128, asking={"beams": _beams(1.0)}),
}
_EMU2_SHORT = {"template": "emu2_chat_short", "clean_up": "short_answer", "beams": _beams(-1.0)}
#: Emu2-Chat (arXiv 2312.13286): the system message for short answers where these are wanted, the other one elsewhere.
EMU2_CHAT = {
    **{
        task: TaskPrompt("", 10, asking=_EMU2_SHORT)
        for task in ("vqav2*", "ok_vqa*", "okvqa*", "vizwiz*", "gqa*", "textvqa*", "pope*")
    },
    "seedbench*": TaskPrompt(LETTER, 10, asking={"template": "emu2_chat_short"}),
    "mmvet*": TaskPrompt("", 1024, asking={"template": "emu2_chat", "beams": _beams(2.0)}),
}
#: Base Emu2: the paper's words around a question without examples.
EMU2 = {
    task: TaskPrompt("", 10, asking={**_EMU2_SHORT, "template": "emu2_few_shot"})
    for task in ("vqav2*", "ok_vqa*", "okvqa*", "vizwiz*", "textvqa*")
}
#: Name of a published way -> its tasks.
PUBLISHED: dict[str, Mapping[str, TaskPrompt]] = {
    "eve": EVE,
    "emu_instruct": EMU_INSTRUCT,
    "emu2": EMU2,
    "emu2_chat": EMU2_CHAT,
}


def way_of(prompts: str | None) -> Mapping[str, TaskPrompt]:
    """The tasks of a published way of asking; none for None.

    Raises:
        ValueError: an unknown name.
    """
    if prompts is not None and prompts not in PUBLISHED:
        raise ValueError(f"prompts is {prompts!r}; expected one of {', '.join(PUBLISHED)}, or none for the tasks' own")
    return {} if prompts is None else PUBLISHED[prompts]


def prompt_of(tasks: Mapping[str, TaskPrompt], task: str) -> TaskPrompt | None:
    """How a task is asked, by the first pattern that its name fits; None where the way says nothing of it."""
    return next((prompt for pattern, prompt in tasks.items() if fnmatch(task, pattern)), None)
