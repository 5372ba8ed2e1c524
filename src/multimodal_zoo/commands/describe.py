"""`mmzoo describe VARIANT [overrides]`: the card of a variant."""

from __future__ import annotations

from multimodal_zoo.catalogue import list_models


def main(arguments: list[str]) -> int:
    """Print the card with the memory that the variant needs."""
    if not arguments:
        raise ValueError(f"mmzoo describe needs a variant: {', '.join(list_models())}")
    from rich.console import Console

    from multimodal_zoo.zoo import describe

    Console().print(describe(arguments[0], arguments[1:]))
    return 0
