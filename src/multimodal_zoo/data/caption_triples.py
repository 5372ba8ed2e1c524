"""Readers of caption triples without pictures: what `mmzoo fuse` wrote, any table, or those made from the emoji."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multimodal_zoo.data.caption_table import CaptionTable, texts_of
from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.emoji_triples import Triple, triples
from multimodal_zoo.data.skips import Skips, UnusableError, usable
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="caption_triples")
class CaptionTriples:
    """Rows of a table: `raw`, `synthetic` and `fused` are facts about a document whose text is the fused caption.

    Rows that were rejected or failed have no fused caption and are left out.

    Args:
        table: what holds the captions (`caption_table`): parquet, JSON lines, CSV, or a folder of `mmzoo fuse`.

    Raises:
        ValueError: a table without fused captions.
    """

    def __init__(self, table: CaptionTable) -> None:
        if "fused" not in table.kinds:
            raise ValueError(
                f"data.train.table: {table.path} has captions of {', '.join(table.kinds) or 'no kind'}; fused ones are "
                "needed. Their column is named by data.train.table.columns"
            )
        self.table, self.skips = table, Skips()

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Document:
        """One row.

        Raises:
            IndexError: no such row.
            UnusableError: it has no fused caption.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"caption_triples has {len(self)} rows, no number {index}")
        key, row = self.table.item(index % len(self))
        fused = texts_of(row, "fused")
        if not fused:
            raise UnusableError("no fused caption", key)
        return Document([Text(fused[0])], {"key": key, **row})

    def __iter__(self) -> Iterator[Document]:
        return usable(self)


@DATASETS.register_module(name="emoji_triples")
class EmojiTriples:
    """Triples made from the embedded emoji (`emoji_triples.triples`): real names, and captions of our own construction.

    Args:
        styles: drawings whose captions are used: `twemoji`, `openmoji`.
        splits: `train`, `val`, `test`; they are disjoint in concepts.
        seeds: each gives all emoji other captions.
        synthetic: a table (`caption_table`) with the captions of a captioner by key, such as `twemoji/1f600`; None
            takes sentences that name the kind of thing and the colours.

    Raises:
        ModuleNotFoundError: the packages of the extra `quickstart` are not installed.
        ValueError: an unknown style or split, no seed, or captions that lack a key.
    """

    def __init__(
        self,
        styles: Sequence[str],
        splits: Sequence[str],
        seeds: Sequence[int] = (0,),
        synthetic: CaptionTable | None = None,
    ) -> None:
        if not seeds or not styles:
            raise ValueError(
                f"emoji_triples: seeds {list(seeds)}, styles {list(styles)}; expected one of each at least"
            )
        texts = None if synthetic is None else _captions(synthetic)
        self.rows: list[Triple] = [
            one for seed in seeds for style in styles for one in triples(splits, style, seed, texts)
        ]
        self.skips = Skips()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Document:
        """One triple.

        Raises:
            IndexError: no such triple.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"emoji_triples has {len(self)} triples, no number {index}")
        one = self.rows[index]
        meta = {"key": one.key, "raw": one.raw, "synthetic": one.synthetic, "fused": one.fused}
        return Document([Text(one.fused)], meta)

    def __iter__(self) -> Iterator[Document]:
        return usable(self)


def _captions(table: CaptionTable) -> dict[str, str]:
    """Key -> its synthetic caption, the first of several."""
    found = {}
    for number in range(len(table)):
        key, row = table.item(number)
        if texts := texts_of(row, "synthetic"):
            found[key] = texts[0]
    return found
