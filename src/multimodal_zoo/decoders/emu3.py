"""Emu3 (arXiv 2409.18869): text, pictures and clips as tokens of one vocabulary, one causal decoder over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from multimodal_zoo.decoders.causal_decoder import CausalDecoder, require_one_branch
from multimodal_zoo.generation.loop import Generated, Progress, Scoring, generate
from multimodal_zoo.generation.policies import FreeText, Layout, Policy, behind_last, picture_layout
from multimodal_zoo.generation.prompts import PromptBatch
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.nn.masks import Document
from multimodal_zoo.nn.shown_weights import ShowsWeights
from multimodal_zoo.registry import DECODERS
from multimodal_zoo.tokenizers.emu3_ids import Emu3Ids


@DECODERS.register_module(name="emu3")
class Emu3(ShowsWeights):
    """A causal decoder and the visual tokenizer whose codes it reads and writes.

    Args:
        decoder: the causal decoder.
        ids: which id means what.
        vision_tokenizer: pictures to codes and back; None for a decoder that only sees codes that were made before.

    Raises:
        ValueError: parts of different vocabularies, or a decoder with weights of their own for pictures.
    """

    def __init__(self, decoder: CausalDecoder, ids: Emu3Ids, vision_tokenizer: nn.Module | None = None) -> None:
        super().__init__()
        require_one_branch(decoder, "emu3")
        last = ids.visual_first + ids.codebook_size
        if last > decoder.vocab_size:
            raise ValueError(f"model.ids end at {last}, model.decoder.vocab_size is {decoder.vocab_size}")
        if vision_tokenizer is not None and vision_tokenizer.codebook_size != ids.codebook_size:
            raise ValueError(
                f"model.vision_tokenizer has {vision_tokenizer.codebook_size} codes, model.ids have {ids.codebook_size}"
            )
        self.decoder, self.ids, self.vision_tokenizer = decoder, ids, vision_tokenizer

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

    def generate(
        self,
        prompts: PromptBatch,
        policy: Policy,
        *,
        negative: PromptBatch | None = None,
        sampling: Sampling | None = None,
        scoring: Scoring | None = None,
        seeds: Sequence[int] | None = None,
        on_token: Callable[[Progress], None] | None = None,
    ) -> Generated:
        """Ids behind prompts; see `generation.loop.generate`. `picture_steps` and `text_steps` make the policies."""
        return generate(
            self.decoder,
            prompts,
            policy,
            negative=negative,
            sampling=sampling,
            scoring=scoring,
            seeds=seeds,
            on_token=on_token,
        )

    def picture_steps(
        self, prompts: PromptBatch, grids: Sequence[Sequence[int]], given: Sequence[Tensor | None] | None = None
    ) -> Layout:
        """What may come behind prompts that end in a picture, counted from their last image token.

        Args:
            prompts: ids; each holds an image token, and perhaps first visual tokens behind it.
            grids: (rows, columns) of each picture, or (steps, rows, columns) of each clip.
            given: codes of each picture that are not drawn; see `picture_layout`.

        Raises:
            ValueError: a prompt without an image token, or one that goes on in another way than the grid.
        """
        if len(grids) != len(prompts):
            raise ValueError(f"{len(grids)} grids for {len(prompts)} prompts; give one for each")
        rows = [row[real] for row, real in zip(prompts.inputs, prompts.real, strict=True)]
        begun = [behind_last(row, self.ids.image_token) for row in rows]
        return picture_layout(self.ids, grids, given=given, begun=begun)

    def text_steps(self, max_new_tokens: int) -> FreeText:
        """Any ids up to the end of the sequence, `max_new_tokens` at most."""
        return FreeText(max_new_tokens, self.ids.eos, self.ids.pad)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Codes of pictures or clips, as the visual tokenizer's `encode`."""
        return self.tokenizer().encode(pixels)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Pixels of codes, as the visual tokenizer's `decode`."""
        return self.tokenizer().decode(codes)

    def tokenizer(self) -> nn.Module:
        """The visual tokenizer.

        Raises:
            ValueError: the model has none.
        """
        if self.vision_tokenizer is None:
            raise ValueError("the model has no visual tokenizer: give model.vision_tokenizer, and weights for it")
        return self.vision_tokenizer
