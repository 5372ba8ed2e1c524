"""Relative positions of T5 (arXiv 1910.10683): a learned number for each head and each bucket of distances."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from multimodal_zoo.registry import ENCODERS


def bucket_of(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """The bucket of how far back a key lies.

    Half of the buckets hold one distance each; the others grow with the logarithm up to `max_distance`, and the last
    one holds everything beyond.

    Args:
        distance: long, any shape; keys ahead (below 0) count as the query's own place.
        buckets: number of buckets.
        max_distance: from here on all is one bucket.
    """
    distance = distance.clamp(min=0)
    exact = buckets // 2
    growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (buckets - exact)
    far = (exact + growth.long()).clamp(max=buckets - 1)
    return torch.where(distance < exact, distance, far)


@ENCODERS.register_module(name="relative_bias")
class RelativeBias(nn.Module):
    """What is added to the logits of causal self-attention for each distance from query to key.

    Args:
        heads: number of heads.
        buckets: number of buckets of distances.
        max_distance: distances from here on are one bucket.
        std: deviation of the first values.

    Raises:
        ValueError: fewer than two buckets, or a distance that they count one by one already.
    """

    def __init__(self, heads: int, buckets: int = 32, max_distance: int = 128, std: float = 0.02) -> None:
        super().__init__()
        if buckets < 2 or max_distance <= buckets // 2:
            raise ValueError(
                f"relative_bias has buckets={buckets} and max_distance={max_distance}; expected two buckets or more, "
                "and a distance above half of their number"
            )
        self.heads, self.max_distance, self.std = heads, max_distance, std
        self.weight = nn.Parameter(torch.empty(buckets, heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the values from a normal distribution."""
        nn.init.normal_(self.weight, std=self.std)

    def buckets(self, tokens: int) -> Tensor:
        """The bucket of each pair, long `(queries, keys)`, of a sequence."""
        places = torch.arange(tokens, device=self.weight.device)
        return bucket_of(places[:, None] - places[None, :], len(self.weight), self.max_distance)

    def forward(self, tokens: int) -> Tensor:
        """What is added for each pair of a sequence, `(1, heads, queries, keys)`; keys ahead are for a mask to hide."""
        return self.weight[self.buckets(tokens)].permute(2, 0, 1)[None]
