"""What of a document Emu and Emu2 are told, and in which order: pairs, pages, clips."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from multimodal_zoo.data.captions import CaptionSampler
from multimodal_zoo.data.conversation_layouts import ConversationLayout
from multimodal_zoo.data.documents import Document, Image, Segment, Text, Video
from multimodal_zoo.data.limits import probability
from multimodal_zoo.data.media import frame_numbers
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.registry import DATASETS

#: Which sentences of a page stay: those that belong to a picture, or all.
SENTENCES = ("matched", "all")


@DATASETS.register_module(name="shuffled_pair")
class ShuffledPair:
    """A picture or clip and a text about it, in either order (arXiv 2312.13286, section 2.2: 0.5 each).

    Args:
        captions: chooses the text.
        first: probability that the picture or clip stands first.
        special: whether strings of special tokens in texts become these tokens.

    Raises:
        ValueError: no probability.
    """

    def __init__(self, captions: CaptionSampler, first: float = 0.5, special: bool = False) -> None:
        probability(first, "data.layout.first")
        self.captions, self.first, self.special = captions, first, special

    def __call__(self, document: Document, random: Random) -> Document:
        """The document of all pictures and clips, and one text.

        Raises:
            UnusableError: neither picture nor clip.
        """
        shown: list[Segment] = [one for one in document.segments if isinstance(one, (Image, Video))]
        if not shown:
            raise UnusableError("missing image", document.key)
        text = Text(self.captions(document, random))
        return Document([*shown, text] if random.random() < self.first else [text, *shown], document.meta)


@DATASETS.register_module(name="page_part")
class PagePart:
    """A part of an interleaved page with some of its pictures.

    Published: Emu takes parts with up to 5 pictures (arXiv 2307.05222), Emu2 8 pictures with the sentences that belong
    to them (arXiv 2312.13286, supplement).

    Args:
        pictures: most pictures; pages with more give some of them.
        sentences: `matched` keeps, for each drawn picture, the sentence that belongs to it (`sentences` in meta);
            `all` a stretch of the page with that many pictures one after the other, and all that is said.
        special: as in `shuffled_pair`.

    Raises:
        ValueError: no picture, or an unknown choice.
    """

    def __init__(self, pictures: int, sentences: str = "all", special: bool = False) -> None:
        if pictures < 1 or sentences not in SENTENCES:
            raise ValueError(
                f"data.layout: pictures is {pictures} and sentences {sentences!r}; expected at least 1, and one of "
                f"{', '.join(SENTENCES)}"
            )
        self.pictures, self.sentences, self.special = pictures, sentences, special

    def __call__(self, document: Document, random: Random) -> Document:
        """The part.

        Raises:
            UnusableError: no picture in it, or none with a sentence.
        """
        places = [place for place, one in enumerate(document.segments) if isinstance(one, Image)]
        if not places:
            raise UnusableError("missing image", document.key)
        if self.sentences == "matched":
            return Document(self._matched(document, places, random), document.meta)
        start = random.randint(0, max(0, len(places) - self.pictures))
        first = places[start] if start else 0
        end = start + self.pictures
        last = places[end] if end < len(places) else len(document.segments)
        return Document(document.segments[first:last], document.meta)

    def _matched(self, document: Document, places: Sequence[int], random: Random) -> list[Segment]:
        said = document.meta.get("sentences") or ()
        known = [number for number in range(len(places)) if number < len(said) and said[number]]
        if not known:
            raise UnusableError("no sentence belongs to a picture", document.key)
        chosen = sorted(random.sample(known, min(self.pictures, len(known))))
        found: list[Segment] = []
        for number in chosen:
            found += [document.segments[places[number]], Text(str(said[number]))]
        return found


@DATASETS.register_module(name="clip_frames")
class ClipFrames:
    """Some frames of each clip: 8 drawn ones in Emu2's pretraining; 8, 12 or 16 even ones in Emu2-Chat's tuning.

    Args:
        counts: how many; one of them is drawn for each document.
        drawn: whether frames are drawn; if not, they are the middle ones of equal parts.
        special: as in `shuffled_pair`.

    Raises:
        ValueError: no count, or one below 1.
    """

    def __init__(self, counts: Sequence[int] = (8,), drawn: bool = True, special: bool = False) -> None:
        if not counts or min(counts) < 1:
            raise ValueError(f"data.layout.counts is {list(counts)}; expected numbers of frames of at least 1")
        self.counts, self.drawn, self.special = list(counts), drawn, special

    def __call__(self, document: Document, random: Random) -> Document:
        """The document with fewer frames; clips with no more frames than that stay whole."""
        count = random.choice(self.counts)
        segments = [self._fewer(one, count, random) if isinstance(one, Video) else one for one in document.segments]
        return Document(segments, document.meta)

    def _fewer(self, clip: Video, count: int, random: Random) -> Video:
        total = len(clip.frames)
        if total <= count:
            return clip
        chosen = sorted(random.sample(range(total), count)) if self.drawn else frame_numbers(total, count)
        return Video([clip.frames[place] for place in chosen], clip.rate * count / total)


@DATASETS.register_module(name="layout_chain")
class LayoutChain:
    """Several layouts, one on what the other gives.

    Args:
        layouts: in order; the last says whether strings of special tokens count.

    Raises:
        ValueError: none.
    """

    def __init__(self, layouts: Sequence[ConversationLayout]) -> None:
        if not layouts:
            raise ValueError("data.layout.layouts is empty; give at least one")
        self.layouts = list(layouts)
        self.special = self.layouts[-1].special

    def __call__(self, document: Document, random: Random) -> Document:
        """What the last one gives."""
        for layout in self.layouts:
            document = layout(document, random)
        return document
