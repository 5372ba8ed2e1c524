"""Where a checkpoint's files are: local paths, folders with shards, `hf://` names in the hub's local cache."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from multimodal_zoo.addresses import PACKAGE, packaged
from multimodal_zoo.catalogue import list_models
from multimodal_zoo.checkpoints.errors import CorruptCheckpoint, MissingCheckpoint, UnknownCheckpoint
from multimodal_zoo.files import parsed, reading

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pth.tar")
SUFFIXES = (".safetensors", ".gguf", *PICKLES)
#: Weight files that a folder is known by, in order of preference: safetensors before pickles, whole before sharded.
FOLDER_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
)
#: Words such as bf16 that publishers put into names of copies: before the suffix, of an index before the last one.
COPY = r"\.\w+"


def resolve(path: str | Path) -> Path:
    """A local path for `path`, which may be `hf://organisation/repository[@revision][/file]` or `package:NAME[/file]`.

    A hub name is looked up in huggingface_hub's cache and downloaded where a connection is allowed. A package is an
    installed one that holds a weight file; it is not imported.

    Raises:
        MissingCheckpoint: nothing there; for a hub name the message says what to download and where to put it, for a
            package how to install it.
    """
    text = str(path)
    if text.startswith(PACKAGE):
        try:
            return packaged(text, SUFFIXES)
        except (FileNotFoundError, ValueError) as error:
            raise MissingCheckpoint(str(error)) from error
    if text.startswith("hf://"):
        return _resolve_hub(text)
    if "://" in text:
        raise MissingCheckpoint(
            f"{text!r}: only local paths, hf://organisation/repository/file and package:NAME are read"
        )
    local = Path(text).expanduser()
    if not local.exists():
        hint = f"; the folder {local.parent} does not exist"
        if local.parent.is_dir():
            near = sorted(one.name for one in local.parent.iterdir())[:10]
            hint = f"; its folder holds {', '.join(near) or 'nothing'}"
        if text in list_models():
            hint = f", but a variant: multimodal_zoo.create({text!r}, pretrained=...) reads weights into it"
        raise MissingCheckpoint(f"no checkpoint at {local}{hint if local.parent != local else ''}")
    return local


def _resolve_hub(name: str) -> Path:
    from huggingface_hub import constants, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    parts = name.removeprefix("hf://").split("/", 2)
    if len(parts) < 2 or not all(parts[:2]):
        raise MissingCheckpoint(f"{name!r} is not of the form hf://organisation/repository[@revision][/file]")
    repository, _, revision = "/".join(parts[:2]).partition("@")
    file = parts[2] if len(parts) == 3 and parts[2] else None
    try:
        if file:
            return Path(hf_hub_download(repository, file, revision=revision or None))
        wanted = ["*.json", "*.safetensors", "*.bin", "*.tiktoken", "*.txt", "*.model"]
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=wanted))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        what = f"hf download {repository}{f' {file}' if file else ''}{f' --revision {revision}' if revision else ''}"
        raise MissingCheckpoint(
            f"{name}: not in the local cache ({constants.HF_HUB_CACHE}) and not downloadable here "
            f"({type(error).__name__}). On a machine with a connection run `{what}`, then copy the "
            f"cache folder here (or point HF_HUB_CACHE to it), or pass the downloaded file's local path instead"
        ) from error


def weight_files(path: str | Path) -> list[Path]:
    """The files that hold the tensors of a checkpoint, in order: one file, or the shards of an index.

    Args:
        path: a file, an index (`*.index.json`), a folder with one of `FOLDER_NAMES`, or an `hf://` name.

    Raises:
        MissingCheckpoint: the path, or a shard that an index names, does not exist.
        UnknownCheckpoint: the file's suffix or the folder's content is none of those read.
        CorruptCheckpoint: an unreadable index, or one that points outside its folder.
    """
    local = resolve(path)
    if local.is_dir():
        found = next((local / name for name in FOLDER_NAMES if (local / name).is_file()), None) or _copy_in(local)
        if found is None:
            candidates = sorted(p for p in local.iterdir() if p.name.endswith(SUFFIXES))
            if len(candidates) != 1:
                names = ", ".join(p.name for p in candidates[:8]) or "none"
                raise UnknownCheckpoint(
                    f"{local}: looked for {', '.join(FOLDER_NAMES)} or exactly one file ending in "
                    f"{', '.join(SUFFIXES)}; weight files there: {names}"
                )
            found = candidates[0]
        local = found
    if is_index(local):
        return [local.parent / shard for shard in dict.fromkeys(read_index(local).values())]
    if not local.name.endswith(SUFFIXES):
        raise UnknownCheckpoint(f"{local}: a weight file ends in {', '.join(SUFFIXES)} or .index.json")
    return [local]


def folder_of(path: Path) -> Path:
    """The folder itself, or the one around a weight file that bears one of the names of a folder's weights."""
    return path.parent if path.name in FOLDER_NAMES else path


def is_index(path: Path) -> bool:
    """Whether a file is named as the index of several others."""
    return re.search(rf"\.index({COPY})?\.json$", path.name) is not None


def _copy_in(folder: Path) -> Path | None:
    """The weights of a folder whose files name a copy, such as `model.bf16.safetensors`."""
    for name in FOLDER_NAMES:
        stem, _, suffix = name.rpartition(".")
        pattern = re.compile(re.escape(stem) + COPY + re.escape(f".{suffix}"))
        found = sorted(one for one in folder.iterdir() if pattern.fullmatch(one.name) and one.name not in FOLDER_NAMES)
        if found:
            return found[0]
    return None


def read_index(index: Path) -> dict[str, str]:
    """Tensor name -> shard file name of a `*.index.json`, checked.

    Raises:
        CorruptCheckpoint: no `weight_map`, or a shard name that leaves the folder.
        MissingCheckpoint: shards that are not there, all of them named.
    """
    with reading(index, "index with a `weight_map` of tensor to file names", kind=CorruptCheckpoint):
        shards = {str(key): str(value) for key, value in parsed(index.read_bytes())["weight_map"].items()}
    outside = sorted({s for s in shards.values() if Path(s).name != s})
    if outside:
        raise CorruptCheckpoint(f"{index}: shard names must lie in the index's own folder, found {outside[:3]}")
    absent = sorted({s for s in shards.values() if not os.path.isfile(index.parent / s)})
    if absent:
        raise MissingCheckpoint(f"{index}: {len(absent)} shard(s) of it are missing: {', '.join(absent[:8])}")
    return shards


def verify(path: Path, sha256: str) -> None:
    """Compare a file's SHA-256 with the one that a card gives.

    Raises:
        CorruptCheckpoint: they differ.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    if digest.hexdigest() != sha256.lower():
        raise CorruptCheckpoint(
            f"{path}: sha256 is {digest.hexdigest()}, the card says {sha256.lower()}; "
            f"the file is incomplete or another version: download it again"
        )
