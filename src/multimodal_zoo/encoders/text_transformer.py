"""CLIP's text tower: a causal transformer, read at the end token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.encoders.outputs import TextFeatures
from multimodal_zoo.encoders.text_packing import Packing, locate, pack_texts
from multimodal_zoo.nn.checks import outside
from multimodal_zoo.nn.masks import Causal, Document, pick
from multimodal_zoo.nn.regularize import DropPath
from multimodal_zoo.registry import ENCODERS

#: Batches with a smaller share of real tokens are packed.
_FULL = 0.9


def end_positions(ids: Tensor) -> Tensor:
    """Place of the largest id in each row, the first one if it occurs twice: the end token, `(batch,)`."""
    tokens = ids.shape[1]
    earlier_wins = ids * tokens + torch.arange(tokens - 1, -1, -1, device=ids.device)
    return earlier_wins.argmax(dim=-1)


def check_ids(ids: Tensor, context_length: int, vocab_size: int) -> None:
    """Refuse ids that a text tower cannot read.

    Args:
        ids: `(batch, tokens)`.
        context_length: most tokens of a text.
        vocab_size: number of ids.

    Raises:
        TypeError: texts that are no ids yet.
        ValueError: texts longer than the context, or ids outside the vocabulary. Values are looked at on a CPU only.
    """
    if not isinstance(ids, Tensor):
        raise TypeError(f"ids: expected a tensor, got {type(ids).__name__}; the model's processor.texts makes one")
    if ids.dim() != 2 or ids.shape[1] > context_length or ids.is_floating_point():
        raise ValueError(
            f"ids are {ids.dtype} of shape {tuple(ids.shape)}; expected integers (batch, tokens) with at most "
            f"{context_length} tokens (text.context_length)"
        )
    if (run := outside(ids, vocab_size)) is not None:
        raise ValueError(
            f"ids run from {run[0]} to {run[1]}; text.vocab_size is {vocab_size}: the tokenizer does not belong to "
            "this tower"
        )


def filled(tower: nn.Module, ids: Tensor) -> Tensor:
    """Ids `(batch, tokens)` up to the context of a text tower, with what stands behind a text there.

    Longer ones stay as they are, for the tower to refuse.
    """
    missing = max(0, int(tower.context_length) - ids.shape[1])
    return F.pad(ids, (0, missing), value=int(getattr(tower, "pad_id", 0)))


@ENCODERS.register_module(name="clip_text_transformer")
class ClipTextTransformer(nn.Module):
    """The text tower of CLIP (arXiv 2103.00020, section 2.4).

    Attention is causal, so what stands behind the end token changes nothing: a batch may be trimmed to its longest text
    and gives exactly what the padded batch gives.

    Args:
        width: width of the tokens.
        context_length: most tokens per text.
        vocab_size: number of ids; the end token has the largest id of a text.
        blocks: the stack (`transformer`).
        norm: norm after the last block.
        token_std: deviation of the first token embeddings.
        position_std: deviation of the first positions.
    """

    def __init__(
        self,
        width: int,
        context_length: int,
        vocab_size: int,
        blocks: nn.Module,
        norm: nn.Module,
        token_std: float = 0.02,
        position_std: float = 0.01,
    ) -> None:
        super().__init__()
        if blocks.width != width:
            raise ValueError(f"clip_text_transformer.blocks has width {blocks.width}, the tower has width {width}")
        self.width, self.context_length, self.vocab_size = width, context_length, vocab_size
        self.token_std, self.position_std = token_std, position_std
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.positions = nn.Parameter(torch.empty(context_length, width))
        self.blocks, self.norm = blocks, norm
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw embeddings and positions from normal distributions."""
        nn.init.normal_(self.token_embedding.weight, std=self.token_std)
        nn.init.normal_(self.positions, std=self.position_std)

    def check(self, ids: Tensor) -> None:
        """Refuse ids that the tower cannot read; raises as `check_ids`."""
        check_ids(ids, self.context_length, self.vocab_size)

    def embed(self, ids: Tensor) -> Tensor:
        """What the first block gets, `(batch, tokens, width)`."""
        self.check(ids)
        return self.token_embedding(ids) + self.positions[: ids.shape[1]]

    def pooled(self, ids: Tensor) -> Tensor:
        """What `forward(ids).pooled` is, without computing tokens in the last block that nothing reads.

        On a CPU, texts of different lengths are packed into full rows, so that nothing behind an end token is computed
        either: the same sums, in another order. An accelerator would have to wait for the lengths, and stochastic depth
        would drop a branch for all texts of a row.
        """
        self.check(ids)
        end = end_positions(ids)
        packing = self._packing(ids, end + 1)
        if packing is not None:
            ends = self._packed(ids, packing, packing.last)
            return self.norm(ends.flatten(0, 1)[packing.order])
        return self.norm(self.blocks(self.embed(ids), mask=Causal(), places=end[:, None]))[:, 0]

    def chosen(self, ids: Tensor, wanted: Tensor) -> Tensor:
        """What `forward(ids).tokens[wanted]` is: chosen tokens text by text, `(chosen, width)`.

        On a CPU, nothing behind the last chosen token of a text is computed, nor what nothing reads in the last block.

        Args:
            ids: `(batch, tokens)`.
            wanted: `(batch, tokens)` bool.
        """
        self.check(ids)
        lengths = (wanted * torch.arange(1, ids.shape[1] + 1, device=ids.device)).amax(1).clamp_min(1)
        packing = self._packing(ids, lengths)
        if packing is None:
            return self.norm(self.blocks(self.embed(ids), mask=Causal())[wanted])
        places, order = locate(packing, wanted)
        return self.norm(self._packed(ids, packing, places).flatten(0, 1)[order])

    def _packing(self, ids: Tensor, lengths: Tensor) -> Packing | None:
        """How the first tokens of each text are packed; None where that cannot be or would not pay."""
        recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if ids.device.type != "cpu" or not ids.numel() or recorded or self._drops_branches():
            return None
        counted = lengths.tolist()
        if not 0 < sum(counted) < _FULL * ids.numel():  # 0: a plan is made, with ids that have no values
            return None
        return pack_texts(counted, ids.shape[1], self.context_length)

    def _drops_branches(self) -> bool:
        return self.training and any(isinstance(m, DropPath) and m.rate > 0 for m in self.blocks.modules())

    def _packed(self, ids: Tensor, packing: Packing, places: Tensor) -> Tensor:
        tokens = self.token_embedding(ids.flatten()[packing.source]) + self.positions[packing.places]
        return self.blocks(tokens, mask=Causal() & Document(packing.texts), places=places)

    def forward(self, ids: Tensor) -> TextFeatures:
        """Features of token ids `(batch, tokens)`, start to end, padded with any smaller id."""
        tokens = self.norm(self.blocks(self.embed(ids), mask=Causal()))  # ids (batch, tokens)
        places, end = torch.arange(ids.shape[1], device=ids.device), end_positions(ids)
        return TextFeatures(pick(tokens, end[:, None])[:, 0], tokens, places <= end[:, None])
