"""Pre-emption: SIGTERM, by which schedulers take machines back, ends a run behind a whole step that is saved.

Lightning's own handler sends messages among the processes from wherever the signal finds them, where they can meet
those of a step. Here the handler only takes a note, and the processes agree behind each optimiser step.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import lightning
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import distributed as dist

from multimodal_zoo.nn.processes import world_size

#: Exit status of a run that SIGTERM has ended, as a shell gives it.
STATUS = 128 + signal.SIGTERM


class Preemption:
    """Whether this run was asked to stop.

    Attributes:
        noted: whether this process has received SIGTERM.
    """

    def __init__(self) -> None:
        self.noted = False

    def watch(self) -> None:
        """Take SIGTERM until the trainer gives the handlers back; only a main thread can."""
        self.noted = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, frame: setattr(self, "noted", True))

    def agreed(self, device: torch.device) -> bool:
        """Whether any process was asked; all of them must call this.

        Args:
            device: where the processes exchange tensors.
        """
        if world_size() == 1:
            return self.noted
        noted = torch.tensor(float(self.noted), device=device)
        dist.all_reduce(noted, dist.ReduceOp.MAX)
        return bool(noted)


def stop(trainer: lightning.Trainer) -> None:
    """Let Lightning leave its loops once the step is logged, as it does for its own handler; all processes together."""
    trainer._signal_connector.received_sigterm = True


@contextmanager
def exit_status(primary: bool) -> Iterator[None]:
    """Training inside ends the process with `STATUS` if it was pre-empted: Lightning's exception alone means success.

    Args:
        primary: whether this is the first process; Lightning takes another status of the others for a crash.

    Raises:
        SystemExit: the run was pre-empted.
    """
    try:
        yield
    except SIGTERMException:
        raise SystemExit(STATUS if primary else 0) from None
