"""Filters for answers that speak of the task instead of the picture: leaks, field labels, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from multimodal_zoo.captions.checks import Action
from multimodal_zoo.captions.engine import Answer
from multimodal_zoo.captions.rows import CaptionRow
from multimodal_zoo.captions.words import Runs, reading, words
from multimodal_zoo.registry import CAPTIONS


class Prompt(Protocol):
    """What filters ask of a prompt; `prompts.FusionPrompt` is one."""

    def fill(self, raw: str, synthetic: str | Sequence[str]) -> str:
        """The prompt of one row; of empty captions, what it consists of itself."""
        ...

    def imitation(self, caption: str) -> str | None:
        """The prompt's label, or mark of a conversation, in a text; None if there is none."""
        ...


@CAPTIONS.register_module(name="leak_filter")
class LeakFilter:
    """No run of the prompt's own words may turn up in an answer, unless a source has it too.

    4.0 % of the published captions hold such a run of three words (10,000 samples of baaivision/CapsFusion).

    Args:
        prompt: the prompt that was asked with, worked examples included.
        size: words of a run.
        action: what an objection does.
    """

    def __init__(self, prompt: Prompt, size: int = 3, action: Action = "retry") -> None:
        self.runs, self.action = Runs(prompt.fill("", ""), size), action

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to answers with words of the instruction."""
        found = reading(answer.text)
        if self.runs.signs.isdisjoint(found.vocabulary):
            return None
        leaked = self.runs.leaked(reading(row.raw), map(reading, row.synthetic), found)
        return repr(" ".join(min(leaked))) if leaked else None


@CAPTIONS.register_module(name="label_filter")
class LabelFilter:
    """No label of the prompt (`Fused caption:`) and no mark of conversations (`<|im_end|>`) may stand in an answer.

    Args:
        prompt: the prompt that was asked with.
        action: what an objection does.
    """

    def __init__(self, prompt: Prompt, action: Action = "retry") -> None:
        self.prompt, self.action = prompt, action

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to answers that go on as the prompt does."""
        found = self.prompt.imitation(answer.text)
        return None if found is None else repr(found)


@CAPTIONS.register_module(name="refusal_filter")
class RefusalFilter:
    """No talk of the model about itself or to the user, unless a source has the same words.

    Args:
        phrases: what an answer may not hold; compared word by word, so case and punctuation do not count.
        openings: what it may not begin with.
        action: what an objection does.

    Raises:
        ValueError: a phrase without a word.
    """

    def __init__(self, phrases: Sequence[str], openings: Sequence[str] = (), action: Action = "retry") -> None:
        self.phrases, self.openings, self.action = _lines(phrases), _lines(openings), action
        listed = [*self.phrases, *self.openings]
        # the longest word of each phrase: most answers hold none of them, and need no closer look
        self.signs = frozenset(max(line.split(), key=len) for line in listed)

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to answers that refuse or chat."""
        found = reading(answer.text)
        if self.signs.isdisjoint(found.vocabulary):
            return None
        said = [phrase for phrase in self.phrases if phrase in found.line]
        said += [opening for opening in self.openings if found.line.startswith(opening)]
        sources = [reading(text).line for text in (row.raw, *row.synthetic)]
        own = [phrase for phrase in said if not any(phrase in source for source in sources)]
        return repr(own[0].strip()) if own else None


def _lines(phrases: Sequence[str]) -> list[str]:
    lines = [f" {' '.join(words(phrase))} " for phrase in phrases]
    for phrase, line in zip(phrases, lines, strict=True):
        if not line.strip():
            raise ValueError(f"fusion_filters: refusal_filter has the phrase {phrase!r}, which holds no word")
    return lines
