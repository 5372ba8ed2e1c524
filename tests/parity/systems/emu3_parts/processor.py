"""Emu3's cases: pictures to pixels, prompts, and sequences back to texts and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known
from systems.emu3_parts.texts import tokenizer
from systems.emu3_parts.vision import vision_tokenizer
from torch import Tensor

from multimodal_zoo.data.emu3_processor import Emu3Processor
from multimodal_zoo.data.size_rule import Emu3ImageTransform, SizeRule, UnfitPictureError, area_size
from multimodal_zoo.data.visual_codes import encode_pictures
from multimodal_zoo.generation.prompts import PromptBatch, left_padded
from multimodal_zoo.tokenizers.emu3_vision import Emu3VisionTokenizer

#: The published processor's templates for one visual token.
VISUAL_TEMPLATE = ["<|visual token {token_id:0>6d}|>", r"<\|visual token (\d+)\|>"]


def image_transform(config: Mapping[str, Any]) -> Emu3ImageTransform:
    """Our image transform of a configuration in the published names."""
    known = ("min_pixels", "max_pixels", "spatial_factor", "resample", "image_mean", "image_std", "rescale_factor")
    found = take_known(config, known, "image_processor config")
    assert Fraction(str(found.get("rescale_factor", "1/255"))) == Fraction(1, 255)
    rule = SizeRule(found.get("spatial_factor", 8), found["min_pixels"], found["max_pixels"], 5)
    mean, std = (found.get(name, [0.5, 0.5, 0.5]) for name in ("image_mean", "image_std"))
    return Emu3ImageTransform(rule, mean, std, found.get("resample", "bicubic"))


def processor(case: Case) -> Emu3Processor:
    """Our processor of a case."""
    known = ("vision_tokenizer", "image_processor", "tokenizer", "chat_template", "prefix_template", "visual_template",
             "language_model")  # fmt: skip
    config = take_known(case.config, known, "config")
    assert config.get("prefix_template", "{H}*{W}") == "{H}*{W}"
    assert config.get("visual_template", VISUAL_TEMPLATE) == VISUAL_TEMPLATE
    assert config["tokenizer"].get("padding_side", "left") == "left"
    images = image_transform(config["image_processor"])
    template = config["chat_template"].replace("{image_prompt}", "{image}").replace("{text_prompt}", "{text}")
    texts = tokenizer(case, config["tokenizer"], config["vision_tokenizer"]["codebook_size"])
    return case.once("processor", lambda: Emu3Processor(images, texts, images.rule.largest, template))


def vision(case: Case) -> Emu3VisionTokenizer:
    """Our visual tokenizer of a case, whose weights may stand beside those of a language model."""
    state = {name: tensor for name, tensor in case.state.items() if not name.startswith(("model.", "lm_head."))}
    return case.once("vision", lambda: vision_tokenizer(case.config["vision_tokenizer"], state))


def preprocess(request: Request) -> Outcome:
    """Pixels of one picture."""
    (picture,), (name,) = request.case.take(request.call), request.call.outputs
    transform = image_transform(request.case.config)
    return {name: transform([picture.numpy()])[0][None]}


def postprocess(request: Request) -> Outcome:
    """What pixels show."""
    (pixels,), (name,) = request.case.take(request.call), request.call.outputs
    return {name: torch.from_numpy(image_transform(request.case.config).inverse(pixels))}


def _table(case: Case, name: str, columns: list[str]) -> list[list[Any]]:
    table = take_known(case.fields[name], ("columns", "defaults", "rows", "note"), name)
    assert [column.split(" (")[0] for column in table["columns"]] == columns
    rows: list[list[Any]] = table["rows"]
    return rows


def sizes(case: Case) -> Outcome:
    """The field `smart_resize`."""
    defaults = take_known(case.fields["smart_resize"]["defaults"], ("factor", "min_pixels", "max_pixels"), "defaults")
    rule, found = SizeRule(defaults["factor"], defaults["min_pixels"], defaults["max_pixels"], 5), []
    rows = _table(case, "smart_resize", ["height", "width", "height out", "width out"])
    for high, wide, _, _ in rows:
        try:
            found.append([high, wide, *rule(high, wide)])
        except UnfitPictureError:
            found.append([high, wide, None, None])
    return {"smart_resize": Pair(found, rows)}


def areas(case: Case) -> Outcome:
    """The field `training_area_resize`."""
    rows = _table(case, "training_area_resize", ["height", "width", "area", "height out", "width out"])
    return {"training_area_resize": Pair([[*row[:3], *area_size(*row[:3])] for row in rows], rows)}


def grids(case: Case) -> Outcome:
    """The field `grid_table`."""
    columns = ["ratio", "area in pixels", "spatial factor", "height in tokens", "width in tokens"]
    rows, ours = _table(case, "grid_table", columns), processor(case)
    assert all(row[2] == ours.transform.rule.factor for row in rows)
    return {"grid_table": Pair([[*row[:3], *ours.grid(row[0], row[1])] for row in rows], rows)}


def _batch(rows: list[list[int]], case: Case) -> PromptBatch:
    return left_padded(rows, processor(case).ids.pad)


def generation(request: Request) -> Outcome:
    """Prompts that pictures are drawn behind."""
    ours, (ids, mask, size) = processor(request.case), request.call.outputs
    asked = take_known(request.call.extra["arguments"], ("text", "ratio", "image_area"), "arguments")
    ratios = asked["ratio"] if isinstance(asked["ratio"], list) else [asked["ratio"]] * len(asked["text"])
    wanted = [ours.grid(ratio, asked["image_area"]) for ratio in ratios]
    prompts = [ours.generation_prompt(text, grid) for text, grid in zip(asked["text"], wanted, strict=True)]
    batch = _batch(prompts, request.case)
    return {ids: batch.inputs, mask: batch.real.long(), size: torch.tensor(wanted)}


def understanding(request: Request) -> Outcome:
    """Questions about pictures, whose codes are computed."""
    case, match, names = request.case, request.match, request.call.outputs
    ours, texts = processor(case), case.fields["texts"]
    asked = texts if match["all"] else [texts[int(match["one"])]]
    pixels = ours.images([picture.numpy() for picture in case.take(request.call)])
    codes = encode_pictures(vision(case), pixels, pad=match["pad"] is not None)
    batch = _batch([ours.understanding_prompt(text, [one]) for text, one in zip(asked, codes, strict=True)], case)
    size = torch.tensor([one.shape for one in codes])
    found = {"ids": batch.inputs, "mask": batch.real.long(), "size": size}
    found |= {f"codes_{number}": one[None] for number, one in enumerate(codes)}
    return {name: found[name if name.startswith("codes_") else name.rpartition("_")[2]] for name in names}


def decode(request: Request) -> Outcome:
    """Texts and pictures of a sequence, and the text of one without pictures."""
    case, ours = request.case, processor(request.case)
    (ids,), names = case.take(request.call), request.call.outputs
    pieces: list[str] = []
    shown: list[Tensor] = []
    for piece in ours.pieces(ids.tolist()):
        pieces.append(piece if isinstance(piece, str) else "<image>")
        if not isinstance(piece, str):
            (picture,) = ours.pictures(vision(case).decode(piece[None]))
            shown.append(torch.from_numpy(np.array(picture)))
    plain = case.fields["plain"]
    return {
        **dict(zip(names, shown, strict=True)),
        "pieces": Pair(pieces, case.fields["pieces"]),
        "plain": Pair(ours.pieces(plain["ids"]), [plain["result"]] if plain["result"] else []),
    }


def vision_decode(request: Request) -> Outcome:
    """Pixels of codes without a batch axis."""
    (codes,), (name,) = request.case.take(request.call), request.call.outputs
    return {name: vision(request.case).decode(codes[None])}


#: Further fields of these cases, with a check of what they say, or None for mere inputs.
FIELDS: dict[str, Callable[[Case], Outcome] | None] = {
    "smart_resize": sizes,
    "training_area_resize": areas,
    "grid_table": grids,
    "texts": None,
    "pieces": None,
    "plain": None,
}


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"image_processor\((?:(?:grey|RGBA) )?image\)")(preprocess)
    system.call(r"image_processor\.postprocess\(\w+\)")(postprocess)
    system.call(r"processor\(text, mode='G', ratio, image_area, padding='longest'\)")(generation)
    system.call(
        r"processor\((?:(?P<all>texts, images)|texts\[(?P<one>\d+)\], image_\d+), mode='U'"
        r"(?P<pad>, padding_image=True)?, padding='longest'\)"
    )(understanding)
    system.call(r"decode\(ids\)", lambda case, call: "pieces" in case.fields)(decode)
    system.call(r"vision_decode\(codes\)")(vision_decode)
