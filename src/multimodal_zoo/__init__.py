"""Published multimodal systems, assembled from one registry of interchangeable parts.

The public API is lazy (PEP 562): importing the package loads neither torch nor Hydra.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "build": "multimodal_zoo.registry",
    "compose": "multimodal_zoo.zoo",
    "create": "multimodal_zoo.zoo",
    "describe": "multimodal_zoo.zoo",
    "from_pretrained": "multimodal_zoo.zoo",
    "list_models": "multimodal_zoo.catalogue",
    "list_recipes": "multimodal_zoo.catalogue",
    "ENCODERS": "multimodal_zoo.registry",
    "TOKENIZERS": "multimodal_zoo.registry",
    "DECODERS": "multimodal_zoo.registry",
    "BEV": "multimodal_zoo.registry",
    "OBJECTIVES": "multimodal_zoo.registry",
    "DATASETS": "multimodal_zoo.registry",
    "CAPTIONS": "multimodal_zoo.registry",
    "EVALUATORS": "multimodal_zoo.registry",
}

__all__ = [
    "BEV",
    "CAPTIONS",
    "DATASETS",
    "DECODERS",
    "ENCODERS",
    "EVALUATORS",
    "OBJECTIVES",
    "TOKENIZERS",
    "__version__",
    "build",
    "compose",
    "create",
    "describe",
    "from_pretrained",
    "list_models",
    "list_recipes",
]

if TYPE_CHECKING:
    from multimodal_zoo.catalogue import list_models, list_recipes
    from multimodal_zoo.registry import (
        BEV,
        CAPTIONS,
        DATASETS,
        DECODERS,
        ENCODERS,
        EVALUATORS,
        OBJECTIVES,
        TOKENIZERS,
        build,
    )
    from multimodal_zoo.zoo import compose, create, describe, from_pretrained


def __getattr__(name: str) -> Any:
    """Load a public name from its home module on first use."""
    if name not in _HOMES:
        raise AttributeError(
            f"module 'multimodal_zoo' has no attribute {name!r}; it offers {', '.join(sorted(_HOMES))}"
        )
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, for completion in a notebook."""
    return sorted([*globals(), *_HOMES])
