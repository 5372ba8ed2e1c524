"""`mmzoo data KIND FOLDER [options]`: data that is made here.

`synth-nuscenes FOLDER [scenes=N frames=N size=WxH seed=N rate=N workers=N]` draws driving scenes;
`emoji-captions FOLDER [rows=N seed=N style=NAME split=NAME]` writes emoji with captions to fuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from multimodal_zoo.commands.options import separate

T = TypeVar("T")


@dataclass(frozen=True)
class Scenes:
    """Options of driving scenes; None where the maker has its own.

    Attributes:
        scenes: how many are drawn.
        frames: key frames of each.
        size: of the pictures, WIDTHxHEIGHT in pixels.
        seed: of everything.
        rate: pictures a second.
        workers: processes that draw.
    """

    scenes: int = 24
    frames: int = 20
    size: str = "400x225"
    seed: int = 0
    rate: int = 2
    workers: int = 1


@dataclass(frozen=True)
class Captions:
    """Options of emoji with captions.

    Attributes:
        rows: how many; each emoji once if left out.
        seed: of the captions.
        style: of the pictures.
        split: which emoji.
    """

    rows: int | None = None
    seed: int = 0
    style: str = "twemoji"
    split: str = "all"


#: Kinds of data -> their options.
OPTIONS: dict[str, type[Any]] = {"synth-nuscenes": Scenes, "emoji-captions": Captions}
USAGES = {
    "synth-nuscenes": "mmzoo data synth-nuscenes FOLDER [scenes=24 frames=20 size=400x225 seed=0 rate=2 workers=1]",
    "emoji-captions": "mmzoo data emoji-captions FOLDER [rows=1914 seed=0 style=twemoji split=all]",
}


def main(arguments: list[str]) -> int:
    """Make a data set.

    Raises:
        ValueError: no such kind of data, no folder, an option that there is not or that is no number.
        FileExistsError: the folder holds something else.
    """
    kind, *rest = arguments or [""]
    if kind not in OPTIONS:
        raise ValueError(
            f"mmzoo data {kind or 'needs a kind'}: expected {', '.join(OPTIONS)}\nusage: {' or '.join(USAGES.values())}"
        )
    makers: dict[str, Callable[[list[str]], int]] = {"synth-nuscenes": synth_nuscenes, "emoji-captions": emoji_captions}
    return makers[kind](rest)


def synth_nuscenes(words: list[str]) -> int:
    """Make synthetic scenes in the nuScenes format, and say where they are.

    Raises:
        ValueError, FileExistsError: see `main`.
    """
    folder, options = _folder("synth-nuscenes", words, Scenes)
    size = re.fullmatch(r"(\d+)x(\d+)", options.size)
    if size is None:
        raise ValueError(f"size={options.size}: expected WIDTHxHEIGHT in pixels, as 400x225")

    from multimodal_zoo.data.scenes.generate import SHEET, Settings, generate
    from multimodal_zoo.data.scenes.settings import VERSION

    settings = Settings(
        scenes=options.scenes,
        frames=options.frames,
        width=int(size[1]),
        height=int(size[2]),
        seed=options.seed,
        rate=options.rate,
    )
    made = generate(folder, settings, options.workers).resolve()
    split = settings.split()
    print(f"{VERSION}: {len(split['train'])} scenes for training, {len(split['val'])} for validation: {made}")
    print(f"what they look like: {made / SHEET}")
    return 0


def emoji_captions(words: list[str]) -> int:
    """Write emoji with raw and synthetic captions as tar shards, and say what to do with them.

    Raises:
        ValueError, FileExistsError: see `main`.
        ModuleNotFoundError: the packages of the extra `quickstart` are not installed.
    """
    folder, options = _folder("emoji-captions", words, Captions)

    from multimodal_zoo.data.emoji_captions import write_captions

    shards, rows = write_captions(str(folder), options.rows, options.seed, options.style, options.split)
    print(f"{rows} pictures with raw and synthetic captions in {len(shards)} shards: {folder.resolve()}")
    print(f"fuse them: mmzoo fuse {folder}")
    return 0


def _folder(kind: str, arguments: list[str], options: type[T]) -> tuple[Path, T]:
    """The folder and the options.

    Raises:
        ValueError: no folder or several, or an option that the kind has not.
    """
    words, found = separate(arguments, options)
    if len(words) != 1:
        raise ValueError(f"mmzoo data {kind} needs one folder, and got {len(words)}\nusage: {USAGES[kind]}")
    return Path(words[0]), found
