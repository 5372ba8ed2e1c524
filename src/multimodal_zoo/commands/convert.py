"""`mmzoo convert SOURCE out=FOLDER naming=NAME [option=value ...]`: a checkpoint under other names."""

from __future__ import annotations

from dataclasses import dataclass

from multimodal_zoo.commands.options import separate
from multimodal_zoo.commands.values import size_in_bytes


@dataclass(frozen=True)
class Options:
    """What may stand behind the source, `key=value`.

    Attributes:
        out: folder of the files.
        naming: `ours` or a published one.
        config: as in `zoo.from_pretrained`; None for the source's own.
        dtype: of the weights; `auto` is the file's own.
        shard_size: most bytes of a file, as in `shard_size=2GB`; None for the usual.
        format: `safetensors`, or `pt` for one pickled file.
        resize: whether positions and patches are fitted to `config`.
        merge: whether adapters go into the matrices beside them.
    """

    out: str | None = None
    naming: str | None = None
    config: str | None = None
    dtype: str = "auto"
    shard_size: str | None = None
    format: str = "safetensors"
    resize: bool = False
    merge: bool = False


OPTIONS = {"options": Options}


def main(arguments: list[str]) -> int:
    """Read a checkpoint, whoever wrote it, and write it under the names that somebody else reads.

    Raises:
        ValueError: a missing or unknown option, or one whose value does not fit.
        multimodal_zoo.checkpoints.errors.CheckpointError: what cannot be read, or what the naming cannot express.
    """
    words, options = separate(arguments, Options)
    if len(words) != 1:
        found = f", and got {' and '.join(words)}" if words else ""
        raise ValueError(f"mmzoo convert needs a file, folder or hf:// name{found}; options are key=value")

    from multimodal_zoo.checkpoints.convert import SHARD_SIZE, merged, names, write_published
    from multimodal_zoo.zoo import from_pretrained

    if not options.out or not options.naming:
        missing = [key for key in ("out", "naming") if not getattr(options, key)]
        raise ValueError(f"{' and '.join(missing)}: give out=FOLDER naming=NAME, NAME one of {', '.join(names())}")
    if options.naming not in names():
        raise ValueError(f"naming={options.naming}: expected one of {', '.join(names())}")
    size = SHARD_SIZE if options.shard_size is None else size_in_bytes("shard_size", options.shard_size, 1)
    model = from_pretrained(words[0], config=options.config, dtype=options.dtype, resize=options.resize)
    if options.merge:
        merged(model)
    folder = write_published(model, options.out, options.naming, shard_size=size, format=options.format)
    for file in sorted(folder.iterdir()):
        print(f"{file.name:<40} {file.stat().st_size / 1e6:12,.1f} MB")
    print(f"folder: {folder.resolve()}")
    return 0
