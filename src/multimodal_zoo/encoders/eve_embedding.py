"""How EVE turns pixels into tokens of a decoder without an image encoder (arXiv 2406.11832 and 2502.06788)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.encoders.dual_encoder import normed_patches
from multimodal_zoo.encoders.image_tokens import token_width
from multimodal_zoo.nn.attention import attend
from multimodal_zoo.nn.masks import Padding
from multimodal_zoo.nn.patch_cells import Grid, PatchCells, rows_closed
from multimodal_zoo.nn.patches import PatchEmbedding
from multimodal_zoo.registry import ENCODERS


def check_cells(cells: PatchCells, patch: int, window: int) -> None:
    """Refuse pictures that are cut in another way than the weights expect.

    Raises:
        ValueError: with the keys that must agree.
    """
    if (cells.patch, cells.window) != (patch, window):
        raise ValueError(
            f"pictures are cut into patches of {cells.patch} pixels and cells of {cells.window} patches, "
            f"model.vision_embedding expects {patch} and {window}: make model.processor.images agree"
        )


def blank_cells(like: Tensor, patch: int, window: int, side: int = 1) -> PatchCells:
    """A picture of nothing, which gives a layer a gradient of zero where a batch has no picture.

    Args:
        like: of the device and type wanted.
        patch: side of a patch, in pixels.
        window: side of a cell, in patches.
        side: rows and columns of cells.
    """
    return PatchCells(like.new_zeros(side**2, window**2, 3 * patch**2), ((side, side),), patch, window)


class PooledAttention(nn.Module):
    """One query reads several keys: `query + proj(attention(norm query, norm keys))`.

    The logits are divided by the root of the full width, not of a head's, and the residual is the query itself. Since
    one query alone reads a key, the maps to keys and values act on the query and on the mean that it takes, not on
    every key: (W k) q is k (W^T q).

    Args:
        width: width of queries and keys.
        heads: number of heads.
        eps: of both norms.
    """

    reads_weights_of = ("key_value",)

    def __init__(self, width: int, heads: int, eps: float = 1e-5) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"vision_embedding.width {width} is no multiple of its heads, {heads}")
        self.width, self.heads = width, heads
        self.query_norm, self.key_norm = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, query: Tensor, keys: Tensor, real: Tensor | None = None) -> Tensor:
        """From queries (n, width) and keys (n, keys, width) to (n, width).

        Args:
            query: one for each set of keys.
            keys: what it reads.
            real: bool (n, keys), False at padding; None where there is none.
        """
        keys = self.key_norm(keys)[:, None]  # (n, 1, keys, width)
        to_key, to_value = self.key_value.weight.unflatten(0, (2, self.heads, -1))  # (heads, head_dim, width)
        asked = self.query(self.query_norm(query)).unflatten(-1, (self.heads, -1))
        asked = torch.einsum("nhd,hdw->nhw", asked, to_key)[:, None]
        mask = None if real is None else Padding(real)
        mixed = attend(asked, keys, keys, mask=mask, scale=self.width**-0.5)[:, 0]  # (n, heads, width)
        return query + self.proj(torch.einsum("nhw,hdw->nhd", mixed, to_value).flatten(1))


@ENCODERS.register_module(name="eve_patch_embedding")
class EvePatchEmbedding(nn.Module):
    """The patch embedding layer of EVE (arXiv 2406.11832, section 3.1), projector included.

    Patches are embedded, each cell's mean reads the patches of the cell, a class token reads all cells of its picture,
    a split token closes every row, and two layers project everything to the decoder's width. There are no positions.

    Args:
        width: width of the decoder's tokens.
        hidden: width of the patches.
        patch: side of a patch, in pixels.
        window: side of a cell, in patches.
        heads: heads of both attentions.
    """

    #: Parts that are used without being called, so that a placement keeps them on the first device.
    reads_weights_of = ("patches",)

    def __init__(self, width: int, hidden: int, patch: int, window: int, heads: int = 8) -> None:
        super().__init__()
        self.width, self.hidden, self.patch, self.window = width, hidden, patch, window
        self.patches = PatchEmbedding(hidden, patch, bias=False)
        self.local_attention = PooledAttention(hidden, heads)
        self.global_attention = PooledAttention(hidden, heads)
        self.class_token = nn.Parameter(torch.empty(hidden))
        self.split_token = nn.Parameter(torch.empty(hidden))
        self.projector = nn.Sequential(nn.Linear(hidden, width), nn.GELU(), nn.Linear(width, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both tokens from a standard normal distribution; layers have torch's own rules."""
        nn.init.normal_(self.class_token)
        nn.init.normal_(self.split_token)

    def blank(self, like: Tensor) -> PatchCells:
        """See `blank_cells`."""
        return blank_cells(like, self.patch, self.window)

    def pooled(self, cells: PatchCells) -> Tensor:
        """Cells after the local attention, `(cells, hidden)`."""
        check_cells(cells, self.patch, self.window)
        patches = F.linear(cells.pixels, self.patches.weight.flatten(1))  # (cells, window^2, hidden)
        return self.local_attention(patches.mean(1), patches)

    def class_tokens(self, pooled: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        """One for each picture, `(pictures, hidden)`, of its cells `(cells, hidden)`."""
        sizes = [rows * columns for rows, columns in grids]
        keys = nn.utils.rnn.pad_sequence(list(pooled.split(sizes)), batch_first=True)
        real = None
        if len(set(sizes)) > 1:
            counts = torch.tensor(sizes, device=pooled.device)
            real = torch.arange(keys.shape[1], device=pooled.device) < counts[:, None]
        return self.global_attention(self.class_token.expand(len(grids), -1), keys, real)

    def unprojected(self, cells: PatchCells) -> Tensor:
        """Tokens before the projector, `(tokens, hidden)`."""
        pooled = self.pooled(cells)
        return rows_closed(pooled, cells.grids, self.class_tokens(pooled, cells.grids), self.split_token)

    def forward(self, cells: PatchCells) -> Tensor:
        """Tokens of all pictures, one behind the other, `(tokens, width)`."""
        return self.projector(self.unprojected(cells))


@ENCODERS.register_module(name="eve_direct_embedding")
class EveDirectEmbedding(nn.Module):
    """The patch embedding layer of EVE v2 (arXiv 2502.06788): two strided maps with a GELU between them.

    Class and split tokens have the decoder's width at once; there is no projector, norm or position.

    Args:
        width: width of the decoder's tokens.
        hidden: width of the patches.
        patch: side of a patch, in pixels.
        window: side of a cell, in patches.
    """

    #: Parts that are used without being called, so that a placement keeps them on the first device.
    reads_weights_of = ("patches", "cells")

    def __init__(self, width: int, hidden: int, patch: int, window: int) -> None:
        super().__init__()
        self.width, self.hidden, self.patch, self.window = width, hidden, patch, window
        self.patches = PatchEmbedding(hidden, patch, bias=True)
        self.cells = PatchEmbedding(width, window, bias=True, channels=hidden)
        self.class_token = nn.Parameter(torch.empty(width))
        self.split_token = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both tokens from a standard normal distribution; layers have torch's own rules."""
        nn.init.normal_(self.class_token)
        nn.init.normal_(self.split_token)

    def blank(self, like: Tensor) -> PatchCells:
        """See `blank_cells`."""
        return blank_cells(like, self.patch, self.window)

    def embedded(self, cells: PatchCells) -> Tensor:
        """Patches before the GELU, `(cells, window^2, hidden)`."""
        check_cells(cells, self.patch, self.window)
        return F.linear(cells.pixels, self.patches.weight.flatten(1), self.patches.bias)

    def forward(self, cells: PatchCells) -> Tensor:
        """Tokens of all pictures, one behind the other, `(tokens, width)`."""
        patches = F.gelu(self.embedded(cells))
        weight = self.cells.weight.flatten(2).transpose(1, 2).flatten(1)  # (width, window^2 * hidden)
        pooled = F.linear(patches.flatten(1), weight, self.cells.bias)
        return rows_closed(pooled, cells.grids, self.class_token, self.split_token)


@ENCODERS.register_module(name="encoder_embedding")
class EncoderEmbedding(nn.Module):
    """Tokens of an image encoder, projected by two layers: the way that EVE does without (LLaVA-1.5, arXiv 2310.03744).

    The encoder takes square pictures of one size; its patches are the cells, and class and split tokens are learned, so
    that every part of a model that takes EVE's tokens takes these too.

    Args:
        width: width of the decoder's tokens.
        encoder: any image encoder.
        patch: side of a patch of the encoder, in pixels.
        frozen: whether the encoder stays as it is.
    """

    window = 1

    def __init__(self, width: int, encoder: nn.Module, patch: int, frozen: bool = True) -> None:
        super().__init__()
        self.width, self.encoder, self.patch, self.frozen = width, encoder, patch, frozen
        if frozen:
            encoder.requires_grad_(False)
        self.class_token = nn.Parameter(torch.empty(width))
        self.split_token = nn.Parameter(torch.empty(width))
        self.projector = nn.Sequential(nn.Linear(token_width(encoder), width), nn.GELU(), nn.Linear(width, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both tokens from a standard normal distribution; layers have torch's own rules."""
        nn.init.normal_(self.class_token)
        nn.init.normal_(self.split_token)

    def train(self, mode: bool = True) -> EncoderEmbedding:
        """Change the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def blank(self, like: Tensor) -> PatchCells:
        """See `blank_cells`; of the size that the encoder takes."""
        return blank_cells(like, self.patch, self.window, int(self.encoder.image_size) // self.patch)

    def forward(self, cells: PatchCells) -> Tensor:
        """Tokens of all pictures, one behind the other, `(tokens, width)`.

        Raises:
            ValueError: pictures of several sizes, or an encoder whose grid is not that of the cells.
        """
        check_cells(cells, self.patch, self.window)
        if len(set(cells.grids)) > 1:
            raise ValueError(f"encoder_embedding takes pictures of one size, not grids {sorted(set(cells.grids))}")
        patches, grid = normed_patches(self.encoder, torch.stack(cells.images()))
        if tuple(grid) != cells.grids[0]:
            raise ValueError(
                f"the encoder's grid is {tuple(grid)}, the pictures' {cells.grids[0]}: set "
                "model.vision_embedding.patch and model.processor.images to the encoder's patch size"
            )
        tokens = self.projector(patches.flatten(0, 1))
        return rows_closed(tokens, cells.grids, self.class_token, self.split_token)
