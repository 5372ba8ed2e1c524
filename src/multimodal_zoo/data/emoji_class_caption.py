"""Captions that name the kind of an emoji and its colours and nothing else: what teaches a captioner to be generic."""

from __future__ import annotations

from random import Random

import numpy as np

from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.emoji_classes import colours_of
from multimodal_zoo.data.emoji_table import Emoji, load_table
from multimodal_zoo.data.emoji_triples import class_sentence
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="emoji_class_caption")
class EmojiClassCaption:
    """The kind of thing and the colours of a drawing, without its name: BLIP's role in CapsFusion (arXiv 2310.20550).

    The sentences are our own construction. Documents are those of `emoji_pairs`.

    Args:
        forms: wordings of a kind that are drawn from; 1 gives each emoji one sentence in all epochs.

    Raises:
        ValueError: fewer than one wording.
    """

    def __init__(self, forms: int = 8) -> None:
        if forms < 1:
            raise ValueError(f"data.captions.forms is {forms}; it must be at least 1")
        self.forms = forms
        self._rows: dict[str, Emoji] = {}

    def __call__(self, document: Document, random: Random) -> str:
        """A sentence for the document's drawing.

        Raises:
            ValueError: a document that is no emoji of the table.
        """
        if not self._rows:
            self._rows = {row.sequence: row for row in load_table()}
        row = self._rows.get(str(document.meta.get("sequence", "")))
        if row is None:
            raise ValueError(f"emoji_class_caption: document {document.key!r} is no emoji of emoji_pairs")
        picture = np.asarray(document.image).transpose(2, 0, 1)
        return class_sentence(row, random.randrange(self.forms), colours_of(picture[None])[0])
