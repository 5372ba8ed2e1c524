"""`mmzoo generate` and `mmzoo chat` with an Emu: files, steps, pages, settings that only other models have."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import multimodal_zoo as zoo
from multimodal_zoo.cli import main
from multimodal_zoo.inference.visual_drawing import draw_visual

UNET = "model.visual_decoder.unet.config"
SMALL = ["model.decoder.blocks.depth=1", "visual_decoder@model.visual_decoder=tiny", "model.visual_decoder.steps=1"]
SMALL += [f"{UNET}.block_out_channels=[8,8]", f"{UNET}.norm_num_groups=4", f"{UNET}.attention_head_dim=2"]
SMALL += [f"{UNET}.down_block_types=[DownBlock2D,CrossAttnDownBlock2D]"]
SMALL += [f"{UNET}.up_block_types=[CrossAttnUpBlock2D,UpBlock2D]"]
TINY = ["emu_tiny", "allow_random=true", "threads=1", *SMALL]


def status(words: list[str]) -> object:
    """The exit status, which a message from within Hydra raises."""
    try:
        return main(words)
    except SystemExit as stopped:
        return stopped.code


def test_pictures_are_drawn_into_a_folder(tmp_path, capsys) -> None:
    shown = tmp_path / "shown.png"
    Image.new("RGB", (50, 40), "red").save(shown)
    words = ["prompt=[a dog, a cat]", f"image={shown}", "images=2", "seed=5", "codes=true", "steps=2", "ratio=2:1"]
    assert main(["generate", *TINY, *words, f"run.dir={tmp_path}/drawn"]) == 0
    assert "4 drawn" in (said := capsys.readouterr().out)
    assert "steps/s" in said
    facts = json.loads((tmp_path / "drawn/drawings.json").read_text())
    assert [one["seed"] for one in facts["drawings"]] == [5, 6, 7, 8]
    assert facts["settings"]["guidance"] is None
    assert facts["steps_per_second"] > 0
    picture = Image.open(tmp_path / "drawn/0002.png")
    assert picture.size == (46, 22)
    codes = np.load(tmp_path / "drawn/0002.npy")
    model = zoo.create("emu_tiny", overrides=SMALL)
    assert codes.shape == (model.processor.image_tokens, model.visual_width)
    assert codes.dtype == np.float32


@pytest.mark.parametrize(("words", "said"), [
    (["sampling.top_k=5"], "an Emu draws by diffusion"),
    (["frames=2"], "needs an Emu3"),
    (["ratio=wide"], "width:height"),
])  # fmt: skip
def test_what_an_emu_does_not_do_is_refused(words, said, tmp_path, capsys) -> None:
    assert status(["generate", *TINY, "prompt=a dog", *words, f"run.dir={tmp_path}"]) != 0
    assert said in capsys.readouterr().err


def test_steps_are_for_diffusion(tmp_path, capsys) -> None:
    small = ["emu3_tiny", "allow_random=true", "model.decoder.blocks.depth=1"]
    assert status(["generate", *small, "prompt=a dog", "steps=3", f"run.dir={tmp_path}"]) != 0
    assert "steps=3 is for models that draw by diffusion" in capsys.readouterr().err


def test_pages_are_written(tmp_path, capsys) -> None:
    assert main(["generate", *TINY, "prompt=[a dog, a cat]", "pages=12", f"run.dir={tmp_path}"]) == 0
    assert "2 pages" in capsys.readouterr().out
    facts = json.loads((tmp_path / "pages.json").read_text())
    assert [one["file"] for one in facts] == ["0000.md", "0001.md"]
    assert (tmp_path / "0001.md").read_text().startswith("a cat\n")


def test_an_emu_draws_in_another_precision() -> None:
    model = zoo.create("emu2_tiny", overrides=SMALL).double()
    (found,) = draw_visual(model, "a dog", guidance=1.0)
    (plain,) = draw_visual(model.float(), "a dog", guidance=1.0)
    assert abs(np.asarray(found.image, dtype=int) - np.asarray(plain.image, dtype=int)).max() <= 1
