"""`mmzoo plan RECIPE as_trained=true`: the setting of a plan in the words of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

#: GPUs of a node where a recipe leaves their number to the machine.
NODE = 8
#: ZeRO's stage -> the plan's word, which is Lightning's.
STAGES = {1: "deepspeed_stage_1", 2: "deepspeed_stage_2", 3: "deepspeed_stage_3"}
#: Batches that are counted in documents and laid into rows: planned by the row.
PACKED = "packed_documents"


def trained_as(recipe: DictConfig, choices: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Options of `mmzoo plan` that say how a recipe trains; those that are given stay.

    Args:
        recipe: composed.
        choices: the file that was chosen for each group; `optim` counts.
        given: options of the command. Without `devices` it is the recipe's number, on nodes of `NODE` where the recipe
            leaves it to the machine; one device is planned without a strategy.
    """
    trainer, data = recipe.trainer, recipe.data
    batching = OmegaConf.select(data, "batching")
    found = {
        "devices": str(_devices(trainer)),
        "precision": str(trainer.precision),
        "checkpoint": "declared",
        "optimizer": choices["optim"],
        "batch_size": str(data.batch_size),
    }
    if batching is not None and "context_length" in batching:
        found["context_length"] = str(batching.context_length)
        if batching.type == PACKED:
            found["batch_size"] = "1"
    size = OmegaConf.select(data, "image_transform.size")
    if isinstance(size, int):
        found["image_size"] = str(size)
    found |= given
    found.setdefault("strategy", "single" if found["devices"] == "1" else _strategy(trainer.strategy))
    return found


def _devices(trainer: DictConfig) -> int:
    each = trainer.devices if isinstance(trainer.devices, int) else NODE
    return each * int(trainer.num_nodes)


def _strategy(node: Any) -> str:
    """The plan's word for a strategy of Lightning or of this library."""
    if isinstance(node, str):
        return {"auto": "ddp", "deepspeed": STAGES[2]}.get(node, node)  # Lightning's default stage
    if "DeepSpeed" not in node._target_:
        return "fsdp"
    zero = node.get("stage") or node.config.zero_optimization.stage
    return STAGES[int(zero)]
