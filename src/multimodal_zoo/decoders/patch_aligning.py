"""The patch aligning layer of EVE (arXiv 2406.11832, section 3.1): from a decoder's states to a teacher's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.attention import attend
from multimodal_zoo.nn.masked_canvas import Box
from multimodal_zoo.nn.patch_cells import Grid
from multimodal_zoo.registry import DECODERS


@DECODERS.register_module(name="patch_aligning")
class PatchAligning(nn.Module):
    """Predicts a teacher's patch features from several layers of a decoder; for training only.

    The deepest tapped layer asks, the others answer, patch by patch: keys and values are one and the same projection of
    each, and the logits are divided by the root of the full width.

    Args:
        width: width of the decoder's states.
        teacher_width: width of the features.
        depth: blocks of the decoder.
        every: blocks from one tapped layer to the next, counted from the top.
        heads: heads of the attention over layers.

    Attributes:
        taps: the tapped layers, deepest first: 0 is the decoder's input, `depth` the states behind its last norm.

    Raises:
        ValueError: a depth that leaves one layer only, or a width that the heads do not divide.
    """

    def __init__(self, width: int, teacher_width: int, depth: int, every: int = 4, heads: int = 8) -> None:
        super().__init__()
        self.taps = list(range(depth, -1, -every)) if every > 0 else []
        if len(self.taps) < 2 or teacher_width % heads:
            raise ValueError(
                f"model.aligner: depth {depth} with every={every} must leave two layers or more, and teacher_width "
                f"{teacher_width} must be a multiple of heads {heads}"
            )
        self.width, self.teacher_width, self.depth, self.heads = width, teacher_width, depth, heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.taps)
        self.projections = nn.ModuleList(nn.Linear(width, teacher_width, bias=False) for _ in self.taps)
        self.input_layer = nn.Linear(width, teacher_width)
        self.output_layer = nn.Linear(teacher_width, teacher_width)

    def projected(self, tapped: Sequence[Tensor]) -> Tensor:
        """Each tapped layer in the teacher's width, `(patches, layers, teacher_width)`."""
        parts = zip(self.projections, self.norms, tapped, strict=True)
        return torch.stack([project(norm(states)) for project, norm, states in parts], 1)

    def forward(self, tapped: Sequence[Tensor]) -> Tensor:
        """Predicted features `(patches, teacher_width)`.

        Args:
            tapped: states of the layers `taps`, deepest first, each (patches, width).
        """
        layers = self.projected(tapped).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (patches, heads, layers, dim)
        query, rest = layers[:, :, :1], layers[:, :, 1:]
        mixed = attend(query, rest, rest, scale=self.teacher_width**-0.5)
        return self.input_layer(tapped[0]) + self.output_layer(mixed.flatten(1))


def cells_per_patch(grids: Sequence[Grid], boxes: Sequence[Box]) -> list[int]:
    """Cells per side of a teacher's patch, of each picture.

    Args:
        grids: rows and columns of cells of each picture.
        boxes: the teacher's patches that show it.

    Raises:
        ValueError: a picture whose grid is no multiple of its box.
    """
    ratios = []
    for (rows, columns), (_, _, high, wide) in zip(grids, boxes, strict=True):
        if rows % high or columns % wide or rows // high != columns // wide:
            raise ValueError(
                f"a picture of {rows} x {columns} cells shows {high} x {wide} patches to the teacher: expected a "
                "multiple, the same for both sides"
            )
        ratios.append(rows // high)
    return ratios


def patch_places(vision: Tensor, grids: Sequence[Grid], ratios: Sequence[int]) -> Tensor:
    """Where the cells under each of the teacher's patches stand in a flat batch, long (patches, ratio^2).

    Class and split tokens are left out.

    Args:
        vision: bool (batch, tokens), where tokens of pictures stand, in the order of `grids`.
        grids: rows and columns of cells of each picture.
        ratios: cells per side of a teacher's patch of each picture; all alike.

    Raises:
        ValueError: ratios that differ, or that do not divide a grid.
    """
    ratio = ratios[0] if len(set(ratios)) == 1 else 0
    parts, start = [], 0
    for rows, columns in grids:
        if not ratio or rows % ratio or columns % ratio:
            raise ValueError(f"grids {list(grids)} with {list(ratios)} cells per side of a teacher's patch do not fit")
        numbers = start + 1 + torch.arange(rows * (columns + 1)).reshape(rows, columns + 1)[:, :columns]
        cut = numbers.reshape(rows // ratio, ratio, columns // ratio, ratio).permute(0, 2, 1, 3)
        parts.append(cut.reshape(-1, ratio**2))
        start += 1 + rows * (columns + 1)
    places = vision.flatten().nonzero(as_tuple=True)[0]
    return places[torch.cat(parts).to(places.device)]


class Taps:
    """Keeps of a decoder's states what the aligning layer needs: some layers, at pictures only.

    Args:
        layers: the tapped layers, deepest first.
        places: long (patches, cells), of `patch_places`.
    """

    def __init__(self, layers: Sequence[int], places: Tensor) -> None:
        self.layers, self.places = list(layers), places
        self._kept: dict[int, Tensor] = {}

    def __call__(self, passed: int, stream: Tensor) -> None:
        """Keep the mean of the cells of each patch, where a layer is tapped."""
        if passed in self.layers:
            cells = stream.flatten(0, 1).index_select(0, self.places.flatten())
            self._kept[passed] = cells.unflatten(0, self.places.shape).mean(1)

    def tapped(self) -> list[Tensor]:
        """The states of the layers, deepest first, each (patches, width)."""
        return [self._kept[layer] for layer in self.layers]
