"""The run folder: checked before training starts, so that nothing fails after hours of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from torch import nn

from multimodal_zoo.training.rank_state import rank_buffers


def run_bytes(model: nn.Module, averaged: bool, keep: int, folder: Path, ranks: int = 1) -> int:
    """Estimated size of what a run has still to write: its checkpoints and the exported model.

    Args:
        model: everything that is saved.
        averaged: whether a moving average is kept.
        keep: checkpoints that are kept; while one is written it lies beside all of them. 0 writes none.
        folder: the run folder, which may hold some already.
        ranks: processes that train together.
    """
    there = len(list(folder.glob("checkpoints/step_*.ckpt")))
    copies = max(1, keep + 1 - there) if keep else 0
    exported = sum(p.numel() * p.element_size() for p in model.parameters())
    return copies * checkpoint_bytes(model, averaged, ranks=ranks) + exported


def checkpoint_bytes(model: nn.Module, averaged: bool, moments: int = 2, ranks: int = 1) -> int:
    """Estimated size of one checkpoint.

    Args:
        model: everything that is saved.
        averaged: whether a moving average is kept.
        moments: tensors per trained parameter in the optimiser; Adam and LAMB have two.
        ranks: processes that train together, each with the buffers that are its own.
    """
    values = [p.numel() * p.element_size() for p in model.parameters()]
    state = sum(values) + sum(b.numel() * b.element_size() for b in model.buffers())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    own = sum(buffer.numel() * buffer.element_size() for buffer in rank_buffers(model).values())
    return state * (2 if averaged else 1) + trained * moments + (ranks - 1) * own


def check_run_folder(folder: Path, needed: int) -> None:
    """Make sure that a run can write where it is told to.

    Args:
        folder: created if it does not exist.
        needed: bytes that must be free.

    Raises:
        PermissionError, NotADirectoryError, OSError: it cannot be created or written, or the disk is too full; the
            message names the path and the key `run.dir`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise type(error)(
            f"run folder {folder} cannot be written: {error.strerror or error}; choose another with run.dir=PATH"
        ) from None
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"run folder {folder}: {free / 2**20:,.0f} MiB free, but the checkpoints and the model need "
            f"{needed / 2**20:,.0f} MiB; free some space or choose another disk with run.dir=PATH"
        )


def find_checkpoint(resume: str | None, folder: Path) -> Path | None:
    """The checkpoint to continue from.

    Args:
        resume: the recipe's `resume`: None starts anew; `last` continues the newest checkpoint of `folder`; `auto`
            does so if there is one and starts anew otherwise; anything else is the path of a checkpoint or run folder.
        folder: this run's folder.

    Raises:
        FileNotFoundError: what was asked for, or what `last.ckpt` points to, is not there.
        FileExistsError: a fresh start would mix with the checkpoints of an earlier run.
    """
    own = folder / "checkpoints" / "last.ckpt"
    if resume in (None, "auto", "last") and own.is_symlink() and not own.exists():
        raise FileNotFoundError(
            f"{own} points to {os.readlink(own)}, which is gone: give resume=PATH of another checkpoint, or delete it"
        )
    if resume is None:
        if own.exists():
            raise FileExistsError(
                f"{folder} holds the checkpoints of an earlier run: continue it with resume=auto, or choose another "
                "run.dir"
            )
        return None
    if resume in ("auto", "last"):
        if own.exists():
            return own.resolve()
        if resume == "auto":
            return None
        raise FileNotFoundError(f"resume=last: no {own}; set run.dir to the run's folder, or use resume=PATH")
    path = Path(resume)
    for candidate in (path / "checkpoints" / "last.ckpt", path):
        if candidate.is_file() or (candidate.is_dir() and (candidate / "meta.pt").exists()):
            return candidate.resolve()
    raise FileNotFoundError(f"resume: no checkpoint at {path}; give null, auto, last, a .ckpt file or a run folder")
