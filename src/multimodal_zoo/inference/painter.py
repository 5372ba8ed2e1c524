"""Pictures and clips by next-token prediction: from prompts to ids, and from ids to pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from PIL import Image
from PIL.Image import Image as PilImage
from torch import Tensor

from multimodal_zoo.data.emu3_processor import Emu3Processor
from multimodal_zoo.decoders.emu3 import Emu3
from multimodal_zoo.generation.loop import Generated, Progress, Scoring
from multimodal_zoo.generation.policies import behind_last
from multimodal_zoo.generation.prompts import left_padded
from multimodal_zoo.generation.sampling import Sampling, Schedule

#: What the published script draws with (baaivision/Emu3, image_generation.py).
GUIDANCE = 3.0
SAMPLING = Sampling(top_k=2048)
#: Pixels that are decoded at a time, in pictures of one size.
DECODED_PIXELS = 2**20
#: What stands for rows that are not drawn yet.
GROUND = (128, 128, 128)


@dataclass(frozen=True, eq=False)
class Drawing:
    """A picture that a model drew.

    Attributes:
        image: the picture.
        codes: what it was decoded from: long (rows, columns), its visual tokens; or float32 (places, visual_width), its
            visual embeddings.
        ids: long (tokens,), the whole sequence from the begin of the prompt to the end; with visual embeddings, up to
            these.
        prompt: the text that it was drawn from, with what was put behind it.
        seed: with which the same model, prompt and settings draw it again.
        flagged: whether a safety checker made it black.
    """

    image: PilImage
    codes: Tensor
    ids: Tensor
    prompt: str
    seed: int
    flagged: bool = False


@dataclass(frozen=True, eq=False)
class Sketches:
    """A batch of pictures while it is drawn token by token; see `live.Unfinished`.

        draw(model, "a red apple", on_step=lambda sketches: display(*sketches.pictures()))

    Attributes:
        painter: what draws.
        ids: long (pictures, tokens of each so far).
        limit: tokens of the longest.
        grids: (rows, columns) of each picture, or (steps, rows, columns) of each clip.
        unit: what is counted.
    """

    painter: Painter = field(repr=False)
    ids: Tensor
    limit: int
    grids: list[tuple[int, ...]]
    unit: ClassVar[str] = "tokens"

    @property
    def step(self) -> int:
        """Tokens of each picture so far."""
        return self.ids.shape[1]

    @property
    def count(self) -> int:
        """Pictures of the batch."""
        return len(self.grids)

    @property
    def done(self) -> int:
        """Tokens of all pictures so far, padding of those that are finished left out."""
        return sum(min(self.step, tokens_of(grid)) for grid in self.grids)

    @property
    def whole(self) -> int:
        """Tokens of all pictures in the end."""
        return sum(map(tokens_of, self.grids))

    @property
    def parts(self) -> int:
        """Finished rows of all pictures, or steps of all clips."""
        return sum(map(len, self.codes()))

    def codes(self) -> list[Tensor]:
        """Each picture's finished rows, long (rows so far, columns), on the CPU; a clip's finished steps."""
        found, known = [], self.painter.processor.ids
        for row, grid in zip(self.ids.cpu(), self.grids, strict=True):
            codes = row[known.is_visual(row)] - known.visual_first
            part = math.prod(grid[1:])
            found.append(codes[: len(codes) // part * part].view(-1, *grid[1:]))
        return found

    def pictures(self) -> list[PilImage]:
        """The rows so far above a grey ground; of a clip the last frame."""
        factor, found = self.painter.processor.transform.rule.factor, []
        for codes, grid in zip(self.codes(), self.grids, strict=True):
            canvas = Image.new("RGB", (grid[-1] * factor, grid[-2] * factor), GROUND)
            if len(codes):
                painter = self.painter
                canvas.paste(painter.pictures([codes])[0] if len(grid) == 2 else painter.clip(codes)[-1], (0, 0))
            found.append(canvas)
        return found


def tokens_of(grid: Sequence[int]) -> int:
    """Ids of a picture (rows, columns) or clip (steps, rows, columns) behind its image token, with the end."""
    if len(grid) == 2:
        return grid[0] * (grid[1] + 1) + 3
    return grid[0] * (grid[1] * grid[2] + 1) + 2


@dataclass(frozen=True)
class Painter:
    """A model and how it draws.

    Attributes:
        model: with its visual tokenizer.
        processor: of the model.
        guidance: scale of classifier-free guidance.
        sampling: how tokens are chosen.
    """

    model: Emu3
    processor: Emu3Processor
    guidance: Schedule = GUIDANCE
    sampling: Sampling = SAMPLING

    def paint(
        self,
        prompts: Sequence[Sequence[int]],
        negative: Sequence[Sequence[int]],
        grids: Sequence[tuple[int, ...]],
        seeds: Sequence[int],
        *,
        given: Sequence[Tensor | None] | None = None,
        on_step: Callable[[Sketches], None] | None = None,
    ) -> Generated:
        """Ids behind prompts that end in an image token.

        Args:
            prompts: ids of each.
            negative: ids of what guidance leads away from, one for each.
            grids: (rows, columns) of each picture, or (steps, rows, columns) of each clip.
            seeds: one for each.
            given: codes that are not drawn; see `generation.policies.picture_layout`.
            on_step: called after every token.
        """
        pad, device = self.processor.ids.pad, self.model.decoder.token_embedding.weight.device
        rows = left_padded(prompts, pad)

        def tell(progress: Progress) -> None:
            """Say how far it is."""
            assert on_step is not None
            on_step(Sketches(self, progress.ids, progress.limit, list(grids)))

        return self.model.generate(
            rows.to(device),
            self.model.picture_steps(rows, grids, given),
            negative=left_padded(negative, pad).to(device),
            sampling=self.sampling,
            scoring=Scoring(self.guidance),
            seeds=seeds,
            on_token=None if on_step is None else tell,
        )

    def codes(
        self, drawn: Generated, grids: Sequence[tuple[int, ...]], prompts: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        """The codes of each picture or clip, long of its grid, on the CPU; prompts may hold first ones of them."""
        known, found = self.processor.ids, []
        for row, grid, prompt in zip(drawn.ids.cpu(), grids, prompts, strict=True):
            begun = behind_last(torch.tensor(list(prompt)), known.image_token)
            whole = torch.cat([begun, row])
            found.append((whole[known.is_visual(whole)] - known.visual_first).view(*grid))
        return found

    def pictures(self, codes: Sequence[Tensor]) -> list[PilImage]:
        """Pictures of codes (rows, columns) each, those of one size decoded together."""
        device = next(self.model.tokenizer().parameters()).device
        found: dict[int, PilImage] = {}
        for shape in dict.fromkeys(one.shape for one in codes):
            places = [place for place, one in enumerate(codes) if one.shape == shape]
            pixels = shape.numel() * self.processor.transform.rule.factor**2
            together = max(1, DECODED_PIXELS // pixels)
            for start in range(0, len(places), together):
                part = places[start : start + together]
                batch = torch.stack([codes[place] for place in part]).to(device)
                found |= dict(zip(part, self.processor.pictures(self.model.decode(batch).cpu()), strict=True))
        return [found[place] for place in range(len(codes))]

    def clip(self, codes: Tensor) -> list[PilImage]:
        """The frames of codes (steps, rows, columns)."""
        device = next(self.model.tokenizer().parameters()).device
        return self.processor.pictures(self.model.decode(codes[None].to(device))[0].cpu())
