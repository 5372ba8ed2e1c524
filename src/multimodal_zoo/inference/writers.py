"""Models that answer in words, behind one interface: how each lays out questions, reads pictures and ends answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from multimodal_zoo.data.documents import Codes, Document, Segment, Text
from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.decoders.emu3 import Emu3
from multimodal_zoo.decoders.eve import Eve
from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.prompts import PromptBatch, left_padded
from multimodal_zoo.inference.emu_writer import EmuWriter
from multimodal_zoo.inference.speaking import encoded, ready_processor
from multimodal_zoo.inference.template_ids import answer_ids, question_ids
from multimodal_zoo.nn.patch_cells import joined


class Writer(Protocol):
    """A model that writes about documents."""

    @property
    def model(self) -> Any:
        """The model; `model.decoder` is its causal decoder."""
        ...

    @property
    def processor(self) -> Any:
        """What must match its weights."""
        ...

    @property
    def turns(self) -> bool:
        """Whether a document may be a conversation: questions and answers by turns."""
        ...

    def seen(self, documents: Sequence[Document], device: torch.device) -> list[Document]:
        """Documents as several questions about them may use them, with the costly part of reading pictures done."""
        ...

    def prompts(self, documents: Sequence[Document], special: bool, device: torch.device) -> PromptBatch:
        """What answers are written behind, padded on the left.

        Args:
            documents: a question each, and pictures where it asks about any.
            special: whether strings of special tokens in texts become these.
            device: where the model is.

        Raises:
            ValueError: a document that is no question of this model.
        """
        ...

    def blank(self, question: str, device: torch.device) -> PromptBatch:
        """What a text stands behind where there is no picture, of one row: the baseline of a picture's gain."""
        ...

    def continuation(self, question: str, text: str, end: bool) -> list[int]:
        """The ids of a text behind `prompts`; strings in it never become special tokens.

        Args:
            question: what is asked; empty where the model goes on behind a picture.
            text: the answer.
            end: whether what ends an answer is part of it.
        """
        ...

    def steps(self, limit: int) -> FreeText:
        """Any ids up to the end of an answer, `limit` at most."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, or of the beginning of one."""
        ...


@dataclass(frozen=True, eq=False)
class Emu3Writer:
    """Emu3: pictures become codes, one text behind them is the question; a text alone is one too."""

    model: Emu3
    processor: Any
    turns: ClassVar[bool] = False

    def seen(self, documents: Sequence[Document], device: torch.device) -> list[Document]:
        """Codes in place of pictures, see `Writer`."""
        return encoded(self.model, self.processor, documents, device)

    def prompts(self, documents: Sequence[Document], special: bool, device: torch.device) -> PromptBatch:
        """The processor's `understanding`, see `Writer`."""
        rows = [
            self.processor.understanding_prompt(_question(one), _codes(one), special)
            for one in self.seen(documents, device)
        ]
        return left_padded(rows, self.processor.ids.pad).to(device)

    def blank(self, question: str, device: torch.device) -> PromptBatch:
        """The beginning of a sequence: the question counts as part of the picture's gain."""
        del question
        return left_padded([[self.processor.ids.bos]], self.processor.ids.pad).to(device)

    def continuation(self, question: str, text: str, end: bool) -> list[int]:
        """See `Writer`."""
        del question
        return [*self.processor.text_ids(text, special=False), *([self.processor.ids.eos] if end else [])]

    def steps(self, limit: int) -> FreeText:
        """See `Writer`."""
        return self.model.text_steps(limit)

    def decode(self, ids: Sequence[int]) -> str:
        """Without special and visual tokens."""
        text: str = self.processor.decode(ids)
        return text


@dataclass(frozen=True, eq=False)
class EveWriter:
    """EVE and other models that read embedded pictures; the processor's template lays out conversations."""

    model: Eve
    processor: Any
    turns: ClassVar[bool] = True

    def seen(self, documents: Sequence[Document], device: torch.device) -> list[Document]:
        """Pictures as they are: cutting them into patches costs little."""
        del device
        return list(documents)

    def prompts(self, documents: Sequence[Document], special: bool, device: torch.device) -> PromptBatch:
        """The processor's template up to where the answer begins, see `Writer`; pictures may differ in size."""
        del device  # the model places its inputs itself
        samples = [self.processor.prompt(one, special=special) for one in documents]
        cells = [one.cells for one in samples if one.cells is not None]
        rows, vision = [one.ids for one in samples], [one.vision for one in samples]
        return self.model.prompts(rows, vision, joined(cells) if cells else None, self.processor.ids.pad)

    def blank(self, question: str, device: torch.device) -> PromptBatch:
        """The question without a picture; without a question, what a sequence begins with."""
        ids = self.processor.ids
        row = question_ids(self.processor, _user(question)) or [ids.eos if ids.bos is None else ids.bos]
        return left_padded([row], ids.pad).to(device)

    def continuation(self, question: str, text: str, end: bool) -> list[int]:
        """What the template has behind the prompt for this answer, see `Writer`.

        Raises:
            ValueError: a template that does not go on from its own prompt.
        """
        return answer_ids(self.processor, _user(question), text, end)

    def steps(self, limit: int) -> FreeText:
        """See `Writer`."""
        return FreeText(limit, self.processor.ids.eos, self.processor.ids.pad)

    def decode(self, ids: Sequence[int]) -> str:
        """Without special tokens, and without the spaces around (published scripts)."""
        text: str = self.processor.decode(ids)
        return text.strip()


#: Class of a model -> its writer, and what its processor must offer.
WRITERS: dict[type[nn.Module], tuple[type[Emu3Writer] | type[EveWriter] | type[EmuWriter], str]] = {
    Emu3: (Emu3Writer, "understanding_prompt"),
    Eve: (EveWriter, "prompt"),
    Emu: (EmuWriter, "prompt"),
}


def require_writer(kind: object, purpose: str) -> type[nn.Module]:
    """The class of `WRITERS` that a class of models belongs to.

    Args:
        kind: the class, or what else a configuration names.
        purpose: as for `writer_of`.

    Raises:
        TypeError: its models do not write.
    """
    for writing in WRITERS:
        if isinstance(kind, type) and issubclass(kind, writing):
            return writing
    names = " or an ".join(one.__name__ for one in WRITERS)
    raise TypeError(
        f"{purpose} needs an {names} (emu3_chat, eve_7b, emu2_chat, ...), got {getattr(kind, '__name__', kind)}"
    )


def writer_of(model: nn.Module, purpose: str) -> Writer:
    """The model as something that writes.

    Args:
        model: any, with its processor.
        purpose: what it is needed for, for the error.

    Raises:
        TypeError: a model that does not write, or has no processor for it.
        ValueError: a model without weights.
    """
    maker, wanted = WRITERS[require_writer(type(model), purpose)]
    return maker(model, ready_processor(model, wanted, purpose))  # type: ignore[arg-type]


def _question(document: Document) -> str:
    texts = [segment.text for segment in document.segments if isinstance(segment, Text)]
    if len(texts) > 1:
        raise ValueError(
            f"document {document.key!r} has {len(texts)} texts; a question is one text behind its pictures"
        )
    return texts[0] if texts else ""


def _codes(document: Document) -> list[Any]:
    return [segment.codes for segment in document.segments if isinstance(segment, Codes)]


def _user(question: str) -> list[Segment]:
    return [Text(question, role="user")] if question else []
