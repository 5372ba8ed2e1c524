"""Videos as storyboards: frames cut out of sheets of thumbnails, and what is said between them (YT-Storyboard-1B)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from multimodal_zoo.data.documents import Document, Image, Segment, Text
from multimodal_zoo.data.pictures import load, open_picture
from multimodal_zoo.data.shard_reader import ShardReader
from multimodal_zoo.data.shards import IMAGE_SUFFIXES, RawSample, decode_text
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.registry import DATASETS

#: Name of a numbered text or picture in a sample.
NUMBERED = re.compile(rf"(\d+)\.({'|'.join(('txt', *IMAGE_SUFFIXES))})")


class Sheet(NamedTuple):
    """A sheet of thumbnails.

    Attributes:
        pixels: uint8 (rows x height, columns x width, 3).
        width: of a thumbnail, pixels.
        height: of a thumbnail, pixels.
        columns: thumbnails side by side.
        rows: thumbnails below each other.
        filled: how many of them are frames.
    """

    pixels: np.ndarray
    width: int
    height: int
    columns: int
    rows: int
    filled: int


class Subtitle(NamedTuple):
    """Words of a video.

    Attributes:
        text: the words.
        start: when they begin, seconds.
    """

    text: str
    start: float


class Storyboard(NamedTuple):
    """Frames and the words between them.

    Attributes:
        frames: uint8 (height, width, 3) each.
        texts: by the number of the frame in front of which they are said; words behind all frames have the next number.
    """

    frames: list[np.ndarray]
    texts: dict[int, str]


def cut_sheet(sheet: Sheet) -> list[np.ndarray]:
    """All thumbnails of a sheet, row by row.

    Raises:
        ValueError: a sheet that is smaller than its thumbnails.
    """
    high, wide = sheet.rows * sheet.height, sheet.columns * sheet.width
    if sheet.pixels.shape[0] < high or sheet.pixels.shape[1] < wide:
        raise ValueError(f"a sheet of {sheet.pixels.shape[:2]} pixels cannot hold thumbnails of {high} x {wide} in all")
    cells = sheet.pixels[:high, :wide].reshape(sheet.rows, sheet.height, sheet.columns, sheet.width, -1)
    return list(cells.swapaxes(1, 2).reshape(-1, sheet.height, sheet.width, sheet.pixels.shape[-1]))


def storyboard(sheets: Sequence[Sheet], duration: float, subtitles: Sequence[Subtitle]) -> Storyboard:
    """Frames of sheets, one every round(duration / frames) seconds, with the words said in front of each (published).

    Args:
        sheets: in order of time. What they hold beyond their counts in all is left out at the end.
        duration: of the video, seconds.
        subtitles: in any order; those between two frames are joined with blanks. Words that begin with a frame follow
            it.

    Raises:
        ValueError: no frame.
    """
    frames = [frame for sheet in sheets for frame in cut_sheet(sheet)][: sum(sheet.filled for sheet in sheets)]
    if not frames:
        raise ValueError("a storyboard needs at least one frame; sheets.filled is 0")
    step = round(duration / len(frames))
    texts = dict.fromkeys(range(len(frames)), "")
    for subtitle in sorted(subtitles, key=lambda one: one.start):
        place = next((number for number in range(len(frames)) if number * step > subtitle.start), len(frames))
        texts[place] = f"{texts[place]} {subtitle.text}" if texts.get(place) else subtitle.text
    return Storyboard(frames, texts)


def storyboard_document(told: Storyboard, key: str) -> Document:
    """Words and frames in order; empty words are left out."""
    segments: list[Segment] = []
    for number in range(max(len(told.frames), max(told.texts, default=0) + 1)):
        if text := told.texts.get(number, ""):
            segments.append(Text(text))
        if number < len(told.frames):
            segments.append(Image(told.frames[number]))
    return Document(segments, {"key": key})


@DATASETS.register_module(name="webdataset_storyboards")
class WebdatasetStoryboards(ShardReader):
    """Samples `0.txt, 0.png, 1.txt, ...` in tar shards: the words in front of each picture, and the picture.

    It is the form of YT-Storyboard-1B's published preparation, and that of any page whose parts are numbered.

    Args:
        sources: as in `webdataset_pairs`.
        streams: as in `webdataset_pairs`.
        shuffle: as in `webdataset_pairs`; whole encoded samples are held.
        samples_per_epoch: as in `webdataset_pairs`.
    """

    def __init__(self, sources: str | Sequence[str], streams: int, shuffle: int, samples_per_epoch: int | None) -> None:
        super().__init__("webdataset_storyboards", sources, streams, shuffle, samples_per_epoch)

    def decode(self, sample: RawSample) -> Document:
        """The document of an encoded sample; pictures are decoded as far as their headers.

        Raises:
            UnusableError: no numbered picture, or one that cannot be read.
        """
        key = sample["__key__"]
        matches = [match for match in map(NUMBERED.fullmatch, sample) if match]
        named = sorted((int(match[1]), match[2] != "txt", match[0]) for match in matches)
        segments: list[Segment] = []
        for number, picture, name in named:
            if picture:
                segments.append(Image(open_picture(sample[name], f"{key}.{number}")))
            elif text := decode_text(sample[name]):
                segments.append(Text(text))
        if not any(isinstance(one, Image) for one in segments):
            raise UnusableError("missing image", key)
        return Document(segments, {"key": key, "shard": sample["__url__"]})

    def check(self, document: Document) -> None:
        """Decode all pictures."""
        for segment in document.segments:
            if isinstance(segment, Image):
                load(segment.image, document.key)  # type: ignore[arg-type]
