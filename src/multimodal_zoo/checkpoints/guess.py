"""Which known variant a file looks like, judged by the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from torch import Tensor, nn

from multimodal_zoo.checkpoints.meta import meta_device
from multimodal_zoo.checkpoints.naming import Naming, Translator

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

    named: Mapping[str, Tensor] = {name: tensor.detach().to("meta") for name, tensor in shapes.items()}
    if naming is not None:
        translator = Translator(naming)
        translated = translator.feed(named)
        named = {**translated, **translator.finish()}
        if translator.unexpected or translator.incomplete:
            return []
    count = sum(tensor.numel() for name, tensor in named.items() if name.rpartition(".")[2] not in STATISTICS)
    alike = [variant for variant, parameters in _parameters().items() if parameters in (None, count)]
    return [variant for variant in alike if account(variant_on_meta(variant), named).exact]


@cache
def _parameters() -> dict[str, int | None]:
    """The number of parameters on every variant's card, read without Hydra: composing all takes seconds."""
    from yaml import safe_load

    from multimodal_zoo.catalogue import declared_file, list_models

    cards = {name: safe_load(declared_file("model", name).read_text()).get("card") or {} for name in list_models()}
    return {name: card.get("parameters") for name, card in cards.items()}


def variant_on_meta(variant: str) -> nn.Module:
    """A published variant without memory: its shapes."""
    from multimodal_zoo.config import compose
    from multimodal_zoo.registry import build

    node = {str(k): v for k, v in compose(None, [f"+model={variant}"]).model.items()}
    node.pop("processor", None)
    with meta_device():
        return build(node, path="model")
