"""Synthetic captions by this library's models that write about pictures: Emu, EVE, Emu3-Chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from multimodal_zoo.captions.bounds import require_least
from multimodal_zoo.captions.captioners import LocalCaptioner, Write
from multimodal_zoo.registry import CAPTIONS, find

if TYPE_CHECKING:
    from PIL.Image import Image


@CAPTIONS.register_module(name="zoo_captioner")
def zoo_captioner(
    model: str,
    *,
    question: str = "",
    opening: str = "",
    beams: int = 1,
    max_new_tokens: int = 32,
    batch_size: int = 16,
    when: str = "missing",
    vision_tokenizer: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> LocalCaptioner:
    """A captioner around an Emu, an EVE or an Emu3-Chat.

    Args:
        model: what `zoo.from_pretrained` takes: a training run, a folder of `save_model`, a publisher's folder,
            `hf://organisation/repository`.
        question: what is asked about each picture; empty where the model simply goes on behind it, as a pretrained Emu.
        opening: the beginning of the caption, which the model goes on with and which is no part of the result; not for
            an Emu3, whose document is one question.
        beams: 1 for the likeliest token at every step; Emu was measured with 5.
        max_new_tokens: most tokens of a caption.
        batch_size: pictures at once; halved where memory does not suffice.
        when: `missing`, rows without a synthetic caption; or `always`, all rows with a picture.
        vision_tokenizer: of an Emu3 that is published without: where that lies.
        device: a torch device, or auto: a GPU where there is one.
        dtype: of the weights, or auto: bfloat16 on a GPU, float32 on a CPU.

    Raises:
        FileNotFoundError, ValueError: no such model, or a value that cannot be.
        TypeError: a model that does not write, before its weights are read.
    """
    from multimodal_zoo.captions.hardware import device_of, dtype_of

    require_least("captioner", 1, beams=beams, max_new_tokens=max_new_tokens)
    place = device_of(device, "captioner")
    kind = dtype_of(dtype, place, "captioner")
    facts = {
        "captioner": "zoo_captioner",
        "model": model,
        "vision_tokenizer": vision_tokenizer,
        "fingerprint": _fingerprint(model, vision_tokenizer),
        "dtype": kind,
        "question": question,
        "opening": opening,
        "beams": beams,
        "max_new_tokens": max_new_tokens,
    }

    def load() -> Write:
        """Read the model."""
        found = _loaded(model, vision_tokenizer, place, kind)
        return lambda images: _written(found, images, (question, opening), beams, max_new_tokens)

    return LocalCaptioner(load, facts, batch_size, when)


def _fingerprint(model: str, vision_tokenizer: str | None) -> str:
    """Of the files of a model that writes."""
    from multimodal_zoo.captions.engines.model_files import fingerprint
    from multimodal_zoo.checkpoints.store import recognise
    from multimodal_zoo.inference.writers import require_writer

    source = recognise(model)
    require_writer(find(str(source.config.get("type")), "captioner.model"), "captioner.model")
    beside = [] if vision_tokenizer is None else recognise(vision_tokenizer).files
    return fingerprint([*source.files, *beside])


def _loaded(model: str, vision_tokenizer: str | None, device: str, dtype: str) -> Any:
    from multimodal_zoo.zoo import from_pretrained

    found: Any = from_pretrained(model, vision_tokenizer=vision_tokenizer, device=device, dtype=dtype)
    if str(found.weights).startswith("random"):
        raise ValueError(f"captioner.model: the weights of {model} are {found.weights}; train them first")
    return found


def _written(model: Any, images: Sequence[Image], words: tuple[str, str], beams: int, most: int) -> list[str]:
    """Captions of pictures, behind a question and the beginning of an answer, both of which may be empty."""
    from multimodal_zoo.data.documents import Document, Segment, Text
    from multimodal_zoo.data.documents import Image as Picture
    from multimodal_zoo.generation.beams import Beams
    from multimodal_zoo.inference.chat import answer

    said: list[Segment] = [
        Text(text, role=role) for text, role in zip(words, ("user", "assistant"), strict=True) if text
    ]
    asked = [Document([Picture(image), *said]) for image in images]
    return answer(model, asked, max_new_tokens=most, special=False, beams=Beams(beams) if beams > 1 else None)
