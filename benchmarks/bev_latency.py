"""Fast-BEV from pictures to objects: where the time goes, in eager mode, compiled, in onnxruntime and in 8 bits.

    python benchmarks/bev_latency.py            # M0 at 256 x 704, one thread: about four minutes of processor time

One sample of six cameras at four times; random weights, made-up cameras. The first table splits our way into its parts.
The second compares whole passes from normalised pictures to decoded boxes and scores of all anchors:

* published: 24 pictures encoded for every sample, as the released code does, and its view transform, which projects all
  voxels anew (`bev_view_transform.Published`);
* all pictures: ours, the same 24 pictures;
* streaming: six new pictures, the maps of the others kept from earlier calls (`inference.streaming_detection`).

A car that drives needs new tables of the earlier times at every step; they are built within every pass, on the outside
of the graphs (calibration=tables). "differs" is the largest difference of a box (metres, yaw up to half a turn) from
our eager pass over all pictures; for 8 bits the mean shift of box centres stands beside it, with ranges taken from the
same noise, which says little about real pictures.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _report import alternate, keep_freed_memory, ratio, record, use_threads
from bev_view_transform import Published
from torch import Tensor

import multimodal_zoo as zoo
from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.export.detector import DetectorGraph, DetectorSizes
from multimodal_zoo.export.detector_files import onnx_runner, write_graph
from multimodal_zoo.export.detector_int8 import quantise
from multimodal_zoo.export.detector_samples import (
    DetectorSample,
    difference,
    eager_answer,
    graph_inputs,
    random_sample,
)

Answer = dict[str, Tensor]
#: Anchors whose best score passes the threshold, for the time of the selection.
OBJECTS = 300


def ready(variant: str) -> Any:
    """A model whose tables are built anew at every pass and whose head finds something."""
    model = zoo.create(variant).eval()
    model.lift.kept_tables = 0
    return model


def find_something(model: Any, sample: DetectorSample) -> None:
    """Raise the head's bias until `OBJECTS` anchors pass the threshold."""
    threshold = model.head.selection.score_threshold
    with torch.no_grad():
        logits = eager_answer(model, sample)["scores"].amax(1).logit()
        model.head.classes.bias += math.log(threshold / (1 - threshold)) - logits.topk(OBJECTS).values[-1]


class Passes:
    """Every way from pictures to boxes.

    Args:
        model: its layout of memory is contiguous.
        last: the same in channels-last layout.
        sample: what is seen.
        folder: with the exported graphs.
    """

    def __init__(self, model: Any, last: Any, sample: DetectorSample, folder: Path) -> None:
        self.model, self.last, self.sample = model, last, sample
        sizes = DetectorSizes(sample.images.shape[2], *sample.cameras.size)
        self.graph = DetectorGraph(model, sizes, "tables").eval()
        self.fixed = {k: v for k, v in graph_inputs(self.graph, sample).items() if not k.startswith("rows")}
        self.layout = {
            name: one.contiguous(memory_format=torch.channels_last) if one.dim() == 4 else one
            for name, one in self.fixed.items()
        }
        self.maps = [tuple(shape[-2:]) for shape in self.graph.map_shapes()]
        self.folder = folder

    def tables(self) -> Answer:
        """The rows of all times, built anew."""
        found = self.model.lift.tables(self.sample.cameras, self.maps)
        return {f"rows_{number}": table.rows[0].int() for number, table in enumerate(found)}

    def published(self) -> Answer:
        """All pictures, and the published loop in float32."""
        model, (level, grid) = self.model, self.model.lift.pairs[0]
        maps = model.encode(self.sample.images)
        volumes = [published_view(self, one, number, grid) for number, one in enumerate(maps[level][0])]
        volume = torch.cat(volumes)  # (times * channels, x, y, z)
        flat = volume.permute(3, 0, 1, 2).flatten(0, 1)[None]
        return self._decoded(model, model.head(model.bev_encoder(flat)))

    def everything(self, model: Any) -> Answer:
        """All pictures, a table."""
        images = self.sample.images
        if model is self.last:
            images = images.flatten(0, 2).contiguous(memory_format=torch.channels_last).view(images.shape)
        return self._decoded(model, model(images, self.sample.cameras))

    def streaming(self, model: Any) -> Answer:
        """Six new pictures beside kept maps."""
        given = self.layout if model is self.last else self.fixed
        new = model.encode(given["images"][None, None])
        maps = [torch.cat((one, given[f"history_{k}"][None]), dim=1) for k, one in enumerate(new)]
        return self._decoded(model, model.head(model.bev(maps, self.sample.cameras)))

    def compiled(self) -> Callable[[], Answer]:
        """The graph by torch.compile, tables built outside."""
        graph = torch.compile(self.graph, dynamic=False)
        names = self.graph.outputs()

        def call() -> Answer:
            """Once."""
            given = {**self.layout, **self.tables()}
            return dict(zip(names, graph(*given.values()), strict=True))

        return call

    def exported(self, file: str, threads: int) -> Callable[[], Answer]:
        """A file in onnxruntime, tables built outside."""
        run = onnx_runner(self.folder / file, self.graph.outputs(), threads)
        return lambda: run({**self.fixed, **self.tables()})

    @staticmethod
    def _decoded(model: Any, head: Any) -> Answer:
        boxes, scores = model.head.decoded(head)
        return {"boxes": boxes[0], "scores": scores[0]}


def published_view(passes: Passes, maps: Tensor, time: int, grid: int) -> Tensor:
    """The published view transform of one time, (channels, x, y, z)."""
    volume = passes.model.lift.grids[grid]
    one = Cameras(passes.sample.cameras.lidar_to_image[:, time : time + 1], passes.sample.cameras.size)
    stride = passes.sample.cameras.size[1] // maps.shape[-1]
    return Published(one, volume, stride).last(maps).view(maps.shape[1], *volume.counts)


def parts(passes: Passes) -> dict[str, Callable[[], Any]]:
    """Each part of our way alone, on what the one before it gives."""
    model, last, cameras = passes.model, passes.last, passes.sample.cameras
    six, six_last = passes.fixed["images"][None, None], passes.layout["images"][None, None]
    maps = last.encode(passes.sample.images)
    tables = last.lift.tables(cameras, passes.maps)
    bev = last.lift.gathered(maps, tables).clone()
    encoded = last.bev_encoder(bev)
    head = last.head(encoded)
    plain = bev.contiguous()
    return {
        "image encoder, pyramid, fusion: 6 pictures": lambda: model.encode(six),
        "the same, channels last": lambda: last.encode(six_last),
        "the same, 24 pictures": lambda: last.encode(passes.sample.images),
        "tables of 4 times": lambda: last.lift.tables(cameras, passes.maps),
        "view transform of 4 times": lambda: last.lift.gathered(maps, tables, lent=True),
        "published view transform of 4 times": lambda: [
            published_view(passes, one, number, 0) for number, one in enumerate(maps[0][0])
        ],
        "encoder in bird's-eye view": lambda: model.bev_encoder(plain),
        "the same, channels last, maps kept in place": lambda: last.bev_encoder(bev),
        "head": lambda: last.head(encoded),
        "decoding of all anchors": lambda: last.head.decoded(head),
        f"selection of {OBJECTS} candidates": lambda: last.head.select([head]),
    }


def ways(passes: Passes, options: argparse.Namespace) -> dict[str, Callable[[], Answer]]:
    """Whole passes by name."""
    found: dict[str, Callable[[], Answer]] = {
        "published, all pictures": passes.published,
        "eager, all pictures": lambda: passes.everything(passes.model),
        "eager, channels last, all pictures": lambda: passes.everything(passes.last),
        "eager, streaming": lambda: passes.streaming(passes.model),
        "eager, channels last, streaming": lambda: passes.streaming(passes.last),
    }
    if options.compile:
        found["compiled, channels last, streaming"] = passes.compiled()
    found["onnxruntime, streaming"] = passes.exported("float.onnx", options.threads)
    found["onnxruntime, 8 bits, streaming"] = passes.exported("int8.onnx", options.threads)
    return found


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="fast_bev_m0")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    parser.add_argument("--quick", action="store_true", help="the tiny variant, once; records nothing")
    options = parser.parse_args()
    if options.quick:
        options.variant, options.repeats = "fast_bev_tiny", 1
    use_threads(options.threads)
    keep_freed_memory()
    model, last = ready(options.variant), ready(options.variant)
    sizes = DetectorSizes(len(model.processor.cameras), *model.processor.size)
    sample = random_sample(DetectorGraph(model, sizes, "tables"), 0)
    find_something(model, sample)
    last.load_state_dict(model.state_dict())
    last = last.to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as place:
        passes = Passes(model, last, sample, Path(place))
        write_graph(passes.graph, Path(place) / "float.onnx", "onnx")
        quantise(Path(place) / "float.onnx", Path(place) / "int8.onnx", [{**passes.fixed, **passes.tables()}])
        with torch.no_grad():
            rows = _measured(passes, options)
    words = " ".join(["--no-compile"] * (not options.compile))
    record("bev_latency", rows, f"python benchmarks/bev_latency.py {words}".strip(), options.threads, not options.quick)


def _measured(passes: Passes, options: argparse.Namespace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, taken in alternate(parts(passes), options.repeats, warm_up=0).items():
        rows.append({"what": name, "ms": 1000 * min(taken)})
    rivals = ways(passes, options)
    expected = eager_answer(passes.model, passes.sample)
    off = {}
    for name, call in rivals.items():
        answer = {**expected, **call()}
        centres = (answer["boxes"] - expected["boxes"])[:, :3].norm(dim=1).mean()
        off[name] = (difference(answer, expected).boxes, float(centres))
    times = alternate(rivals, options.repeats, warm_up=0)
    base, whole = times["published, all pictures"], times["eager, channels last, all pictures"]
    for name, taken in times.items():
        row = {"what": name, "ms": 1000 * min(taken), "published / way": ratio(base, taken)}
        row |= {"all pictures / way": ratio(whole, taken), "differs": off[name][0], "centres move, m": off[name][1]}
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
