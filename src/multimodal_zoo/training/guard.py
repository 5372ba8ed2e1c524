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

#: What a replay can do for one rank of several.
OWN_PART = "this rank's pairs among themselves: the other ranks' features, negatives in the run's loss, are not saved"


class NonFiniteLoss(RuntimeError):
    """The loss or the gradient became NaN or infinite; the message has the step, the batch and the saved state."""


class FiniteGuard(Callback):
    """Raises `NonFiniteLoss` at the first step whose loss or gradient norm is not finite, before the weights change.

    The file it saves (`failure/step_<n>_rank_<r>.pt` in the run folder) holds the batches of that step (several with
    `trainer.accumulate_grad_batches`) with the random state before each, the model and the objective: `replay(path)`
    computes the same losses and gradient again. In a run of several ranks each saves its own part, which does not have
    the other ranks' features: see `replay`.

    Args:
        every_n_steps: looks at every n-th optimiser step; looking makes an accelerator wait for the loss, and keeps the
            step's accumulated batches, and the objective's state before them, in its memory.

    Raises:
        ValueError: fewer than one step.
    """

    def __init__(self, every_n_steps: int = 1) -> None:
        if every_n_steps < 1:
            raise ValueError(
                f"callbacks.guard.every_n_steps is {every_n_steps}; it must be at least 1 (callbacks.guard=null trains "
                "without a guard)"
            )
        self.every_n_steps = every_n_steps
        self._batches: list[tuple[Any, tuple[Any, ...]]] = []
        self._objective: dict[str, Tensor] = {}
        self._step = -1
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
        if trainer.global_step != self._step:  # else one more batch of the same optimiser step
            self._step = trainer.global_step
            self._batches = []
            self._watching = self._step % self.every_n_steps == 0
            if self._watching:  # an objective's queue moves on in the forward pass
                state = pl_module.objective.state_dict()  # type: ignore[union-attr]
                self._objective = {name: tensor.clone() for name, tensor in state.items()}
        if self._watching:
            self._batches.append((batch, rng.snapshot()))

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        """Look at the loss; Lightning gives it divided by the accumulated batches and, in float16, scaled."""
        if self._watching:
            self._check(trainer, pl_module, "loss", loss)

    def check_gradient(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, norm: Tensor) -> None:
        """Look at the gradient's norm; float16 scaling handles infinite gradients itself and is left alone."""
        if self._watching and _scaler(trainer) is None:
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
        self._save(trainer, pl_module, path)
        keys = [str(key) for batch, _ in self._batches for key in getattr(batch, "keys", None) or ()]
        number = float(value.detach())
        if what == "loss":
            scaler = _scaler(trainer)
            number *= trainer.accumulate_grad_batches / (scaler.get_scale() if scaler is not None else 1)
        batches = f"batch of {len(keys)}" if len(self._batches) == 1 else f"{len(self._batches)} batches of {len(keys)}"
        shown = ", ".join(keys[:8]) + (" ..." if len(keys) > 8 else "")
        where = f" of rank {rank}" if trainer.world_size > 1 else ""
        raise NonFiniteLoss(
            f"step {step}: {what}{where} is {number:g}; {batches}: {shown}\n"
            f"state of just before it: {path}; multimodal_zoo.training.guard.replay(path) computes "
            f"{'it again' if trainer.world_size == 1 else OWN_PART}. "
            "Usual ways out: a lower optim.lr, a longer schedule.warmup, trainer.gradient_clip_val"
        )

    def _save(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, path: Path) -> None:
        model = full_state(pl_module.model)  # type: ignore[arg-type]
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "step": trainer.global_step,
            "ranks": trainer.world_size,
            "note": f"replay computes {'the step again' if trainer.world_size == 1 else OWN_PART}",
            "accumulate": trainer.accumulate_grad_batches,
            "kinds": [type(batch).__name__ for batch, _ in self._batches],
            "batches": [_plain(batch) for batch, _ in self._batches],
            "random": [rng.pack(state) for _, state in self._batches],
            "model": model,
            "objective": self._objective,
            "config": dict(pl_module.hparams.get("config", {})),
        }
        torch.save(content, path)


def _plain(batch: Any) -> Any:
    """A batch as a mapping, and batches within it too."""
    return {f.name: _plain(getattr(batch, f.name)) for f in fields(batch)} if is_dataclass(batch) else batch


def _batch(kind: type, content: dict[str, Any]) -> Any:
    """The batch of a mapping that `_plain` gave."""
    from multimodal_zoo.objectives.batch import PreferenceBatch, TokenBatch

    if kind is PreferenceBatch:
        content = {**content, **{side: TokenBatch(**content[side]) for side in ("chosen", "rejected")}}
    return kind(**content)


def _scaler(trainer: lightning.Trainer) -> Any:
    """What scales the loss under float16; None elsewhere."""
    return getattr(trainer.precision_plugin, "scaler", None)


def replay(path: str | Path, model: torch.nn.Module | None = None, objective: torch.nn.Module | None = None) -> Any:
    """Compute a failed step again, forward and backward: every batch that it accumulated.

    What a rank of several saved has its own pairs only. The other ranks' features, which were negatives in the loss,
    are not there, so that the loss differs from the run's and can be finite where the run's was not.

    Args:
        path: what `FiniteGuard` saved.
        model: None builds the recipe's.
        objective: None builds the recipe's.

    Returns:
        what the objective gave for the last of the batches; the step's gradients are left in the parameters.
    """
    from multimodal_zoo.objectives import batch as classes
    from multimodal_zoo.registry import build
    from multimodal_zoo.training.assemble import learnt_from

    saved = torch.load(path, map_location="cpu", weights_only=True)
    if model is None:
        node = saved["config"]["model"]
        model = build({k: v for k, v in node.items() if k not in ("processor", "card")}, path="model")
    if objective is None:
        config = saved["config"]
        objective = build(config["objective"], path="objective", **learnt_from(config))
    model.load_state_dict(saved["model"])
    objective.load_state_dict(saved["objective"])
    outputs: Any = None
    for kind, batch, random in zip(saved["kinds"], saved["batches"], saved["random"], strict=True):
        rng.restore(random)
        outputs = objective.train()(model.train(), _batch(getattr(classes, kind), batch))
        (outputs["loss"] / saved["accumulate"]).backward()
    return outputs
