"""What each tab's button does, without a page: the same as the functions behind it, and plain words where it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.documents import Image as Shown
from multimodal_zoo.evaluation.nearest import Hit
from multimodal_zoo.gallery import chat, detect, fuse, generate, indexed, retrieve, zero_shot
from multimodal_zoo.gallery.chat import Turn
from multimodal_zoo.gallery.indexed import tiles_of
from multimodal_zoo.inference.chat import answer
from multimodal_zoo.inference.detection import detect as detected
from multimodal_zoo.inference.text_to_image import draw


def model_of(room, name: str, ability: str):
    """A model, which nobody else uses here."""
    with room.shelf.lent(name, ability) as model:
        return model


def test_the_picture_itself_is_nearest(room, picture) -> None:
    shown, said = retrieve.search(room, "runs/pairs", "runs/photos", "", picture, 2)
    assert shown[0][1].split()[0] == "1.000"
    assert shown[0][1].endswith("a red wall")  # the text beside the picture
    assert shown[0][0].getpixel((0, 0)) == (255, 0, 0)
    assert len(shown) == 2
    assert said.startswith("2 pictures of runs/photos, nearest to your picture")


def test_texts_are_compared_as_the_model_does(room) -> None:
    shown, _ = retrieve.search(room, "runs/pairs", "runs/photos", "a green wall", None, 9)
    model = model_of(room, "runs/pairs", "retrieve")
    paths = sorted((room.shelf.folders[0] / "photos").glob("*.png"))
    with torch.no_grad():
        images = model.encode_image(model.processor.images([Image.open(path) for path in paths]))
        text = model.encode_text(model.processor.texts(["a green wall"]))[0]
    expected = sorted((images @ text).tolist(), reverse=True)
    assert [float(text.split()[0]) for _, text in shown] == pytest.approx(expected, abs=6e-4)


def test_links_out_of_an_album_are_not_shown(room, tmp_path) -> None:
    mine = tmp_path / "album"
    mine.mkdir()
    Image.new("RGB", (9, 9), "white").save(tmp_path / "secret.png")
    Image.new("RGB", (9, 9), "black").save(mine / "a.png")
    (mine / "b.png").symlink_to(tmp_path / "secret.png")
    (mine / "a.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "secret.txt").write_text("a secret")
    albums = type(room.albums)([mine], most=9)
    model = model_of(room, "runs/pairs", "retrieve")
    query = np.zeros((1, model.embed_dim), np.float32)
    found = albums.search(model, "runs/pairs", albums.find("album"), query, 9)
    assert [match.caption for match in found] == ["a.png"]


def test_embeddings_on_disk_are_searched_by_their_own_model(room, runs, tmp_path) -> None:
    from multimodal_zoo.cli import main

    index = tmp_path / "mine" / "index"
    shutil.copytree(runs / "photos", tmp_path / "mine" / "photos")
    words = ["texts=false", f"out={index}", "format=npz", "workers=0", "threads=1"]
    assert main(["embed", str(runs / "pairs"), str(tmp_path / "mine" / "photos"), *words]) == 0
    albums = type(room.albums)([tmp_path / "mine"], most=9)
    assert {"mine/photos", "mine/index"} <= set(albums.albums)
    model = model_of(room, "runs/pairs", "retrieve")
    with torch.no_grad():
        query = model.encode_image(model.processor.images([Image.new("RGB", (40, 30), "blue")])).numpy()
    (best,) = albums.search(model, "runs/pairs", albums.find("mine/index"), query, 1)
    assert (best.caption, best.picture.getpixel((0, 0))) == ("blue.png", (0, 0, 255))
    elsewhere = type(room.albums)([index], most=9)  # its pictures lie outside of what this page may read
    (best,) = elsewhere.search(model, "runs/pairs", elsewhere.find("index"), query, 1)
    assert (best.caption, best.picture) == ("blue.png", None)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    try:
        with pytest.raises(ValueError, match="was made by another model"):
            albums.search(model, "runs/pairs", albums.find("mine/index"), query, 1)
    finally:
        with torch.no_grad():
            next(model.parameters()).sub_(1.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda data, secret: data.update(folder=str(secret.parent)),
        lambda data, secret: data.update(type="webdataset_pairs", sources="pipe:touch SECRET/run"),
        lambda data, secret: data.update(type="webdataset_pairs", sources=[f"{secret.parent}/*.tar"]),
        lambda data, secret: data.update(type="webdataset_pairs", sources="https://evil.example/{0..9}.tar"),
        lambda data, secret: data.update(type="folder_pairs", table=f"{secret.parent}/table.csv"),
        lambda data, secret: data.update(need_caption={"type": "folder_pictures", "folder": str(secret.parent)}),
        lambda data, secret: data.clear(),
    ],
)
def test_a_manifest_opens_nothing_elsewhere(tmp_path, monkeypatch, change) -> None:
    mine, secret = tmp_path / "mine", tmp_path / "other" / "secret.png"
    for folder in (mine, secret.parent):
        folder.mkdir()
        Image.new("RGB", (9, 9), "white").save(folder / "secret.png")
    (secret.parent / "a.tar").write_bytes(b"")
    data = {"type": "folder_pictures", "folder": str(mine), "need_caption": False}
    hit = Hit(0.5, "secret.png", "", "", (0,))
    assert tiles_of({"data": data}, [hit], [mine])[0].picture is not None
    change(data, secret)
    monkeypatch.setattr(indexed, "find_pictures", None)  # nothing is built
    assert tiles_of({"data": data}, [hit], [mine])[0].picture is None


def test_links_among_embedded_pictures_are_not_followed(tmp_path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    Image.new("RGB", (9, 9), "white").save(tmp_path / "secret.png")
    Image.new("RGB", (9, 9), "black").save(mine / "a.png")
    (mine / "b.png").symlink_to(tmp_path / "secret.png")
    data = {"type": "folder_pictures", "folder": str(mine), "need_caption": False}
    hits = [Hit(0.5, "a.png", "", "", (0,)), Hit(0.4, "b.png", "", "", (1,)), Hit(0.3, "../secret.png", "", "", (2,))]
    found = tiles_of({"data": data}, hits, [mine])
    assert [tile.picture is not None for tile in found] == [True, False, False]
    assert [tile.caption for tile in found] == ["a.png", "b.png", "../secret.png"]


def test_shares_of_names_are_those_of_the_model(room, picture) -> None:
    found = zero_shot.classify(room, "runs/pairs", picture, "red, green\nblue, red", "a {c} wall")
    assert list(found) == ["red", "green", "blue"]
    model = model_of(room, "runs/pairs", "zero_shot")
    with torch.no_grad():
        image = model.encode_image(model.processor.images([Image.open(picture)]))
        texts = model.encode_text(model.processor.texts([f"a {name} wall" for name in found]))
        expected = (image @ texts.T * model.logit_scale()).softmax(dim=-1)[0]
    assert list(found.values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_an_answer_grows_and_is_that_of_the_model(room, picture) -> None:
    steps = list(chat.ask(room, "runs/talker", picture, "What is it?", [], 6, 0))
    asked = [Shown(Image.open(picture)), Text("What is it?", "user")]
    model = model_of(room, "runs/talker", "chat")
    (expected,) = answer(model, Document(asked), max_new_tokens=6, special=False)
    assert steps[-1] == [Turn("What is it?", expected)]
    (again,) = list(chat.ask(room, "runs/talker", picture, "Why?", steps[-1], 6, 0))[-1][1:]
    follows = Document([*asked, Text(expected, "assistant"), Text("Why?", "user")])
    assert again.answer == answer(model, follows, max_new_tokens=6, special=False)[0]
    assert chat.messages([Turn("Is 1 < 2?", "")])[0] == {"role": "user", "content": "Is 1 &lt; 2?"}


def test_questions_without_turns_are_answered_by_themselves(room, picture) -> None:
    before = [Turn("What?", "so")]
    found = list(chat.ask(room, "runs/tokens", picture, "Why?", before, 3, 0))[-1]
    assert found[0] == before[0]
    assert list(chat.ask(room, "runs/tokens", picture, "Why?", [], 3, 0))[-1] == found[1:]


def test_pictures_are_drawn_and_shown_on_the_way(room) -> None:
    steps = list(generate.paint(room, "runs/tokens", "a dog", "1:1", 2, 3, 0))
    sketches = [one.sketch for one in steps if one.sketch is not None]
    assert min(sketches[0].size) >= generate.SIDE
    assert steps[0].said == "reading the text" or steps[0].said.endswith(" tokens")
    expected = draw(model_of(room, "runs/tokens", "generate"), "a dog", seed=3, per_prompt=2, special=False)
    assert [one.tobytes() for one in steps[-1].pictures] == [one.image.tobytes() for one in expected]
    assert "seed 3" in steps[-1].said


def test_pictures_form_out_of_noise(room) -> None:
    steps = list(generate.paint(room, "runs/painter", "a dog", "1:1", 2, 1, None))
    assert [one.said for one in steps if one.said.endswith("of 3 steps")]
    sketches = [one.sketch for one in steps if one.sketch is not None]
    assert len({one.size for one in sketches}) == 1
    assert sketches[0].tobytes() != sketches[-1].tobytes()  # the noise goes
    expected = draw(model_of(room, "runs/painter", "generate"), "a dog", seed=1, per_prompt=2, special=False)
    assert [one.tobytes() for one in steps[-1].pictures] == [one.image.tobytes() for one in expected]


def test_a_drawing_ends_in_time(limited, room) -> None:
    slow = limited(seconds=1)
    object.__setattr__(slow.limits, "seconds", 0)
    with pytest.raises(TimeoutError, match="ask for less"):
        list(generate.paint(slow, "runs/tokens", "a dog", "1:1", 1, 0, 0))


@pytest.fixture
def files(sent: Path, tmp_path: Path) -> list[str]:
    """A drawn scene as a visitor uploads it: a picture of each camera and a calibration."""
    return sorted(map(str, Path(shutil.copytree(sent, tmp_path / "sent")).iterdir()))


def test_uploaded_cameras_are_looked_at(room, files) -> None:
    seen = detect.find(room, "runs/boxes", files, 0, 0.0)
    frame = detect.uploaded_scene(room, files)
    expected = detected(model_of(room, "runs/boxes", "detect"), frame.info, frame.root)
    assert [row[0] for row in seen.rows] == [one["class"] for one in expected.rows()]
    assert [name for _, name in seen.cameras][:3] == ["CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"]
    assert seen.above.tobytes() == expected.above(0.0).tobytes()
    assert list((room.scratch / "scenes").iterdir()) == [frame.root]  # the first copy is gone


def test_a_drawn_scene_shows_what_is_there(room, frame) -> None:
    seen = detect.look(room, "runs/boxes", frame, 2.0)
    assert seen.rows == []
    assert "objects are there; green on the map" in seen.said
    assert (0, 150, 60) in {colour for _, colour in seen.above.getcolors(10**6)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda files: [], "0 calibration files"),
        (lambda files: [*files, files[0]], "each with a name of its own"),
        (lambda files: files[:-1], "picture of|calibration files"),
        (lambda files: files[1:], "picture of CAM_BACK|names CAM_BACK"),
    ],
)
def test_uploads_that_are_no_scene(room, files, change, said) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        detect.uploaded_scene(room, change(files))


@pytest.mark.parametrize(
    "change",
    [
        lambda rig: rig["cameras"]["CAM_BACK"].update(image="../../secret.png"),
        lambda rig: rig["cameras"]["CAM_BACK"].update(image="/etc/hostname"),
        lambda rig: rig["cameras"].update({"../CAM_BACK": rig["cameras"]["CAM_BACK"]}),
        lambda rig: rig.update(history=[{"images": {"CAM_BACK": "../secret.png"}, "ego2global": []}]),
    ],
)
def test_a_calibration_names_uploaded_files_alone(room, tmp_path, files, change) -> None:
    rig = json.loads((tmp_path / "sent" / "calibration.json").read_text())
    change(rig)
    (tmp_path / "sent" / "calibration.json").write_text(json.dumps(rig))
    with pytest.raises(ValueError, match="which was not uploaded with it"):
        detect.uploaded_scene(room, files)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[1]", "null", '{"cameras": 3}', '{"cameras": {"A": 1}}'])
def test_calibrations_that_are_none(room, tmp_path, text) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json|calibration"):
        detect.uploaded_scene(room, [str(tmp_path / "a.json")])


def test_captions_are_fused_by_rules_and_by_a_student(room) -> None:
    engines = fuse.Engines(room)
    assert engines.names() == [fuse.RULES, "runs/student"]
    raw, synthetic = "Lisbon tram 28 Alfama", "A yellow tram on a narrow street."
    found = fuse.fuse(engines, fuse.RULES, "short", raw, synthetic)
    assert found.caption == "A yellow tram on a narrow street: Lisbon, 28 Alfama."
    assert found.said.startswith("Fused")
    assert found.prompt.endswith("Model caption: A yellow tram on a narrow street.\nFused caption:")
    student = fuse.fuse(engines, "runs/student", "short", raw, synthetic)
    assert student.said.split()[0] in ("Fused.", "Fused;", "Rejected", "Failed")  # it has learnt nothing
    assert fuse.fuse(engines, fuse.RULES, "default", "A dog", "").caption == "A dog."


def test_a_model_writes_the_caption_to_fuse(room, picture) -> None:
    model = model_of(room, "runs/talker", "chat")
    (expected,) = answer(model, Document([Shown(Image.open(picture))]), max_new_tokens=4, special=False)
    assert list(fuse.describe(room, "runs/talker", picture, tokens=4))[-1] == expected
    with pytest.raises(ValueError, match="upload a picture first"):
        list(fuse.describe(room, "runs/talker", None))


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda room: retrieve.search(room, "runs/pairs", "runs/photos", " ", None, 3), "type a text, or upload"),
        (lambda room: retrieve.search(room, "runs/pairs", "../etc", "x", None, 3), "there are no pictures"),
        (lambda room: retrieve.search(room, None, "runs/photos", "x", None, 3), "choose a model first"),
        (lambda room: zero_shot.classify(room, "runs/pairs", None, "a, b", ""), "upload a picture first"),
        (lambda room: zero_shot.classify(room, "runs/pairs", "x.png", "a", ""), "1 names; give 2 to"),
        (lambda room: list(chat.ask(room, "runs/talker", None, "", [], 4, 0)), "type a question, or upload"),
        (lambda room: list(chat.ask(room, "runs/talker", None, "x" * 9999, [], 4, 0)), "9,999 characters"),
        (lambda room: list(generate.paint(room, "runs/tokens", "", "1:1", 1, 0, 0)), "type what is to be drawn"),
        (lambda room: list(generate.paint(room, "runs/tokens", "x", "9:1", 1, 0, 0)), "ratio is 9:1"),
        (lambda room: list(generate.paint(room, "runs/talker", "x", "1:1", 1, 0, 0)), "can generate here"),
        (lambda room: fuse.fuse(fuse.Engines(room), fuse.RULES, "short", "", ""), "type a caption"),
        (lambda room: fuse.fuse(fuse.Engines(room), fuse.RULES, "none", "a", ""), "prompt: none; expected"),
        (lambda room: fuse.fuse(fuse.Engines(room), "runs/boxes", "short", "a", ""), "can fuse here"),
    ],
)
def test_what_cannot_be_done_is_said(room, ask, said) -> None:
    with pytest.raises((ValueError, LookupError), match=said):
        ask(room)
