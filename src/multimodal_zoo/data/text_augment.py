"""Text augmentation by small changes of words: EDA (arXiv 1901.11196), as DeCLIP uses it.

A caption's words are what stands between white space; punctuation stays on its word and nothing else is normalised.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import TypeAlias

from multimodal_zoo.data import limits
from multimodal_zoo.data.synonyms import Synonyms
from multimodal_zoo.registry import DATASETS

#: Words of one caption, at least one, to other words.
WordOperation: TypeAlias = Callable[[list[str], Random], list[str]]
_STOP_WORDS = """
i me my we our you your he him his she her it its they them their what which who this that these those am is
are was were be been being have has had do does did a an the and but if or because as until while of at by for
with about against between into through during before after above below to from up down in out on off over
under again further then once here there when where why how all any both each few more most other some such no
nor not only own same so than too very s t can will just don should now
"""
#: English words that synonym replacement leaves alone, compared with their case: "The" is not among them.
STOP_WORDS = frozenset(_STOP_WORDS.split())
#: Draws of a second place before a swap is given up.
DRAWS = 3


def _positive(count: int, key: str) -> int:
    if count < 1:
        raise ValueError(f"{key} is {count}; it must be at least 1")
    return count


@DATASETS.register_module(name="synonym_replacement")
class SynonymReplacement:
    """Puts a synonym in all places of a word; words are tried in random order until enough have one.

    Args:
        synonyms: gives the synonyms of a word (`wordnet_synonyms`, `table_synonyms`).
        count: words to replace.
        stop_words: words that stay.

    Raises:
        ValueError: a count below 1.
    """

    def __init__(self, synonyms: Synonyms, count: int = 1, stop_words: Collection[str] = STOP_WORDS) -> None:
        self.synonyms = synonyms
        self.count = _positive(count, "synonym_replacement.count")
        self.stop_words = frozenset(stop_words)

    def __call__(self, words: list[str], random: Random) -> list[str]:
        """The words, some in other words; as they are if none has a synonym."""
        # A dict, not a set: the order of a set of texts changes from process to process.
        tried = list(dict.fromkeys(word for word in words if word not in self.stop_words))
        random.shuffle(tried)
        left = self.count
        for word in tried:
            found = self.synonyms(word)
            if found:
                synonym = random.choice(found)
                words = [synonym if one == word else one for one in words]
                left -= 1
            if not left:
                break
        return words


@DATASETS.register_module(name="random_swap")
class RandomSwap:
    """Exchanges the words of two places; a single word stays.

    The second place is drawn until it is another one than the first, three times at most; then nothing is exchanged.

    Args:
        count: exchanges.

    Raises:
        ValueError: a count below 1.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = _positive(count, "random_swap.count")

    def __call__(self, words: list[str], random: Random) -> list[str]:
        """The same words in another order."""
        words = list(words)
        for _ in range(self.count if len(words) > 1 else 0):
            first = random.randrange(len(words))
            for _ in range(DRAWS):
                second = random.randrange(len(words))
                if second != first:
                    words[first], words[second] = words[second], words[first]
                    break
        return words


@DATASETS.register_module(name="random_deletion")
class RandomDeletion:
    """Leaves words out, each for itself; a single word stays, and so does one of those that were all left out.

    Args:
        probability: of each word.

    Raises:
        ValueError: no probability.
    """

    def __init__(self, probability: float = 0.1) -> None:
        self.probability = limits.probability(probability, "random_deletion.probability")

    def __call__(self, words: list[str], random: Random) -> list[str]:
        """Some of the words, in their order."""
        if len(words) == 1:
            return words
        kept = [word for word in words if random.random() >= self.probability]
        return kept or [random.choice(words)]


@DATASETS.register_module(name="eda")
class Eda:
    """One of several operations on a caption's words, each as likely; a blank caption comes back as it is.

    All randomness comes from the numbers that it is given, none from the process, so that runs can be repeated.

    Args:
        operations: `synonym_replacement`, `random_swap`, `random_deletion`.

    Raises:
        ValueError: no operation.
    """

    def __init__(self, operations: Sequence[WordOperation]) -> None:
        if not operations:
            raise ValueError("eda.operations is empty; name at least one operation")
        self.operations = list(operations)

    def __call__(self, text: str, random: Random) -> str:
        """The changed caption, its words one blank apart."""
        words = text.split()
        if not words:
            return text
        return " ".join(random.choice(self.operations)(words, random))
