"""EVE (arXiv 2406.11832, 2502.06788): a causal decoder that reads pixels through a small embedding layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from multimodal_zoo.decoders.causal_decoder import CausalDecoder
from multimodal_zoo.decoders.placed_prompts import placed_prompts
from multimodal_zoo.generation.loop import Generated, Progress, generate
from multimodal_zoo.generation.policies import Policy
from multimodal_zoo.generation.prompts import PromptBatch
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.nn.checks import may_look
from multimodal_zoo.nn.masks import Document
from multimodal_zoo.nn.patch_cells import PatchCells
from multimodal_zoo.nn.shown_weights import ShowsWeights
from multimodal_zoo.nn.transformer import Observer
from multimodal_zoo.registry import DECODERS


@DECODERS.register_module(name="eve")
class Eve(ShowsWeights):
    """A causal decoder, and the layer that turns pictures into its tokens.

    Version 1 is a plain decoder behind `eve_patch_embedding`; version 2 has `decoupled_block`s behind
    `eve_direct_embedding`. With `encoder_embedding` it is the usual model with an image encoder.

    Args:
        decoder: the causal decoder.
        vision_embedding: from pictures to tokens of the decoder's width.
        aligner: predicts a teacher's features while training (`patch_aligning`); None otherwise, as for inference.

    Raises:
        ValueError: parts of different widths.
    """

    #: Slots that stay empty when weights are loaded for inference.
    training_parts = ("aligner",)

    def __init__(self, decoder: CausalDecoder, vision_embedding: nn.Module, aligner: nn.Module | None = None) -> None:
        super().__init__()
        for name, part in (("vision_embedding", vision_embedding), ("aligner", aligner)):
            if part is not None and part.width != decoder.width:
                raise ValueError(f"model.{name}.width is {part.width}, model.decoder.width is {decoder.width}")
        self.decoder, self.vision_embedding, self.aligner = decoder, vision_embedding, aligner

    def embed(self, ids: Tensor, vision: Tensor | None = None, pictures: PatchCells | None = None) -> Tensor:
        """Embeddings of a batch, `(batch, tokens, width)`.

        Args:
            ids: long (batch, tokens); those of pictures' tokens are any of the vocabulary.
            vision: bool (batch, tokens), where the pictures' tokens stand.
            pictures: in the order of the rows, and in a row from left to right.

        Raises:
            ValueError: places and tokens of pictures differ in number (looked at on a CPU only).
        """
        states = self.decoder.embed(ids)
        if pictures is None:
            return self._touched(states)
        if vision is None:
            raise ValueError(f"{len(pictures)} pictures without places: give vision too")
        tokens = self.vision_embedding(pictures).to(states.dtype)
        if may_look(vision) and int(vision.sum()) != len(tokens):
            raise ValueError(f"{int(vision.sum())} places for {len(tokens)} tokens of {len(pictures)} pictures")
        return states.masked_scatter(vision[..., None], tokens)

    def _touched(self, states: Tensor) -> Tensor:
        """The same, with the embedding layer in the graph: processes that train together need a gradient on each."""
        layer = self.vision_embedding
        if not self.training or not torch.is_grad_enabled() or not any(p.requires_grad for p in layer.parameters()):
            return states
        return states + 0 * layer(layer.blank(states)).sum().to(states.dtype)

    def forward(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        vision: Tensor | None = None,
        pictures: PatchCells | None = None,
        observe: Observer | None = None,
    ) -> Tensor:
        """Hidden states, `(batch, tokens, width)`.

        Args:
            ids: (batch, tokens).
            positions: (batch, tokens), within each document, pictures' tokens counted; None counts from the left edge.
            documents: (batch, tokens), the document of each token; None: each row is one.
            vision: bool (batch, tokens), where tokens of pictures stand.
            pictures: what stands there.
            observe: sees the stream at every layer, as in `CausalDecoder.forward`.
        """
        mask = None if documents is None else Document(documents)
        states = self.embed(ids, vision, pictures)
        return self.decoder(states, positions=positions, mask=mask, vision=vision, observe=observe)

    @torch.no_grad()
    def prompts(
        self, rows: Sequence[Tensor], vision: Sequence[Tensor], pictures: PatchCells | None, pad_id: int
    ) -> PromptBatch:
        """Prompts of unequal lengths and numbers of pictures, embedded and padded on the left.

        Args:
            rows: ids of each prompt, pictures' tokens counted.
            vision: bool of the same lengths, where tokens of pictures stand.
            pictures: of all rows, in their order.
            pad_id: any id of the vocabulary.
        """
        device = self.decoder.token_embedding.weight.device
        ids, places = placed_prompts(rows, vision, pad_id, device)
        embedded = self.embed(ids.inputs, places, None if pictures is None else pictures.to(device))
        return PromptBatch(embedded, ids.real, places)

    def generate(
        self,
        prompts: PromptBatch,
        policy: Policy,
        *,
        sampling: Sampling | None = None,
        seeds: Sequence[int] | None = None,
        on_token: Callable[[Progress], None] | None = None,
    ) -> Generated:
        """Ids behind prompts (`prompts` makes them); see `generation.loop.generate`."""
        return generate(self.decoder, prompts, policy, sampling=sampling, seeds=seeds, on_token=on_token)
