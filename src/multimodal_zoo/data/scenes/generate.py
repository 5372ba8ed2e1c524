"""A synthetic data set in the nuScenes format: scenes that are drawn, not recorded, for training and tests anywhere."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from multimodal_zoo.data.scenes.contact_sheet import contact_sheet
from multimodal_zoo.data.scenes.recording import Recording
from multimodal_zoo.data.scenes.rig import CAMERAS, LIDAR
from multimodal_zoo.data.scenes.settings import KEY_RATE, VERSION, Settings
from multimodal_zoo.data.scenes.tables import TABLES, Tables, shared_tables
from multimodal_zoo.files import drafted, read_record

__all__ = ["SHEET", "Settings", "generate"]

#: Picture of the first scene, in the data set's folder.
SHEET = "contact_sheet.png"
#: What the set was made from, beside the tables.
RECORD = "settings.json"
#: The devkit opens a picture of the map; nothing is on ours.
MASK = "maps/synthetic.png"


def generate(folder: str | Path, settings: Settings, workers: int = 1) -> Path:
    """Make a data set, or keep the one that the same settings have made there.

    All files are written beside the folder and moved there at the end: an interrupted call leaves nothing behind.

    Args:
        folder: new, or empty.
        settings: what to make.
        workers: processes; they change no byte.

    Returns:
        the folder.

    Raises:
        FileExistsError: the folder holds something else.
        ValueError: no worker, or a damaged record in the folder.
        OSError: a full disk or an unwritable folder.
    """
    if workers < 1:
        raise ValueError(f"workers={workers}: expected at least 1")
    target = Path(folder).expanduser()
    if _made(target, settings):
        return target
    with drafted(target) as temporary:
        _write(temporary, settings, workers)
        _place(temporary, target, settings)
    return target


def _place(temporary: Path, target: Path, settings: Settings) -> None:
    try:
        os.replace(temporary, target)
    except OSError:  # another process was faster; its bytes are the same
        if not _made(target, settings):
            raise


def _made(target: Path, settings: Settings) -> bool:
    """Whether the folder holds what the settings make.

    Raises:
        FileExistsError: it holds something else.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    record = target / VERSION / RECORD
    found = read_record(record) if record.is_file() else None
    if found == asdict(settings):
        return True
    what = "is not empty" if found is None else f"holds a data set of other settings ({_words(found)})"
    raise FileExistsError(f"{target} {what}; choose another folder, or delete it")


def _words(record: dict[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in record.items())


def _write(folder: Path, settings: Settings, workers: int) -> None:
    for kind in ("samples", "sweeps"):
        for camera in CAMERAS:
            (folder / kind / camera.channel).mkdir(parents=True)
    (folder / "samples" / LIDAR).mkdir()
    (folder / VERSION).mkdir()
    (folder / MASK).parent.mkdir()
    tables: Tables = {name: [] for name in TABLES}
    for found in _recorded(folder, settings, workers):
        for name, rows in found.items():
            tables[name] += rows
    tables |= shared_tables(tables["log"], MASK)
    for name, rows in tables.items():
        _write_json(folder / VERSION / f"{name}.json", rows)
    _write_json(folder / VERSION / "splits.json", settings.split())
    _write_json(folder / VERSION / RECORD, asdict(settings))
    Image.new("L", (16, 16)).save(folder / MASK)
    middle = (settings.frames - 1) // 2 / KEY_RATE
    contact_sheet(Recording.drawn(folder, 0, settings), middle).save(folder / SHEET)


def _recorded(folder: Path, settings: Settings, workers: int) -> Iterator[Tables]:
    """Record all scenes, in this process or in several, with a bar that counts them."""
    from rich.progress import track

    words = [(folder, number, settings) for number in range(settings.scenes)]
    if workers == 1:
        yield from track(map(_record, words), "drawing scenes", total=len(words), transient=True)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from track(pool.map(_record, words), "drawing scenes", total=len(words), transient=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _record(words: tuple[Path, int, Settings]) -> Tables:
    return Recording.drawn(*words).record()


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")
