"""The anchor head of Fast-BEV (arXiv 2301.12511): scores, boxes and directions of all anchors of a map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.bev.anchors import AnchorGrid
from multimodal_zoo.bev.box_coder import YawHalves, decode
from multimodal_zoo.bev.boxes import YAW
from multimodal_zoo.bev.head_maps import HeadMaps as HeadMaps
from multimodal_zoo.bev.head_maps import HeadRows, head_rows
from multimodal_zoo.bev.post_processing import BoxSelection, Detections
from multimodal_zoo.registry import BEV

#: What a new head takes the share of anchors with an object of a class for, so that training starts calmly (focal loss,
#: arXiv 1708.02002, section 4.1).
PRIOR = 0.01


class DecodedAnchors(NamedTuple):
    """Every anchor's box.

    Attributes:
        boxes: (batch, anchors of the map, 7 or 9), see `bev.boxes`.
        scores: (batch, anchors of the map, classes), in [0, 1].
    """

    boxes: Tensor
    scores: Tensor


@BEV.register_module(name="anchor_head")
class AnchorHead(nn.Module):
    """Three 1x1 convolutions: for each anchor of a cell logits of classes, a box, and the half of its yaw.

    Args:
        in_channels: channels of the map that it reads.
        classes: their names, in the order of the labels.
        anchors: what boxes are differences from (`anchor_grid`).
        selection: makes objects of the maps (`box_selection`).
        direction: the halves of the yaw (`yaw_halves`); None for a head that does not tell them.
    """

    def __init__(
        self,
        in_channels: int,
        classes: Sequence[str],
        anchors: AnchorGrid,
        selection: BoxSelection,
        direction: YawHalves | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.class_names = in_channels, tuple(classes)
        self.anchors, self.selection, self.direction = anchors, selection, direction
        self.classes = nn.Conv2d(in_channels, anchors.per_cell * len(self.class_names), 1)
        self.boxes = nn.Conv2d(in_channels, anchors.per_cell * anchors.code_size, 1)
        self.directions = nn.Conv2d(in_channels, anchors.per_cell * 2, 1) if direction is not None else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small normal kernels; biases 0, but those of the classes say `PRIOR`."""
        for layer in (self.classes, self.boxes, self.directions):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
        nn.init.constant_(self.classes.bias, -math.log(1 / PRIOR - 1))

    def forward(self, maps: Tensor) -> HeadMaps:
        """Maps `(batch, in_channels, x, y)` to those of the head, whose rows are y."""
        turned = maps.mT
        directions = None if self.directions is None else self.directions(turned)
        return HeadMaps(self.classes(turned), self.boxes(turned), directions)

    def rows(self, maps: HeadMaps) -> HeadRows:
        """Maps by anchor."""
        return head_rows(maps, self.anchors.per_cell)

    def decoded(self, maps: HeadMaps) -> DecodedAnchors:
        """All boxes and scores before any choice; `selection.chosen` makes objects of one sample's.

        Args:
            maps: of this head.
        """
        rows, precise = self.rows(maps), torch.promote_types(maps.boxes.dtype, torch.float32)
        boxes = decode(self.anchors.boxes(maps.size, maps.boxes.device, precise), rows.boxes.to(precise))
        if self.direction is not None and rows.directions is not None:
            yaw = self.direction.resolve(boxes[..., YAW], rows.directions.argmax(-1))
            boxes = torch.cat([boxes[..., :YAW], yaw[..., None], boxes[..., YAW + 1 :]], dim=-1)
        return DecodedAnchors(boxes, rows.classes.to(precise).sigmoid())

    def select(self, passes: Sequence[HeadMaps]) -> list[Detections]:
        """The objects of each sample, found in one or several passes over the same batch together."""
        return self.selection(passes, self.anchors, self.direction)
