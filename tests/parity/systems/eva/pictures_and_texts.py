"""EVA-CLIP's pre-processing: what becomes of a picture and of a text before the towers see them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from harness.cases import Case
from harness.run import Outcome, Pair, Request
from harness.words import take_known, written_call
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from multimodal_zoo.config import compose
from multimodal_zoo.data.processor import pad_ids
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.registry import build
from multimodal_zoo.tokenizers.clip_bpe import ClipTokenizer

SPECIAL = ("<start_of_text>", "<end_of_text>")


def picture(case: Case, name: str, pixels: Tensor) -> Image.Image:
    """The PIL image of an input, in the mode that the case's field `modes` names."""
    mode = case.fields["modes"][name]
    array = np.ascontiguousarray(pixels.numpy())
    image = Image.frombytes(mode, (array.shape[1], array.shape[0]), array.tobytes())
    assert Image.getmodebands(mode) == (1 if array.ndim == 2 else array.shape[2]), f"{name}: {mode}, {array.shape}"
    return image


def transform(case: Case, size: int, resize: str) -> ImageTransform:
    """The transform that a published variant declares, with the numbers of the case."""
    known = {"image_size", "mean", "std", "interpolation", "pillow", "torchvision"}
    config = take_known(case.config, known, "config")
    declared = case.once("declared", lambda: compose(None, ["+model=eva_clip_l14"]).model.processor.images)
    node = OmegaConf.to_container(declared, resolve=True)
    assert isinstance(node, dict)
    numbers = {"mean": config["mean"], "std": config["std"], "interpolation": config["interpolation"].split()[0]}
    return build({**node, **numbers, "size": size, "resize": resize})


def prepared(request: Request, size: int, resize: str) -> Outcome:
    """The one input as a tensor, given as a picture."""
    (name,), (output,) = request.call.inputs, request.call.outputs
    image = picture(request.case, name, request.case.tensors[name])
    return {output: transform(request.case, size, resize)([image])[0]}


def image_transform(request: Request) -> Outcome:
    """The published evaluation transform; its arguments stand in the method."""
    call = written_call(request.call.method)
    known = {"image_size", "is_train", "resize_longest_max", "fill_color", "mean", "std"}
    given = take_known(call.kwargs, known, request.call.method)
    size = call.args[0] if call.args else given.get("image_size", request.case.config["image_size"])
    assert len(call.args) <= 1, f"one positional argument is understood, not {call.args}"
    assert given.get("is_train", False) is False, "the training transform is random: no golden numbers can exist"
    assert given.get("fill_color", 0) == 0, "only zero padding is published"
    for key in ("mean", "std"):
        assert given.get(key) in (None, key, request.case.config[key]), f"{key}: {given[key]!r} is not the config's"
    return prepared(request, size, "pad" if given.get("resize_longest_max") else "shorter_crop")


def squash_transform(request: Request) -> Outcome:
    """Both sides to the target, no crop."""
    return prepared(request, int(request.match["size"]), "squash")


def tokenizer(case: Case, context_length: int) -> ClipTokenizer:
    """Our tokenizer of a case's configuration, whose ids must be the published ones."""
    known = {"context_length", "vocab_size", "start_id", "end_id", "pad_id"}
    config = take_known(case.config, known, "config")
    made = ClipTokenizer(context_length, config["vocab_size"], special=SPECIAL)
    ids = {"start_id": made.start_id, "end_id": made.end_id, "pad_id": made.pad_id, "vocab_size": made.vocab_size}
    assert {key: config[key] for key in ids if key in config} == {key: ids[key] for key in ids if key in config}
    return made


def tokenize(request: Request) -> Outcome:
    """The field `texts`, padded to the context; rows that were cut are counted."""
    call = written_call(request.call.method)
    given = take_known(call.kwargs, {"context_length"}, request.call.method)
    assert call.args == ("texts",), f"the argument `texts` is understood, not {call.args}"
    length = given.get("context_length", request.case.config["context_length"])
    texts: list[str] = request.case.fields["texts"]
    made = tokenizer(request.case, length)
    ids = full_rows(made.encode(texts), length, made.pad_id)
    cut = sum(len(made.words(text)) > length - 2 for text in texts)
    (output,) = request.call.outputs
    return {output: ids, "truncated texts": Pair(made.truncated, cut)}


def full_rows(rows: list[list[int]], length: int, pad_id: int) -> Tensor:
    """Ids (texts, length): ragged rows padded to the whole context, as the reference pads."""
    ids = pad_ids(rows, pad_id)
    return torch.nn.functional.pad(ids, (0, length - ids.shape[1]), value=pad_id)


def decoded(case: Case) -> Outcome:
    """The field `decoded`: what each text is after encoding and decoding, from ragged and from padded rows."""
    made = tokenizer(case, case.config["context_length"])
    expected: Any = case.fields["decoded"]
    numbered = expected.items() if isinstance(expected, dict) else enumerate(expected)
    outcome: dict[str, Pair] = {}
    for number, text in numbered:
        (row,) = made.encode([case.fields["texts"][int(number)]])
        outcome[f"decoded {number}"] = Pair(made.decode(row), text.strip())
        outcome[f"decoded {number}, padded"] = Pair(made.decode([*row, made.pad_id]), text.strip())
    return outcome
