"""What several kinds of EVE's cases share: nodes from configurations, batches, gradients in published names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from harness.cases import Call
from harness.run import Outcome, Pair
from harness.words import take_known
from torch import Tensor, nn

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.checkpoints.tables.eve import EVE_V2, EVE_V2_STAGE0
from multimodal_zoo.checkpoints.tables.eve_config import moe_parts, published_node
from multimodal_zoo.data.conversation_templates import Mark, Shown
from multimodal_zoo.data.picture_batches import picture_rows_batch
from multimodal_zoo.data.picture_sequences import PictureSample, Row, row_of, weights_of
from multimodal_zoo.nn.patch_cells import PatchCells, joined
from multimodal_zoo.objectives.batch import PictureTokenBatch
from multimodal_zoo.registry import build

Config = Mapping[str, Any]
#: Keys of a decoder.
DECODER_KEYS = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "rms_norm_eps", "rope_theta", "hidden_act", "tie_word_embeddings", "max_position_embeddings",
    "pad_token_id",
}  # fmt: skip
PREPROCESSOR_KEYS = {"image_size", "image_size_clip", "patch_stride", "conv_stride", "patch_stride_clip"}


def preprocessor(config: Config) -> dict[str, Any]:
    """The values of a version 1 preprocessor."""
    return take_known(config["preprocessor"], PREPROCESSOR_KEYS, "config.preprocessor")


def v1_embedding(config: Config) -> dict[str, Any]:
    """The node of version 1's embedding layer."""
    assert config["mm_projector_type"] == "mlp2x_gelu"
    known = preprocessor(config)
    return {
        "type": "eve_patch_embedding", "width": config["hidden_size"], "hidden": config["mm_hidden_size"],
        "patch": known["patch_stride"], "window": known["conv_stride"],
    }  # fmt: skip


def v2_embedding(config: Config) -> dict[str, Any]:
    """The node of version 2's embedding layer."""
    return {
        "type": "eve_direct_embedding", "width": config["hidden_size"], "hidden": config["mm_hidden_size"],
        "patch": config["patch_stride"], "window": config["dense_stride"],
    }  # fmt: skip


def decoder(config: Config) -> dict[str, Any]:
    """The node of the decoder; `add_moe` and `moe_part` decide what exists twice."""
    given = {key: config[key] for key in DECODER_KEYS & config.keys()}
    node = node_from_hf({"model_type": "qwen2" if "add_moe" in config else "llama", **given})
    if parts := moe_parts(config):
        node["blocks"]["block"] = {"type": "decoupled_block", "block": node["blocks"]["block"], "parts": parts}
    return node


def eve(config: Config) -> dict[str, Any]:
    """The node of a whole model without aligning layer, as the library reads a published folder's configuration."""
    first = "preprocessor" in config
    words = ["EVELlamaForCausalLM" if first else "EVEQwen2ForCausalLM"]
    node = published_node({**config, "architectures": words}, preprocessor(config) if first else None)
    return {key: node[key] for key in ("type", "decoder", "vision_embedding")}


def part(node: Mapping[str, Any], naming: Naming, state: Mapping[str, Tensor], prefix: str) -> nn.Module:
    """One part of the model alone, with its weights from a checkpoint that holds nothing else.

    Args:
        node: what is built.
        naming: table of the whole model.
        state: tensors by published name.
        prefix: the part's place in the model, with a point.
    """
    model = build(dict(node), path=prefix.rstrip("."))
    model.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in naming.load(state).items()})
    return model.eval()


def gradients(model: nn.Module, naming: Naming, prefix: str = "") -> dict[str, Tensor]:
    """Gradients by published name; zero where a weight took no part."""
    found = {
        f"{prefix}{name}": torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()
    }
    return naming.save(found)


def v2_naming(config: Config) -> Naming:
    """The table of version 2, with or without weights of their own for pictures."""
    return EVE_V2 if moe_parts(config) else EVE_V2_STAGE0


def norms(call: Call, found: Mapping[str, Tensor]) -> Outcome:
    """The norms of gradients that a call lists."""
    expected = call.extra["grad_norms"]
    return {f"grad_norms.{name}": Pair(float(found[name].norm()), value) for name, value in expected.items()}


class Numbers:
    """A tokenizer that knows every id by its number: what published ids need to become a sequence."""

    bos_id: int | None = None
    pad_id = 0

    def special_id(self, word: str) -> int:
        """The id that a word is the number of."""
        return int(word)


def row_of_ids(ids: Tensor, tokens: Sequence[int], placeholder: int, learnt: Tensor | None = None) -> Row:
    """Published ids with a placeholder for each picture, as the library's own sequence.

    Args:
        ids: long (ids,).
        tokens: of each picture.
        placeholder: the id of a picture.
        learnt: bool (ids,), what is learnt; None for nothing.
    """
    marked, numbers = [False] * len(ids) if learnt is None else learnt.tolist(), iter(range(len(tokens)))
    pieces = [
        Shown(next(numbers)) if number == placeholder else Mark(str(number), said)
        for number, said in zip(ids.tolist(), marked, strict=True)
    ]
    assert next(numbers, None) is None, "fewer placeholders than pictures"
    return row_of(pieces, Numbers(), tokens, special=False)  # type: ignore[arg-type]


def kept_tokens(row: Row) -> tuple[int, ...]:
    """How many tokens a row has of each of its pictures."""
    return tuple(row.picture.count(number) for number in range(max(row.picture, default=-1) + 1))


def shown_pictures(rows: Sequence[Tensor], pictures: int, placeholder: int) -> list[list[int]]:
    """Which pictures of a published batch's list each row shows.

    The list goes by the rows; a row without placeholder has a blank picture there, which is passed over.

    Args:
        rows: long (ids,), without padding.
        pictures: how many there are in the list.
        placeholder: the id of a picture.
    """
    found, start = [], 0
    for row in rows:
        count = int((row == placeholder).sum())
        found.append(list(range(start, start + count)))
        start += max(count, 1)
    assert start == pictures, f"{len(rows)} rows need {start} pictures, blank ones counted, and there are {pictures}"
    return found


def batch_of(rows: Sequence[Row], pictures: Sequence[PatchCells]) -> PictureTokenBatch:
    """Rows padded on the right; the pictures in their order."""
    samples, start = [], 0
    for number, row in enumerate(rows):
        own = pictures[start : start + len(kept_tokens(row))]
        start += len(own)
        vision = torch.tensor(row.picture) >= 0
        cells = joined(own) if own else None
        samples.append(PictureSample(torch.tensor(row.ids), weights_of(row), vision, cells, None, [], str(number)))
    return picture_rows_batch([[sample] for sample in samples], 0)
