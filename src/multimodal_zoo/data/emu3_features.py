"""Emu3's own layout of fine-tuning data: `list/train.json`, and a file of codes and text for each sample.

The published preparation writes `feature/NAME.pth` with `{name, images, texts}` (codes as a numpy array) and a list
`{prefix, path_list}`; it starts from a JSON list of `{name, text, image}`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multimodal_zoo.data.documents import Codes, Document, Image, Text, code_array
from multimodal_zoo.data.pictures import load, open_picture, to_rgb
from multimodal_zoo.data.size_rule import area_size
from multimodal_zoo.data.skips import Skips, UnusableError, usable
from multimodal_zoo.files import atomic_file, parsed, reading, write_text
from multimodal_zoo.registry import DATASETS

LIST, FEATURES = "list/train.json", "feature"
#: What makes numpy's arrays when they are unpickled.
_MAKE = np.zeros(1).__reduce__()[0]
#: All that arrays in files of torch need, under the names that old and new versions of numpy give it.
ARRAYS = (
    (_MAKE, "numpy.core.multiarray._reconstruct"),
    (_MAKE, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(name)) for name in ("int64", "int32", "int16", "uint16", "uint8")),
)


def read_feature(path: Path) -> dict[str, Any]:
    """The content of a feature file, read without running anything in it; `texts` is a list of one or more.

    Raises:
        UnusableError: no such file, a damaged one, or one that holds other things.
    """
    try:
        with torch.serialization.safe_globals(list(ARRAYS)):
            found = torch.load(path, map_location="cpu", weights_only=True)
        codes = np.asarray(found["images"])
        if codes.ndim == 3 and codes.shape[0] == 1:
            codes = codes[0]
        texts = found.get("texts") or ""
        several = [texts] if isinstance(texts, str) else [str(text) for text in texts]
        return {**found, "images": code_array(codes, 2), "texts": several}
    except FileNotFoundError as error:
        raise UnusableError("missing feature file", str(path)) from error
    except Exception as error:  # damaged bytes raise nearly anything
        raise UnusableError("broken feature file", str(path)) from error


@DATASETS.register_module(name="emu3_features")
class Emu3Features:
    """Fine-tuning data in Emu3's own layout: text and codes of a picture.

    Args:
        table: the JSON file `{prefix, path_list}`. Where the folder in `prefix` is gone (the data were moved), the
            folder `feature` beside the list's own is taken.

    Raises:
        FileNotFoundError: no such list, or no folder of features.
        ValueError: a list of something else.
    """

    def __init__(self, table: str) -> None:
        path = Path(table)
        if not path.is_file():
            raise FileNotFoundError(f"data.train.table: no file {path}; it must hold prefix and path_list")
        with reading(path, "list of features"):
            content = parsed(path.read_bytes())
            if not isinstance(content, dict) or not {"prefix", "path_list"} <= content.keys():
                raise ValueError(f"data.train.table: {path} needs the keys prefix and path_list")
            names = [str(name) for name in content["path_list"]]
            places = [Path(content["prefix"]), path.parent / content["prefix"], path.parent.parent / FEATURES]
        folder = next((place for place in places if os.path.isdir(place)), None)
        if folder is None:
            raise FileNotFoundError(
                f"data.train.table: {path} names the folder {content['prefix']}, which is not there"
            )
        self.folder, self.names = folder, names
        self.skips = Skips()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Document:
        """Text, then picture. Of several texts the first one is taken; `texts` in meta has all.

        Raises:
            UnusableError: a file that is missing or damaged.
        """
        found = read_feature(self.folder / self.names[index])
        meta = {"key": str(found.get("name", self.names[index])), "texts": found["texts"]}
        return Document([Text(found["texts"][0]), Codes(found["images"])], meta)

    def __iter__(self) -> Iterator[Document]:
        return usable(self)


@DATASETS.register_module(name="emu3_raw_list")
class Emu3RawList:
    """The list from which Emu3's fine-tuning data are prepared: name, text and path of a picture.

    Args:
        table: JSON file with a list of `{name, text, image}`.
        folder: what stands before relative paths; None: the list's own folder.
        area: pixels to which each picture is resized first, its aspect kept, as the published preparation does before
            the processor resizes it again; None leaves that out.

    Raises:
        FileNotFoundError: no such list.
        ValueError: entries without these keys.
    """

    def __init__(self, table: str, folder: str | None = None, area: int | None = None) -> None:
        path = Path(table)
        if not path.is_file():
            raise FileNotFoundError(f"data.train.table: no file {path}; it must hold a list of name, text and image")
        with reading(path, "list of pictures"):
            rows = parsed(path.read_bytes())
            if not isinstance(rows, list) or any(not {"name", "text", "image"} <= dict(row).keys() for row in rows):
                raise ValueError(f"data.train.table: {path} needs a list of objects with the keys name, text and image")
        if area is not None and area < 1:
            raise ValueError(f"data.train.area is {area}; expected a number of pixels, or null")
        self.rows, self.folder, self.area = list(rows), path.parent if folder is None else Path(folder), area
        self.skips = Skips()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Document:
        """Text, then picture.

        Raises:
            UnusableError: a picture that is missing or cannot be read.
        """
        row = self.rows[index]
        key = str(row["name"])
        picture = to_rgb(load(open_picture(self.folder / str(row["image"]), key, turn=False), key), None)
        if self.area is not None:
            high, wide = area_size(picture.height, picture.width, self.area)
            picture = picture.resize((wide, high))
        return Document([Text(str(row["text"])), Image(picture)], {"key": key})

    def __iter__(self) -> Iterator[Document]:
        return usable(self)


def write_feature(folder: Path, document: Document) -> str:
    """Write the first picture's codes and the first text of a document in Emu3's layout.

    Args:
        folder: receives `feature/NAME.pth`.
        document: encoded; its key is the name.

    Returns:
        the name of the file in `feature`.

    Raises:
        ValueError: a document without a picture or a text, or whose key is no file name.
    """
    codes = next((one.codes for one in document.segments if isinstance(one, Codes)), None)
    if codes is None or codes.ndim != 2:
        raise ValueError(f"document {document.key!r} has no encoded picture; format=features holds one each")
    text = next((one.text for one in document.segments if isinstance(one, Text)), None)
    if text is None:
        raise ValueError(f"document {document.key!r} has no text; format=features holds a picture and its text each")
    name = f"{document.key.replace('/', '-')}.pth"
    if name.startswith(".") or "\0" in name:
        raise ValueError(f"document {document.key!r}: its key is no file name")
    content = {"name": document.key, "images": np.asarray(codes, dtype=np.int64), "texts": text}
    with atomic_file(folder / FEATURES / name) as partial:
        torch.save(content, partial)
    return name


def write_list(folder: Path, names: Sequence[str]) -> Path:
    """Write the list of feature files."""
    content = {"prefix": str((folder / FEATURES).resolve()), "path_list": list(names)}
    return write_text(folder / LIST, json.dumps(content, indent=1, ensure_ascii=False))
