"""EVA-CLIP's sizes and choices, apart from how a publisher writes them, and the model nodes that they make."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from multimodal_zoo.checkpoints.declarations import declared, written
from multimodal_zoo.checkpoints.tables.nodes import essence

Node = dict[str, Any]
#: Deviation of the first weights, and that of the head: a thousandth of it (arXiv 2303.11331's code).
STD, HEAD_STD = 0.02, 2.0e-5
#: Ids of the published byte-pair tokenizer, and the fewest that its pieces allow.
VOCABULARY, FEWEST = 49408, 514


@dataclass(frozen=True)
class ImageSizes:
    """One image tower of EVA-CLIP; the last two fields matter in training only and do not distinguish variants.

    Attributes:
        width: width of the tokens.
        depth: number of blocks.
        heads: number of heads.
        head_dim: width of a head.
        hidden: width inside the MLP.
        patch_size: side of a patch, in pixels.
        image_size: side of the images, in pixels.
        qkv_bias: whether queries and values have a bias (keys never have).
        head_bias: whether the projection has a bias.
        sub_ln: norms before the output layers of attention and MLP, with three matrices for queries, keys, values.
        gated: SwiGLU instead of the plain MLP.
        post_norm: norms at the end of each branch instead of at its start.
        rms: RMSNorm instead of LayerNorm.
        rotary_side: side of the grid of the rotary positions, or None without them.
        mean_pool: mean of all tokens, class token included, instead of the class token.
        layer_scale: first value of the factors on the branches, or None without them.
        activation: of the plain MLP, a name of `nn.mlp.ACTIVATIONS`.
        eps: of the norms.
        drop_path: stochastic depth rate of the last block.
        patch_dropout: share of the patches that training drops.
    """

    width: int
    depth: int
    heads: int
    head_dim: int
    hidden: int
    patch_size: int
    image_size: int
    qkv_bias: bool = True
    head_bias: bool = True
    sub_ln: bool = False
    gated: bool = False
    post_norm: bool = False
    rms: bool = False
    rotary_side: int | None = None
    mean_pool: bool = False
    layer_scale: float | None = None
    activation: str = "gelu"
    eps: float = 1e-6
    drop_path: float = field(default=0.0, compare=False)
    patch_dropout: float = field(default=0.0, compare=False)

    def norm(self, width: int) -> Node:
        """The node of a norm."""
        return {"type": "rms_norm" if self.rms else "layer_norm", "width": width, "eps": self.eps}

    def node(self) -> Node:
        """The node of the tower."""
        width = self.width
        node: Node = {
            "type": "vision_transformer",
            "width": width,
            "image_size": self.image_size,
            "patches": {"type": "patch_embedding", "width": width, "patch_size": self.patch_size, "bias": True},
            "prefix": {"type": "class_token", "width": width, "std": STD},
            "positions": {
                "type": "resizable_positions",
                "width": width,
                "image_size": self.image_size,
                "patch_size": self.patch_size,
                "prefix": 1,
                "std": STD,
            },
            "patch_dropout": {"type": "patch_dropout", "rate": self.patch_dropout},
            "blocks": {
                "type": "transformer",
                "depth": self.depth,
                "drop_path": self.drop_path,
                "checkpoint": "none",
                "init": {"type": "scaled_init", "std": STD},
                "block": self._block(),
            },
            "pool": {"type": "mean_pool", "norm": self.norm(width), "first": 0}
            if self.mean_pool
            else {"type": "class_token_pool", "norm": self.norm(width)},
        }
        if self.rotary_side is not None:
            node["rotary"] = {"type": "rotary_2d", "head_dim": self.head_dim, "pretrained_side": self.rotary_side}
        return node

    def projection(self, embed_dim: int) -> Node:
        """The node of the projection."""
        return {
            "type": "linear_projection",
            "width": self.width,
            "embed_dim": embed_dim,
            "bias": self.head_bias,
            "std": HEAD_STD,
        }

    def _block(self) -> Node:
        attention: Node = {"type": "self_attention", "width": self.width, "kernel": "sdpa", "qkv": self._qkv()}
        if self.sub_ln:
            attention["inner_norm"] = self.norm(self.heads * self.head_dim)
        block: Node = {
            "type": "post_norm_block" if self.post_norm else "pre_norm_block",
            "norm": self.norm(self.width),
            "attention": attention,
            "mlp": self._mlp(),
        }
        if self.layer_scale is not None:
            block["layer_scale"] = {"type": "layer_scale", "width": self.width, "initial": self.layer_scale}
        return block

    def _qkv(self) -> Node:
        heads: Node = {"width": self.width, "heads": self.heads, "head_dim": self.head_dim}
        if self.qkv_bias:
            return {"type": "separate_qkv_keyless" if self.sub_ln else "packed_qkv_keyless", **heads}
        heads["kv_heads"] = self.heads
        return (
            {"type": "separate_qkv", **heads, "biased": []}
            if self.sub_ln
            else {"type": "packed_qkv", **heads, "bias": False}
        )

    def _mlp(self) -> Node:
        if self.gated:
            mlp: Node = {"type": "swiglu", "width": self.width, "hidden": self.hidden, "bias": True}
        else:
            mlp = {"type": "mlp", "width": self.width, "hidden": self.hidden, "activation": self.activation}
        if self.sub_ln:  # the plain MLP was given torch's own norm and eps, whatever the other norms are
            plain = {"type": "layer_norm", "width": self.hidden, "eps": 1e-5}
            mlp["inner_norm"] = self.norm(self.hidden) if self.gated else plain
        return mlp


@dataclass(frozen=True)
class TextSizes:
    """One text tower of EVA-CLIP.

    Attributes:
        width: width of the tokens.
        depth: number of blocks.
        heads: number of heads.
        hidden: width inside the MLP.
        context_length: most tokens of a text.
        vocab_size: number of ids.
        activation: a name of `nn.mlp.ACTIVATIONS`.
        eps: of the norms.
        layer_scale: first value of the factors on the branches, or None without them.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    context_length: int = 77
    vocab_size: int = VOCABULARY
    activation: str = "gelu"
    eps: float = 1e-5
    layer_scale: float | None = None

    def node(self) -> Node:
        """The node of the tower."""
        width, heads = self.width, self.heads
        norm = {"type": "layer_norm", "width": width, "eps": self.eps}
        qkv = {"type": "packed_qkv", "width": width, "heads": heads, "head_dim": width // heads, "kv_heads": heads}
        block: Node = {
            "type": "pre_norm_block",
            "norm": norm,
            "attention": {"type": "self_attention", "width": width, "kernel": "sdpa", "qkv": {**qkv, "bias": True}},
            "mlp": {"type": "mlp", "width": width, "hidden": self.hidden, "activation": self.activation},
        }
        if self.layer_scale is not None:
            block["layer_scale"] = {"type": "layer_scale", "width": width, "initial": self.layer_scale}
        return {
            "type": "clip_text_transformer",
            "width": width,
            "context_length": self.context_length,
            "vocab_size": self.vocab_size,
            "blocks": {
                "type": "transformer",
                "depth": self.depth,
                "drop_path": 0.0,
                "checkpoint": "none",
                "init": {"type": "clip_init"},
                "block": block,
            },
            "norm": dict(norm),
        }

    def projection(self, embed_dim: int) -> Node:
        """The node of the projection."""
        return {"type": "linear_projection", "width": self.width, "embed_dim": embed_dim, "bias": False}

    def tokenizer(self) -> Node:
        """The node of the tokenizer; fewer ids than there are bytes leave it without pieces."""
        kind = {"type": "clip_bpe"} if self.vocab_size >= FEWEST else {"type": "clip_bpe_subset", "pieces": []}
        return {**kind, "context_length": self.context_length, "vocab_size": self.vocab_size}


def complete(image: ImageSizes, text: TextSizes, embed_dim: int) -> Node:
    """The complete model node, with processor and card.

    With the sizes of a published variant it is that variant's declaration, but for drop path and patch dropout.
    """
    towers = {"image": image.node(), "text": text.node()}
    node: Node = {
        "type": "dual_encoder",
        "embed_dim": embed_dim,
        **towers,
        "image_projection": image.projection(embed_dim),
        "text_projection": text.projection(embed_dim),
        "logit_scale": {"type": "logit_scale", "initial": 14.285714285714286, "maximum": 100.0},
    }
    published = _published(node)
    if published is not None:
        return {**published, **towers}
    transform = {
        "type": "image_transform",
        "size": image.image_size,
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "resize": "shorter_crop",
        "interpolation": "bicubic",
        "background": None,
    }
    node["processor"] = {"type": "image_text_processor", "images": transform, "texts": text.tokenizer()}
    node["card"] = {"system": "EVA-CLIP", "summary": "sizes read from the publisher's own configuration"}
    return node


def _published(node: Node) -> Node | None:
    """The declaration with the same parts, but for drop path and patch dropout."""
    for variant, facts in written("eva_clip_*").items():
        if facts["embed_dim"] == node["embed_dim"]:
            found = declared(variant)
            if all(_timeless(found[key]) == _timeless(value) for key, value in node.items()):
                return deepcopy(found)
    return None


def _timeless(part: Any) -> Any:
    """A node without what matters in training only."""
    return essence(part, ("drop_path", "patch_dropout"), empty=())
