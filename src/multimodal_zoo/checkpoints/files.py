"""Reading tensors from files without running anything that a file contains.

safetensors are memory-mapped; pickles (.pt, .pth, .bin, .ckpt) are read with `weights_only=True` and memory-mapped
where their format allows; TorchScript archives give up their tensors, never their code. Sharded checkpoints are read
one shard at a time, so that no process holds the whole. GGUF files give float32, block by block.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multimodal_zoo.checkpoints.errors import CheckpointError, CorruptCheckpoint, UnknownCheckpoint, UnsafeCheckpoint
from multimodal_zoo.checkpoints.gguf import gguf_shapes, gguf_shards
from multimodal_zoo.checkpoints.locate import is_index, read_index, resolve, weight_files
from multimodal_zoo.files import reading

State = dict[str, Tensor]
#: Entries under which training programs store the weights, in the order tried.
WRAPPERS = ("state_dict", "model", "module")
#: How many times its size a zip may unpack to.
UNPACKED = 64


def read_state_dict(path: str | Path) -> State:
    """All tensors of a checkpoint by name, unwrapped (`unwrap`); memory-mapped wherever the format allows.

    Args:
        path: a file, an index, a folder or `hf://organisation/repository[/file]`.

    Raises:
        MissingCheckpoint, CorruptCheckpoint, UnsafeCheckpoint, UnknownCheckpoint: see there.
    """
    state: State = {}
    for shard in iterate_shards(path):
        state.update(shard)
    return state


def iterate_shards(path: str | Path, *, passing: Callable[[str], bool] | None = None) -> Iterator[State]:
    """The tensors of a checkpoint, one file at a time; drop each before taking the next to bound the memory.

    Args:
        path: as in `read_state_dict`.
        passing: says of a name whether its tensor is dropped soon while others of the file stay. Such tensors come
            from a second mapping of the file, which goes with the last of them: the pages of one mapping stay in memory
            as long as any of its tensors does.

    Raises:
        CorruptCheckpoint: besides what reading a file raises, shards that do not hold what their index says.
    """
    local = resolve(path)
    index = _index_of(local)
    placed = read_index(index) if index is not None else None
    for file in weight_files(local):
        if file.suffix == ".gguf":
            yield from gguf_shards(file)
            continue
        state = _mapped(file, passing)
        if placed is not None:
            said = {name for name, shard in placed.items() if shard == file.name}
            if said != set(state):
                differing = sorted(said ^ set(state))
                raise CorruptCheckpoint(
                    f"{file}: disagrees with {index} about {len(differing)} tensors: {differing[:5]}"
                )
        yield state


def _mapped(file: Path, passing: Callable[[str], bool] | None) -> State:
    """The tensors of one file, those that pass in a mapping of their own."""
    state = unwrap(read_file(file), file)
    soon = [name for name in state if passing is not None and passing(name)]
    if soon and len(soon) < len(state) and _is_mapped(file):
        again = unwrap(read_file(file), file)
        state.update({name: again[name] for name in soon})
    return state


def manifest(path: str | Path) -> State:
    """Names, shapes and dtypes of a checkpoint as tensors on the meta device: no tensor's data is read."""
    state: State = {}
    for file in weight_files(path):
        state.update(unwrap(read_file(file, device="meta"), file))
    return state


def read_file(path: Path, *, device: str = "cpu") -> dict[str, Any]:
    """The content of one file as it is: nothing unwrapped.

    Args:
        path: a local file of one of the suffixes that `weight_files` accepts.
        device: where the tensors go; `meta` gives shapes only.

    Raises:
        CorruptCheckpoint, UnsafeCheckpoint: see there.
    """
    if path.stat().st_size == 0:
        raise CorruptCheckpoint(f"{path}: the file is empty")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, device)
    if path.suffix == ".gguf":
        whole = (item for shard in gguf_shards(path) for item in shard.items())
        return gguf_shapes(path) if device == "meta" else dict(whole)
    return _read_pickle(path, device)


def unwrap(content: Mapping[str, Any], path: str | Path = "checkpoint") -> State:
    """The mapping of names to tensors inside what a training program stored, without a leading `module.`.

    Non-tensor entries beside tensors (OpenAI's files carry three integers) become scalar tensors, so that the naming
    has to account for them too.

    Raises:
        UnknownCheckpoint: no mapping with tensors is found.
    """
    for _ in range(len(WRAPPERS)):
        inner = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = content[inner]
    state: State = {}
    with reading(path, "mapping of names to tensors", kind=CorruptCheckpoint):  # whole numbers may be of any length
        for name, value in content.items():
            if isinstance(value, Tensor):
                state[str(name)] = value.detach()
            elif isinstance(value, (int, float)):
                state[str(name)] = torch.tensor(value)
    if not any(value.ndim for value in state.values()):
        keys = ", ".join(str(key) for key in list(content)[:8]) or "nothing"
        raise UnknownCheckpoint(
            f"{path}: looked for tensors by name, also under {', '.join(WRAPPERS)}; the file's entries are: {keys}"
        )
    strip = all(name.startswith("module.") for name in state)
    return {name.removeprefix("module.") if strip else name: value for name, value in state.items()}


def _index_of(local: Path) -> Path | None:
    if is_index(local):
        return local
    if local.is_dir():
        first = weight_files(local)[0]
        for index in sorted(path for path in local.iterdir() if is_index(path)):
            if first.name in read_index(index).values():
                return index
    return None


def _read_safetensors(path: Path, device: str) -> State:
    from safetensors import safe_open

    with (
        reading(path, "complete safetensors file", kind=CorruptCheckpoint),
        safe_open(path, framework="pt", device="cpu") as file,
    ):
        if device == "meta":
            return {name: _shape_only(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


def _shape_only(piece: Any) -> Tensor:
    return torch.empty(piece.get_shape(), dtype=_DTYPES[piece.get_dtype()], device="meta")


def _read_pickle(path: Path, device: str) -> dict[str, Any]:
    with reading(path, "complete PyTorch file", kind=CorruptCheckpoint, passing=(CheckpointError,)):
        content = _unpickled(path, device)
    if isinstance(content, Mapping):
        return dict(content)
    raise UnknownCheckpoint(f"{path}: looked for a mapping of names to tensors, found {type(content).__name__}")


def _unpickled(path: Path, device: str) -> Any:
    is_zip = zipfile.is_zipfile(path)
    if is_zip and _is_script(path):
        from multimodal_zoo.checkpoints.scripted import read_scripted

        return read_scripted(path, device)
    try:
        with warnings.catch_warnings():  # a foreign pickle protocol either reads or raises; the warning adds nothing
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location=device, weights_only=True, mmap=is_zip and device != "meta")
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error), is_zip) from error


def _is_mapped(path: Path) -> bool:
    return path.suffix == ".safetensors" or (zipfile.is_zipfile(path) and not _is_script(path))


def _is_script(path: Path) -> bool:
    """Whether a zip is a TorchScript archive.

    Raises:
        CorruptCheckpoint: it would unpack to far more than it is; weights are stored as they are, and programs shrink
            to a tenth.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked, most = sum(one.file_size for one in archive.infolist()), UNPACKED * path.stat().st_size
        if unpacked > most:
            raise CorruptCheckpoint(f"{path}: would unpack to {unpacked:,} bytes; at most {most:,} are expected of it")
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _refusal(path: Path, message: str, is_zip: bool) -> CheckpointError:
    named = re.findall(r"GLOBAL ([\w.]+)", message)
    if is_zip:
        with contextlib.suppress(Exception):  # damaged bytes may raise anything
            named = torch.serialization.get_unsafe_globals_in_checkpoint(path) or named
    if not named and not re.search(r"(?i)unsupported|blocked|weights.only", message):
        return CorruptCheckpoint(f"{path}: not a readable pickle ({message.splitlines()[0]}); download it again")
    if not named and "Unsupported" not in message and "GLOBAL" not in message:
        return CorruptCheckpoint(f"{path}: not a readable pickle; it is damaged or no PyTorch file: download it again")
    what = ", ".join(dict.fromkeys(named)) or "an unsupported pickle instruction"
    return UnsafeCheckpoint(
        f"{path}: refused: reading this pickle would load {what}, which can run code. Ask its author for a safetensors "
        f"file; if you trust the file, convert it apart: torch.load(..., weights_only=False), then "
        f"safetensors.torch.save_file of its tensors"
    )
