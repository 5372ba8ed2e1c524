"""CLIP-benchmark's suites on small sets: ImageNet and its shifts, transfer sets, linear probes."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from multimodal_zoo.catalogue import list_group
from multimodal_zoo.commands import eval as eval_command
from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.linear_probe import LinearProbe
from multimodal_zoo.evaluation.published import PublishedTable, load_section
from multimodal_zoo.evaluation.result import Result
from multimodal_zoo.zoo import declaration

SUITES = {"declip": "zero_shot", "declip_transfer": "transfer", "declip_linear_probe": "linear_probe"}
COLOURS = {"cat": (200, 30, 30), "dog": (20, 190, 40), "newt": (20, 40, 210)}


def write_folders(root, split, count):
    """Class folders of nearly plain pictures."""
    generator = np.random.default_rng(len(split))
    for name, colour in COLOURS.items():
        (root / split / name).mkdir(parents=True)
        for number in range(count):
            shade = generator.integers(-15, 15, 3) + np.array(colour)
            Image.new("RGB", (50, 40), tuple(np.clip(shade, 0, 255).tolist())).save(
                root / split / name / f"{number}.png"
            )


def run(benchmark, root, out, *more, model="filip_tiny"):
    words = [f"benchmark={benchmark}", f"benchmark_root={root}", f"run.dir={out}", f"model={model}"]
    eval_command.run(compose("base/eval", [*words, "allow_random=true", *more]))
    (folder,) = out.iterdir()
    return {path.stem: json.loads(path.read_text()) for path in (folder / "evaluation").glob("*.json")}


@pytest.mark.parametrize(("suite", "section"), SUITES.items())
def test_every_row_has_an_evaluation_and_every_model_a_variant(suite, section):
    parts = compose("base/eval", [f"benchmark={suite}"]).benchmark
    found = load_section("declip", section)
    rows = [found.place_of(row) for row in found.rows]
    assert [row[0] for row in rows] == [name for name in parts if not name.startswith("table")]
    assert {*found.models, *found.also, *found.notes} <= set(list_group("model"))
    for name, figure in rows:
        assert parts[name].get("judged_by", "top1") == figure


def test_published_figures_are_those_of_the_cards():
    for variant, column in load_section("declip", "zero_shot").also.items():
        (figure,) = declaration(variant)["card"].get("figures", {"": None}).values()
        assert column == {"imagenet1k": figure}


def test_ours_stands_beside_the_published_figure():
    model = SimpleNamespace(config={"card": {"name": "declip_vit_b32_yfcc"}})
    results = {
        name: Result(name, {"top1": 0.4}, details={"images": 50000, "published_images": [50000]})
        for name in ("imagenet1k", "imagenet_a")
    }
    (table,) = PublishedTable("declip", "zero_shot").summarise(results, {}, model).tables
    assert table.title.endswith("80 prompts, top-1: published (declip_vit_b32_yfcc) and ours, per cent")
    assert [tuple(row[:4]) for row in table.rows] == [
        ("imagenet1k", "43.2", "40.0", "-3.2"),
        ("imagenet a", "-", "40.0", "-"),
        ("mean of 2 of 6", "-", "40.0", "-"),
    ]


def test_zero_shot_with_lists_of_prompts(tmp_path):
    write_folders(tmp_path / "root/imagenet-a", "test", 2)
    change = ["benchmark.imagenet_a.dataset.classes=3", "only=[imagenet_a]"]
    (tmp_path / "root/imagenet-a/classnames.txt").write_text("cat\ndog\nnewt\n")
    found = run("declip", tmp_path / "root", tmp_path / "out", *change)
    assert found["imagenet_a"]["details"]["prompts"] == "names: the data set's; templates: prompt80"
    assert found["imagenet_a"]["details"]["images"] == 6
    assert found["table_zero_shot"]["metrics"]["rows"] == 1
    change += ["benchmark.imagenet_a.classes.templates=prompt9"]
    with pytest.raises(KeyError, match="templates: no list of prompts named 'prompt9'"):
        run("declip", tmp_path / "root", tmp_path / "out", *change)


def test_transfer_sets_are_judged_by_class_where_customary(tmp_path):
    write_folders(tmp_path / "root/pets", "test", 2)
    (tmp_path / "root/pets/classnames.txt").write_text("cat\ndog\nnewt\n")
    words = ["benchmark.pets.dataset.classes=3", "only=[pets]"]
    found = run("declip_transfer", tmp_path / "root", tmp_path / "out", *words)
    assert found["pets"]["headline"] == ["mean_per_class"]
    (table,) = found["table_transfer"]["tables"]
    assert table["title"] == "zero-shot classification, transfer sets: ours, per cent"
    assert table["rows"][0][0] == "pets, mean per class"
    assert table["rows"][0][-1] == "-"  # a mean of shares has no interval of a share


@pytest.mark.parametrize("model", ["filip_tiny", "clip_tiny"])
def test_probes_need_train_and_test(tmp_path, model):
    for name in ("pets", "cars"):
        write_folders(tmp_path / "root" / name, "test", 2)
    write_folders(tmp_path / "root/pets", "train", 8)
    words = ["only=[probe_pets,probe_cars]"]
    found = run("declip_linear_probe", tmp_path / "root", tmp_path / "out", *words, model=model)
    assert "probe_cars" not in found
    probe = found["probe_pets"]
    assert probe["metrics"]["mean_per_class"] > 0.8
    assert probe["headline"] == ["mean_per_class", "top1"]
    assert probe["details"]["images"] == 6
    assert [row[0] for row in probe["tables"][-1]["rows"]] == [10.0**power for power in range(-6, 7)]
    assert found["table_linear_probe"]["metrics"]["mean"] == probe["metrics"]["mean_per_class"]


def test_an_unknown_figure_is_refused():
    with pytest.raises(ValueError, match="judged_by is 'top5'; it must be one of top1, mean_per_class"):
        LinearProbe([], [], "label", judged_by="top5")


def test_sources_are_named():
    from importlib.resources import files

    content = yaml.safe_load(files("multimodal_zoo.conf").joinpath("published/declip.yaml").read_text())
    assert set(content) == {"source", *SUITES.values()}
    assert "5d99a85" in content["source"]
