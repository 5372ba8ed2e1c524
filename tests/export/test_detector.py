"""A detector as one graph computes what the model computes, in every way it can be told where the cameras are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.fast_bev import FastBEV
from multimodal_zoo.bev.geometry import wrapped
from multimodal_zoo.export import detector_folder
from multimodal_zoo.export.detector import DetectorGraph, DetectorSizes
from multimodal_zoo.export.detector_files import onnx_runner
from multimodal_zoo.export.detector_folder import export_detector
from multimodal_zoo.export.detector_samples import (
    DetectorSample,
    difference,
    eager_answer,
    graph_inputs,
    motions,
    random_sample,
)
from multimodal_zoo.export.folder import ExportMismatch
from multimodal_zoo.registry import build

pytest.importorskip("onnxruntime")
SIZES = DetectorSizes(3, 32, 64)
HEAD = {
    "type": "anchor_head",
    "classes": ["car", "pedestrian"],
    "anchors": {
        "type": "anchor_grid",
        "ranges": [[-50, -50, -1.8, 50, 50, -1.8]],
        "sizes": [[0.866, 2.5981, 1.0], [0.4, 0.4, 1.0]],
        "rotations": [0, 1.57],
    },
    "direction": {"type": "yaw_halves", "offset": 0.7854},
    "selection": {
        "type": "box_selection",
        "score_threshold": 0.0,
        "candidates": 60,
        "limit": 20,
        "suppressions": [{"type": "rotated_suppression", "threshold": 0.2}],
    },
}


def detector(frames: int = 1, pairs: Sequence[Sequence[int]] = ((0, 0),), overlap: str = "last") -> FastBEV:
    """A tiny detector with weights that move its boxes away from the anchors."""
    torch.manual_seed(0)
    levels = sorted({level for level, _ in pairs})
    counts = [[10, 10, 2], [6, 6, 2]]
    volumes = [
        {"type": "voxel_grid", "counts": counts[n], "size": [100 / counts[n][0]] * 2 + [3.0], "centre": [0, 0, -1]}
        for n in sorted({grid for _, grid in pairs})
    ]
    channels = 4 * frames * 2 * len(pairs)
    model: Any = build(
        {
            "type": "fast_bev",
            "frames": frames,
            "image_encoder": {"type": "convolution_maps", "channels": [8, 8, 8, 8]},
            "pyramid": {"type": "feature_pyramid", "in_channels": [8, 8, 8, 8], "channels": 4},
            "fusions": [
                {"type": "level_fusion", "level": level, "in_channels": 4 * (4 - level), "channels": 4}
                for level in levels
            ],
            "lift": {"type": "fast_ray", "grids": volumes, "pairs": [list(one) for one in pairs], "overlap": overlap},
            "bev_encoder": {"type": "bev_encoder", "in_channels": channels, "fused": 8, "width": 8, "depth": 1},
            "head": {**HEAD, "in_channels": 8},
        }
    )
    with torch.no_grad():
        for part in (model.head.classes, model.head.boxes, model.head.directions):
            part.weight.normal_(std=0.3)
    return model.eval()


def exported(model: FastBEV, out: Path, **more: Any) -> tuple[DetectorGraph, Any, dict[str, Any]]:
    """The graph, what runs its file, and what was said of it."""
    facts = export_detector(model, out, sizes=SIZES, **more)
    graph = DetectorGraph(model, SIZES, more.get("calibration", "tables"), more.get("rig")).eval()
    return graph, onnx_runner(out / facts["file"], graph.outputs(), 1), facts


@pytest.fixture(scope="module")
def four_frames(tmp_path_factory: pytest.TempPathFactory) -> tuple[DetectorGraph, Any, dict[str, Any], Path]:
    """A model of four frames by tables, with its 8-bit file."""
    model, out = detector(frames=4), tmp_path_factory.mktemp("tables") / "out"
    draft = DetectorGraph(model, SIZES, "tables")
    graph, run, facts = exported(model, out, samples=[random_sample(draft, seed) for seed in (7, 8)], int8=True)
    return graph, run, facts, out


def test_one_graph_without_operators_of_its_own(four_frames: Any) -> None:
    import onnx

    graph, _, facts, out = four_frames
    found = onnx.load(out / "detector.onnx").graph
    assert {node.domain for node in found.node} == {""}
    assert [one.name for one in found.input] == list(graph.inputs()) == list(facts["inputs"])
    assert [one.name for one in found.output] == graph.outputs() == list(facts["outputs"])
    assert sorted(path.name for path in out.iterdir()) == ["detector.int8.onnx", "detector.onnx", "export.json"]
    assert json.loads((out / "export.json").read_text())["inputs"] == facts["inputs"]
    assert facts["inputs"]["rows_0"] == {**facts["inputs"]["rows_0"], "shape": [4, 200], "dtype": "int32"}
    assert facts["inputs"]["history_0"]["shape"] == [3, 3, 4, 8, 16]
    assert facts["tables"]["rows_0"]["empty"] == 3 * 8 * 16
    assert facts["tables"]["rows_0"]["stride"] == 4
    assert max(facts["largest_difference"].values()) < 1e-4


def test_other_rigs_and_missing_cameras_by_tables(four_frames: Any) -> None:
    graph, run, _, _ = four_frames
    for seed in (3, 4):
        sample = random_sample(graph, seed)
        present = torch.ones(1, 4, 3, dtype=torch.bool)
        present[0, :, seed - 3] = False
        for one in (sample, DetectorSample(sample.images, Cameras(sample.cameras.lidar_to_image, (32, 64), present))):
            off = difference(run(graph_inputs(graph, one)), eager_answer(graph.model, one))
            assert off.largest < 1e-4
            assert off.turned == 0


def test_maps_of_a_call_are_the_history_of_the_next(four_frames: Any) -> None:
    graph, run, _, _ = four_frames
    model, generator = graph.model, torch.Generator().manual_seed(1)
    pictures = torch.randn(6, 3, 3, 32, 64, generator=generator)
    matrices = random_sample(graph, 5).cameras.lidar_to_image[0]
    kept: list[Tensor] = []
    for time, images in enumerate(pictures):
        past = [max(0, time - back) for back in range(4)]
        sample = DetectorSample(pictures[past][None], Cameras(matrices[[time - one for one in past]][None], (32, 64)))
        feed = graph_inputs(graph, sample)
        first = run({**feed, "images": images})["maps_0"] if not kept else None
        history = [kept[one] if one < time else first for one in past[1:]]
        found = run({**feed, "history_0": torch.stack(history)})  # type: ignore[arg-type]
        kept.append(found["maps_0"])
        assert difference(found, eager_answer(model, sample)).largest < 1e-4
        chosen = model.head.selection.chosen(found["boxes"], found["scores"])
        (objects,) = model.predict(sample.images, sample.cameras)
        torch.testing.assert_close(found["scores"][chosen], objects.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(found["boxes"][chosen[0]][:, :6], objects.boxes[:, :6], atol=1e-4, rtol=0)


def test_a_rig_inside_of_the_graph(tmp_path: Path) -> None:
    model = detector(frames=2)
    rig = random_sample(DetectorGraph(model, SIZES, "tables"), 11).cameras.lidar_to_image[0, 0]
    graph, run, facts = exported(model, tmp_path / "out", calibration="motion", rig=rig)
    assert facts["tables"] is None
    assert facts["inputs"]["motion"] == {**facts["inputs"]["motion"], "shape": [1, 4, 4], "dtype": "float64"}
    for seed in (3, 4, 5):
        sample = random_sample(graph, seed)
        torch.testing.assert_close(sample.cameras.lidar_to_image[0, 1], rig @ motions(sample.cameras)[0])
        assert difference(run(graph_inputs(graph, sample)), eager_answer(model, sample)).largest < 1e-4
    missing = Cameras(sample.cameras.lidar_to_image, (32, 64), torch.ones(1, 2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="only calibration=tables can tell"):
        graph_inputs(graph, DetectorSample(sample.images, missing))


@pytest.mark.parametrize(
    ("pairs", "overlap"), [(((0, 0),), "mean"), (((0, 0), (1, 1)), "first"), (((0, 0), (1, 0), (0, 1)), "last")]
)
def test_every_way_to_lift(tmp_path: Path, pairs: Sequence[Sequence[int]], overlap: str) -> None:
    graph, run, facts = exported(detector(1, pairs, overlap), tmp_path / "out")
    assert not any(name.startswith("history") for name in facts["inputs"])
    sample = random_sample(graph, 3)
    assert difference(run(graph_inputs(graph, sample)), eager_answer(graph.model, sample)).largest < 1e-4


def test_a_torch_program(tmp_path: Path) -> None:
    model = detector(frames=2).train()
    facts = export_detector(model, tmp_path / "out", sizes=SIZES, format="torch_export")
    assert model.training
    assert facts["file"] == "detector.pt2"
    assert facts["largest_difference"]["boxes"] < 1e-4


def test_8_bits_and_what_they_change(four_frames: Any) -> None:
    import onnx

    graph, run, facts, out = four_frames
    small = onnx_runner(out / facts["int8"]["file"], graph.outputs(), 1)
    nodes = [node.op_type for node in onnx.load(out / facts["int8"]["file"]).graph.node]
    assert "QuantizeLinear" in nodes
    assert len(facts["int8"]["drift"]) == 2
    sample = graph_inputs(graph, random_sample(graph, 7))
    found, expected = small(sample), run(sample)
    told = facts["int8"]["drift"][0]
    off = (found["boxes"] - expected["boxes"])[:, :3].norm(dim=1)
    assert float(off.mean()) == pytest.approx(told["centre_mean"], rel=1e-3)
    assert 0 < told["centre_mean"] < 0.5
    assert 0 < told["score_largest"] < 0.5
    assert told["objects"] == 20
    assert 0 <= told["found_again"] <= 1


def test_differences_are_told() -> None:
    expected = {"boxes": torch.zeros(4, 9), "scores": torch.zeros(4, 2), "maps_0": torch.zeros(1, 2, 3, 3)}
    found = {name: one.clone() for name, one in expected.items()}
    found["boxes"][1, 6] = 3.0  # the other half, 0.14 away from it
    found["boxes"][2, 0], found["scores"][0, 1] = 0.5, 0.25
    off = difference(found, expected)
    assert off.boxes == 0.5
    assert off.scores == 0.25
    assert (off.maps, off.turned) == (0.0, 0.25)
    assert float(wrapped(torch.tensor(3.0))) == pytest.approx(-0.1416, abs=1e-4)
    found["maps_0"][0, 0, 0, 0] = float("nan")
    assert difference(found, expected).largest == float("inf")


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = detector(frames=2)
    rig = random_sample(DetectorGraph(model, SIZES, "tables"), 0).cameras.lidar_to_image[0, 0]
    out = tmp_path / "out"
    for message, more in {
        "calibration is 'magic'; it takes tables, motion": {"calibration": "magic"},
        "calibration=motion needs a rig": {"calibration": "motion"},
        "calibration=tables none": {"rig": rig},
        r"the rig has shape \(2, 4, 4\); expected \(3, 4, 4\)": {"calibration": "motion", "rig": rig[:2]},
        "choose one of onnx, torch_export": {"format": "tflite"},
        "int8 needs format=onnx, and recorded samples": {"int8": True},
    }.items():
        with pytest.raises(ValueError, match=message):
            export_detector(model, out, sizes=SIZES, **more)
    other = random_sample(DetectorGraph(model, DetectorSizes(3, 32, 96), "tables"), 0)
    with pytest.raises(ValueError, match=r"a sample of shape \(1, 2, 3, 3, 32, 96\); the graph is made for"):
        export_detector(model, out, sizes=SIZES, samples=[other])
    with pytest.raises(ValueError, match="no processor"):
        export_detector(model, out)
    monkeypatch.setattr(detector_folder, "TURNED", -1.0)
    with pytest.raises(ExportMismatch, match=r"detector.pt2 differs from the model by .* nothing was kept"):
        export_detector(model, out, sizes=SIZES, format="torch_export")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(ValueError, match="is in use"):
        export_detector(model, tmp_path, sizes=SIZES)
