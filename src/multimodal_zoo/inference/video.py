"""Clips as tokens: drawn from texts, and through the visual tokenizer and back.

How Emu3 lays out clips was never published. Drawing takes the layout of UniVLA (arXiv 2506.19850) where the processor
is set to it; a model that was not trained on it cannot follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL.Image import Image as PilImage
from torch import Tensor, nn

from multimodal_zoo.data.documents import Picture
from multimodal_zoo.data.visual_codes import encode_clip
from multimodal_zoo.generation.sampling import Sampling, Schedule
from multimodal_zoo.inference.autoencode import visual_tokenizer
from multimodal_zoo.inference.painter import GUIDANCE, SAMPLING, Painter, Sketches
from multimodal_zoo.inference.speaking import (
    document_of,
    evaluating,
    for_each,
    opening,
    prompt_ids,
    require_speaker,
    seeds_of,
)
from multimodal_zoo.inference.text_to_image import grid_of


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip of tokens.

    Attributes:
        frames: its pictures, in order of time.
        codes: long (steps, rows, columns).
    """

    frames: list[PilImage]
    codes: Tensor


def draw_video(
    model: nn.Module,
    prompts: str | Sequence[str],
    *,
    frames: int,
    negative: str | Sequence[str] | None = None,
    ratio: str | Sequence[str] = "1:1",
    area: int | None = None,
    guidance: Schedule | None = None,
    sampling: Sampling | None = None,
    seed: int | Sequence[int] = 0,
    special: bool = True,
    given: Sequence[Tensor | None] | None = None,
    on_step: Callable[[Sketches], None] | None = None,
) -> list[Clip]:
    """Draw clips; all but the following as in `draw`.

    Args:
        model: an Emu3 whose processor has `video: univla_video`.
        prompts: texts.
        frames: of each clip, a multiple of the visual tokenizer's `temporal_factor`.
        negative: what guidance leads away from.
        ratio: width to height.
        area: pixels of a frame.
        guidance: scale of classifier-free guidance.
        sampling: how tokens are chosen.
        seed: of the first clip, or one for each.
        special: whether strings of special tokens in texts become these.
        given: first steps of each clip, long (steps, rows, columns), to go on from.
        on_step: called after every token.

    Raises:
        TypeError: a model that does not draw.
        ValueError: a processor without a layout for clips, a number of frames that the tokenizer does not make.
    """
    emu3, processor = require_speaker(model, "draw_video")
    factor = int(emu3.tokenizer().temporal_factor)
    if processor.video is None:
        raise ValueError(
            "how Emu3 lays out clips was never published: set processor.video=univla_video for the layout of UniVLA"
        )
    if frames < factor or frames % factor:
        raise ValueError(f"frames is {frames}; the visual tokenizer makes them in multiples of {factor}")
    asked = [prompts] if isinstance(prompts, str) else list(prompts)
    sizes = [grid_of(processor, one, area) for one in for_each(ratio, len(asked), "ratio")]
    grids: list[tuple[int, ...]] = [(frames // factor, *size) for size in sizes]
    against = for_each(processor.negative_prompt if negative is None else negative, len(asked), "negative")
    rows, others = (
        [
            [*prompt_ids(processor, document_of(text), suffix, special), *opening(processor, grid)]
            for text, grid in zip(texts, grids, strict=True)
        ]
        for texts, suffix in ((asked, processor.prompt_suffix), (against, ""))
    )
    painter = Painter(emu3, processor, GUIDANCE if guidance is None else guidance, sampling or SAMPLING)
    with evaluating(emu3):
        drawn = painter.paint(rows, others, grids, seeds_of(seed, len(asked)), given=given, on_step=on_step)
        return [Clip(painter.clip(codes), codes) for codes in painter.codes(drawn, grids, rows)]


def reconstruct_video(model: nn.Module, frames: Sequence[Picture]) -> Clip:
    """Encode and decode a clip.

    Args:
        model: a visual tokenizer, or an Emu3 with one.
        frames: pictures of one size, in order of time; a multiple of the tokenizer's `temporal_factor`.

    Raises:
        TypeError, ValueError: a model without a visual tokenizer; another number of frames, or frames that differ in
            size.
    """
    vision, processor = visual_tokenizer(model, "reconstruct_video")
    with evaluating(vision) as device:
        codes = encode_clip(vision, processor.transform, frames, device)
        return Clip(processor.pictures(vision.decode(codes[None].to(device))[0].cpu()), codes)
