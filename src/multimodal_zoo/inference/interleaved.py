"""Pages of words and pictures by an Emu: texts and pictures in, texts and pictures out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.data.documents import Document, Image, Seen, Segment, Text
from multimodal_zoo.generation.interleaved import PageLayout, WrittenPage, interleave
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.inference.emu_writer import EmuWriter
from multimodal_zoo.inference.speaking import document_of, evaluating, parts_of, seeds_of
from multimodal_zoo.inference.visual_drawing import VisualPainter
from multimodal_zoo.inference.writers import writer_of


@dataclass(frozen=True, eq=False)
class Page:
    """What a model went on with.

    Attributes:
        segments: texts and pictures in order, said by the assistant where the model has roles; pictures are `Image`
            where a visual decoder drew them, and `Seen`, their embeddings, where there is none.
        visual: float32 (places, visual_width), the embeddings of each picture.
        ended: whether the model ended it, and not the limit.
    """

    segments: list[Segment]
    visual: list[Tensor]
    ended: bool

    @property
    def text(self) -> str:
        """Its texts, one behind the other."""
        return " ".join(one.text for one in self.segments if isinstance(one, Text))

    def read(self) -> list[Segment]:
        """The segments with embeddings in place of drawn pictures, as the model read them: to go on behind them."""
        known = iter(self.visual)
        return [one if isinstance(one, Text) else Seen(next(known)) for one in self.segments]


def write_pages(
    model: nn.Module,
    documents: str | Document | Sequence[str | Document],
    *,
    max_new_tokens: int = 512,
    pictures: int = 4,
    sampling: Sampling | None = None,
    guidance: float | None = None,
    seed: int | Sequence[int] = 0,
    batch_size: int | None = None,
    special: bool = True,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Page]:
    """Go on behind documents with words and pictures; a page does not depend on what is written beside it.

    A model opens pictures by itself only where its training had `[IMG]` as a target (`data.learn.openings=true`); the
    published losses leave it out, so that published weights go on in words alone.

    Args:
        model: an Emu with its processor; its visual decoder, if there is one, draws the pictures.
        documents: texts, pages of texts and pictures, or conversations.
        max_new_tokens: most steps of a page: words, and the embeddings of each picture.
        pictures: most pictures of a page.
        sampling: how words are chosen; None takes the likeliest.
        guidance: of the visual decoder; None takes its own.
        seed: of the first page, the others have those behind it; or one for each.
        batch_size: pages written at a time; None for all at once.
        special: whether strings of special tokens in texts become these; if not, they stay text.
        on_step: called after every step of a batch with how many there are, and the limit.

    Raises:
        TypeError: another model.
        ValueError: more tokens than the decoder has positions.
    """
    writer = writer_of(model, "write_pages")
    if not isinstance(writer, EmuWriter):
        raise TypeError(f"write_pages needs an Emu (emu_tiny, emu2_tiny, ...), got {type(model).__name__}")
    asked = [document_of(one) for one in ([documents] if isinstance(documents, (str, Document)) else documents)]
    seeds, painter = seeds_of(seed, len(asked)), VisualPainter(writer.model, writer.processor, guidance)
    layout, found = _layout(writer.processor, max_new_tokens, pictures), []
    with evaluating(model) as device:
        for part in parts_of(len(asked), batch_size):
            prompts = writer.prompts(asked[part], special, device)
            pages = interleave(writer.model, prompts, layout, sampling=sampling, seeds=seeds[part], on_step=on_step)
            found += [_page(painter, one, number) for one, number in zip(pages, seeds[part], strict=True)]
    return found


def _layout(processor: Any, limit: int, pictures: int) -> PageLayout:
    ids = processor.ids
    others = (ids.pad, ids.image, ids.frame, ids.video, ids.user, ids.assistant, ids.bos)
    never = tuple(sorted({one for one in others if one is not None} - {ids.eos}))
    return PageLayout(limit, ids.image_begin, ids.image_end, ids.eos, processor.image_tokens, pictures, never)


def _page(painter: VisualPainter, page: WrittenPage, seed: int) -> Page:
    role = "assistant" if painter.processor.template.roles else None
    visual = [part for part in page.parts if part.ndim == 2]
    shown: list[Segment] = [Seen(one) for one in visual]
    if visual and painter.model.visual_decoder is not None:
        side, count = painter.decoder.size, len(visual)
        scale = painter.decoder.guidance if painter.guidance is None else painter.guidance
        against = None if scale == 1 else painter.nothing().expand(count, -1, -1)
        seeds = [seed + number for number in range(count)]
        drawn = painter.pictures(torch.stack(visual), against, [(side, side)] * count, seeds)
        shown = [Image(image) for image, _ in drawn]
    left = iter(shown)
    segments: list[Segment] = []
    for part in page.parts:
        segments.append(next(left) if part.ndim == 2 else Text(painter.processor.decode(part.tolist()).strip(), role))
    return Page(segments, [one.float().cpu() for one in visual], page.ended)
