"""Model nodes of DeCLIP's repository: from its own configuration, or from the shapes of a file's tensors.

One method (CLIP, SLIP, FILIP, DeCLIP, DeFILIP) and one kind of image tower have one variant in the zoo; other sizes are
overrides of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from multimodal_zoo.checkpoints.declarations import declaration, declared
from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.clip_config import HEAD_WIDTH

Values = dict[str, Any]
#: Rows of OpenAI's token embedding; DeCLIP's has one more, the mask word, in front of start and end.
OPENAI_ROWS, MASK_ID = 49408, 49406
#: Why a token embedding of OpenAI's size cannot be read as DeCLIP's.
OPENAI_VOCABULARY = (
    f"a token embedding of {OPENAI_ROWS} rows is OpenAI's: DeCLIP's vocabulary has the mask word at {MASK_ID} and "
    f"start and end one higher; insert a row at {MASK_ID} (in the masked-word head too), or use a CLIP variant"
)
#: Pixels of an image per cell of a ResNet's last map.
STRIDE = 32
_BLOCK = "blocks.block"
_VIT_KEYS = {"input_resolution", "patch_size", "width", "layers", "heads", "embed_dim", "checkpoint"}
_RESNET_KEYS = {"input_resolution", "width", "layers", "heads", "embed_dim", "use_sync_bn"}
_TEXT_KEYS = {
    "embed_dim", "context_length", "transformer_width", "transformer_heads", "transformer_layers", "vocab_size",
    "positional_embedding_flag", "checkpoint", "text_encode_type", "text_model_utils",
}  # fmt: skip
#: Keys that say how a model is trained and change no tensor of it.
_TRAINING_KEYS = {
    "use_allgather", "text_mask_type", "return_nn_bank", "nn_size", "nn_topk", "return_dense", "select_topk",
    "return_sim", "return_filip", "dense_aug",
}  # fmt: skip
_HEAD_KEYS = {"feature_dim", "sim_dim", "dense_embed_dim", "dense_mapping_image", "dense_mapping_language"}


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a mapping is a model's part of one of the repository's configurations."""
    return {"image_encode", "text_encode"} <= config.keys()


def original_node(config: Mapping[str, Any]) -> dict[str, Any]:
    """The model node of the repository's `image_encode`, `text_encode` and `clip` (the keyword arguments of a model).

    Raises:
        UnknownCheckpoint: keys or values that ask for what no part does, all named.
    """
    _known(config, {"image_encode", "text_encode", "clip"}, "model")
    image, text, clip = config["image_encode"], config["text_encode"], config.get("clip") or {}
    _known(clip, _TRAINING_KEYS | _HEAD_KEYS, "clip")
    if image["embed_dim"] != text["embed_dim"]:
        raise UnknownCheckpoint(f"embed_dim is {image['embed_dim']} for images and {text['embed_dim']} for texts")
    heads: Values = {}
    if "sim_dim" in clip:
        heads |= {"simclr.width": clip["feature_dim"], "simclr.output": clip["sim_dim"]}
    elif "feature_dim" in clip:
        heads["simsiam.width"] = clip["feature_dim"]
    if "dense_embed_dim" in clip:
        heads |= {
            "token_wise.embed_dim": clip["dense_embed_dim"],
            "token_wise.image_width": clip["dense_mapping_image"],
            "token_wise.text_width": clip["dense_mapping_language"],
        }
    return _node(image_values(image), text_values(text), heads, image["embed_dim"])


def image_values(config: Mapping[str, Any]) -> Values:
    """What `image_encode` says of the tower: values below `model.image`.

    Raises:
        UnknownCheckpoint: as in `original_node`.
    """
    layers = config["layers"]
    if isinstance(layers, int):
        _known(config, _VIT_KEYS, "image_encode")
        sizes = (config["width"], layers, config["heads"], 4 * config["width"])
        tower = _tower(*sizes, "block" if config.get("checkpoint") else "none")
        return {**tower, "image_size": config["input_resolution"], "patches.patch_size": config["patch_size"]}
    _known(config, _RESNET_KEYS, "image_encode")
    if config.get("use_sync_bn"):
        raise UnknownCheckpoint(
            "image_encode.use_sync_bn: true is the trainer's here (trainer.sync_batchnorm); set false"
        )
    return _resnet(config["width"], layers, config["heads"], config["input_resolution"], config["embed_dim"])


def text_values(config: Mapping[str, Any]) -> Values:
    """What `text_encode` says of the tower: values below `model.text`.

    Raises:
        UnknownCheckpoint: as in `original_node`.
    """
    _known(config, _TEXT_KEYS, "text_encode")
    plain: Values = {"positional_embedding_flag": True, "text_encode_type": "Transformer"}
    utils = config.get("text_model_utils") or {}
    _known(utils, {"random", "freeze"}, "text_encode.text_model_utils")
    strange = [f"{key}={config[key]!r}" for key in plain if config.get(key, plain[key]) != plain[key]]
    strange += [f"text_model_utils.{key}={value!r}" for key, value in utils.items() if value]
    if strange:
        raise UnknownCheckpoint(f"text_encode: {', '.join(strange)} is not the benchmark's text tower")
    width = config["transformer_width"]
    checkpoint = "block" if config.get("checkpoint") else "none"
    tower = _tower(width, config["transformer_layers"], config["transformer_heads"], 4 * width, checkpoint)
    return {**tower, "context_length": config["context_length"], "vocab_size": config.get("vocab_size", MASK_ID + 3)}


def image_nodes(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The image tower of an `image_encode` and its projection; raises as `original_node`."""
    node = _node(image_values(config), {}, {}, config["embed_dim"])
    return node["image"], node["image_projection"]


def text_nodes(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The text tower of a `text_encode` and its projection; raises as `original_node`."""
    node = _node({}, text_values(config), {}, config["embed_dim"])
    return node["text"], node["text_projection"]


def node_from_state(shapes: Mapping[str, Tensor]) -> dict[str, Any]:
    """The model node of a file, from the shapes of its tensors; heads are 64 wide, as in every published model.

    Args:
        shapes: in the repository's names, without `module.`. Heads that are not there are left out of the model.

    Raises:
        UnknownCheckpoint: OpenAI's vocabulary, with the way out.
    """
    prefix = "text_encoder" if "text_encoder.positional_embedding" in shapes else "encode_text"
    rows, width = shapes[f"{prefix}.token_embedding.weight"].shape
    if rows == OPENAI_ROWS:
        raise UnknownCheckpoint(OPENAI_VOCABULARY)
    blocks = f"{prefix}.transformer.resblocks"
    hidden = shapes[f"{blocks}.0.mlp.c_fc.weight"].shape[0]
    text = _tower(width, _count(shapes, blocks), width // HEAD_WIDTH, hidden)
    text |= {"context_length": shapes[f"{prefix}.positional_embedding"].shape[0], "vocab_size": rows}
    dim = shapes[f"{prefix}.text_projection.weight"].shape[0]
    node = _node(_image_from_state(shapes, dim), text, _heads_from_state(shapes), dim)
    if "masked_words" in (node.get("heads") or {}) and "text_label_predictor.weight" not in shapes:
        node["heads"] = {**node["heads"], "masked_words": None}
    return node


def _image_from_state(shapes: Mapping[str, Tensor], dim: int) -> Values:
    if "visual.proj" in shapes:
        width, _, patch, _ = shapes["visual.conv1.weight"].shape
        blocks = "visual.transformer.resblocks"
        hidden = shapes[f"{blocks}.0.mlp.c_fc.weight"].shape[0]
        side = round((shapes["visual.positional_embedding"].shape[0] - 1) ** 0.5)
        tower = _tower(width, _count(shapes, blocks), width // HEAD_WIDTH, hidden)
        return {**tower, "image_size": side * patch, "patches.patch_size": patch}
    stem = shapes["visual.conv3.weight"].shape[0]
    side = round((shapes["visual.attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
    depths = [_count(shapes, f"visual.layer{stage}") for stage in (1, 2, 3, 4)]
    return _resnet(stem, depths, STRIDE * stem // HEAD_WIDTH, STRIDE * side, dim)


def _heads_from_state(shapes: Mapping[str, Tensor]) -> Values:
    found: Values = {}
    names = {
        "simclr.hidden": ("predictor_sim.linear1.weight", 0),
        "simclr.width": ("predictor_sim.linear1.weight", 1),
        "simclr.output": ("predictor_sim.linear3.weight", 0),
        "simsiam.hidden": ("projector.linear1.weight", 0),
        "simsiam.width": ("projector.linear1.weight", 1),
        "simsiam.bottleneck": ("predictor.linear1.weight", 0),
        "token_wise.embed_dim": ("image_mapping.weight", 0),
        "token_wise.image_width": ("image_mapping.weight", 1),
        "token_wise.text_width": ("text_mapping.weight", 1),
    }
    for key, (name, axis) in names.items():
        if name in shapes:
            found[key] = shapes[name].shape[axis]
    return found


def _tower(width: int, depth: int, heads: int, hidden: int, checkpoint: str = "none") -> Values:
    return {
        "width": width,
        "blocks.depth": depth,
        "blocks.checkpoint": checkpoint,
        f"{_BLOCK}.attention.qkv.heads": heads,
        f"{_BLOCK}.attention.qkv.head_dim": width // heads,
        f"{_BLOCK}.mlp.hidden": hidden,
    }


def _resnet(stem: int, depths: Collection[int], heads: int, image_size: int, dim: int) -> Values:
    """Values of a ResNet with the published switch; the mean's layer takes 2048 whatever the tower's width."""
    return {
        "width": dim,
        "image_size": image_size,
        "stem_width": stem,
        "depths": list(depths),
        "pool.attention.width": STRIDE * stem,
        "pool.attention.heads": heads,
        "pool.attention.grid": image_size // STRIDE,
    }


def _node(image: Values, text: Values, heads: Values, dim: int) -> dict[str, Any]:
    """The declaration of the variant of this method and kind of tower, with these values."""
    kinds = {key.split(".")[0] for key in heads}
    resnet = "stem_width" in image
    if "simclr" in kinds:
        method = "slip"
    elif "token_wise" in kinds:
        method = "defilip" if "simsiam" in kinds else "filip"
    else:
        method = "declip" if "simsiam" in kinds else "clip"
    if method == "slip" and resnet:
        moved = {key.replace("pool.attention.", "pool."): value for key, value in image.items()}
        image = {**moved, "width": image["pool.attention.width"]}
    values = {"embed_dim": dim} | {f"image.{key}": value for key, value in image.items()}
    values |= {f"text.{key}": value for key, value in text.items()}
    values |= {f"heads.{key}": value for key, value in heads.items()}
    variant = f"{method}_{'r50' if resnet else 'vit_b32'}_yfcc"
    node = declaration(variant, [f"model.{key}={str(value).replace(' ', '')}" for key, value in values.items()])
    if node != declared(variant):
        summary = f"sizes read from the publisher's own configuration or tensors; of the kind of {variant}"
        node["card"] = {"system": node["card"]["system"], "summary": summary}
    return node


def _count(shapes: Mapping[str, Tensor], prefix: str) -> int:
    inner = len(prefix.split("."))
    return len({name.split(".")[inner] for name in shapes if name.startswith(f"{prefix}.")})


def _known(given: Mapping[str, Any], known: Collection[str], what: str) -> None:
    if strange := sorted(given.keys() - set(known)):
        raise UnknownCheckpoint(f"{what}: not understood: {', '.join(strange)}; known: {', '.join(sorted(known))}")
