"""`mmzoo app [FOLDER ...] [port=7860 ...]`: a page on which the models of some folders are tried by hand."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from multimodal_zoo.commands.options import separate

if TYPE_CHECKING:
    from multimodal_zoo.gallery.showroom import Showroom

#: What is looked through where no folder is named.
RUNS = "runs"


@dataclass(frozen=True)
class Options:
    """What may stand behind the folders, `key=value`.

    Attributes:
        port: of the page.
        host: the address that is listened on; others than this machine's own open the page to the network.
        open: whether a browser is opened.
        device: where models run.
        threads: CPU threads of torch; None leaves torch's own choice.
        allow_random: whether models whose weights were never trained are shown.
        megabytes: of an uploaded file.
        megapixels: of an uploaded picture.
        seconds: that one answer or drawing may take.
        jobs: requests worked on at once.
        waiting: requests that may wait.
        models: that stay in memory.
    """

    port: int = 7860
    host: str = "127.0.0.1"
    open: bool = False
    device: str = "cpu"
    threads: int | None = None
    allow_random: bool = False
    megabytes: int = 20
    megapixels: int = 40
    seconds: int = 300
    jobs: int = 1
    waiting: int = 16
    models: int = 2


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

    from multimodal_zoo.gallery.page import gradio
    from multimodal_zoo.gallery.server import is_loopback, serving

    gradio()  # before models are looked for, which takes longer
    if options.threads is not None:
        import torch

        torch.set_num_threads(options.threads)
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
    from multimodal_zoo.gallery.limits import Limits
    from multimodal_zoo.gallery.shelf import Shelf
    from multimodal_zoo.gallery.showroom import Showroom

    names = ("megabytes", "megapixels", "seconds", "jobs", "waiting", "models")
    limits = Limits(**{name: getattr(options, name) for name in names})
    shelf = Shelf(folders, limits.models, options.device, options.allow_random)
    return Showroom(shelf, Albums(folders, limits.album), limits, scratch.resolve())
