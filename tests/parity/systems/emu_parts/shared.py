"""What several kinds of Emu's cases share: nodes and models from configurations, visual embeddings, gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from harness.cases import Case
from harness.run import Request
from harness.words import take_known
from systems.emu_parts.placeholders import FRAME, PICTURE, placed
from systems.emu_parts.prompts import BLANK, tokenizer_of
from torch import Tensor, nn

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.checkpoints.tables.emu import EMU, EMU2, EMU2_NATIVE, EMU_INSTRUCT, EMU_INSTRUCT_NEW
from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.emu_processor import EmuProcessor
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.data.visual_sequences import VisualSample
from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.nn.counted_images import CountedImages
from multimodal_zoo.registry import build

Config = Mapping[str, Any]
#: Keys of Emu's configuration, and of Emu2's.
FIRST_KEYS = {"embed_dim", "vision_cfg", "multimodal_cfg", "vladapter_cfg", "t5_config", "llama_config", "special_ids"}
SECOND_KEYS = {"vision_cfg", "llama_config", "instruct", "special_ids"}
VISION_KEYS = {"image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio"}
FIRST_VISION_KEYS = VISION_KEYS | {"eva_model_name", "drop_path_rate", "xattn", "freeze"}
SECOND_VISION_KEYS = VISION_KEYS | {"n_query", "v_query", "qkv_bias", "postnorm", "layer_norm_eps", "drop_path_rate"}
LANGUAGE_KEYS = {
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size",
    "rms_norm_eps", "max_position_embeddings", "rope_base", "hidden_act", "tie_word_embeddings",
}  # fmt: skip
FORMER_KEYS = {
    "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "relative_attention_num_buckets",
    "relative_attention_max_distance", "dropout_rate", "layer_norm_epsilon", "vocab_size", "n_positions",
    "feed_forward_proj", "use_cache", "is_encoder_decoder", "pad_token_id", "eos_token_id", "decoder_start_token_id",
    "encoder_width",
}  # fmt: skip
#: Where T5's own words are; nothing reads them.
FORMER_WORDS = "cformer.cformer.embed_tokens.weight"


def vision(config: Config, first: bool) -> dict[str, Any]:
    """The node of an image encoder: pre-norm in Emu, as the configuration says in Emu2."""
    given = take_known(config, FIRST_VISION_KEYS if first else SECOND_VISION_KEYS, "config.vision_cfg")
    width, head = given["width"], given["head_width"]
    assert isinstance(given.get("eva_model_name", ""), str)  # a name decides nothing
    assert isinstance(given.get("xattn", False), bool)  # another kernel, the same values
    kind = "post_norm_block" if given.get("postnorm", False) else "pre_norm_block"
    sizes = {"width": width, "heads": width // head, "head_dim": head}
    keyless = {"type": "packed_qkv_keyless", **sizes}
    biasless = {"type": "packed_qkv", "kv_heads": width // head, "bias": False, **sizes}
    block = {
        "type": kind,
        "norm": {"type": "layer_norm", "width": width, "eps": given.get("layer_norm_eps", 1e-6)},
        "attention": {
            "type": "self_attention", "width": width, "kernel": "sdpa",
            "qkv": keyless if given.get("qkv_bias", True) else biasless,
        },
        "mlp": {"type": "mlp", "width": width, "hidden": int(width * given["mlp_ratio"]), "activation": "gelu"},
    }  # fmt: skip
    blocks = {"type": "transformer", "depth": given["layers"], "drop_path": given.get("drop_path_rate", 0.0)}
    sizes = {"image_size": given["image_size"], "patch_size": given["patch_size"]}
    return {
        "type": "vision_transformer", "width": width, "image_size": given["image_size"],
        "patches": {"type": "patch_embedding", "width": width, "patch_size": given["patch_size"], "bias": True},
        "prefix": {"type": "class_token", "width": width, "std": 0.02},
        "positions": {"type": "resizable_positions", "width": width, "prefix": 1, "std": 0.02, **sizes},
        "blocks": {**blocks, "block": block},
        "pool": {"type": "class_token_pool", "norm": {"type": "identity"}},
    }  # fmt: skip


def language(config: Config) -> dict[str, Any]:
    """The node of a language model."""
    given = take_known(config, LANGUAGE_KEYS, "config.llama_config")
    return node_from_hf({"model_type": "llama", "rope_theta": given.pop("rope_base"), **given})


def former(config: Config, vision_width: int, width: int, queries: int) -> dict[str, Any]:
    """The node of a Causal Former."""
    given = take_known(config, FORMER_KEYS, "config.t5_config")
    own, heads, head_dim, rate = given["d_model"], given["num_heads"], given["d_kv"], given["dropout_rate"]
    assert given.get("encoder_width", vision_width) == vision_width
    assert queries <= given["n_positions"]
    norm = {"type": "rms_norm", "width": own, "eps": given["layer_norm_epsilon"]}
    attention = {"width": own, "output_bias": False, "scale": 1.0, "dropout": rate}
    block = {
        "type": "cross_block", "norm": norm, "layer_scale": {"type": "branch_dropout", "rate": rate},
        "attention": {
            **attention, "type": "self_attention",
            "qkv": {
                "type": "separate_qkv", "width": own, "heads": heads, "head_dim": head_dim, "kv_heads": heads,
                "biased": [],
            },
        },
        "cross_attention": {
            **attention, "type": "cross_attention", "context_width": vision_width, "heads": heads, "bias": False,
            "head_dim": head_dim,
        },
        "mlp": {
            "type": "mlp", "width": own, "hidden": given["d_ff"], "bias": False,
            "activation": {"relu": "relu", "gelu": "gelu"}[given["feed_forward_proj"]],
            "inner_norm": {"type": "branch_dropout", "rate": rate},
        },
    }  # fmt: skip
    buckets, far = given["relative_attention_num_buckets"], given["relative_attention_max_distance"]
    return {
        "type": "causal_former", "width": width, "queries": queries, "depth": given["num_layers"], "dropout": rate,
        "norm": norm, "context_norm": {"type": "layer_norm", "width": vision_width, "eps": 1e-6}, "block": block,
        "positions": {"type": "relative_bias", "heads": heads, "buckets": buckets, "max_distance": far},
    }  # fmt: skip


def is_first(config: Config) -> bool:
    """Whether it is Emu's configuration, which has a Causal Former."""
    return "t5_config" in config


def queries(config: Config) -> int:
    """Embeddings of a picture."""
    if not is_first(config):
        return int(config["vision_cfg"]["n_query"])
    count = int(take_known(config["vladapter_cfg"], ("name", "n_causal"), "config.vladapter_cfg")["n_causal"])
    words = take_known(config.get("multimodal_cfg", {}), ("name", "n_causal"), "config.multimodal_cfg")
    assert words.get("n_causal", count) == count
    return count


def node(config: Config) -> dict[str, Any]:
    """The node of a whole model."""
    first = is_first(config)
    given = take_known(config, FIRST_KEYS if first else SECOND_KEYS, "config")
    tower, decoder = vision(given["vision_cfg"], first), language(given["llama_config"])
    if first:
        connector = former(given["t5_config"], tower["width"], decoder["width"], queries(config))
        return {"type": "emu", "decoder": decoder, "image_encoder": tower, "connector": connector}
    return {
        "type": "emu", "decoder": decoder, "image_encoder": tower, "connector": pooled(tower["width"]),
        "input_projection": linear(tower["width"], decoder["width"]),
    }  # fmt: skip


def pooled(width: int) -> dict[str, Any]:
    """The node of Emu2's connector."""
    return {"type": "pooled_tokens", "width": width}


def linear(read: int, given: int) -> dict[str, Any]:
    """The node of Emu2's projection."""
    return {"type": "linear_layer", "in_features": read, "out_features": given, "bias": False}


def naming(case: Case) -> Naming:
    """The table of a case's names: Emu, Emu2 of the Hub, Emu2 of single files."""
    if is_first(case.config):
        if not has_adapters(case):
            return EMU
        return EMU_INSTRUCT_NEW if any(".base_layer." in name for name in case.manifest) else EMU_INSTRUCT
    return EMU2 if any(name.startswith("model.") for name in case.manifest) else EMU2_NATIVE


def has_adapters(case: Case) -> bool:
    """Whether peft has wrapped the language model."""
    return any(".lora_A." in name for name in case.manifest)


def adapter(case: Case) -> dict[str, Any]:
    """The node of its adapters, whose rank and scale are the published code's."""
    ranks = {shape[0] for name, shape in case.manifest.items() if ".lora_A." in name}
    assert ranks == {16}
    layers = ["attention.qkv.query", "attention.qkv.key", "attention.qkv.value", "attention.out"]
    return {"type": "low_rank", "rank": 16, "alpha": 16, "dropout": 0.05, "layers": layers}


def check_unread(case: Case) -> None:
    """Sizes that only unused tensors have are what the configuration says."""
    config = case.config
    if (words := case.manifest.get(FORMER_WORDS)) is not None:
        assert words == [config["t5_config"]["vocab_size"], config["t5_config"]["d_model"]]
    if (head := case.manifest.get("visual.head.weight")) is not None:
        assert head == [config["embed_dim"], config["vision_cfg"]["width"]]


def model_of(case: Case) -> Emu:
    """The model with its weights, in evaluation mode; made once for a case."""

    def make() -> Any:
        check_unread(case)
        described = node(case.config)
        if has_adapters(case):
            described["decoder"]["blocks"]["adapter"] = adapter(case)
        model = build(described, path="model")
        model.load_state_dict(naming(case).load(case.state))
        if case.config["vision_cfg"].get("freeze", False):
            model.image_encoder.requires_grad_(False)
        return model.eval()

    return cast(Emu, case.once("model", make))


def part(made: Mapping[str, Any], table: Naming, state: Mapping[str, Tensor], prefix: str) -> nn.Module:
    """One part of the model alone, with its weights from a checkpoint that may hold more.

    Args:
        made: its node.
        table: names of the whole model.
        state: tensors by published name.
        prefix: the part's place in the model, with a point.
    """
    module = build(dict(made), path=prefix.rstrip("."))
    found = table.load(state).items()
    module.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in found if name.startswith(prefix)})
    return module.eval()


def images_of(config: Config, pixels: Tensor) -> CountedImages:
    """Pictures with as many embeddings each as the configuration says."""
    return CountedImages(pixels, (queries(config),) * len(pixels))


def processor_of(case: Case) -> EmuProcessor:
    """The processor with the tokenizer beside the case."""
    config, first = case.config, is_first(case.config)
    pixels = ImageTransform(config["vision_cfg"]["image_size"], [0.5] * 3, [0.5] * 3, "squash")
    tokenizer = tokenizer_of(config["special_ids"], str(case.folder / "tokenizer.model"))
    frames = None if first else config["vision_cfg"]["v_query"]
    return EmuProcessor(pixels, tokenizer, queries(config), frames, closing=first)


def samples_of(case: Case, drawing: bool = False) -> list[VisualSample]:
    """The texts of a case, blank pictures at their placeholders, as prompts that go on in words or with a picture."""
    processor = processor_of(case)
    found = []
    for text in case.fields["texts"]:
        shown, clips = [BLANK] * text.count(PICTURE), [BLANK] * text.count(FRAME)
        document = Document(placed(text, shown, clips))
        found.append(processor.drawing_prompt(document) if drawing else processor.prompt(document))
    return found


def grad_norms(case: Case, model: nn.Module, names: Sequence[str], prefix: str = "") -> Tensor:
    """Norms of the gradients of published names; 0 where a weight took no part."""
    own = {f"{prefix}{name}": parameter for name, parameter in model.named_parameters()}
    saved = naming(case).save({name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in own.items()})
    return torch.stack([saved[name].norm() for name in names])


def in_place(request: Request, name: str, found: Tensor, real: Tensor) -> Tensor:
    """Our values `(batch, tokens, ...)` at real tokens; at padding what the reference has, which means nothing."""
    theirs = request.case.tensors[name].clone()
    theirs[real] = found[real]
    return theirs


def given_of(request: Request) -> dict[str, Tensor]:
    """The inputs of a call by name."""
    return dict(zip(request.call.inputs, request.case.take(request.call), strict=True))


def real_rows(ids: Tensor, mask: Tensor) -> list[Tensor]:
    """Rows without their padding."""
    return [row[kept] for row, kept in zip(ids, mask.bool(), strict=True)]
