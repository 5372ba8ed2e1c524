"""Synthetic captions by any model of transformers that turns a picture into text: BLIP, GIT, ViT-GPT2, LLaVA, ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from multimodal_zoo.captions.bounds import require_least
from multimodal_zoo.captions.captioners import LocalCaptioner, Write
from multimodal_zoo.packages import needed
from multimodal_zoo.registry import CAPTIONS

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


@CAPTIONS.register_module(name="transformers_captioner")
def transformers_captioner(
    model: str,
    *,
    prompt: str = "",
    beams: int = 1,
    max_new_tokens: int = 32,
    batch_size: int = 16,
    when: str = "missing",
    device: str = "auto",
    dtype: str = "auto",
) -> LocalCaptioner:
    """A captioner around an image-to-text model of transformers.

    Args:
        model: a folder of Hugging Face, or `hf://organisation/repository`.
        prompt: the beginning of the caption (BLIP, GIT), or what a model with a chat template is asked; it is no part
            of the result. Empty for none; a chat model needs one.
        beams: 1 for the likeliest token at every step.
        max_new_tokens: most tokens of a caption.
        batch_size: pictures at once; halved where memory does not suffice.
        when: `missing`, rows without a synthetic caption; or `always`, all rows with a picture.
        device: a torch device, or auto: a GPU where there is one.
        dtype: of the weights, or auto: bfloat16 on a GPU, float32 on a CPU.

    Raises:
        FileNotFoundError, ValueError: no such folder, or a value that cannot be.
    """
    from multimodal_zoo.captions.engines.model_files import fingerprint
    from multimodal_zoo.captions.hardware import device_of, dtype_of
    from multimodal_zoo.checkpoints.locate import resolve

    require_least("captioner", 1, beams=beams, max_new_tokens=max_new_tokens)
    place, folder = device_of(device, "captioner"), resolve(model)
    if not (folder / "config.json").is_file():
        raise ValueError(f"captioner.model is {model}; expected a folder with a config.json, as Hugging Face has them")
    kind = dtype_of(dtype, place, "captioner")
    files = sorted(one for one in folder.iterdir() if one.is_file() and not one.name.startswith("."))
    facts = {
        "captioner": "transformers_captioner",
        "model": model,
        "fingerprint": fingerprint(files),
        "dtype": kind,
        "prompt": prompt,
        "beams": beams,
        "max_new_tokens": max_new_tokens,
    }

    def load() -> Write:
        """Read the model and what prepares its pictures and texts."""
        found, reader = _loaded(str(folder), place, kind)
        decoding = {"num_beams": beams, "max_new_tokens": max_new_tokens}
        return lambda images: _written(found, reader, images, prompt, decoding)

    return LocalCaptioner(load, facts, batch_size, when)


def _loaded(folder: str, device: str, dtype: str) -> tuple[Any, Any]:
    import torch

    transformers = needed("transformers", "transformers_captioner", "captions")
    try:
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=getattr(torch, dtype), local_files_only=True, trust_remote_code=False
        )
    except ValueError as error:
        raise ValueError(f"captioner.model: {folder} is no image-to-text model of transformers ({error})") from error
    return model.eval().to(device), _Reader.of(transformers, folder)


class _Reader:
    """What prepares pictures and texts for a model: one processor, or an image processor beside a tokenizer."""

    def __init__(self, images: Any, tokenizer: Any, whole: Any) -> None:
        self.images, self.tokenizer, self.whole = images, tokenizer, whole
        self.tokenizer.padding_side = "left"  # prompts of chat models differ in length with their pictures

    @classmethod
    def of(cls, transformers: Any, folder: str) -> _Reader:
        """What lies in a folder: older models have no processor of their own."""
        whole = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if hasattr(whole, "image_processor") and hasattr(whole, "tokenizer"):
            return cls(whole.image_processor, whole.tokenizer, whole)
        images = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return cls(
            images,
            transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
            None,
        )

    def inputs(self, images: Sequence[Image], prompt: str) -> Any:
        """Tensors for `generate`; without a prompt, pictures alone."""
        import torch

        if self.whole is not None and getattr(self.whole, "chat_template", None):
            if not prompt:
                raise ValueError("captioner.prompt is empty, and the model is one that is asked: say what to ask it")
            turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
            text = self.whole.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            return self.whole(
                images=[[one] for one in images], text=[text] * len(images), padding=True, return_tensors="pt"
            )
        found = self.images(images=list(images), return_tensors="pt")
        if prompt:
            rows = torch.tensor([self.opening(prompt)] * len(images))
            found.update({"input_ids": rows, "attention_mask": torch.ones_like(rows)})
        return found

    def opening(self, prompt: str) -> list[int]:
        """The beginning of a caption in ids, without what ends a text."""
        ids: list[int] = self.tokenizer(prompt).input_ids
        while ids and ids[-1] in (self.tokenizer.sep_token_id, self.tokenizer.eos_token_id):
            ids = ids[:-1]
        return ids


def _written(model: Any, reader: _Reader, images: Sequence[Image], prompt: str, decoding: dict[str, int]) -> list[str]:
    """Captions of pictures: what is new, without the prompt."""
    import torch
    from transformers import BlipForConditionalGeneration

    given = reader.inputs(images, prompt).to(model.device)
    given["pixel_values"] = given["pixel_values"].to(model.dtype)
    known = given.get("input_ids")
    if known is not None and isinstance(model, BlipForConditionalGeneration):  # it takes the last id for an ending
        for name, filler in (("input_ids", reader.tokenizer.sep_token_id), ("attention_mask", 1)):
            given[name] = torch.nn.functional.pad(given[name], (0, 1), value=filler)
    with torch.inference_mode():
        rows = model.generate(**given, **decoding, do_sample=False)
    new = rows if known is None else rows[:, _read(rows, known) :]
    return list(reader.tokenizer.batch_decode(new, skip_special_tokens=True))


def _read(rows: Tensor, known: Tensor) -> int:
    """Ids that rows of answers begin with and that were given; models whose encoder reads these answer without them."""
    count = known.shape[1]
    first = min(1, count - 1)  # the very first id may have become the model's own beginning, or stand behind it
    for place in (0, 1):
        if rows.shape[1] >= place + count and bool((rows[:, place + first : place + count] == known[:, first:]).all()):
            return place + count
    return 0
