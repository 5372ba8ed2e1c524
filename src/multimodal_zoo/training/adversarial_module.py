"""Training with a discriminator as a LightningModule: two optimisers take turns at every batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch import distributed as dist

from multimodal_zoo.nn.processes import world_size
from multimodal_zoo.objectives.batch import PixelBatch
from multimodal_zoo.objectives.vision_tokenizer import VisionTokenizerLoss
from multimodal_zoo.training.clipping import clip_gradients
from multimodal_zoo.training.groups import ParameterRules
from multimodal_zoo.training.idle import report_idle
from multimodal_zoo.training.objective_module import ObjectiveModule, OptimizerFactory
from multimodal_zoo.training.schedule import Schedule, scheduler

#: Where the discriminator's parameters lie, as the rules name them.
DISCRIMINATOR = "objective.adversarial."


class AdversarialModule(ObjectiveModule):
    """Trains a visual tokenizer against a discriminator (VQGAN, arXiv 2012.09841, section 3.1).

    At every batch both gradients are computed from the same pixels, then both sides step; a step of the tokenizer is
    what the trainer counts. The discriminator stays out of DistributedDataParallel: its gradients are averaged here.
    The rules of `optim.groups` name its parameters `objective.adversarial.*`.

    Args:
        model: a visual tokenizer.
        objective: with an `adversarial` part.
        rules: which parameters train, and how.
        optimizer: makes both optimisers from parameter groups.
        lr: learning rate of the parameters that no tower of `rules` holds.
        weight_decay: weight decay of the same.
        schedule: factor on the learning rates at a step; the discriminator's begins when it does.
        config: the recipe as a plain dict, stored in every checkpoint as a hyper-parameter.
        clip: largest joint 2-norm of either side's gradient, or None.

    Raises:
        ValueError: a model that is no visual tokenizer, or an objective without a discriminator.
    """

    objective: VisionTokenizerLoss

    def __init__(
        self,
        model: nn.Module,
        objective: VisionTokenizerLoss,
        rules: ParameterRules,
        optimizer: OptimizerFactory,
        lr: float,
        weight_decay: float,
        schedule: Schedule,
        config: Mapping[str, Any],
        clip: float | None,
    ) -> None:
        super().__init__(model, objective, rules, optimizer, lr, weight_decay, schedule, config)
        if objective.adversarial is None:
            raise ValueError("objective.adversarial is null: without a discriminator ObjectiveModule trains the model")
        self.automatic_optimization = False
        self.adversarial, self.clip = objective.adversarial, clip
        own = [*objective.named_parameters(), *objective.named_buffers()]
        self._ddp_params_and_buffers_to_ignore += [f"objective.{name}" for name, _ in own]

    def training_step(self, batch: PixelBatch, batch_index: int) -> Tensor:  # type: ignore[override]
        """One batch; returns the tokenizer's loss."""
        learner, judge = self.optimizers()  # type: ignore[misc]
        terms = self.objective.terms(self.model, batch)
        loss, figures = terms.distance + terms.codebook, dict(terms.figures)
        playing = self.trainer.global_step >= self.adversarial.start
        if playing:
            with _frozen(self.adversarial.discriminator):
                score = self.adversarial.score(terms.made)
            weight = self.adversarial.adaptive_weight(terms.distance, score, self.model.last_layer)  # type: ignore[arg-type]
            loss = loss + weight * score
            figures |= {"adversarial": score.detach(), "adversarial_weight": weight}
        learner.zero_grad()
        self.manual_backward(loss)
        self._clip(learner)
        if playing:
            figures |= self._judge(judge, terms.made, batch.pixels)
        self._log("train", {"loss": loss, **figures}, len(batch))
        self.log("train/learning_rate", self.rate(learner.optimizer))
        learner.step()
        for number, one in enumerate(self.lr_schedulers()):  # type: ignore[arg-type]
            if number == 0 or playing:
                one.step()  # type: ignore[call-arg]
        return loss.detach()

    def _judge(self, judge: LightningOptimizer, made: Tensor, given: Tensor) -> dict[str, Tensor]:
        """A step of the discriminator; gives its loss and scores."""
        found = self.adversarial(made, given)
        parameters = list(self.adversarial.parameters())
        judge.zero_grad()
        found["discriminator"].backward()
        average(parameters)
        clip_gradients([p for p in parameters if p.grad is not None], self.clip)
        judge.optimizer.step()  # not through Lightning, which would count it as a step of the training
        return {name: value.detach() for name, value in found.items()}

    def _clip(self, learner: LightningOptimizer) -> None:
        if not self._idle_reported:
            report_idle(self.trainer, dict(self.model.named_parameters()))
            self._idle_reported = True
        parameters = [p for group in learner.param_groups for p in group["params"] if p.grad is not None]
        norm = clip_gradients(parameters, self.clip)
        for watch in self.gradient_watchers:
            watch(norm)
        self.log("train/gradient_norm", norm)

    def configure_optimizers(self) -> Any:
        """The tokenizer's optimiser and the discriminator's, each with its schedule in steps of the training.

        Raises:
            ValueError: an unknown number of steps, a strategy or a precision that two optimisers do not suit, or a
                side of which nothing trains.
        """
        if not isinstance(self.trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
            name = type(self.trainer.strategy).__name__
            raise ValueError(f"trainer.strategy is {name}; a discriminator trains on one device or with trainer=ddp")
        if self.trainer.precision == "16-mixed":
            raise ValueError("trainer.precision is 16-mixed; two losses would share a scale: use bf16-mixed or 32-true")
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError("trainer.max_steps is -1 and the data has no length: set trainer.max_steps")
        groups = self.rules.groups(self.trainable_names(), self.lr, self.weight_decay)
        made = []
        for judges, total in ((False, int(steps)), (True, max(1, int(steps) - self.adversarial.start))):
            side = side_of(groups, judges)
            if not side:
                raise ValueError(f"optim.groups.frozen leaves nothing of the {'discriminator' if judges else 'model'}")
            optimizer = self.make_optimizer(side)
            made.append({"optimizer": optimizer, "lr_scheduler": scheduler(optimizer, self.schedule, total)})
        return tuple(made)


def side_of(groups: Sequence[Mapping[str, Any]], judges: bool) -> list[dict[str, Any]]:
    """The parameter groups of one side alone.

    Args:
        groups: what `ParameterRules.groups` gave.
        judges: whether the discriminator's are wanted, or all others.
    """
    found = []
    for group in groups:
        kept = [n for n, name in enumerate(group["names"]) if name.startswith(DISCRIMINATOR) is judges]
        if kept:
            lists = {key: [group[key][n] for n in kept] for key in ("params", "names")}
            found.append({**group, **lists})
    return found


def average(parameters: Sequence[nn.Parameter]) -> None:
    """Average gradients over processes in one message.

    A gradient that some processes lack counts as zero there; one that all lack stays away, as on one process.
    """
    if world_size() == 1:
        return
    gradients = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in parameters]
    there = gradients[0].new_tensor([p.grad is not None for p in parameters])
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), there])
    dist.all_reduce(flat)
    flat /= world_size()
    *parts, there = flat.split([*(p.numel() for p in parameters), len(parameters)])
    for parameter, part, found in zip(parameters, parts, there.tolist(), strict=True):
        parameter.grad = part.view_as(parameter) if found else None


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No gradients of a module's parameters for a while."""
    kept = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in kept:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in kept:
            parameter.requires_grad_(True)
