"""Emoji with their names: real image-text pairs that come inside installed packages, nothing downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multimodal_zoo.data.documents import Document, pair
from multimodal_zoo.data.emoji_pictures import STYLES, load_pictures
from multimodal_zoo.data.emoji_table import SPLITS, load_table, names_in, vocabulary_of
from multimodal_zoo.data.skips import Skips
from multimodal_zoo.registry import DATASETS


def share_of(names: Iterable[str], share: float) -> set[str]:
    """Some of the names, one at least: the first ones in the order of their hashes."""
    ordered = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
    return set(ordered[: max(1, round(share * len(ordered)))])


@DATASETS.register_module(name="emoji_pairs")
class EmojiPairs:
    """Every chosen emoji in every chosen style, with its name, keywords, concept, group and subgroup.

    The order is style by style, each in the table's order. Concept, group, subgroup and style ids are the same in
    every split and language.

    Args:
        styles: drawings to use: `twemoji`, `openmoji`.
        splits: `train`, `val`, `test`; they are disjoint in concepts.
        image_size: side of the stored pictures in pixels.
        tones: whether skin-tone variants are included (more than half of all images).
        language: of the names: en es ja ko pt it fr de fa id zh ru tr ar. Keywords and aliases are English and left
            empty in the others.
        share: of the training concepts, above 0 to 1, chosen once and for all: a smaller share is part of every larger
            one. For runs on less data.

    Raises:
        ModuleNotFoundError: the packages of the extra `quickstart` are not installed.
        ValueError: an unknown style, split or language, a share out of range, or one of other splits than `train`.
    """

    style_names: tuple[str, ...] = tuple(STYLES)

    def __init__(
        self,
        styles: Sequence[str],
        splits: Sequence[str],
        image_size: int,
        tones: bool = False,
        language: str = "en",
        share: float = 1.0,
    ) -> None:
        for split in splits:
            if split not in SPLITS:
                raise ValueError(f"data.splits has {split!r}; it must be one of {', '.join(SPLITS)}")
        stored = [row for row in load_table() if tones or not row.toned]
        chosen = [i for i, row in enumerate(stored) if row.split in splits]
        if share != 1:
            if list(splits) != ["train"] or not 0 < share <= 1:
                raise ValueError(
                    f"data.share is {share} of {list(splits)}; expected a number above 0, to 1, of [train]"
                )
            kept = share_of({stored[i].concept for i in chosen}, share)
            chosen = [i for i in chosen if stored[i].concept in kept]
        names = names_in(language)
        self.table = [stored[i] for i in chosen]
        self.names = [names.get(row.sequence, row.name) for row in self.table]
        self.styles = tuple(styles)
        self.image_size = image_size
        self.english = language == "en"
        self.skips = Skips()
        sequences = [row.sequence for row in stored]
        self._pictures = {style: load_pictures(style, sequences, image_size) for style in self.styles}
        self._rows = np.asarray(chosen)
        self._ids = {field: self._number(field) for field in ("concept", "group", "subgroup")}

    def _number(self, field: str) -> np.ndarray:
        numbers = {value: i for i, value in enumerate(vocabulary_of(field))}
        return np.tile([numbers[getattr(row, field)] for row in self.table], len(self.styles)).astype(np.int64)

    @property
    def concept_names(self) -> tuple[str, ...]:
        """Concepts by id."""
        return vocabulary_of("concept")

    @property
    def group_names(self) -> tuple[str, ...]:
        """Groups by id."""
        return vocabulary_of("group")

    @property
    def subgroup_names(self) -> tuple[str, ...]:
        """Subgroups by id."""
        return vocabulary_of("subgroup")

    @property
    def concepts(self) -> np.ndarray:
        """Concept id of every item, int64 (len(self),)."""
        return self._ids["concept"]

    @property
    def groups(self) -> np.ndarray:
        """Group id of every item, int64 (len(self),)."""
        return self._ids["group"]

    @property
    def subgroups(self) -> np.ndarray:
        """Subgroup id of every item, int64 (len(self),)."""
        return self._ids["subgroup"]

    @property
    def attribution(self) -> str:
        """What the licences of the pictures and names in use ask to be said."""
        texts = [STYLES[style].attribution for style in self.styles]
        return " ".join([*texts, "Names and keywords: Unicode CLDR (Unicode licence), through emojibase-data (MIT)."])

    def __len__(self) -> int:
        return len(self.styles) * len(self.table)

    def __getitem__(self, index: int) -> Document:
        """Picture (uint8 RGBA, image_size square) and name; facts in `meta`."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"emoji_pairs has {len(self)} items, no number {index}")
        style, i = divmod(index % len(self), len(self.table))
        row = self.table[i]
        picture = self._pictures[self.styles[style]][self._rows[i]].transpose(1, 2, 0)
        meta: dict[str, Any] = {
            "key": f"{self.styles[style]}/{row.sequence}",
            "sequence": row.sequence,
            "concept": int(self.concepts[i]),
            "group": int(self.groups[i]),
            "subgroup": int(self.subgroups[i]),
            "style": self.style_names.index(self.styles[style]),
            "style_name": self.styles[style],
            "group_name": row.group,
            "subgroup_name": row.subgroup,
            "keywords": row.keywords if self.english else (),
            "aliases": row.aliases if self.english else (),
        }
        return pair(picture, self.names[i], meta)

    def __iter__(self) -> Iterator[Document]:
        return (self[i] for i in range(len(self)))

    def pixels(self, indices: Sequence[int]) -> Tensor:
        """Pictures of many items at once, uint8 (len(indices), 4, image_size, image_size), straight RGBA."""
        style, i = np.divmod(np.asarray(indices, dtype=np.int64), len(self.table))
        out = np.empty((len(i), 4, self.image_size, self.image_size), np.uint8)
        for number, name in enumerate(self.styles):
            chosen = np.flatnonzero(style == number)
            out[chosen] = self._pictures[name][self._rows[i[chosen]]]
        return torch.from_numpy(out)
