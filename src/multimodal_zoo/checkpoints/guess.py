"""Which known variant a file looks like, judged by the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from multimodal_zoo.checkpoints.declarations import declared, written
from multimodal_zoo.checkpoints.meta import build_on_meta
from multimodal_zoo.checkpoints.naming import Naming, in_ours

#: Last words of names that batch norms keep beside their parameters; a card does not count them.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def guess_variant(shapes: Mapping[str, Tensor], naming: Naming | None = None) -> str | None:
    """The first published variant that a file's tensors fit exactly, or None; arguments as in `guess_variants`."""
    return next(iter(guess_variants(shapes, naming)), None)


def guess_variants(shapes: Mapping[str, Tensor], naming: Naming | None = None) -> list[str]:
    """The published variants that a file's tensors fit exactly; several where these differ in their training only.

    Only variants whose card gives the file's number of parameters are built.

    Args:
        shapes: name -> tensor (meta tensors will do), in the file's naming.
        naming: the table from the file's names to ours; None if they are ours.
    """
    from multimodal_zoo.checkpoints.load import account

    named, strange = in_ours(shapes, naming)
    if strange:
        return []
    count = sum(tensor.numel() for name, tensor in named.items() if name.rpartition(".")[2] not in STATISTICS)
    cards = {variant: facts.get("card") or {} for variant, facts in written().items()}
    alike = [variant for variant, card in cards.items() if card.get("parameters") in (None, count)]
    return [variant for variant in alike if account(variant_on_meta(variant), named).exact]


def variant_on_meta(variant: str) -> nn.Module:
    """A published variant without memory: its shapes."""
    return build_on_meta(declared(variant))
