"""`mmzoo app [FOLDER ...] [port=7860 ...]`: a page on which the models of some folders are tried by hand."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal_zoo.commands.options import separate
from multimodal_zoo.gallery.limits import Limits

if TYPE_CHECKING:
    from multimodal_zoo.gallery.showroom import Showroom

#: What is looked through where no folder is named.
RUNS = "runs"


@dataclass(frozen=True)
class Options(Limits):
    """What may stand behind the folders, `key=value`: `Limits`, and how the page is served.

    Attributes:
        port: of the page; 0 takes any free one.
        host: the address that is listened on; others than this machine's own open the page to the network.
        open: whether a browser is opened.
        device: where models run.
        threads: CPU threads of torch; None leaves torch's own choice.
        allow_random: whether models whose weights were never trained are shown.

    Raises:
        ValueError: a limit below 1, or a port that there is not.
    """

    port: int = 7860
    host: str = "127.0.0.1"
    open: bool = False
    device: str = "cpu"
    threads: int | None = None
    allow_random: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.port < 2**16:
            raise ValueError(f"port={self.port}: expected 0 to {2**16 - 1}; 0 takes any free one")


OPTIONS = {"options": Options}


def main(arguments: list[str]) -> int:
    """Serve the page until it is interrupted.

    Raises:
        ValueError: an unknown option, or a value that does not fit.
        FileNotFoundError: no such folder.
        ModuleNotFoundError: Gradio is not installed.
        OSError: the port is taken.
    """
    words, options = separate(arguments, Options)
    folders = _folders(words)

    import tempfile

    from multimodal_zoo.commands.machine import device_of, use_threads
    from multimodal_zoo.gallery.page import GRADIO
    from multimodal_zoo.gallery.server import is_loopback, serving
    from multimodal_zoo.packages import needed

    needed(*GRADIO)  # before models are looked for, which takes longer
    device_of(options.device)
    use_threads(options.threads)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # the folder goes then too
    try:
        with tempfile.TemporaryDirectory(prefix="mmzoo-app-") as scratch:
            room = showroom(folders, options, Path(scratch))
            if not is_loopback(options.host):
                print(
                    f"warning: host={options.host} opens this page to the network, without a password: whoever reaches "
                    "it can use these models and the processor"
                )
            with serving(room, options.host, options.port, options.open) as url:
                print(f"{len(room.shelf.entries)} models, {len(room.albums.albums)} sets of pictures: {url}")
                print("Ctrl+C ends it", flush=True)
                while True:
                    time.sleep(3600)
    except KeyboardInterrupt:
        print("ended")
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _folders(words: list[str]) -> list[Path]:
    """The folders that are named, or that of the runs if there is one."""
    if not words:
        return [Path(RUNS)] if Path(RUNS).is_dir() else []
    for word in words:
        if not Path(word).is_dir():
            raise FileNotFoundError(f"{word}: no such folder; mmzoo app takes folders of runs, models and pictures")
    return [Path(word) for word in words]


def showroom(folders: list[Path], options: Options, scratch: Path) -> Showroom:
    """What the page shows.

    Args:
        folders: of runs, models and pictures.
        options: of the command.
        scratch: a folder of its own.
    """
    from multimodal_zoo.gallery.albums import Albums
    from multimodal_zoo.gallery.shelf import Shelf
    from multimodal_zoo.gallery.showroom import Showroom

    shelf = Shelf(folders, options.models, options.device, options.allow_random)
    return Showroom(shelf, Albums(folders, options.album), options, scratch.resolve())
