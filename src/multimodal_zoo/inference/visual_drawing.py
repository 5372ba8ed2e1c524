"""Drawing with Emu and Emu2: prompts to visual embeddings, and these to pictures by diffusion."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image as Pil
from PIL.Image import Image as PilImage
from torch import Tensor, nn

from multimodal_zoo.data.documents import Document, Image, Seen, Text
from multimodal_zoo.data.emu3_processor import sides_of
from multimodal_zoo.data.emu_processor import EmuProcessor
from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.decoders.visual_decoder import LatentDiffusion
from multimodal_zoo.inference.painter import Drawing
from multimodal_zoo.inference.speaking import (
    document_of,
    evaluating,
    for_each,
    listed,
    parts_of,
    ready_processor,
    seeds_of,
    text_of,
)
from multimodal_zoo.inference.visual_memory import changes_of, memory_of
from multimodal_zoo.nn.counted_images import CountedImages

#: Model -> what it makes of nothing: (name, places) -> the state of its weights, and the embeddings.
_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[str, int], tuple[int, Tensor]]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Denoised:
    """A batch of pictures while it is drawn by diffusion; see `live.Unfinished`.

    Attributes:
        decoder: what draws.
        latents: of the pictures, with the noise that is left.
        step: calls of the network so far.
        limit: all of them.
        unit: what is counted.
    """

    decoder: LatentDiffusion = field(repr=False)
    latents: Tensor
    step: int
    limit: int
    unit: ClassVar[str] = "steps"

    @property
    def count(self) -> int:
        """Pictures of the batch."""
        return len(self.latents)

    @property
    def done(self) -> int:
        """The steps so far: each is one of the network over the whole batch."""
        return self.step

    @property
    def whole(self) -> int:
        """All steps."""
        return self.limit

    @property
    def parts(self) -> int:
        """The steps so far: less noise each time."""
        return self.step

    def pictures(self) -> list[PilImage]:
        """The pictures with the noise that is left; the safety checker looks at these too."""
        return [image for image, _ in checked(self.decoder, self.decoder.pixels(self.latents))]


@dataclass(frozen=True)
class VisualPainter:
    """An Emu and how it draws.

    Attributes:
        model: with its visual decoder.
        processor: of the model.
        guidance: scale of classifier-free guidance; None takes the visual decoder's.
        steps: of denoising; None takes the visual decoder's.
        special: whether strings of special tokens in texts become these.
    """

    model: Emu
    processor: EmuProcessor
    guidance: float | None = None
    steps: int | None = None
    special: bool = True

    @property
    def decoder(self) -> LatentDiffusion:
        """The visual decoder."""
        found: Any = self.model.visual_decoder
        return found  # type: ignore[no-any-return]

    def imagined(self, documents: Sequence[Document]) -> Tensor:
        """Visual embeddings of the picture behind each document, `(documents, places, visual_width)`."""
        known = memory_of(self.model).seen(self.model, documents)
        samples = [self.processor.drawing_prompt(one, self.special) for one in known]
        visual = [one.visual for one in samples if one.visual is not None]
        rows, vision = [one.ids for one in samples], [one.vision for one in samples]
        prompts = self.model.prompts(rows, vision, torch.cat(visual) if visual else None, self.processor.ids.pad)
        return self.model.imagine(prompts, self.processor.image_tokens)

    def seen(self, documents: Sequence[Document]) -> Tensor:
        """Visual embeddings of lone pictures, as the image encoder gives them; of the same shape."""
        known: list[Any] = memory_of(self.model).seen(self.model, documents)
        return torch.stack([one.segments[0].visual for one in known])

    def condition(self, documents: Sequence[Document]) -> Tensor:
        """What each document's picture is drawn from: a lone picture's own embeddings, or those that follow."""
        found: dict[int, Tensor] = {}
        for alone, way in ((True, self.seen), (False, self.imagined)):
            places = [place for place, one in enumerate(documents) if is_lone_picture(one) == alone]
            if places:
                found.update(zip(places, way([documents[place] for place in places]), strict=True))
        return torch.stack([found[place] for place in range(len(documents))])

    def nothing(self) -> Tensor:
        """What guidance leads away from: the embeddings behind an empty prompt, (places, visual_width)."""
        return self._once("nothing", lambda: self.imagined([Document([])])[0])

    def blank(self) -> Tensor:
        """What guidance leads away from where a picture is drawn again: the embeddings of zeros (Emu2-Gen)."""
        return self._once("blank", self._blank)

    def _blank(self) -> Tensor:
        side = self.model.image_size
        like = next(one for one in self.model.image_encoder.parameters() if one.is_floating_point())
        pixels = torch.zeros(1, 3, side, side).to(like)
        return self.model.encode(CountedImages(pixels, (self.processor.image_tokens,)))

    def _once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """Embeddings that depend on nothing but the model, made anew where its weights or their type changed."""
        parameters = self.model.parameters()
        now = hash(tuple((id(one), one.data_ptr(), changes_of(one), one.dtype) for one in parameters))
        known = _KNOWN.setdefault(self.model, {})
        key = (name, self.processor.image_tokens)
        if key not in known or known[key][0] != now:
            known[key] = (now, make())
        return known[key][1]

    def against(self, documents: Sequence[Document], negative: Sequence[str | None]) -> Tensor | None:
        """What guidance leads each picture away from, of the shape of `condition`; None where there is no guidance."""
        if (self.decoder.guidance if self.guidance is None else self.guidance) == 1:
            return None
        known: dict[tuple[bool, str | None], Tensor] = {}
        wanted = [(is_lone_picture(one), text) for one, text in zip(documents, negative, strict=True)]
        for kind in wanted:
            if kind not in known:
                alone, text = kind
                away = (self.blank if alone else self.nothing) if text is None else None
                known[kind] = away() if away is not None else self.imagined([document_of(text or "")])[0]
        return torch.stack([known[kind] for kind in wanted])

    def pictures(
        self,
        condition: Tensor,
        against: Tensor | None,
        sizes: Sequence[tuple[int, int]],
        seeds: Sequence[int],
        on_step: Callable[[Denoised], None] | None = None,
    ) -> list[tuple[PilImage, bool]]:
        """Pictures of visual embeddings, and whether the safety checker made them black; those of one size together.

        Args:
            condition: from `condition`.
            against: from `against`.
            sizes: height and width of each, in pixels.
            seeds: one for each.
            on_step: called after every call of the network.
        """

        def tell(step: int, limit: int, latents: Tensor) -> None:
            """Say how far it is."""
            assert on_step is not None
            on_step(Denoised(self.decoder, latents, step, limit))

        found: dict[int, tuple[PilImage, bool]] = {}
        for size in dict.fromkeys(sizes):
            places = [place for place, one in enumerate(sizes) if one == size]
            pixels = self.decoder.decode(
                condition[places],
                None if against is None else against[places],
                size=size,
                steps=self.steps,
                guidance=self.guidance,
                seeds=[seeds[place] for place in places],
                on_step=None if on_step is None else tell,
            )
            found.update(zip(places, checked(self.decoder, pixels), strict=True))
        return [found[place] for place in range(len(sizes))]

    def drawings(
        self,
        documents: Sequence[Document],
        condition: Tensor,
        rows: Sequence[int],
        seeds: Sequence[int],
        made: Sequence[tuple[PilImage, bool]],
    ) -> list[Drawing]:
        """Pictures with what is known of them.

        Args:
            documents: what was asked.
            condition: of each document.
            rows: the document of each picture.
            seeds: of each picture.
            made: from `pictures`.
        """
        ids = [self.processor.drawing_prompt(one, self.special).ids for one in documents]
        found = []
        for row, seed, (image, flagged) in zip(rows, seeds, made, strict=True):
            codes, text = condition[row].float().cpu(), text_of(documents[row])
            found.append(Drawing(image, codes, ids[row], text, seed, flagged))
        return found


def draw_visual(
    model: nn.Module,
    prompts: str | Document | Sequence[str | Document],
    *,
    negative: str | Sequence[str] | None = None,
    ratio: str | Sequence[str] = "1:1",
    area: int | None = None,
    guidance: float | None = None,
    steps: int | None = None,
    seed: int | Sequence[int] = 0,
    per_prompt: int = 1,
    batch_size: int | None = None,
    suffix: str | None = None,
    special: bool = True,
    on_step: Callable[[Denoised], None] | None = None,
) -> list[Drawing]:
    """Draw pictures with an Emu; a picture does not depend on what is drawn beside it.

    Examples, subjects and boxes (`data.grounding`) are documents too. A document of one picture alone is drawn again
    from its own embeddings, as Emu2-Gen does; with a text beside it, an empty one too, the model draws what is next.

    Args:
        model: an Emu with its visual decoder and processor.
        prompts: texts, or documents.
        negative: what guidance leads away from, one for all or one for each; None for the published: the empty prompt.
        ratio: width to height, one for all or one for each.
        area: pixels of a picture; None for that of the visual decoder's square.
        guidance: scale of classifier-free guidance; 1 for none; None takes the visual decoder's.
        steps: of denoising; None takes the visual decoder's.
        seed: of the first picture, the others have those behind it; or one for each picture.
        per_prompt: pictures of each prompt, whose embeddings are made once for all.
        batch_size: pictures drawn at a time; None for all at once.
        suffix: put behind each prompt's last text.
        special: whether strings of special tokens in texts become these, as published; if not, they stay text.
        on_step: called after every call of the network.

    Returns:
        the pictures, those of one prompt behind each other.

    Raises:
        TypeError: a model that does not draw in this way.
        ValueError: no weights, nothing to draw, sizes that do not fit, too many tokens.
    """
    emu, processor = require_painter(model)
    asked = listed(prompts, per_prompt)
    painter = VisualPainter(emu, processor, guidance, steps, special)
    documents = [_with_suffix(document_of(one), suffix) for one in asked]
    sizes = [size_of(painter.decoder, one, area) for one in for_each(ratio, len(asked), "ratio")]
    away = for_each(negative, len(asked), "negative")
    seeds, drawings = seeds_of(seed, len(asked) * per_prompt), []
    with evaluating(emu):
        for part in parts_of(len(seeds), batch_size):
            which = [place // per_prompt for place in range(len(seeds))[part]]
            own = list(dict.fromkeys(which))
            some, rows = [documents[place] for place in own], [own.index(place) for place in which]
            condition, against = painter.condition(some), painter.against(some, [away[place] for place in own])
            each, shapes = None if against is None else against[rows], [sizes[place] for place in which]
            made = painter.pictures(condition[rows], each, shapes, seeds[part], on_step)
            drawings += painter.drawings(some, condition, rows, seeds[part], made)
    return drawings


def require_painter(model: nn.Module) -> tuple[Emu, EmuProcessor]:
    """The model and its processor.

    Raises:
        TypeError: no Emu, or one without a visual decoder or a processor.
        ValueError: no weights.
    """
    if not isinstance(model, Emu) or model.visual_decoder is None:
        raise TypeError(
            "drawing with visual embeddings needs an Emu with a visual decoder "
            f"(visual_decoder@model.visual_decoder=emu, emu2 or tiny), got {type(model).__name__}"
        )
    return model, ready_processor(model, "drawing_prompt", "draw")


def size_of(decoder: LatentDiffusion, ratio: str, area: int | None) -> tuple[int, int]:
    """Height and width of a picture in pixels, as near to what is asked as the decoder's latents tile.

    Args:
        decoder: the visual decoder.
        ratio: width to height, as "4:3".
        area: in pixels; None for that of the decoder's square.

    Raises:
        ValueError: no such ratio, or an area too small.
    """
    wide, high = sides_of(ratio)
    pixels, tile = decoder.size**2 if area is None else area, decoder.tile
    if pixels < 1:
        raise ValueError(f"area is {area}; expected a number of pixels")
    scale = math.sqrt(pixels / (wide * high)) / tile
    rows, columns = round(high * scale), round(wide * scale)
    if not rows or not columns:
        raise ValueError(f"area is {area}; too few pixels for tiles of {tile} x {tile} at {ratio}")
    return rows * tile, columns * tile


def checked(decoder: LatentDiffusion, pixels: Tensor) -> list[tuple[PilImage, bool]]:
    """Pictures of pixels `(rows, 3, height, width)` between 0 and 1, and whether the safety checker made them black."""
    checker: Any = decoder.safety_checker
    flags = torch.zeros(len(pixels), dtype=torch.bool)
    if checker is not None:
        flags = checker(checker.seen(pixels))
        pixels = checker.blackened(pixels, flags)
    levels = (pixels * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return list(zip(map(_picture, levels), flags.tolist(), strict=True))


def is_lone_picture(document: Document) -> bool:
    """Whether a document is one picture and nothing else, not even an empty text."""
    return len(document.segments) == 1 and isinstance(document.segments[0], (Image, Seen))


def _with_suffix(document: Document, suffix: str | None) -> Document:
    last = max((n for n, one in enumerate(document.segments) if isinstance(one, Text)), default=None)
    if not suffix or last is None:
        return document
    segments = list(document.segments)
    text = segments[last]
    assert isinstance(text, Text)
    segments[last] = replace(text, text=text.text + suffix)
    return Document(segments, document.meta)


def _picture(levels: np.ndarray) -> PilImage:
    return Pil.fromarray(levels)
