"""FSDP2: parameters sharded over ranks block by block, from outside the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from multimodal_zoo.nn.repeated import blocks_of

#: Methods beside `forward` through which an evaluation enters a dual encoder.
ENTRANCES = ("encode_image", "encode_text", "encode_image_tokens", "encode_text_tokens")
#: The method that `shard` gives a model for everything else: `inside` goes through it.
RUN = "run_inside"


class FullySharded(ModelParallelStrategy):
    """FSDP2 over all ranks, without tensor parallelism.

    Args:
        save_distributed_checkpoint: one file per rank in a folder, for models that no host can hold; otherwise rank 0
            assembles one file.
    """

    def __init__(self, save_distributed_checkpoint: bool = False) -> None:
        super().__init__(
            data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=save_distributed_checkpoint
        )

    def _setup_distributed(self) -> None:
        super()._setup_distributed()
        self._data_parallel_size = self.world_size  # known only once the processes have met

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """What a checkpoint holds of an optimiser, by the names of parameters: Lightning's numbers fit no other one.

        Whole and on the first process, unless each process saves its own part.
        """
        assert self.model is not None
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        options = StateDictOptions(full_state_dict=not self._save_distributed_checkpoint, cpu_offload=True)
        return get_optimizer_state_dict(self.model, inner, options=options)


def shard(model: nn.Module, mesh: DeviceMesh, precision: str = "32-true") -> None:
    """Shard a model in place: each block is gathered when it runs and freed after it.

    Scalars (the temperature) cannot be split: they stay whole on every rank, with averaged gradients.

    Args:
        model: any module; its methods named in `ENTRANCES` count as entrances like `forward`.
        mesh: one dimension, the data-parallel ranks.
        precision: Lightning's name; with `bf16-mixed` parameters travel in bfloat16 and gradients add up in float32.
    """
    whole = {parameter for parameter in model.parameters() if parameter.ndim == 0}
    for parameter in model.parameters():  # channels-last convolutions: FSDP2 cuts contiguous tensors only
        parameter.data = parameter.data.contiguous()
    policy = MixedPrecisionPolicy()
    if precision == "bf16-mixed":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for _, block in blocks_of(model):
        fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params=whole)
    fully_shard(model, mesh=mesh, mp_policy=policy, ignored_params=whole)
    setattr(model, RUN, lambda function, *arguments: function(*arguments))
    for name in (*ENTRANCES, RUN):
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)
    group = mesh.get_group()
    for parameter in whole:
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: _average(p, group))


def inside(model: nn.Module, objective: Callable[[nn.Module, Any], Any], batch: Any) -> Any:
    """`objective(model, batch)`; the parts of a sharded model that no block holds are whole while it runs.

    So an objective may call towers, projections and heads one by one.
    """
    run = getattr(model, RUN, None)
    return objective(model, batch) if run is None else run(objective, model, batch)


def settle(model: nn.Module, start: Callable[[str], Tensor], device: torch.device) -> None:
    """Give a sharded model that was built on `meta` its start values, each rank its own part.

    Parameters that a file filled in another type than float32 become float32.

    Args:
        model: after `shard`.
        start: the whole value of a parameter or buffer by name; one is held at a time.
        device: where the parts go.
    """
    named = dict((*model.named_parameters(), *model.named_buffers()))
    unset = [name for name, tensor in named.items() if tensor.is_meta]

    def _prepare(tensor: Tensor) -> Tensor:
        if tensor.is_meta:
            return torch.empty_like(tensor, device=device)
        return tensor.float() if tensor.is_floating_point() else tensor

    model._apply(_prepare)
    named = dict((*model.named_parameters(), *model.named_buffers()))
    with torch.no_grad():
        for name in unset:
            local(named[name]).copy_(part_of(start(name), named[name]))


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor that is to be split as `like` is; all of it for a plain tensor."""
    if not isinstance(like, DTensor):
        return whole
    (placement,) = like.placements
    if not placement.is_shard():
        return whole
    parts = whole.chunk(like.device_mesh.size(), dim=placement.dim)
    rank = like.device_mesh.get_local_rank()
    return parts[rank] if rank < len(parts) else whole.narrow(placement.dim, 0, 0)


def _average(parameter: Tensor, group: Any) -> None:
    assert parameter.grad is not None
    dist.all_reduce(parameter.grad, group=group)
    parameter.grad /= dist.get_world_size(group)


def is_sharded(model: nn.Module) -> bool:
    """Whether any parameter is spread over ranks."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def full_state(model: nn.Module, keep: bool = True) -> dict[str, Tensor]:
    """The state of a model with every tensor whole, on the CPU; all ranks must call it.

    Args:
        model: sharded or not.
        keep: whether this rank wants it; elsewhere a tensor is let go as soon as it is gathered.
    """
    return gathered(model.state_dict(), keep)


def gathered(state: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Tensors whole and on the CPU; arguments as for `full_state`."""
    found = {}
    for name, tensor in state.items():
        one = whole(tensor)
        if keep:
            found[name] = one.detach().cpu()
    return found


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor (sharing its memory); any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
