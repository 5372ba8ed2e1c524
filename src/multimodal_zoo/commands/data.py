"""`mmzoo data synth-nuscenes FOLDER [scenes=N frames=N size=WxH seed=N rate=N workers=N]`: data that is made here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from multimodal_zoo.commands.names import MADE_DATA

USAGE = "mmzoo data synth-nuscenes FOLDER [scenes=24 frames=20 size=400x225 seed=0 rate=2 workers=1]"


def main(arguments: list[str]) -> int:
    """Make a data set.

    Raises:
        ValueError: no such kind of data, no folder, an option that there is not or that is no number.
        FileExistsError: the folder holds something else.
    """
    kind, *rest = arguments or [""]
    if kind not in KINDS:
        raise ValueError(f"mmzoo data {kind or 'needs a kind'}: expected {', '.join(KINDS)}\nusage: {USAGE}")
    return KINDS[kind](rest)


def synth_nuscenes(words: list[str]) -> int:
    """Make synthetic scenes in the nuScenes format, and say where they are.

    Raises:
        ValueError, FileExistsError: see `main`.
    """
    if not words or "=" in words[0]:
        raise ValueError(f"mmzoo data synth-nuscenes needs a folder first\nusage: {USAGE}")
    folder, *more = words
    options = dict(one.partition("=")[::2] for one in more)
    known = MADE_DATA["synth-nuscenes"]
    unknown = [key for key in options if key not in known]
    if unknown:
        raise ValueError(f"mmzoo data synth-nuscenes has no option {unknown[0]}; it takes {', '.join(known)}")

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


def _numbers(options: Mapping[str, str]) -> dict[str, int]:
    """Options as arguments of `Settings` and `generate`.

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
        elif value.isdecimal():
            found[key] = int(value)
        else:
            raise ValueError(f"{key}={value}: expected a whole number")
    return found


#: Kinds of data -> what makes them.
KINDS: dict[str, Callable[[list[str]], int]] = {"synth-nuscenes": synth_nuscenes}
