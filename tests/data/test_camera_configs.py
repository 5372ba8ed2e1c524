"""The declared data of cameras: what the YAML files hold is what is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from driving_samples import VERSION, write_drives
from omegaconf import OmegaConf

from multimodal_zoo.config import compose
from multimodal_zoo.data.balanced_order import BalancedOrder
from multimodal_zoo.registry import build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drives(tmp_path_factory.mktemp("drives"))


def made(data: str, *overrides: str) -> Any:
    config = compose(None, ["+model=fast_bev_m0", f"+data={data}", "+seed=0", *overrides])
    node = OmegaConf.to_container(config.data, resolve=True)
    assert isinstance(node, dict)
    return build({**node, "processor": build(config.model.processor)})


def test_published_rules(folder: Path) -> None:
    """The values of the released configurations, and the official splits of the small version."""
    data = made("nuscenes_mini", f"data.train.folder={folder}")
    assert {info.scene for info in data.train.infos} == {"scene-0061"}
    assert {info.scene for info in data.validation.infos} == {"scene-0103"}
    assert (folder / "multimodal_zoo_mini_train.jsonl.gz").is_file()
    collate = data.collate
    assert collate.others is data.train
    assert (list(collate.image_augment.resize), collate.image_augment.flip) == ([-0.06, 0.11], 0.5)
    assert (collate.bev_augment.flip_x, list(collate.bev_augment.scale)) == (0.5, [0.95, 1.05])
    assert isinstance(data.order, BalancedOrder)
    assert data.order.classes == data.collate.processor.classes
    assert data.collate.processor.history.ids == (1, 3, 5)
    assert data.plain.truth.unknown == "masked"


def test_full_and_files(folder: Path, tmp_path: Path) -> None:
    splits = tmp_path / "splits.yaml"
    splits.write_text("train: [scene-0061, scene-0103]\nval: [scene-0103]\n")
    cache = [f"data.{part}.cache={tmp_path / part}.jsonl.gz" for part in ("train", "validation")]
    place = [f"data.train.folder={folder}", f"data.train.version={VERSION}", f"data.train.splits={splits}"]
    data = made("nuscenes", *place, *cache)
    assert (len(data.train), len(data.validation)) == (8, 4)
    files = [f"data.{part}.file={tmp_path / part}.jsonl.gz" for part in ("train", "validation")]
    again = made("nuscenes_infos", f"data.train.folder={folder}", "data.train.prefix=''", *files)
    assert [info.token for info in again.train.infos] == [info.token for info in data.train.infos]
