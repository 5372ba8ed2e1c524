"""Perceptual hashes: near copies of a picture, stored anew, resized or trimmed, differ in few bits of 384."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from multimodal_zoo.data.documents import Document, Picture
from multimodal_zoo.data.documents import Image as ImageSegment
from multimodal_zoo.data.pictures import load, open_picture, to_rgb
from multimodal_zoo.data.skips import Skips, UnusableError
from multimodal_zoo.files import atomic_file, reading
from multimodal_zoo.registry import DATASETS

#: Rows and columns of differences; two directions of three channels give six words of 64 bits.
SIDE = 8
WORDS = 6
#: Smaller differences of grey or colour (0 to 255) are noise: of flat areas nothing shall remain but zeros.
NOISE = 3
#: Differing bits up to which two pictures are taken for copies. Measured on 720 emoji: stored as JPEG at another size
#: and trimmed by 1.4% on each side, 94% are this near to themselves; of pairs of different emoji, 3 in 10,000 are.
NEAR = 18
#: Stored hashes compared with one another at a time.
BLOCK = 1 << 22
MAGIC = "multimodal_zoo picture hashes 1"
_BITS = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(1, dtype=np.uint8)


def picture_hash(picture: Picture) -> np.ndarray:
    """uint64 (6,): whether grey and both colour differences grow to the right and downwards, place by place.

    The difference hash of a picture of 9x9 pixels, with colour, so that drawings of one shape are told apart; pictures
    of one colour all look alike to it. Transparent pixels count as white.

    Raises:
        UnusableError: the picture cannot be decoded.
    """
    small = to_rgb(load(open_picture(picture))).resize((SIDE + 1, SIDE + 1), Image.Resampling.BILINEAR)
    values = np.asarray(small.convert("YCbCr"), np.int16).transpose(2, 0, 1)
    corner = values[:, :-1, :-1]
    grows = np.stack([values[:, :-1, 1:] - corner, values[:, 1:, :-1] - corner], 1) > NOISE
    return np.packbits(grows.reshape(-1)).view("<u8").astype(np.uint64)


def count_bits(words: np.ndarray) -> np.ndarray:
    """Set bits of uint64 words, uint8 of the same shape."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.bitwise_count(words)
    return _BITS[np.ascontiguousarray(words)[..., None].view(np.uint16)].sum(-1, dtype=np.uint8)


class PictureHashes:
    """Hashes of pictures with their names.

    Args:
        keys: a name each.
        hashes: uint64 (pictures, 6).

    Raises:
        ValueError: shapes that do not fit.
    """

    def __init__(self, keys: Sequence[str], hashes: np.ndarray) -> None:
        if hashes.dtype != np.uint64 or hashes.shape != (len(keys), WORDS):
            raise ValueError(
                f"picture hashes: {len(keys)} keys need uint64 of {(len(keys), WORDS)}, "
                f"not {hashes.dtype} of {hashes.shape}"
            )
        self.keys = list(keys)
        self.hashes = hashes

    @classmethod
    def of(cls, documents: Iterable[Document], skips: Skips) -> PictureHashes:
        """Hash every picture of some documents.

        Args:
            documents: those without a picture are left out.
            skips: counts pictures that cannot be decoded.
        """
        keys, hashes = [], []
        for document in documents:
            if any(isinstance(segment, ImageSegment) for segment in document.segments):
                try:
                    hashes.append(picture_hash(document.image))
                except UnusableError as error:
                    skips.add(error.reason, document.key)
                    continue
                keys.append(document.key)
        return cls(keys, np.stack(hashes) if hashes else np.zeros((0, WORDS), np.uint64))

    @classmethod
    def load(cls, path: str | Path) -> PictureHashes:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it holds something else.
        """
        file, way_out = Path(path).expanduser(), f"mmzoo dedupe DATA out={Path(path).name} writes one"
        if not file.is_file():
            raise FileNotFoundError(f"against: no file {str(path)!r}; {way_out}")
        with reading(path, "file of picture hashes", way_out), np.load(file, allow_pickle=False) as stored:
            if str(stored["what"]) != MAGIC:
                raise KeyError(MAGIC)
            return cls(stored["keys"].tolist(), stored["hashes"])

    def save(self, path: str | Path) -> None:
        """Write an .npz file in one step."""
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, what=np.array(MAGIC), keys=np.array(self.keys, dtype=np.str_), hashes=self.hashes)

    def __len__(self) -> int:
        return len(self.keys)

    def joined(self, other: PictureHashes) -> PictureHashes:
        """Both, one behind the other."""
        return PictureHashes([*self.keys, *other.keys], np.concatenate([self.hashes, other.hashes]))

    def nearest(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest stored picture of each of some hashes, block by block.

        Args:
            hashes: uint64 (queries, 6).

        Returns:
            differing bits, int64 (queries,), and numbers of stored pictures, int64 (queries,).

        Raises:
            ValueError: nothing is stored.
        """
        if not len(self):
            raise ValueError("picture hashes: there is none to compare with")
        rows = max(1, BLOCK // len(self))
        bits, numbers = np.empty(len(hashes), np.int64), np.empty(len(hashes), np.int64)
        for start in range(0, len(hashes), rows):
            part = hashes[start : start + rows]
            far = np.zeros((len(part), len(self)), np.uint16)
            for word in range(WORDS):
                far += count_bits(part[:, word, None] ^ self.hashes[None, :, word])
            numbers[start : start + rows] = far.argmin(1)
            bits[start : start + rows] = far.min(1)
        return bits, numbers

    def near(self, hashed: np.ndarray, distance: int) -> int | None:
        """The number of a stored picture within a distance of one hash; None if there is none.

        Args:
            hashed: uint64 (6,).
            distance: differing bits at most.
        """
        # Words one by one: after the first, few pictures are left to compare.
        places, far = np.arange(len(self)), np.zeros(len(self), np.uint16)
        for word in range(WORDS):
            far = far + count_bits(self.hashes[places, word] ^ hashed[word])
            left = far <= distance
            places, far = places[left], far[left]
        return int(places[far.argmin()]) if len(places) else None


@DATASETS.register_module(name="picture_hashes")
def picture_hashes(paths: str | Sequence[str]) -> PictureHashes:
    """The hashes of one or several files as one store.

    Args:
        paths: files that `mmzoo dedupe DATA out=FILE.npz` wrote, one for each evaluation set, say.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no file, or one that holds something else.
    """
    stores = [PictureHashes.load(path) for path in ([paths] if isinstance(paths, str) else paths)]
    if not stores:
        raise ValueError("against.paths is empty; name at least one file")
    first, *others = stores
    for other in others:
        first = first.joined(other)
    return first
