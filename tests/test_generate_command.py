"""`mmzoo generate` and `mmzoo chat`: files, previews, free text on the command line, errors."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

import multimodal_zoo as zoo
from multimodal_zoo.cli import main
from multimodal_zoo.commands.app import as_text, split, with_questions
from multimodal_zoo.commands.live import DrawingBar
from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.documents import Image as Shown
from multimodal_zoo.generation.beams import Beams
from multimodal_zoo.generation.loop import Progress
from multimodal_zoo.inference.chat import answer
from multimodal_zoo.inference.live import Typing
from multimodal_zoo.inference.painter import Sketches
from multimodal_zoo.inference.text_to_image import draw
from multimodal_zoo.inference.visual_drawing import Denoised

SMALL = ["model.decoder.blocks.depth=1"]
TINY = ["emu3_tiny", "allow_random=true", *SMALL]


def status(words: list[str]) -> object:
    """The exit status, which a message from within Hydra raises."""
    try:
        return main(words)
    except SystemExit as stopped:
        return stopped.code


def test_pictures_are_drawn_into_a_folder(tmp_path, capsys) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text('a dog\n\nthe sun, "large"\n', encoding="utf-8")
    text = "a red, 'round' apple: [big] {x} $y"
    words = [f"prompt={text}", f"prompts={prompts}", "images=2", "seed=5", "codes=true", "batch_size=4", "threads=1"]
    assert main(["generate", *TINY, *words, "ratio=3:4", f"run.dir={tmp_path}/drawn"]) == 0
    assert "6 drawn" in capsys.readouterr().out
    facts = json.loads((tmp_path / "drawn/drawings.json").read_text())
    assert [one["prompt"] for one in facts["drawings"]] == [
        t for t in (text, "a dog", 'the sun, "large"') for _ in "ab"
    ]
    assert [one["seed"] for one in facts["drawings"]] == list(range(5, 11))
    assert facts["settings"]["sampling"] == {"greedy": False, "temperature": 1.0, "top_k": 2048, "top_p": 1.0}
    assert facts["tokens_per_second"] > 0
    assert json.loads((tmp_path / "drawn/run.json").read_text())["variant"] == "emu3_tiny"
    assert (tmp_path / "drawn/preview.png").is_file()
    expected = draw(zoo.create("emu3_tiny", overrides=SMALL), "a dog", ratio="3:4", seed=8)[0]
    found = np.asarray(Image.open(tmp_path / "drawn/0003.png"), dtype=int)
    assert abs(found - np.asarray(expected.image, dtype=int)).max() <= 1  # several were decoded at once
    assert np.array_equal(np.load(tmp_path / "drawn/0003.npy"), expected.codes.numpy())


def test_lists_are_shared_out_to_the_batches(tmp_path) -> None:
    words = [
        "prompt=[a dog, a cat, a cow]",
        "ratio=[1:1, 3:4, 4:3]",
        "negative=[x, y, z]",
        "batch_size=2",
        "preview=false",
    ]
    assert main(["generate", *TINY, *words, f"run.dir={tmp_path}"]) == 0
    sizes = [Image.open(tmp_path / f"000{number}.png").size for number in range(3)]
    assert [width < height for width, height in sizes] == [False, True, False]
    assert sizes[2][0] > sizes[2][1]
    assert status(["generate", *TINY, *words, "prompt=a dog", f"run.dir={tmp_path}/short"]) != 0


@pytest.mark.parametrize("word", ["batch_size=0", "images=0"])
def test_nothing_cannot_be_drawn(word, tmp_path, capsys) -> None:
    assert status(["generate", *TINY, "prompt=a dog", word, f"run.dir={tmp_path}"]) != 0
    assert f"{word.split('=')[0]} is 0" in capsys.readouterr().err


def test_a_model_without_weights_says_so() -> None:
    with pytest.raises(ValueError, match="meta device"):
        draw(zoo.create("emu3_tiny", device="meta"), "a dog")
    with pytest.raises(ValueError, match="batch_size is -1"):
        draw(zoo.create("emu3_tiny", overrides=SMALL), "a dog", batch_size=-1)


def test_clips_are_drawn_as_animations(tmp_path) -> None:
    words = ["prompt=a dog", "frames=2", "+model.processor.video=univla_video", "preview=false", "guidance=1"]
    assert main(["generate", *TINY, *words, f"run.dir={tmp_path}"]) == 0
    assert Image.open(tmp_path / "0000.webp").n_frames == 2
    assert not (tmp_path / "preview.png").exists()


def test_questions_are_answered(tmp_path, capsys, monkeypatch) -> None:
    picture = tmp_path / "a, b.png"
    Image.new("RGB", (50, 50), "red").save(picture)
    words = ["chat", *TINY, f"image={picture}", "max_new_tokens=6"]
    assert main([*words, "prompt=What, is this?", f"out={tmp_path}/answers.json"]) == 0
    shown = capsys.readouterr().out
    (found,) = json.loads((tmp_path / "answers.json").read_text())
    assert found["prompt"] == "What, is this?"
    assert found["answer"] in shown
    monkeypatch.setattr("sys.stdin", io.StringIO("What, is this?\nAnd why\n\nnot asked\n"))
    assert main(words) == 0
    typed = capsys.readouterr().out
    assert typed.startswith(f"{found['answer']}\n")


def test_words_are_pictures_and_questions(tmp_path, capsys) -> None:
    picture = tmp_path / "it's a, b=c.png"
    Image.new("RGB", (50, 50), "red").save(picture)
    words = ["chat", "emu3_tiny", str(picture), "allow_random=true", *SMALL, "Is 1, [x] = 'y'?", "And why?"]
    assert main([*words, "max_new_tokens=2", f"out={tmp_path}/answers.json"]) == 0
    found = json.loads((tmp_path / "answers.json").read_text())
    assert [(one["prompt"], one["images"]) for one in found] == [
        ("Is 1, [x] = 'y'?", [str(picture)]),
        ("And why?", [str(picture)]),
    ]
    assert "".join(one["answer"] + "\n" for one in found) == capsys.readouterr().out


EVE_SMALL = ["allow_random=true", "model.decoder.blocks.depth=1", "max_new_tokens=5", "threads=1"]


@pytest.mark.parametrize("variant", ["eve_tiny", "eve_v2_tiny", "emu_tiny"])
def test_typed_questions_make_a_conversation(variant, tmp_path, capsys, monkeypatch) -> None:
    pictures = [tmp_path / "wide.png", tmp_path / "high.png"]
    for path, size in zip(pictures, [(50, 20), (16, 40)], strict=True):
        Image.new("RGB", size, "red").save(path)
    words = ["chat", variant, *map(str, pictures), *EVE_SMALL, f"out={tmp_path}/answers.json"]
    monkeypatch.setattr("sys.stdin", io.StringIO("What is this?\nAnd why?\n\n"))
    assert main(words) == 0
    found = json.loads((tmp_path / "answers.json").read_text())
    assert capsys.readouterr().out == "".join(f"{one['answer']}\n" for one in found)
    model = zoo.create(variant, overrides=EVE_SMALL[1:2])
    seen = [Shown(Image.open(path)) for path in pictures]
    said = [Text("What is this?", "user"), Text(found[0]["answer"], "assistant"), Text("And why?", "user")]
    expected = answer(model, [Document([*seen, said[0]]), Document([*seen, *said])], max_new_tokens=5)
    assert [one["answer"] for one in found] == expected
    monkeypatch.setattr("sys.stdin", io.StringIO("What is this?\nAnd why?\n"))
    assert main([*words, "conversation=false"]) == 0
    alone = json.loads((tmp_path / "answers.json").read_text())
    assert [alone[1]["answer"]] == answer(model, Document([*seen, said[2]]), max_new_tokens=5)


def test_answers_are_searched_with_beams(tmp_path, capsys) -> None:
    picture = tmp_path / "one.png"
    Image.new("RGB", (50, 50), "red").save(picture)
    words = ["chat", "emu2_tiny", str(picture), *EVE_SMALL, "model.processor.template=emu2_chat", "What is this?"]
    assert main([*words, "beams.count=3", "beams.length_penalty=-1"]) == 0
    model = zoo.create("emu2_tiny", overrides=[EVE_SMALL[1], "model.processor.template=emu2_chat"])
    asked = Document([Shown(Image.open(picture)), Text("What is this?", "user")])
    (expected,) = answer(model, asked, max_new_tokens=5, beams=Beams(3, -1.0))
    assert capsys.readouterr().out.strip() == expected.strip()


def test_which_words_are_pictures(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo").touch()
    assert with_questions(["a.JPG", "seed=1", "photo", "what is a.jpg", "x" * 300, "--cfg", "job"]) == [
        *("seed=1", "--cfg", "job"),
        "image=['a.JPG','photo']",
        f"prompt=['what is a.jpg','{'x' * 300}']",
    ]
    assert with_questions(["prompt=a", "image=b.png"]) == ["prompt=a", "image=b.png"]
    assert split(["is a = b?", "x=y"]) == ("is a = b?", ["x=y"])
    with pytest.raises(ValueError, match=r"prompt: why and prompt=\.\.\. are two"):
        with_questions(["why", "prompt=a"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["chat", *TINY, "nowhere.png", "why"], "image=nowhere.png: no such picture"),
        (["generate", "emu3_tiny", "prompt=x"], "weights are random"),
        (["generate", *TINY], "nothing to draw"),
        (["generate", *TINY, "prompts=nowhere.txt"], "prompts=nowhere.txt: no such file"),
        (["generate", *TINY, "prompt=x", "image=nowhere.png"], "image=nowhere.png: no such picture"),
        (["generate", *TINY, "prompt=x", "ratio=9:1"], "ratio is 9:1"),
        (["generate", *TINY, "prompt=x", "area=100"], "area is 100 pixels"),
        (["generate", *TINY, "prompt=x", "sampling.top_k=0"], "sampling.top_k is 0"),
        (["generate", *TINY, "prompt=x", "frames=2"], "processor.video=univla_video"),
        (["generate", *TINY, "prompt=x", "frames=2", "suffix=y"], "clips are drawn from texts as they are"),
        (["generate", *TINY, "prompt=x", "frames=2", "steps=3"], "leave image, suffix and steps out"),
        (["generate", "clip_tiny", "allow_random=true", "prompt=x"], "draw needs an Emu3"),
        (["generate", *TINY, "prompt=x", "ratios=1:1"], "closest: ratio"),
        (["chat", "clip_tiny", "allow_random=true", "prompt=x"], "chat needs an Emu3"),
        (["chat", *TINY, "prompt=x", "max_new_tokens=9999"], "decoder.max_positions"),
        (["chat", "eve_tiny", "allow_random=true", "prompt=x", "max_new_tokens=9999"], "decoder.max_positions"),
        (["chat"], "mmzoo chat needs a run folder"),
    ],
)
def test_what_cannot_be_done_is_said(words, expected, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert status(words) == 1
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.png"))


def test_free_text_needs_no_quoting() -> None:
    keys = ("prompt", "ratio")
    assert as_text("prompt=a, b: 'c'", keys) == r"prompt='a, b: \'c\''"
    assert as_text("ratio=4:3", keys) == "ratio='4:3'"
    for word in ("prompt=[a,b]", "prompt='a b'", 'prompt="a"', "prompt=null", "seed=1", "prompt"):
        assert as_text(word, keys) == word
    assert as_text("prompt=a", ()) == "prompt=a"


def test_words_are_said_once_their_bytes_are_there() -> None:
    said: list[str] = []
    texts = {1: "a", 2: "a\ufffd", 3: "a\u8272", 4: "a\u8272 b"}
    typing = Typing(lambda ids: texts[len(ids)], said.append)
    for step in texts:
        typing(Progress(torch.zeros(2, step, dtype=torch.long), 9))
    typing.finish("a\u8272 b.")
    assert said == ["a", "\u8272", " b", ".\n"]
    typing(Progress(torch.zeros(1, 1, dtype=torch.long), 9))
    typing.finish("something else")
    assert "".join(said[4:]) == "a\nsomething else\n"


def test_plain_lines_count_the_tokens_of_all_batches(capsys) -> None:
    with DrawingBar(3, None, line_seconds=0.0) as bar:
        for grids, steps in (([(1, 2), (2, 2)], 9), ([(2, 2)], 9)):
            for step in range(1, steps + 1):
                bar(Sketches(None, torch.zeros(len(grids), step, dtype=torch.long), steps, grids))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 18
    assert lines[0].startswith("2 of 22 tokens")  # 6 and 9, and a third of about their mean
    assert lines[8].startswith("15 of 22 tokens")
    assert lines[-1].startswith("24 of 24 tokens")
    assert bar.done == 24


def test_plain_lines_count_the_steps_of_all_batches(capsys) -> None:
    with DrawingBar(3, None, line_seconds=0.0) as bar:
        for pictures in (2, 1):
            for step in (1, 2):
                bar(Denoised(None, torch.zeros(pictures, 3, 2, 2), step, 2))
    lines = [line.partition("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["1 of 3 steps", "2 of 3 steps", "3 of 4 steps", "4 of 4 steps"]
