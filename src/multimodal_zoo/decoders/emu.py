"""Emu and Emu2 (arXiv 2307.05222, 2312.13286): a causal decoder that reads and predicts words and visual embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from multimodal_zoo.decoders.causal_decoder import CausalDecoder, require_one_branch
from multimodal_zoo.decoders.placed_prompts import placed_prompts
from multimodal_zoo.encoders.image_tokens import image_tokens, token_width, unpooled
from multimodal_zoo.generation.loop import Generated, Progress, generate
from multimodal_zoo.generation.policies import Policy
from multimodal_zoo.generation.prompts import PromptBatch
from multimodal_zoo.generation.regression import imagine
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.nn.checks import may_look
from multimodal_zoo.nn.counted_images import CountedImages
from multimodal_zoo.nn.masks import Document
from multimodal_zoo.nn.processes import world_size
from multimodal_zoo.nn.shown_weights import ShowsWeights
from multimodal_zoo.nn.transformer import Observer
from multimodal_zoo.registry import DECODERS


@DECODERS.register_module(name="emu")
class Emu(ShowsWeights):
    """An image encoder, a connector, and a causal decoder that goes on in words or in visual embeddings.

    Visual embeddings have the connector's width. Emu's is that of the decoder (`causal_former`), and the decoder reads
    embeddings as they are; Emu2's is that of the image encoder (`pooled_tokens`), with a projection in between.

    Args:
        decoder: the causal decoder.
        image_encoder: any image encoder; what pools its tokens is left out.
        connector: from the encoder's tokens to visual embeddings (`causal_former`, `pooled_tokens`).
        input_projection: from visual embeddings to the decoder's width (`linear_layer`); None where they have it.
        visual_decoder: from visual embeddings to pictures (`latent_diffusion`); None for a model that only gives
            embeddings.

    Attributes:
        regression_head: from the decoder's states to the next visual embedding.
        visual_width: width of visual embeddings.

    Raises:
        ValueError: parts of different widths, or a decoder with weights of their own for pictures, with the key.
    """

    #: trained after the rest, see `checkpoints.training_only`
    later_parts = ("visual_decoder",)
    #: Parts that quantisation leaves as they are: embeddings of pictures suffer first, and most weights are elsewhere.
    whole_parts = ("image_encoder", "connector", "visual_decoder")

    def __init__(
        self,
        decoder: CausalDecoder,
        image_encoder: nn.Module,
        connector: nn.Module,
        input_projection: nn.Linear | None = None,
        visual_decoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        require_one_branch(decoder, "emu")
        tokens = token_width(image_encoder)
        if connector.context_width != tokens:
            raise ValueError(
                f"model.connector reads tokens of width {connector.context_width}, model.image_encoder gives {tokens}; "
                "set context_norm.width and block.cross_attention.context_width of a causal_former, width of "
                "pooled_tokens"
            )
        self.visual_width: int = int(connector.width)
        read = self.visual_width if input_projection is None else input_projection.out_features
        if read != decoder.width:
            key = "connector.width" if input_projection is None else "input_projection.out_features"
            raise ValueError(f"model.{key} is {read}, model.decoder.width is {decoder.width}; they must be equal")
        if input_projection is not None and input_projection.in_features != self.visual_width:
            raise ValueError(
                f"model.input_projection.in_features is {input_projection.in_features}, model.connector.width is "
                f"{self.visual_width}; they must be equal"
            )
        if visual_decoder is not None and visual_decoder.condition_width != self.visual_width:
            raise ValueError(
                f"model.visual_decoder.condition_width is {visual_decoder.condition_width}, visual embeddings are "
                f"{self.visual_width} wide (model.connector.width): the decoder was made for another model"
            )
        self.decoder, self.image_encoder, self.connector = decoder, unpooled(image_encoder), connector
        self.input_projection, self.visual_decoder = input_projection, visual_decoder
        self.regression_head = nn.Linear(decoder.width, self.visual_width, bias=False)

    @property
    def image_size(self) -> int:
        """Side of the pictures that the image encoder takes, in pixels."""
        return int(self.image_encoder.image_size)

    def encode(self, images: CountedImages) -> Tensor:
        """Visual embeddings of pictures, one picture behind the other, `(tokens, visual_width)`.

        Raises:
            ValueError: a number of embeddings that the connector does not give.
        """
        seen = image_tokens(self.image_encoder, images.pixels)
        found: dict[int, Tensor] = {}
        for count in sorted(set(images.counts)):
            chosen = [place for place, one in enumerate(images.counts) if one == count]
            part = seen if len(chosen) == len(images) else seen._replace(tokens=seen.tokens[chosen])
            found.update(zip(chosen, self.connector(part, count), strict=True))
        return torch.cat([found[place] for place in range(len(images))])

    def project(self, visual: Tensor) -> Tensor:
        """Visual embeddings `(..., visual_width)` as the decoder reads them, `(..., width)`.

        Raises:
            ValueError: embeddings of another width.
        """
        if visual.shape[-1] != self.visual_width:
            raise ValueError(
                f"visual embeddings of width {visual.shape[-1]}; this model's are {self.visual_width} wide "
                "(model.connector.width): they were made by another model"
            )
        return visual if self.input_projection is None else self.input_projection(visual)

    def embed(self, ids: Tensor, vision: Tensor | None = None, visual: Tensor | None = None) -> Tensor:
        """Embeddings of a batch, `(batch, tokens, width)`.

        Args:
            ids: long (batch, tokens); at places of visual embeddings any of the vocabulary.
            vision: bool (batch, tokens), where visual embeddings stand.
            visual: (places, visual_width), row by row and from left to right, as `encode` gives them.

        Raises:
            ValueError: places and embeddings differ in number (looked at on a CPU only).
        """
        states = self.decoder.embed(ids)
        if visual is None:
            if vision is None or not may_look(vision) or not vision.any():
                return states
            visual = states.new_zeros(0, self.visual_width)  # places without any embeddings are an error too
        if vision is None:
            if len(visual):
                raise ValueError(f"{len(visual)} visual embeddings without places: give vision too")
            vision = torch.zeros_like(ids, dtype=torch.bool)
        if may_look(vision) and int(vision.sum()) != len(visual):
            raise ValueError(
                f"the texts have places for {int(vision.sum())} visual embeddings, the pictures give {len(visual)}: "
                "there are more placeholders than pictures, or fewer, or processor.image_tokens is not the model's"
            )
        return states.masked_scatter(vision[..., None], self.project(visual).to(states.dtype))

    def seen(self, ids: Tensor, images: CountedImages | None, visual: Tensor | None = None) -> Tensor | None:
        """Visual embeddings of a batch: of its pictures, or those that are known already.

        Processes that train together run the same layers, so that a batch without pictures reads a blank one, unless
        nothing between pixels and embeddings trains.

        Args:
            ids: of the batch; its device.
            images: the pictures.
            visual: `(tokens, visual_width)`, in place of the pictures.
        """
        if images is not None and visual is not None:
            raise ValueError("give pictures or their visual embeddings, not both")
        if images is not None:
            return self.encode(images)
        path = [*self.image_encoder.parameters(), *self.connector.parameters()]
        learning = self.training and any(p.requires_grad for p in path)
        if visual is None and (learning or any(_is_spread(p) for p in path)):
            return self._blank(ids.device)[:0]  # no embeddings, but all layers in the graph
        if visual is None and self.training:
            weight = self.regression_head.weight
            return torch.zeros(0, self.visual_width, device=ids.device, dtype=weight.dtype)
        return visual

    def _blank(self, device: torch.device) -> Tensor:
        like = next(self.image_encoder.parameters())
        dtype = like.dtype if like.is_floating_point() else torch.float32
        pixels = torch.zeros(1, 3, self.image_size, self.image_size, device=device, dtype=dtype)
        return self.encode(CountedImages(pixels, (int(getattr(self.connector, "queries", 1)),)))

    def forward(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        vision: Tensor | None = None,
        images: CountedImages | None = None,
        visual: Tensor | None = None,
        observe: Observer | None = None,
    ) -> Tensor:
        """Hidden states behind the last norm, `(batch, tokens, width)`; both heads read these.

        Args:
            ids: (batch, tokens).
            positions: (batch, tokens), within each document; None counts from the left edge.
            documents: (batch, tokens), the document of each token; None: each row is one.
            vision: bool (batch, tokens), where visual embeddings stand.
            images: the pictures that stand there.
            visual: their visual embeddings, where these are known already.
            observe: sees the stream at every layer, as in `CausalDecoder.forward`.
        """
        found = self.seen(ids, images, visual)
        return self.decoded(self.embed(ids, vision, found), positions, documents, observe)

    def decoded(
        self,
        states: Tensor,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        observe: Observer | None = None,
    ) -> Tensor:
        """What `forward` returns, of embeddings (batch, tokens, width) that are there already."""
        mask = None if documents is None else Document(documents)
        return self.decoder(states, positions=positions, mask=mask, observe=observe)

    @torch.no_grad()
    def prompts(
        self, rows: Sequence[Tensor], vision: Sequence[Tensor], visual: Tensor | None, pad_id: int
    ) -> PromptBatch:
        """Prompts of unequal lengths and numbers of pictures, embedded and padded on the left.

        Args:
            rows: ids of each prompt, places of visual embeddings counted.
            vision: bool of the same lengths, where visual embeddings stand.
            visual: of all rows, in their order, `(places, visual_width)`; `encode` gives them. Of any dtype.
            pad_id: any id of the vocabulary.
        """
        words = self.decoder.token_embedding.weight
        ids, places = placed_prompts(rows, vision, pad_id, words.device)
        return PromptBatch(self.embed(ids.inputs, places, None if visual is None else visual.to(words)), ids.real)

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

    def imagine(
        self, prompts: PromptBatch, count: int, on_embedding: Callable[[int, int], None] | None = None
    ) -> Tensor:
        """Visual embeddings of a picture behind each prompt; see `generation.regression.imagine`."""
        return imagine(self, prompts, count, on_embedding)


def _is_spread(parameter: Tensor) -> bool:
    """Whether processes hold parts of it, so that all of them must read it together."""
    if world_size() == 1:
        return False
    from torch.distributed.tensor import DTensor  # imports torch's algebra, which takes seconds

    return isinstance(parameter, DTensor)
