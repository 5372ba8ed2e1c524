"""Drawing pictures from texts, or from texts and pictures: by next-token prediction, or from visual embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.emu3_processor import Emu3Processor
from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.generation.sampling import Sampling, Schedule
from multimodal_zoo.inference.live import Unfinished
from multimodal_zoo.inference.painter import GUIDANCE, SAMPLING, Drawing, Painter, Sketches
from multimodal_zoo.inference.speaking import (
    document_of,
    encoded,
    evaluating,
    for_each,
    listed,
    opening,
    parts_of,
    prompt_ids,
    require_speaker,
    seeds_of,
    text_of,
)
from multimodal_zoo.inference.visual_drawing import draw_visual


def draw(
    model: nn.Module,
    prompts: str | Document | Sequence[str | Document],
    *,
    negative: str | Sequence[str] | None = None,
    ratio: str | Sequence[str] = "1:1",
    area: int | None = None,
    guidance: Schedule | None = None,
    sampling: Sampling | None = None,
    steps: int | None = None,
    seed: int | Sequence[int] = 0,
    per_prompt: int = 1,
    batch_size: int | None = None,
    suffix: str | None = None,
    special: bool = True,
    given: Sequence[Tensor | None] | None = None,
    on_step: Callable[[Unfinished], None] | None = None,
) -> list[Drawing]:
    """Draw pictures: `draw(zoo.create("emu3_tiny"), "a red apple", seed=1)[0].image.save("apple.png")`.

    A picture does not depend on what is drawn beside it; those of one prompt come behind each other.

    Args:
        model: an Emu3 with its visual tokenizer and processor; or an Emu with its visual decoder, see `draw_visual`.
        prompts: texts; or documents of texts and pictures, which the model sees before it draws.
        negative: what guidance leads away from, one for all or one for each; None takes the processor's.
        ratio: width to height, one for all or one for each.
        area: pixels of a picture, within the bounds of `processor.images.rule`; None takes the processor's.
        guidance: scale of classifier-free guidance, or one for each token; 1 for none; None for the published one.
        sampling: how tokens are chosen; None for the published top-k of 2,048; Emu3 only.
        steps: of denoising; None takes the visual decoder's; Emu only.
        seed: of the first picture, the others have those behind it; or one for each picture.
        per_prompt: pictures of each prompt, which is read once for all.
        batch_size: pictures drawn at a time; None for all at once.
        suffix: put behind each prompt; None takes the processor's.
        special: whether strings of special tokens in texts become these, as published; if not, they stay text.
        given: codes that are not drawn: a picture's first rows, or all with -1 where one is to be drawn; Emu3 only.
        on_step: called after every token with `Sketches`; after every step of an Emu's visual decoder with `Denoised`.

    Raises:
        TypeError: a model that does not draw, or does not take some of this.
        ValueError: no visual tokenizer, an area or ratio out of bounds, too many tokens.
    """
    if isinstance(model, Emu):
        _refuse("draw token by token; an Emu draws by diffusion", sampling=sampling, given=given)
        return draw_visual(
            model, prompts, negative=negative, ratio=ratio, area=area, guidance=_one_number(guidance), steps=steps,
            seed=seed, per_prompt=per_prompt, batch_size=batch_size, suffix=suffix, special=special, on_step=on_step,
        )  # fmt: skip
    _refuse("draw by diffusion (Emu)", steps=steps)
    emu3, processor = require_speaker(model, "draw", pixels=True)
    asked = listed(prompts, per_prompt)
    grids = [grid_of(processor, one, area) for one in for_each(ratio, len(asked), "ratio")]
    against = for_each(processor.negative_prompt if negative is None else negative, len(asked), "negative")
    painter = Painter(emu3, processor, GUIDANCE if guidance is None else guidance, sampling or SAMPLING)
    with evaluating(emu3) as device:
        documents = encoded(emu3, processor, [document_of(one) for one in asked], device)
        wanted = [_wanted(processor, *one, suffix, special) for one in zip(documents, against, grids, strict=True)]
        each = [one for one in wanted for _ in range(per_prompt)]
        return _in_batches(painter, each, seeds_of(seed, len(each)), given, batch_size, on_step)


def _refuse(others: str, **options: object) -> None:
    """Refuse what only models that draw in another way take."""
    for name, value in options.items():
        if value is not None:
            shown = f"{name}={value}" if isinstance(value, int) else name
            raise TypeError(f"{shown} is for models that {others}: leave it out")


def _one_number(guidance: Schedule | None) -> float | None:
    if guidance is None or isinstance(guidance, (int, float)):
        return guidance
    raise TypeError(f"guidance lists {len(guidance)} numbers, one for each token; an Emu takes one number")


@dataclass(frozen=True)
class _Wanted:
    """One picture that is to be drawn."""

    prompt: list[int]
    negative: list[int]
    grid: tuple[int, int]
    text: str


def _wanted(
    processor: Emu3Processor,
    document: Document,
    negative: str,
    grid: tuple[int, int],
    suffix: str | None,
    special: bool,
) -> _Wanted:
    start, suffix = opening(processor, grid), processor.prompt_suffix if suffix is None else suffix
    prompt = prompt_ids(processor, document, suffix, special) + start
    other = prompt_ids(processor, document_of(negative), "", special) + start
    text = text_of(document)
    return _Wanted(prompt, other, grid, text + suffix if text else "")


def _in_batches(
    painter: Painter,
    wanted: Sequence[_Wanted],
    seeds: Sequence[int],
    given: Sequence[Tensor | None] | None,
    batch_size: int | None,
    on_step: Callable[[Sketches], None] | None,
) -> list[Drawing]:
    known = [None] * len(wanted) if given is None else for_each(list(given), len(wanted), "given")
    drawings: list[Drawing] = []
    for part in parts_of(len(wanted), batch_size):
        now, dice = wanted[part], seeds[part]
        prompts, grids = [one.prompt for one in now], [one.grid for one in now]
        drawn = painter.paint(prompts, [one.negative for one in now], grids, dice, given=known[part], on_step=on_step)
        codes = painter.codes(drawn, grids, prompts)
        images = painter.pictures(codes)
        for number, one in enumerate(now):
            ids = torch.cat([torch.tensor(one.prompt), drawn.ids[number, : int(drawn.lengths[number])].cpu()])
            drawings.append(Drawing(images[number], codes[number], ids, one.text, dice[number]))
    return drawings


def grid_of(processor: Emu3Processor, ratio: str, area: int | None) -> tuple[int, int]:
    """Rows and columns of a picture.

    Raises:
        ValueError: a ratio or an area out of the bounds of `processor.images.rule`.
    """
    rule = processor.transform.rule
    wanted = processor.image_area if area is None else area
    if not rule.smallest <= wanted <= rule.largest:
        raise ValueError(
            f"area is {wanted} pixels; pictures of this model have {rule.smallest} to {rule.largest} "
            "(processor.images.rule.smallest and .largest)"
        )
    processor.check_ratio(ratio)
    return processor.grid(ratio, wanted)
