"""Image-text pairs in a folder with a table: CSV, TSV, JSONL or parquet with one row a picture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from multimodal_zoo.data.documents import Document, Image, Segment, Text, pair
from multimodal_zoo.data.pictures import open_picture
from multimodal_zoo.data.skips import Skips, UnusableError, usable
from multimodal_zoo.data.tables import rows_of
from multimodal_zoo.packages import needed
from multimodal_zoo.registry import DATASETS


def _cell(row: Mapping[str, Any], column: str | None) -> str:
    value = None if column is None else row.get(column)
    return "" if value is None else str(value).strip()


@DATASETS.register_module(name="folder_pairs")
class FolderPairs:
    """Pictures of a folder with the captions of a table.

    Rows without path, caption or concept are counted and left out at once; pictures are opened when they are asked for.

    Args:
        table: a .csv, .tsv (with a header), .jsonl or .parquet file, or a .txt file of one text a line.
        folder: what the paths in the table are relative to; they must stay inside of it.
        image: column of the picture's path; None: texts alone.
        text: column of the caption; None: pictures alone.
        concept: column of whole numbers, the same for pictures of one thing; None: unknown.
        need_caption: whether a row without a caption is unusable; else its document has no text.

    Raises:
        FileNotFoundError: no such table.
        ValueError: another kind of file, or a column that no row has.
        NoUsableSamplesError: no row with a path and a caption.
    """

    def __init__(
        self,
        table: str,
        folder: str,
        image: str | None,
        text: str | None,
        concept: str | None = None,
        need_caption: bool = True,
    ) -> None:
        if image is None and text is None:
            raise ValueError("data.train.image and data.train.text are both null; name the column of one of them")
        path = Path(table).expanduser()
        self.need_image, self.need_caption = image is not None, need_caption and text is not None
        self.folder = Path(folder).expanduser().resolve()
        self.skips = Skips()
        self._rows: list[tuple[str, str, dict[str, Any]]] = []
        seen: dict[str, None] = {}
        for number, row in enumerate(rows_of(path), start=1):
            seen.update(dict.fromkeys(row))
            self._add(_cell(row, image), _cell(row, text), row, concept, number)
        missing = [column for column in (image, text, concept) if column is not None and column not in seen]
        if seen and missing:
            raise ValueError(f"{path.name}: no column {missing[0]!r}; it has {', '.join(map(str, seen))}")
        if not self._rows:
            raise self.skips.nothing_usable("folder_pairs", "data.train.table")
        self.concepts = None if concept is None else [facts["concept"] for _, _, facts in self._rows]

    def _add(self, path: str, text: str, row: dict[str, Any], concept: str | None, number: int) -> None:
        if not row:
            self.skips.add("broken row", f"row {number}")
        elif not path and self.need_image:
            self.skips.add("missing image path", f"row {number}")
        elif not text and (self.need_caption or not self.need_image):
            self.skips.add("missing caption", path or f"row {number}")
        elif (place := self._resolved(path)) is None:
            self.skips.add("path that no file can have", repr(path))
        elif not place.is_relative_to(self.folder):
            self.skips.add("path outside the folder", path)
        elif concept is not None and not re.fullmatch(r"-?\d{1,18}", str(row.get(concept)).strip()):
            self.skips.add("concept that is no whole number", path)
        else:
            facts = {"concept": int(row[concept])} if concept is not None else {}
            self._rows.append((path, text, {**facts, "key": path or str(number)}))

    def _resolved(self, path: str) -> Path | None:
        try:
            return (self.folder / path).resolve()
        except (OSError, RuntimeError, ValueError):  # a NUL, half a surrogate pair, links in a circle
            return None

    def facts(self, index: int) -> dict[str, Any]:
        """What `self[index].meta` is, without opening the picture."""
        return dict(self._rows[index][2])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Document:
        """One pair.

        Raises:
            UnusableError: the picture is missing or broken.
        """
        path, text, _ = self._rows[index]
        segments: list[Segment] = [Image(open_picture(self.folder / path, key=path))] if path else []
        return Document([*segments, *([Text(text)] if text else [])], self.facts(index))

    def __iter__(self) -> Iterator[Document]:
        return usable(self)


@DATASETS.register_module(name="huggingface_pairs")
class HuggingfacePairs:
    """Pairs of a Hugging Face data set: saved to disk, in parquet files, or by its name on the Hub.

    Args:
        path: a folder written by `save_to_disk`, a .parquet file or pattern, or a Hub name.
        split: which split; ignored where a folder holds a single one.
        image: column of pictures (an Image feature, encoded bytes, or a mapping with `bytes` or `path`).
        text: column of captions: a text, or a list of which the first is the document's and all are in `texts`.

    Raises:
        ModuleNotFoundError: the library `datasets` is missing.
        ValueError: a column or split that it does not have.
    """

    def __init__(self, path: str, split: str, image: str, text: str) -> None:
        datasets = needed("datasets", "huggingface_pairs", "eval")
        local = Path(path).expanduser()
        if local.is_dir() and any(local.glob("*.json")):
            loaded = datasets.load_from_disk(str(local))
        elif path.endswith(".parquet"):
            loaded = datasets.load_dataset("parquet", data_files={split: str(local)})
        else:
            loaded = datasets.load_dataset(path)
        if isinstance(loaded, datasets.DatasetDict):
            if split not in loaded:
                raise ValueError(f"data.train.split is {split!r}; {path} has {', '.join(loaded)}")
            loaded = loaded[split]
        for column in (image, text):
            if column not in loaded.column_names:
                raise ValueError(f"{path} has no column {column!r}; it has {', '.join(loaded.column_names)}")
        if isinstance(loaded.features[image], datasets.Image):  # we open pictures: errors are counted, not fatal
            loaded = loaded.cast_column(image, datasets.Image(decode=False))
        self.rows = loaded
        self._facts = loaded.remove_columns([image]) if image != text else loaded
        self.image, self.text = image, text
        self.skips = Skips()

    def __len__(self) -> int:
        return len(self.rows)

    def facts(self, index: int) -> dict[str, Any]:
        """What `self[index].meta` is, without reading the picture.

        Raises:
            UnusableError: no caption.
        """
        return self._meta(self._facts[index], index)

    def _meta(self, row: Mapping[str, Any], index: int) -> dict[str, Any]:
        key = str(row.get("__key__") or row.get("key") or index)
        given = row[self.text] or ""
        texts = [str(text).strip() for text in ([given] if isinstance(given, str) else given) if str(text).strip()]
        if not texts:
            raise UnusableError("missing caption", key)
        return {"key": key, "texts": texts}

    def __getitem__(self, index: int) -> Document:
        """One pair.

        Raises:
            UnusableError: no caption, or no picture that can be read.
        """
        row = self.rows[index]
        meta = self._meta(row, index)
        key = meta["key"]
        picture = row[self.image]
        if isinstance(picture, dict):
            picture = picture.get("bytes") or picture.get("path")
        if not picture:
            raise UnusableError("missing image", key)
        return pair(open_picture(picture, key=key), meta["texts"][0], meta)

    def __iter__(self) -> Iterator[Document]:
        return usable(self)
