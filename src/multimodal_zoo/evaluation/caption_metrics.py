"""CIDEr, BLEU and ROUGE-L of captions that are in words already, by the toolkit of COCO (pycocoevalcap); no Java."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from multimodal_zoo.packages import needed

#: True captions by picture, in words with blanks between them.
Truths = Mapping[str, Sequence[str]]
#: How the length of the true captions is taken for BLEU's penalty.
LENGTHS = ("closest", "shortest", "average")
#: What document frequencies are counted in.
FREQUENCIES = ("corpus",)


class Figures(NamedTuple):
    """A score.

    Attributes:
        whole: of all pictures together.
        each: of each picture, in the order of the true captions.
    """

    whole: float
    each: list[float]


def cider(truths: Truths, said: Mapping[str, str], *, n: int = 4, sigma: float = 6.0, df: str = "corpus") -> Figures:
    """CIDEr-D (arXiv 1411.5726): agreement in words and their sequences, the more the fewer pictures have these.

    It runs from 0 to 10 and is the mean over the pictures; tables show a hundredfold. A set of one picture gives 0, as
    nothing in it is rare. Figures of different sets do not compare.

    Args:
        truths: true captions by picture.
        said: one caption for each of the same pictures.
        n: longest sequence of words, 2 to 4.
        sigma: width of the bell over differences in length, in pairs of words.
        df: where it is counted how many pictures have a sequence: `corpus`, the true captions given.

    Raises:
        ValueError: another `n`, `sigma` or `df`, or see `check`.
        ModuleNotFoundError: no pycocoevalcap.
    """
    if df not in FREQUENCIES:
        raise ValueError(f"cider.df is {df!r}; expected one of {', '.join(FREQUENCIES)}")
    if not 2 <= n <= 4 or sigma <= 0:
        raise ValueError(f"cider.n is {n}, cider.sigma {sigma}; expected 2 to 4, and a positive width")
    check(truths, said)
    toolkit = needed("pycocoevalcap.cider.cider_scorer", "cider", "eval")
    scorer = toolkit.CiderScorer(n=n, sigma=sigma)
    for key, texts in truths.items():
        scorer.crefs.append([toolkit.precook(one, n) for one in texts])
        scorer.ctest.append(toolkit.precook(said[key], n))
    whole, each = scorer.compute_score()
    return Figures(float(whole), [float(one) for one in each])


def bleu(truths: Truths, said: Mapping[str, str], *, n: int = 4, option: str = "closest") -> list[Figures]:
    """BLEU-1 to BLEU-n (Papineni et al., 2002): shares of sequences of words that true captions have.

    The whole sums counts over the pictures first; it is not the mean over them.

    Args:
        truths: true captions by picture.
        said: one caption for each of the same pictures.
        n: longest sequence of words.
        option: the true length that a caption's is compared with: `closest`, `shortest` or `average`.

    Raises:
        ValueError: another `n` or `option`, or see `check`.
        ModuleNotFoundError: no pycocoevalcap.
    """
    if option not in LENGTHS:
        raise ValueError(f"bleu.option is {option!r}; expected one of {', '.join(LENGTHS)}")
    if n < 1:
        raise ValueError(f"bleu.n is {n}; it must be at least 1")
    check(truths, said)
    scorer = needed("pycocoevalcap.bleu.bleu_scorer", "bleu", "eval").BleuScorer(n=n)
    for key, texts in truths.items():
        scorer += (said[key], list(texts))
    whole, each = scorer.compute_score(option=option, verbose=0)
    return [Figures(float(one), [float(value) for value in some]) for one, some in zip(whole, each, strict=True)]


def rouge_l(truths: Truths, said: Mapping[str, str], *, beta: float = 1.2) -> Figures:
    """ROUGE-L (Lin, 2004): the longest common subsequence of words; the mean over the pictures.

    Precision and recall are each the best among the true captions.

    Args:
        truths: true captions by picture.
        said: one caption for each of the same pictures.
        beta: weight of recall against precision.

    Raises:
        ValueError: a `beta` that is not positive, or see `check`.
        ModuleNotFoundError: no pycocoevalcap.
    """
    if beta <= 0:
        raise ValueError(f"rouge_l.beta is {beta}; it must be positive")
    check(truths, said)
    scorer = needed("pycocoevalcap.rouge.rouge", "rouge_l", "eval").Rouge()
    scorer.beta = beta
    whole, each = scorer.compute_score(
        {key: list(texts) for key, texts in truths.items()}, {key: [said[key]] for key in truths}
    )
    return Figures(float(whole), [float(one) for one in each])


def check(truths: Truths, said: Mapping[str, str]) -> None:
    """Whether captions and true captions are of the same pictures.

    Raises:
        ValueError: no picture, one that only one side has, or one without true captions.
    """
    if not said:
        raise ValueError("caption scores: there is no picture")
    lost = [key for key in said if not truths.get(key)]
    if lost:
        raise ValueError(f"caption scores: picture {lost[0]!r} has no true texts")
    silent = [key for key in truths if key not in said]
    if silent:
        raise ValueError(f"caption scores: nothing is said about picture {silent[0]!r}")
