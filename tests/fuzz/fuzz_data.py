"""Doors of data: pictures, clips, tar shards, tables, lists of records, driving scenes, calibrations."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz_harness import Door
from fuzz_mutations import damaged_lines, damaged_tree
from PIL import Image as PilImages

from multimodal_zoo.data.class_folders import ClassFolders
from multimodal_zoo.data.code_shards import VisualCodes, write_codes
from multimodal_zoo.data.conversations import ConversationList
from multimodal_zoo.data.documents import Codes, Document, Image, Text
from multimodal_zoo.data.edit_folders import EditFolders
from multimodal_zoo.data.emu3_features import Emu3Features, Emu3RawList
from multimodal_zoo.data.line_pairs import LinePairs
from multimodal_zoo.data.media import StillPictures, VideoFrames
from multimodal_zoo.data.pages import WebdatasetPages
from multimodal_zoo.data.picture_hash import PictureHashes
from multimodal_zoo.data.pictures import load, open_picture, to_rgb
from multimodal_zoo.data.preference_pairs import PreferencePairs
from multimodal_zoo.data.shard_counts import count_samples
from multimodal_zoo.data.tables import rows_of
from multimodal_zoo.data.visual_store import VisualStore, VisualStoreWriter, picture_key
from multimodal_zoo.data.webdataset_pairs import WebdatasetPairs

Make = Callable[[Path], Path]


def picture(kind: str = "PNG", size: tuple[int, int] = (13, 9), mode: str = "RGB") -> bytes:
    """A small picture of many colours."""
    width, height = size
    values = np.arange(width * height * 3, dtype=np.int64).reshape(height, width, 3) * 37 % 256
    buffer = io.BytesIO()
    PilImages.fromarray(values.astype(np.uint8)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def _file(name: str, content: Callable[[], bytes]) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return make


def decoded(path: Path) -> None:
    """A picture as RGB: from its file, and from bytes as tar shards have them."""
    to_rgb(load(open_picture(path)))
    StillPictures().read(path.read_bytes(), path.name)


def clip() -> bytes:
    """Six frames of video."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=6)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number * 40, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def tar_of(members: dict[str, bytes], mode: str = "w") -> bytes:
    """A tar with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pairs(mode: str = "w") -> bytes:
    """Three samples as img2dataset writes them."""
    members: dict[str, bytes] = {}
    for number in range(3):
        facts = {"caption": f"a picture {number}", "url": f"http://x/{number}", "width": 13, "synthetic": "words"}
        members[f"{number:05d}.png"] = picture()
        members[f"{number:05d}.txt"] = f"a picture {number}".encode()
        members[f"{number:05d}.json"] = json.dumps(facts).encode()
    return tar_of(members, mode)


def pages() -> bytes:
    """Two pages of MMC4 with their pictures."""
    members: dict[str, bytes] = {}
    for number in range(2):
        record = {"text_list": ["one", "two"], "image_info": [{"image_name": "a.png", "matched_text_index": 1}]}
        members[f"{number}.json"] = json.dumps(record).encode()
        members[f"{number}.0.png"] = picture()
    return tar_of(members)


def all_of(reader: Any) -> None:
    """Every document, with what was left out in an error if nothing is left."""
    found = 0
    for document in reader:
        found += 1
        del document
    if not found:
        raise reader.skips.nothing_usable("reader", "data.train")


def by_number(reader: Any) -> None:
    """Every document of a reader with numbered ones; those that are unusable are told one by one in training."""
    from multimodal_zoo.data.skips import UnusableError

    wrong = None
    for number in range(min(len(reader), 20)):
        try:
            document = reader[number]
            for segment in document.segments:
                if isinstance(segment, Image):
                    load(segment.image)  # type: ignore[arg-type]
        except UnusableError as error:
            wrong = error
    if wrong is not None:
        raise wrong


def _codes(folder: Path) -> Path:
    documents = [Document([Text("a"), Codes(np.arange(6).reshape(2, 3))], {"key": str(n)}) for n in range(2)]
    write_codes(folder / "000-00000.tar", documents, 0)
    return folder / "000-00000.tar"


def _table(suffix: str) -> Make:
    rows = [{"image": f"{n}.png", "text": f"words {n}", "more": n} for n in range(4)]

    def content() -> bytes:
        if suffix == ".parquet":
            import pyarrow as pa
            from pyarrow import parquet

            buffer = io.BytesIO()
            parquet.write_table(pa.Table.from_pylist(rows), buffer)
            return buffer.getvalue()
        if suffix == ".jsonl":
            return "".join(json.dumps(row) + "\n" for row in rows).encode()
        lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
        return "\n".join(("," if suffix == ".csv" else "\t").join(line) for line in lines).encode()

    return _file(f"table{suffix}", content)


def _with_picture(name: str, content: Any) -> Make:
    """A list of records beside the picture that they name."""

    def make(folder: Path) -> Path:
        (folder / "a.png").write_bytes(picture())
        lines = name.endswith(".jsonl")
        text = "".join(json.dumps(row) + "\n" for row in content) if lines else json.dumps(content)
        (folder / name).write_text(text)
        return folder / name

    return make


TURNS = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "x"}]
CONVERSATIONS = [{"id": n, "image": "a.png", "conversations": TURNS} for n in range(2)]


def _edits(folder: Path) -> Path:
    (folder / "one").mkdir()
    (folder / "one" / "prompt.json").write_text(json.dumps({"edit": "make it red"}))
    for number in (0, 1):
        (folder / "one" / f"7_{number}.jpg").write_bytes(picture("JPEG"))
    (folder / "seeds.json").write_text(json.dumps([["one", ["7"]]]))
    return folder / "seeds.json"


def _features(name: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / "list").mkdir()
        (folder / "feature").mkdir()
        torch.save({"name": "a", "images": np.arange(6).reshape(2, 3), "texts": "words"}, folder / "feature" / "a.pth")
        (folder / "list" / "train.json").write_text(json.dumps({"prefix": "feature", "path_list": ["a.pth"]}))
        return folder / name

    return make


def _preferences(name: str) -> Make:
    def make(folder: Path) -> Path:
        for side in ("a", "b"):
            np.save(folder / f"{side}.npy", np.arange(6, dtype=np.int32).reshape(2, 3))
        row = {"key": "k", "text": "words", "chosen": "a.npy", "rejected": "b.npy", "reference": [-1.0, -2.0]}
        (folder / "pairs.jsonl").write_text(json.dumps(row) + "\n")
        return folder / name

    return make


def _classes(folder: Path) -> Path:
    (folder / "a.png").write_bytes(picture())
    (folder / "test.csv").write_text("path,label\na.png,cat\na.png,dog\n")
    return folder / "test.csv"


def _hashes(folder: Path) -> Path:
    PictureHashes(["a", "b"], np.zeros((2, 6), np.uint64)).save(folder / "hashes.npz")
    return folder / "hashes.npz"


PIXELS = torch.zeros(3, 4, 4)


def _store(name: str) -> Make:
    def make(folder: Path) -> Path:
        writer = VisualStoreWriter(folder, {"width": 8, "weights": "x"})
        writer.add(picture_key(PIXELS, 2), torch.ones(2, 8))
        writer.flush()
        return folder / name

    return make


def stored(path: Path) -> None:
    """The embeddings of the only picture."""
    store = VisualStore(str(path.parent))
    _ = store.facts
    store.find(PIXELS, 2)


def _counts(folder: Path) -> Path:
    (folder / "sizes.json").write_text(json.dumps({"a.tar": 5, "b.tar": 6}))
    return folder / "sizes.json"


DOORS = (
    *(
        Door(f"picture, {kind}, {mode}", _file(f"a.{suffix}", lambda k=kind, m=mode: picture(k, mode=m)), decoded)
        for kind, suffix, mode in (
            ("PNG", "png", "RGB"),
            ("PNG", "png", "P"),
            ("JPEG", "jpg", "RGB"),
            ("JPEG", "jpg", "CMYK"),
            ("WEBP", "webp", "RGB"),
            ("GIF", "gif", "P"),
            ("BMP", "bmp", "RGB"),
            ("TIFF", "tiff", "RGB"),
        )
    ),
    Door("video, MP4", _file("a.mp4", clip), lambda path: VideoFrames(2).read(path, path.name), share=50),
    Door("tar of pairs", _file("a.tar", pairs), lambda path: all_of(WebdatasetPairs(str(path), 1, 1, None))),
    Door(
        "tar of pairs, gzip",
        _file("a.tar.gz", lambda: pairs("w:gz")),
        lambda path: all_of(WebdatasetPairs(str(path), 1, 1, None)),
    ),
    Door("tar of pages", _file("a.tar", pages), lambda path: all_of(WebdatasetPages(str(path), 1, 1, None))),
    Door("tar of codes", _codes, lambda path: all_of(VisualCodes(str(path)))),
    *(
        Door(
            f"table {suffix}",
            _table(suffix),
            lambda path: list(rows_of(path)),
            **({"damage": damaged_lines} if suffix == ".jsonl" else {}),
        )  # type: ignore[arg-type]
        for suffix in (".csv", ".tsv", ".jsonl", ".parquet")
    ),
    Door(
        "conversations, list",
        _with_picture("list.json", CONVERSATIONS),
        lambda path: by_number(ConversationList(str(path), str(path.parent))),
        damaged_tree,
    ),
    Door(
        "conversations, lines",
        _with_picture("list.jsonl", CONVERSATIONS),
        lambda path: by_number(ConversationList(str(path), str(path.parent))),
        damaged_lines,
    ),
    Door(
        "pairs, lines",
        _with_picture("list.jsonl", [{"filename": "a.png", "caption": "words"}] * 2),
        lambda path: by_number(LinePairs(str(path), str(path.parent))),
        damaged_lines,
    ),
    Door("edits", _edits, lambda path: by_number(EditFolders(str(path.parent))), damaged_tree),
    Door("Emu3's list", _features("list/train.json"), lambda path: by_number(Emu3Features(str(path))), damaged_tree),
    Door(
        "Emu3's feature file",
        _features("feature/a.pth"),
        lambda path: by_number(Emu3Features(str(path.parents[1] / "list" / "train.json"))),
    ),
    Door(
        "Emu3's raw list",
        _with_picture("raw.json", [{"name": "n", "text": "words", "image": "a.png"}]),
        lambda path: by_number(Emu3RawList(str(path))),
        damaged_tree,
    ),
    Door(
        "preferences, lines",
        _preferences("pairs.jsonl"),
        lambda path: by_number(PreferencePairs(str(path))),
        damaged_lines,
    ),
    Door(
        "preferences, codes",
        _preferences("a.npy"),
        lambda path: by_number(PreferencePairs(str(path.parent / "pairs.jsonl"))),
    ),
    Door("classes, CSV", _classes, lambda path: all_of(ClassFolders(str(path.parent))), names=("door",)),
    Door("hashes of pictures", _hashes, PictureHashes.load),
    Door("visual store, facts", _store("visual_store.json"), stored, damaged_tree),
    Door("visual store, index", _store("index-00000.npz"), stored),
    Door("visual store, rows", _store("visual-00000.npy"), stored),
    Door(
        "sizes of shards",
        _counts,
        lambda path: count_samples([str(path.parent / "a.tar"), str(path.parent / "b.tar")], "data.train"),
        damaged_tree,
    ),
)
