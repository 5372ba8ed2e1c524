"""Key frames drawn so that rare classes come as often as frequent ones: CBGS (arXiv 1908.09492)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal_zoo.data.camera_truth import kept_objects
from multimodal_zoo.data.randomness import torch_random
from multimodal_zoo.registry import DATASETS

#: (number of candidates, number of draws) -> places of what is drawn, with replacement.
Draw = Callable[[int, int], Sequence[int]]


def picks_per_class(presence: np.ndarray) -> list[int]:
    """How many key frames each class contributes: about the same for all, `total / classes`.

    Args:
        presence: bool (key frames, classes), which classes a key frame holds.
    """
    counts = presence.sum(axis=0).tolist()
    total, share = sum(counts), 1.0 / presence.shape[1]
    return [int(n * (share / (n / total))) if n else 0 for n in counts]


def balanced_indices(presence: np.ndarray, draw: Draw) -> list[int]:
    """Key frames of an epoch, class by class.

    Args:
        presence: bool (key frames, classes).
        draw: chooses among the key frames of one class.
    """
    found: list[int] = []
    for number, picks in enumerate(picks_per_class(presence)):
        candidates = np.flatnonzero(presence[:, number])
        if picks:
            found += candidates[np.asarray(draw(len(candidates), picks))].tolist()
    return found


@DATASETS.register_module(name="balanced_order")
class BalancedOrder:
    """The same key frames in every epoch, drawn class by class, in another order each time.

    They depend on `seed` alone, so that all processes see one list; the published code draws one for each process.

    Args:
        classes: that are balanced.
        seed: of the draw.
        keep: which objects count, as in `box_truth`.
        redraw: whether each epoch draws key frames of its own.
    """

    def __init__(self, classes: Sequence[str], seed: int = 0, keep: str = "lidar_points", redraw: bool = False) -> None:
        self.classes, self.seed, self.keep, self.redraw = tuple(classes), seed, keep, redraw

    def __call__(self, reader: Any, generator: torch.Generator) -> Tensor:
        """Long, numbers of key frames.

        Raises:
            ValueError: a reader without key frames, or no object of any class.
        """
        infos = getattr(reader, "infos", None)
        if infos is None:
            raise ValueError(f"data.order: balanced_order needs key frames, which {type(reader).__name__} has none of")
        presence = self.presence(infos)
        if not presence.any():
            raise ValueError(f"data.order: none of {len(infos)} key frames holds an object of {list(self.classes)}")
        drawing = generator if self.redraw else torch_random(self.seed)
        drawn = balanced_indices(
            presence, lambda count, picks: torch.randint(count, (picks,), generator=drawing).tolist()
        )
        return torch.tensor(drawn)[torch.randperm(len(drawn), generator=generator)]

    def presence(self, infos: Sequence[Any]) -> np.ndarray:
        """Bool (key frames, classes): which of them hold an object that is learnt."""
        found = np.zeros((len(infos), len(self.classes)), dtype=bool)
        places = {name: number for number, name in enumerate(self.classes)}
        for row, info in enumerate(infos):
            if info.objects is None:
                continue
            kept = kept_objects(info.objects, self.keep)
            for name, one in zip(info.objects.names, kept, strict=True):
                if one and name in places:
                    found[row, places[name]] = True
        return found
