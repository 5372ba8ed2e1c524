"""Declarations of variants as plain nodes: complete, as tables compare them, and as their files have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any


def declaration(variant: str, overrides: Sequence[str] = (), **values: Any) -> dict[str, Any]:
    """The complete `model:` node of a variant as a plain dict.

    Args:
        variant: a name from `list_models()`.
        overrides: Hydra overrides, the very ones of the command line (`model.image.blocks.depth=2`,
            `encoder@model.image=timm_vit`).
        **values: top-level keys of the model node to replace (`embed_dim=64`).

    Raises:
        KeyError: unknown variant, key, group or option, with the nearest names.
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: an override or value that does not fit.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from multimodal_zoo.catalogue import list_models, require
    from multimodal_zoo.config import compose, nearest

    require(variant, list_models(), "variant", "model")
    node = compose(None, [f"+model={variant}", *overrides]).model
    OmegaConf.set_struct(node, True)
    try:
        node = OmegaConf.merge(node, values)
    except OmegaConfBaseException as error:
        raise nearest(error) or error from None
    plain = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@cache
def declared(variant: str) -> dict[str, Any]:
    """The declaration of a variant, composed once: to compare with, never to change."""
    return declaration(variant)


@cache
def written(pattern: str = "*") -> Mapping[str, Mapping[str, Any]]:
    """Variants -> what their own files say, read without Hydra: composing all takes seconds.

    Args:
        pattern: of names, as in `list_models`.
    """
    from yaml import safe_load

    from multimodal_zoo.catalogue import declared_file, list_models

    return {name: safe_load(declared_file("model", name).read_bytes()) for name in list_models(pattern)}
