"""Which known variant a file looks like, judged by the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from multimodal_zoo.checkpoints.naming import Naming


def guess_variant(shapes: Mapping[str, Tensor], naming: Naming | None = None) -> str | None:
    """The published variant that a file's tensors fit exactly, or None.

    Args:
        shapes: name -> tensor (meta tensors will do), in the file's naming.
        naming: the table from the file's names to ours; None if they are ours.
    """
    from multimodal_zoo.catalogue import list_models
    from multimodal_zoo.checkpoints.load import account

    for variant in list_models():
        if account(variant_on_meta(variant), shapes, naming).exact:
            return variant
    return None


def variant_on_meta(variant: str) -> nn.Module:
    """A published variant without memory: its shapes."""
    from multimodal_zoo.config import compose
    from multimodal_zoo.registry import build

    node = {str(k): v for k, v in compose(None, [f"+model={variant}"]).model.items()}
    node.pop("processor", None)
    with torch.device("meta"):
        return build(node, path="model")
