"""Documents to samples of words and visual embeddings: what the loaders ask for."""

from __future__ import annotations

from random import Random

from multimodal_zoo.data.conversation_layouts import ConversationLayout
from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.emu_processor import EmuProcessor
from multimodal_zoo.data.sequence_collate import SequenceCollate
from multimodal_zoo.data.visual_batches import VISUALS
from multimodal_zoo.data.visual_sequences import LearntElements, VisualSample, shortened


class VisualCollate(SequenceCollate):
    """Turns documents into samples, and samples into a batch with one in each row; see `SequenceCollate`.

    Args:
        processor: the model's.
        layout: what of a document is told, and in which order.
        learn: what of it is learnt.
        context_length: most tokens of a document, visual embeddings counted.
        too_long: `error`, `skip` or `cut`: its end is lost, with every picture that does not fit whole.
    """

    kind = VISUALS
    lengths = ("error", "skip", "cut")

    def __init__(
        self,
        processor: EmuProcessor,
        layout: ConversationLayout,
        learn: LearntElements,
        context_length: int,
        too_long: str,
    ) -> None:
        super().__init__(processor, context_length, too_long)
        self.layout, self.learn = layout, learn

    def sample(self, document: Document, random: Random) -> VisualSample:
        """The sample of one document, however long."""
        return self.processor.sample(self.layout(document, random), random, self.layout.special, self.learn)

    def cut(self, sample: VisualSample) -> VisualSample:
        """The beginning that fits; raises UnusableError where there is nothing in it to learn."""
        return shortened(sample, self.context_length, self.processor.ids.image_begin)
