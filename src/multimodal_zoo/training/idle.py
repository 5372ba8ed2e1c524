"""Parameters that train and that no gradient reaches: layers that a recipe's objective does not use."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import lightning
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn

log = logging.getLogger(__name__)


def idle_parameters(parameters: Mapping[str, nn.Parameter]) -> list[str]:
    """Names of the trainable parameters without a gradient, after a backward pass."""
    return [name for name, parameter in parameters.items() if parameter.requires_grad and parameter.grad is None]


def report_idle(trainer: lightning.Trainer, parameters: Mapping[str, nn.Parameter]) -> None:
    """Say which parameters no gradient reaches; they keep their first values, without weight decay.

    Several processes under DistributedDataParallel would wait for those gradients and train on wrong ones until then.

    Raises:
        ValueError: there are such parameters and the strategy is DDP of several processes that does not look for them.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, (DDPStrategy, SingleDeviceStrategy)):
        return
    if not (idle := idle_parameters(parameters)):
        return
    patterns = ", ".join(covering(idle, [name for name, parameter in parameters.items() if parameter.requires_grad]))
    told = f"no gradient reaches {len(idle)} tensors, which the objective does not use; freeze [{patterns}]"
    waits = isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get("find_unused_parameters")
    if trainer.world_size > 1 and waits:
        raise ValueError(
            f"{told} with optim.groups.frozen, or set trainer.strategy=ddp_find_unused_parameters_true, which looks "
            "for them at every step: otherwise processes wait for these gradients"
        )
    if trainer.is_global_zero:
        log.warning("%s with optim.groups.frozen to say so", told)


def covering(names: list[str], known: list[str]) -> list[str]:
    """The shortest patterns `a.b.*` that cover `names` and nothing else of `known`."""
    wanted, patterns = set(names), []
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            prefix = ".".join(parts[:depth])
            below = {one for one in known if one == prefix or one.startswith(f"{prefix}.")}
            if below <= wanted:
                patterns.append(prefix if prefix == name else f"{prefix}.*")
                break
    return list(dict.fromkeys(patterns))
