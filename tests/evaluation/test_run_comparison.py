"""`mmzoo report` over runs of every kind: finished, unfinished, damaged, hostile, many."""

import base64
import csv
import io
import json
import random
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import yaml
from PIL import Image

from multimodal_zoo.commands.report import main
from multimodal_zoo.evaluation import comparison_pictures
from multimodal_zoo.evaluation.comparison import collect
from multimodal_zoo.evaluation.comparison_differences import configuration, making
from multimodal_zoo.evaluation.comparison_families import connected
from multimodal_zoo.evaluation.history import telling, thin
from multimodal_zoo.evaluation.result import Picture, Result, Table
from multimodal_zoo.evaluation.run_files import read_yaml
from multimodal_zoo.evaluation.runs import Run, find_runs

#: Paradigm -> type of the model, of the objective, and what its training logs.
PARADIGMS = {
    "contrastive": ("dual_encoder", "contrastive", ("image_to_text_accuracy",)),
    "next_token": ("emu3", "next_token", ("text_loss", "accuracy")),
    "regression": ("emu", "next_element", ("text_loss", "regression_loss")),
    "tokenizer": ("emu3_vision_tokenizer", "vision_tokenizer_loss", ("reconstruction",)),
    "detection": ("fast_bev", "free_anchor", ("positive", "negative")),
    "decoder": ("diffusion_decoder", "denoising", ()),
    "distillation": ("dual_encoder", "masked_image", ("similarity",)),
}
HOSTILE = "<img src=x onerror=alert(1)>|$x^$ \u5b57"


#: Nine times nine times nine... lists by aliases: 9 ** 20 nodes in a kilobyte.
LAUGHS = b"a: &a [b]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(20)
)


#: Beginnings of contents below that can be read, strange as they are.
READABLE = (b"step,", b"seed:", b'{"choices"', b'{"variant": [', b"trainer: [1]", b'{"name": "a", "figures"')


def result(**parts):
    """A saved result whose picture lies outside its folder."""
    figures = {"f": {"file": "../../s.png", "caption": ""}}
    return json.dumps({"name": "a", "figures": figures, "tables": [], "details": {}, "headline": [], **parts}).encode()


def png(size=(40, 30), colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def train(folder, paradigm="contrastive", seed=0, steps=4, finished=True, lr=0.1, columns=()):
    """A run folder as `mmzoo train` leaves it."""
    model, objective, logged = PARADIGMS[paradigm]
    folder.mkdir(parents=True)
    names = ["step", "train/loss", "validation/loss", "samples_per_second"]
    names += [f"train/{name}" for name in (*logged, *columns)]
    with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for step in range(steps):
            row = {"step": step, **dict.fromkeys(names[1:], 1 / (1 + step + seed)), "samples_per_second": 10 + step}
            writer.writerow(row if step % 2 else {**row, "validation/loss": ""})
    config = {
        "seed": seed, "model": {"type": model, "width": 8}, "objective": {"type": objective}, "optim": {"lr": lr},
        "trainer": {"max_steps": 4}, "run": {"dir": str(folder)},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "train.log").write_text("")
    if finished:
        environment = {"multimodal_zoo": "1", "commit": f"c{seed}"}
        about = {"variant": f"{paradigm}_tiny", "weights": "trained", "date": "2026-01-01", "parameters": 8}
        about |= {"choices": {"objective": objective}, "environment": environment}
        (folder / "run.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A run of each paradigm, some with results and pictures, and a page over all."""
    place = tmp_path_factory.mktemp("zoo")
    for number, name in enumerate(PARADIGMS):
        train(place / "runs" / name, name, seed=number, finished=name != "decoder")
    for name, metrics in (("detection", {"NDS": 0.2}), ("tokenizer", {"psnr": 20.0})):
        picture = {"shown": Picture(png(), f"what {name} found")}
        Result(name, metrics, figures=picture, headline=tuple(metrics)).save(place / "runs" / name / "evaluation")
    (place / "runs/next_token/samples").mkdir()
    (place / "runs/next_token/samples/step_2.png").write_bytes(png((2000, 500), "blue"))
    (place / "runs/next_token/samples/step_1.png").write_bytes(b"not read: only the last sheet is shown")
    found = collect([place / "runs"])
    return found, found.save(place / "out"), place


class References(HTMLParser):
    """Everything that a page refers to, its tags, and the size of its largest attribute."""

    def __init__(self, text):
        super().__init__()
        self.found, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [value for key, value in attrs if key in ("src", "href", "srcset", "data", "action")]
        assert not any(key.startswith("on") for key, _ in attrs)


def test_runs_of_every_paradigm_stand_on_one_page(zoo):
    found, page, _ = zoo
    assert {run.state for run in found.members} == {"trained", "unfinished, step 3 of 4"}
    titles = {training.title for training in found.trainings}
    assert titles == {
        "contrastive, masked image", "next token, next element", "vision tokenizer loss", "free anchor", "denoising"
    }  # fmt: skip
    assert [family.columns for family in found.families] == [(("detection", "NDS"),), (("tokenizer", "psnr"),)]
    references = References(page.read_text())
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in references.found)
    assert not {"script", "link", "iframe", "object"} & set(references.tags)
    assert sum(tag == "img" for tag in references.tags) == 1 + len(titles) + 3
    assert set(found.gallery.shown) == {"samples", "detection shown", "tokenizer shown"}
    text = (page.parent / "comparison.md").read_text()
    for picture in re.findall(r"\]\((.*?\.png)\)", text):
        assert (page.parent / picture).read_bytes().startswith(b"\x89PNG")
    assert "denoising: last logged values" in text


def test_the_table_of_trainings_has_the_last_logged_values(zoo):
    found, page, _ = zoo
    (tokens,) = (training for training in found.trainings if "next token" in training.title)
    table = tokens.table()
    assert table.columns == ("figure", "next_token_tiny", "regression_tiny")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["train/loss"] == (f"{1 / 5:.4g}", f"{1 / 6:.4g}")  # seeds 1 and 2, step 3
    assert rows["train/regression_loss"] == ("-", f"{1 / 6:.4g}")
    content = json.loads((page.parent / "comparison.json").read_text())
    figures = {method["name"]: method["figures"] for method in content["methods"]}
    assert figures["detection_tiny"]["training/validation/loss"]["values"] == [1 / 8]
    assert figures["detection_tiny"]["detection/NDS"]["values"] == [0.2]


def test_differences_have_one_column_a_run(zoo):
    found, _, _ = zoo
    keys = configuration(found.members)
    assert {"objective.type", "model.type", "seed"} <= set(keys)
    assert not {"model.width", "optim.lr", "run.dir", "trainer.max_steps"} & set(keys)
    assert keys["objective.type"][[run.variant for run in found.members].index("detection_tiny")] == "free_anchor"
    made = making(found.members)
    assert made["samples per second (median)"] == [11.5] * len(found.members)
    assert set(made["commit"]) == {None, "c0", "c1", "c2", "c3", "c4", "c6"}
    assert "multimodal_zoo" in made  # the unfinished run does not say


def test_pictures_are_made_small_and_bounded(zoo, monkeypatch):
    found, _, place = zoo
    ((name, sheet),) = found.gallery.shown["samples"]
    assert name == "runs/next_token"
    assert Image.open(io.BytesIO(sheet.png)).size == (1000, 250)
    monkeypatch.setattr(comparison_pictures, "WHOLE", 100)
    assert comparison_pictures.gallery(found.members).left_out == 3
    assert "3 more pictures" in comparison_pictures.gallery(found.members).html()
    monkeypatch.undo()
    monkeypatch.setattr(comparison_pictures, "LARGEST", 1999 * 500)
    problems = comparison_pictures.gallery(find_runs([place / "runs/next_token"])).problems
    assert problems == ["runs/next_token: picture step_2.png is left out (2000 x 500 pixels)"]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    (problem,) = comparison_pictures.gallery(find_runs([place / "runs/next_token"])).problems
    assert "could be decompression" in problem


def test_seeds_of_a_sweep_without_evaluations(tmp_path):
    for number, (lr, seed) in enumerate((lr, seed) for lr in (0.1, 0.2) for seed in (0, 1)):
        train(tmp_path / "sweep" / str(number), "decoder", seed=seed, lr=lr)
    found = collect([tmp_path / "sweep"])
    assert [(method.name, len(method.runs)) for method in found.methods] == [
        ("decoder_tiny, lr=0.1", 2), ("decoder_tiny, lr=0.2", 2)
    ]  # fmt: skip
    assert found.columns[0] == ("training", "validation/loss")
    assert found.methods[0].estimate("training", "validation/loss").values == (1 / 4, 1 / 5)
    assert collect([tmp_path], by=["seed"], figures=["train/loss"]).columns == (("training", "train/loss"),)


def test_unfinished_runs_stand_beside_finished_ones(tmp_path):
    train(tmp_path / "done")
    train(tmp_path / "killed", steps=2, finished=False)
    (tmp_path / "waiting/checkpoints").mkdir(parents=True)
    (tmp_path / "waiting/config.yaml").write_text("model: {card: {name: contrastive_tiny}}\n")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.yaml").write_text("{}")
    with (tmp_path / "killed/metrics.csv").open("a") as file:
        file.write("2,0.0000")
    found = collect([tmp_path])
    states = {run.folder.name: run.state for run in found.members}
    assert states == {
        "done": "trained", "killed": "unfinished, step 1 of 4", "waiting": "started, nothing logged yet"
    }  # fmt: skip
    assert found.remarks[-1] == "1 run folder has no results yet: begun"
    assert "unfinished, step 1 of 4" in found.html()


def test_stages_are_runs_of_their_own(tmp_path):
    train(tmp_path / "whole/first", "tokenizer")
    train(tmp_path / "whole/second", "next_token")
    (tmp_path / "whole/train.log").write_text("")
    (tmp_path / "whole/report.json").write_text("{}")
    assert [run.folder.name for run in find_runs([tmp_path / "whole"])] == ["first", "second"]


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "fused/records").mkdir(parents=True)
    (tmp_path / "fused/manifest.engine.json").write_text("{}")
    (tmp_path / "fused/report.html").write_text("")
    with pytest.raises(FileNotFoundError, match=r"fused: no results there: it is a folder of mmzoo fuse.*metrics\.csv"):
        find_runs([tmp_path / "fused"])
    with pytest.raises(NotADirectoryError, match=r"report\.html is a file; name the run's folder"):
        find_runs([tmp_path / "fused/report.html"])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("metrics.csv", b"ste"),
        ("metrics.csv", b"step,train/loss\n1,\xff\xfe\n"),
        ("metrics.csv", b'step,train/loss\n1,"0.5\n'),
        ("metrics.csv", b"step,a\nnan,1\ninf,2\n1e400,3\n"),
        ("run.json", b'{"variant": "x", "environ'),
        ("run.json", b"\xff\xfe\x00"),
        ("run.json", b'[1, 2, "environment"]'),
        ("run.json", b'{"variant": [1], "environment": [2], "choices": 3, "model": "x", "seconds": {}}'),
        ("run.json", b"[" * 100_000),
        ("config.yaml", b"model: {a: [1"),
        ("config.yaml", b"\xff"),
        ("config.yaml", b"- 1\n- 2\n"),
        ("config.yaml", b"trainer: [1]\nmodel: {card: 7}\nobjective: {parts: {1: 2}}\nevaluation: [3]\n"),
        ("config.yaml", b"seed: [[]]\noptim: !!set {a, b}\nmodel: {x: 2001-01-01, y: !!binary aGk=}\n"),
        ("run.json", b'{"choices": {"objective": ["x"], "model": {"y": 1}}, "environment": {"python": [3]}}'),
        ("metrics.csv", b"step,train/loss\nx,y\n,\n"),
        ("config.yaml", b"!!python/object/apply:os.system ['true']\n"),
        ("config.yaml", LAUGHS),
        ("config.yaml", b"a: &a\n  b: *a\n"),
        ("suite.json", b'{"order": ["a"]'),
        ("suite.json", b"{}"),
        ("evaluation/a.json", b'{"name": "a", "metr'),
        ("evaluation/a.json", result(metrics=[], details=[])),
        ("evaluation/a.json", result(metrics={"x": "1", "y": True, "z": 2}, headline=["x"])),
    ],
)  # fmt: skip
def test_a_damaged_file_costs_a_remark_and_nothing_else(tmp_path, monkeypatch, file, content):
    train(tmp_path / "good")
    bad = train(tmp_path / "bad", seed=1)
    Result("a", {"top1": 0.5}, headline=("top1",)).save(bad / "evaluation")
    (bad / file).write_bytes(content)
    (tmp_path / "s.png").write_bytes(png())
    found = collect([tmp_path])
    names = {run.folder.name for run in found.members}
    assert names == {"good", "bad"}
    assert found.overviews()
    assert found.json()
    assert not found.gallery.shown
    damaged = [remark for remark in found.remarks if "damaged" in remark]
    assert all(str(tmp_path) not in remark and len(remark) < 400 for remark in damaged)
    assert damaged or content.startswith(READABLE)


def test_names_with_markup_are_text(tmp_path):
    run = train(tmp_path / HOSTILE.replace("/", ""), columns=[HOSTILE])
    about = {"variant": HOSTILE, "weights": HOSTILE, "environment": {HOSTILE: HOSTILE}, "command": HOSTILE}
    (run / "run.json").write_text(json.dumps(about))
    table = Table(HOSTILE, (HOSTILE,), [(HOSTILE + "\nx",)])
    picture = {HOSTILE: Picture(png(), HOSTILE)}
    Result("a", {HOSTILE: 0.5}, [table], {}, {"attribution": [HOSTILE]}, (HOSTILE,)).save(run / "evaluation")
    content = json.loads((run / "evaluation/a.json").read_text())
    content["figures"] = {HOSTILE: {"file": "a_x.png", "caption": HOSTILE}}
    (run / "evaluation/a.json").write_text(json.dumps(content))
    (run / "evaluation/a_x.png").write_bytes(picture[HOSTILE].png)
    other = train(tmp_path / "other", seed=1)
    (other / "config.yaml").write_text(yaml.safe_dump({"seed": 1, HOSTILE: HOSTILE}))
    found = collect([tmp_path], title=HOSTILE)
    References(found.html())
    assert "<img src=x" not in found.html()
    assert "<img src=x" not in found.markdown()


def test_thirty_runs_are_drawn_within_bounds(tmp_path, capsys):
    noise = random.Random(0)
    for number in range(30):
        folder = train(tmp_path / "runs" / f"{number:02}", seed=number % 3, lr=round(0.1 + number // 3, 1), steps=3)
        grid = {"grid": Picture(png(), "grid")}
        Result("zero_shot", {"top1": noise.random()}, [], grid, {}, ("top1",)).save(folder / "evaluation")
    assert main([str(tmp_path / "runs"), f"out={tmp_path / 'out'}"]) == 0
    page = (tmp_path / "out/comparison.html").read_text()
    assert len(page) < 3 << 20
    assert page.count("data:image/png") == 2 + 30
    assert "10 methods, 30 runs" in page
    assert "contrastive_tiny, lr=9.1" in capsys.readouterr().out
    (table,) = (training.table() for training in collect([tmp_path / "runs"]).trainings)
    assert (table.columns[0], len(table.rows)) == ("method", 10)
    assert all(base64.b64decode(data) for data in re.findall(r"base64,([\w+/=]+)", page))


def test_a_run_knows_its_state(tmp_path):
    train(tmp_path / "a", steps=0, finished=False)
    run = Run.load(tmp_path / "a")
    assert (run.step, run.state, run.finals()) == (None, "started, nothing logged yet", None)


def test_a_single_row_is_drawn(tmp_path):
    train(tmp_path / "a", steps=1)
    (training,) = collect([tmp_path], by=["seed"]).trainings
    assert training.picture().png.startswith(b"\x89PNG")


def test_thinning_keeps_the_last_point():
    line = ([float(n) for n in range(2503)], [float(-n) for n in range(2503)])
    steps, values = thin(line)
    assert len(steps) <= 1000
    assert (steps[-1], values[-1]) == (2502.0, -2502.0)
    assert len({b - a for a, b in pairwise(steps)}) == 1
    assert thin(([], [])) == ([], [])
    assert thin(([1.0], [2.0])) == ([1.0], [2.0])


def test_telling_columns_come_first():
    names = ["train/usage", "train/loss_weight", "train/text_loss", "x/R@1", "train/loss", "train/accuracy"]
    assert sorted(names, key=telling) == [
        "train/loss", "train/text_loss", "x/R@1", "train/accuracy", "train/usage", "train/loss_weight"
    ]  # fmt: skip


def test_groups_are_joined_by_chains():
    found = connected([("a", {"1"}), ("b", {"2"}), ("c", {"3"}), ("d", {"1", "3"}), ("e", set())])
    assert found == [(["a", "c", "d"], {"1", "3"}), (["b"], {"2"})]


def test_only_a_mapping_is_a_configuration(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    assert read_yaml(tmp_path / "config.yaml") == {}
