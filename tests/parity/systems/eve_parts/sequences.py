"""EVE's cases of sequence assembly: pictures put in the places of their placeholders, with labels and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from harness.cases import Call, Case
from harness.run import Outcome, Request, System
from harness.words import take_known
from systems.eve_parts.shared import (
    batch_of,
    decoder,
    kept_tokens,
    row_of_ids,
    shown_pictures,
    v1_embedding,
    v2_embedding,
)
from torch import Tensor

from multimodal_zoo.checkpoints.tables.eve import EVE, EVE_V2
from multimodal_zoo.data.picture_sequences import Row
from multimodal_zoo.decoders.eve import Eve
from multimodal_zoo.nn.masked_canvas import cells_of_canvas
from multimodal_zoo.nn.patch_cells import PatchCells, cut
from multimodal_zoo.registry import build

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}
CALL_FIELDS = {"reference_bug", "tokenizer_model_max_length"}
KEYS = {
    "vocab_size", "hidden_size", "mm_hidden_size", "mm_projector_type", "preprocessor", "image_token_index",
    "ignore_index", "patch_stride", "dense_stride", "pad_token_id",
}  # fmt: skip
#: These cases have no decoder behind the embeddings; any will do.
SIZES = {
    "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
}  # fmt: skip
EMBEDDINGS = ("vision_embedding.", "decoder.token_embedding.")


def _is_v1(case: Case) -> bool:
    return "preprocessor" in case.config


def _model(case: Case) -> Eve:
    def make() -> Any:
        config = take_known(case.config, KEYS, "config")
        embedding = v1_embedding(config) if _is_v1(case) else v2_embedding(config)
        node = {"type": "eve", "decoder": decoder({**SIZES, **config}), "vision_embedding": embedding}
        model = build(node, path="model")
        state = (EVE if _is_v1(case) else EVE_V2).load(case.state)
        assert all(name.startswith(EMBEDDINGS) for name in state)
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected
        assert not [name for name in missing if name.startswith(EMBEDDINGS)]
        return model.eval()

    return case.once("model", make)


def _given(request: Request, name: str) -> dict[str, Tensor]:
    """The inputs of a call by their last word."""
    values = dict(zip(request.call.inputs, request.case.take(request.call), strict=True))
    return {key.removeprefix(f"{name}."): value for key, value in values.items()}


def _cells(model: Eve, given: dict[str, Tensor]) -> list[PatchCells]:
    layer = model.vision_embedding
    if "images" in given:
        return [cells_of_canvas(one, layer.patch, layer.window) for one in given["images"]]
    count = sum(name.startswith("image_") for name in given)
    return [cut(given[f"image_{number}"], layer.patch, layer.window) for number in range(count)]


def _embedded(model: Eve, rows: Sequence[Row], pictures: Sequence[Sequence[PatchCells]]) -> Tensor:
    """Embeddings of padded rows, zero at padding: the model's own, or picture by picture where one is cut."""
    flat = [one for row in pictures for one in row]
    batch = batch_of(rows, flat)
    real = (batch.documents >= 0)[..., None]
    whole = all(
        tuple(one.tokens[0] for one in shown) == kept_tokens(row) for row, shown in zip(rows, pictures, strict=True)
    )
    if whole:
        return model.embed(batch.ids, batch.vision, batch.pictures) * real
    states = model.embed(batch.ids)
    for number, row in enumerate(rows):
        parts = [
            model.vision_embedding(one)[:kept] for one, kept in zip(pictures[number], kept_tokens(row), strict=False)
        ]
        if parts:
            states[number, batch.vision[number]] = torch.cat(parts)
    return states * real


@torch.no_grad()
def assembled(request: Request) -> Outcome:
    """Embeddings, labels and masks of a call.

    Version 1 keeps padding that is already there in its place, version 2 takes it away first. Where the case says that
    the reference is wrong, ours must be what it gives for each row without padding, and differ from the reference.
    """
    case, name = request.case, request.match[1]
    model, given = _model(case), _given(request, name)
    ids = given["input_ids"]
    real = given.get("attention_mask", torch.ones_like(ids)).bool()
    wrong = bool(request.call.extra.get("reference_bug"))
    held = torch.ones_like(real) if _is_v1(case) and not wrong else real
    short = [row[kept] for row, kept in zip(ids, held, strict=True)]
    placeholder, limit = case.config["image_token_index"], request.call.extra.get("tokenizer_model_max_length")
    ignored, cells = case.config["ignore_index"], _cells(model, given)
    pictures = [[cells[number] for number in row] for row in shown_pictures(short, len(cells), placeholder)]
    tokens = [[one.tokens[0] for one in own] for own in pictures]

    def rows_of(ids: Sequence[Tensor], marks: Sequence[Tensor]) -> list[Row]:
        """The rows, cut where the case says so (ours leaves out what would lose a picture), with marks on some ids."""
        made = (row_of_ids(*row, placeholder, mark) for *row, mark in zip(ids, tokens, marks, strict=True))
        return [Row(row.ids[:limit], row.learnt[:limit], row.picture[:limit]) for row in made]

    wanted = [one[kept] for one, kept in zip(given.get("labels", ids), held, strict=True)]
    told = [label != ignored for label in wanted]
    rows = rows_of(short, told)
    embeddings = _embedded(model, rows, pictures)
    batch = batch_of(rows, [one for row in pictures for one in row])
    following = [torch.where(row == placeholder, placeholder, one) for row, one in zip(short, wanted, strict=True)]
    moved = rows_of(following, told)  # labels may be others than the ids, where nothing is learnt from them
    labels = [torch.tensor(row.ids).masked_fill(~torch.tensor(row.learnt), ignored) for row in moved]
    present = rows_of(short, [one[kept] for one, kept in zip(real, held, strict=True)])
    masks = [(torch.tensor(row.learnt) | (torch.tensor(row.picture) >= 0)).long() for row in present]
    pad = torch.nn.utils.rnn.pad_sequence
    ours = {
        "out_embeds": embeddings,
        "out_patch_hw": torch.tensor([one.grids[0] for one in cells]),
        "out_labels": pad(labels, batch_first=True, padding_value=ignored),
        "out_attention_mask": pad(masks, batch_first=True),
        "out_visual_token_mask": batch.vision[..., None].float(),
        "out_position_ids": batch.positions,
    }
    named = {output: ours[output.removeprefix(f"{name}.")] for output in request.call.outputs}
    return _unlike(request, named, model, rows, pictures) if wrong else named


def _unlike(
    request: Request,
    ours: dict[str, Tensor],
    model: Eve,
    rows: Sequence[Row],
    pictures: Sequence[Sequence[PatchCells]],
) -> Outcome:
    """The reference's own values, once ours are known to differ from them and to be right."""
    theirs = {name: request.case.tensors[name] for name in ours}
    assert any(ours[name].shape != theirs[name].shape or not torch.equal(ours[name], theirs[name]) for name in ours)
    embeddings = next(value for name, value in ours.items() if name.endswith("out_embeds"))
    for number, row in enumerate(rows):
        alone = _embedded(model, [row], [pictures[number]])[0]
        torch.testing.assert_close(embeddings[number, : len(alone)], alone, atol=2e-5, rtol=1e-4)
    return theirs


def _always(case: Case, call: Call) -> bool:
    return "image_token_index" in case.config


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"EVEMetaForCausalLM\.prepare_inputs_labels_for_multimodal \[(\w+)\]", _always)(assembled)
