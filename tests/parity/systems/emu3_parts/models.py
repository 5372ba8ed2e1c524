"""Emu3's cases: the decoder alone, and the whole model in transformers' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import take_known
from torch import Tensor

from multimodal_zoo.checkpoints.load import load_into
from multimodal_zoo.checkpoints.tables.causal_decoder import LLAMA, LLAMA_TIED
from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.checkpoints.tables.emu3 import TRANSFORMERS
from multimodal_zoo.checkpoints.tables.emu3_vision_config import DEFAULTS, TRANSFORMERS_NAMES, vision_node
from multimodal_zoo.data.visual_codes import encode_pictures
from multimodal_zoo.decoders.causal_decoder import CausalDecoder
from multimodal_zoo.decoders.emu3 import Emu3
from multimodal_zoo.nn.masks import Padding
from multimodal_zoo.registry import build
from multimodal_zoo.tokenizers.emu3_ids import Emu3Ids
from multimodal_zoo.tokenizers.emu3_pictures import picture_ids, read_picture

#: Further fields of these cases, with a check of what they say, or None for mere inputs.
FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}
#: Keys of a decoder's configuration; ids of single tokens concern the processor.
DECODER_KEYS = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling",
    "attention_dropout", "tie_word_embeddings", "pretraining_tp", "initializer_range", "pad_token_id", "bos_token_id",
    "eos_token_id", "model_type", "img_token_id", "boi_token_id", "eoi_token_id", "eol_token_id", "eof_token_id",
}  # fmt: skip
#: The decoder's tensors in a checkpoint that holds others too.
DECODER_NAMES = ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head.")

#: Keys of the visual tokenizer in transformers' names; the width of the last level follows from the others.
VISION_KEYS = {
    *(DEFAULTS.keys() - set(TRANSFORMERS_NAMES.values())), *TRANSFORMERS_NAMES, "hidden_size", "double_latent",
    "num_attention_heads", "attention_dropout",
}  # fmt: skip


def decoder(config: Mapping[str, Any], state: Mapping[str, Tensor], model_type: str = "Emu3") -> CausalDecoder:
    """The decoder of a configuration in the published names, with its weights, in evaluation mode.

    Args:
        config: keys of the published `config.json`, no others.
        state: tensors by published name; those of a visual tokenizer beside them are left alone.
        model_type: whose defaults a key has that is left out.
    """
    take_known(config, DECODER_KEYS, "config")
    model = build(node_from_hf({"model_type": model_type, **config}), path="model")
    own = {name: tensor for name, tensor in state.items() if name.startswith(DECODER_NAMES)}
    load_into(model, own, LLAMA_TIED if model.output is None and "lm_head.weight" in own else LLAMA)
    return model.eval()


def _model(case: Case) -> CausalDecoder:
    return case.once("decoder", lambda: decoder(case.config, case.state))


@torch.no_grad()
def whole(request: Request) -> Outcome:
    """Logits from the left edge, and what the first block does on the way."""
    (ids,) = request.case.take(request.call)
    model = _model(request.case)
    block, seen = model.blocks.layers[0], {}
    points = {"embed": model.token_embedding, "layer0_norm1": block.norm_1, "layer0_attn": block.attention,
              "layer0_mlp": block.mlp, "layer0_out": block, "final_norm": model.norm}  # fmt: skip
    hooks = [
        part.register_forward_hook(lambda _part, _given, result, name=name: seen.update({name: result}))
        for name, part in points.items()
    ]
    hidden = model(ids)
    for hook in hooks:
        hook.remove()
    rotation = model.rotary(torch.arange(ids.shape[1]))
    query, key, _ = block.attention.qkv(seen["layer0_norm1"])
    rotated = {"layer0_q_rot": rotation(query)[:1], "layer0_k_rot": rotation(key)[:1]}
    slices = [slice(0, 7), torch.arange(7, model.vocab_size)]
    cut = torch.cat([model.head(hidden, rows=rows) for rows in slices], dim=-1)
    return {**seen, **rotated, "logits": (model.head(hidden), cut, _at_places(model, ids))}


def _at_places(model: CausalDecoder, ids: Tensor) -> Tensor:
    """The same logits, every place asked for by name."""
    places = torch.arange(ids.shape[1]).expand_as(ids)
    return model.head(model(ids, places=places))


@torch.no_grad()
def at_positions(request: Request) -> Outcome:
    """Logits at given positions."""
    ids, positions = request.case.take(request.call)
    model = _model(request.case)
    return {request.call.outputs[0]: model.head(model(ids, positions=positions))}


@torch.no_grad()
def padded(request: Request) -> Outcome:
    """Logits of padded rows, zero at padding: rows at once, and each row without its padding."""
    ids, mask, positions = request.case.take(request.call)
    model, real = _model(request.case), mask.bool()
    together = model.head(model(ids, positions=positions, mask=Padding(real))) * real[..., None]
    alone = torch.zeros_like(together)
    for row, kept in enumerate(real):
        alone[row, kept] = model.head(model(ids[row : row + 1, kept]))[0]
    return {request.call.outputs[0]: (together, alone)}


@torch.no_grad()
def cached(request: Request) -> Outcome:
    """Logits of a first part at once and of the others one by one."""
    (ids,) = request.case.take(request.call)
    model, steps = _model(request.case), int(request.match[1])
    assert steps == int(request.match[2])
    cache, cut = model.cache(len(ids), ids.shape[1]), ids.shape[1] - steps
    pieces = [ids[:, :cut], *ids[:, cut:].split(1, dim=1)]
    return {request.call.outputs[0]: torch.cat([model.head(model(piece, cache=cache)) for piece in pieces], dim=1)}


def whole_model(case: Case) -> Emu3:
    """The decoder and the visual tokenizer of a case in transformers' names, with its weights."""
    take_known(case.config, {"vq_config", "text_config", "vocabulary"}, "config")
    vision = take_known(case.config["vq_config"], VISION_KEYS, "vq_config")
    text = take_known(case.config["text_config"], DECODER_KEYS, "text_config")
    assert not vision.get("double_latent")
    assert vision.get("num_attention_heads", 1) == 1
    widest = vision["base_channels"] * vision["channel_multiplier"][-1]
    assert vision.get("hidden_size", widest) == widest
    assert not vision.get("attention_dropout")
    node = {
        "type": "emu3",
        "ids": _ids(case),
        "decoder": node_from_hf({"model_type": "emu3_text_model", **text}),
        "vision_tokenizer": vision_node(vision),
    }
    model = build(node, path="model")
    load_into(model, case.state, TRANSFORMERS)
    return model.eval()


def _ids(case: Case) -> Emu3Ids:
    """Which id means what in a case's vocabulary; the placeholder for pictures is none of the model's."""
    words = {"image_placeholder", "eol", "visual_first", "boi", "eoi", "image_token", "eof"}
    known = take_known(case.config["vocabulary"], words, "vocabulary")
    text = case.config["text_config"]
    return Emu3Ids(
        pad=text["pad_token_id"],
        bos=text["bos_token_id"],
        eos=text["eos_token_id"],
        end_of_line=known["eol"],
        end_of_frame=known["eof"],
        image_token=known["image_token"],
        image_start=known["boi"],
        image_end=known["eoi"],
        visual_first=known["visual_first"],
        codebook_size=case.config["vq_config"]["codebook_size"],
    )


def _visual_ids(case: Case, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of visual tokens of padded pictures, all one behind the other: encoded as given, and padded again."""
    model = case.once("whole_model", lambda: whole_model(case))
    factor = model.tokenizer().spatial_factor
    real = [one[:, :high, :wide] for one, (high, wide) in zip(pixels, sizes.tolist(), strict=True)]
    assert torch.equal(sizes.amax(dim=0), torch.tensor(pixels.shape[-2:]))
    given = [
        codes[: high // factor, : wide // factor]
        for codes, (high, wide) in zip(model.encode(pixels), sizes.tolist(), strict=True)
    ]
    ways = (given, encode_pictures(model, real, pad=True))
    first, second = (torch.cat([picture_ids(codes, [], model.ids)[2:-2] for codes in way]) for way in ways)
    return first, second


def image_tokens(request: Request) -> Outcome:
    """Ids of padded pictures, a line end behind every row."""
    return {request.call.outputs[0]: _visual_ids(request.case, *request.case.take(request.call))}


@torch.no_grad()
def with_pictures(request: Request) -> Outcome:
    """Logits with pictures in the places kept for them; positions count from the left edge."""
    ids, mask, pixels, sizes = request.case.take(request.call)
    place = ids == request.case.config["vocabulary"]["image_placeholder"]
    ids[place] = _visual_ids(request.case, pixels, sizes)[0]
    model, real = request.case.once("whole_model", lambda: whole_model(request.case)), mask.bool()
    hidden = model.decoder(ids, mask=Padding(real))
    return {request.call.outputs[0]: model.decoder.head(hidden) * real[..., None]}


@torch.no_grad()
def decoded(request: Request) -> Outcome:
    """Pixels of drawn pictures."""
    (ids,) = request.case.take(request.call)
    model = request.case.once("whole_model", lambda: whole_model(request.case))
    codes = [read_picture(row, model.ids) for row in ids.tolist()]
    return {request.call.outputs[0]: model.decode(torch.stack(codes))}


def _is_decoder(case: Case, call: Any) -> bool:
    return "hidden_size" in case.config


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"forward\(input_ids\)", _is_decoder)(whole)
    system.call(r"forward\(input_ids, position_ids\)", _is_decoder)(at_positions)
    system.call(r"forward\(input_ids, mask, position_ids\)", _is_decoder)(padded)
    system.call(r"prefill L-(\d+) then (\d+) cached single-token steps", _is_decoder)(cached)
    system.call(r"get_image_tokens\(pixel_values, image_sizes\)")(image_tokens)
    system.call(r"forward\(input_ids, attention_mask, pixel_values, image_sizes\)")(with_pictures)
    system.call(r"decode_image_tokens\(generated, height, width\)")(decoded)
