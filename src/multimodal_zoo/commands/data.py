"""`mmzoo data KIND FOLDER [options]`: data that is made here.

`synth-nuscenes FOLDER [scenes=N frames=N size=WxH seed=N rate=N workers=N]` draws driving scenes;
`emoji-captions FOLDER [rows=N seed=N style=NAME split=NAME]` writes emoji with captions to fuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from multimodal_zoo.commands.names import MADE_DATA
from multimodal_zoo.commands.values import whole

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
    if kind not in KINDS:
        raise ValueError(
            f"mmzoo data {kind or 'needs a kind'}: expected {', '.join(KINDS)}\nusage: {' or '.join(USAGES.values())}"
        )
    return KINDS[kind](rest)


def synth_nuscenes(words: list[str]) -> int:
    """Make synthetic scenes in the nuScenes format, and say where they are.

    Raises:
        ValueError, FileExistsError: see `main`.
    """
    folder, options = _words("synth-nuscenes", words)

    from multimodal_zoo.data.scenes.generate import SHEET, Settings, generate
    from multimodal_zoo.data.scenes.settings import VERSION

    numbers = _numbers(options)
    workers = numbers.pop("workers", 1)
    settings = Settings(**numbers)
    made = generate(Path(folder), settings, workers).resolve()
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
    folder, options = _words("emoji-captions", words)

    from multimodal_zoo.data.emoji_captions import write_captions

    style, split = options.pop("style", "twemoji"), options.pop("split", "all")
    numbers = _numbers(options)
    shards, rows = write_captions(folder, numbers.get("rows"), numbers.get("seed", 0), style, split)
    print(f"{rows} pictures with raw and synthetic captions in {len(shards)} shards: {Path(folder).resolve()}")
    print(f"fuse them: mmzoo fuse {folder}")
    return 0


def _words(kind: str, words: list[str]) -> tuple[str, dict[str, str]]:
    """The folder and the options.

    Raises:
        ValueError: no folder, or an option that the kind has not.
    """
    if not words or "=" in words[0]:
        raise ValueError(f"mmzoo data {kind} needs a folder first\nusage: {USAGES[kind]}")
    folder, *more = words
    options = dict(one.partition("=")[::2] for one in more)
    known = MADE_DATA[kind]
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(f"mmzoo data {kind} has no option {unknown[0]}; it takes {', '.join(known)}")
    return folder, options


def _numbers(options: Mapping[str, str]) -> dict[str, int]:
    """Options as numbers, a size as two.

    Raises:
        ValueError: one that is no whole number, or no size.
    """
    found: dict[str, int] = {}
    for key, value in options.items():
        if key == "size":
            size = re.fullmatch(r"(\d+)x(\d+)", value)
            if size is None:
                raise ValueError(f"size={value}: expected WIDTHxHEIGHT in pixels, as 400x225")
            found["width"], found["height"] = int(size[1]), int(size[2])
        else:
            found[key] = whole(key, value)
    return found


#: Kinds of data -> what makes them.
KINDS: dict[str, Callable[[list[str]], int]] = {"synth-nuscenes": synth_nuscenes, "emoji-captions": emoji_captions}
