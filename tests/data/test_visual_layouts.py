"""What of pairs, pages, clips and grounded texts is told, and in which order."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from emu_samples import clip, document, picture, processor

from multimodal_zoo.data.documents import Document, Image, Text, Video
from multimodal_zoo.data.grounding import Entity, box_picture, grounded_prompt, phrases_of, place_tokens
from multimodal_zoo.data.media import frame_numbers
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.visual_layouts import ClipFrames
from multimodal_zoo.registry import build

CAPTIONS = {"type": "text_caption"}
GRIT = {
    "key": "g",
    "caption": "a red dog beside two cats",
    "ref_exps": [
        [0, 9, 0.0, 0.25, 0.5, 1.0, 0.9],
        [17, 25, 0.5, 0.0, 0.75, 0.5, 0.8],
        [17, 25, 0.75, 0.0, 1.0, 0.5, 0.7],
        [19, 22, 0.1, 0.1, 0.2, 0.2, 0.9],
    ],
    "noun_chunks": [[0, 9, 0.0, 0.25, 0.5, 1.0, 0.9]],
}


def written(told: Document) -> str:
    """A document as a string; pictures by their sizes."""
    parts = []
    for one in told.segments:
        image = one.image if isinstance(one, Image) else None
        size = None if image is None else image.shape[:2] if isinstance(image, np.ndarray) else image.size
        parts.append(one.text if isinstance(one, Text) else f"({size})" if size else "(clip)")
    return "".join(parts)


def share(node: dict[str, Any], told: Document, what: str) -> float:
    """How often a layout's string begins so, of 400."""
    layout = build(node)
    return sum(written(layout(told, Random(number))).startswith(what) for number in range(400)) / 400


@pytest.mark.parametrize(("first", "low", "high"), [(0.5, 0.42, 0.58), (1.0, 1, 1), (0.0, 0, 0)])
def test_pictures_stand_before_or_behind_their_texts(first: float, low: float, high: float) -> None:
    node = {"type": "shuffled_pair", "captions": CAPTIONS, "first": first}
    assert low <= share(node, document(1, "a dog"), "(") <= high
    assert low <= share(node, document(clip(3), "a dog"), "(") <= high
    with pytest.raises(UnusableError, match="missing image: sample"):
        build(node)(document("a dog"), Random(0))
    with pytest.raises(ValueError, match=r"first is 2; expected a probability"):
        build({**node, "first": 2})


def page(pictures: int) -> Document:
    """Sentences in front of pictures and behind them; every second picture has its own."""
    segments: list[Any] = ["t0"]
    for number in range(1, pictures + 1):
        segments += [number, f"t{number}"]
    told = document(*segments)
    return Document(told.segments, {"key": "p", "sentences": [f"s{i}" if i % 2 else None for i in range(pictures)]})


def test_parts_of_pages_have_some_pictures_one_after_the_other() -> None:
    layout = build({"type": "page_part", "pictures": 2})
    assert written(layout(page(2), Random(0))) == written(page(2))
    found = {written(layout(page(4), Random(number))) for number in range(40)}
    size = "((5, 7))"
    assert found == {f"t0{size}t1{size}t2", f"{size}t2{size}t3", f"{size}t3{size}t4"}
    with pytest.raises(UnusableError, match="missing image"):
        layout(document("a"), Random(0))


def test_pictures_are_told_with_their_own_sentences() -> None:
    layout = build({"type": "page_part", "pictures": 2, "sentences": "matched"})
    size = "((5, 7))"
    found = {written(layout(page(6), Random(number))) for number in range(40)}
    assert found == {f"{size}{a}{size}{b}" for a, b in (("s1", "s3"), ("s1", "s5"), ("s3", "s5"))}
    with pytest.raises(UnusableError, match="no sentence belongs to a picture"):
        layout(document(1, "a"), Random(0))
    with pytest.raises(ValueError, match="pictures is 0"):
        build({"type": "page_part", "pictures": 0})


def test_some_frames_of_clips_are_taken_in_their_order() -> None:
    told = document(clip(12), "a dog")
    whole = [frame.tobytes() for frame in told.segments[0].frames]  # type: ignore[union-attr]
    counts = set()
    for number in range(20):
        seen = build({"type": "clip_frames", "counts": [4, 6]})(told, Random(number)).segments[0]
        assert isinstance(seen, Video)
        places = [whole.index(frame.tobytes()) for frame in seen.frames]  # type: ignore[union-attr]
        assert places == sorted(set(places))
        assert seen.rate == 8.0 * len(places) / 12
        counts.add(len(places))
    assert counts == {4, 6}
    even = build({"type": "clip_frames", "counts": [3], "drawn": False})(told, Random(0)).segments[0]
    assert [whole.index(frame.tobytes()) for frame in even.frames] == [2, 6, 10]
    assert build({"type": "clip_frames", "counts": [20]})(told, Random(0)).segments[0] is told.segments[0]
    with pytest.raises(ValueError, match="counts is"):
        build({"type": "clip_frames", "counts": []})


def test_layouts_follow_each_other() -> None:
    node = {"type": "layout_chain", "layouts": [
        {"type": "clip_frames", "counts": [2]}, {"type": "shuffled_pair", "captions": CAPTIONS, "first": 0.0},
    ]}  # fmt: skip
    found = build(node)(document(clip(12), "a dog"), Random(0)).segments
    assert found[0] == Text("a dog")
    assert len(found[1].frames) == 2
    with pytest.raises(ValueError, match="layouts is empty"):
        build({"type": "layout_chain", "layouts": []})


def test_places_are_tokens_of_whole_steps() -> None:
    tokens = [one.text for one in place_tokens((0.0, 0.25, 0.5, 1.0))]
    assert tokens == ["<patch_index_0000>", "<patch_index_0056>", "<patch_index_0112>", "<patch_index_0224>"]
    ours = processor(version=2)
    ids = ours.prompt(Document(place_tokens((0.0, 0.25, 0.5, 1.0)))).ids.tolist()  # type: ignore[arg-type]
    assert ids == [1, 435, 435 + 56, 435 + 112, 435 + 224]


def test_phrases_are_followed_by_their_places() -> None:
    told = Document([Image(picture()), Text("other")], GRIT)
    layout = build({"type": "grounded_words", "phrase_first": 1.0, "first": 0.0})
    dog = "<patch_index_0000><patch_index_0056><patch_index_0112><patch_index_0224>"
    cats = [
        "<patch_index_0112><patch_index_0000><patch_index_0168><patch_index_0112>",
        "<patch_index_0168><patch_index_0000><patch_index_0224><patch_index_0112>",
    ]
    both = "</delimiter_of_multi_objects/>".join(cats)
    expected = (
        f"<grounding><phrase>a red dog</phrase><object>{dog}</object> beside "
        f"<phrase>two cats</phrase><object>{both}</object>((5, 7))"
    )
    assert written(layout(told, Random(0))) == expected
    behind = build({"type": "grounded_words", "phrase_first": 0.0, "first": 1.0})(told, Random(0))
    assert written(behind).startswith(f"((5, 7))<grounding><object>{dog}</object><phrase>a red dog</phrase>")
    node = {"type": "grounded_words", "first": 0.0}
    assert 0.62 < share(node, told, "<grounding><phrase>") < 0.78
    sample = processor(version=2).sample(layout(told, Random(0)), Random(0), special=False)
    assert (sample.weights[1:] > 0).sum() == (~sample.vision).sum() - 3  # all but the begin and the picture's brackets
    with pytest.raises(ValueError, match=r"phrases is 'nouns'; it must be one of ref_exps, noun_chunks"):
        build({"type": "grounded_words", "phrases": "nouns"})


def test_drawings_are_told_by_names_boxes_and_cut_outs() -> None:
    told = Document([Image(picture()), Text("other")], GRIT)
    layout = build({"type": "grounded_drawing", "phrases": "ref_exps", "size": 16, "drop": 0.0})
    assert written(layout(told, Random(0))) == (
        "<grounding>a red dog beside two cats<phrase>a red dog</phrase><object>((16, 16))</object>((4, 4))"
        "<phrase>two cats</phrase><object>((16, 16))</object>((2, 2))((7, 5))"
    )
    drawn = layout(told, Random(0)).segments[8].image  # type: ignore[union-attr]
    assert np.array_equal(np.asarray(drawn), picture()[1:5, 0:4])
    assert written(build({"type": "grounded_drawing", "drop": 1.0})(told, Random(0))) == (
        "<grounding>a red dog beside two cats((7, 5))"
    )
    some = {
        written(build({"type": "grounded_drawing", "drop": 0.5})(told, Random(n))).count("<object>") for n in range(20)
    }
    assert some == {0, 1}


def test_boxes_are_white_lines_on_black() -> None:
    seen = np.asarray(box_picture((0.25, 0.5, 0.75, 1.0)))
    assert seen.shape == (448, 448, 3)
    assert set(np.unique(seen)) == {0, 255}
    white = seen[..., 0] > 0
    assert white[:, 112][224:].all()
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    assert (rows[0], columns[0], columns[-1]) == (223, 111, 337)
    assert white[300].sum() == 6  # two lines of three
    with pytest.raises(ValueError, match="a box is left, top, right, bottom"):
        box_picture((0.5, 0.5, 0.5, 1.0))


def test_grounded_prompts_leave_open_what_is_not_given() -> None:
    told = grounded_prompt("two dogs", [Entity("one"), Entity("other", (0, 0, 1, 1), picture())], 8)
    assert written(Document(told)) == (
        "<grounding>two dogs<phrase>one</phrase><phrase>other</phrase><object>((8, 8))</object>((5, 7))"
    )
    sample = processor(version=2).drawing_prompt(Document(told))
    assert sample.images is not None
    assert len(sample.images) == 2
    assert torch.equal(sample.ids[-1:], torch.tensor([421]))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (None, "broken phrases"),
        ([[0, 3, "x", 0, 1, 1]], "broken phrases"),
        ([], "no phrase"),
        ([[0, 3, 1, 0, 0, 1]], "no"),
    ],
)
def test_records_without_places_are_left_out(rows: Any, reason: str) -> None:
    with pytest.raises(UnusableError, match=reason):
        phrases_of({"ref_exps": rows}, "ref_exps", "a red dog", "g")


def test_even_frames_are_those_that_readers_take() -> None:
    clip = Video([np.full((1, 1, 3), number, np.uint8) for number in range(11)], 1.0)
    (few,) = ClipFrames((4,), drawn=False)(Document([clip]), Random(0)).segments
    assert [int(frame[0, 0, 0]) for frame in few.frames] == frame_numbers(11, 4)  # type: ignore[union-attr,call-overload,index]
