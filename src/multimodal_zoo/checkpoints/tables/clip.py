"""The names of CLIP's tensors in OpenAI's and open_clip's state dicts and in Hugging Face's `CLIPModel`.

OpenAI's files (arXiv 2103.00020) and open_clip's share one naming; open_clip models with `custom_text` keep the text
tower under `text.`. OpenAI multiplies by bare projection matrices, which are the transposes of a Linear's weight.
"""

from __future__ import annotations

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import Rule, drop, pack, rename, reshape, transpose


def openai_blocks(theirs: str, ours: str) -> list[Rule]:
    """The rules of a stack of OpenAI's residual blocks under a prefix on either side."""
    pairs = [
        ("ln_1.*", "norm_1.*"),
        ("attn.in_proj_weight", "attention.qkv.weight"),
        ("attn.in_proj_bias", "attention.qkv.bias"),
        ("attn.out_proj.*", "attention.out.*"),
        ("ln_2.*", "norm_2.*"),
        ("mlp.c_fc.*", "mlp.fc1.*"),
        ("mlp.c_proj.*", "mlp.fc2.*"),
    ]
    return [rename(f"{theirs}.{{}}.{a}", f"{ours}.{{}}.{b}") for a, b in pairs]


OPENAI_IMAGE = Naming(
    "openai_clip",
    [
        rename("visual.conv1.weight", "image.patches.weight"),
        reshape("visual.class_embedding", "image.prefix.weight", shape=(1, -1), their_shape=(-1,)),
        rename("visual.positional_embedding", "image.positions.weight"),
        rename("visual.ln_pre.*", "image.norm_in.*"),
        *openai_blocks("visual.transformer.resblocks", "image.blocks.layers"),
        rename("visual.ln_post.*", "image.pool.norm.*"),
        transpose("visual.proj", "image_projection.weight"),
        rename("logit_scale", "logit_scale.weight"),
    ],
)
OPENAI_TEXT = Naming(
    "openai_clip",
    [
        rename("token_embedding.weight", "text.token_embedding.weight"),
        rename("positional_embedding", "text.positions"),
        *openai_blocks("transformer.resblocks", "text.blocks.layers"),
        rename("ln_final.*", "text.norm.*"),
        transpose("text_projection", "text_projection.weight"),
    ],
)
#: Sizes that OpenAI's archives carry as scalar tensors; the configuration says them already.
OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")

OPENAI = Naming("openai_clip", (OPENAI_IMAGE + OPENAI_TEXT).rules + tuple(drop(name) for name in OPENAI_EXTRAS))
OPEN_CLIP_CUSTOM = Naming("open_clip_custom_text", (OPENAI_IMAGE + OPENAI_TEXT.under("text.", "")).rules)


def _hf_blocks(theirs: str, ours: str) -> list[Rule]:
    pairs = [
        ("layer_norm1.*", "norm_1.*"),
        ("self_attn.out_proj.*", "attention.out.*"),
        ("layer_norm2.*", "norm_2.*"),
        ("mlp.fc1.*", "mlp.fc1.*"),
        ("mlp.fc2.*", "mlp.fc2.*"),
    ]
    return [
        *(rename(f"{theirs}.{{}}.{a}", f"{ours}.{{}}.{b}") for a, b in pairs),
        *(
            pack([f"{theirs}.{{}}.self_attn.{p}_proj.{kind}" for p in "qkv"], f"{ours}.{{}}.attention.qkv.{kind}")
            for kind in ("weight", "bias")
        ),
    ]


HF = Naming(
    "hf_clip",
    [
        rename("vision_model.embeddings.patch_embedding.weight", "image.patches.weight"),
        reshape("vision_model.embeddings.class_embedding", "image.prefix.weight", shape=(1, -1), their_shape=(-1,)),
        rename("vision_model.embeddings.position_embedding.weight", "image.positions.weight"),
        rename("vision_model.pre_layrnorm.*", "image.norm_in.*"),  # so spelled in the published files
        *_hf_blocks("vision_model.encoder.layers", "image.blocks.layers"),
        rename("vision_model.post_layernorm.*", "image.pool.norm.*"),
        rename("visual_projection.weight", "image_projection.weight"),
        rename("text_model.embeddings.token_embedding.weight", "text.token_embedding.weight"),
        rename("text_model.embeddings.position_embedding.weight", "text.positions"),
        *_hf_blocks("text_model.encoder.layers", "text.blocks.layers"),
        rename("text_model.final_layer_norm.*", "text.norm.*"),
        rename("text_projection.weight", "text_projection.weight"),
        rename("logit_scale", "logit_scale.weight"),
        drop("vision_model.embeddings.position_ids"),  # 0, 1, 2, ...: files written before transformers 4.31
        drop("text_model.embeddings.position_ids"),
    ],
)
