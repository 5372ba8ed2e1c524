"""Distance between predicted and true boxes, both as differences from an anchor."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.bev.box_coder import sine_difference
from multimodal_zoo.registry import OBJECTIVES


@OBJECTIVES.register_module(name="box_distance")
class BoxDistance(nn.Module):
    """Weighted smooth L1 over the numbers of a box; the yaw by the sine of its difference (SECOND, as in Fast-BEV).

    Args:
        weight: factor on all.
        beta: below this difference the distance is quadratic.
        number_weights: one for each number of a box; the published heads count velocities by 0.2.
        sine: compare yaws by the sine of their difference; False takes the plain difference.

    Raises:
        ValueError: a beta that is not positive.
    """

    def __init__(
        self,
        weight: float = 0.8,
        beta: float = 1 / 9,
        number_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2),
        sine: bool = True,
    ) -> None:
        super().__init__()
        if not beta > 0:
            raise ValueError(f"box.beta is {beta}; it must be above 0")
        self.weight, self.beta, self.sine = weight, beta, sine
        self.number_weights = tuple(float(one) for one in number_weights)

    def forward(self, predicted: Tensor, target: Tensor, counted: Tensor) -> Tensor:
        """Distances `(...)`, summed over the numbers of each box.

        Args:
            predicted: (..., 7 or 9), differences from anchors.
            target: the same, of the true boxes.
            counted: weight of each number, of a shape that broadcasts: 0 where the truth is not known.

        Raises:
            ValueError: boxes of another number of numbers than there are weights.
        """
        if predicted.shape[-1] != len(self.number_weights):
            raise ValueError(
                f"box.number_weights has {len(self.number_weights)} entries; boxes have {predicted.shape[-1]} numbers"
            )
        if self.sine:
            predicted, target = sine_difference(predicted, target)
        each = F.smooth_l1_loss(predicted, target, reduction="none", beta=self.beta)
        weights = counted * counted.new_tensor(self.number_weights)
        return self.weight * (each * weights).sum(-1)
