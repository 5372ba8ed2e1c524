"""`mmzoo convert SOURCE out=FOLDER naming=NAME [option=value ...]`: a checkpoint under other names."""

from __future__ import annotations

from pathlib import Path

from multimodal_zoo.commands.values import flag, size_in_bytes

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
    resize, merge = (flag(word, options.get(word, "false")) for word in ("resize", "merge"))
    model = from_pretrained(
        source,
        config=options.get("config"),
        dtype=options.get("dtype", "auto"),
        resize=resize,
    )
    if merge:
        merged(model)
    folder = write_published(
        model,
        options["out"],
        options["naming"],
        shard_size=size_in_bytes("shard_size", options["shard_size"], 1) if "shard_size" in options else SHARD_SIZE,
        format=options.get("format", "safetensors"),
    )
    for file in sorted(folder.iterdir()):
        print(f"{file.name:<40} {file.stat().st_size / 1e6:12,.1f} MB")
    print(f"folder: {folder.resolve()}")
    return 0
