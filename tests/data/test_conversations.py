"""Reading LLaVA's training files: all three forms, and what is wrong with records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PilImage

from multimodal_zoo.data.conversations import ConversationList
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.data.skips import NoUsableSamplesError, UnusableError

GOOD = {
    "id": "kite/1",
    "image": "one.png",
    "conversations": [
        {"from": "human", "value": "Look at <image> and say"},
        {"from": "gpt", "value": "A kite."},
        {"from": "human", "value": "Red?"},
        {"from": "gpt", "value": "Yes."},
    ],
}
TEXT = {"conversations": [{"from": "human", "value": "Hi you"}, {"from": "gpt", "value": "Hello."}]}


def told(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    """A record."""
    return {"conversations": [{"from": who, "value": words} for who, words in turns], **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two pictures and a broken one."""
    for name, width in (("one.png", 8), ("two.png", 12)):
        PilImage.new("RGB", (width, 6)).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


def reader(folder: Path, rows: list[Any], **more: Any) -> ConversationList:
    """A reader of some rows."""
    (folder / "table.json").write_text(json.dumps(rows))
    return ConversationList(str(folder / "table.json"), str(folder), **more)


def said(document: Document) -> list[Any]:
    """Segments as plain values."""
    return [one.image.size if isinstance(one, Image) else (one.role, one.text) for one in document.segments]  # type: ignore[union-attr]


def test_pictures_stand_in_the_places_of_their_markers(folder: Path) -> None:
    two = told(("human", "<image><image>\nWhich?"), ("gpt", "Both."), image=["one.png", "two.png"])
    ours = reader(folder, [GOOD, TEXT, two])
    first = [("user", "Look at "), (8, 6), ("user", " and say"), ("assistant", "A kite.")]
    assert said(ours[0]) == [*first, ("user", "Red?"), ("assistant", "Yes.")]
    assert said(ours[1]) == [("user", "Hi you"), ("assistant", "Hello.")]
    assert said(ours[-1]) == [(8, 6), (12, 6), ("user", "\nWhich?"), ("assistant", "Both.")]
    assert ours[0].key == "table.json, entry 1 (kite/1)"
    assert len(list(ours)) == len(ours) == 3


def test_further_markers_of_a_turn_say_nothing_where_each_turn_has_one_picture(folder: Path) -> None:
    turns = ("human", "This <image> and <image>"), ("gpt", "A."), ("human", "<image> so?"), ("gpt", "B.")
    first, second = reader(folder, [told(*turns[:2], image="one.png"), told(*turns, image=["one.png", "two.png"])])
    start = [("user", "This "), (8, 6), ("user", " and "), ("assistant", "A.")]
    assert said(first) == start
    assert said(second) == [*start, (12, 6), ("user", " so?"), ("assistant", "B.")]


def test_an_answer_at_the_beginning_is_left_out(folder: Path) -> None:
    ours = reader(folder, [told(("gpt", "skipped"), ("human", "Hi"), ("gpt", ""))])
    assert said(ours[0]) == [("user", "Hi"), ("assistant", "")]


def test_lists_of_names_read_a_second_folder(folder: Path) -> None:
    records = folder / "records"
    (records / "deep").mkdir(parents=True)
    (records / "deep" / "a.json").write_text(json.dumps(GOOD))
    (records / "b.json").write_text("{")
    first = reader(folder, ["deep/a", "b", "c", "../table"], records=str(records), suffix=".json")
    assert said(first[0]) == said(reader(folder, [GOOD])[0])
    for index, reason in ((1, "broken record"), (2, "missing record"), (3, "path outside the folder")):
        with pytest.raises(UnusableError, match=reason):
            first[index]
    second = reader(folder, ["deep/a.json"], records=str(records))
    assert second[0].key == "table.json, entry 1 (deep/a.json)"
    with pytest.raises(UnusableError, match=r"data\.train\.records must be a folder"):
        reader(folder, ["deep/a.json"])[0]


def test_lines_of_records_are_read_too(folder: Path) -> None:
    (folder / "table.jsonl").write_text(f"{json.dumps(GOOD)}\n\n{{\n{json.dumps(TEXT)}\n")
    ours = ConversationList(str(folder / "table.jsonl"), str(folder))
    assert len(ours) == 3
    assert len(list(ours)) == 2
    assert ours.skips.counts == {"broken record": 1}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            told(("human", "<image>"), ("gpt", "a")),
            r"pictures and places differ: .*entry 1 \(0 pictures, 1 x <image>\)",
        ),
        (told(("human", "a"), ("gpt", "<image> b"), image="one.png"), r"picture in an answer: .*entry 1"),
        (told(("human", "a"), ("gpt", "a"), image="one.png"), r"\(1 pictures, 0 x <image>\)"),
        (told(("human", "<image><image>"), ("gpt", "a"), image=["one.png"] * 3), r"\(3 pictures, 2 x <image>\)"),
        (
            told(("human", "<image>"), ("gpt", "a"), image="none.png"),
            r"missing image file: table.json, entry 1: none.png",
        ),
        (told(("human", "<image>"), ("gpt", "a"), image="broken.png"), "broken image"),
        (told(("human", "<image>"), ("gpt", "a"), image="../one.png"), "path outside the folder"),
        (told(("human", "<image>"), ("gpt", "a"), image=3), "broken record.*image is 3"),
        (told(("robot", "a")), "broken record.*'robot'"),
        (told(), "broken record.*no turn"),
        (told(("gpt", "a")), "broken record.*no turn"),
        ({"conversations": [{"from": "human"}]}, "broken record"),
        ({"conversations": "Hi", "id": 7}, r"broken record: table.json, entry 1 \(7\) \(conversations"),
        ([], "broken record"),
        (None, "broken record"),
    ],
)
def test_broken_records_are_named(folder: Path, record: Any, message: str) -> None:
    ours = reader(folder, [record])
    with pytest.raises(UnusableError, match=message):
        ours[0]
    assert isinstance(ours.modality_lengths[0], int)
    with pytest.raises(NoUsableSamplesError):
        list(ours)
    assert len(list(reader(folder, [record, TEXT]))) == 1


def test_lengths_are_words_and_signed_by_modality(folder: Path) -> None:
    ours = reader(folder, [GOOD, TEXT, 5])
    assert ours.modality_lengths == [9, -3, 1]
    (folder / "lengths.json").write_text("[4, -5, 6]")
    assert reader(folder, [GOOD, TEXT, 5], lengths=str(folder / "lengths.json")).modality_lengths == [4, -5, 6]
    with pytest.raises(ValueError, match=r"has 3 numbers, data\.train\.table 1 records"):
        reader(folder, [GOOD], lengths=str(folder / "lengths.json"))


def test_files_that_are_no_lists_are_named(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.train\.table: no file"):
        ConversationList(str(folder / "none.json"), str(folder))
    with pytest.raises(FileNotFoundError, match=r"data\.train\.folder: no folder"):
        ConversationList(str(folder / "table.json"), str(folder / "none"))
    for content in ("{}", "[]", "["):
        (folder / "bad.json").write_text(content)
        with pytest.raises(ValueError, match=r"data\.train\.table: .*bad\.json"):
            ConversationList(str(folder / "bad.json"), str(folder))
    with pytest.raises(IndexError, match="no number 5"):
        reader(folder, [GOOD])[5]


def test_texts_keep_their_blanks(folder: Path) -> None:
    ours = reader(folder, [told(("human", " Hi "), ("gpt", " Hello.\n"))])
    assert [one.text for one in ours[0].segments if isinstance(one, Text)] == [" Hi ", " Hello.\n"]


def test_lengths_of_instructions_and_of_clips(folder: Path) -> None:
    told = {"instruction": "Say it", "input": "in French", "output": "bonjour"}
    turns = [{"from": "human", "value": "<video>\nwhat is it?"}, {"from": "gpt", "value": "a dog"}]
    ours = reader(folder, [told, {"video": "a.mp4", "conversations": turns}])
    assert ours.modality_lengths == [-5, 6]
    (folder / "lengths.json").write_text('[4, "many"]')
    with pytest.raises(ValueError, match=r"data\.train\.lengths holds 'many'; expected whole numbers"):
        reader(folder, [told, told], lengths=str(folder / "lengths.json"))


def test_a_table_of_both_forms_has_null_in_place_of_the_other(folder: Path) -> None:
    row = {"conversations": None, "instruction": "Say it", "input": None, "output": "bonjour"}
    ours = reader(folder, [{**TEXT, "instruction": None, "output": None}, row])
    assert [said(document) for document in ours] == [
        [("user", "Hi you"), ("assistant", "Hello.")],
        [("user", "Say it"), ("assistant", "bonjour")],
    ]
