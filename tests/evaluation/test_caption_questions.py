"""The published layouts of caption sets, made up small: what is read of them, and a whole evaluation of all four."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as Pil

import multimodal_zoo as zoo
from multimodal_zoo.data.documents import Text
from multimodal_zoo.evaluation import vqa
from multimodal_zoo.evaluation.caption_questions import CocoCaptions, KarpathyCaptions, TextcapsCaptions
from multimodal_zoo.evaluation.suite import run_suite

pytest.importorskip("pycocoevalcap")
WORDS = ("a red dog", "two blue birds fly", "a green bus in the street", "white cats")


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The four sets with 3 pictures each to be described, of 4."""
    sentences = [[{"raw": f"{text}."}, {"raw": text}] for text in WORDS]
    splits = ("test", "train", "test", "test")
    for name in ("coco", "flickr30k"):
        rows: list[dict[str, Any]] = [
            {"filename": f"{n}.jpg", "imgid": n, "split": splits[n], "sentences": sentences[n]} for n in range(4)
        ]
        if name == "coco":
            rows = [{**row, "filepath": "val2014", "cocoid": 100 + row["imgid"]} for row in rows]
        put(tmp_path / name / f"dataset_{name}.json", {"images": rows, "dataset": name})
    domains = ("in-domain", "near-domain", "out-domain")
    images = [{"id": n, "file_name": f"{n}.jpg", "domain": domains[n]} for n in range(3)]
    said = [{"image_id": n, "caption": text, "id": n} for n, text in enumerate(WORDS[:3])]
    put(tmp_path / "nocaps/nocaps_val_4500_captions.json", {"images": images, "annotations": said})
    data = [
        {"image_id": name, "caption_str": WORDS[n], "reference_strs": list(WORDS[:2])}
        for name, n in (("x", 0), ("y", 1), ("x", 2), ("z", 3))
    ]
    put(tmp_path / "textcaps/TextCaps_0.1_val.json", {"data": data})
    for folder in ("coco/images/val2014", "flickr30k/images", "nocaps/images", "textcaps/train_images"):
        (tmp_path / folder).mkdir(parents=True)
        for name in (*"0123", *"xyz"):
            Pil.new("RGB", (20, 20), (60, 90, 0)).save(tmp_path / folder / f"{name}.jpg")
    return tmp_path


def test_layouts(root: Path) -> None:
    place = str(root)
    karpathy = KarpathyCaptions(place, "coco/dataset_coco.json", "coco/images").read()
    assert [one.key for one in karpathy] == [100, 102, 103]
    assert karpathy[0].source == root / "coco/images/val2014/0.jpg"
    assert karpathy[1].facts == {"caption": [f"{WORDS[2]}.", WORDS[2]], "image_id": 102}
    flickr = KarpathyCaptions(place, "flickr30k/dataset_flickr30k.json", "flickr30k/images", split="train").read()
    assert [(one.key, one.image) for one in flickr] == [(1, "1.jpg")]
    nocaps = CocoCaptions(place, "nocaps/nocaps_val_4500_captions.json", "nocaps/images", text="Describe it.").read()
    assert nocaps[2].facts == {"image_id": 2, "caption": [WORDS[2]], "domain": "out-domain"}
    assert [one.text for one in nocaps[2].document().segments if isinstance(one, Text)] == ["Describe it."]
    textcaps = TextcapsCaptions(place, "textcaps/TextCaps_0.1_val.json", "textcaps/train_images").read()
    assert [(one.key, one.facts["caption"]) for one in textcaps] == [
        ("x", [WORDS[0], WORDS[2]]), ("y", [WORDS[1]]), ("z", [WORDS[3]])
    ]  # fmt: skip


def test_sets_without_captions_and_other_layouts(root: Path) -> None:
    file, place = "nocaps/nocaps_val_4500_captions.json", str(root)
    put(root / file, {"images": [{"id": 7, "file_name": "0.jpg"}]})
    assert CocoCaptions(place, file, "nocaps/images").read()[0].facts == {"image_id": 7}
    put(root / file, {"images": [{"id": 7}], "annotations": []})
    with pytest.raises(ValueError, match="images 0: no 'file_name'"):
        CocoCaptions(place, file, "nocaps/images").read()
    put(root / file, {"images": [], "annotations": [{"image_id": 3, "caption": "x"}]})
    with pytest.raises(ValueError, match="picture 3, which is not among the images"):
        CocoCaptions(place, file, "nocaps/images").read()
    put(root / file, [])
    with pytest.raises(ValueError, match="no list 'data'"):
        TextcapsCaptions(place, file, "nocaps/images").read()
    with pytest.raises(ValueError, match=r"karpathy_captions\.split='dev'; there are test, train"):
        KarpathyCaptions(place, "coco/dataset_coco.json", "coco/images", split="dev").read()
    with pytest.raises(ValueError, match=r"textcaps_captions\.image"):
        TextcapsCaptions(place, file, ".", image="x.jpg")


def test_the_benchmark(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.create("emu_tiny", overrides=["model.decoder.blocks.depth=1"])

    def answers(self: Any, model: Any, questions: Sequence[Any], most: int) -> list[str]:
        """Says something true about every picture, in place of a model that never learned to."""
        assert [one.segments[-1].text for one in map(self.document, questions)] == ["The image shows"] * len(questions)
        truths = {"0": 0, "1": 1, "2": 2, "3": 3, "100": 0, "102": 2, "103": 3, "x": 0, "y": 1, "z": 3}
        return [WORDS[truths[one.meta["key"]]] for one in questions]

    monkeypatch.setattr(vqa.Asking, "answers", answers)
    config = zoo.compose("base/eval", ["model=emu_tiny", "benchmark=captions", f"benchmark_root={root}"])
    for one in config.benchmark.values():
        one.score.also = ["SPICE"]  # lacks its models here: said in the table, without starting Java
    found = run_suite(model, model.processor, config.benchmark, tmp_path / "run", torch.device("cpu"))
    assert set(found) == {"coco", "nocaps", "textcaps", "flickr30k"}
    for name, result in found.items():
        assert result.metrics["BLEU-1"] == pytest.approx(1.0)
        assert result.metrics["CIDEr"] > 2
        rows = json.loads((tmp_path / "run" / name / f"{name}.json").read_text())
        assert len(rows) == 3
        assert all(set(row) == {"image_id", "caption"} for row in rows)
    assert {"in-domain_CIDEr", "near-domain_CIDEr", "out-domain_CIDEr"} <= found["nocaps"].metrics.keys()
    assert str(found["coco"].tables[0].rows[0][-1]).startswith("not computed: ")
    rows = json.loads((tmp_path / "run/coco/coco.json").read_text())
    assert rows[0] == {"image_id": 100, "caption": "a red dog"}
