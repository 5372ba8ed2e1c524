"""The names of EVA-02's masked-image-modelling files: a student's image tower without prefix, mask token and head.

Source: EVA-02 (arXiv 2303.11331) and the pretraining files of baaivision/EVA. The tower is the one of EVA-CLIP but for
the norm over the concatenated heads (`inner_attn_ln`), which the student lacks and the CLIP tower has: it starts as
identity there. `STUDENT` fills a `masked_student`; `CLIP_IMAGE` fills the image tower of a dual encoder with sub-LN.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from multimodal_zoo.checkpoints.errors import CheckpointError
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import Rule, drop, rename, reshape
from multimodal_zoo.checkpoints.tables.eva_clip import TABLES, bare_tower

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


def _tower() -> list[Rule]:
    """EVA-CLIP's own names up to the norm behind the last block, without that over the heads."""
    blocks = [rule for rule in bare_tower("") if "attn.inner_attn_ln" not in rule.theirs[0]]
    return [*blocks, rename("norm.*", "image.pool.norm.*"), *TABLES]


_BLOCK = "image.blocks.layers.{}."
_OUTPUT = "blocks.{}.attn.proj."
STUDENT = Naming(
    "eva02_mim",
    [
        *_tower(),
        reshape("mask_token", "mask_token", shape=(-1,), their_shape=(1, 1, -1)),
        rename("lm_head.*", "head.*"),
    ],
)
CLIP_IMAGE = Naming(
    "eva02_mim_image",
    [
        *(rule for rule in _tower() if rule.theirs != (f"{_OUTPUT}*",)),
        rename(f"{_OUTPUT}weight", f"{_BLOCK}attention.out.weight"),
        _output_bias(f"{_OUTPUT}bias", _BLOCK),
        *(drop(name) for name in STUDENT_ONLY),
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
        _output_bias(f"{_BLOCK}attention.out.bias", _BLOCK),
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
