"""One document as a sequence of words and visual embeddings, and what of it is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.data.conversation_templates import Mark, Piece, Shown, Words
from multimodal_zoo.data.picture_sequences import Row
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.nn.counted_images import CountedImages
from multimodal_zoo.registry import DATASETS

#: Which pictures are predicted: those that the template says, the last of these only, none.
PICTURES = ("said", "last", "none")


class VisualSample(NamedTuple):
    """One document as words and visual embeddings.

    Attributes:
        ids: long (tokens,); at visual embeddings an id that stands for one.
        weights: float32 (tokens,): how much the prediction of each word from what is before it counts; 0 at embeddings.
        vision: bool (tokens,), where visual embeddings stand.
        regression: float32 (tokens,): how much the prediction of the embedding at each place counts.
        images: the pictures, in order; None where there is none.
        key: the document's name.
        visual: float32 (places, width), the embeddings where they were computed before; `images` is None then.
        counts: how many of them each picture has.
    """

    ids: Tensor
    weights: Tensor
    vision: Tensor
    regression: Tensor
    images: CountedImages | None
    key: str
    visual: Tensor | None = None
    counts: tuple[int, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Embeddings of each picture."""
        return self.counts if self.images is None else self.images.counts

    def stored(self) -> dict[str, Any]:
        """The sample as plain values, for a checkpoint; `restored` is the inverse."""
        images = None if self.images is None else {"pixels": self.images.pixels, "counts": self.images.counts}
        return {**self._asdict(), "images": images}


def restored(stored: dict[str, Any]) -> VisualSample:
    """A sample of what `VisualSample.stored` gave."""
    images = stored["images"]
    if images is not None:
        images = CountedImages(images["pixels"], tuple(images["counts"]))
    return VisualSample(**{**stored, "images": images, "counts": tuple(stored["counts"])})


@DATASETS.register_module(name="learnt_elements")
class LearntElements:
    """What of a sequence is learnt.

    Published: Emu learns all words and all pictures, and no opening of a picture; Emu2's first stage and both chat
    models learn words only; Emu2-Gen learns the last picture only (arXiv 2312.13286, section 2.3 and its supplement).

    Args:
        words: whether the words are that the template says: all of them, or the answers of a chat.
        pictures: a name of `PICTURES`.
        openings: whether the token that opens a picture is learnt as a word, so that a model may begin one by itself.

    Raises:
        ValueError: an unknown choice, or nothing to learn.
    """

    def __init__(self, words: bool = True, pictures: str = "said", openings: bool = False) -> None:
        if pictures not in PICTURES:
            raise ValueError(f"data.learn.pictures is {pictures!r}; it must be one of {', '.join(PICTURES)}")
        if not words and not openings and pictures == "none":
            raise ValueError("data.learn says that nothing is learnt: set words to true, or pictures to said or last")
        self.words, self.pictures, self.openings = words, pictures, openings

    def regressed(self, said: Sequence[int]) -> set[int]:
        """Numbers of the pictures that are predicted.

        Args:
            said: numbers of those that the template says, in order.
        """
        return set() if self.pictures == "none" else set(said[-1:] if self.pictures == "last" else said)


#: Everything that a template says.
ALL = LearntElements()


def stripped(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces without the white space of words next to marks and pictures, as slow tokenizers drop it."""
    found = list(pieces)
    for order, trim in ((range(len(found)), str.lstrip), (range(len(found) - 1, -1, -1), str.rstrip)):
        beside = False
        for place in order:
            piece = found[place]
            if not isinstance(piece, Words):
                beside = True
            elif beside and piece.text:
                found[place] = piece._replace(text=trim(piece.text))
                beside = not found[place].text  # type: ignore[union-attr]
    return [piece for piece in found if not isinstance(piece, Words) or piece.text]


def opened(pieces: Sequence[Piece], begin: str, end: str) -> list[Piece]:
    """Pieces with each picture between the marks of its begin and end, which are learnt where the picture is said."""
    found: list[Piece] = []
    for piece in pieces:
        around = isinstance(piece, Shown)
        found += [Mark(begin, piece.learnt), piece, Mark(end, piece.learnt)] if around else [piece]
    return found


def shortened(sample: VisualSample, limit: int, begin: int) -> VisualSample:
    """A sample whose end is cut off; of a picture that does not fit whole, nothing is left.

    Args:
        sample: of any length.
        limit: tokens that are left at most.
        begin: id of the token that opens a picture.

    Raises:
        UnusableError: nothing that is learnt is left.
    """
    if len(sample.ids) <= limit:
        return sample
    kept, whole = _kept(sample, limit, begin)
    images, counts = sample.images, sample.sizes[:whole]
    if images is not None:
        images = CountedImages(images.pixels[:whole].clone(), counts) if whole else None
    visual = sample.visual[: sum(counts)].clone() if sample.visual is not None and whole else None
    short = VisualSample(
        sample.ids[:kept],
        sample.weights[:kept],
        sample.vision[:kept],
        sample.regression[:kept],
        images,
        sample.key,
        visual,
        () if visual is None else counts,
    )
    if not short.weights.any() and not short.regression.any():
        raise UnusableError(f"nothing to learn within {limit} tokens", f"{sample.key} ({len(sample.ids)} tokens)")
    return short


def _kept(sample: VisualSample, limit: int, begin: int) -> tuple[int, int]:
    """How many tokens and how many pictures are left."""
    places = sample.vision.nonzero().flatten().tolist()
    start = 0
    for number, count in enumerate(sample.sizes):
        first, last = places[start], places[start + count - 1]
        if last + 2 > limit:  # what closes it would be beyond
            opens = first > 0 and int(sample.ids[first - 1]) == begin
            return min(limit, first - int(opens)), number
        start += count
    return limit, len(sample.sizes)


def tensors_of(row: Row, unlearnt: set[int], chosen: set[int], close: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids, weights, places of embeddings and weights of the regression of a sequence.

    Args:
        row: the sequence.
        unlearnt: ids that are no targets as words.
        chosen: the pictures that are predicted.
        close: whether the token behind such a picture is a target of the regression too.
    """
    numbers = torch.tensor(row.picture, dtype=torch.long)
    places = torch.tensor(row.ids, dtype=torch.long)
    vision = numbers >= 0
    weights = torch.tensor(row.learnt, dtype=torch.float32) * ~torch.isin(places, torch.tensor(sorted(unlearnt)))
    weights = weights * ~vision
    regression = torch.isin(numbers, torch.tensor(sorted(chosen), dtype=torch.long)) & vision
    if close:
        regression[1:] |= regression[:-1] & ~vision[1:]
    weights[:1], regression[:1] = 0, False
    return places, weights, vision, regression.float()
