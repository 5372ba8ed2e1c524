"""How well a visual tokenizer gives pictures back: PSNR, SSIM, use of the codebook, and a sheet to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.data.documents import Document, Video
from multimodal_zoo.evaluation import pictures
from multimodal_zoo.evaluation.features import evaluating
from multimodal_zoo.evaluation.result import Picture, Result, Table
from multimodal_zoo.evaluation.samples import (
    attribution_of,
    describe,
    documents_of,
    evenly,
    nothing_usable,
    size_of,
    skipped,
)
from multimodal_zoo.registry import EVALUATORS

#: Mean squared errors below this count as this: equal pictures would have an infinite PSNR.
SMALLEST = 1e-10


@EVALUATORS.register_module(name="reconstruction")
class Reconstruction:
    """Encodes and decodes the pictures or clips of a dataset (arXiv 2409.18869, table 2, reports the same figures).

    PSNR and SSIM are means over pictures, or over the frames of clips, of values from 0 to 1 that are cut off there.
    SSIM is torchmetrics' with its Gaussian window of 11 pixels (Wang et al., 2004).

    Args:
        dataset: documents with a picture or a video each.
        batch_size: pictures in a forward pass; those of one size that follow one another share one.
        shown: pictures on the sheet, evenly spread over the dataset.

    Raises:
        ValueError: a batch size below 1 or a negative number of pictures.
    """

    def __init__(self, dataset: Any, batch_size: int = 32, shown: int = 24) -> None:
        if batch_size < 1 or shown < 0:
            raise ValueError(f"batch_size is {batch_size} and shown {shown}; expected at least 1 and at least 0")
        self.dataset, self.batch_size, self.shown = dataset, batch_size, shown

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """The figures and the sheet.

        Raises:
            ValueError: no usable document, or a model that does not encode pictures.
        """
        tokenizer = getattr(model, "vision_tokenizer", None) or model
        if not hasattr(tokenizer, "codebook_size"):
            raise ValueError(f"reconstruction needs a visual tokenizer; {type(model).__name__} is none and has none")
        transform = processor.transform
        scale, shift = transform.std.view(3, 1, 1), transform.mean.view(3, 1, 1)
        size = size_of(self.dataset)
        wanted = range(self.shown) if size is None else evenly(size, self.shown)  # of a stream the first ones
        found = _Found(torch.zeros(int(tokenizer.codebook_size)), set(wanted))
        with evaluating(tokenizer):
            for pixels in batches(documents_of(self.dataset), processor, self.batch_size):
                made, codes = _through(tokenizer, pixels.to(device))
                if pixels.ndim == 5:
                    pixels = pixels[:, : made.shape[1]]  # frames behind the last whole code do not come back
                given, made = ((side.cpu() * scale + shift).clamp(0, 1) for side in (pixels, made))
                found.add(given, made, codes.cpu())
        if not found.psnr:
            raise nothing_usable(self.dataset)
        return self._result(found)

    def _result(self, found: _Found) -> Result:
        decibels, ssim = torch.cat(found.psnr), torch.cat(found.ssim)
        shares = found.counts / found.counts.sum()
        metrics = {
            "psnr": float(decibels.mean()),
            "ssim": float(ssim.mean()),
            "codebook_usage": float((found.counts > 0).float().mean()),
            "perplexity": float(torch.special.entr(shares).sum().exp()),
            "pictures": float(len(decibels)),
        }
        rows = [
            ("PSNR, dB", metrics["psnr"], float(decibels.quantile(0.1)), float(decibels.quantile(0.9))),
            ("SSIM", metrics["ssim"], float(ssim.quantile(0.1)), float(ssim.quantile(0.9))),
        ]
        use = [("codes that occur", f"{int((found.counts > 0).sum())} of {len(found.counts)}")]
        use.append(("perplexity of the codes", f"{metrics['perplexity']:.1f}"))
        tables = [
            Table(f"reconstruction of {len(decibels)} pictures of {describe(self.dataset)}",
                  ("figure", "mean", "10th percentile", "90th percentile"), rows),
            Table("use of the codebook", ("figure", "value"), use),
        ]  # fmt: skip
        caption = "Originals above what the tokenizer makes of their codes, with the PSNR in dB."
        figures = {"sheet": Picture(_sheet(found.kept), caption)} if found.kept else {}
        details = {"attribution": attribution_of(self.dataset), "skipped": skipped(self.dataset)}
        headline = ("psnr", "ssim", "codebook_usage", "perplexity")
        return Result("reconstruction", metrics, tables, figures, details, headline)


@dataclass
class _Found:
    """What is collected batch by batch.

    Attributes:
        counts: how often each code occurred.
        wanted: numbers of the documents that go on the sheet.
        psnr: of each picture or frame.
        ssim: of each picture or frame.
        kept: original, reconstruction and PSNR of those documents, clips by their first frames.
        seen: documents so far.
    """

    counts: Tensor
    wanted: set[int]
    psnr: list[Tensor] = field(default_factory=list)
    ssim: list[Tensor] = field(default_factory=list)
    kept: list[tuple[Tensor, Tensor, float]] = field(default_factory=list)
    seen: int = 0

    def add(self, given: Tensor, made: Tensor, codes: Tensor) -> None:
        """Count a batch in: pixels from 0 to 1, (batch, [frames,] 3, height, width)."""
        decibels, ssim = fidelity(made.flatten(0, -4), given.flatten(0, -4))
        self.psnr.append(decibels)
        self.ssim.append(ssim)
        self.counts += torch.bincount(codes.flatten(), minlength=len(self.counts)).float()
        first = decibels.view(len(given), -1)[:, 0].tolist()
        for number in range(len(given)):
            if self.seen + number in self.wanted:
                pair = (side[number] if given.ndim == 4 else side[number, 0] for side in (given, made))
                self.kept.append((*pair, first[number]))
        self.seen += len(given)


def fidelity(made: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """PSNR in dB and SSIM of each picture, (pictures,).

    Args:
        made: (pictures, 3, height, width), from 0 to 1; both sides are at least 11 pixels long.
        given: of the same shape.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    ssim = structural_similarity_index_measure(made, given, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)
    return psnr(made, given), ssim.reshape(-1)


def psnr(made: Tensor, given: Tensor) -> Tensor:
    """Of each picture in dB, (pictures,); both (pictures, 3, height, width), from 0 to 1."""
    errors = (made - given).square().mean((1, 2, 3)).clamp_min(SMALLEST)
    return -10 * errors.log10()


def batches(documents: Iterable[Document], processor: Any, batch_size: int) -> Iterator[Tensor]:
    """Pixels (batch, [frames,] 3, height, width) of documents in order; a batch ends where another size begins."""
    held: list[Tensor] = []
    for document in documents:
        video = next((segment for segment in document.segments if isinstance(segment, Video)), None)
        if video is None:
            pixels = processor.images([document.image])[0]
        else:
            pixels = torch.stack(list(processor.images(video.frames)))
        if held and (len(held) == batch_size or held[0].shape != pixels.shape):
            yield torch.stack(held)
            held = []
        held.append(pixels)
    if held:
        yield torch.stack(held)


def _through(tokenizer: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """What decoding gives, in float32, and the codes."""
    dtype = next(tokenizer.parameters()).dtype
    codes = tokenizer.encode(pixels.to(dtype))
    return tokenizer.decode(codes).float(), codes


def _sheet(kept: list[tuple[Tensor, Tensor, float]]) -> bytes:
    """Rows of originals, each above the row of their reconstructions."""
    columns = min(8, len(kept))
    axes = pictures.canvas(columns * 1.05, -(-len(kept) // columns) * 2.2)
    for place, (given, made, psnr) in enumerate(kept):
        left, top = (place % columns) * 1.05, (place // columns) * 2.2
        for side, pixels in enumerate((given, made)):
            array = (pixels.movedim(0, -1) * 255).round().to(torch.uint8).numpy()
            pictures.place_picture(axes, array, left, top + 0.95 * side, "miss")
        axes.text(left + 0.5, top + 1.93, f"{psnr:.1f}", ha="center", va="top", fontsize=7, color=pictures.INK)
    return pictures.encode(axes.figure)
