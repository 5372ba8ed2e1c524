"""Texts to ids and back for engines that run a model themselves: one interface over transformers' tokenizers and ours.

Captions come from the web: strings of special tokens in them are ordinary text, in the prompt's own words they are not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, Protocol

from multimodal_zoo.captions.engine import Request
from multimodal_zoo.captions.engines.stopping import before_stop


class Texts(Protocol):
    """What an engine needs of a tokenizer."""

    #: What stands in front of a prompt that is no conversation: the begin token, or nothing.
    begin: list[int]
    #: Ids that end an answer.
    ends: tuple[int, ...]
    #: What fills shorter rows.
    pad: int
    #: Strings that stand for special tokens.
    special: Collection[str]

    def ids(self, text: str, special: bool) -> list[int]:
        """Ids of a text with nothing put before or behind it.

        Args:
            text: any.
            special: whether strings of special tokens become these.
        """
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        ...

    def chat(self, text: str) -> str:
        """A text as what a user says, in the model's own layout, up to where the answer begins.

        Raises:
            ValueError: the tokenizer has no layout.
        """
        ...


class TransformersTexts:
    """A tokenizer of transformers.

    Args:
        tokenizer: a `PreTrainedTokenizerBase`.
        ends: ids that end an answer besides the tokenizer's own, from the model's generation settings.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        self.ends = tuple(dict.fromkeys([*own, *ends]))
        bos, first = tokenizer.bos_token_id, list(tokenizer("a").input_ids)[:1]
        self.begin = first if bos is not None and first == [bos] else []
        pad = tokenizer.pad_token_id
        self.pad = int(pad) if pad is not None else next(iter(self.ends), 0)
        self.special: Collection[str] = tuple(tokenizer.all_special_tokens)

    def ids(self, text: str, special: bool) -> list[int]:
        """See `Texts`."""
        found = self.tokenizer(text, add_special_tokens=False, split_special_tokens=not special, verbose=False)
        return [int(number) for number in found.input_ids]

    def text(self, ids: Sequence[int]) -> str:
        """See `Texts`."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def chat(self, text: str) -> str:
        """See `Texts`."""
        if not self.tokenizer.chat_template:
            raise ValueError("fusion_engine.layout is chat; the model's tokenizer has no chat template: take plain")
        messages = [{"role": "user", "content": text}]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


class ZooTexts:
    """A tokenizer of this library.

    Args:
        tokenizer: from `tokenizers`.

    Raises:
        ValueError: one without an id that ends an answer.
    """

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_id is None:
            raise ValueError(f"fusion_engine.model: its tokenizer {type(tokenizer).__name__} has no end token")
        self.tokenizer = tokenizer
        self.ends: tuple[int, ...] = (int(tokenizer.eos_id),)
        self.pad = int(tokenizer.pad_id)
        self.begin = [int(tokenizer.bos_id)] if getattr(tokenizer, "adds_bos", False) else []
        self.special: Collection[str] = tuple(tokenizer.special_ids)

    def ids(self, text: str, special: bool) -> list[int]:
        """See `Texts`."""
        row: list[int] = self.tokenizer.encode([text], special=special)[0]
        return row

    def text(self, ids: Sequence[int]) -> str:
        """See `Texts`."""
        known = [one for one in ids if one < self.tokenizer.vocab_size]  # matrices may have rows beyond the tokens
        return str(self.tokenizer.decode(known, skip_special=True))

    def chat(self, text: str) -> str:
        """See `Texts`."""
        if not hasattr(self.tokenizer, "chat"):
            raise ValueError(
                f"fusion_engine.layout is chat; {type(self.tokenizer).__name__} knows no layout of conversations: take "
                "plain"
            )
        return str(self.tokenizer.chat([{"role": "user", "content": text}]))


def prompt_ids(texts: Texts, request: Request, chat: bool) -> list[int]:
    """The ids that a model reads for a request, with one begin token at most.

    Args:
        texts: the tokenizer.
        request: the filled prompt, and the captions that it holds.
        chat: whether the prompt is laid out as what a user says; the layout then has the begin token.

    Raises:
        ValueError: a layout that the tokenizer does not have.
    """
    prompt = texts.chat(request.prompt) if chat else request.prompt
    foreign = [one for one in (request.raw, *request.synthetic) if any(word in one for word in texts.special)]
    row = [number for piece, special in _pieces(prompt, foreign) for number in texts.ids(piece, special)]
    begin = texts.begin if not chat else []
    return row if row[: len(begin)] == begin else [*begin, *row]


def _pieces(prompt: str, foreign: Sequence[str]) -> list[tuple[str, bool]]:
    """The prompt cut at the captions that hold strings of special tokens, and whether these count in each piece."""
    if not foreign:
        return [(prompt, True)]
    longest_first = sorted(set(foreign), key=len, reverse=True)
    cut = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", prompt)
    return [(piece, number % 2 == 0) for number, piece in enumerate(cut) if piece]


class StopWords:
    """Strings that end an answer: whether ids hold one behind the answer's first visible character.

    Args:
        texts: the tokenizer.
        words: the strings, none of them empty.
    """

    def __init__(self, texts: Texts, words: Sequence[str]) -> None:
        self.texts, self.words = texts, tuple(words)
        self._last = {word[-1] for word in words}
        self._may: dict[int, bool] = {}

    def __call__(self, ids: Sequence[int]) -> bool:
        """Whether the last of these ids completes a string."""
        return self._can_end(ids[-1]) and before_stop(self.texts.text(ids), self.words) is not None

    def _can_end(self, token: int) -> bool:
        """Whether a token may hold the last character of a string, or a part of one; looked up once for each token."""
        found = self._may.get(token)
        if found is None:
            text = self.texts.text([token])
            found = self._may[token] = "\ufffd" in text or any(character in self._last for character in text)
        return found


def without_last(texts: Texts, text: str, tokens: int) -> str:
    """A text without its last `tokens` tokens; empty where it has no more than these."""
    ids = texts.ids(text, special=False)
    return texts.text(ids[: max(0, len(ids) - tokens)]) if tokens > 0 else text
