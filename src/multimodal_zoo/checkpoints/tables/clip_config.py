"""CLIP's sizes, read from whatever a publisher wrote them in, and the model node that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from multimodal_zoo.checkpoints.declarations import declaration, declared
from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.clip import OPENAI_EXTRAS

#: Width of a head in every model that OpenAI published; its state dicts do not say the number of heads.
HEAD_WIDTH = 64
#: Shorter names of the template's keys.
_BLOCK = "blocks.block"


@dataclass(frozen=True)
class TowerSizes:
    """One transformer tower.

    Attributes:
        width: width of the tokens.
        depth: number of blocks.
        heads: number of heads.
        hidden: width inside the MLP.
        activation: a name of `nn.mlp.ACTIVATIONS`.
        eps: of the layer norms.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    activation: str
    eps: float = 1e-5


@dataclass(frozen=True)
class ClipSizes:
    """Everything that distinguishes one CLIP with vision transformer from another.

    Attributes:
        image: the image tower.
        text: the text tower.
        image_size: side of the images, in pixels.
        patch_size: side of a patch, in pixels.
        context_length: most tokens of a text.
        vocab_size: number of ids.
        embed_dim: width of the common space.
    """

    image: TowerSizes
    text: TowerSizes
    image_size: int
    patch_size: int
    context_length: int
    vocab_size: int
    embed_dim: int

    @property
    def variant(self) -> str | None:
        """The published variant that is declared with these sizes."""
        return next((name for name, sizes in _published().items() if sizes == self), None)

    def node(self, transform: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The model node: a published variant's declaration if one has these sizes, else one made after its pattern.

        Args:
            transform: keys of `processor.images` that the publisher sets differently.
        """
        variant = self.variant
        node = declaration(variant or "clip_vit_b32", [] if variant else self._overrides())
        if variant is None:
            node["card"] = {"system": "CLIP", "summary": "sizes read from the publisher's own configuration"}
        node["processor"]["images"].update(transform or {})
        return node

    def _overrides(self) -> list[str]:
        values: dict[str, Any] = {
            "embed_dim": self.embed_dim,
            "image.image_size": self.image_size,
            "image.patches.patch_size": self.patch_size,
            "text.context_length": self.context_length,
            "text.vocab_size": self.vocab_size,
            "image.norm_in.eps": self.image.eps,
            "image.pool.norm.eps": self.image.eps,
            "text.norm.eps": self.text.eps,
        }
        for name, tower in (("image", self.image), ("text", self.text)):
            values |= {
                f"{name}.width": tower.width,
                f"{name}.blocks.depth": tower.depth,
                f"{name}.{_BLOCK}.attention.qkv.heads": tower.heads,
                f"{name}.{_BLOCK}.attention.qkv.head_dim": tower.width // tower.heads,
                f"{name}.{_BLOCK}.mlp.hidden": tower.hidden,
                f"{name}.{_BLOCK}.mlp.activation": tower.activation,
                f"{name}.{_BLOCK}.norm.eps": tower.eps,
            }
        return [f"model.{key}={value}" for key, value in values.items()]


def sizes_of(node: Mapping[str, Any]) -> ClipSizes | None:
    """The sizes in a model node, or None if it is no CLIP with two plain transformer towers."""

    def tower(part: Mapping[str, Any]) -> TowerSizes:
        """The sizes in one tower's node."""
        block = part["blocks"]["block"]
        return TowerSizes(
            width=part["width"],
            depth=part["blocks"]["depth"],
            heads=block["attention"]["qkv"]["heads"],
            hidden=block["mlp"]["hidden"],
            activation=block["mlp"]["activation"],
            eps=block["norm"]["eps"],
        )

    try:
        image, text = node["image"], node["text"]
        kinds = (image["type"], image["patches"]["type"], text["type"])
        if kinds != ("vision_transformer", "patch_embedding", "clip_text_transformer") or node.get("heads"):
            return None
        return ClipSizes(
            image=tower(image),
            text=tower(text),
            image_size=image["image_size"],
            patch_size=image["patches"]["patch_size"],
            context_length=text["context_length"],
            vocab_size=text["vocab_size"],
            embed_dim=node["embed_dim"],
        )
    except (KeyError, TypeError):
        return None


@cache
def _published() -> dict[str, ClipSizes]:
    from multimodal_zoo.catalogue import list_models

    found = {name: sizes_of(declared(name)) for name in list_models("clip_vit_*")}
    return {name: sizes for name, sizes in found.items() if sizes is not None}


def sizes_from_state(shapes: Mapping[str, Tensor]) -> ClipSizes:
    """The sizes of a model in OpenAI's naming, from the shapes of its tensors.

    OpenAI's own files are known by three scalar entries: their activation is quick GELU and their heads are 64 wide.

    Raises:
        UnknownCheckpoint: a file without those entries, whose activation no shape tells; or a ResNet tower.
    """
    if not all(name in shapes for name in OPENAI_EXTRAS):
        raise UnknownCheckpoint(
            "the tensors are named as open_clip names them, but neither activation nor heads can be seen in a state "
            "dict: keep open_clip_config.json beside the file, or give config=VARIANT (clip_vit_b32, ...)"
        )
    if "visual.conv1.weight" not in shapes or "visual.proj" not in shapes:
        raise UnknownCheckpoint("the image tower is no vision transformer (no visual.proj); give config=VARIANT")
    width, _, patch, _ = shapes["visual.conv1.weight"].shape
    side = round((shapes["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    vocab_size, text_width = shapes["token_embedding.weight"].shape

    def tower(prefix: str, tower_width: int) -> TowerSizes:
        """The sizes of the tower whose blocks stand below a prefix."""
        hidden = shapes[f"{prefix}.0.mlp.c_fc.weight"].shape[0]
        depth = len({name.removeprefix(prefix).split(".")[1] for name in shapes if name.startswith(f"{prefix}.")})
        return TowerSizes(tower_width, depth, tower_width // HEAD_WIDTH, hidden, "quick_gelu")

    return ClipSizes(
        image=tower("visual.transformer.resblocks", width),
        text=tower("transformer.resblocks", text_width),
        image_size=side * patch,
        patch_size=patch,
        context_length=shapes["positional_embedding"].shape[0],
        vocab_size=vocab_size,
        embed_dim=shapes["visual.proj"].shape[1],
    )


#: transformers' word for an activation -> a name of `nn.mlp.ACTIVATIONS`; of several the last is written.
HF_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_new": "tanh_gelu", "gelu_pytorch_tanh": "tanh_gelu"}
#: open_clip's word for fitting a picture to a square -> that of `processor.images.resize`.
RESIZE_MODES = {"shortest": "shorter_crop", "longest": "pad", "squash": "squash"}


def sizes_from_hf(config: Mapping[str, Any]) -> ClipSizes:
    """The sizes in the `config.json` of a Hugging Face `CLIPModel`; keys left out mean transformers' defaults.

    Raises:
        UnknownCheckpoint: an activation or end token that the model cannot express.
    """
    from transformers import CLIPConfig

    full = CLIPConfig.from_dict(dict(config))
    text, vision = full.text_config, full.vision_config
    if text.eos_token_id not in (2, text.vocab_size - 1):  # 2: the files' historical value, read as the largest id
        raise UnknownCheckpoint(
            f"config.json: text_config.eos_token_id is {text.eos_token_id}; the text tower reads its features at the "
            f"largest id, which must be the end token ({text.vocab_size - 1})"
        )
    towers = []
    for part in (vision, text):
        if part.hidden_act not in HF_ACTIVATIONS:
            known = ", ".join(HF_ACTIVATIONS)
            raise UnknownCheckpoint(f"config.json: hidden_act {part.hidden_act!r} is none of {known}")
        activation = HF_ACTIVATIONS[part.hidden_act]
        sizes = (part.hidden_size, part.num_hidden_layers, part.num_attention_heads, part.intermediate_size)
        towers.append(TowerSizes(*sizes, activation, part.layer_norm_eps))
    return ClipSizes(
        image=towers[0],
        text=towers[1],
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        context_length=text.max_position_embeddings,
        vocab_size=text.vocab_size,
        embed_dim=full.projection_dim,
    )


def transform_from_hf(processor: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of `processor.images` from a `preprocessor_config.json` of `CLIPImageProcessor`."""
    found = {
        ours: processor[theirs]
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std"))
        if theirs in processor
    }
    size = processor.get("size")
    if not processor.get("do_center_crop", True) and isinstance(size, Mapping) and "height" in size:
        found["resize"] = "squash"
    return found


_OPEN_CLIP_VISION = {"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "patch_dropout"}
_OPEN_CLIP_TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
_OPEN_CLIP_MODEL = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale"}

#: Values with which other keys of open_clip's configurations mean plain CLIP.
_OPEN_CLIP_PLAIN: dict[str, Any] = {
    "pos_embed_type": "learnable",
    "pool_type": ("tok", "argmax"),
    "proj_type": "linear",
    "eos_id": 2,
    "attn_pooler_queries": 256,
    "attn_pooler_heads": 8,
    "timm_pool": "avg",
    "timm_proj": "linear",
    "hf_model_pretrained": True,
    "hf_proj_type": "mlp",
    "hf_pooler_type": "mean_pooler",
}


def sizes_from_open_clip(config: Mapping[str, Any]) -> ClipSizes:
    """The sizes in an `open_clip_config.json`, or in one of open_clip's own model configurations.

    Raises:
        UnknownCheckpoint: keys that ask for an architecture other than CLIP's two plain transformers, all named.
    """
    model = config.get("model_cfg", config)
    vision, text = model["vision_cfg"], model["text_cfg"]
    sections = (
        ("", model, _OPEN_CLIP_MODEL),
        ("vision_cfg.", vision, _OPEN_CLIP_VISION),
        ("text_cfg.", text, _OPEN_CLIP_TEXT),
    )
    strange = [
        f"{section}{key}={value!r}"
        for section, part, known in sections
        for key, value in part.items()
        if key not in known and value and value not in _plain(key)
    ]
    if strange or not isinstance(vision.get("layers", 12), int):
        what = ", ".join(strange) or f"vision_cfg.layers={vision['layers']!r}"
        raise UnknownCheckpoint(f"open_clip configuration: {what} is not CLIP with two plain transformers")
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"

    def tower(part: Mapping[str, Any], width: int, heads: int) -> TowerSizes:
        """The sizes in one section."""
        return TowerSizes(width, part.get("layers", 12), heads, int(width * part.get("mlp_ratio", 4.0)), activation)

    width, text_width = vision.get("width", 768), text.get("width", 512)
    return ClipSizes(
        image=tower(vision, width, width // vision.get("head_width", HEAD_WIDTH)),
        text=tower(text, text_width, text.get("heads", 8)),
        image_size=vision.get("image_size", 224),
        patch_size=vision.get("patch_size", 16),
        context_length=text.get("context_length", 77),
        vocab_size=text.get("vocab_size", 49408),
        embed_dim=model["embed_dim"],
    )


def _plain(key: str) -> tuple[Any, ...]:
    value = _OPEN_CLIP_PLAIN.get(key, ())
    return value if isinstance(value, tuple) else (value,)


def transform_from_open_clip(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of `processor.images` from the `preprocess_cfg` of an `open_clip_config.json`."""
    given = config.get("preprocess_cfg", {})
    found = {key: given[key] for key in ("mean", "std", "interpolation") if key in given}
    if given.get("resize_mode") in RESIZE_MODES:
        found["resize"] = RESIZE_MODES[given["resize_mode"]]
    return found
