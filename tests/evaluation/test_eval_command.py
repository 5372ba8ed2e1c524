"""`mmzoo eval` and `mmzoo embed` on a real model of the zoo, made small."""

import io
import json
import tarfile

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from multimodal_zoo.catalogue import list_group
from multimodal_zoo.cli import main
from multimodal_zoo.commands import embed as embed_command
from multimodal_zoo.commands import eval as eval_command
from multimodal_zoo.commands.app import subject_override
from multimodal_zoo.config import compose
from multimodal_zoo.registry import find

SMALL = ["model.embed_dim=64", "tokenizer@model.processor.texts=clip_bpe"]
COLOURS = {"red": (200, 30, 30), "green": (20, 190, 40), "blue": (20, 40, 210)}


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path):
    """A classification set in CLIP_benchmark's layout."""
    (tmp_path / "set/test").mkdir(parents=True)
    with tarfile.open(tmp_path / "set/test/0.tar", "w") as tar:
        for number in range(9):
            buffer = io.BytesIO()
            Image.new("RGB", (40, 50), list(COLOURS.values())[number % 3]).save(buffer, "PNG")
            add(tar, f"{number:03d}.png", buffer.getvalue())
            add(tar, f"{number:03d}.cls", str(number % 3).encode())
    (tmp_path / "set/test/nshards.txt").write_text("1")
    (tmp_path / "set/classnames.txt").write_text("\n".join(COLOURS))
    (tmp_path / "set/zeroshot_classification_templates.txt").write_text("a photo of {c}.\n{c}\n")
    return tmp_path / "set"


def evaluation(folder, tmp_path, *more):
    overrides = [
        "benchmark=clip_benchmark_folder",
        f"benchmark.zero_shot.dataset.root={folder}",
        f"run.dir={tmp_path / 'out'}",
        "model=clip_tiny",
        *SMALL,
        *more,
    ]
    return compose("base/eval", overrides)


def test_random_weights_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"random.*weights=PATH.*allow_random=true"):
        eval_command.run(evaluation(folder, tmp_path))


def test_folder_in_clip_benchmarks_layout(folder, tmp_path, capsys):
    eval_command.run(evaluation(folder, tmp_path, "allow_random=true"))
    (out,) = (tmp_path / "out").iterdir()
    result = json.loads((out / "evaluation/zero_shot.json").read_text())
    assert result["details"]["images"] == 9
    assert result["details"]["classes"] == 3
    assert (out / "report.html").is_file()
    assert (out / "config.yaml").is_file()
    printed = capsys.readouterr().out
    assert "zero shot" in printed
    assert "report.html" in printed.replace("\n", "")
    before = (out / "evaluation/zero_shot.json").stat().st_mtime_ns
    eval_command.run(evaluation(folder, tmp_path, "allow_random=true"))
    assert (out / "evaluation/zero_shot.json").stat().st_mtime_ns == before


def test_saved_model_as_source_and_as_weights(folder, tmp_path):
    from multimodal_zoo.checkpoints.store import save_model
    from multimodal_zoo.zoo import create

    model = create("clip_tiny", overrides=SMALL, seed=3)
    save_model(model, tmp_path / "model")
    eval_command.run(evaluation(folder, tmp_path, f"weights={tmp_path / 'model'}"))
    plain = compose(
        "base/eval",
        [
            "benchmark=clip_benchmark_folder",
            f"benchmark.zero_shot.dataset.root={folder}",
            f"run.dir={tmp_path / 'other'}",
            f"source='{tmp_path / 'model'}'",
        ],
    )
    eval_command.run(plain)
    found = [json.loads(path.read_text())["metrics"] for path in sorted(tmp_path.glob("*/*/evaluation/zero_shot.json"))]
    assert len(found) == 2
    assert found[0] == found[1]
    plain.weights = "x"
    with pytest.raises(ValueError, match="one model too many"):
        eval_command.run(plain)


def test_a_file_of_another_size_is_resized_on_request(folder, tmp_path):
    from multimodal_zoo.checkpoints.errors import CheckpointMismatch
    from multimodal_zoo.checkpoints.store import save_model
    from multimodal_zoo.zoo import create

    save_model(create("eva_clip_tiny"), tmp_path / "model")
    words = [f"weights={tmp_path / 'model'}", "model=eva_clip_tiny", "model.image.image_size=64"]
    for command, more in {"eval": ["benchmark=emoji"], "embed": [], "export": []}.items():
        with pytest.raises(CheckpointMismatch, match="on the command line resize=true"):
            eval_command.load_model(compose(f"base/{command}", [*words, *more]), command)
        model = eval_command.load_model(compose(f"base/{command}", [*words, *more, "resize=true"]), command)
        assert model.image.image_size == 64


def test_embed_a_packaged_reader(tmp_path):
    pytest.importorskip("emoji")
    overrides = ["data=emoji", "data.train.splits=[val]", "data.train.styles=[twemoji]", "model=clip_tiny", *SMALL]
    words = ["allow_random=true", f"out={tmp_path / 'e'}", "format=npz", "shard_size=100"]
    config = compose("base/embed", [*overrides, *words])
    embed_command.run(config)
    shards = [np.load(path) for path in sorted((tmp_path / "e").glob("*.npz"))]
    assert sum(len(shard["key"]) for shard in shards) == 175
    assert len({key for shard in shards for key in shard["key"]}) == 175
    assert shards[0]["image_embedding"].shape == shards[0]["text_embedding"].shape == (100, 64)
    assert np.allclose(np.linalg.norm(shards[0]["image_embedding"], axis=1), 1, atol=1e-5)
    config.allow_random = False
    with pytest.raises(ValueError, match="weights are random"):
        embed_command.run(config)


@pytest.mark.parametrize("name", list_group("benchmark"))
def test_every_benchmark_names_parts_that_exist(name):
    def types(node):
        if isinstance(node, dict):
            yield from [node["type"]] if "type" in node else []
            for child in node.values():
                yield from types(child)

    found = list(types(OmegaConf.to_container(compose("base/eval", [f"benchmark={name}"]).benchmark)))
    assert found
    for part in found:
        assert find(part)


def test_several_subjects_are_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b, c"):
        (tmp_path / name).mkdir()
    assert subject_override("clip_tiny,filip_tiny") == "model=clip_tiny,filip_tiny"
    assert subject_override("clip_tiny") == "model=clip_tiny"
    assert subject_override("b, c") == f"source='{tmp_path / 'b, c'}'"
    assert subject_override("a,hf://o/r/f") == f"source='{tmp_path / 'a'}','hf://o/r/f'"
    with pytest.raises(ValueError, match="a is a path and clip_tiny is none"):
        subject_override("clip_tiny,a")
    with pytest.raises(KeyError, match=r"no variant or path named 'clip_tin'; closest: clip_tiny"):
        subject_override("filip_tiny,clip_tin")


def test_a_sweep_over_variants_and_its_report(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["benchmark=clip_benchmark_folder", f"benchmark.zero_shot.dataset.root={folder}", "allow_random=true"]
    assert main(["eval", "clip_tiny,filip_tiny", "-m", *words, "threads=1"]) == 0
    choices = json.loads((tmp_path / "evaluations/filip_tiny-random/run.json").read_text())["choices"]
    assert (choices["benchmark"], choices["model"]) == ("clip_benchmark_folder", "filip_tiny")
    capsys.readouterr()
    assert main(["report", "evaluations", "by=model"]) == 0
    printed = capsys.readouterr().out
    assert "clip_tiny" in printed
    assert "filip_tiny" in printed
    content = json.loads((tmp_path / "comparison/comparison.json").read_text())
    assert [method["name"] for method in content["methods"]] == ["clip_tiny", "filip_tiny"]
    assert all(len(method["figures"]["zero_shot/top1"]["values"]) == 1 for method in content["methods"])
    assert main(["report", "elsewhere"]) == 1
    assert "elsewhere: no such folder" in capsys.readouterr().err
