"""Interleaved pages in the layouts of MMC4 and OBELICS: lines of a file, or records in tar shards."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from multimodal_zoo.data.conversations import JsonLines
from multimodal_zoo.data.documents import Document, Image, Segment, Text
from multimodal_zoo.data.line_pairs import LineFile
from multimodal_zoo.data.pictures import load, open_picture
from multimodal_zoo.data.shard_reader import ShardReader
from multimodal_zoo.data.shards import IMAGE_SUFFIXES, RawSample
from multimodal_zoo.data.skips import Skips, UnusableError, inside, usable
from multimodal_zoo.files import parsed
from multimodal_zoo.registry import DATASETS

#: Opens a picture by its name in a record, and its place in the record's list; None where it was never downloaded.
Opened = Callable[[dict[str, Any], int], Image | None]


class Element(NamedTuple):
    """A part of a page under way.

    Attributes:
        segment: the text or picture.
        sentence: of a picture, the text that belongs to it.
    """

    segment: Segment
    sentence: str | None = None


def page(record: Any, opened: Opened, key: str) -> Document:
    """A page of a record of either layout; pictures that were not downloaded are left out.

    MMC4: `text_list` of sentences, `image_info` with a `matched_text_index` each; a picture stands in front of its
    sentence. OBELICS: `texts` and `images` of one length, one of which is null at each place.

    Args:
        record: as read.
        opened: opens pictures.
        key: the document.

    Raises:
        UnusableError: no such record, or no picture or text in it.
    """
    if not isinstance(record, dict):
        raise UnusableError("broken record", key)
    if "text_list" in record and "image_info" in record:
        parts = _mmc4(record, opened, key)
    elif "texts" in record and "images" in record:
        parts = _obelics(record, opened, key)
    else:
        raise UnusableError("broken record", f"{key} (neither text_list and image_info nor texts and images)")
    pictures = [one for one in parts if isinstance(one.segment, Image)]
    if not pictures:
        raise UnusableError("missing image", key)
    if len(pictures) == len(parts):
        raise UnusableError("missing text", key)
    return Document(_joined(parts), {"key": key, "sentences": [one.sentence for one in pictures]})


def _mmc4(record: dict[str, Any], opened: Opened, key: str) -> list[Element]:
    texts, infos = record["text_list"], record["image_info"]
    if not isinstance(texts, list) or not isinstance(infos, list) or not all(isinstance(one, dict) for one in infos):
        raise UnusableError("broken record", key)
    before: dict[int, list[int]] = {}
    for number, info in enumerate(infos):
        place = info.get("matched_text_index")
        if not isinstance(place, int) or not 0 <= place < len(texts):
            raise UnusableError("broken record", f"{key} (matched_text_index is {place!r} of {len(texts)})")
        before.setdefault(place, []).append(number)
    found: list[Element] = []
    for place, text in enumerate(texts):
        for number in before.get(place, ()):
            picture = opened(infos[number], number)
            found += [] if picture is None else [Element(picture, str(text).strip() or None)]
        found += [Element(Text(str(text).strip()))] if str(text).strip() else []
    return found


def _obelics(record: dict[str, Any], opened: Opened, key: str) -> list[Element]:
    texts, images = record["texts"], record["images"]
    if not isinstance(texts, list) or not isinstance(images, list) or len(texts) != len(images):
        raise UnusableError("broken record", f"{key} (texts and images must be of one length)")
    said = ["" if text is None else str(text).strip() for text in texts]
    found: list[Element] = []
    for number, (text, name) in enumerate(zip(said, images, strict=True)):
        if text:
            found.append(Element(Text(text)))
        elif name:
            picture = opened({"image_name": name}, number)
            behind = next((one for one in said[number + 1 :] if one), None)
            found += [] if picture is None else [Element(picture, behind)]
    return found


def _joined(parts: Sequence[Element]) -> list[Segment]:
    """Segments with texts in a row as one, a blank in between."""
    found: list[Segment] = []
    for segment, _ in parts:
        last = found[-1] if found else None
        if isinstance(segment, Text) and isinstance(last, Text):
            found[-1] = Text(f"{last.text} {segment.text}")
        else:
            found.append(segment)
    return found


@DATASETS.register_module(name="page_list")
class PageList:
    """Pages as lines of JSON, their pictures in a folder: MMC4 and OBELICS as they are downloaded.

    Args:
        table: the lines.
        folder: of the pictures; `image_name` (MMC4) or the entries of `images` (OBELICS) are paths in it.

    Raises:
        FileNotFoundError: no such file or folder.
    """

    def __init__(self, table: str, folder: str) -> None:
        self.folder = Path(folder).expanduser().resolve()
        if not self.folder.is_dir():
            raise FileNotFoundError(f"data.train.folder: no folder {folder!r}")
        self.table = Path(table).expanduser()
        self.rows = JsonLines(LineFile(self.table))
        self.skips = Skips()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Document:
        """One page; pictures are read as far as their headers.

        Raises:
            IndexError: no such line.
            UnusableError: a broken record, a path outside of the folder, or no picture or text.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"page_list has {len(self)} lines, no number {index}")
        key = f"{self.table.name}, line {index % len(self) + 1}"
        return page(self.rows[index % len(self)], lambda info, _: self._picture(info, key), key)

    def _picture(self, info: dict[str, Any], key: str) -> Image | None:
        path = inside(self.folder, str(info.get("image_name", "")), key)
        return Image(open_picture(path, f"{key}: {path.name}")) if path.is_file() else None

    def __iter__(self) -> Iterator[Document]:
        return usable(self)


@DATASETS.register_module(name="webdataset_pages")
class WebdatasetPages(ShardReader):
    """Pages in tar shards: a `json` record with its pictures beside it (`0.jpg`, `1.png`, ...) or inside it as base64.

    Args:
        sources: as in `webdataset_pairs`.
        streams: as in `webdataset_pairs`.
        shuffle: as in `webdataset_pairs`; whole encoded pages are held.
        samples_per_epoch: as in `webdataset_pairs`.
    """

    def __init__(self, sources: str | Sequence[str], streams: int, shuffle: int, samples_per_epoch: int | None) -> None:
        super().__init__("webdataset_pages", sources, streams, shuffle, samples_per_epoch)

    def decode(self, sample: RawSample) -> Document:
        """The page of an encoded sample; pictures are decoded as far as their headers.

        Raises:
            UnusableError: no record, a picture that cannot be read, or no picture or text.
        """
        key = sample["__key__"]
        try:
            record = parsed(sample["json"])
        except (KeyError, ValueError) as error:
            raise UnusableError("broken record", key) from error
        found = page(record, lambda info, number: _inside(sample, info, number), key)
        return Document(found.segments, {**found.meta, "shard": sample["__url__"]})

    def check(self, document: Document) -> None:
        """Decode all pictures."""
        for segment in document.segments:
            if isinstance(segment, Image):
                load(segment.image, document.key)  # type: ignore[arg-type]


def _inside(sample: RawSample, info: dict[str, Any], number: int) -> Image | None:
    key = f"{sample['__key__']}, picture {number}"
    encoded = next((sample[name] for one in IMAGE_SUFFIXES if (name := f"{number}.{one}") in sample), None)
    if encoded is None and info.get("image_base64"):
        try:
            encoded = base64.b64decode(info["image_base64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise UnusableError("broken image", key) from error
    return None if encoded is None else Image(open_picture(encoded, key))
