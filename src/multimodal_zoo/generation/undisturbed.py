"""Decoding steps without torch's bookkeeping of gradients and of changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from multimodal_zoo.nn.joined import joined_layers


@contextmanager
def undisturbed(decoder: Any) -> Iterator[None]:
    """What decoding runs in; results must be copied (`clone`) outside of it before anything else takes them.

    Where all weights are plain tensors in place, nothing of what is computed can take part in training, and a step of
    a small model on a CPU lasts about a sixth less; its small matrices are joined meanwhile. Sharded, quantised and
    placed weights keep torch's own ways.

    Args:
        decoder: what reads; one that is no module (`Remembering`) may keep what it has read for later.
    """
    parts = list(decoder.modules()) if isinstance(decoder, nn.Module) else []
    if parts and all(_is_plain(part) for part in parts):
        with torch.inference_mode(), joined_layers(parts):
            yield
    else:
        with torch.no_grad():
            yield


def _is_plain(part: nn.Module) -> bool:
    parameters = part._parameters.values()
    return "_hf_hook" not in part.__dict__ and all(one is None or type(one) is nn.Parameter for one in parameters)
