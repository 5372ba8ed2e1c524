"""Pages, storyboards, edits and texts alone in their published layouts."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emu_samples import picture
from PIL import Image as Pillow

from multimodal_zoo.data.conversations import ConversationList
from multimodal_zoo.data.documents import Document, Image, Text, Video
from multimodal_zoo.data.edit_folders import EditFolders
from multimodal_zoo.data.media import FRAME_CHOICES, VideoFrames
from multimodal_zoo.data.pages import PageList, WebdatasetPages
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.storyboards import (
    Sheet,
    Storyboard,
    Subtitle,
    WebdatasetStoryboards,
    cut_sheet,
    storyboard,
    storyboard_document,
)
from multimodal_zoo.data.text_list import TextList

PNG = "png"


def encoded(seed: int) -> bytes:
    """A small picture as a file."""
    file = io.BytesIO()
    Pillow.fromarray(picture(seed)).save(file, PNG)
    return file.getvalue()


def shard(folder: Path, members: dict[str, bytes]) -> str:
    """A tar of some files."""
    path = folder / "part.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def told(document: Document) -> list[Any]:
    """Texts, and pictures by the seed that they were made of."""
    seeds = {picture(number).tobytes(): number for number in range(9)}
    found: list[Any] = []
    for one in document.segments:
        found.append(one.text if isinstance(one, Text) else seeds[np.asarray(one.image).tobytes()])  # type: ignore[union-attr]
    return found


MMC4 = {
    "text_list": ["Zero.", "One.", "", "Three."],
    "image_info": [
        {"image_name": "a.png", "matched_text_index": 1},
        {"image_name": "gone.png", "matched_text_index": 1},
        {"image_name": "b.png", "matched_text_index": 3},
    ],
}
OBELICS = {
    "texts": [None, "One.", None, None, "Two.", None],
    "images": ["a.png", None, "b.png", "gone.png", None, "a.png"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A list of pages and a folder of their pictures."""
    (tmp_path / "pictures").mkdir()
    for seed, name in ((1, "a.png"), (2, "b.png")):
        (tmp_path / "pictures" / name).write_bytes(encoded(seed))
    rows = [MMC4, OBELICS, {"text_list": [], "image_info": []}, {"texts": ["a"]}, "no record",
            {"text_list": ["a"], "image_info": [{"image_name": "../x", "matched_text_index": 0}]},
            {"text_list": ["a"], "image_info": [{"image_name": "a.png", "matched_text_index": 4}]},
            {"texts": [None], "images": ["a.png"]}]  # fmt: skip
    (tmp_path / "pages.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\nbroken\n")
    return tmp_path


def test_pages_of_both_layouts_are_documents(folder: Path) -> None:
    reader = PageList(str(folder / "pages.jsonl"), str(folder / "pictures"))
    assert len(reader) == 9
    assert told(reader[0]) == ["Zero.", 1, "One.", 2, "Three."]
    assert reader[0].meta["sentences"] == ["One.", "Three."]
    assert told(reader[1]) == [1, "One.", 2, "Two.", 1]
    assert reader[1].meta["sentences"] == ["One.", "Two.", None]
    assert [document.key for document in reader] == ["pages.jsonl, line 1", "pages.jsonl, line 2"]
    assert reader.skips.counts == {
        "missing image": 1, "broken record": 4, "path outside the folder": 1, "missing text": 1,
    }  # fmt: skip
    with pytest.raises(IndexError, match="9 lines, no number 9"):
        _ = reader[9]
    with pytest.raises(FileNotFoundError, match=r"data\.train\.folder"):
        PageList(str(folder / "pages.jsonl"), str(folder / "none"))


def test_blank_texts_of_pages_are_none(folder: Path) -> None:
    """They say nothing: neither behind a picture, nor where a page has no other text."""
    rows = [{"texts": [None, " ", "One.", "\n"], "images": ["a.png", None, None, None]},
            {"texts": [None, " "], "images": ["a.png", None]},
            {"texts": [None, "One."], "images": ["a\0.png", None]}]  # fmt: skip
    (folder / "blank.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    reader = PageList(str(folder / "blank.jsonl"), str(folder / "pictures"))
    (page,) = reader
    assert told(page) == [1, "One."]
    assert page.meta["sentences"] == ["One."]
    assert reader.skips.counts == {"missing text": 1, "path that no file can have": 1}


def test_pages_in_shards_bring_their_pictures_along(tmp_path: Path) -> None:
    inside = json.loads(json.dumps(MMC4))
    inside["image_info"][0]["image_base64"] = base64.b64encode(encoded(3)).decode()
    broken = {**MMC4, "image_info": [{"matched_text_index": 0, "image_base64": "?"}]}
    path = shard(tmp_path, {
        "one.json": json.dumps(MMC4).encode(), "one.0.png": encoded(1), "one.2.png": encoded(2),
        "two.json": json.dumps(inside).encode(), "three.json": b"{", "four.json": json.dumps(broken).encode(),
    })  # fmt: skip
    reader = WebdatasetPages(path, 1, 10, None)
    assert [told(document) for document in reader] == [
        ["Zero.", 1, "One.", 2, "Three."],
        ["Zero.", 3, "One. Three."],
    ]
    assert reader.skips.counts == {"broken record": 1, "broken image": 1}


def test_storyboards_in_shards_go_by_number(tmp_path: Path) -> None:
    path = shard(tmp_path, {
        "v.0.txt": b"", "v.0.png": encoded(1), "v.1.txt": b"first words", "v.1.png": encoded(2),
        "v.10.txt": b"the end", "v.2.png": encoded(3), "w.0.txt": b"no picture",
    })  # fmt: skip
    reader = WebdatasetStoryboards(path, 1, 10, None)
    assert [told(document) for document in reader] == [[1, "first words", 2, 3, "the end"]]
    assert reader.skips.counts == {"missing image": 1}


def test_sheets_are_cut_row_by_row_and_words_stand_in_front_of_the_next_frame() -> None:
    pixels = np.arange(2 * 3 * 4 * 2 * 3, dtype=np.uint8).reshape(6, 8, 3)
    frames = cut_sheet(Sheet(pixels, 4, 3, 2, 2, 3))
    assert len(frames) == 4
    assert np.array_equal(frames[1], pixels[:3, 4:])
    assert np.array_equal(frames[2], pixels[3:, :4])
    found = storyboard([Sheet(pixels, 4, 3, 2, 2, 3)], 9.0, [Subtitle("b", 2.0), Subtitle("a", 0.0), Subtitle("c", 99)])
    assert (len(found.frames), found.texts) == (3, {0: "", 1: "a b", 2: "", 3: "c"})
    segments = storyboard_document(found, "v").segments
    assert [one.text if isinstance(one, Text) else 0 for one in segments] == [0, "a b", 0, 0, "c"]
    assert not storyboard_document(Storyboard([], {}), "v").segments
    with pytest.raises(ValueError, match="at least one frame"):
        storyboard([], 9.0, [])
    with pytest.raises(ValueError, match="cannot hold thumbnails"):
        cut_sheet(Sheet(pixels, 4, 3, 3, 2, 3))


def test_edits_are_a_picture_an_instruction_and_a_picture(tmp_path: Path) -> None:
    (tmp_path / "seeds.json").write_text(json.dumps([["one", ["7", 8]], ["two", ["9"]], ["../x", ["1"]]]))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "prompt.json").write_text(json.dumps({"edit": " make it red "}))
    for name, seed in (("7_0", 1), ("7_1", 2), ("8_0", 3)):
        Pillow.fromarray(picture(seed)).save(tmp_path / "one" / f"{name}.jpg")
    reader = EditFolders(str(tmp_path))
    assert len(reader) == 4
    before, words, after = reader[0].segments
    assert isinstance(before, Image)
    assert isinstance(after, Image)
    assert words == Text("make it red")
    assert [document.key for document in reader] == ["one/7"]
    assert reader.skips.counts == {"missing image file": 1, "broken record": 1, "path outside the folder": 1}
    (tmp_path / "seeds.json").write_text("{}")
    with pytest.raises(ValueError, match="lists no pair"):
        EditFolders(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no seeds\.json"):
        EditFolders(str(tmp_path / "one"))


def test_texts_alone_are_lines(tmp_path: Path) -> None:
    table = tmp_path / "00.jsonl"
    table.write_text('{"text": "a dog", "meta": {}}\n{"text": " "}\n[]\n')
    reader = TextList(str(table))
    assert [document.segments for document in reader] == [[Text("a dog")]]
    assert reader.skips.counts == {"missing text": 2}
    with pytest.raises(IndexError, match="3 lines"):
        _ = reader[3]


def test_frames_are_chosen_by_name() -> None:
    assert FRAME_CHOICES["emu"](31, 8) == [1, 5, 9, 12, 16, 20, 23, 27]
    assert len(FRAME_CHOICES["emu2_demo"](103, 8)) == 9  # one more than asked, as published
    for total in (1, 7, 8, 31, 103, 1500):
        assert len(FRAME_CHOICES["middle"](total, 8)) == 8
    with pytest.raises(ValueError, match=r"choice is 'all'; it must be one of middle, emu, emu2_demo"):
        VideoFrames(8, "all")
    with pytest.raises(ValueError, match="at least one"):
        FRAME_CHOICES["emu"](0, 8)
    assert VideoFrames(8, "emu").numbers(100, 0.0) == FRAME_CHOICES["emu"](100, 8)


class Clips:
    """Reads two frames of any file."""

    suffixes = ("mp4",)

    def read(self, source: Any, key: str) -> Video:
        """Two pictures."""
        return Video([picture(1), picture(2)], 1.0)


def test_instructions_are_conversations_of_one_turn(tmp_path: Path) -> None:
    records = [{"instruction": "Add.", "input": "1 and 2", "output": "3"}, {"instruction": "Go.", "output": "No."}]
    (tmp_path / "alpaca.json").write_text(json.dumps(records))
    reader = ConversationList(str(tmp_path / "alpaca.json"), str(tmp_path))
    assert reader[0].segments == [Text("Add.\n1 and 2", "user"), Text("3", "assistant")]
    assert reader[1].segments == [Text("Go.", "user"), Text("No.", "assistant")]


def test_conversations_tell_of_clips(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"any")
    turns = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    records = [{"video": "a.mp4", "conversations": turns}, {"video": "b.mp4", "conversations": turns}]
    (tmp_path / "talks.json").write_text(json.dumps(records))
    reader = ConversationList(str(tmp_path / "talks.json"), str(tmp_path), media=Clips())
    shown, question, answer = reader[0].segments
    assert isinstance(shown, Video)
    assert (question, answer) == (Text("\nWhat?", "user"), Text("A dog.", "assistant"))
    with pytest.raises(UnusableError, match="missing video"):
        _ = reader[1]
    with pytest.raises(UnusableError, match=r"clip without a reader.*data\.train\.media"):
        _ = ConversationList(str(tmp_path / "talks.json"), str(tmp_path))[0]
