"""Documents to samples with pictures: what the loaders ask for."""

from __future__ import annotations

from random import Random

from multimodal_zoo.data.conversation_layouts import ConversationLayout
from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.eve_processor import EveProcessor
from multimodal_zoo.data.picture_batches import PICTURES
from multimodal_zoo.data.picture_sequences import PictureSample, shortened
from multimodal_zoo.data.sequence_collate import SequenceCollate
from multimodal_zoo.data.skips import UnusableError


class PictureCollate(SequenceCollate):
    """Turns documents into samples with pictures, and samples into a batch; see `SequenceCollate`.

    Args:
        processor: the model's.
        layout: which conversation a document is.
        context_length: most tokens of a document, pictures' tokens counted.
        too_long: `error`, `skip`, `cut` (its end is lost) or `cut_ids` (as published: there a picture counts as one
            token, so that rows may be longer). No picture is ever cut: a document that would lose one is left out.
        teacher: whether what a teacher sees of the pictures is made too.
    """

    kind = PICTURES
    lengths = ("error", "skip", "cut", "cut_ids")

    def __init__(
        self,
        processor: EveProcessor,
        layout: ConversationLayout,
        context_length: int,
        too_long: str,
        teacher: bool,
    ) -> None:
        super().__init__(processor, context_length, too_long)
        self.layout, self.teacher = layout, teacher

    def sample(self, document: Document, random: Random) -> PictureSample:
        """The sample of one document, however long."""
        return self.processor.sample(self.layout(document, random), random, self.teacher, self.layout.special)

    def cut(self, sample: PictureSample) -> PictureSample:
        """The beginning that fits."""
        return shortened(sample, self.context_length, "ids" if self.too_long == "cut_ids" else "tokens")

    def text_row(self, document: Document, random: Random) -> PictureSample:
        """See `SequenceCollate`; a conversation without an answer within the context is unusable too."""
        sample = super().text_row(document, random)
        if not sample.weights.any():
            raise UnusableError(f"no answer within {self.context_length} tokens", document.key)
        return sample
