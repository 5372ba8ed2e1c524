import base64
import json
import re
from html.parser import HTMLParser

import pytest
import torch

from multimodal_zoo.data.skips import Skips
from multimodal_zoo.evaluation.environment import commit, config_hash, fingerprint, record_run
from multimodal_zoo.evaluation.history import panels, read_history, read_metrics
from multimodal_zoo.evaluation.outcome import load_results
from multimodal_zoo.evaluation.report import write_report
from multimodal_zoo.evaluation.result import Picture, Result, Table, show
from multimodal_zoo.evaluation.retrieval import Retrieval
from multimodal_zoo.evaluation.suite import run_suite
from multimodal_zoo.registry import EVALUATORS

CALLS = []


@EVALUATORS.register_module(name="counting_evaluator")
class Counting:
    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, model, processor, device):
        CALLS.append(self.value)
        if self.value < 0:
            raise ValueError("broken on purpose")
        return Result("x", {"top1": self.value}, headline=("top1",))


class References(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [value for key, value in attrs if key in ("src", "href", "srcset", "data", "action")]


@pytest.fixture
def config():
    return {
        "a": {"type": "counting_evaluator", "value": 0.25},
        "b": {"type": "counting_evaluator", "value": 0.5},
    }


@pytest.fixture(autouse=True)
def _no_calls():
    CALLS.clear()


def test_result_round_trip(tmp_path):
    table = Table("t", ("name", "value"), [("a|b", 0.12345), ("<c>", 7)])
    result = Result("r", {"top1": 0.5}, [table], {"grid": Picture(b"\x89PNG", "a & b")}, {"n": 3}, ("top1",))
    loaded = Result.load(result.save(tmp_path))
    assert loaded.json() == result.json()
    assert loaded.figures == result.figures
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "r.md", "r_grid.png"]
    assert "| a\\|b | 0.123 |" in (tmp_path / "r.md").read_text()
    html = result._repr_html_()
    assert "&lt;c&gt;" in html
    assert base64.b64encode(b"\x89PNG").decode() in html


def test_result_refuses_what_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match="row 0 has 1 cells for 2"):
        Table("t", ("a", "b"), [("x",)])
    with pytest.raises(ValueError, match=r"headline names \['top1'\]"):
        Result("r", {}, headline=("top1",))
    for damaged in (b"{}", b"[]", b"\xff", b'{"figures": []}'):
        (tmp_path / "r.json").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"r.json is damaged or no saved evaluation result .*; delete it"):
            Result.load(tmp_path / "r.json")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run.json is damaged or no record of a run .*; delete it"):
        write_report(tmp_path)


def test_show():
    assert [show(v) for v in (0.5, 12345.678, 7, "x", float("nan"))] == ["0.500", "12,345.7", "7", "x", "nan"]


def test_suite_goes_on_where_it_stopped(model, processor, cpu, tmp_path, config):
    broken = {**config, "b": {"type": "counting_evaluator", "value": -1.0}}
    with pytest.raises(ValueError, match="broken on purpose") as error:
        run_suite(model, processor, broken, tmp_path, cpu)
    assert "in evaluation 'b'" in "".join(getattr(error.value, "__notes__", ["in evaluation 'b'"]))
    assert set(load_results(tmp_path)) == {"a"}
    results = run_suite(model, processor, config, tmp_path, cpu)
    assert CALLS == [0.25, -1.0, 0.5]
    assert {name: r.metrics["top1"] for name, r in results.items()} == {"a": 0.25, "b": 0.5}
    assert results["a"].name == "a"


def test_suite_repeats_what_changed(model, processor, cpu, tmp_path, config):
    run_suite(model, processor, config, tmp_path, cpu)
    run_suite(model, processor, {**config, "a": {"type": "counting_evaluator", "value": 0.3}}, tmp_path, cpu)
    assert CALLS == [0.25, 0.5, 0.3]
    with torch.no_grad():
        model.colour.weight.add_(0.1)
    run_suite(model, processor, {"b": config["b"], "off": None}, tmp_path, cpu)
    assert CALLS == [0.25, 0.5, 0.3, 0.5]
    (tmp_path / "evaluation/b.json").write_text("not json")
    run_suite(model, processor, {"b": config["b"]}, tmp_path, cpu)
    assert CALLS[-2:] == [0.5, 0.5]


def test_suite_takes_built_evaluators_and_omegaconf(model, processor, cpu, tmp_path, config):
    from omegaconf import OmegaConf

    run_suite(model, processor, {"a": Counting(0.1)}, tmp_path, cpu)
    run_suite(model, processor, {"a": Counting(0.1)}, tmp_path, cpu)
    run_suite(model, processor, OmegaConf.create(config), tmp_path, cpu)
    run_suite(model, processor, config, tmp_path, cpu)
    assert CALLS == [0.1, 0.1, 0.25, 0.5]


def test_suite_errors(model, processor, cpu, tmp_path):
    with pytest.raises(ValueError, match="nothing to evaluate"):
        run_suite(model, processor, {}, tmp_path, cpu)
    with pytest.raises(ValueError, match=r"'\.\./a' names files"):
        run_suite(model, processor, {"../a": Counting(0.1)}, tmp_path, cpu)


def test_fingerprint_and_hash(model):
    before = fingerprint(model)
    assert before == fingerprint(model)
    with torch.no_grad():
        model.colour.bias[3] += 1e-4
    assert fingerprint(model) != before
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1}) != config_hash({"a": 1, "b": 3})


def test_report_is_one_file_without_references(model, processor, squares, cpu, tmp_path):
    model.config = {"type": "tiny", "card": {"system": "CLIP", "paper": "https://example.org/<paper>"}}
    model.weights = "trained here"
    record_run(tmp_path, model, command="mmzoo train quickstart")
    (tmp_path / "config.yaml").write_text("seed: 0\nname: <script>alert(1)</script>\n")
    rows = "\n".join(f"{step},{3 / (step + 1)},,{step}" for step in range(100))
    (tmp_path / "metrics.csv").write_text(f"step,train/loss,validation/loss,samples_per_second\n{rows}\n50,,1.5,\n")
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/step_000100.png").write_bytes(b"\x89PNG")
    run_suite(model, processor, {"squares": Retrieval(squares(), concept="concept")}, tmp_path, cpu)
    html = write_report(tmp_path, title="Tiny <run>").read_text()
    parser = References()
    parser.feed(html)
    assert len(parser.found) > 4
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in parser.found)
    assert not {"script", "link", "iframe", "object"} & set(parser.tags)
    assert not re.search(r"@import|url\(", html)
    for text in ("Tiny &lt;run&gt;", "mmzoo train quickstart", "squares: drawn by the tests", "trained here"):
        assert text in html
    for anchor in (link for link in parser.found if link.startswith("#")):
        assert f'id="{anchor[1:]}"' in html
    assert "prefers-color-scheme: dark" in html
    summary = json.loads((tmp_path / "report.json").read_text())
    assert summary["evaluations"]["squares"]["text_to_image_R@1"] > 0
    markdown = (tmp_path / "report.md").read_text()
    for name in re.findall(r"\]\((.+?)\)", markdown):
        assert (tmp_path / name).is_file()


def test_report_of_an_unfinished_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="to report on"):
        write_report(tmp_path)
    (tmp_path / "metrics.csv").write_text("step,train/loss\n1,2.0\n")
    assert "Training curves" in write_report(tmp_path).read_text()


def test_history(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train/loss,validation/loss,note\n0,1,2.0,,\n0,2,1.0,3.0,x\n")
    history = read_history(path)
    assert history == {"train/loss": ([1.0, 2.0], [2.0, 1.0]), "validation/loss": ([2.0], [3.0])}
    assert read_metrics(path)[1] == {"epoch": 0, "step": 2, "train/loss": 1.0, "validation/loss": 3.0}
    path.write_text(path.read_text() + "0,3,0.")  # cut by a kill
    assert read_history(path) == history
    assert panels(history) == {"loss": {"train": history["train/loss"], "validation": history["validation/loss"]}}
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column 'step'"):
        read_history(path)


def test_samples_that_training_left_out_are_named(model, tmp_path):
    skips = Skips()
    for name in ("a.jpg", "<b>.jpg"):
        skips.add("broken image", name)
    record_run(tmp_path, model, left_out={"data.train": skips})
    html = write_report(tmp_path).read_text()
    assert "Samples left out" in html
    assert "a.jpg, &lt;b&gt;.jpg" in html
    assert "| data.train | broken image | 2 | a.jpg, &lt;b>.jpg |" in (tmp_path / "report.md").read_text()
    assert '"broken image": [' in (tmp_path / "report.json").read_text()
    record_run(tmp_path, model)
    assert "left out" not in write_report(tmp_path).read_text()


def test_the_commit_of_a_checkout(tmp_path):
    assert commit(tmp_path) is None
    (tmp_path / "pyproject.toml").touch()
    git = tmp_path / ".git"
    (git / "refs/heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert commit(tmp_path) is None
    (git / "packed-refs").write_text(f"# pack-refs with: peeled\n{'ab' * 20} refs/heads/main\n")
    assert commit(tmp_path) == "ab" * 6
    (git / "refs/heads/main").write_text("cd" * 20 + "\n")
    assert commit(tmp_path) == "cd" * 6
    (git / "HEAD").write_text("ef" * 20 + "\n")
    assert commit(tmp_path) == "ef" * 6
