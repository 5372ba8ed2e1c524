"""Writing checkpoints, files or folders, so that a reader sees the old content or the new, never a half."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from multimodal_zoo.files import atomic_file, drafted, flush_all


def require_free(place: str | Path, key: str) -> None:
    """Make sure that a folder does not exist yet, or holds nothing.

    Args:
        place: the folder.
        key: of the setting that names it.

    Raises:
        ValueError: there is a file, or a folder that holds something.
    """
    place = Path(place)
    if place.is_dir() and not any(place.iterdir()):
        return
    if place.exists():
        raise ValueError(f"{key}: {place} is in use; name another folder, or delete it")


def require_floats(model: nn.Module, what: str) -> None:
    """Refuse a model whose matrices are in fewer bits: no file format of ours holds them.

    Args:
        model: quantised ones say so in `quantized` (`inference.quantize`).
        what: who asks, for the message.

    Raises:
        ValueError: the model is quantised.
    """
    if bits := getattr(model, "quantized", None):
        raise ValueError(
            f"{what}: the model is in {bits}, which can be used but not written; take it in full precision, and "
            f"quantise it when it is loaded: create(..., pretrained=..., quantize={bits!r})"
        )


def write_file(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    Args:
        path: the file to create or replace; its folder is created.
        write: called with the temporary path.

    Raises:
        OSError: a full disk or an unwritable folder; the temporary file is gone and `path` is as it was.
    """
    with atomic_file(path) as temporary:
        write(temporary)
    return Path(path)


def write_folder(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary folder beside `path`, then put it in the place of `path`.

    Raises:
        OSError: as `write_file`; the old folder, if there was one, is still whole.
    """
    target = Path(path)
    with drafted(target) as temporary:
        write(temporary)
        flush_all(temporary)
        retired = temporary.with_name(temporary.name + ".old")
        if target.exists():
            os.replace(target, retired)
        try:
            os.replace(temporary, target)
        except BaseException:
            if retired.exists():
                os.replace(retired, target)
            raise
    shutil.rmtree(retired, ignore_errors=True)
    return target


def write_safetensors(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Write tensors as one safetensors file; tensors that share memory are written each for itself."""
    from safetensors.torch import save_file

    owned: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in state.items():
        tensor = tensor.detach().cpu()
        storage = tensor.untyped_storage()
        whole = storage.nbytes() == tensor.numel() * tensor.element_size() and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        owned[name] = tensor.contiguous() if whole else tensor.clone(memory_format=torch.contiguous_format)
    return write_file(path, lambda temporary: save_file(owned, temporary, {"format": "pt", **(metadata or {})}))
