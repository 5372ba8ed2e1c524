"""What readers could not use, by configuration key."""

from __future__ import annotations

from types import SimpleNamespace

from multimodal_zoo.data.mixture import SourceMixture
from multimodal_zoo.data.skips import Skips
from multimodal_zoo.training.left_out import left_out


def reader(*names: str) -> SimpleNamespace:
    """A reader that could not use these."""
    skips = Skips()
    for name in names:
        skips.add("broken image", name)
    return SimpleNamespace(skips=skips)


def test_readers_and_mixtures() -> None:
    data = SimpleNamespace(train=reader("a", "b"), validation=reader())
    assert {key: dict(skips.counts) for key, skips in left_out(data).items()} == {"data.train": {"broken image": 2}}
    mixture = SourceMixture({"one": reader(), "other": reader("c")}, weights=None, samples_per_epoch=4)
    found = left_out(SimpleNamespace(train=mixture, validation=reader("d")))
    assert {key: skips.examples for key, skips in found.items()} == {
        "data.train.sources.other": {"broken image": ["c"]},
        "data.validation": {"broken image": ["d"]},
    }
    assert left_out(SimpleNamespace(train=[1, 2])) == left_out(None) == {}
