"""Drawings of names and of pictures, judged by the model's own embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import multimodal_zoo as zoo
from multimodal_zoo.evaluation.visual_drawings import VisualDrawings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def emu() -> Any:
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    words = ["model.decoder.blocks.depth=1", "visual_decoder@model.visual_decoder=tiny"]
    return zoo.create("emu_tiny", overrides=words).eval()


def test_figures_count_pictures_and_repeat(emu: Any, squares: Callable[..., Any]) -> None:
    data = squares(shades=1)
    one, other = (VisualDrawings(data, batch_size=size, steps=2, shown=3)(emu, emu.processor, CPU) for size in (2, 8))
    for way in ("autoencoded", "imagined"):
        assert 1 <= one.metrics[f"{way}_mean_rank"] <= len(data)
        for name in ("R@1", "mean_rank", "psnr"):  # a drawing does not depend on what is drawn beside it
            assert one.metrics[f"{way}_{name}"] == pytest.approx(other.metrics[f"{way}_{name}"], rel=1e-3)
    assert one.headline == ("autoencoded_R@5", "imagined_R@5")
    assert set(one.figures) == {"drawings"}
    assert VisualDrawings(data, steps=1, shown=0)(emu, emu.processor, CPU).figures == {}


def test_a_decoder_that_gives_the_picture_back_is_right(
    emu: Any, squares: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = squares(shades=1)
    wanted = (emu.processor.images([one.image for one in data]) * 0.5 + 0.5).clamp(0, 1)
    monkeypatch.setattr(emu.visual_decoder, "decode", lambda condition, *_, seeds, **__: wanted[list(seeds)])
    found = VisualDrawings(data, batch_size=4, shown=0)(emu, emu.processor, CPU).metrics
    assert found["autoencoded_R@1"] == found["imagined_R@1"] == 1.0
    assert found["autoencoded_psnr"] > 60


def test_models_that_draw_nothing_are_refused(emu: Any, squares: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"model\.visual_decoder"):
        VisualDrawings(squares(shades=1))(zoo.create("emu_tiny", device="meta"), None, CPU)
    with pytest.raises(TypeError, match="got Linear"):
        VisualDrawings(squares(shades=1))(torch.nn.Linear(1, 1), None, CPU)
    with pytest.raises(ValueError, match="batch_size is 0"):
        VisualDrawings([], batch_size=0)
