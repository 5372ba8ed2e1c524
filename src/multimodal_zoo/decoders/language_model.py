"""A causal decoder by itself: what learns to write texts behind texts."""

from __future__ import annotations

from torch import Tensor

from multimodal_zoo.decoders.causal_decoder import CausalDecoder, require_one_branch
from multimodal_zoo.nn.masks import Document
from multimodal_zoo.nn.shown_weights import ShowsWeights
from multimodal_zoo.registry import DECODERS


@DECODERS.register_module(name="language_model")
class LanguageModel(ShowsWeights):
    """A causal decoder that trains on texts alone, as CapsFusion's student does (arXiv 2310.20550, section 3.2).

    Args:
        decoder: the causal decoder.

    Raises:
        ValueError: weights of their own for pictures.
    """

    def __init__(self, decoder: CausalDecoder) -> None:
        super().__init__()
        require_one_branch(decoder, "language_model")
        self.decoder = decoder

    def forward(self, ids: Tensor, positions: Tensor | None = None, documents: Tensor | None = None) -> Tensor:
        """Hidden states of token ids, `(batch, tokens, width)`.

        Args:
            ids: `(batch, tokens)`.
            positions: `(batch, tokens)`, within each document; None counts from the left edge.
            documents: `(batch, tokens)`, the document of each token; tokens see their own document only. None: each row
                is one document.
        """
        mask = None if documents is None else Document(documents)
        return self.decoder(ids, positions=positions, mask=mask)
