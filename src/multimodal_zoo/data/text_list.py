"""Texts alone as lines of JSON: the layout of the Pile and of most corpora."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from multimodal_zoo.data.conversations import JsonLines
from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.line_pairs import LineFile
from multimodal_zoo.data.skips import Skips, UnusableError, usable
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="text_list")
class TextList:
    """Records `{"text": ...}`, one a line, of which only the places are held.

    Args:
        table: the file, unpacked.
        field: name of the text in a record.

    Raises:
        FileNotFoundError: no such file.
    """

    def __init__(self, table: str, field: str = "text") -> None:
        self.table, self.field = Path(table).expanduser(), field
        self.rows = JsonLines(LineFile(self.table))
        self.skips = Skips()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Document:
        """One text.

        Raises:
            IndexError: no such line.
            UnusableError: no record, or no text in it.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"text_list has {len(self)} lines, no number {index}")
        key, record = f"{self.table.name}, line {index % len(self) + 1}", self.rows[index % len(self)]
        text = record.get(self.field) if isinstance(record, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise UnusableError("missing text", key)
        return Document([Text(text)], {"key": key})

    def __iter__(self) -> Iterator[Document]:
        return usable(self)
