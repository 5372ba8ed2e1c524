"""A detector as one graph computes what the model computes, in every way it can be told where the cameras are."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.fast_bev import FastBEV
from multimodal_zoo.bev.geometry import pose, wrapped
from multimodal_zoo.cli import main
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
#: Degrees to the right of straight ahead.
RIG = {
    "CAM_FRONT": 0,
    "CAM_FRONT_RIGHT": 55,
    "CAM_FRONT_LEFT": -55,
    "CAM_BACK": 180,
    "CAM_BACK_LEFT": -110,
    "CAM_BACK_RIGHT": 110,
}
SMALL = [
    "model.image_encoder.channels=[4,4,4,4]",
    "model.lift.grids.0.counts=[20,20,2]",
    "model.lift.grids.0.size=[5,5,3]",
    "model.bev_encoder.in_channels=128",
    "model.bev_encoder.fused=8",
    "model.bev_encoder.width=8",
    "model.head.in_channels=8",
]
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


def rig_files(folder: Path, size: tuple[int, int] = (90, 160)) -> Path:
    """A calibration file of six cameras with pictures of noise, and one earlier time."""
    from PIL import Image

    folder.mkdir(parents=True)
    generator, cameras = torch.Generator().manual_seed(0), {}
    for name in RIG:
        noise = torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8)
        for end in ("", "_then"):
            Image.fromarray(noise.numpy()).save(folder / f"{name}{end}.png")
        angle = -math.radians(RIG[name])
        ahead, right = (-math.sin(angle), math.cos(angle), 0.0), (math.cos(angle), math.sin(angle), 0.0)
        columns = torch.tensor([right, (0.0, 0.0, -1.0), ahead])
        place = pose(columns.T, torch.tensor(ahead) * 0.8 + torch.tensor([0, 0, -0.3]))
        focal = 0.6 * size[1]
        intrinsic = [[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1]]
        cameras[name] = {"image": f"{name}.png", "size": list(size), "intrinsic": intrinsic}
        cameras[name] |= {"sensor2lidar": place.tolist()}
    moved = torch.eye(4).double()
    moved[0, 3] = -2.0
    content = {
        "time": 0.5,
        "lidar2ego": pose(torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]), torch.tensor([0.9, 0, 1.8])).tolist(),
        "ego2global": torch.eye(4).tolist(),
        "cameras": cameras,
        "history": [{"time": 0, "ego2global": moved.tolist(), "images": {name: f"{name}_then.png" for name in RIG}}],
    }
    (folder / "calibration.json").write_text(json.dumps(content))
    return folder / "calibration.json"


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


LIFTING = [(((0, 0),), "mean"), (((0, 0), (1, 1)), "first"), (((0, 0), (1, 0), (0, 1)), "last")]


@pytest.mark.parametrize(("pairs", "overlap"), LIFTING)
def test_every_way_to_lift_as_a_torch_program(tmp_path: Path, pairs: Sequence[Sequence[int]], overlap: str) -> None:
    model = detector(1, pairs, overlap).train()
    facts = export_detector(model, tmp_path / "out", sizes=SIZES, format="torch_export")
    assert model.training
    assert facts["file"] == "detector.pt2"
    assert not any(name.startswith("history") for name in facts["inputs"])
    assert max(facts["largest_difference"].values()) < 1e-4
    rows = facts["inputs"]["rows_0"]["shape"]
    assert rows == ([1, 200, 3] if overlap == "mean" else [1, 200])


@pytest.mark.slow
@pytest.mark.parametrize(("pairs", "overlap"), [LIFTING[0], LIFTING[2]])
def test_every_way_to_lift_in_onnx(tmp_path: Path, pairs: Sequence[Sequence[int]], overlap: str) -> None:
    graph, run, _ = exported(detector(1, pairs, overlap), tmp_path / "out")
    sample = random_sample(graph, 3)
    assert difference(run(graph_inputs(graph, sample)), eager_answer(graph.model, sample)).largest < 1e-4


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


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig, out = rig_files(tmp_path / "scene"), tmp_path / "out"
    words = ["export", "fast_bev_tiny", *SMALL, "format=torch_export", "allow_random=true", f"out={out}"]
    assert main([*words, f"rig={rig}"]) == 0
    said = capsys.readouterr().out
    assert "detector.pt2" in said
    assert "in   history_0  float32 (1, 6, 32, 24, 64)" in said
    assert sorted(path.name for path in out.iterdir()) == ["detector.pt2", "export.json"]
    assert json.loads((out / "export.json").read_text())["cameras"] == list(RIG)
    for message, more in {
        "name its calibration file with rig=FILE": ["calibration=motion"],
        "image_size: 32 is for towers": ["image_size=32"],
        "int8 needs format=onnx": [f"int8={rig}"],
        "it takes tables, motion": ["calibration=magic"],
    }.items():
        with pytest.raises(SystemExit):
            main([*words[:-1], f"out={tmp_path / 'other'}", *more])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_the_command_in_8_bits_with_the_rig_inside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig, out = rig_files(tmp_path / "scene"), tmp_path / "out"
    words = ["calibration=motion", f"rig={rig}", f"int8=[{rig}]", "allow_random=true", f"out={out}"]
    assert main(["export", "fast_bev_tiny", *SMALL, *words]) == 0
    said = capsys.readouterr().out
    assert "detector.int8.onnx" in said
    assert "in   motion     float64 (1, 4, 4)" in said
