"""The causal language model of the LLaMA family (arXiv 2302.13971): LLaMA, Qwen2, SmolLM2, Emu3."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.accumulate import TokenEmbedding
from multimodal_zoo.nn.cache import KVCache
from multimodal_zoo.nn.checks import may_look
from multimodal_zoo.nn.decoupled import DecoupledBlock
from multimodal_zoo.nn.linear import for_decoding, linear
from multimodal_zoo.nn.masks import Causal, Mask, resolve
from multimodal_zoo.nn.regularize import check_rate
from multimodal_zoo.nn.route import Route
from multimodal_zoo.nn.transformer import Observer
from multimodal_zoo.registry import DECODERS


@DECODERS.register_module(name="causal_decoder")
class CausalDecoder(nn.Module):
    """Token embeddings, a stack of causal blocks with rotary positions, a norm and an output layer.

    The families differ in the parts that it is given: biases of `qkv`, grouped queries, dropout, tied matrices.

    Args:
        width: width of the tokens.
        vocab_size: number of ids.
        max_positions: most tokens of a sequence.
        blocks: the stack (`transformer`), whose attention has a `qkv` with `kv_heads` and `head_dim`.
        norm: norm after the last block.
        rotary: positions (`rotary_1d`).
        tied: whether the output layer is the matrix of token embeddings.
        pad_id: id whose embedding is zero and stays so; None for no such id.
        embedding_dropout: probability of zeroing an element of a token embedding while training.
        std: deviation of the first embeddings and of the output layer.

    Raises:
        ValueError: parts of different widths, or a padding id that is none of the vocabulary.
    """

    #: Parts that are used without being called, so that a placement keeps them on the first device.
    reads_weights_of = ("token_embedding", "output")

    def __init__(
        self,
        width: int,
        vocab_size: int,
        max_positions: int,
        blocks: nn.Module,
        norm: nn.Module,
        rotary: nn.Module,
        tied: bool = False,
        pad_id: int | None = None,
        embedding_dropout: float = 0.0,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        for name, part in (("blocks", blocks), ("norm", norm)):
            if part.width != width:
                raise ValueError(f"causal_decoder.{name} has width {part.width}, the decoder has width {width}")
        if pad_id is not None and not 0 <= pad_id < vocab_size:
            raise ValueError(
                f"model.decoder.pad_id is {pad_id}, model.decoder.vocab_size is {vocab_size}; expected one of these "
                "ids, or null"
            )
        self.width, self.vocab_size, self.max_positions, self.std = width, vocab_size, max_positions, std
        self.token_embedding = TokenEmbedding(vocab_size, width, pad_id)
        self.embedding_dropout = nn.Dropout(check_rate(embedding_dropout, "decoder.embedding_dropout"))
        self.blocks, self.norm, self.rotary = blocks, norm, rotary
        self.output = None if tied else nn.Linear(width, vocab_size, bias=False)
        for_decoding(self.blocks)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both matrices from a normal distribution; the padding row is zero."""
        for part in (self.token_embedding, self.output):
            if part is not None:
                nn.init.normal_(part.weight, std=self.std)
        if self.token_embedding.padding_idx is not None:
            with torch.no_grad():
                self.token_embedding.weight[self.token_embedding.padding_idx].zero_()

    @property
    def head_weight(self) -> Tensor:
        """The matrix of the output layer, `(vocab_size, width)`."""
        return self.token_embedding.weight if self.output is None else self.output.weight

    @property
    def decoupled(self) -> bool:
        """Whether tokens of pictures have weights of their own."""
        return any(isinstance(layer, DecoupledBlock) for layer in self.blocks.layers)

    def cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache for `batch` rows of at most `capacity` tokens, of the weights' device and type.

        Raises:
            ValueError: more tokens than positions.
        """
        self._check_length(capacity)
        qkv = self.blocks.layers[0].attention.qkv
        weight = self.token_embedding.weight
        sizes = (len(self.blocks.layers), batch, qkv.kv_heads, capacity, qkv.head_dim)
        return KVCache(*sizes, device=weight.device, dtype=weight.dtype)

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings of ids `(batch, tokens)`, `(batch, tokens, width)`.

        Raises:
            ValueError: ids outside the vocabulary; looked at on a CPU only.
        """
        try:
            return self.token_embedding(ids)
        except IndexError as error:
            low, high = (int(value) for value in ids.aminmax())
            raise ValueError(f"ids run from {low} to {high}; decoder.vocab_size is {self.vocab_size}") from error

    def forward(
        self,
        inputs: Tensor,
        *,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        mask: Mask | None = None,
        places: Tensor | None = None,
        vision: Tensor | None = None,
        observe: Observer | None = None,
    ) -> Tensor:
        """Hidden states after the last norm, `(batch, tokens, width)`; `head` makes logits of them.

        Args:
            inputs: ids `(batch, tokens)`, or embeddings `(batch, tokens, width)`.
            cache: keys and values of earlier tokens; those of `inputs` are added to it.
            positions: `(tokens,)` or `(batch, tokens)`; None counts on from the cache.
            mask: forbids more than the causal order does (padding, other documents); it describes all keys, those of
                the cache too.
            places: `(batch, n)`, the tokens whose states are wanted, `(batch, n, width)`; None for all.
            vision: bool `(batch, tokens)`, the tokens of pictures, for blocks with weights of their own for these
                (`decoupled_block`); None: all are text. Other blocks treat all tokens alike.
            observe: called with the number of blocks passed and the stream behind them, from 0 (the input) on; the last
                call has the number of all blocks and the states behind the norm.

        Raises:
            ValueError: ids outside the vocabulary, or positions beyond `max_positions`.
        """
        stored, tokens = (0 if cache is None else len(cache)), inputs.shape[1]
        if positions is None:
            self._check_length(stored + tokens)
            positions = torch.arange(stored, stored + tokens, device=inputs.device)
        elif may_look(positions):
            self._check_length(int(positions.max()) + 1)
        states = inputs if inputs.is_floating_point() else self.embed(inputs)
        states = self.embedding_dropout(states)
        seen: Mask = Causal(stored)
        if mask is not None:
            seen = seen & mask
            if cache is not None:  # decoding: made once, not once for every layer
                seen = resolve(seen, tokens, stored + tokens, states.device)
        states = self.blocks(
            states,
            mask=seen,
            rotation=self.rotary(positions),
            cache=cache,
            places=places,
            route=Route.of(vision) if vision is not None and self.decoupled else None,
            observe=None if observe is None else _up_to(len(self.blocks.layers), observe),
        )
        states = self.norm(states)
        if observe is not None:
            observe(len(self.blocks.layers), states)
        return states

    def head(self, hidden: Tensor, rows: slice | Tensor | None = None) -> Tensor:
        """Logits of hidden states `(..., width)` in float32, `(..., vocab_size)`, or of some ids alone.

        Args:
            hidden: from `forward`.
            rows: the ids whose logits are wanted, a range (a view of the matrix) or long `(n,)`; None for all.
        """
        weight = self.head_weight if rows is None else self.head_weight[rows]
        return linear(hidden, weight).float()

    def _check_length(self, tokens: int) -> None:
        if tokens > self.max_positions:
            raise ValueError(f"a sequence of {tokens} tokens; decoder.max_positions is {self.max_positions}")


def require_one_branch(decoder: nn.Module, model: str) -> None:
    """Refuse a decoder with weights of its own for pictures where nothing says which tokens these are.

    Args:
        decoder: of a model that treats all tokens alike.
        model: the model's type, for the error.

    Raises:
        ValueError: some of its weights would never be used.
    """
    if getattr(decoder, "decoupled", False):
        raise ValueError(
            f"model.decoder has weights of their own for pictures, which only an EVE uses (decoupled_block), and "
            f"model.type is {model}: choose a plain decoder@model.decoder, qwen2_5_7b say"
        )


def _up_to(depth: int, observe: Observer) -> Observer:
    """The observer of the blocks: the stream behind the last of them is of no use without the norm."""

    def watch(passed: int, stream: Tensor) -> None:
        """Hand on all but the last."""
        if passed < depth:
            observe(passed, stream)

    return watch
