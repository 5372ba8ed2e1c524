"""What can be wrong with a checkpoint, one class each, so that a caller can tell the cases apart."""

from __future__ import annotations


class CheckpointError(RuntimeError):
    """Any checkpoint that cannot be used; the message names the file and the way out."""


class MissingCheckpoint(CheckpointError, FileNotFoundError):
    """A file that is not there: a path, a shard of an index, a hub file that is not in the local cache."""


class CorruptCheckpoint(CheckpointError):
    """A file that is truncated, damaged, of another format than its name says, or has another sha256."""


class UnsafeCheckpoint(CheckpointError):
    """A pickle that would run code while being read."""


class UnknownCheckpoint(CheckpointError):
    """Content that no reader recognises; the message lists what was looked for."""


class CheckpointMismatch(CheckpointError):
    """Tensors that do not fit a model: unexpected, missing or misshapen, each listed.

    Args:
        message: the grouped listing.
        unexpected: names of the file (in the file's own naming) that the model has no place for.
        missing: the model's names that the file does not fill.
        misshapen: the model's names with the shape found in the file and the shape that the model needs.
    """

    def __init__(
        self,
        message: str,
        unexpected: tuple[str, ...] = (),
        missing: tuple[str, ...] = (),
        misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = (),
    ) -> None:
        super().__init__(message)
        self.unexpected = unexpected
        self.missing = missing
        self.misshapen = misshapen
