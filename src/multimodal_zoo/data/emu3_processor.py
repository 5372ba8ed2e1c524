"""What must match Emu3's weights: the pictures' sizes, the tokenizer, and how prompts are laid out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from PIL.Image import Image as PilImage
from torch import Tensor

from multimodal_zoo.data.documents import Picture
from multimodal_zoo.data.pictures import PathLike
from multimodal_zoo.data.size_rule import Emu3ImageTransform
from multimodal_zoo.registry import DATASETS
from multimodal_zoo.tokenizers.emu3_ids import Emu3Ids
from multimodal_zoo.tokenizers.emu3_pictures import as_codes, clip_ids, picture_ids, read_clip, read_picture, spans
from multimodal_zoo.tokenizers.emu3_text import Emu3Tokenizer

#: How clips may be laid out. Emu3 never published how its own are; None refuses clips.
VIDEO_LAYOUTS = (None, "univla_video")


def sides_of(ratio: str) -> tuple[int, int]:
    """Width and height of a ratio as "4:3".

    Raises:
        ValueError: no such ratio.
    """
    found = re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", ratio)
    wide, high = (int(side) for side in found.groups()) if found else (0, 0)
    if not wide or not high:
        raise ValueError(f"ratio is {ratio!r}; expected width:height in whole numbers, as 4:3")
    return wide, high


@DATASETS.register_module(name="emu3_picture_processor")
class Emu3PictureProcessor:
    """Pictures for a visual tokenizer, and its pixels as pictures.

    Args:
        images: the image transform.
    """

    def __init__(self, images: Emu3ImageTransform) -> None:
        self.transform = images

    def images(self, pictures: Sequence[Picture | PathLike | bytes]) -> list[Tensor]:
        """Each picture as float (3, height, width), of the size that the rule gives it; see `Emu3ImageTransform`."""
        return self.transform(pictures)

    def pictures(self, pixels: Tensor) -> list[PilImage]:
        """PIL images of pixels (batch, 3, height, width), as the visual tokenizer decodes them."""
        return self.transform.pictures(pixels)


@DATASETS.register_module(name="emu3_processor")
class Emu3Processor(Emu3PictureProcessor):
    """Texts, pictures and clips to ids in Emu3's published layouts, and back.

    Args:
        images: the image transform.
        texts: the tokenizer.
        image_area: pixels of a drawn picture: 518,400 of Emu3-Gen, 262,144 of the others.
        understanding: a question about pictures, with places `{image}` and `{text}`.
        prompt_suffix: what is put behind prompts for drawing (published script).
        negative_prompt: what drawing is guided away from (published script).
        video: how clips are laid out: None refuses them, since Emu3's own way was never published; `univla_video` is
            that of the same group's UniVLA.

    Attributes:
        ids: which id means what.

    Raises:
        ValueError: a template without its places, or an unknown layout of clips.
    """

    def __init__(
        self,
        images: Emu3ImageTransform,
        texts: Emu3Tokenizer,
        image_area: int,
        understanding: str,
        prompt_suffix: str = "",
        negative_prompt: str = "",
        video: str | None = None,
    ) -> None:
        super().__init__(images)
        if understanding.count("{text}") != 1 or understanding.count("{image}") != 1:
            raise ValueError(f"processor.understanding is {understanding!r}; it needs {{image}} and {{text}} once each")
        if video not in VIDEO_LAYOUTS:
            raise ValueError(f"processor.video is {video!r}; it must be null or univla_video")
        self.tokenizer, self.image_area, self.understanding, self.video = texts, image_area, understanding, video
        self.prompt_suffix, self.negative_prompt = prompt_suffix, negative_prompt
        self._sizes: dict[str, list[int]] = {}

    @cached_property
    def ids(self) -> Emu3Ids:
        """Which id means what."""
        return self.tokenizer.ids

    def text_ids(self, text: str, special: bool = True) -> list[int]:
        """The ids of a text, nothing in front or behind; `special` as in `Emu3Tokenizer.encode`."""
        return self.tokenizer.encode([text], special)[0]

    def _size(self, sides: Sequence[int]) -> list[int]:
        text = "*".join(map(str, sides))
        if text not in self._sizes:
            self._sizes[text] = self.text_ids(text)
        return self._sizes[text]

    def picture(self, codes: Tensor | np.ndarray) -> Tensor:
        """A picture (rows, columns) or a clip (steps, rows, columns) as ids, long (tokens,).

        Raises:
            ValueError: codes outside of the codebook, another shape, or a clip where `video` is None.
        """
        if codes.ndim == 3 and self.video is None:
            raise ValueError(
                "how Emu3 lays out clips was never published: set processor.video=univla_video for the layout of UniVLA"
            )
        known = as_codes(codes, self.ids, 3 if codes.ndim == 3 else 2)
        lay_out = clip_ids if known.ndim == 3 else picture_ids
        return lay_out(known, self._size(known.shape), self.ids)

    def image_ids(self, codes: Tensor | np.ndarray) -> list[int]:
        """As `picture`, as a list."""
        ids: list[int] = self.picture(codes).tolist()
        return ids

    def grid(self, ratio: str, area: int | None = None) -> tuple[int, int]:
        """Rows and columns of visual tokens of a drawn picture.

        Args:
            ratio: width to height, as "4:3".
            area: pixels; None takes `image_area`.

        Raises:
            ValueError: no such ratio, or an area too small for one token.
        """
        rule, area = self.transform.rule, self.image_area if area is None else area
        wide, high = sides_of(ratio)
        if area < 1:
            raise ValueError(f"area is {area}; expected a number of pixels")
        scale = math.sqrt(area / (wide * high))
        rows, columns = round(high * scale / rule.factor), round(wide * scale / rule.factor)
        if not rows or not columns:
            raise ValueError(f"area is {area}; too few pixels for tokens of {rule.factor} x {rule.factor} at {ratio}")
        return rows, columns

    def check_ratio(self, ratio: str) -> None:
        """Refuse a ratio that no picture of the model's data has; `grid` itself takes any, as published.

        Raises:
            ValueError: no such ratio, or one beyond that of the size rule.
        """
        limit = self.transform.rule.ratio
        if max(sides_of(ratio)) > limit * min(sides_of(ratio)):
            raise ValueError(f"ratio is {ratio}; at most {limit:g}:1 or 1:{limit:g} (processor.images.rule.ratio)")

    def generation_prompt(self, text: str, grid: tuple[int, int], special: bool = True) -> list[int]:
        """What a picture is drawn behind: begin, text, start of the picture, "rows*columns", image token.

        Args:
            text: the prompt, as it is (`prompt_suffix` is the caller's business).
            grid: rows and columns of visual tokens.
            special: as in `Emu3Tokenizer.encode`.
        """
        ids = self.ids
        return [ids.bos, *self.text_ids(text, special), ids.image_start, *self._size(grid), ids.image_token]

    def understanding_prompt(
        self, text: str, codes: Sequence[Tensor | np.ndarray] = (), special: bool = True
    ) -> list[int]:
        """What an answer is written behind: begin, and `understanding` with pictures and text in their places.

        Args:
            text: the question.
            codes: pictures or clips, one behind the other where the template has its picture; none for text alone.
            special: as in `Emu3Tokenizer.encode`.
        """
        row = [self.ids.bos]
        for part, _ in self.filled(self.understanding, text, codes, special):
            row += part.tolist()
        return row

    def filled(
        self, template: str, text: str, codes: Sequence[Tensor | np.ndarray], special: bool = True
    ) -> Iterator[tuple[Tensor, bool]]:
        """A template with a text and pictures in its places: long (tokens,) each, and whether it is a picture.

        Args:
            template: has places `{image}` and `{text}`.
            text: for its place.
            codes: pictures or clips, one behind the other in their place; none leaves it empty.
            special: as in `Emu3Tokenizer.encode`.
        """
        waiting = ""  # text on both sides of a place is tokenised together
        for part in re.split(r"(\{image\}|\{text\})", template):
            if part == "{image}" and len(codes):
                yield torch.tensor(self.text_ids(waiting, special), dtype=torch.long), False
                yield from ((self.picture(one), True) for one in codes)
                waiting = ""
            elif part != "{image}":
                waiting += text if part == "{text}" else part
        yield torch.tensor(self.text_ids(waiting, special), dtype=torch.long), False

    def pieces(self, ids: Iterable[int]) -> list[str | Tensor]:
        """Texts and codes of a sequence in order; the strings of special tokens stay in the texts.

        Args:
            ids: of a whole sequence; a picture that has no end yet is text.

        Returns:
            strings, and long (rows, columns) or (steps, rows, columns); empty strings are left out.

        Raises:
            ValueError: a picture with rows of different lengths.
        """
        row, found, start = [int(number) for number in ids], [], 0
        for first, end in spans(row, self.ids):
            codes = self._read(row[first + 1 : end - 1])
            if codes is not None:
                found += [self.decode(row[start:first], skip_special=False), codes]
                start = end
        found.append(self.decode(row[start:], skip_special=False))
        return [piece for piece in found if not isinstance(piece, str) or piece]

    def _read(self, inside: list[int]) -> Tensor | None:
        if self.video is not None and self.ids.image_token in inside:
            before = self.decode(inside[: inside.index(self.ids.image_token)], skip_special=False)
            if re.fullmatch(r"\d+\*\d+\*\d+", before):
                return read_clip(inside, [int(side) for side in before.split("*")], self.ids)
        return read_picture(inside, self.ids)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of some ids; without `skip_special` the strings of special and visual tokens are in it."""
        return self.tokenizer.decode(ids, skip_special)
