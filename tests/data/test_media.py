from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from multimodal_zoo.data.class_folders import ClassFolders, spoken
from multimodal_zoo.data.clip_benchmark import ClipBenchmark
from multimodal_zoo.data.media import VideoFrames, frame_numbers
from multimodal_zoo.data.skips import NoUsableSamplesError, UnusableError
from multimodal_zoo.registry import build

av = pytest.importorskip("av")


def write_video(path: Path, levels: list[int], suffix_codec: str = "mpeg4") -> Path:
    """A small grey video whose n-th frame has the n-th brightness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(suffix_codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [
        (9, 1, [4]),
        (10, 1, [5]),
        (1, 1, [0]),
        (16, 8, [1, 3, 5, 7, 9, 11, 13, 15]),
        (300, 8, [18, 56, 93, 131, 168, 206, 243, 281]),
        (3, 8, [0, 0, 0, 1, 1, 2, 2, 2]),
    ],
)
def test_uniform_frames_lie_in_the_middle_of_equal_parts(total: int, count: int, expected: list[int]) -> None:
    assert frame_numbers(total, count) == expected
    assert expected == [int((place + 0.5) * total / count) for place in range(count)]


def test_frame_numbers_need_frames() -> None:
    with pytest.raises(ValueError, match="0 of 5"):
        frame_numbers(5, 0)
    with pytest.raises(ValueError, match=r"media.count.*got 0"):
        VideoFrames(0)


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
def test_frames_of_a_real_file(tmp_path: Path, name: str) -> None:
    levels = [10, 40, 70, 100, 130, 160, 190, 220, 250, 20, 50, 80]
    path = write_video(tmp_path / name, levels)
    for source in (path, path.read_bytes()):
        video = VideoFrames(4).read(source, "a")
        assert video.rate == pytest.approx(10, abs=0.1)
        seen = [float(np.asarray(frame).mean()) for frame in video.frames]
        assert seen == pytest.approx([levels[number] for number in frame_numbers(12, 4)], abs=4)


def test_short_video_repeats_frames(tmp_path: Path) -> None:
    video = VideoFrames(8).read(write_video(tmp_path / "a.mp4", [20, 120, 220]), "a")
    seen = [float(np.asarray(frame).mean()) for frame in video.frames]
    assert seen == pytest.approx([20, 20, 20, 120, 120, 220, 220, 220], abs=4)


def test_broken_videos_are_unusable(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", list(range(0, 250, 5))).read_bytes()
    for content in (b"", b"no video", whole[: len(whole) // 3]):
        with pytest.raises(UnusableError, match="broken video: key"):
            VideoFrames(8).read(content, "key")
    with pytest.raises(UnusableError, match="broken video"):
        VideoFrames().read(tmp_path / "missing.mp4", "missing.mp4")


def test_missing_decoder_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match="pip install av"):
        VideoFrames().read(tmp_path / "a.mp4", "a")


def test_videos_in_class_folders(tmp_path: Path) -> None:
    write_video(tmp_path / "test/ApplyLipstick/1.mp4", [200] * 4)
    write_video(tmp_path / "test/yo_yo/2.mp4", [20] * 4)
    (tmp_path / "test/yo_yo/3.mp4").write_bytes(b"x")
    (tmp_path / "test/yo_yo/notes.txt").write_text("no video")
    data = build({"type": "class_folders", "root": str(tmp_path), "media": {"type": "video_frames", "count": 2}})
    documents = list(data)
    assert data.classnames == ["Apply Lipstick", "yo yo"]
    assert [(d.meta["label"], d.text) for d in documents] == [(0, "Apply Lipstick"), (1, "yo yo")]
    assert [len(document.segments[0].frames) for document in documents] == [2, 2]
    assert data.skips.counts == {"broken video": 1}
    assert len(list(data)) == 2
    assert data.skips.counts == {"broken video": 1}  # a second pass does not count twice


def test_videos_listed_in_a_csv(tmp_path: Path) -> None:
    write_video(tmp_path / "clips/1.mp4", [200] * 4)
    (tmp_path / "test.csv").write_text("path,label\nclips/1.mp4,juggling\nclips/2.mp4,abseiling\n")
    data = ClassFolders(str(tmp_path), media=VideoFrames())
    (document,) = list(data)
    assert (data.classnames, document.meta["label"]) == (["abseiling", "juggling"], 1)
    assert data.skips.counts == {"broken video": 1}
    (tmp_path / "classnames.txt").write_text("juggling\n")
    data = ClassFolders(str(tmp_path), media=VideoFrames())
    assert [document.meta["label"] for document in data] == [0]
    assert data.skips.counts == {"class that has no name": 1}
    (tmp_path / "test.csv").write_text("file,label\n")
    with pytest.raises(ValueError, match="needs the columns path and label; it has file, label"):
        ClassFolders(str(tmp_path))


def test_videos_in_shards(make_tar: Callable[..., Path], tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", [90] * 5).read_bytes()
    root = make_tar("set/test/0.tar", [("a.mp4", video), ("a.cls", b"1"), ("b.jpg", b"x"), ("b.cls", b"0")]).parents[1]
    (root / "test/nshards.txt").write_text("1")
    data = ClipBenchmark(str(root), media=VideoFrames(3))
    (document,) = list(data)
    assert len(document.segments[0].frames) == 3
    assert data.skips.counts == {"missing image": 1}


def test_class_folders_of_pictures(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("10", "9", "0"):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "test" / name / "a.PNG")
    data = ClassFolders(str(tmp_path))
    assert data.classnames == ["0", "9", "10"]  # by value: ImageNet-V2's folders are numbers
    assert [document.meta["label"] for document in data] == [0, 1, 2]
    (tmp_path / "classnames.txt").write_text("zero\nnine\n")
    with pytest.raises(ValueError, match=r"names 2 classes, but .*test has 3 folders"):
        ClassFolders(str(tmp_path))
    (tmp_path / "classnames.txt").unlink()
    with pytest.raises(FileNotFoundError, match="folder per class"):
        ClassFolders(str(tmp_path), split="val")
    for path in tmp_path.glob("test/*/*"):
        path.unlink()
    with pytest.raises(NoUsableSamplesError, match="benchmark_root"):
        list(ClassFolders(str(tmp_path)))


def test_folder_names_as_words() -> None:
    assert [spoken(n) for n in ("ApplyEyeMakeup", "air_drumming", "YoYo", "dog")] == [
        "Apply Eye Makeup",
        "air drumming",
        "Yo Yo",
        "dog",
    ]


def test_names_and_templates_beside_class_folders_are_read_as_those_beside_shards(tmp_path: Path) -> None:
    for name in ("²", "1"):
        (tmp_path / "test" / name).mkdir(parents=True)
    (tmp_path / "classnames.txt").write_text("cat \ndog\n\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    data = ClassFolders(str(tmp_path))
    assert (data.classnames, data.templates) == (["cat", "dog"], ["a {c}"])
    (tmp_path / "classnames.txt").write_text("cat\n\ndog")
    with pytest.raises(ValueError, match=r"classnames\.txt: line 2 is empty"):
        ClassFolders(str(tmp_path))
