"""What drawing and answering share: checks of a model that draws, and prompts from texts and documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from multimodal_zoo.data.documents import Codes, Document, Text
from multimodal_zoo.data.visual_codes import with_codes
from multimodal_zoo.decoders.emu3 import Emu3
from multimodal_zoo.nn.modes import evaluation_mode

if TYPE_CHECKING:
    from multimodal_zoo.data.emu3_processor import Emu3Processor


def ready_processor(model: nn.Module, method: str, purpose: str) -> Any:
    """The processor of a model that has weights.

    Args:
        model: any.
        method: what the processor must have.
        purpose: what it is needed for, for the error.

    Raises:
        TypeError: no processor, or one without the method.
        ValueError: a model without weights.
    """
    processor = getattr(model, "processor", None)
    if not hasattr(processor, method):
        raise TypeError(f"{purpose} needs model.processor with a tokenizer ({method}), got {processor!r}")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError(f"{purpose} needs weights, and the model was made on the meta device: load some into it")
    return processor


def require_speaker(model: nn.Module, purpose: str, pixels: bool = False) -> tuple[Emu3, Emu3Processor]:
    """The model and its processor.

    Args:
        model: any.
        purpose: what it is needed for, for the error.
        pixels: whether it needs its visual tokenizer.

    Raises:
        TypeError: it is no model that reads and writes tokens of pictures, or has no processor.
        ValueError: no weights, or no visual tokenizer where one is needed.
    """
    if not isinstance(model, Emu3):
        raise TypeError(f"{purpose} needs an Emu3 (emu3_gen, emu3_chat, emu3_tiny, ...), got {type(model).__name__}")
    processor = ready_processor(model, "generation_prompt", purpose)
    if pixels:
        model.tokenizer()
    return model, processor


def parts_of(count: int, batch_size: int | None) -> list[slice]:
    """Which of `count` results are made together.

    Raises:
        ValueError: a batch size below one.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1, or none for all at once")
    size = batch_size or max(1, count)
    return [slice(start, start + size) for start in range(0, count, size)]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode, without gradients; afterwards as it was. Gives the device of the weights."""
    with evaluation_mode(model), torch.no_grad():
        yield next(model.parameters()).device


def listed(prompts: str | Document | Sequence[str | Document], per_prompt: int) -> list[str | Document]:
    """One prompt or several as a list.

    Raises:
        ValueError: nothing to draw.
    """
    asked = [prompts] if isinstance(prompts, (str, Document)) else list(prompts)
    if not asked or per_prompt < 1:
        raise ValueError(f"{len(asked)} prompts, {per_prompt} pictures of each: there is nothing to draw")
    return asked


def seeds_of(seed: int | Sequence[int], count: int) -> list[int]:
    """One seed for each of several results: the number given and those behind it, or the ones listed.

    Raises:
        ValueError: another number of them.
    """
    seeds = [seed + number for number in range(count)] if isinstance(seed, int) else list(seed)
    if len(seeds) != count:
        raise ValueError(f"seed lists {len(seeds)} for {count} results; give one for each, or a single number")
    return seeds


def for_each(value: Any, count: int, name: str) -> list[Any]:
    """A value for each of several prompts: a list as it is, anything else repeated.

    Raises:
        ValueError: a list of another length.
    """
    values = list(value) if isinstance(value, (list, tuple)) else [value] * count
    if len(values) != count:
        raise ValueError(f"{name} lists {len(values)} for {count} prompts; give one for each, or one for all")
    return values


def encoded(
    model: Emu3, processor: Emu3Processor, documents: Sequence[Document], device: torch.device
) -> list[Document]:
    """The documents with codes in place of their pictures and clips; the visual tokenizer is needed for these alone."""
    if all(isinstance(segment, (Text, Codes)) for one in documents for segment in one.segments):
        return list(documents)
    vision = model.tokenizer()
    return with_codes(documents, vision, processor.transform, device=device)


def opening(processor: Emu3Processor, size: Sequence[int]) -> list[int]:
    """What a picture (rows, columns) or clip (steps, rows, columns) begins with: start, size, image token."""
    ids = processor.ids
    return [ids.image_start, *processor.text_ids("*".join(map(str, size))), ids.image_token]


def prompt_ids(processor: Emu3Processor, document: Document, suffix: str, special: bool) -> list[int]:
    """Begin, then texts and pictures of a document in their order, and a suffix.

    Args:
        processor: of the model.
        document: texts and codes.
        suffix: put behind the last text.
        special: as in `Emu3Tokenizer.encode`.
    """
    last = max((n for n, segment in enumerate(document.segments) if isinstance(segment, Text)), default=-1)
    row = [processor.ids.bos]
    for number, segment in enumerate(document.segments):
        if isinstance(segment, Text):
            row += processor.text_ids(segment.text + (suffix if number == last else ""), special)
        elif isinstance(segment, Codes):
            row += processor.image_ids(segment.codes)
    return row


def document_of(prompt: str | Document) -> Document:
    """A document of a text; a document as it is."""
    return prompt if isinstance(prompt, Document) else Document([Text(prompt)])


def text_of(document: Document) -> str:
    """All texts of a document, one behind the other."""
    return "".join(segment.text for segment in document.segments if isinstance(segment, Text))
