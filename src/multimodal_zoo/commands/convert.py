"""`mmzoo convert SOURCE out=FOLDER naming=NAME [option=value ...]`: a checkpoint under other names."""

from __future__ import annotations

import re
from pathlib import Path

#: Options of the command.
OPTIONS = ("out", "naming", "config", "dtype", "shard_size", "format", "resize", "merge")


def main(arguments: list[str]) -> int:
    """Read a checkpoint, whoever wrote it, and write it under the names that somebody else reads.

    `naming` is `ours` or a published one; `config` as in `zoo.from_pretrained`; `dtype` is the file's own unless given;
    `shard_size` as in `shard_size=2GB`; `format=pt` writes one pickled file; `resize=true` fits positions and patches
    to `config`; `merge=true` puts adapters into the matrices beside them.

    Raises:
        ValueError: a missing or unknown option, or one whose value does not fit.
        multimodal_zoo.checkpoints.errors.CheckpointError: what cannot be read, or what the naming cannot express.
    """
    if not arguments or ("=" in arguments[0] and not Path(arguments[0]).exists()):
        raise ValueError("mmzoo convert needs a file, folder or hf:// name first")
    source, *words = arguments
    options = {key: value for key, _, value in (word.partition("=") for word in words)}
    if unknown := [key for key in options if key not in OPTIONS]:
        raise ValueError(f"{', '.join(unknown)}: no such option; mmzoo convert takes {', '.join(OPTIONS)}")
    from multimodal_zoo.checkpoints.convert import SHARD_SIZE, merged, names, write_published
    from multimodal_zoo.zoo import from_pretrained

    missing = [key for key in ("out", "naming") if not options.get(key)]
    if missing:
        raise ValueError(f"{' and '.join(missing)}: give out=FOLDER naming=NAME, NAME one of {', '.join(names())}")
    if options["naming"] not in names():
        raise ValueError(f"naming={options['naming']}: expected one of {', '.join(names())}")
    for word in ("resize", "merge"):
        if options.get(word, "false") not in ("true", "false"):
            raise ValueError(f"{word}={options[word]}: expected true or false")
    model = from_pretrained(
        source,
        config=options.get("config"),
        dtype=options.get("dtype", "auto"),
        resize=options.get("resize") == "true",
    )
    if options.get("merge") == "true":
        merged(model)
    folder = write_published(
        model,
        options["out"],
        options["naming"],
        shard_size=_bytes(options["shard_size"]) if "shard_size" in options else SHARD_SIZE,
        format=options.get("format", "safetensors"),
    )
    for file in sorted(folder.iterdir()):
        print(f"{file.name:<40} {file.stat().st_size / 1e6:12,.1f} MB")
    print(f"folder: {folder.resolve()}")
    return 0


def _bytes(value: str) -> int:
    found = re.fullmatch(r"([\d.]+)\s*(GB|GiB|MB|MiB)", value)
    if not found or float(found[1]) <= 0:
        raise ValueError(f"shard_size={value}: expected a number with GB, GiB, MB or MiB, as in 5GB")
    return int(float(found[1]) * {"GB": 1e9, "GiB": 2**30, "MB": 1e6, "MiB": 2**20}[found[2]])
