"""The names of EVA-02's masked-image-modelling files: a student's image tower without prefix, mask token and head.

Source: EVA-02 (arXiv 2303.11331) and the pretraining files of baaivision/EVA. The tower is the one of EVA-CLIP but for
the norm over the concatenated heads (`inner_attn_ln`), which the student lacks and the CLIP tower has: it starts as
identity there. `STUDENT` fills a `masked_student`; `CLIP_IMAGE` fills the image tower of a dual encoder with sub-LN;
`TEACHER` fills a `patch_teacher` from the tensors of an EVA-CLIP image tower.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from multimodal_zoo.checkpoints.errors import CheckpointError
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import Rule, drop, lead, rename, reshape

#: Rotary tables: they follow from the sizes and were stored in several shapes.
_DERIVED = ("rope.freqs_cos", "rope.freqs_sin", "blocks.{}.attn.rope.freqs_cos", "blocks.{}.attn.rope.freqs_sin")
#: Tensors of a student that no image tower has.
STUDENT_ONLY = ("mask_token", "lm_head.*")
_INNER = "attention.inner_norm."


def _output_bias(theirs: str, ours: str) -> Rule:
    """The output layer's bias, and the inner norm that the file does not have: ones and zeros of the same width."""

    def to_ours(given: list[Tensor]) -> list[Tensor]:
        """The bias and an identity norm."""
        return [given[0], torch.ones_like(given[0]), torch.zeros_like(given[0])]

    def to_theirs(given: list[Tensor]) -> list[Tensor]:
        """The bias alone, if the norm still is the identity."""
        bias, weight, shift = given
        if not weight.is_meta and not (bool((weight == 1).all()) and bool((shift == 0).all())):
            raise CheckpointError(f"{ours}{_INNER}weight is trained; a student of this naming has no norm there")
        return [bias]

    names = tuple(ours + name for name in ("attention.out.bias", _INNER + "weight", _INNER + "bias"))
    return Rule((theirs,), names, to_ours, to_theirs)


def _tower(inner_norm: bool) -> list[Rule]:
    pairs = [
        ("norm1.*", "norm_1.*"),
        ("norm2.*", "norm_2.*"),
        ("gamma_1", "scale_1.weight"),
        ("gamma_2", "scale_2.weight"),
        ("attn.q_bias", "attention.qkv.q_bias"),
        ("attn.v_bias", "attention.qkv.v_bias"),
        ("attn.qkv.weight", "attention.qkv.weight"),
        ("attn.q_proj.weight", "attention.qkv.query.weight"),
        ("attn.k_proj.weight", "attention.qkv.key.weight"),
        ("attn.v_proj.weight", "attention.qkv.value.weight"),
        ("attn.proj.weight", "attention.out.weight"),
        ("mlp.fc1.*", "mlp.fc1.*"),
        ("mlp.fc2.*", "mlp.fc2.*"),
        ("mlp.w1.*", "mlp.gate.*"),
        ("mlp.w2.*", "mlp.up.*"),
        ("mlp.w3.*", "mlp.down.*"),
        ("mlp.ffn_ln.*", "mlp.inner_norm.*"),
    ]
    theirs, ours = "blocks.{}.", "blocks.layers.{}."
    pair = theirs + "attn.proj.bias", ours + "attention.out.bias"
    bias = _output_bias(pair[0], ours) if inner_norm else rename(*pair)
    return [
        rename("patch_embed.proj.*", "patches.*"),
        lead("cls_token", "prefix.weight"),
        lead("pos_embed", "positions.weight"),
        *(rename(theirs + a, ours + b) for a, b in pairs),
        bias,
        rename("norm.*", "pool.norm.*"),
        *(drop(name) for name in _DERIVED),
    ]


_PLAIN = Naming("eva02_mim", _tower(inner_norm=False))
STUDENT = Naming(
    "eva02_mim",
    [
        *_PLAIN.under("", "image.").rules,
        reshape("mask_token", "mask_token", shape=(-1,), their_shape=(1, 1, -1)),
        rename("lm_head.*", "head.*"),
    ],
)
CLIP_IMAGE = Naming(
    "eva02_mim_image",
    [
        *Naming("", _tower(inner_norm=True)).under("", "image.").rules,
        *(drop(name) for name in STUDENT_ONLY),
    ],
)
TEACHER = Naming(
    "eva_clip_teacher",
    [
        *_PLAIN.under("visual.", "encoder.").rules,
        rename("visual.blocks.{}.attn.inner_attn_ln.*", f"encoder.blocks.layers.{{}}.{_INNER}*"),
        rename("visual.head.*", "projection.*"),
    ],
)

#: A student of this library, in our own names, into the image tower of a dual encoder with inner norms.
OWN_IMAGE = Naming(
    "masked_student_image",
    [
        *(rename(f"image.{name}", f"image.{name}") for name in ("patches.*", "prefix.*", "positions.*", "pool.*")),
        *(
            rename(f"image.blocks.layers.{{}}.{name}", f"image.blocks.layers.{{}}.{name}")
            for name in (
                "norm_1.*",
                "norm_2.*",
                "scale_1.*",
                "scale_2.*",
                "attention.qkv.*",
                "attention.out.weight",
                "mlp.*",
            )
        ),
        _output_bias("image.blocks.layers.{}.attention.out.bias", "image.blocks.layers.{}."),
        drop("mask_token"),
        drop("head.*"),
    ],
)


def add_identity_norms(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A student's tensors with the inner norms that a CLIP tower has beside them, as identities.

    Args:
        state: our names (`image.blocks.layers.0.attention.out.weight`), of a student without inner norms.
        wanted: the model's state; only its names and shapes are read.

    Returns:
        `state`, with ones and zeros for each inner norm of `wanted` that it lacks.
    """
    filled = dict(state)
    for name, tensor in wanted.items():
        if name not in filled and _INNER in name:
            value = 1.0 if name.endswith("weight") else 0.0
            beside = name.split(_INNER)[0] + "attention.out.weight"
            like = filled.get(beside, tensor)
            filled[name] = torch.full(tuple(tensor.shape), value, dtype=like.dtype, device=like.device)
    return filled
