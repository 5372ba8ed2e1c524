"""Files that are small and ask for much, or that name places which they must not: read in bounded memory, or refused.

    python tests/fuzz/fuzz_bombs.py FOLDER      # makes and opens each, prints what came of it as lines of JSON

The process bounds its own memory first: what asks for more fails here, not on the machine.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fuzz_data import all_of, decoded, picture, tar_of
from fuzz_harness import Door, attempt, bounded
from fuzz_weights import read_both
from fuzz_words import captions, compared, embeddings, merged, samples, searched, tokenized

import multimodal_zoo as zoo
from multimodal_zoo.commands.data_source import data_overrides
from multimodal_zoo.data.camera_cache import read_infos
from multimodal_zoo.data.code_shards import VisualCodes
from multimodal_zoo.data.folder_pictures import FolderPictures
from multimodal_zoo.data.media import VideoFrames
from multimodal_zoo.data.pages import WebdatasetPages
from multimodal_zoo.data.skips import NoUsableSamplesError
from multimodal_zoo.data.tables import rows_of
from multimodal_zoo.data.webdataset_pairs import WebdatasetPairs
from multimodal_zoo.data.webdataset_videos import WebdatasetVideos

#: Bytes that the process may grow by, and mebibytes that bombs unpack to.
MEMORY, LARGE = 400 << 20, 500
SAMPLE = {"a.png": picture(), "a.txt": b"words", "a.json": b'{"caption": "words", "synthetic": "words"}'}


def _file(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return make


def blocks(content: bytes) -> bytes:
    """A piece of a deflate stream that can stand anywhere in one."""
    made = zlib.compressobj(9, wbits=-15)
    return made.compress(content) + made.flush(zlib.Z_FULL_FLUSH)


def packed(fill: bytes = b"\0") -> bytes:
    """A deflate stream that unpacks to `LARGE` mebibytes: one piece, repeated, and an end."""
    return blocks(fill * (1 << 20)) * LARGE + zlib.compressobj(9, wbits=-15).flush()


def gzipped(start: bytes = b"", fill: bytes = b"\0", size: int = LARGE, end: bytes = b"") -> bytes:
    """A gzip file that unpacks to so many mebibytes between a beginning and an end, of one member as shards have it."""
    piece, crc = fill * (1 << 20), zlib.crc32(start)
    for _ in range(size):
        crc = zlib.crc32(piece, crc)
    trailer = struct.pack("<II", zlib.crc32(end, crc), len(start) + (size << 20) + len(end))
    stream = blocks(start) + blocks(piece) * size + blocks(end) + zlib.compressobj(9, wbits=-15).flush()
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + stream + trailer


def zipped(member: str, *others: str) -> bytes:
    """A zip whose member unpacks to `LARGE` mebibytes; others are empty."""
    content, size = packed(), LARGE << 20
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in others:
            archive.writestr(name, b"")
        info = zipfile.ZipInfo(member)
        archive.writestr(info, content)
        info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, size  # what the directory at the end says
    made = bytearray(buffer.getvalue())
    place = info.header_offset
    made[place + 8 : place + 10] = struct.pack("<H", zipfile.ZIP_DEFLATED)
    made[place + 22 : place + 26] = struct.pack("<I", size)
    return bytes(made)


def png(width: int, height: int, before: bytes = b"") -> bytes:
    """A PNG of a size, one bit a pixel, with chunks in front of its pixels."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def text_bomb() -> bytes:
    """A PNG of one pixel with a compressed text."""
    return png(1, 1, chunk(b"zTXt", b"c\0\0x\x9c" + packed()))


def claimed(kind: str, mark: bytes, behind: int, size: bytes) -> bytes:
    """A picture of 13 x 9 pixels that claims another size."""
    content = bytearray(picture(kind))
    place = content.index(mark) + behind
    content[place : place + len(size)] = size
    return bytes(content)


def tar_with(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> bytes:
    """A tar with one strange member in front of a sample."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    header = info.tobuf(tarfile.GNU_FORMAT)
    if size:
        info.size = size
        header = info.tobuf(tarfile.GNU_FORMAT)
    return header + tar_of(SAMPLE)


def large_member(name: str, size: int) -> bytes:
    """A packed tar with a member of so many mebibytes, blanks or zeros, in front of a sample."""
    fill = b" " if name.endswith("json") else b"\0"
    return gzipped(tar_with(name, size=size << 20)[:512], fill, size, tar_of(SAMPLE))


def safetensors(header: bytes, length: int | None = None) -> bytes:
    """A safetensors file with a header."""
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(64)


def gguf(tensors: int, pairs: int, rest: bytes = b"") -> bytes:
    """A GGUF file that claims tensors and pairs."""
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + rest + bytes(64)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _aliases(folder: Path) -> Path:
    """A `config.yaml` of nine lists, each of nine times the one before it."""
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, folder / "model.safetensors")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    (folder / "config.yaml").write_text("\n".join([*lines, "model: {type: dual_encoder, image: *a9}"]))
    return folder / "config.yaml"


def _aliases_of_a_run(folder: Path) -> Path:
    from fuzz_words import run_folder

    run_folder(folder)
    return _aliases(folder)


def _claimed_shard(folder: Path) -> Path:
    """A shard of embeddings whose arrays claim two to the forty numbers."""
    path = embeddings("000-00000.npz", "npz")(folder)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("key", "image_embedding", "mmzoo"):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 20)}
            )
            archive.writestr(f"{name}.npy", header.getvalue() + bytes(64))
    return path


def _packed_shard(folder: Path) -> Path:
    path = embeddings("000-00000.npz", "npz")(folder)
    path.write_bytes(zipped("image_embedding.npy"))
    return path


def _strange_folder(folder: Path) -> Path:
    """A folder with a link to itself, one that leads nowhere, a pipe that nobody writes to, and a picture."""
    (folder / "loop").symlink_to(folder)
    (folder / "lost.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "a.png").write_bytes(picture())
    return folder / "a.png"


def listed(path: Path) -> None:
    """What `mmzoo embed` finds in a folder, with its pictures."""
    data_overrides(str(path.parent))
    reader = FolderPictures(str(path.parent), need_caption=False)
    assert [document.key for document in reader] == ["a.png"]
    assert reader.skips.counts == {"missing image file": 1, "no plain file": 1}


def paired(path: Path) -> None:
    """The pairs of a tar, in training."""
    all_of(WebdatasetPairs(str(path), 1, 1, None))


def streamed(path: Path) -> None:
    """Pages, codes and clips of a tar; none of them has a sample here, and each says so."""
    for reader in (
        WebdatasetPages(str(path), 1, 1, None),
        VisualCodes(str(path)),
        WebdatasetVideos(str(path), 1, 1, None, VideoFrames(2)),
    ):
        with contextlib.suppress(NoUsableSamplesError):
            all_of(reader)


def saved(path: Path) -> None:
    """The model of a folder."""
    zoo.from_pretrained(path.parent)


DEEP = struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 20_000
STRANGE = (
    ("absolute path", "/etc/a.png", tarfile.REGTYPE, "", 0), ("path above", "../../a.png", tarfile.REGTYPE, "", 0),
    ("device", "a.png", tarfile.CHRTYPE, "", 0), ("pipe", "a.png", tarfile.FIFOTYPE, "", 0),
    ("symbolic link", "a.png", tarfile.SYMTYPE, "/etc/passwd", 0),
    ("hard link", "a.txt", tarfile.LNKTYPE, "/etc/passwd", 0),
    ("member of a terabyte", "b.png", tarfile.REGTYPE, "", 1 << 40),
)  # fmt: skip
OTHER_KIND = b'{"a": {"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4398046511104]}}'
DOORS = (
    Door("PNG of 1 x 1", _file("a.png", lambda: png(1, 1)), decoded),
    Door("PNG of 30,000 x 30,000", _file("a.png", lambda: png(30_000, 30_000)), decoded),
    Door("PNG of 9,000 x 9,000", _file("a.png", lambda: png(9_000, 9_000)), decoded),
    Door(
        "PNG with a packed text", _file("a.png", lambda: png(1, 1, chunk(b"zTXt", b"c\0\0x\x9c" + packed()))), decoded
    ),
    Door(
        "JPEG that claims 65,535 x 65,535",
        _file("a.jpg", lambda: claimed("JPEG", b"\xff\xc0", 5, b"\xff\xff\xff\xff")),
        decoded,
    ),
    Door("GIF that claims 65,535 x 65,535", _file("a.gif", lambda: claimed("GIF", b"GIF8", 6, b"\xff" * 4)), decoded),
    Door(
        "BMP that claims 2,000,000,000 rows",
        _file("a.bmp", lambda: claimed("BMP", b"BM", 22, struct.pack("<i", 2_000_000_000))),
        decoded,
    ),
    Door(
        "safetensors with a header of 2^60 bytes",
        _file("a.safetensors", lambda: safetensors(b"{}", 1 << 60)),
        read_both,
    ),
    Door(
        "safetensors with a header of 99 MB of blanks",
        _file("a.safetensors", lambda: safetensors(b" " * 99_000_000)),
        read_both,
    ),
    Door("safetensors with a tensor of 4 TB", _file("a.safetensors", lambda: safetensors(OTHER_KIND)), read_both),
    Door(
        "safetensors with deep metadata",
        _file("a.safetensors", lambda: safetensors(b'{"__metadata__":' + b"[" * 100_000)),
        read_both,
    ),
    Door("GGUF with 2^60 tensors", _file("a.gguf", lambda: gguf(1 << 60, 0)), read_both),
    Door("GGUF with 2^60 pairs", _file("a.gguf", lambda: gguf(0, 1 << 60)), read_both),
    Door("GGUF with a text of 2^60 bytes", _file("a.gguf", lambda: gguf(0, 1, struct.pack("<Q", 1 << 60))), read_both),
    Door(
        "GGUF with a list of 2^60 texts",
        _file("a.gguf", lambda: gguf(0, 1, _text("k") + struct.pack("<IIQ", 9, 8, 1 << 60))),
        read_both,
    ),
    Door("GGUF with lists in lists", _file("a.gguf", lambda: gguf(0, 1, _text("k") + DEEP)), read_both),
    Door(
        "GGUF with a tensor of 2^60 dimensions",
        _file("a.gguf", lambda: gguf(1, 0, _text("t") + struct.pack("<I", 0xFFFFFFFF))),
        read_both,
    ),
    Door(
        "GGUF with a tensor of 2^126 weights",
        _file("a.gguf", lambda: gguf(1, 0, _text("t") + struct.pack("<IQQIQ", 2, 1 << 63, 1 << 63, 0, 0))),
        read_both,
    ),
    Door("pickle in a packed zip", _file("a.pt", lambda: zipped("a/data.pkl", "a/version")), read_both),
    Door("TorchScript in a packed zip", _file("a.pt", lambda: zipped("a/data.pkl", "a/constants.pkl")), read_both),
    Door(
        "pickle that claims a text of 2 GB",
        _file("a.pth", lambda: b"\x80\x02X" + struct.pack("<I", 2**31 - 1)),
        read_both,
    ),
    Door("shard of embeddings, packed", _packed_shard, searched),
    Door("shard of embeddings that claims 2^40 numbers", _claimed_shard, searched),
    Door(
        "parquet with a footer of 2 GB",
        _file("a.parquet", lambda: b"PAR1" + b"\xff\xff\xff\x7fPAR1"),
        lambda path: list(rows_of(path)),
    ),
    Door("captions, gzip of one long line", _file("a.jsonl.gz", lambda: gzipped(b'{"raw": "', b"x")), captions),
    Door("captions, gzip of an endless list", _file("a.json.gz", lambda: gzipped(b'[{"raw": "', b"x")), captions),
    Door("captions, deep list", _file("a.json", lambda: b"[" * 1_000_000), captions),
    Door(
        "captions, tar with a packed text",
        _file("a.tar.gz", lambda: gzipped(tar_with("b.txt", size=LARGE << 20)[:512])),
        samples,
    ),
    Door(
        "pairs, tar with a packed text",
        _file("a.tar.gz", lambda: gzipped(tar_with("b.txt", size=LARGE << 20)[:512])),
        paired,
    ),
    *(
        Door(f"pairs, tar with {what}", _file("a.tar", lambda m=member: tar_with(*m)), paired)
        for what, *member in STRANGE
    ),
    *(
        Door(f"captions, tar with {what}", _file("a.tar", lambda m=member: tar_with(*m)), samples)
        for what, *member in STRANGE
    ),
    *(
        Door(
            f"{reader}, tar with a .{suffix} of {size} MiB",
            _file("a.tar.gz", lambda s=suffix, n=size: large_member(f"b.{s}", n)),
            read,
        )
        for reader, read, suffix, size in (
            ("pairs", paired, "json", 200),
            ("pairs", paired, "png", 300),
            ("pages, codes and clips", streamed, "json", 200),
            ("pages, codes and clips", streamed, "0.npy", 300),
        )
    ),
    Door("key frames, gzip of one long line", _file("a.jsonl.gz", lambda: gzipped(b'{"format": "', b"x")), read_infos),
    Door("merges, gzip of one long line", _file("a.txt.gz", lambda: gzipped(b"#", b"x")), merged),
    Door("tokenizer.json, deep", _file("tokenizer.json", lambda: b'{"a":' * 100_000), tokenized),
    Door("model folder with aliases", _aliases, saved, names=("door",)),
    Door("run folder with aliases", _aliases_of_a_run, compared, names=("door",)),
    Door("folder with links and a pipe", _strange_folder, listed),
)


def main(folder: Path) -> None:
    """Make and open each in bounded memory."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    decoded(_file("warm.png", picture)(folder))  # what libraries load on first use does not count
    captions(_file("warm.jsonl", lambda: b'{"raw": "a", "synthetic": "b"}\n')(folder))
    for number, door in enumerate(DOORS):
        place = folder / f"{number}" / "door"
        place.mkdir(parents=True)
        path = door.make(place)
        small = path.stat().st_size
        with bounded(MEMORY):
            what, said = attempt(door, path)
        print(json.dumps({"name": door.name, "what": what, "said": said[:500], "bytes": small}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
