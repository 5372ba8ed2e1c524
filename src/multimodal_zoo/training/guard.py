"""Stops a run whose loss or gradient is not finite, and keeps what is needed to see why."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from multimodal_zoo.training import rng
from multimodal_zoo.training.sharding import full_state


class NonFiniteLoss(RuntimeError):
    """The loss or the gradient became NaN or infinite; the message has the step, the batch and the saved state."""


class FiniteGuard(Callback):
    """Raises `NonFiniteLoss` at the first step whose loss or gradient norm is not finite, before the weights change.

    The file it saves (`failure/step_<n>_rank_<r>.pt` in the run folder) holds the batch, the model, the objective and
    the random state of just before that step: `replay(path)` computes the same loss again.

    Args:
        every_n_steps: looks at every n-th optimiser step; looking makes an accelerator wait for the loss.
    """

    def __init__(self, every_n_steps: int = 1) -> None:
        self.every_n_steps = every_n_steps
        self._batch: Any = None
        self._random: tuple[Any, ...] = ()
        self._watching = False

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Ask the module for the gradient norm that clipping computes anyway."""
        watchers = getattr(pl_module, "gradient_watchers", None)
        if isinstance(watchers, list):
            watchers.append(lambda norm: self.check_gradient(trainer, pl_module, norm))

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep what the step starts from."""
        self._watching = trainer.global_step % self.every_n_steps == 0
        if self._watching:
            self._batch, self._random = batch, rng.snapshot()

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        """Look at the loss."""
        if self._watching:
            self._check(trainer, pl_module, "loss", loss)

    def check_gradient(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, norm: Tensor) -> None:
        """Look at the gradient's norm; float16 scaling handles infinite gradients itself and is left alone."""
        if self._watching and getattr(trainer.precision_plugin, "scaler", None) is None:
            self._check(trainer, pl_module, "gradient norm", norm)

    def _check(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, what: str, value: Tensor
    ) -> None:
        finite = bool(torch.isfinite(value.detach()).all())
        everywhere = trainer.strategy.reduce_boolean_decision(finite, all=True) if trainer.world_size > 1 else finite
        if everywhere:
            return
        step, rank = trainer.global_step, trainer.global_rank
        root = trainer.strategy.broadcast(trainer.default_root_dir)  # under torchrun each rank resolved its own
        path = Path(root) / "failure" / f"step_{step:08d}_rank_{rank}.pt"
        self._save(pl_module, path, step)
        keys = [str(key) for key in getattr(self._batch, "keys", None) or ()]
        shown = ", ".join(keys[:8]) + (" ..." if len(keys) > 8 else "")
        where = f" of rank {rank}" if trainer.world_size > 1 else ""
        raise NonFiniteLoss(
            f"step {step}: {what}{where} is {float(value.detach()):g}; batch of {len(keys)}: {shown}\n"
            f"state of just before it: {path}; multimodal_zoo.training.guard.replay(path) computes it again. "
            "Usual ways out: a lower optim.lr, a longer schedule.warmup, trainer.gradient_clip_val"
        )

    def _save(self, pl_module: lightning.LightningModule, path: Path, step: int) -> None:
        model = full_state(pl_module.model)  # type: ignore[arg-type]
        path.parent.mkdir(parents=True, exist_ok=True)
        batch = self._batch
        content = {f.name: getattr(batch, f.name) for f in fields(batch)} if is_dataclass(batch) else batch
        torch.save(
            {
                "step": step,
                "batch": content,
                "model": model,
                "objective": pl_module.objective.state_dict(),  # type: ignore[union-attr]
                "random": rng.pack(self._random),
                "config": dict(pl_module.hparams.get("config", {})),
            },
            path,
        )


def replay(path: str | Path, model: torch.nn.Module | None = None, objective: torch.nn.Module | None = None) -> Any:
    """Compute a failed step again, forward and backward.

    Args:
        path: what `FiniteGuard` saved.
        model: None builds the recipe's.
        objective: None builds the recipe's.

    Returns:
        what the objective gave; the model's gradients are left in its parameters.
    """
    from multimodal_zoo.objectives.batch import ImageTextBatch
    from multimodal_zoo.registry import build

    saved = torch.load(path, map_location="cpu", weights_only=True)
    if model is None:
        node = saved["config"]["model"]
        model = build({k: v for k, v in node.items() if k not in ("processor", "card")}, path="model")
    if objective is None:
        objective = build(saved["config"]["objective"], path="objective")
    model.load_state_dict(saved["model"])
    objective.load_state_dict(saved["objective"])
    rng.restore(saved["random"])
    outputs = objective.train()(model.train(), ImageTextBatch(**saved["batch"]))
    outputs["loss"].backward()
    return outputs
