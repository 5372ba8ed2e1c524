"""Evaluation sets in CLIP_benchmark's webdataset layout, from a folder or over http.

Layout: `test/nshards.txt`, `test/0.tar` and on with `jpg|png|webp` (or `mp4`) + `cls` (classification) or + `txt` of
one caption a line (retrieval); `classnames.txt` and `zeroshot_classification_templates.txt`, one a line, with `{c}` for
the class.
"""

from __future__ import annotations

from collections.abc import Iterator

from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.media import Media, StillPictures
from multimodal_zoo.data.prompt_lists import listed_lines
from multimodal_zoo.data.shards import REMOTE, RawSample, decode_text, find_image, read_shard, read_text
from multimodal_zoo.data.skips import Skips, UnusableError, made_of
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="clip_benchmark")
class ClipBenchmark:
    """Pictures with class labels, or with several captions, in the order of the shards.

    Documents have `label` (a whole number) in meta where the set has classes, and `texts` (all captions) where it has
    captions; a document's own text is its class name or its first caption.

    Args:
        root: folder or http(s) address of one data set.
        split: folder of the shards.
        media: how a sample's file is read; None for still pictures.

    Raises:
        FileNotFoundError: no `nshards.txt` there.
        ValueError: one that holds no number, an empty line among the class names, or a set of several labels a picture.
    """

    def __init__(self, root: str, split: str = "test", media: Media | None = None) -> None:
        self.root = root.rstrip("/")
        self.media = media or StillPictures()
        count = read_text(f"{self.root}/{split}/nshards.txt").strip()
        if not count.isdecimal():
            raise ValueError(f"{self.root}/{split}/nshards.txt says {count!r}; expected the number of shards")
        self.shards = [f"{self.root}/{split}/{number}.tar" for number in range(int(count))]
        self.classnames = self._lines("classnames.txt")
        self.templates = self._lines("zeroshot_classification_templates.txt")
        if self._lines("dataset_type.txt") == ["multilabel"]:
            raise ValueError(f"{self.root} has several labels a picture; zero-shot classification needs one each")
        self.skips = Skips()

    def _lines(self, name: str) -> list[str]:
        try:
            return listed_lines(read_text(f"{self.root}/{name}"), f"{self.root}/{name}")
        except FileNotFoundError:
            return []

    def _decode(self, sample: RawSample) -> Document:
        key = sample["__key__"]
        encoded = find_image(sample, self.media.suffixes)
        if encoded is None:
            raise UnusableError("missing image", key)
        segment = self.media.read(encoded, key)
        if "cls" in sample:
            written = decode_text(sample["cls"])
            if not written.isdecimal():
                raise UnusableError("class that is no number", key)
            label = int(written)
            if self.classnames and label >= len(self.classnames):
                raise UnusableError("class beyond classnames.txt", key)
            name = self.classnames[label] if self.classnames else written
            return Document([segment, Text(name)], {"key": key, "label": label})
        texts = [line.strip() for line in decode_text(sample.get("txt", b"")).splitlines() if line.strip()]
        if not texts:
            raise UnusableError("neither class nor caption", key)
        return Document([segment, Text(texts[0])], {"key": key, "texts": texts})

    def __iter__(self) -> Iterator[Document]:
        """Every usable picture once.

        Raises:
            NoUsableSamplesError: there is none.
        """
        self.skips.take()  # counts of an earlier pass
        samples = (sample for shard in self.shards for sample in read_shard(shard, self.skips))
        yield from made_of(samples, self._decode, self.skips, "clip_benchmark", "benchmark's root")
        self.skips.report(self.root if REMOTE.match(self.root) else self.root.rsplit("/", 1)[-1])
