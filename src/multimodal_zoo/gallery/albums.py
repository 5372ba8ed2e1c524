"""What can be searched for pictures: emoji, folders of pictures, and embeddings that `mmzoo embed` wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from multimodal_zoo.data.documents import Picture
from multimodal_zoo.data.emoji_pairs import EmojiPairs
from multimodal_zoo.data.emoji_pictures import STYLES
from multimodal_zoo.data.folder_pictures import SUFFIXES, FolderPictures
from multimodal_zoo.data.pictures import load, open_picture, to_rgb
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.evaluation.embedding_folder import MANIFEST, EmbeddingFolder
from multimodal_zoo.evaluation.environment import fingerprint
from multimodal_zoo.evaluation.features import embed_images
from multimodal_zoo.evaluation.nearest import nearest, search_shards
from multimodal_zoo.evaluation.searching import BATCH
from multimodal_zoo.gallery.indexed import tiles_of, within
from multimodal_zoo.gallery.kept import Kept

#: The part of the emoji that no recipe here trains on, in the style that most recipes use.
STYLE, SPLIT, SIDE = "twemoji", "test", 64
#: Characters of a caption that are kept.
CAPTION = 300


class Match(NamedTuple):
    """One picture that was found.

    Attributes:
        picture: 8-bit RGB; None where it cannot be shown.
        caption: its text or name.
        score: cosine with the query.
    """

    picture: Image.Image | None
    caption: str
    score: float


class _Item(NamedTuple):
    """A picture, or where it is, and its caption."""

    source: Picture | Path
    caption: str


@dataclass(frozen=True)
class Album:
    """Pictures that can be searched.

    Attributes:
        name: unique, as the page shows it.
        path: a folder of pictures or of embeddings; None for the emoji.
    """

    name: str
    path: Path | None

    @property
    def embedded(self) -> bool:
        """Whether its embeddings are on disk."""
        return self.path is not None and (self.path / MANIFEST).is_file()


class Albums:
    """The albums of some folders, with the embeddings of those that were searched last.

    Args:
        folders: where pictures and embeddings are looked for, in them and one level below.
        most: pictures of a folder that are searched.
        keep: embedded albums that stay in memory.
    """

    def __init__(self, folders: Sequence[Path], most: int, keep: int = 4) -> None:
        self.folders = [folder.resolve() for folder in folders]
        self.most = most
        found = [Album("emoji", None)] if find_spec(STYLES[STYLE].module) is not None else []
        for root in self.folders:
            found += [Album(place.relative_to(root.parent).as_posix(), place) for place in _places(root)]
        self.albums = {album.name: album for album in found}
        self._kept: Kept[tuple[np.ndarray, list[_Item]]] = Kept(keep)

    def find(self, name: str | None) -> Album:
        """One of `albums`.

        Raises:
            LookupError: none is chosen, or there is none of this name.
        """
        if not name or name not in self.albums:
            raise LookupError(f"there are no pictures {name!r} here" if name else "choose what is searched first")
        return self.albums[name]

    def search(self, model: Any, model_name: str, album: Album, query: np.ndarray, count: int) -> list[Match]:
        """The nearest pictures, best first.

        Args:
            model: a dual encoder with its processor.
            model_name: what its embeddings are kept under.
            album: one of `albums`.
            query: float32 (1, width), normalised.
            count: pictures at most.

        Raises:
            ValueError: embeddings on disk that another model made, or no usable picture.
        """
        if album.embedded:
            return self._search_folder(model, album, query, count)
        with self._kept.lent((model_name, album.name), lambda: self._embedded(model, album)) as (vectors, items):
            scores, numbers = nearest(query, [vectors], count, "torch")
        best = [(items[number], float(score)) for number, score in zip(numbers[0], scores[0], strict=True)]
        return [Match(_shown(item), item.caption, score) for item, score in best]

    def _embedded(self, model: Any, album: Album) -> tuple[np.ndarray, list[_Item]]:
        items: list[_Item] = []
        device = next(model.parameters()).device
        pictures = self._pictures(album, items)
        rows = embed_images(model, pictures, model.processor.images, batch_size=BATCH, device=device)
        return rows.numpy(), items

    def _pictures(self, album: Album, items: list[_Item]) -> Iterator[Image.Image]:
        """The pictures of an album that can be read; what they come from is noted in passing."""
        for item in islice(self._items(album), self.most):
            try:
                picture = _shown(item)
            except UnusableError:
                continue
            items.append(item)
            yield picture

    def _items(self, album: Album) -> Iterator[_Item]:
        if album.path is None:
            yield from (_Item(one.image, one.text) for one in EmojiPairs([STYLE], [SPLIT], SIDE))
            return
        for path in FolderPictures(str(album.path), need_caption=False).paths:
            place = album.path / path
            if within(place, [album.path]):
                yield _Item(place, _caption(place.with_suffix(".txt"), album.path) or path)

    def _search_folder(self, model: Any, album: Album, query: np.ndarray, count: int) -> list[Match]:
        assert album.path is not None
        folder, manifest = EmbeddingFolder.open(album.path)
        if not manifest.get("images"):
            raise ValueError(f"{album.name} was made without pictures: mmzoo embed SOURCE DATA images=true")
        if (found := fingerprint(model)) != manifest["weights"]:
            raise ValueError(
                f"{album.name} was made by another model (fingerprint {manifest['weights']}, this one has {found}); "
                "choose that one"
            )
        (hits,) = search_shards(query, folder.shards(), "image_embedding", count, "torch")
        tiles = tiles_of(manifest, hits, self.folders)
        return [Match(tile.picture, tile.caption, hit.score) for tile, hit in zip(tiles, hits, strict=True)]


def _shown(item: _Item) -> Image.Image:
    return to_rgb(load(open_picture(item.source, item.caption), item.caption))


def _places(root: Path) -> Iterator[Path]:
    """A folder and those in it that hold embeddings, or pictures themselves; links that lead out are left out."""
    inner = sorted(one for one in root.iterdir() if one.is_dir() and not one.is_symlink())
    for place in (root, *inner):
        if (place / MANIFEST).is_file() or any(
            one.name.lower().endswith(SUFFIXES) and one.is_file() for one in place.iterdir()
        ):
            yield place


def _caption(beside: Path, folder: Path) -> str:
    """The beginning of the text file beside a picture; empty where there is none, or a link that leads out."""
    if not (beside.is_file() and within(beside, [folder])):
        return ""
    with beside.open(encoding="utf-8", errors="replace") as file:
        return file.read(CAPTION).strip()
