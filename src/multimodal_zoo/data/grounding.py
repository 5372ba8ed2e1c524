"""Phrases of a text and their places in a picture, as tokens or as pictures of boxes (Emu2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from PIL import Image as Pillow
from PIL import ImageDraw

from multimodal_zoo.data import emu_templates
from multimodal_zoo.data.conversation_turns import TOKEN
from multimodal_zoo.data.documents import Document, Image, Picture, Segment, Text
from multimodal_zoo.data.limits import probability
from multimodal_zoo.data.pictures import load, open_picture
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.registry import DATASETS

#: Left, top, right and bottom as shares of a picture's width and height, 0 to 1.
Box = tuple[float, float, float, float]
#: Coordinates are whole numbers from 0 to this (the published description of Emu2-Chat's answers).
STEPS = 224
#: Which lists of phrases GRIT has: whole expressions, or the nouns alone.
PHRASES = ("ref_exps", "noun_chunks")
GROUNDING = Text(emu_templates.GROUNDING, TOKEN)
DELIMITER = Text("</delimiter_of_multi_objects/>", TOKEN)


class Phrase(NamedTuple):
    """Words of a text and where in the picture they are.

    Attributes:
        start: of the words in the text.
        end: behind them.
        boxes: one for each thing that they name.
    """

    start: int
    end: int
    boxes: tuple[Box, ...]


class Entity(NamedTuple):
    """A thing to be drawn.

    Attributes:
        name: in words.
        box: where; None leaves that open.
        picture: what it looks like; None leaves that open.
    """

    name: str
    box: Box | None = None
    picture: Picture | None = None


def box_picture(box: Box, size: int = 448, line: int = 3) -> Pillow.Image:
    """A black square with a white rectangle: how Emu2-Gen is told a place (published: 448 pixels, lines of 3).

    Args:
        box: the rectangle; the middle of its lines is the edge of the box.
        size: side, pixels.
        line: width of lines, pixels.

    Raises:
        ValueError: a box outside of the picture or without area.
    """
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"a box is left, top, right, bottom as shares of the picture, 0 to 1, not {tuple(box)}")
    image = Pillow.new("RGB", (size, size))
    corners = [round(one * size) for one in box]
    outer = line // 2
    edge = (corners[0] - outer, corners[1] - outer, corners[2] + outer, corners[3] + outer)
    ImageDraw.Draw(image).rectangle(edge, outline=(255, 255, 255), width=line)
    return image


def place_tokens(box: Box) -> list[Text]:
    """The four tokens of a box: left, top, right, bottom in whole steps of 1 / 224."""
    return [Text(f"<patch_index_{min(STEPS, max(0, round(one * STEPS))):04d}>", TOKEN) for one in box]


def grounded_prompt(caption: str, entities: Sequence[Entity], size: int = 448) -> list[Segment]:
    """What Emu2-Gen is told to draw: a text, then each thing's name, its place and its picture where these are given.

    Args:
        caption: of the whole.
        entities: in order.
        size: side of the pictures of boxes, pixels.

    Raises:
        ValueError: a box outside of the picture or without area.
    """
    found: list[Segment] = [GROUNDING, Text(caption)]
    for name, box, picture in entities:
        found += _between("phrase", [Text(name)])
        if box is not None:
            found += _between("object", [Image(box_picture(box, size))])
        if picture is not None:
            found.append(Image(picture))
    return found


def _between(tag: str, inside: Sequence[Segment]) -> list[Segment]:
    return [Text(f"<{tag}>", TOKEN), *inside, Text(f"</{tag}>", TOKEN)]


def phrases_of(facts: Mapping[str, Any], name: str, text: str, key: str) -> list[Phrase]:
    """The phrases of a GRIT record: rows of start, end, left, top, right, bottom and a score; overlapping ones go.

    Args:
        facts: of the record.
        name: a name of `PHRASES`.
        text: that starts and ends are places in.
        key: the document, for errors.

    Raises:
        UnusableError: no such list, a row that is none, or no phrase.
    """
    rows = facts.get(name)
    try:
        found: dict[tuple[int, int], list[Box]] = {}
        for start, end, *box in rows:  # type: ignore[union-attr]
            corners = tuple(min(1.0, max(0.0, float(one))) for one in box[:4])
            if corners[0] < corners[2] and corners[1] < corners[3] and 0 <= start < end <= len(text):
                found.setdefault((int(start), int(end)), []).append(corners)  # type: ignore[arg-type]
    except (TypeError, ValueError, IndexError) as error:
        raise UnusableError("broken phrases", f"{key} ({name} is {str(rows)[:60]})") from error
    kept: list[Phrase] = []
    for (start, end), boxes in sorted(found.items()):
        if not kept or start >= kept[-1].end:
            kept.append(Phrase(start, end, tuple(boxes)))
    if not kept:
        raise UnusableError("no phrase with a place", key)
    return kept


@DATASETS.register_module(name="grounded_words")
class GroundedWords:
    """A picture and a text whose phrases are followed by their places, as tokens: GRIT, grounded CapsFusion.

    Args:
        phrases: which list of the record; a name of `PHRASES`.
        phrase_first: probability that a phrase stands before its places (arXiv 2312.13286: 0.7).
        first: probability that the picture stands before the text.
        special: as in `shuffled_pair`.

    Raises:
        ValueError: an unknown list, or no probability.
    """

    def __init__(
        self, phrases: str = "ref_exps", phrase_first: float = 0.7, first: float = 0.5, special: bool = False
    ) -> None:
        _known(phrases)
        probability(phrase_first, "data.layout.phrase_first")
        probability(first, "data.layout.first")
        self.phrases, self.phrase_first, self.first, self.special = phrases, phrase_first, first, special

    def __call__(self, document: Document, random: Random) -> Document:
        """The document; raises `UnusableError` where no phrase has a place."""
        text = str(document.meta.get("caption") or document.text)
        before = random.random() < self.phrase_first
        told: list[Segment] = [GROUNDING]
        behind = 0
        for start, end, boxes in phrases_of(document.meta, self.phrases, text, document.key):
            places: list[Segment] = []
            for number, box in enumerate(boxes):
                places += [*([DELIMITER] if number else []), *place_tokens(box)]
            pair = [_between("phrase", [Text(text[start:end])]), _between("object", places)]
            told += [Text(text[behind:start]), *pair[not before], *pair[before]]
            behind = end
        told.append(Text(text[behind:]))
        words = [one for one in told if not isinstance(one, Text) or one.text]
        shown = Image(document.image)
        return Document([shown, *words] if random.random() < self.first else [*words, shown], document.meta)


@DATASETS.register_module(name="grounded_drawing")
class GroundedDrawing:
    """A text, its phrases with pictures of their boxes and of the things in them, then the picture: for Emu2-Gen.

    Published: entities and pictures of places are left out at random (arXiv 2312.13286, supplement; how often is not
    said). Things are cut out of the picture along their boxes; the published data cut along masks.

    Args:
        phrases: which list of the record; a name of `PHRASES`.
        size: side of the pictures of boxes, pixels.
        drop: probability that an entity is left out, and that its picture of a place is.
        subjects: whether the pictures of things are shown.
        special: as in `shuffled_pair`.

    Raises:
        ValueError: an unknown list, or no probability.
    """

    def __init__(
        self,
        phrases: str = "noun_chunks",
        size: int = 448,
        drop: float = 0.1,
        subjects: bool = True,
        special: bool = False,
    ) -> None:
        _known(phrases)
        probability(drop, "data.layout.drop")
        self.phrases, self.size, self.drop, self.subjects, self.special = phrases, size, drop, subjects, special

    def __call__(self, document: Document, random: Random) -> Document:
        """The document; raises `UnusableError` where no phrase has a place."""
        text = str(document.meta.get("caption") or document.text)
        image = load(open_picture(document.image, document.key), document.key)
        entities = []
        for start, end, boxes in phrases_of(document.meta, self.phrases, text, document.key):
            gone, placed = random.random() < self.drop, random.random() >= self.drop
            if not gone:
                subject = _cut(image, boxes[0]) if self.subjects else None
                entities.append(Entity(text[start:end], boxes[0] if placed else None, subject))
        return Document([*grounded_prompt(text, entities, self.size), Image(image)], document.meta)


def _cut(image: Pillow.Image, box: Box) -> Pillow.Image:
    left, top = int(box[0] * image.width), int(box[1] * image.height)
    right, bottom = max(left + 1, round(box[2] * image.width)), max(top + 1, round(box[3] * image.height))
    return image.crop((left, top, right, bottom))


def _known(phrases: str) -> None:
    if phrases not in PHRASES:
        raise ValueError(f"data.layout.phrases is {phrases!r}; it must be one of {', '.join(PHRASES)}")
