"""The declared views of each method: what they hold, from emoji and from files, and their readers exchanged."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from multimodal_zoo.config import compose
from multimodal_zoo.registry import build

METHODS = {
    "clip": (["plain"], ["plain"]),
    "slip": (["plain", "first", "second"], ["plain"]),
    "filip": (["first"], ["masked"]),
    "declip": (["first", "second"], ["masked", "augmented"]),
}


def composed(data: str, *overrides: str) -> Any:
    return compose(None, ["+model=declip_tiny", f"+data={data}", "+seed=0", *overrides])


@pytest.mark.parametrize("method", METHODS)
def test_emoji_give_the_views_of_every_method(method: str) -> None:
    config = composed(f"emoji_views_{method}", "data.batch_size=4", "data.train.splits=[val]")
    node = OmegaConf.to_container(config.data, resolve=True)
    assert isinstance(node, dict)
    data = build({**node, "processor": build(config.model.processor)})
    for batch in (next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))):
        assert (list(batch.images), list(batch.texts)) == METHODS[method]
        assert list(batch.labels) == [view for view in METHODS[method][1] if view == "masked"]
        assert {tuple(view.shape) for view in batch.images.values()} == {(4, 3, 48, 48)}
        assert float(max(view.abs().max() for view in batch.images.values())) <= 1.0001


@pytest.mark.parametrize("method", METHODS)
def test_files_give_the_views_of_every_method(method: str) -> None:
    config = composed(f"{method}_views").data
    assert (list(config.image_views), list(config.text_views)) == METHODS[method]
    views = build({name: view.transform for name, view in config.image_views.items()})
    assert all(callable(view) for view in views.values())


def test_one_view_more_and_other_readers() -> None:
    more = composed("emoji_views_clip", "+image_view@data.image_views.third=emoji_strong")
    assert list(more.data.image_views) == ["plain", "third"]
    tars = composed("declip_views", "reader@data.train=webdataset_pairs", "data.train.sources=a.tar")
    assert tars.data.train.type == "webdataset_pairs"
    assert "table" not in tars.data.train
    mix = composed("declip_views", "reader@data.train=declip_88m").data.train
    assert list(mix.readers) == ["yfcc15m", "cc3m", "cc12m", "web"]
    assert {reader.type for reader in mix.readers.values()} == {"line_pairs"}
    without = composed("declip_views", "text_view@data.text_views.augmented=swap_and_deletion").data
    assert [part.type for part in without.text_views.augmented.augmentation.operations] == [
        "random_swap",
        "random_deletion",
    ]
