"""Several runs in one table: run folders are written as `mmzoo train` and `mmzoo eval` write them."""

import json
import math
import statistics

import pytest
import yaml

from multimodal_zoo.commands.options import separate
from multimodal_zoo.commands.report import Options, main
from multimodal_zoo.evaluation.comparison import collect
from multimodal_zoo.evaluation.estimate import Estimate, estimate, student
from multimodal_zoo.evaluation.outcome import Outcome
from multimodal_zoo.evaluation.ranking import interval
from multimodal_zoo.evaluation.result import Result
from multimodal_zoo.evaluation.runs import differing, find_runs, leaves, named, select, without_results


def write(folder, figures, *, variant="clip_tiny", choices=None, benchmark=None, version="1", **config):
    """A run folder with a result for each evaluation."""
    for name, metrics in figures.items():
        details = {"images": 200, "texts": 200, "attribution": ["drawn by the tests"]}
        Result(name, metrics, details=details, headline=tuple(metrics)[:2]).save(folder / "evaluation")
    run = {"variant": variant, "choices": choices or {}, "environment": {"multimodal_zoo": version}, "weights": "w"}
    (folder / "run.json").write_text(json.dumps(run))
    nodes = benchmark or {name: {"type": "retrieval", "size": 5} for name in figures}
    (folder / "config.yaml").write_text(yaml.safe_dump({"evaluation": nodes, "trainer": {}, "model": {}, **config}))
    return folder


@pytest.fixture
def sweep(tmp_path):
    """Two objectives, three seeds each."""
    for number, (objective, top1) in enumerate({"clip": 0.3, "declip": 0.5}.items()):
        for seed in range(3):
            metrics = {"top1": top1 + 0.01 * seed, "mean_per_class": 0.2}
            write(
                tmp_path / "sweep" / str(3 * number + seed),
                {"seen": metrics, "unseen": {key: value / 2 for key, value in metrics.items()}},
                choices={"objective": objective, "model": "clip_tiny"},
                seed=seed,
                data={"seed": seed, "share": 0.25},
                objective={"type": "supervised_contrast", "parts": {"a": 1} if objective == "clip" else {"b": 2}},
            )
    return tmp_path / "sweep"


def test_student_against_its_table():
    for freedom, expected in {1: 12.7062, 2: 4.3027, 9: 2.2622, 10: 2.2281, 20: 2.0860, 100: 1.9840}.items():
        assert student(freedom) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e308])
def test_runs_that_diverged_are_compared_with_others(tmp_path, value):
    assert estimate([value, -1e308], 2, "loss").interval == ("t" if value == 1e308 else "")
    for seed in range(2):
        folder = write(tmp_path / str(seed), {"seen": {"top1": float(seed)}}, seed=seed)
        (folder / "metrics.csv").write_text(f"step,train/loss\n0,1.0\n1,{value if seed else -value}\n")
    found = collect([tmp_path / "*"])
    assert found.picture.png and all(picture.png for picture in found.curves)  # noqa: PT018
    assert collect([tmp_path / "0"], only=["seen"]).picture.png  # Wilson's bound of no hit at all
    assert collect([tmp_path / "*"], only=["training"]).html()
    assert collect([tmp_path / "*"], figures=["train/loss"]).picture.png


def test_estimates():
    found = estimate([0.2, 0.3, 0.4], 3, "top1", 100)
    half = 4.3027 * statistics.stdev([0.2, 0.3, 0.4]) / 3**0.5
    assert (found.mean, found.low, found.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))
    assert str(found) == f"0.300 ± {half:.3f}"
    alone = estimate([0.25], 1, "text_to_image_R@5", 80)
    assert (alone.low, alone.high) == interval(0.25, 80)
    assert str(estimate([0.25], 2, "top5", 80)) == "0.250 (0.168-0.355) [1 of 2]"
    assert estimate([0.25], 1, "mean_per_class", 80) == Estimate((0.25,), 1)
    assert estimate([7.0], 1, "image_to_text_mean_rank", 80).low is None
    with pytest.raises(ValueError, match="top1: there is no value"):
        estimate([], 1, "top1")


def test_runs_are_found_in_every_way(sweep, monkeypatch):
    monkeypatch.chdir(sweep.parent)
    assert len(find_runs([sweep])) == len(find_runs(["."])) == len(find_runs(["sweep/*"])) == 6
    assert len(find_runs(["sweep/0", "sweep/[01]", sweep / "0"])) == 2
    assert find_runs(["sweep/0"])[0].name == "sweep/0"


def test_folders_without_results_are_errors(sweep, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        find_runs([sweep, "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty: no results there.*evaluation/.*mmzoo eval writes"):
        find_runs([tmp_path / "empty"])
    with pytest.raises(ValueError, match="needs folders of runs"):
        find_runs([])


def test_methods_are_told_apart_by_objective_with_seeds_together(sweep):
    found = collect([sweep])
    assert [(m.name, len(m.runs)) for m in found.methods] == [("clip_tiny, clip", 3), ("clip_tiny, declip", 3)]
    assert not found.remarks
    assert found.columns == (("seen", "top1"), ("unseen", "top1"))
    clip = found.methods[0].estimate("seen", "top1")
    assert clip == estimate([0.3, 0.31, 0.32], 3, "top1")
    assert found.overviews()[0].rows[0] == ("clip_tiny, clip", 3, str(clip), "0.155 ± 0.012")
    assert found.overviews()[0].numeric() == [False, True, True, True]
    assert found.printable()[0].columns[0] == "method"
    wide = collect([sweep], figures=["top1", "mean_per_class", "top1"]).printable()[0]
    assert (wide.columns[0], len(wide.rows)) == ("evaluation", 6)
    assert [row[:2] for row in found.details()[0].rows][:2] == [("seen", "top1"), ("seen", "mean_per_class")]
    assert [row[:3] for row in found.runs().rows][:2] == [("clip_tiny, clip", n, f"sweep/{n}") for n in range(2)]


def test_without_recorded_choices_an_objective_is_called_by_its_parts(sweep):
    for path in sweep.glob("*/run.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "choices": {}}))
    assert [method.name for method in collect([sweep]).methods] == ["clip_tiny, a", "clip_tiny, b"]
    assert [method.name for method in collect([sweep], by=["objective"]).methods] == ["a", "b"]


def test_by_keys(sweep):
    found = collect([sweep], by=["objective", "data.share"])
    assert [method.name for method in found.methods] == ["clip, share=0.25", "declip, share=0.25"]
    assert json.loads(found.json())["methods"][1]["by"] == {"objective": "declip", "data.share": 0.25}
    (only,) = collect([sweep], by=["data.share"]).methods
    assert len(only.runs) == 6
    assert any("differ in more than the seed (objective)" in line for line in collect([sweep], by=["model"]).remarks)
    with pytest.raises(KeyError, match=r"by: no key.*'data.shar'; closest: data.share"):
        collect([sweep], by=["data.shar"])


def test_what_differs_beside_the_seed_makes_methods_of_its_own(tmp_path):
    for lr in (0.1, 0.2):
        for seed in (0, 1):
            write(tmp_path / f"{lr}-{seed}", {"seen": {"top1": lr}}, seed=seed, optim={"lr": lr}, threads=seed)
    assert [(m.name, len(m.runs)) for m in collect([tmp_path]).methods] == [
        ("clip_tiny, lr=0.1", 2),
        ("clip_tiny, lr=0.2", 2),
    ]


def test_seeds_that_occur_twice_and_seeds_that_nobody_knows(tmp_path):
    for number in range(2):
        write(tmp_path / f"twice{number}", {"seen": {"top1": 0.1}}, seed=4)
        write(tmp_path / f"strange{number}", {"seen": {"top1": 0.1}}, variant="other")
    remarks = collect([tmp_path]).remarks
    assert "clip_tiny: several runs of seed 4; the interval takes them for seeds" in remarks
    assert "other: the seeds of its runs are not known; each run counts as one" in remarks


def test_an_evaluation_is_sorted_by_the_training_before_it(sweep, tmp_path):
    for number in (0, 3):
        place = tmp_path / "evaluations" / f"m{number}"
        source = str((sweep / str(number) / "model").resolve())
        write(place, {"other": {"top1": 0.5}}, choices={"benchmark": "emoji"}, source=source)
    found = collect([tmp_path / "evaluations"], by=["objective"])
    assert [method.name for method in found.methods] == ["clip", "declip"]
    assert [run.seed for method in found.methods for run in method.runs] == [0, 0]
    assert [m.name for m in collect([tmp_path / "evaluations"]).methods] == ["clip_tiny, clip", "clip_tiny, declip"]


def test_missing_results_are_marked_and_explained(sweep, tmp_path):
    place = write(tmp_path / "late", {"seen": {"top1": 0.2}}, variant="late", choices={"objective": "clip"}, seed=0)
    Outcome(("seen", "unseen"), absent={"unseen": "no such folder"}).save(place)
    (sweep / "1/evaluation/unseen.json").unlink()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.yaml").write_text("{}")
    found = collect([sweep, place, tmp_path])
    assert found.overviews()[0].rows[2][-1] == "missing"
    assert found.overviews()[0].rows[0][-1].endswith(" [2 of 3]")
    assert "late: unseen is missing in 1 of 1 runs: no such folder" in found.remarks
    assert "clip_tiny, clip: unseen is missing in 1 of 3 runs: it was not run" in found.remarks
    assert "1 run folder has no results yet: begun" in found.remarks
    assert found.picture.png.startswith(b"\x89PNG")


def test_runs_measured_differently_are_refused(sweep, tmp_path):
    other = {"seen": {"type": "retrieval", "size": 7, "batch_size": 3}, "unseen": {"type": "retrieval", "size": 5}}
    figures = {"seen": {"top1": 0.9}, "unseen": {"top1": 0.9}}
    write(tmp_path / "other", figures, variant="b", benchmark=other, version="2", seed=0)
    with pytest.raises(ValueError, match=r"not measured alike: seen was configured differently: size\..*mixed=true"):
        collect([sweep, tmp_path / "other"])
    assert not any("differently" in line for line in collect([sweep, tmp_path / "other"], only=["unseen"]).remarks)
    remarks = collect([sweep, tmp_path / "other"], mixed=True).remarks
    assert "seen was configured differently: size" in remarks
    assert "the runs were evaluated with several versions of multimodal_zoo: 1, 2" in remarks


def test_figures_and_evaluations_are_chosen(sweep):
    found = collect([sweep], only=["un*"], figures=["mean_per_class", "top1"])
    assert found.columns == (("unseen", "mean_per_class"), ("unseen", "top1"))
    with pytest.raises(KeyError, match="only: no evaluation named 'sen'; closest: seen"):
        collect([sweep], only=["sen"])
    with pytest.raises(KeyError, match="figures: no figure named 'top2'; closest: top1"):
        collect([sweep], figures=["top2"])


def test_a_number_that_was_varied_becomes_an_axis(tmp_path):
    for share in (10, 50):
        for objective in ("clip", "declip"):
            choices = {"objective": objective}
            write(
                tmp_path / f"{objective}{share}", {"s": {"top1": 0.1}}, choices=choices, seed=0, data={"share": share}
            )
    found = collect([tmp_path], by=["objective", "data.share"])
    assert "over data.share" in found.picture.caption
    assert "by method" in collect([tmp_path], by=["data.share", "objective"]).picture.caption


def test_everything_is_written(sweep, tmp_path, capsys):
    assert main([str(sweep), f"out={tmp_path / 'out'}", "by=objective", "title=Two objectives"]) == 0
    printed = capsys.readouterr().out
    assert "declip" in printed
    assert "comparison.html" in printed
    content = json.loads((tmp_path / "out/comparison.json").read_text())
    figure = content["methods"][1]["figures"]["seen/top1"]
    assert figure["values"] == [0.5, 0.51, 0.52]
    assert figure["mean"] == pytest.approx(0.51)
    assert content["columns"] == ["seen/top1", "unseen/top1"]
    text = (tmp_path / "out/comparison.md").read_text()
    assert text.startswith("# Two objectives")
    assert "0.510 ± 0.025" in text
    page = (tmp_path / "out/comparison.html").read_text()
    assert "Two objectives" in page
    assert "drawn by the tests" in page
    assert 'src="data:image/png' in page
    assert (tmp_path / "out/comparison.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in page + text + (tmp_path / "out/comparison.json").read_text()
    shown = collect([sweep])._repr_html_()
    assert "clip_tiny, declip" in shown
    assert "<img" in shown


def test_options(tmp_path):
    (tmp_path / "a=b").mkdir()
    places, options = separate([str(tmp_path / "a=b"), "runs/x=*", "out=o", "by=[a.b,c]"], Options)
    assert places == [str(tmp_path / "a=b"), "runs/x=*"]
    assert options == Options(out="o", by=("a.b", "c"))
    with pytest.raises(ValueError, match="seed=3: no option 'seed'; there are out, by, only"):
        main(["seed=3"])
    with pytest.raises(ValueError, match="mixed=yes: expected true or false"):
        main(["runs", "mixed=yes"])


def test_reading_configurations():
    tree = {"a": {"b": [1, {"c": 2}], "card": {"name": "x"}}, "d": None}
    assert dict(leaves(tree)) == {"a.b.0": 1, "a.b.1.c": 2, "a.card.name": "x", "d": None}
    assert select(tree, "a.b") == [1, {"c": 2}]
    assert select(tree, "a.x.y") is None
    assert named(tree["a"]) == "x"
    assert named([1, "z"]) == "1+z"
    assert named({"type": "t", "parts": {"p": 1, "q": 2}}) == "p+q"
    assert differing([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}]) == ["b", "c"]


def test_an_exported_model_is_no_run_without_results(tmp_path):
    for folder in ("run/model", "run/evaluation", "begun"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("run", "run/model", "begun"):
        (tmp_path / folder / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "run" / "evaluation" / "one.json").write_text("{}")
    assert without_results([tmp_path]) == [tmp_path / "begun"]
