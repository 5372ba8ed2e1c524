"""A causal decoder split over devices inside its layers (tensor parallelism, arXiv 1909.08053), for inference.

Every process holds a part of each matrix of the blocks: heads are dealt out, and so are the channels of the MLP. The
rest of the model is whole in each. All processes call the model with the same inputs and get the same results:

    mesh = torch.distributed.device_mesh.init_device_mesh("cuda", (8,))
    model = tensor_parallel(zoo.from_pretrained("Emu2-Chat", dtype="bfloat16"), mesh)
"""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from multimodal_zoo.nn.low_rank import adapted
from multimodal_zoo.nn.mlp import SwiGLU
from multimodal_zoo.nn.projections import SeparateProjection

#: Matrices of a block whose rows are dealt out, and those whose columns are.
BY_ROWS = ("attention.qkv.query", "attention.qkv.key", "attention.qkv.value", "mlp.gate", "mlp.up")
BY_COLUMNS = ("attention.out", "mlp.down")


def tensor_parallel(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Split a model's causal decoder in place and give the model back.

    Args:
        model: has a `decoder` of LLaMA's kind, the same weights in every process, on the mesh's kind of device.
        mesh: one dimension, the processes that share the decoder.

    Raises:
        ValueError: blocks of another kind, adapters that are not merged, quantised weights, or heads and channels that
            cannot be dealt out evenly.
    """
    if adapters := adapted(model):
        raise ValueError(f"{len(adapters)} layers have adapters: merge_adapters(model) first")
    if bits := getattr(model, "quantized", None):
        raise ValueError(f"the model is in {bits}; tensor parallelism splits floating-point weights")
    blocks = model.decoder.blocks.layers
    for number, block in enumerate(blocks):
        _check(block, number, mesh.size())
    for block in blocks:
        rows = {name: ColwiseParallel() for name in BY_ROWS}
        parallelize_module(block, mesh, {**rows, **{name: RowwiseParallel() for name in BY_COLUMNS}})
        block.attention.qkv.heads //= mesh.size()
        block.attention.qkv.kv_heads //= mesh.size()
    return model


def _check(block: nn.Module, number: int, parts: int) -> None:
    qkv, mlp = getattr(getattr(block, "attention", None), "qkv", None), getattr(block, "mlp", None)
    if not isinstance(qkv, SeparateProjection) or not isinstance(mlp, SwiGLU):
        raise ValueError(f"decoder.blocks.layers.{number} is no block of LLaMA's kind (separate_qkv, swiglu)")
    sizes = {"heads": qkv.heads, "kv_heads": qkv.kv_heads, "mlp.hidden": mlp.gate.out_features}
    if uneven := {name: size for name, size in sizes.items() if size % parts}:
        found = ", ".join(f"{name} is {size}" for name, size in uneven.items())
        raise ValueError(f"decoder.blocks.layers.{number}: {found}; {parts} processes cannot share that evenly")
