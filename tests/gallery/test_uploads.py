"""Uploaded files are looked at before they are read."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal_zoo.gallery.limits import Limits
from multimodal_zoo.gallery.showroom import Showroom
from multimodal_zoo.gallery.uploads import read_picture

LIMITS = Limits(megabytes=1, megapixels=1)


@pytest.fixture
def room(tmp_path: Path) -> Showroom:
    """What uploads are looked at by."""
    return Showroom(None, None, LIMITS, tmp_path.resolve())  # type: ignore[arg-type]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge(path: Path, side: int) -> Path:
    """A PNG that says it has side x side pixels, in a few bytes."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_pictures_come_upright_and_in_rgb(room, tmp_path) -> None:
    image = Image.new("RGBA", (4, 2), (255, 0, 0, 0))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    found = read_picture(room, tmp_path / "a.png")
    assert (found.mode, found.size) == ("RGB", (2, 4))
    assert np.asarray(found).min() == 255  # what is transparent is white


@pytest.mark.parametrize("side", [1001, 12_000, 30_000])
def test_too_many_pixels_are_refused_by_the_header(room, tmp_path, side) -> None:
    with pytest.raises(ValueError, match=r"has (30000 x|12000 x|1001 x|far more)"):
        read_picture(room, huge(tmp_path / "a.png", side))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"", "is empty"),
        ("a.png", b"\0" * (2**20 + 1), "at most 1 MB"),
        ("a.png", b"no picture", "is no picture that is read here"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no picture that is read here"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "is no picture that is read here"),
        ("a.gif", b"GIF89a", "is no picture|is a broken picture"),
    ],
)
def test_files_that_are_no_pictures(room, tmp_path, name, content, said) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_picture(room, tmp_path / name)


def test_a_cut_picture_is_broken(room, tmp_path) -> None:
    Image.effect_noise((60, 60), 80).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    with pytest.raises(Exception, match=r"broken image: a\.png"):
        read_picture(room, tmp_path / "a.png")


def test_links_are_not_followed(room, tmp_path) -> None:
    Image.new("RGB", (4, 2)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(ValueError, match="is no uploaded file"):
        read_picture(room, tmp_path / "b.png")


def test_files_of_other_folders_are_no_uploads(room, tmp_path) -> None:
    Image.new("RGB", (4, 2)).save(tmp_path / "a.png")
    inner = dataclasses.replace(room, scratch=tmp_path / "own")
    for path in (tmp_path / "a.png", tmp_path / "own" / ".." / "a.png"):
        (tmp_path / "own").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=r"a\.png is no uploaded file"):
            read_picture(inner, path)


def test_limits_are_positive_and_texts_are_bounded() -> None:
    with pytest.raises(ValueError, match="jobs=0: expected at least 1"):
        Limits(jobs=0)
    assert LIMITS.text("  a b ", "text") == "a b"
    with pytest.raises(ValueError, match="prompt: 4,001 characters"):
        LIMITS.text("x" * 4001, "prompt")
