"""Emu and Emu2 as models that answer in words; see `writers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from multimodal_zoo.data.documents import Document, Segment, Text
from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.generation.beams import Beams
from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.prompts import PromptBatch, left_padded
from multimodal_zoo.inference.template_ids import answer_ids, question_ids
from multimodal_zoo.inference.visual_memory import memory_of

#: Use -> beams and most tokens of an answer, as published (baaivision/Emu: Emu1/inference.py, Emu1/mm_eval, Emu2).
PUBLISHED: dict[str, tuple[Beams, int]] = {
    "emu": (Beams(5, 0.0, 1), 50),
    "emu_example": (Beams(5, 0.0, 1), 128),
    "emu_caption": (Beams(5, 0.0, 1), 512),
    "emu_video": (Beams(5, 1.0, 1), 128),
    "coco": (Beams(5, -1.0, 8), 20),
    "vqa": (Beams(5, -1.0, 1), 20),
    "vizwiz_answerable": (Beams(5, 0.0, 1), 50),
    "mm_vet": (Beams(5, 1.0, 1), 128),
    "emu2": (Beams(5, -1.0, 1), 10),
    "emu2_chat": (Beams(5, 2.0, 1), 1024),
}


class EmuWriter:
    """Emu and Emu2: pictures become visual embeddings, each once; the processor's template lays out documents.

    Args:
        model: an Emu.
        processor: of the model (`emu_processor`).
    """

    turns: ClassVar[bool] = True

    def __init__(self, model: Emu, processor: Any) -> None:
        self.model, self.processor = model, processor

    def seen(self, documents: Sequence[Document], device: torch.device) -> list[Document]:
        """Visual embeddings in place of pictures, see `Writer`."""
        del device  # the memory places its inputs itself
        return memory_of(self.model).seen(self.model, documents)

    def prompts(self, documents: Sequence[Document], special: bool, device: torch.device) -> PromptBatch:
        """The processor's template up to where the model goes on, see `Writer`."""
        samples = [self.processor.prompt(one, special=special) for one in self.seen(documents, device)]
        visual = [one.visual for one in samples if one.visual is not None]
        rows, places = [one.ids for one in samples], [one.vision for one in samples]
        return self.model.prompts(rows, places, torch.cat(visual) if visual else None, self.processor.ids.pad)

    def blank(self, question: str, device: torch.device) -> PromptBatch:
        """The question without a picture; without a question, what a sequence begins with."""
        row = question_ids(self.processor, self._user(question)) or [self.processor.ids.eos]
        return left_padded([row], self.processor.ids.pad).to(device)

    def continuation(self, question: str, text: str, end: bool) -> list[int]:
        """See `Writer`; where the template has no roles the text goes on as it is.

        Raises:
            ValueError: a template that does not go on from its own prompt.
        """
        if not self.processor.template.roles:
            return [*self.processor.text_ids(text, special=False), *([self.processor.ids.eos] if end else [])]
        return answer_ids(self.processor, self._user(question), text, end)

    def steps(self, limit: int) -> FreeText:
        """See `Writer`."""
        return FreeText(limit, self.processor.ids.eos, self.processor.ids.pad)

    def decode(self, ids: Sequence[int]) -> str:
        """Up to where a picture would begin, without special tokens and the spaces around."""
        row, opening = list(ids), self.processor.ids.image_begin
        text: str = self.processor.decode(row[: row.index(opening)] if opening in row else row)
        return text.strip()

    def _user(self, question: str) -> list[Segment]:
        return [Text(question, "user")] if question or self.processor.template.roles else []
