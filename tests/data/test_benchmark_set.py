from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from multimodal_zoo.data.benchmark_set import AbsentDataError, BenchmarkSet, check_root
from multimodal_zoo.data.prompts import difference, known_sets, packaged_prompts, subset_numbers
from multimodal_zoo.data.skips import Skips

MakeTar = Callable[..., Path]


def test_imagenet_prompts_are_open_clips_and_clip_benchmarks() -> None:
    builder = pytest.importorskip("clip_benchmark.datasets.builder")
    import json

    folder = Path(builder.__file__).parent
    names = json.loads((folder / "en_classnames.json").read_text())
    templates = json.loads((folder / "en_zeroshot_classification_templates.json").read_text())
    for name in ("imagenet1k", "imagenetv2", "imagenet_sketch"):
        found = packaged_prompts(name)
        assert list(found.names) == names["imagenet1k"]
        assert list(found.templates) == templates["imagenet1k"]
        assert found.source == "open_clip"
    assert packaged_prompts("objectnet").names == ()
    assert packaged_prompts("objectnet").templates == packaged_prompts("imagenet1k").templates


@pytest.mark.parametrize("name", ["imagenet-a", "imagenet-r"])
def test_imagenet_subsets_are_clip_benchmarks(name: str) -> None:
    builder = pytest.importorskip("clip_benchmark.datasets.builder")
    # the list of synsets is local to its function: read it from the source
    found = re.search(rf"{name.replace('-', '_')}_wnids = [\[{{](.*?)[\]}}]", inspect.getsource(builder.build_dataset))
    assert found
    synsets = set(re.findall(r"n\d{8}", found[1]))
    expected = [n for n, synset in enumerate(builder.all_imagenet_wordnet_ids) if synset in synsets]
    assert subset_numbers(name) == expected
    assert len(expected) == 200
    everything = packaged_prompts("imagenet1k").names
    assert packaged_prompts(name).names == tuple(everything[number] for number in expected)


def test_other_prompts() -> None:
    pytest.importorskip("clip_benchmark")
    assert packaged_prompts("voc2007").names[:2] == ("aeroplane", "bicycle")
    assert len(packaged_prompts("caltech101").names) == 102
    cifar = packaged_prompts("cifar10")
    assert (cifar.names, len(cifar.templates), cifar.source) == ((), 18, "clip-benchmark")
    assert {"imagenet-a", "objectnet", "resisc45", "country211"} <= set(known_sets())
    with pytest.raises(KeyError, match=r"no evaluation set named 'caltech102'; closest: caltech101"):
        packaged_prompts("caltech102")


def test_missing_package(monkeypatch: pytest.MonkeyPatch, make_set: MakeTar) -> None:
    from multimodal_zoo.data import prompts

    prompts._clip_benchmark.cache_clear()
    monkeypatch.setitem(sys.modules, "clip_benchmark", None)
    monkeypatch.setitem(sys.modules, "clip_benchmark.datasets", None)
    with pytest.raises(ImportError, match="pip install clip-benchmark"):
        packaged_prompts("mnist")
    root = make_set("mnist", ["zero", "one"], ["{c}"]).parent
    assert BenchmarkSet("mnist", str(root), classes=2).classnames == ["zero", "one"]  # complete without it


def test_differences_in_a_line() -> None:
    assert difference(["a", "b"], ["a", "b"], "names") == ""
    assert difference(["a", "b"], ["a", "c"], "names").startswith("1 of 2 names differ from the package's (first: 'b'")
    assert difference(["a"], ["a", "c"], "names") == "1 names beside the data, 2 in the package"


@pytest.fixture
def make_set(make_tar: MakeTar) -> MakeTar:
    """A set of four pictures in CLIP_benchmark's layout."""
    from io import BytesIO

    from PIL import Image

    def make(name: str, names: list[str] | None = None, templates: list[str] | None = None) -> Path:
        buffer = BytesIO()
        Image.new("RGB", (9, 9)).save(buffer, "PNG")
        members = [(f"{n}.{suffix}", c) for n in range(4) for suffix, c in (("png", buffer.getvalue()), ("cls", b"1"))]
        root = make_tar(f"root/{name}/test/0.tar", members).parents[1]
        (root / "test/nshards.txt").write_text("1")
        if names:
            (root / "classnames.txt").write_text("\n".join(names))
        if templates:
            (root / "zeroshot_classification_templates.txt").write_text("\n".join(templates))
        return root

    return make


@pytest.mark.parametrize("folder", ["wds_voc2007", "wds_voc2007_test", "voc2007"])
def test_names_and_templates_of_the_package(make_set: MakeTar, folder: str) -> None:
    pytest.importorskip("clip_benchmark")
    root = make_set(folder).parent
    data = BenchmarkSet("voc2007", str(root), classes=20, sizes=[4952])
    assert data.classnames[:2] == ["aeroplane", "bicycle"]
    assert data.templates == ["a photo of a {c}."]
    assert data.prompts == "names: clip-benchmark; templates: clip-benchmark"
    assert [document.meta["label"] for document in data] == [1] * 4
    assert isinstance(data.skips, Skips)
    pattern = f"{root}/{folder.replace('voc2007', '{}')}"
    assert BenchmarkSet("voc2007", pattern, classes=20).reader.root == f"{root}/{folder}"


def test_names_beside_the_data_win_and_are_compared(make_set: MakeTar) -> None:
    pytest.importorskip("clip_benchmark")
    names = [*packaged_prompts("voc2007").names[:19], "television"]
    data = BenchmarkSet("voc2007", str(make_set("voc2007", names, ["a {c}."]).parent), classes=20)
    assert data.classnames[-1] == "television"
    assert data.templates == ["a {c}."]
    assert "names: beside the data" in data.prompts
    assert "1 of 20 names differ from the package's (first: 'television'" in data.prompts
    assert "1 of 1 templates differ" in data.prompts


def test_vtab_sets_need_their_own_names(make_set: MakeTar) -> None:
    pytest.importorskip("clip_benchmark")
    root = make_set("wds_vtab-caltech101")
    with pytest.raises(ValueError, match=r"no class names; put classnames.txt there"):
        BenchmarkSet("caltech101", str(root.parent), classes=102)


def test_wrong_number_of_classes(make_set: MakeTar) -> None:
    root = make_set("wds_mnist", ["0", "1"], ["{c}"]).parent
    with pytest.raises(ValueError, match=r"wds_mnist has 2 classes, expected 10.*classnames.txt.*dataset.classes"):
        BenchmarkSet("mnist", str(root), classes=10)


def test_an_empty_line_among_the_names(make_set: MakeTar) -> None:
    root = make_set("wds_mnist", ["0", "", "1"], ["{c}"]).parent
    with pytest.raises(ValueError, match=r"classnames.txt: line 2 is empty"):
        BenchmarkSet("mnist", str(root), classes=2)


def test_unknown_name_and_sets_outside_of_packages(make_set: MakeTar) -> None:
    pytest.importorskip("clip_benchmark")
    with pytest.raises(KeyError, match="no evaluation set named 'voc2009'; closest: voc2007"):
        BenchmarkSet("voc2009", str(make_set("voc2009").parent), classes=20)
    with pytest.raises(ValueError, match=r"'birdsnap'.*no class names"):
        BenchmarkSet("birdsnap", str(make_set("birdsnap").parent), classes=500)
    root = make_set("birdsnap", ["wren", "owl"]).parent
    data = BenchmarkSet("birdsnap", str(root), classes=2, templates=["a {c}, a type of bird."])
    assert data.templates == ["a {c}, a type of bird."]
    assert data.prompts == "names: beside the data; templates: configuration"
    root = make_set("mine", ["wren", "owl"], ["{c}"]).parent
    assert BenchmarkSet("mine", str(root), classes=2).classnames == ["wren", "owl"]  # anyone's set, if complete


def test_class_folders_by_synset_get_imagenets_names(tmp_path: Path) -> None:
    builder = pytest.importorskip("clip_benchmark.datasets.builder")
    from PIL import Image

    for number in subset_numbers("imagenet-a"):
        folder = tmp_path / "imagenet-a/test" / builder.all_imagenet_wordnet_ids[number]
        folder.mkdir(parents=True)
        if number in (1, 105):
            Image.new("RGB", (8, 8)).save(folder / "a.png")
    data = BenchmarkSet("imagenet-a", str(tmp_path), classes=200)
    names = packaged_prompts("imagenet1k").names
    numbers = subset_numbers("imagenet-a")
    found = {data.classnames[document.meta["label"]] for document in data}
    assert found == {names[number] for number in (1, 105) if number in numbers}
    assert data.prompts == "names: open_clip; templates: open_clip"
    folder.rmdir()
    with pytest.raises(ValueError, match="has 199 classes, expected 200"):
        BenchmarkSet("imagenet-a", str(tmp_path), classes=200)


def test_captions_are_cut_to_the_first_five(make_tar: MakeTar) -> None:
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    captions = "\n".join(f"caption {n}" for n in range(7)).encode()
    members = [("a.png", buffer.getvalue()), ("a.txt", captions)]
    root = make_tar("root/wds_mscoco_captions/test/0.tar", members).parents[1]
    (root / "test/nshards.txt").write_text("1")
    (document,) = list(BenchmarkSet("mscoco_captions", str(root.parent), captions=5))
    assert document.meta["texts"] == [f"caption {n}" for n in range(5)]


def test_roots_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"benchmark_root: where are the data sets\?"):
        BenchmarkSet("mnist", None)
    with pytest.raises(FileNotFoundError, match=r"benchmark_root: no folder .*nowhere"):
        BenchmarkSet("mnist", str(tmp_path / "nowhere"))
    with pytest.raises(AbsentDataError, match=r"none of wds_mnist, wds_mnist_test, mnist, .* has test/nshards.txt"):
        BenchmarkSet("mnist", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no folder"):
        check_root(str(tmp_path / "nowhere/wds_{}"))
    assert check_root(str(tmp_path / "wds_{}")).endswith("wds_{}")


def test_sets_of_several_labels_are_refused(make_set: MakeTar) -> None:
    root = make_set("wds_voc2007")
    (root / "dataset_type.txt").write_text("multilabel\n")
    with pytest.raises(ValueError, match="several labels a picture"):
        BenchmarkSet("voc2007", str(root.parent), classes=20)
