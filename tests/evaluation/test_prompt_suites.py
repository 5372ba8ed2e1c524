"""Prompts of GenEval, DPG-Bench and T2I-CompBench are drawn into the folders that their programs judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal_zoo.config import compose
from multimodal_zoo.evaluation import drawn_suite
from multimodal_zoo.evaluation.drawn_suite import DrawnSuite
from multimodal_zoo.evaluation.prompt_suites import DpgPrompts, GenEvalPrompts, T2ICompBenchPrompts, tiled
from multimodal_zoo.evaluation.suite import run_suite
from multimodal_zoo.inference.text_to_image import draw
from multimodal_zoo.zoo import create

LINES = [
    {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a photo of a dog"},
    {"tag": "counting", "include": [{"class": "cup", "count": 2}], "prompt": "a photo of two cups"},
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> Any:
    small = ["model.decoder.width=32", "model.decoder.blocks.depth=1", "model.decoder.blocks.block.mlp.hidden=32"]
    small += [f"model.decoder.blocks.block.attention.qkv.{key}" for key in ("heads=2", "kv_heads=1", "head_dim=16")]
    return create("emu3_tiny", overrides=small).eval()


@pytest.fixture
def geneval(tmp_path: Path) -> GenEvalPrompts:
    file = tmp_path / "evaluation_metadata.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return GenEvalPrompts(str(file), grid=True)


def run(suite: Any, model: Any, folder: Path, **options: Any) -> Any:
    options = {"per_prompt": 2, "guidance": 1.0, "examples": 0, **options}
    return DrawnSuite(suite, folder=str(folder), **options)(model, model.processor, CPU)


def alike(found: Image.Image, wanted: Image.Image) -> None:
    """Equal but for rounding, which depends on what else is computed beside it."""
    difference = np.asarray(found, dtype=int) - np.asarray(wanted, dtype=int)
    assert np.abs(difference).max() <= 1


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_geneval_has_a_folder_for_each_prompt(model: Any, geneval: GenEvalPrompts, tmp_path: Path) -> None:
    result = run(geneval, model, tmp_path / "out", seed=5)
    assert result.metrics == {"prompts": 2, "pictures": 4, "drawn_now": 2}
    names = [f"{place:05d}/{name}" for place in (0, 1) for name in
             ("grid.png", "metadata.jsonl", "samples/0000.png", "samples/0001.png")]  # fmt: skip
    assert listed(tmp_path / "out") == [*names, "seeds.jsonl", "settings.json"]
    assert [json.loads((tmp_path / "out" / f"0000{n}" / "metadata.jsonl").read_text()) for n in (0, 1)] == LINES
    with Image.open(tmp_path / "out" / "00001" / "samples" / "0001.png") as image:
        side = image.size[0]
        (again,) = draw(model, LINES[1]["prompt"], guidance=1.0, seed=8)  # 5 + 1 * 2 + 1
        alike(image, again.image)
    with Image.open(tmp_path / "out" / "00001" / "grid.png") as grid:
        assert grid.size == (2 * side, side)
        alike(grid.crop((side, 0, 2 * side, side)), again.image)
    seeds = [json.loads(line) for line in (tmp_path / "out" / "seeds.jsonl").read_text().splitlines()]
    assert [row["seeds"] for row in seeds] == [[5, 6], [7, 8]]
    assert seeds[0]["files"][1] == "00000/samples/0001.png"


def test_finished_prompts_are_not_drawn_again(
    model: Any, geneval: GenEvalPrompts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(geneval, model, tmp_path / "whole")
    assert whole.metrics["drawn_now"] == 2
    drawn: list[list[str]] = []

    def watched(model: Any, prompts: list[str], **options: Any) -> Any:
        """The library's own, which tells what it was asked for."""
        drawn.append(prompts)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw(model, prompts, **options)

    monkeypatch.setattr(drawn_suite, "draw", watched)
    with pytest.raises(KeyboardInterrupt):
        run(geneval, model, tmp_path / "parts", batch_size=2)
    assert run(geneval, model, tmp_path / "parts").metrics["drawn_now"] == 1
    assert drawn == [["a photo of a dog"], ["a photo of two cups"], ["a photo of two cups"]]
    for name in listed(tmp_path / "whole"):
        files = [tmp_path / part / name for part in ("whole", "parts")]
        if name.endswith(".png"):
            alike(*(Image.open(file) for file in files))
        else:
            assert files[0].read_bytes() == files[1].read_bytes(), name
    (tmp_path / "parts" / "00000" / "samples" / "0001.png").unlink()
    assert run(geneval, model, tmp_path / "parts").metrics["drawn_now"] == 1


def test_other_settings_and_other_weights_need_another_folder(
    model: Any, geneval: GenEvalPrompts, tmp_path: Path
) -> None:
    run(geneval, model, tmp_path / "out")
    with pytest.raises(ValueError, match=r"pictures of another seed \(0, now 3\); give another folder"):
        run(geneval, model, tmp_path / "out", seed=3)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "settings.json").write_text("{")
    with pytest.raises(
        ValueError, match=r"no note of what pictures were made with .*; drawn_suite.folder: give another"
    ):
        run(geneval, model, tmp_path / "damaged")
    with pytest.raises(ValueError, match="another sampling"):
        run(geneval, model, tmp_path / "out", sampling={"top_k": 4})
    with torch.no_grad():
        model.decoder.norm.weight.mul_(2)
    try:
        with pytest.raises(ValueError, match="another weights"):
            run(geneval, model, tmp_path / "out")
    finally:
        with torch.no_grad():
            model.decoder.norm.weight.div_(2)


def test_dpg_has_four_pictures_in_one_file(model: Any, tmp_path: Path) -> None:
    for name, text in (("12", "a red cup\n"), ("COCO_3", "a cat")):
        (tmp_path / f"{name}.txt").write_text(text)
    result = run(DpgPrompts(str(tmp_path)), model, tmp_path / "out", per_prompt=4, sampling={"greedy": True})
    assert listed(tmp_path / "out") == ["12.png", "COCO_3.png", "seeds.jsonl", "settings.json"]
    (one,) = draw(model, "a red cup", guidance=1.0, sampling=drawn_suite.Sampling(greedy=True))
    side = one.image.size[0]
    with Image.open(tmp_path / "out" / "12.png") as image:
        assert image.size == (2 * side, 2 * side)
        for corner in ((0, 0), (side, 0), (0, side), (side, side)):
            alike(image.crop((*corner, corner[0] + side, corner[1] + side)), one.image)
    assert "compute_dpg_bench" in result.details["scored_by"]


def test_compbench_names_pictures_after_their_prompts(model: Any, tmp_path: Path) -> None:
    (tmp_path / "color_val.txt").write_text("a green bench\na blue bowl and a red car\n")
    suite = T2ICompBenchPrompts(str(tmp_path), "color_val")
    result = run(suite, model, tmp_path / "out", examples=2)
    assert [name for name in listed(tmp_path / "out") if "/" in name] == [
        "samples/a blue bowl and a red car_000002.png", "samples/a blue bowl and a red car_000003.png",
        "samples/a green bench_000000.png", "samples/a green bench_000001.png",
    ]  # fmt: skip
    assert result.figures["drawings"].png.startswith(b"\x89PNG")


@pytest.mark.parametrize("line", ["a / b", "snake_case", ".hidden", "x" * 250])
def test_prompts_that_cannot_name_a_file_are_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "shape_val.txt").write_text(f"a cup\n{line}\n")
    with pytest.raises(ValueError, match="prompt 2 names a file"):
        T2ICompBenchPrompts(str(tmp_path), "shape_val").prompts()


def test_bad_prompt_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"geneval_prompts\.file is null: .*benchmark_root=PLACE"):
        GenEvalPrompts(None).prompts()
    with pytest.raises(FileNotFoundError, match="no file"):
        GenEvalPrompts(str(tmp_path / "none.jsonl")).prompts()
    (tmp_path / "bad.jsonl").write_text('{"tag": "x"}\n')
    with pytest.raises(ValueError, match="prompt 1 is no JSON object with a `prompt`"):
        GenEvalPrompts(str(tmp_path / "bad.jsonl")).prompts()
    with pytest.raises(FileNotFoundError, match=r"no \*\.txt"):
        DpgPrompts(str(tmp_path)).prompts()
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(ValueError, match=r"a\.txt is empty"):
        DpgPrompts(str(tmp_path)).prompts()
    with pytest.raises(ValueError, match="pictures of one size"):
        tiled([Image.new("RGB", (2, 2)), Image.new("RGB", (3, 2))], 2)


def test_a_suite_draws_beside_the_report(model: Any, geneval: GenEvalPrompts, tmp_path: Path) -> None:
    config = compose(None, ["+benchmark=geneval", "+benchmark_root=x"]).benchmark
    node = dict(config.geneval)
    assert (node["per_prompt"], node["guidance"], node["area"]) == (4, 5.5, 262144)
    evaluator = {"type": "drawn_suite", "suite": {"type": "geneval_prompts", "file": geneval.file}, "per_prompt": 1}
    evaluator |= {"guidance": 1.0, "sampling": {"top_k": 16384}}
    run_suite(model, model.processor, {"geneval": evaluator}, tmp_path / "run", CPU)
    assert (tmp_path / "run" / "geneval" / "00001" / "samples" / "0000.png").is_file()
    assert (tmp_path / "run" / "evaluation" / "geneval.json").is_file()


@pytest.mark.parametrize(("name", "count"), [("dpg", 1), ("t2i_compbench", 3)])
def test_declared_suites_have_the_papers_settings(name: str, count: int) -> None:
    config = compose(None, [f"+benchmark={name}", "+benchmark_root=x"]).benchmark
    assert len(config) == count
    for node in config.values():
        assert (node.guidance, node.sampling.top_k, node.area) == (5.0, 16384, 262144)
        assert node.per_prompt == (4 if name == "dpg" else 10)
