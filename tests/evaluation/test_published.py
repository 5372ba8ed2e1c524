from importlib.resources import files
from types import SimpleNamespace

import pytest
import yaml

from multimodal_zoo.catalogue import list_group
from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.published import PublishedTable, load_section
from multimodal_zoo.evaluation.ranking import interval
from multimodal_zoo.evaluation.result import Result
from multimodal_zoo.evaluation.robustness import RobustnessTable

SECTIONS = ["zero_shot", "zero_shot_shorter_crop", "zero_shot_squash", "retrieval", "video", "video_8", "video_16"]
SHIFTED = ["imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch", "objectnet"]


def model_of(name):
    return SimpleNamespace(config={"card": {"name": name}})


def result(name, images=100, published=(), **metrics):
    return Result(name, metrics, details={"images": images, "texts": 5 * images, "published_images": list(published)})


@pytest.mark.parametrize("name", SECTIONS)
def test_published_columns_average_to_the_printed_means(name):
    section = load_section("eva_clip", name)
    whole = [model for model in section.models if len(section.column(model)) == len(section.rows)]
    for model in whole:
        column = section.column(model)
        # E-14-plus: 78.648 is printed as 78.7, from figures before rounding
        assert sum(column.values()) / len(column) == pytest.approx(section.printed_mean(model), abs=0.055)
    expected = {"zero_shot": 5, "retrieval": 3, "video": 2, "video_16": 0}
    assert len(whole) == expected.get(name, 1)
    assert all(len(values) == len(section.models) for values in section.rows.values())
    assert len(section.mean) == len(section.models)


def test_published_sections_fit_each_other():
    zero_shot = load_section("eva_clip", "zero_shot")
    crop, squash = (load_section("eva_clip", f"zero_shot_{view}") for view in ("shorter_crop", "squash"))
    assert list(zero_shot.rows) == list(crop.rows) == list(squash.rows)
    assert len(zero_shot.rows) == 27
    best = zero_shot.column("eva_clip_18b")
    for row in best:
        found = max(section.column("eva_clip_18b")[row] for section in (crop, squash))
        assert best[row] == found, row
    assert len(load_section("eva_clip", "retrieval").rows) == 12


def test_every_row_has_an_evaluation_and_every_model_a_variant():
    content = yaml.safe_load(files("multimodal_zoo.conf").joinpath("published/eva_clip.yaml").read_text())
    assert [name for name in content if name != "source"] == SECTIONS
    suite = compose("base/eval", ["benchmark=eva_clip"]).benchmark
    for name in SECTIONS:
        section = load_section("eva_clip", name)
        assert {section.place_of(row)[0] for row in section.rows} <= set(suite)
        assert {*section.models, *section.also, *section.notes} <= set(list_group("model"))


def test_suite_covers_27_sets_and_shares_those_of_robustness():
    suite = compose("base/eval", ["benchmark=eva_clip_27", "benchmark_root=x"]).benchmark
    sets = [name for name in suite if not name.startswith("table")]
    assert sorted(sets) == sorted(load_section("eva_clip", "zero_shot").rows)
    assert list(suite).index("table_zero_shot") < list(suite).index("table_robustness")
    robustness = compose("base/eval", ["benchmark=eva_clip_robustness", "benchmark_root=x"]).benchmark
    assert all(suite[name] == node for name, node in robustness.items())  # so one run serves both
    everything = compose("base/eval", ["benchmark=eva_clip", "benchmark_batch_size=7"]).benchmark
    assert everything.voc2007.batch_size == everything.coco.batch_size == everything.ucf101_8.batch_size == 7
    assert [everything[f"kinetics600_{n}"].dataset.media.count for n in (1, 8, 16)] == [1, 8, 16]
    assert everything.kinetics600_16.dataset.classes == 600
    assert (everything.kinetics400_8.judged_by, "judged_by" in everything.ucf101_8) == ("top1_top5", False)


def test_table_of_published_and_measured():
    results = {
        "dtd": result("dtd", 1880, [1880], top1=0.7, shorter_crop_top1=0.7, squash_top1=0.6),
        "voc2007": result("voc2007", 4000, [4952, 14976], top1=0.9, shorter_crop_top1=0.8, squash_top1=0.9),
        "other": result("other", 10, top1=0.1),
    }
    part = PublishedTable("eva_clip", "zero_shot", ["shorter_crop", "squash"])
    found = part.summarise(results, {"cars": "no folder"}, model_of("eva_clip_8b"))
    assert found.metrics == {"rows": 2, "rows_of_the_table": 27, "mean": pytest.approx(0.8)}
    (table,) = found.tables
    rows = {row[0]: list(row[1:]) for row in table.rows}
    low, high = interval(0.7, 1880)
    assert rows["dtd"] == ["71.0", "70.0", "-1.0", "70.0", "60.0", "1,880", f"{100 * low:.1f}-{100 * high:.1f}"]
    assert rows["voc2007"][:6] == ["85.1", "90.0", "+4.9", "80.0", "90.0", "4,000 (of 4,952)"]
    assert list(rows) == ["dtd", "voc2007", "mean of 2 of 27"]
    assert rows["mean of 2 of 27"][:5] == [f"{(71 + 85.1) / 2:.1f}", "80.0", "+2.0", "75.0", "75.0"]
    shown = found.details
    assert shown["absent"] == "cars"
    assert shown["not run"].startswith("imagenet1k, ")
    assert "cars" not in shown["not run"]
    assert table.title.endswith("published (eva_clip_8b) and ours, per cent")


def test_a_partly_published_model_has_no_published_mean():
    results = {name: result(name, top1=0.5) for name in ("imagenet1k", "dtd")}
    part = PublishedTable("eva_clip", "zero_shot")
    rows = {row[0]: row for row in part.summarise(results, {}, model_of("eva_clip_b16")).tables[0].rows}
    assert rows["imagenet1k"][1] == "74.7"
    assert (rows["dtd"][1], rows["mean of 2 of 27"][1]) == ("-", "-")
    assert rows["mean of 2 of 27"][2] == "50.0"


def test_kinetics_has_no_interval_and_retrieval_counts_its_queries():
    kinetics = {"kinetics400_1": result("kinetics400_1", 50, top1=0.5, top5=0.7, top1_top5=0.6)}
    rows = PublishedTable("eva_clip", "video").summarise(kinetics, {}, model_of("eva_clip_18b")).tables[0].rows
    assert rows[0][1:] == ("72.9", "60.0", "-12.9", "50", "-")
    flickr = {"flickr30k": result("flickr30k", 1000, [1000], **{"image_to_text_R@1": 0.9, "text_to_image_R@1": 0.8})}
    found = PublishedTable("eva_clip", "retrieval").summarise(flickr, {}, model_of("eva_clip_b16"))
    counts = {row[0]: row[-2] for row in found.tables[0].rows}
    assert counts["flickr30k, image to text R@1"] == "1,000"
    assert counts["flickr30k, text to image R@1"] == "5,000"
    assert "79.3 with shorter_crop" in dict(found.tables[1].rows)["eva_clip_b16"]


def test_nothing_measured_makes_no_table():
    found = PublishedTable("eva_clip", "video_8").summarise({}, {"ucf101_8": "x"}, model_of("eva_clip_18b"))
    assert "mean" not in found.metrics
    assert found.tables == []
    assert found.details["absent"] == "ucf101_8"


def test_no_published_variant_is_named_where_there_is_none():
    results = {"mnist": result("mnist", top1=0.5)}
    (table,) = PublishedTable("eva_clip", "zero_shot").summarise(results, {}, model_of("clip_tiny")).tables
    assert table.title.endswith("top-1: ours, per cent")
    assert [list(row[:3]) for row in table.rows] == [["mnist", "50.0", "100"], ["mean of 1 of 27", "50.0", "-"]]
    assert table.numeric() == [False, True, True, True]


def test_robustness_figures():
    part = RobustnessTable("eva_clip", "zero_shot", "imagenet1k", SHIFTED)
    top1 = dict(zip(["imagenet1k", *SHIFTED], (0.8, 0.7, 0.6, 0.9, 0.5, 0.7), strict=True))
    results = {name: result(name, top1=value) for name, value in top1.items()}
    found = part.summarise(results, {}, model_of("eva_clip_18b"))
    assert found.metrics == pytest.approx({"shifted_mean": 0.68, "mean": 0.7, "drop": 0.1, "shifted_drop": 0.12})
    # 18B: (83.8 + 77.9 + 87.3 + 95.7 + 74.7 + 82.2) / 6 = 83.6
    assert [row[1] for row in found.tables[0].rows] == ["83.6", "83.6", "0.2", "0.2"]
    assert [row[3] for row in found.tables[0].rows][1] == "-13.6"
    del results["objectnet"]
    found = part.summarise(results, {"objectnet": "no folder"}, model_of("eva_clip_18b"))
    assert found.metrics == {}
    assert found.details["absent"] == "objectnet"


def test_unknown_tables_and_sections():
    with pytest.raises(KeyError, match="table: no published table named 'eva_clap'; closest: eva_clip"):
        PublishedTable("eva_clap", "zero_shot")
    with pytest.raises(KeyError, match="no section named 'videos'; closest: video"):
        PublishedTable("eva_clip", "videos")
