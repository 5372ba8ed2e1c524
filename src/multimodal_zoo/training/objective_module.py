"""Training with one objective as a LightningModule: it calls the objective and logs what it returns.

Contrastive learning needs no more, nor does masked image modelling (the model is a masked student, the objective holds
the teacher) or next-token prediction (the model is a causal decoder).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from multimodal_zoo.nn.processes import summed, world_size
from multimodal_zoo.nn.shared_norm import SharedBatchNorm
from multimodal_zoo.objectives.batch import (
    ImageTextBatch,
    MaskedImageBatch,
    MultiViewBatch,
    PixelBatch,
    PreferenceBatch,
    TokenBatch,
)
from multimodal_zoo.objectives.detection_batch import DetectionBatch
from multimodal_zoo.training.accumulation import Window
from multimodal_zoo.training.clipping import clip_gradients
from multimodal_zoo.training.groups import ParameterRules, by_names
from multimodal_zoo.training.idle import report_idle
from multimodal_zoo.training.rank_state import rank_buffers
from multimodal_zoo.training.schedule import Schedule, scheduler
from multimodal_zoo.training.sharding import inside, is_sharded, settle, shard

log = logging.getLogger(__name__)

#: parameter groups -> optimiser
OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]
#: What an objective takes: anything with a length, the number of its samples.
Batch = ImageTextBatch | MultiViewBatch | MaskedImageBatch | TokenBatch | PreferenceBatch | PixelBatch | DetectionBatch


class ObjectiveModule(lightning.LightningModule):
    """Trains a model with any objective of one batch: a dual encoder on pairs or views, a causal decoder on tokens.

    With `trainer.accumulate_grad_batches=k` a step averages the gradients of k batches (fewer at the end of an epoch),
    or weighs them by the entry `loss_weight` of the objective where it has one, so that they are those of one large
    batch. Pairs of different
    batches do not see each other as negatives; for one large batch with all its negatives give the objective a chunk
    size instead.

    Args:
        model: what trains: a dual encoder, a masked student, a multimodal decoder, a visual tokenizer.
        objective: called as `objective(model, batch)`; its entry `loss` is back-propagated, all entries are logged. A
            method `check(model)` refuses a model that does not suit it. Buffers that a part of it names in
            `rank_buffers` are each process's own.
        rules: which parameters train, and how.
        optimizer: makes the optimiser from parameter groups.
        lr: learning rate of the parameters that no tower of `rules` holds.
        weight_decay: weight decay of the same.
        schedule: factor on the learning rates at a step.
        config: the recipe as a plain dict, stored in every checkpoint as a hyper-parameter.
        start: computes the start values of a model whose matrices are on `meta`; None where all are there.

    Raises:
        ValueError: a model that lacks what the objective needs, with the configuration key.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: nn.Module,
        rules: ParameterRules,
        optimizer: OptimizerFactory,
        lr: float,
        weight_decay: float,
        schedule: Schedule,
        config: Mapping[str, Any],
        start: Callable[[str], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if callable(check := getattr(objective, "check", None)):
            check(model)
        self.model = model
        self.objective = objective
        self.rules = rules
        self.make_optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.start = start
        self.save_hyperparameters({"config": dict(config)}, logger=False)
        self.frozen = self.rules.freeze(self.trainable_names())
        if self.frozen:
            self._settle_frozen()  # Lightning itself does not call `train` before the first step
        # read by DistributedDataParallel, which would send every process those of the first
        apart = (*rank_buffers(objective), *rank_buffers(objective, "alike_buffers"))
        self._ddp_params_and_buffers_to_ignore = [f"objective.{name}" for name in apart]
        self._idle_reported = False
        self._window: Window | None = None
        #: called with the norm of each step's gradient before clipping
        self.gradient_watchers: list[Callable[[Tensor], None]] = []

    def trainable_names(self) -> dict[str, nn.Parameter]:
        """The parameters as the rules name them: the model's by their own names, the objective's with a prefix."""
        ours = {f"objective.{name}": parameter for name, parameter in self.objective.named_parameters()}
        return {**dict(self.model.named_parameters()), **ours}

    def forward(self, images: Tensor, beside: Tensor) -> Any:
        """The model's own forward: images (batch, 3, height, width), and token ids or a mask."""
        return self.model(images, beside)

    def setup(self, stage: str) -> None:
        """Forget who watched the gradients of an earlier training."""
        self.gradient_watchers.clear()

    def on_fit_start(self) -> None:
        """Make room for the batches that a step accumulates."""
        accumulated = self.trainer.accumulate_grad_batches
        self._window = Window(accumulated) if accumulated > 1 and not _accumulates_itself(self.trainer) else None

    def on_train_start(self) -> None:
        """Say where several processes do not train exactly what one trains."""
        name = _own_statistics(self.model)
        if name is not None and self.trainer.is_global_zero and self.trainer.world_size > 1:
            log.warning(
                "batch norm in model.%s takes the statistics of each process's own pairs: %d processes do not train "
                "exactly what one trains on the whole batch; layers without batch norm do, and on GPUs "
                "trainer.sync_batchnorm=true",
                name,
                self.trainer.world_size,
            )

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One batch; returns the loss."""
        outputs = inside(self.model, self.objective, batch)
        self._log("train", outputs, len(batch))
        self.log("train/learning_rate", self.rate(self.trainer.optimizers[0]))
        if self._window is None:
            return outputs["loss"]
        weight = outputs.get("loss_weight", outputs["loss"].new_ones(()))
        return outputs["loss"] * self._window.weigh(weight)

    def rate(self, optimizer: Optimizer) -> float:
        """The learning rate now of what no tower holds: the schedule's factor is that of every group."""
        groups = optimizer.param_groups
        return self.lr * next((group["lr"] / group["initial_lr"] for group in groups if group["initial_lr"]), 0.0)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """One batch of the validation data; it counts by its `loss_weight`, or else by its rows."""
        outputs = inside(self.model, self.objective, batch)
        weight = outputs.get("loss_weight")
        self._log("validation", outputs, len(batch) if weight is None else max(1, round(float(weight))))

    def _log(self, stage: str, outputs: Mapping[str, Tensor], samples: int) -> None:
        validating = stage == "validation"
        values: Mapping[str, Tensor] = {f"{stage}/{name}": value.detach() for name, value in outputs.items()}
        # the mean over ranks is worth a collective only where it is written down; Lightning's own is always or never
        if not validating and (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            values = _means(values)
        self.log_dict(values, on_step=not validating, on_epoch=validating, sync_dist=validating, batch_size=samples)

    def configure_model(self) -> None:
        """Shard the model over the ranks where the strategy has a device mesh (FSDP2); nothing otherwise."""
        if self.device_mesh is not None:
            mesh, precision = self.device_mesh["data_parallel"], self.trainer.precision
            shard(self.model, mesh, precision)
            if (reference := getattr(self.objective, "reference", None)) is not None and not is_sharded(reference):
                shard(reference, mesh, precision)
            if self.start is not None:
                settle(self.model, self.start, self.trainer.strategy.root_device)
                self.start = None  # the hook is called again when a trained model is evaluated

    def configure_optimizers(self) -> dict[str, Any]:
        """Parameter groups, optimiser and schedule, in optimiser steps.

        Raises:
            ValueError: the number of steps is not known.
        """
        groups = self.rules.groups(self.trainable_names(), self.lr, self.weight_decay)
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError("trainer.max_steps is -1 and the data has no length: set trainer.max_steps")
        optimizer = self.make_optimizer(groups)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler(optimizer, self.schedule, int(steps)), "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the Trainer was told, and hand the norm to the log and the guard: it is computed only once.

        Raises:
            ValueError: float16 with a fused optimiser, which sees the gradients still scaled; or parameters that no
                gradient reaches, where several processes wait for one.
        """
        if not self._idle_reported:
            report_idle(self.trainer, self.trainable_names())
            self._idle_reported = True
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if scaled and getattr(optimizer, "_step_supports_amp_scaling", False) and gradient_clip_val:
            raise ValueError("trainer.precision=16-mixed clips unscaled gradients: set optim.fused=false")
        by_value = gradient_clip_algorithm == "value"
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self._window is not None:
            self._window.settle(p.grad for p in parameters if p.grad is not None)
        norm = clip_gradients(parameters, None if by_value else gradient_clip_val or None)
        for watch in self.gradient_watchers:
            watch(norm)
        self.log("train/gradient_norm", norm)
        if by_value:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what the optimisers hold under the names of parameters; only the first of sharded processes has it."""
        if "optimizer_states" in checkpoint:
            checkpoint["optimizer_states"] = [state and by_names(state) for state in checkpoint["optimizer_states"]]

    def train(self, mode: bool = True) -> ObjectiveModule:
        """Training mode, except for parts that are frozen as a whole: their statistics and dropout stay fixed."""
        super().train(mode)
        if mode and getattr(self, "frozen", None):
            self._settle_frozen()
        return self

    def _settle_frozen(self) -> None:
        for module in self.model.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()


def _accumulates_itself(trainer: lightning.Trainer) -> bool:
    """Whether the strategy adds up the gradients where this module cannot reach them."""
    found = isinstance(trainer.strategy, DeepSpeedStrategy)
    if found and trainer.is_global_zero:
        log.warning("DeepSpeed averages accumulated batches: each counts as much, whatever its number of tokens")
    return found


def _means(values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The means over processes of numbers that each of them has, in one collective."""
    if world_size() == 1:
        return values
    means = summed(torch.stack([value.float().reshape(()) for value in values.values()])) / world_size()
    return dict(zip(values, means, strict=True))


def _own_statistics(model: nn.Module) -> str | None:
    """Name of the first training batch norm whose statistics are one process's alone, or None."""
    for name, part in model.named_modules():
        if isinstance(part, _BatchNorm) and part.training and not isinstance(part, (nn.SyncBatchNorm, SharedBatchNorm)):
            return name
    return None
