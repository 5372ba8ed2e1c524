"""Telling the batch that ends an optimiser step from those that only add to its gradients."""

from __future__ import annotations

import lightning


class StepEnds:
    """For callbacks that act once behind each optimiser step, whatever `trainer.accumulate_grad_batches` is."""

    def __init__(self) -> None:
        self._step = -1

    def begin(self, trainer: lightning.Trainer) -> None:
        """Training starts; what a checkpoint holds is over."""
        self._step = trainer.global_step

    def over(self, trainer: lightning.Trainer) -> bool:
        """Whether a step has ended since this was last asked; for `on_train_batch_end`."""
        if trainer.global_step == self._step:
            return False
        self._step = trainer.global_step
        return True
