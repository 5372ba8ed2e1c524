"""EVA-CLIP's suites as a user runs them, on small sets in CLIP_benchmark's layout and a small model."""

from __future__ import annotations

import functools
import http.server
import io
import json
import shutil
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal_zoo.commands import eval as eval_command
from multimodal_zoo.config import compose
from multimodal_zoo.data.prompts import packaged_prompts

pytest.importorskip("clip_benchmark")
pytestmark = pytest.mark.usefixtures("pixels")


def picture(generator, width, height):
    buffer = io.BytesIO()
    content = generator.integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
    Image.fromarray(content).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for suffix, content in files.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def write_set(folder, labels, seed, sides=((64, 48), (48, 64), (48, 48))):
    """One shard of random pictures; also one that is broken."""
    generator = np.random.default_rng(seed)
    samples = {
        f"s{n:04d}": {"png": picture(generator, *sides[n % len(sides)]), "cls": str(label).encode()}
        for n, label in enumerate(labels)
    }
    samples["z"] = {"png": b"broken", "cls": b"0"}
    write_tar(folder / "test/0.tar", samples)
    (folder / "test/nshards.txt").write_text("1\n")


def write_captions(folder, images, captions, seed):
    generator = np.random.default_rng(seed)
    texts = [[f"number {n} of set {seed}, said {c} times" for c in range(captions)] for n in range(images)]
    samples = {
        f"s{n:04d}": {"png": picture(generator, 60, 48), "txt": "\n".join(texts[n]).encode()} for n in range(images)
    }
    write_tar(folder / "test/0.tar", samples)
    (folder / "test/nshards.txt").write_text("1\n")
    (folder / "dataset_type.txt").write_text("retrieval\n")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four classification sets and both retrieval sets."""
    root = tmp_path_factory.mktemp("suite")
    generator = np.random.default_rng(7)
    write_set(root / "wds_voc2007", generator.integers(0, 20, 30).tolist(), 1)
    write_set(root / "wds_mnist_test", generator.integers(0, 10, 20).tolist(), 2)
    write_set(root / "wds_imagenet-a", generator.integers(0, 200, 12).tolist(), 3)
    write_set(root / "wds_imagenet-r", generator.integers(0, 200, 12).tolist(), 4)
    for name in ("imagenet-a", "imagenet-r"):  # all 80 templates of 200 names would take seconds
        (root / f"wds_{name}/zeroshot_classification_templates.txt").write_text("a photo of a {c}.\nart of the {c}.\n")
    write_captions(root / "wds_flickr30k", 11, 5, 5)
    write_captions(root / "wds_mscoco_captions", 9, 7, 6)
    return root


def run(benchmark, root, out, *more, model="eva_clip_tiny"):
    overrides = [f"benchmark={benchmark}", f"benchmark_root={root}", f"run.dir={out}", f"model={model}"]
    eval_command.run(compose("base/eval", [*overrides, "allow_random=true", *more]))
    (folder,) = out.iterdir()
    return folder


def load(folder, name):
    return json.loads((folder / f"evaluation/{name}.json").read_text())


@pytest.fixture(scope="module")
def evaluated(root, tmp_path_factory):
    return run("eva_clip", root, tmp_path_factory.mktemp("out"))


def test_whole_suite_in_one_command(evaluated):
    names = {path.stem for path in (evaluated / "evaluation").glob("*.json") if not path.stem.startswith("table")}
    assert names == {"voc2007", "mnist", "imagenet_a", "imagenet_r", "flickr30k", "coco"}
    voc = load(evaluated, "voc2007")
    assert voc["details"]["images"] == 30
    assert voc["details"]["classes"] == 20
    assert voc["details"]["skipped"] == "1 skipped: broken image 1 (z)"
    assert voc["details"]["prompts"] == "names: clip-benchmark; templates: clip-benchmark"
    assert "templates: beside the data" in load(evaluated, "imagenet_a")["details"]["prompts"]
    metrics = voc["metrics"]
    assert metrics["top1"] == max(metrics["shorter_crop_top1"], metrics["squash_top1"])
    assert metrics["mean_per_class"] == metrics[f"{voc['details']['resize']}_mean_per_class"]


def test_mean_covers_what_was_run_and_says_so(evaluated):
    table = load(evaluated, "table_zero_shot")
    found = [load(evaluated, n)["metrics"]["top1"] for n in ("imagenet_a", "imagenet_r", "mnist", "voc2007")]
    assert table["metrics"] == {"rows": 4, "rows_of_the_table": 27, "mean": pytest.approx(sum(found) / 4)}
    rows = {row[0]: row for row in table["tables"][0]["rows"]}
    assert rows["mean of 4 of 27"][1] == f"{100 * sum(found) / 4:.1f}"
    assert rows["voc2007"][4] == "30 (of 4,952)"
    assert "cars" not in rows  # what is absent is listed once, below all tables
    assert (
        table["tables"][0]["title"] == "zero-shot classification, 27 sets, top-1: ours, per cent"
    )  # nothing published
    absent = table["details"]["absent"]
    assert absent.startswith("imagenet1k, imagenet_v2, imagenet_sketch, objectnet, cifar10")
    assert "mnist" not in absent
    markdown = (evaluated / "report.md").read_text()
    assert "| mean of 4 of 27 |" in markdown
    assert "mean of 4 of 27" in (evaluated / "report.html").read_text()
    places = [
        markdown.index(text) for text in ("27 sets, top-1", "retrieval", "**left out**", "**overview**", "## mnist")
    ]
    assert places == sorted(places)
    assert markdown.count("cars") == 1
    assert "| absent | cifar10, cifar100, caltech101, " in markdown


def test_a_malformed_set_does_not_stop_the_others(root, tmp_path, capsys):
    shutil.copytree(root, tmp_path / "root")
    names = tmp_path / "root/wds_voc2007/classnames.txt"
    names.write_text("cat\ndog\n")
    only = "only=[voc2007,mnist,cars]"
    with pytest.raises(eval_command.UnfinishedError, match=r"1 evaluation failed.*\n  voc2007: .*has 2 classes"):
        run("eva_clip_27", tmp_path / "root", tmp_path / "out", only)
    assert "mean of 1 of 27" in capsys.readouterr().out
    (folder,) = (tmp_path / "out").iterdir()
    assert load(folder, "table_zero_shot")["details"]["absent"] == "cars, voc2007"
    markdown = (folder / "report.md").read_text()
    assert "| failed | voc2007 | benchmark set 'voc2007' in " in markdown
    assert "| absent | cars | the data is not there |" in markdown
    kept = (folder / "evaluation/mnist.json").stat().st_mtime_ns
    names.unlink()
    run("eva_clip_27", tmp_path / "root", tmp_path / "out", only)
    assert (folder / "evaluation/mnist.json").stat().st_mtime_ns == kept
    assert load(folder, "table_zero_shot")["metrics"]["rows"] == 2
    assert "| failed |" not in (folder / "report.md").read_text()
    names.write_text("cat\ndog\n")
    with pytest.raises(ValueError, match="has 2 classes"):  # nothing is left to report on
        run("eva_clip_27", tmp_path / "root", tmp_path / "other", "only=[voc2007]")


def test_retrieval_uses_five_captions_and_squash(evaluated):
    coco, table = load(evaluated, "coco"), load(evaluated, "table_retrieval")
    assert (coco["details"]["texts"], coco["details"]["resize"]) == (45, "squash")
    twelve = [
        load(evaluated, name)["metrics"][f"{direction}_R@{k}"]
        for name in ("flickr30k", "coco")
        for direction in ("image_to_text", "text_to_image")
        for k in (1, 5, 10)
    ]
    assert table["metrics"]["mean"] == pytest.approx(sum(twelve) / 12)
    assert table["tables"][0]["rows"][-1][0] == "mean of all 12"


def test_robustness_needs_all_of_its_sets(evaluated):
    table = load(evaluated, "table_robustness")
    assert table["metrics"] == {}
    assert table["details"]["absent"] == "imagenet1k, imagenet_v2, imagenet_sketch, objectnet"
    assert table["tables"] == []


def test_class_vectors_are_shared(evaluated):
    """ImageNet-A and -R share templates: one file with the union of their names."""
    from safetensors import safe_open

    counts = []
    for path in (evaluated / "class_vectors").iterdir():
        with safe_open(path, "pt") as file:
            counts.append(len(json.loads(file.metadata()["names"])))
    a, r = (set(packaged_prompts(name).names) for name in ("imagenet-a", "imagenet-r"))
    assert sorted(counts) == [10, 20, len(a | r)]
    assert len(a | r) < 400


def test_interrupted_suite_goes_on(root, tmp_path, monkeypatch):
    from multimodal_zoo.evaluation.zero_shot import ZeroShotClassification

    whole = ZeroShotClassification.__call__

    def interrupted(self, *arguments):
        if self.dataset.title == "imagenet-a":
            raise KeyboardInterrupt
        return whole(self, *arguments)

    monkeypatch.setattr(ZeroShotClassification, "__call__", interrupted)
    only = "only=[mnist,imagenet_a,voc2007]"
    with pytest.raises(KeyboardInterrupt):
        run("eva_clip_27", root, tmp_path, only)
    monkeypatch.undo()
    (folder,) = tmp_path.iterdir()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*/*") if path.is_file()}
    assert {path.stem for path in kept if path.suffix == ".json"} == {"mnist", "voc2007"}
    calls = []
    monkeypatch.setattr(
        "multimodal_zoo.evaluation.class_vectors.build_classifier",
        lambda *a, **k: calls.append(len(a[2])) or _build(*a, **k),
    )
    run("eva_clip_27", root, tmp_path, only)
    assert calls == [200]  # ImageNet-A's names alone
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert load(folder, "table_zero_shot")["metrics"]["rows"] == 3
    run("eva_clip_27", root, tmp_path, "only=[imagenet_r]")  # what earlier runs measured stays in the table
    assert load(folder, "table_zero_shot")["metrics"]["rows"] == 4


def _build(*arguments, **options):
    from multimodal_zoo.evaluation.class_vectors import class_means

    model, processor, names, templates, batch_size = arguments
    prompts = [[template.replace("{c}", name).replace("{}", name) for template in templates] for name in names]
    return class_means(model, processor, prompts, batch_size, **options)


@pytest.fixture
def address(root, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            if self.server.fails and "wds_mnist/" in self.path:
                self.send_error(503)
            elif self.server.cuts and self.path.endswith(".tar"):
                self.send_response(200)
                self.send_header("Content-Length", "10000000")
                self.end_headers()
                content = (Path(self.directory) / self.path.lstrip("/")).read_bytes()
                self.wfile.write(content[: len(content) * 2 // 3])
            else:
                super().do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    server.fails = server.cuts = False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_http_source_gives_the_same_figures(address, evaluated, tmp_path):
    url = f"http://127.0.0.1:{address.server_port}"
    folder = run("eva_clip_27", url, tmp_path / "a", "only=[mnist,voc2007,cars]")
    for name in ("mnist", "voc2007"):
        assert load(folder, name)["metrics"] == load(evaluated, name)["metrics"]
    assert load(folder, "table_zero_shot")["details"]["absent"] == "cars"
    folder = run("eva_clip_27", f"'{url}/wds_{{}}'", tmp_path / "b", "only=[voc2007]")
    assert load(folder, "voc2007")["metrics"] == load(evaluated, "voc2007")["metrics"]


def test_a_server_in_trouble_is_no_absent_set(address, tmp_path):
    address.fails = True
    with pytest.raises(ConnectionError, match=r"benchmark_root: .*wds_mnist/test/nshards.txt answers 503"):
        run("eva_clip_27", f"http://127.0.0.1:{address.server_port}", tmp_path, "only=[mnist]")
    with pytest.raises(ConnectionError, match="cannot be reached"):
        run("eva_clip_27", "http://127.0.0.1:9", tmp_path, "only=[mnist]")


def test_a_shard_that_breaks_off_is_no_result(address, tmp_path):
    address.cuts = True
    with pytest.raises(ConnectionError, match=r"wds_voc2007 did not come whole: .*truncated or damaged tar 1"):
        run("eva_clip_27", f"http://127.0.0.1:{address.server_port}", tmp_path, "only=[voc2007]")
    assert not list(tmp_path.glob("*/evaluation/*.json"))


def test_bad_roots_and_names(root, tmp_path):
    with pytest.raises(ValueError, match="benchmark_root: where are the data sets"):
        run("eva_clip_27", "null", tmp_path)
    with pytest.raises(FileNotFoundError, match="benchmark_root: no folder"):
        run("eva_clip_27", tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"the data of no evaluation is there \(cifar10, .*none of wds_cifar10,"
    ):
        run("eva_clip_27", tmp_path / "empty", tmp_path)
    with pytest.raises(KeyError, match="only: no evaluation named 'imagenetv2'; closest: imagenet_v2"):
        run("eva_clip_27", root, tmp_path, "only=[imagenetv2]")


def test_videos_below_the_root(tmp_path):
    av = pytest.importorskip("av")
    generator = np.random.default_rng(0)
    for number, name in enumerate(("ApplyLipstick", "YoYo") * 3):
        path = tmp_path / f"root/ucf101/test/{name}/{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
            for content in generator.integers(0, 255, (9, 64, 80, 3), dtype=np.uint8):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(content, format="rgb24")))
            container.mux(stream.encode())
    more = [f"+benchmark.ucf101_{n}.dataset.classes=2" for n in (1, 8, 16)]
    more = [change.removeprefix("+") for change in more]
    folder = run("eva_clip_video", tmp_path / "root", tmp_path / "out", *more)
    for frames in (1, 8, 16):
        result = load(folder, f"ucf101_{frames}")
        assert (result["details"]["images"], result["details"]["classes"]) == (6, 2)
        assert "squash_top1" in result["metrics"]
    table = load(folder, "table_video")
    assert table["metrics"]["rows"] == 1
    assert table["details"]["absent"] == "kinetics400_1, kinetics600_1, kinetics700_1"


def test_published_column_of_the_cards_model(root, tmp_path):
    """A model whose card names a published variant gets its column."""
    folder = run("eva_clip_27", root, tmp_path, "only=[voc2007,mnist]", "model.card.name=eva_clip_18b")
    zero_shot = load(folder, "table_zero_shot")
    main, crop, squash = zero_shot["tables"][:3]
    rows = {row[0]: row for row in main["rows"]}
    ours = load(folder, "voc2007")["metrics"]
    assert rows["voc2007"][1:4] == ["85.8", f"{100 * ours['top1']:.1f}", f"{100 * ours['top1'] - 85.8:+.1f}"]
    assert rows["mean of 2 of 27"][1] == f"{(85.8 + 83.0) / 2:.1f}"
    published = {table["title"].split(",")[0]: {r[0]: r for r in table["rows"]} for table in (crop, squash)}
    assert published["zero-shot classification with shorter_crop"]["voc2007"][1] == "82.4"
    assert published["zero-shot classification with squash"]["voc2007"][1] == "85.8"
    assert Path(folder / "report.html").is_file()
