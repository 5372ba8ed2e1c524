"""One set of a published protocol, found below a common folder or address."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from multimodal_zoo.data.class_folders import ClassFolders
from multimodal_zoo.data.clip_benchmark import ClipBenchmark
from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.media import Media
from multimodal_zoo.data.prompts import Prompts, difference, packaged_prompts
from multimodal_zoo.data.shards import REMOTE
from multimodal_zoo.registry import DATASETS

logger = logging.getLogger(__name__)

KEY = "benchmark_root"
#: Folder names of a set, as CLIP_benchmark's export and its published copies have them.
FOLDERS = ("wds_{}", "wds_{}_test", "{}", "wds_vtab-{}", "wds_vtab-{}_test")
#: What a reader counts when a shard does not come, or not to its end.
BROKEN_OFF = ("shard cannot be opened", "truncated or damaged tar")
#: Sets prepared by VTAB may number their classes in an order of their own.
REORDERED = "wds_vtab-"
#: Sets of published protocols that no package knows: their names lie beside the data.
OUTSIDE = ("birdsnap", "ucf101", "kinetics400", "kinetics600", "kinetics700")


class AbsentDataError(FileNotFoundError):
    """A set of a suite is not below its root; the suite goes on with the others."""


class NoRootError(ValueError):
    """No place was given below which the sets of a suite could be."""


class MissingRootError(FileNotFoundError):
    """The place below which the sets of a suite should be is not there."""


@DATASETS.register_module(name="benchmark_set")
class BenchmarkSet:
    """A set in CLIP_benchmark's webdataset layout or in class folders, with names and templates of its protocol.

    Class names and templates beside the data win, for the labels were numbered by them; where the data brings none,
    those of the packages are used. Where both exist and differ, `prompts` says so.

    Args:
        name: clip-benchmark's name of the set.
        root: folder or http(s) address above the sets. With `{}` in it, the set's name goes there; otherwise the first
            of `wds_NAME`, `wds_NAME_test`, `NAME`, `wds_vtab-NAME` and `wds_vtab-NAME_test` that holds a set is taken.
        classes: how many classes the protocol has; None for a set of captions.
        sizes: how many pictures the protocol's publications count.
        templates: used when neither the data nor a package has any.
        captions: the first so many captions of a picture count; None for all.
        split: folder of the shards or classes.
        media: how a file is read; None for still pictures.

    Raises:
        AbsentDataError: the set is not there.
        NoRootError, MissingRootError: no root, or it is not there.
        ValueError: a number of classes other than `classes`, or no names or templates from anywhere.
    """

    def __init__(
        self,
        name: str,
        root: str | None,
        classes: int | None = None,
        sizes: Sequence[int] = (),
        templates: Sequence[str] = (),
        captions: int | None = None,
        split: str = "test",
        media: Media | None = None,
    ) -> None:
        self.title = name
        self.sizes = tuple(sizes)
        self.captions = captions
        self.reader = find_set(check_root(root), name, split, media)
        self.skips = self.reader.skips
        self.classnames: list[str] = []
        self.templates: list[str] = []
        self.prompts = ""
        if classes is not None:
            self._settle_prompts(name, classes, templates)

    def _settle_prompts(self, name: str, classes: int, templates: Sequence[str]) -> None:
        beside = self.reader.classnames if getattr(self.reader, "named", True) else []
        known = _package(name, needed=not (beside and self.reader.templates))
        if REORDERED in str(self.reader.root):
            known = replace(known, names=())
        beside_templates = [template.replace("{}", "{c}") for template in self.reader.templates]
        self.classnames = list(beside or known.names or self.reader.classnames)
        self.templates = list(beside_templates or known.templates or templates)
        where = f"benchmark set {name!r} in {self.reader.root}"
        if not self.classnames:
            raise ValueError(f"{where}: no class names; put classnames.txt there, one name a line, by label")
        if not self.templates:
            file = "zeroshot_classification_templates.txt"
            raise ValueError(f"{where}: no templates; put {file} there, one sentence with {{c}} a line")
        counted = self.reader.classnames or self.classnames  # class folders count too, whatever names they get
        if len(counted) != classes or len(self.classnames) != classes:
            raise ValueError(
                f"{where} has {len(counted)} classes, expected {classes}: this is another version of the set; "
                "correct its classnames.txt, or change dataset.classes of this evaluation"
            )
        self.prompts = _origin(beside, beside_templates, known, self.classnames)

    def __iter__(self) -> Iterator[Document]:
        """Every usable sample once.

        Raises:
            ConnectionError: a shard of a remote set did not come whole; figures of the rest would pass for the set's.
        """
        for document in self.reader:
            if self.captions is not None:
                texts = list(document.meta["texts"])[: self.captions]
                document = replace(document, meta={**document.meta, "texts": texts})
            yield document
        lost = [reason for reason in BROKEN_OFF if reason in self.skips.counts]
        if lost and REMOTE.match(str(self.reader.root)):
            raise ConnectionError(f"{KEY}: {self.reader.root} did not come whole: {self.skips}; run it again")


def check_root(root: str | None) -> str:
    """The root itself, if there can be sets below it.

    Raises:
        NoRootError: none was given.
        MissingRootError: a local folder that is not there.
    """
    if root is None:
        raise NoRootError(f"{KEY}: where are the data sets? Give {KEY}=FOLDER or an http(s) address")
    if REMOTE.match(root):
        return root.rstrip("/")
    path = Path(root).expanduser()
    if not (path.parent if "{}" in path.name else path).is_dir():
        raise MissingRootError(f"{KEY}: no folder {root}")
    return str(path)


def find_set(root: str, name: str, split: str, media: Media | None) -> ClipBenchmark | ClassFolders:
    """The reader of the first folder of a set that holds it.

    Raises:
        AbsentDataError: none does; the message says what was looked for.
        ConnectionError: an address that answers otherwise than with "not there".
    """
    patterns = [root] if "{}" in root else [f"{root}/{pattern}" for pattern in FOLDERS]
    places = [pattern.replace("{}", name) for pattern in patterns]
    for place in places:
        if exists(f"{place}/{split}/nshards.txt"):
            return ClipBenchmark(place, split, media)
        if not REMOTE.match(place) and ClassFolders.fits(Path(place), split):
            return ClassFolders(place, split, media)
    tried = ", ".join(place.rsplit("/", 1)[-1] for place in places)
    raise AbsentDataError(f"{KEY}: none of {tried} below {root} has {split}/nshards.txt (or class folders in {split}/)")


def exists(address: str) -> bool:
    """Whether a small file is there.

    Raises:
        ConnectionError: a server that cannot be reached, or says anything but "here it is" and "not found".
    """
    if not address.startswith(("http:", "https:")):
        if not REMOTE.match(address):
            return Path(address).is_file()
        return _readable(address)
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        with urlopen(address, timeout=30):
            return True
    except HTTPError as error:
        if error.code in (404, 410):
            return False
        raise ConnectionError(f"{KEY}: {address} answers {error.code} {error.reason}") from error
    except URLError as error:
        raise ConnectionError(f"{KEY}: {address} cannot be reached: {error.reason}") from error


def _readable(address: str) -> bool:
    from multimodal_zoo.data.shards import read_text

    try:
        return bool(read_text(address))
    except FileNotFoundError:
        return False


def _package(name: str, needed: bool) -> Prompts:
    """What a package has; nothing where it has none and the data is complete without."""
    try:
        return packaged_prompts(name)
    except (ImportError, KeyError):
        if needed and name not in OUTSIDE:
            raise
        return Prompts((), (), "")


def _origin(names: Sequence[str], templates: Sequence[str], known: Prompts, used: Sequence[str]) -> str:
    """Where names and templates come from, and how they differ from the package's."""
    by_folder = "the folders' names"
    origin = [
        f"names: {'beside the data' if names else known.source if known.names else by_folder}",
        f"templates: {'beside the data' if templates else known.source if known.templates else 'configuration'}",
    ]
    if names and known.names:
        origin.append(difference(used, known.names, "names"))
    if templates and known.templates:
        origin.append(difference(templates, known.templates, "templates"))
    return "; ".join(line for line in origin if line)
