"""Decoding steps without torch's bookkeeping of gradients and of changes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn


def undisturbed(decoder: Any) -> AbstractContextManager[Any]:
    """What decoding runs in; results must be copied (`clone`) outside of it before anything else takes them.

    Where all weights are plain tensors in place, nothing of what is computed can take part in training, and a step of
    a small model on a CPU lasts about a sixth less. Sharded, quantised and placed weights keep torch's own ways.

    Args:
        decoder: what reads; one that is no module (`Remembering`) may keep what it has read for later.
    """
    return torch.inference_mode() if _is_plain(decoder) else torch.no_grad()


def _is_plain(decoder: Any) -> bool:
    return (
        isinstance(decoder, nn.Module)
        and all(type(parameter) is nn.Parameter for parameter in decoder.parameters())
        and not any(hasattr(part, "_hf_hook") for part in decoder.modules())
    )
