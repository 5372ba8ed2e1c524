"""Documents to token samples: what the loaders ask for."""

from __future__ import annotations

from random import Random

from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.emu3_processor import Emu3Processor
from multimodal_zoo.data.sequence_collate import SequenceCollate
from multimodal_zoo.data.token_loader import TOKENS
from multimodal_zoo.data.token_sequences import Layout, TokenSample, TokenWeights


class TokenCollate(SequenceCollate):
    """Turns documents into token samples, and samples into a batch with one in each row; see `SequenceCollate`.

    Nothing is ever cut off: half a picture is no picture.

    Args:
        processor: the model's.
        layout: how a document becomes a sequence.
        weights: what counts in the loss.
        context_length: most tokens of a document.
        too_long: `error` or `skip`.
    """

    kind = TOKENS

    def __init__(
        self, processor: Emu3Processor, layout: Layout, weights: TokenWeights, context_length: int, too_long: str
    ) -> None:
        super().__init__(processor, context_length, too_long)
        self.layout, self.weights = layout, weights

    def sample(self, document: Document, random: Random) -> TokenSample:
        """The sample of one document, however long."""
        return self.weights(self.layout(document, self.processor, random), self.processor.ids, document.key)
