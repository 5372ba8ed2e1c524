"""Views of one caption: as it is, with masked words, augmented."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from random import Random
from typing import NamedTuple, Protocol, cast

from multimodal_zoo.data.processor import Tokenizer
from multimodal_zoo.registry import DATASETS

#: Label of a place where no word was masked: what cross entropy leaves out.
IGNORED = -100
#: A caption and random numbers to another caption.
TextAugmentation = Callable[[str, Random], str]


class MaskingTokenizer(Tokenizer, Protocol):
    """What masking asks of a tokenizer."""

    start_id: int
    end_id: int
    mask_id: int
    vocab_size: int


class Caption:
    """One caption of a sample; its ids are made when the first view asks for them.

    Args:
        text: the caption.
        tokenizer: the model's.
    """

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        self.text = text
        self.tokenizer = tokenizer

    @cached_property
    def ids(self) -> list[int]:
        """From start to end, cut to the context, not padded."""
        return self.tokenizer.encode([self.text])[0]


class Words(NamedTuple):
    """Ids of one view of one caption, and as many labels where words are masked."""

    ids: list[int]
    labels: list[int] | None = None


class TextView(Protocol):
    """One way to show a caption."""

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuse a tokenizer that cannot serve this view.

        Raises:
            ValueError: with the configuration key.
        """
        ...

    def __call__(self, caption: Caption, random: Random) -> Words:
        """The view of one caption."""
        ...


@DATASETS.register_module(name="plain_text")
class PlainText:
    """The caption as it is."""

    def check(self, tokenizer: Tokenizer) -> None:
        """Any tokenizer will do."""

    def __call__(self, caption: Caption, random: Random) -> Words:
        """Its ids; `random` is not used."""
        return Words(caption.ids)


def mask_words(
    ids: Sequence[int],
    random: Random,
    probability: float,
    mask_id: int,
    vocab_size: int,
    never: Collection[int],
    hidden: float = 0.8,
    replaced: float = 0.1,
) -> Words:
    """A row with some words hidden, and the words that stood there (BERT, arXiv 1810.04805, section 3.1).

    Args:
        ids: one row, not padded, already cut to the context.
        random: randomness of this row.
        probability: with which each word is selected, independently of the others.
        mask_id: what stands for a hidden word.
        vocab_size: random words are drawn evenly from all ids below it, special ones included, as DeCLIP does.
        never: ids that are not selected.
        hidden: share of the selected words that become `mask_id`.
        replaced: share that become a random word; the rest stay as they are.
    """
    shown, labels = list(ids), [IGNORED] * len(ids)
    for place, word in enumerate(ids):
        if word in never or random.random() >= probability:
            continue
        labels[place] = word
        drawn = random.random()
        if drawn < hidden:
            shown[place] = mask_id
        elif drawn < hidden + replaced:
            shown[place] = random.randrange(vocab_size)
    return Words(shown, labels)


@DATASETS.register_module(name="masked_text")
class MaskedText:
    """The caption with some words hidden, drawn anew each time; see `mask_words`.

    A caption in which no word is selected is shown as it is, with no label.

    Args:
        probability: with which each word is selected; start, end and mask never are.
        hidden: share of the selected words that become the mask word.
        replaced: share of them that become a random word.

    Raises:
        ValueError: shares or a probability out of range.
    """

    def __init__(self, probability: float = 0.15, hidden: float = 0.8, replaced: float = 0.1) -> None:
        if not (0 <= probability <= 1 and min(hidden, replaced) >= 0 and hidden + replaced <= 1):
            raise ValueError(
                f"data.text_views: masked_text has probability {probability}, hidden {hidden} and replaced {replaced}; "
                "expected numbers from 0 to 1, the last two at most 1 together"
            )
        self.probability, self.hidden, self.replaced = probability, hidden, replaced

    def check(self, tokenizer: Tokenizer) -> None:
        """Ask for a mask word.

        Raises:
            ValueError: the tokenizer has none.
        """
        if getattr(tokenizer, "mask_id", None) is None:
            raise ValueError(
                f"data.text_views: masked_text needs a tokenizer with a mask word, and {type(tokenizer).__name__} has "
                "no mask_id; set model.processor.texts.mask (as /tokenizer: declip_bpe and emoji_bpe_masked do, with "
                "one id more in vocab_size), or take the view out"
            )

    def __call__(self, caption: Caption, random: Random) -> Words:
        """Ids with hidden words, and what stood there."""
        tokenizer = cast(MaskingTokenizer, caption.tokenizer)
        return mask_words(
            caption.ids,
            random,
            self.probability,
            tokenizer.mask_id,
            tokenizer.vocab_size,
            (tokenizer.start_id, tokenizer.end_id, tokenizer.mask_id),
            self.hidden,
            self.replaced,
        )


@DATASETS.register_module(name="augmented_text")
class AugmentedText:
    """The caption in other words; where an augmentation leaves nothing of it, as it is.

    Args:
        augmentation: changes the text, `eda` for instance.
    """

    def __init__(self, augmentation: TextAugmentation) -> None:
        self.augmentation = augmentation

    def check(self, tokenizer: Tokenizer) -> None:
        """Any tokenizer will do."""

    def __call__(self, caption: Caption, random: Random) -> Words:
        """Ids of the changed caption."""
        text = self.augmentation(caption.text, random)
        if text == caption.text or not text.strip():
            return Words(caption.ids)
        return Words(caption.tokenizer.encode([text])[0])
