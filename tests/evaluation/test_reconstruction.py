"""Reconstruction of pictures and clips: figures by hand and by scikit-image, use of the codebook, the sheet."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo.data.documents import Document, Image, Video
from multimodal_zoo.data.emu3_processor import Emu3PictureProcessor
from multimodal_zoo.data.size_rule import Emu3ImageTransform, SizeRule
from multimodal_zoo.evaluation.reconstruction import Reconstruction, batches, fidelity, psnr
from multimodal_zoo.evaluation.samples import evenly


class Rounding(nn.Module):
    """A visual tokenizer of one code for a picture: the rounded mean of its values, which decoding repeats."""

    codebook_size = 5

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def encode(self, pixels: Tensor) -> Tensor:
        return ((pixels.mean((-1, -2, -3)) + 1) * 2).round().long()[..., None, None]

    def decode(self, codes: Tensor) -> Tensor:
        return (codes.float() / 2 - 1)[..., None].expand(*codes.shape[:-2], 3, 16, 16)


class Documents:
    """Grey pictures of given values, or clips of them."""

    def __init__(self, values: list[int], clips: bool = False) -> None:
        self.pictures = [np.full((16, 16, 3), value, np.uint8) for value in values]
        self.clips = clips

    def __len__(self) -> int:
        return 1 if self.clips else len(self.pictures)

    def __iter__(self) -> Iterator[Document]:
        if self.clips:
            yield Document([Video(list(self.pictures), 12.0)], {"key": "clip"})
            return
        for picture in self.pictures:
            yield Document([Image(picture)], {"key": "picture"})


def processor(size: int = 256) -> Emu3PictureProcessor:
    rule = SizeRule(factor=8, smallest=size, largest=size, ratio=5)
    return Emu3PictureProcessor(Emu3ImageTransform(rule, [0.5] * 3, [0.5] * 3))


def measure(dataset: Any, **arguments: Any) -> Any:
    return Reconstruction(dataset, **arguments)(Rounding(), processor(), torch.device("cpu"))


def test_fidelity_is_scikit_images() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    torch.manual_seed(0)
    given = torch.rand(3, 3, 24, 20)
    made = (given + 0.1 * torch.randn_like(given)).clamp(0, 1)
    psnr, ssim = fidelity(made, given)
    for number in range(3):
        first, second = (side[number].double().movedim(0, -1).numpy() for side in (given, made))
        assert float(psnr[number]) == pytest.approx(
            metrics.peak_signal_noise_ratio(first, second, data_range=1), rel=1e-5
        )
        theirs = metrics.structural_similarity(
            first, second, data_range=1, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert float(ssim[number]) == pytest.approx(theirs, abs=2e-2)  # borders are treated differently


def test_figures_of_known_errors() -> None:
    result = measure(Documents([0, 255, 64, 64]), batch_size=3)
    error = (64 / 255 - 0.25) ** 2
    assert result.metrics["psnr"] == pytest.approx((2 * 100 - 2 * 10 * np.log10(error)) / 4, rel=1e-4)
    assert result.metrics["codebook_usage"] == pytest.approx(3 / 5)
    assert result.metrics["perplexity"] == pytest.approx(2**1.5)
    assert result.metrics["pictures"] == 4
    assert result.headline[0] == "psnr"
    picture = PilImage.open(io.BytesIO(result.figures["sheet"].png))
    assert picture.width > picture.height
    assert "5" in result.tables[1].rows[0][1]
    assert "sheet" not in measure(Documents([0]), shown=0).figures


def test_frames_of_clips_count_one_by_one() -> None:
    pictures, clip = measure(Documents([0, 100, 200])), measure(Documents([0, 100, 200], clips=True))
    assert clip.metrics == pytest.approx(pictures.metrics)


def test_frames_without_a_code_are_not_compared() -> None:
    import multimodal_zoo as zoo

    model = zoo.create("emu3_vision_tiny", overrides=["model.encoder.temporal_factor=4"])
    result = Reconstruction(Documents([0, 50, 100, 150, 200], clips=True))
    assert result(model, model.processor, torch.device("cpu")).metrics["pictures"] == 4


def test_batches_end_where_sizes_change() -> None:
    sizes = [(16, 16), (16, 16), (16, 16), (32, 16), (16, 32), (16, 32)]
    documents = [Document([Image(np.zeros((*size, 3), np.uint8))], {}) for size in sizes]
    rule = SizeRule(factor=8, smallest=64, largest=4096, ratio=5)
    found = list(batches(documents, Emu3PictureProcessor(Emu3ImageTransform(rule, [0.5] * 3, [0.5] * 3)), 2))
    assert [tuple(part.shape) for part in found] == [(2, 3, 16, 16), (1, 3, 16, 16), (1, 3, 32, 16), (2, 3, 16, 32)]


def test_chosen_documents() -> None:
    assert evenly(10, 5) == [0, 2, 4, 6, 8]
    assert evenly(3, 5) == [0, 1, 2]
    assert evenly(7, 0) == evenly(0, 7) == []


def test_the_tokenizer_is_in_evaluation_mode_meanwhile() -> None:
    tokenizer, modes = Rounding().train(), []
    encode = tokenizer.encode
    tokenizer.encode = lambda pixels: modes.append(tokenizer.training) or encode(pixels)
    Reconstruction(Documents([0, 255]), shown=0)(tokenizer, processor(), torch.device("cpu"))
    assert modes == [False]
    assert tokenizer.training


def test_equal_pictures_have_a_bounded_psnr() -> None:
    picture = torch.rand(2, 3, 16, 16)
    assert psnr(picture, picture).tolist() == pytest.approx([100.0, 100.0])
    assert psnr(picture * 0, picture * 0 + 0.1).tolist() == pytest.approx([20.0, 20.0])


def test_the_real_tokenizer_and_a_decoder_that_holds_one() -> None:
    import multimodal_zoo as zoo

    model = zoo.create("emu3_vision_tiny")
    holder = nn.Module()
    holder.vision_tokenizer = model
    results = [
        Reconstruction(Documents([10, 200]))(one, model.processor, torch.device("cpu")) for one in (model, holder)
    ]
    assert results[0].metrics == results[1].metrics
    pixels = torch.stack(model.processor.images(Documents([10, 200]).pictures))
    made = model.decode(model.encode(pixels))
    errors = ((made.clamp(-1, 1) - pixels) / 2).square().mean((1, 2, 3))
    assert_close(torch.tensor(results[0].metrics["psnr"]), (-10 * errors.log10()).mean(), atol=1e-3, rtol=1e-4)


def test_what_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="no usable document"):
        measure(Documents([]))
    with pytest.raises(ValueError, match="Linear is none"):
        Reconstruction(Documents([0]))(nn.Linear(1, 1), processor(), torch.device("cpu"))
    with pytest.raises(ValueError, match="batch_size is 0"):
        Reconstruction(Documents([0]), batch_size=0)
