"""A folder with a tiny model for each tab, and what is shown of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.data.camera_reader import KeyFrame
from multimodal_zoo.gallery.albums import Albums
from multimodal_zoo.gallery.detect import drawn_scene
from multimodal_zoo.gallery.limits import Limits
from multimodal_zoo.gallery.shelf import Shelf
from multimodal_zoo.gallery.showroom import Showroom

ONE_BLOCK = ["model.decoder.blocks.depth=1"]
UNET = "model.visual_decoder.unet.config"
#: Name of a folder -> variant and overrides.
MODELS = {
    "pairs": ("clip_tiny", ["model.text.blocks.depth=1"]),
    "tokens": ("emu3_tiny", ONE_BLOCK),
    "talker": ("eve_tiny", ONE_BLOCK),
    "student": ("capsfus_llama_tiny", ONE_BLOCK),
    "painter": (
        "emu_tiny",
        [
            *(*ONE_BLOCK, "visual_decoder@model.visual_decoder=tiny", "model.visual_decoder.steps=3"),
            f"{UNET}.block_out_channels=[8,8]",
            *(f"{UNET}.norm_num_groups=4", f"{UNET}.attention_head_dim=2"),
            f"{UNET}.down_block_types=[DownBlock2D,CrossAttnDownBlock2D]",
            f"{UNET}.up_block_types=[CrossAttnUpBlock2D,UpBlock2D]",
        ],
    ),
    "boxes": (
        "fast_bev_tiny",
        [
            "model.processor.view.size=[48,128]",
            "model.lift.grids=[{type: voxel_grid, counts: [20, 20, 2], size: [5.0, 5.0, 3.0], centre: [0, 0, -1]}]",
            *("model.bev_encoder.in_channels=128", "model.head.selection.score_threshold=0.0"),
            "model.head.selection.limit=9",
        ],
    ),
}
COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with models, and a folder of pictures beside them."""
    folder = tmp_path_factory.mktemp("gallery") / "runs"
    for name, (variant, overrides) in MODELS.items():
        model = zoo.create(variant, overrides=overrides)
        model.weights = "trained: for a test"
        save_model(model, folder / name / "model")
    save_model(zoo.create("clip_tiny", overrides=MODELS["pairs"][1]), folder / "untrained")
    (folder / "photos").mkdir()
    for colour in COLOURS:
        Image.new("RGB", (40, 30), colour).save(folder / "photos" / f"{colour}.png")
    (folder / "photos" / "red.txt").write_text("a red wall")
    return folder


@pytest.fixture(scope="session")
def shelf(runs: Path) -> Shelf:
    """All models of the folder but the untrained one, kept in memory."""
    return Shelf([runs], keep=len(MODELS))


@pytest.fixture(scope="session")
def frame(runs: Path, shelf: Shelf) -> KeyFrame:
    """A small driving scene."""
    kept = Showroom(shelf, Albums([runs], most=9), Limits(), runs.parent / "drawn")
    return drawn_scene(kept, 7, width=96, height=54)


@pytest.fixture(scope="session")
def sent(frame: KeyFrame, runs: Path) -> Path:
    """That scene as a visitor has it: a picture of each camera and a calibration."""
    folder = runs.parent / "sent"
    folder.mkdir()
    cameras = {}
    for name, one in frame.info.cameras.items():
        (folder / f"{name}.jpg").write_bytes((frame.root / one.path).read_bytes())
        cameras[name] = {"intrinsic": one.intrinsic.tolist(), "sensor2lidar": one.sensor2lidar.tolist()}
    rig = {"lidar2ego": frame.info.lidar2ego.tolist(), "cameras": cameras}
    (folder / "calibration.json").write_text(json.dumps(rig))
    return folder


@pytest.fixture
def room(runs: Path, shelf: Shelf, tmp_path: Path) -> Showroom:
    """What is shown, with a folder of its own."""
    return Showroom(shelf, Albums([runs], most=9), Limits(megabytes=1, megapixels=1, seconds=60), tmp_path.resolve())


@pytest.fixture
def limited(room: Showroom) -> Callable[..., Showroom]:
    """The room with other limits."""
    return lambda **values: dataclasses.replace(room, limits=dataclasses.replace(room.limits, **values))


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """An uploaded picture."""
    path = tmp_path / "uploaded.png"
    Image.new("RGB", (40, 30), "red").save(path)
    return str(path)
