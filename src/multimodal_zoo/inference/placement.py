"""Which part of a model goes to which device, for inference with models that no device holds whole, by accelerate.

A placement is `auto` (what this machine has), memory by device (`{"cuda:0": "40GB", "cuda:1": "40GB", "cpu": "60GB"}`,
filled in this order), or a device for each part (`{"image": "cuda:0", "image.blocks.layers.30": "disk", ...}`).
Parts on `cpu` beside an accelerator, and on `disk`, are brought to the first device while they compute.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from multimodal_zoo.analysis.formats import block_matrices, in_four_bits
from multimodal_zoo.checkpoints.writing import require_free
from multimodal_zoo.nn.repeated import blocks_of
from multimodal_zoo.packages import needed

Placement = str | Mapping[str, str | int]
#: Where every embedding comes out: parts of a dual encoder that stay on the first device.
_FIRST = ("image_projection", "text_projection", "logit_scale")
_DEVICE = re.compile(r"(cuda|xpu|npu|mps)(:\d+)?|cpu|disk")


def place(model: nn.Module, placement: Placement, bits: str | None = None) -> dict[str, str]:
    """The device of every part that is called by itself, and of every parameter that a tower holds directly.

    Nothing is moved or allocated. A part whose weights the part around it reads (its `reads_weights_of`) is not entered
    by itself, so that nothing would bring it: it stays on the first device.

    Args:
        model: on any device, `meta` included, in the dtype that it will have.
        placement: see above.
        bits: `int8` or `int4` where the matrices of the blocks will be quantised.

    Raises:
        ValueError: a placement of another form, parts that do not exist or have no device, or too little memory.
        ImportError: no accelerate, with how to install it.
    """
    needed("accelerate", "placement", "large")
    if isinstance(placement, str) and placement != "auto":
        raise ValueError(f"placement={placement!r}: expected auto, memory by device, or a device for each part")
    if isinstance(placement, str) or all(_DEVICE.fullmatch(str(key)) for key in placement):
        chosen = _filled(model, None if isinstance(placement, str) else placement, bits)
    else:
        chosen = {str(part): str(device) for part, device in placement.items()}
    names = list(_callable_parts(model))
    modules = dict(model.named_modules())
    if unknown := [
        part for part in chosen if part and part not in modules and part not in dict(model.named_parameters())
    ]:
        raise ValueError(f"placement names {', '.join(unknown[:5])}: the model has no such part")
    found = {name: device for name in names if (device := _nearest(name, chosen)) is not None}
    if lost := [name for name in names if name not in found]:
        raise ValueError(f"placement has no device for {', '.join(lost[:5])}; name it or a part that holds it")
    first = _first(found.values())
    for name in names:
        owner, _, leaf = name.rpartition(".")
        if leaf in getattr(modules[owner], "_parameters", {}):  # read beside the first child's result: same device
            beside = next(n for n in names if n.startswith(f"{owner}.") and n in modules)
            found[name] = found[beside] if found[beside] not in ("cpu", "disk") else first
        if name in _FIRST or leaf in getattr(modules[owner], "reads_weights_of", ()):
            found[name] = first
    return found


def _callable_parts(model: nn.Module, prefix: str = "") -> Iterator[str]:
    """Names of the parts that are called, blocks one by one, and of parameters held beside such parts."""
    blocks = {id(block) for _, block in blocks_of(model)} if not prefix else set()
    yield from _walk(model, prefix, blocks)


def _walk(module: nn.Module, prefix: str, blocks: set[int]) -> Iterator[str]:
    yield from (f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False))
    for name, child in module.named_children():
        whole = id(child) in blocks or not any(id(inner) in blocks for inner in child.modules())
        if not whole:
            yield from _walk(child, f"{prefix}{name}.", blocks)
        elif any(True for _ in child.parameters()) or any(True for _ in child.buffers()):
            yield f"{prefix}{name}"


def _nearest(name: str, chosen: Mapping[str, str]) -> str | None:
    """The device of a part, or of the smallest part around it that has one."""
    while name not in chosen and name:
        name = name.rpartition(".")[0]
    return chosen.get(name)


def device_of(tensor: str, placed: Mapping[str, str]) -> str:
    """The device of a tensor, given its name and what `place` found."""
    found = _nearest(tensor, placed)
    assert found is not None, tensor
    return found


def _first(devices: Any) -> str:
    return next((device for device in devices if device not in ("cpu", "disk")), "cpu")


def _filled(model: nn.Module, memory: Mapping[str, str | int] | None, bits: str | None) -> dict[str, str]:
    """Devices filled in order, blocks kept whole."""
    import torch
    from accelerate import infer_auto_device_map
    from accelerate.utils import CustomDtype, get_max_memory

    eight = dict.fromkeys((f"{name}.weight" for name in block_matrices(model)), torch.int8) if bits else {}
    four = dict.fromkeys((f"{name}.weight" for name in in_four_bits(model)), CustomDtype.INT4) if bits == "int4" else {}
    room = None if memory is None else {_key(device): _amount(amount) for device, amount in memory.items()}
    if room is not None and "disk" not in room:
        room["disk"] = 0  # accelerate would take it without being asked
    found = infer_auto_device_map(
        model,
        max_memory=get_max_memory() if room is None else room,
        no_split_module_classes=_block_classes(model),
        special_dtypes={**eight, **four} or None,
        offload_buffers=True,
    )
    named = {name: f"cuda:{device}" if isinstance(device, int) else str(device) for name, device in found.items()}
    if memory is not None and (spilt := sorted(set(named.values()) - {str(key) for key in memory} - _aliases(memory))):
        raise ValueError(
            f"placement={dict(memory)}: too little; {spilt[0]} would be needed too, give it or more of these"
        )
    return named


def _aliases(memory: Mapping[str, Any]) -> set[str]:
    return {"cuda:0"} if "cuda" in memory else set()


def _key(device: str) -> str | int:
    kind, _, number = str(device).partition(":")
    return int(number or 0) if kind == "cuda" else str(device)


def _amount(amount: str | int) -> str | int:
    if isinstance(amount, str) and not re.fullmatch(r"[\d.]+ *[KMGT]i?B", amount):
        raise ValueError(f"placement: memory {amount!r}; expected bytes or an amount as in 40GB or 40GiB")
    return amount.replace(" ", "") if isinstance(amount, str) else amount


def dispatch(model: nn.Module, placed: Mapping[str, str], folder: str | Path | None = None) -> nn.Module:
    """Let every part compute on its device; inputs follow by themselves.

    Args:
        model: with its weights on their devices; those for `disk` on the CPU.
        placed: from `place`.
        folder: receives what is kept on disk; new or empty.

    Raises:
        ValueError: parts on disk without a folder, or one that holds files.
    """
    needed("accelerate", "placement", "large")
    from accelerate import dispatch_model
    from accelerate.hooks import remove_hook_from_module

    if "disk" in placed.values():
        if folder is None:
            raise ValueError("placement puts parts on disk: name a folder for them, offload_folder=...")
        require_free(folder, "offload_folder")  # what an earlier model left there would be read
    modules = dict(model.named_modules())
    parts = {name: device for name, device in placed.items() if name in modules}
    if len(set(parts.values())) > 1 or "disk" in parts.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # parameters that a tower holds itself are no modules
            dispatch_model(
                model,
                {name: _key(device) for name, device in placed.items()},
                main_device=_key(_first(placed.values())),
                offload_dir=folder and str(folder),
                preload_module_classes=_read_whole(model, parts),
            )
        for name, module in modules.items():  # the towers are entered by other methods than forward: parts carry hooks
            if name and name not in parts and not any(name.startswith(f"{part}.") for part in parts):
                remove_hook_from_module(module)
    model.placement = dict(placed)  # type: ignore[assignment]
    return model


def _block_classes(model: nn.Module) -> list[str]:
    return sorted({type(block).__name__ for _, block in blocks_of(model)})


def _read_whole(model: nn.Module, parts: Iterable[str]) -> list[str]:
    """Classes of parts that come with all that they hold: one inside may read the weights of another."""
    modules = dict(model.named_modules())
    readers = {type(modules[name]).__name__ for name in parts if hasattr(modules[name], "reads_weights_of")}
    return sorted({*_block_classes(model), *readers})
