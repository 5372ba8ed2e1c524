"""Names to declarations to models: the notebook's front door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal_zoo.checkpoints.declarations import declaration
from multimodal_zoo.config import compose
from multimodal_zoo.registry import build, self_contained

if TYPE_CHECKING:
    import torch
    from torch import nn

    from multimodal_zoo.card import Card
    from multimodal_zoo.checkpoints.source import Source
    from multimodal_zoo.inference.placement import Placement

__all__ = ["attach", "build_model", "compose", "create", "declaration", "describe", "filled", "from_pretrained"]


def build_model(config: Mapping[str, Any], *, device: str | None = None, seed: int | None = 0) -> nn.Module:
    """Build a model node: the module itself, with `processor`, `card`, `config` and `weights` attached.

    Args:
        config: a complete model node, as `declaration` gives it.
        device: where the parameters are created; `meta` allocates nothing.
        seed: seeds the random weights; None keeps torch's generator as it is.
    """
    weights = "random" if seed is None else f"random (seed {seed})"
    return attach(_module(config, device=device, seed=seed), config, weights=weights)


def _module(config: Mapping[str, Any], *, device: str | None = None, seed: int | None = 0) -> nn.Module:
    import torch

    from multimodal_zoo.checkpoints.meta import meta_device, module_node

    if device is not None:
        torch.empty(0, device=device)  # one that is not here is said of it, and of no part
    with torch.random.fork_rng(devices=[]) if seed is not None else nullcontext():
        if seed is not None:
            torch.manual_seed(seed)
        with meta_device() if device == "meta" else torch.device(device) if device else nullcontext():
            return build(module_node(config), path="model")  # type: ignore[no-any-return]


def attach(model: nn.Module, config: Mapping[str, Any], weights: str) -> nn.Module:
    """Give a model what must travel with its weights: processor, card, configuration, and where they come from.

    The configuration no longer names the files of initial weights: whoever saves the model saves the weights too.
    """
    model.processor = build(config.get("processor"), path="model.processor")  # type: ignore[assignment]
    model.card = dict(config.get("card") or {})  # type: ignore[assignment]
    model.variant = model.card.get("name")  # type: ignore[assignment, operator]
    model.config = self_contained(config)  # type: ignore[assignment]
    model.weights = weights  # type: ignore[assignment]
    return model


def create(
    variant: str,
    *,
    pretrained: str | Path | Mapping[str, str | Path] | None = None,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    resize: bool = False,
    quantize: str | None = None,
    placement: Placement | None = None,
    offload_folder: str | Path | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = 0,
    **values: Any,
) -> nn.Module:
    """Create a published variant: in training mode with random weights, in evaluation mode with weights from a file.

    Args:
        variant: a name from `list_models()`.
        pretrained: None for random weights (then `model.weights` says so and evaluation refuses them); "published"
            for the weights that the card names; a path or `hf://organisation/repository/file`; or such a place for
            each part, `{"decoder": PLACE, "vision_tokenizer": PLACE}`, where a model was published in parts.
        device: a torch device; `meta` allocates nothing.
        dtype: of the weights: a torch type or its name, or "auto" for the file's own. None is float32, to which a file
            of half precision is widened; with `quantize` or `placement` it is "auto".
        resize: whether positions and patch kernels of a file for another image or patch size are interpolated.
        quantize: `int8` or `int4` for the matrices of the blocks (`inference.quantize`), tensor by tensor while the
            file is read; such a model is for inference only.
        placement: parts on several devices (`inference.placement`): `auto`, memory by device, or a device for each.
        offload_folder: new or empty, for parts that the placement keeps on disk.
        overrides: Hydra overrides, as on the command line.
        seed: seed of the random weights.
        **values: top-level keys of the model node to replace.

    Raises:
        KeyError: unknown variant or component, or a naming of the card that no table has, with the nearest names.
        multimodal_zoo.checkpoints.load.CheckpointMismatch: keys of the file that do not fit, all listed.
        ValueError, ImportError: a quantisation or placement that cannot be.
    """
    config = declaration(variant, overrides, **values)
    from multimodal_zoo.checkpoints.store import find_dtype

    if pretrained is None:
        if quantize is not None or placement is not None:
            raise ValueError(
                "quantize and placement act while weights are read: give pretrained, or call "
                "multimodal_zoo.inference.quantize.quantize on a model"
            )
        model = build_model(config, device=device, seed=seed)
        return model if dtype is None else model.to(find_dtype(dtype))
    if quantize is None and placement is None:
        return filled(config, pretrained, device=device, dtype=dtype, resize=resize)
    from multimodal_zoo.inference.loading import Target, load_for_inference

    source, place = _opened(config, pretrained)
    model = _receiver(source.config)
    target = Target(device, dtype or "auto", quantize, placement, offload_folder)
    load_for_inference(model, source, target, resize=resize)
    return attach(model, source.config, weights=place).eval()


def filled(
    config: Mapping[str, Any],
    pretrained: str | Path | Mapping[str, str | Path],
    *,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    resize: bool = False,
) -> nn.Module:
    """The model of a node with weights from files, in evaluation mode; arguments and errors as for `create`.

    Args:
        config: a complete model node.
        pretrained: "published", a place, or a place for each part.
        device: a torch device.
        dtype: of the weights.
        resize: whether positions and patch kernels of other sizes are interpolated.
    """
    from multimodal_zoo.checkpoints.store import load_weights

    source, place = _opened(config, pretrained)
    model = _receiver(source.config)
    load_weights(model, source, device=device, dtype=dtype, resize=resize)
    return attach(model, source.config, weights=place).to(device).eval()


def _opened(config: Mapping[str, Any], pretrained: str | Path | Mapping[str, str | Path]) -> tuple[Source, str]:
    """The checkpoint that `pretrained` means, and where it is.

    Raises:
        CorruptCheckpoint: a file does not hash to what the card says.
    """
    from multimodal_zoo.checkpoints.parts import joined
    from multimodal_zoo.checkpoints.store import recognise
    from multimodal_zoo.checkpoints.texts import with_texts

    published = _published(config) if pretrained == "published" else []
    if len(published) > 1:
        pretrained = {entry["part"]: _place(entry) for entry in published}
    if isinstance(pretrained, Mapping):
        said = {entry["part"]: entry for entry in published}
        sources = {part: _as_said(recognise(place, {}), said.get(part, {})) for part, place in pretrained.items()}
        return joined(config, sources), ", ".join(f"{part}: {place}" for part, place in pretrained.items())
    entry = published[0] if published else {}
    place = _place(entry) if entry else str(pretrained)
    source = _as_said(recognise(place, config), entry)
    return replace(source, config=with_texts(source.config, source.files[0].parent)), place


def _as_said(source: Source, published: Mapping[str, Any]) -> Source:
    """A checkpoint in the naming that a card's entry gives, its file checked against the entry's `sha256`."""
    from multimodal_zoo.checkpoints.tables import find_naming

    if "sha256" in published:
        source.verify(published["sha256"])
    if "naming" not in published or source.pieces:  # folders of several parts tell each part's naming
        return source
    return replace(source, naming=find_naming(published["naming"]))


def _place(published: Mapping[str, Any]) -> str:
    """Where a card's entry says that the weights are."""
    return "/".join(["hf:/", published["hub"], *filter(None, [published.get("file")])])


def _published(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The card's first published weights: `hub`, perhaps `file`, `naming` and `sha256`; several entries if in parts."""
    card = config.get("card") or {}
    published = card.get("weights", {}).get("published") or []
    if not published:
        name = card.get("name", "the model")
        raise ValueError(f"pretrained='published': {name} has no published weights; give a path instead")
    parts = [entry for entry in published if "part" in entry] if "part" in published[0] else published[:1]
    return [entry for entry in parts if len(parts) == 1 or config.get(entry["part"]) is not None]


def _receiver(config: Mapping[str, Any]) -> nn.Module:
    """A model whose weights will come from a file: on `meta`, unless a borrowed backbone cannot be built there."""
    from multimodal_zoo.checkpoints.load import unsaved

    config = self_contained(config)
    try:
        model = _module(config, device="meta")
    except NotImplementedError:  # the backbone computes with its weights while it is built
        return _module(config)
    return _module(config) if unsaved(model) else model


def from_pretrained(
    path: str | Path,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    part: str | None = None,
    vision_tokenizer: str | Path | None = None,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    resize: bool = False,
) -> nn.Module:
    """Load a model from a folder or file, whoever wrote it; in evaluation mode, as most features are wanted.

    Parts that training alone needs (EVE's aligning layer) are left out, unless `config` has them.

    Args:
        path: a training run, a folder of `save_model`, a Lightning checkpoint, a publisher's file or folder,
            `hf://organisation/repository/file`, or `package:NAME` for the file inside an installed package. Pickles are
            read with `weights_only=True` only.
        config: for files that do not say what they hold: a variant's name, a model node, or a publisher's own
            configuration as a mapping or the path of its JSON file.
        part: `image`, `text`, `decoder` or `vision_tokenizer` for that part alone, without its projection; the rest is
            not read.
        vision_tokenizer: for an Emu3 whose decoder is published alone: the place of its visual tokenizer, or of a model
            that has one. None: the model has none, unless its own folder does.
        device: a torch device; None is the CPU.
        dtype: of the weights: a torch type or its name, or "auto" for the file's own. None is float32, to which a file
            of half precision is widened.
        resize: whether positions and patch kernels of a file for another image or patch size are interpolated.

    Raises:
        FileNotFoundError, ValueError: nothing recognisable at `path`; the message says what was looked for.
        multimodal_zoo.checkpoints.load.CheckpointMismatch: keys that do not fit, all listed.
    """
    from torch import nn

    from multimodal_zoo.checkpoints.parts import with_part
    from multimodal_zoo.checkpoints.store import load_part, load_weights, recognise
    from multimodal_zoo.checkpoints.training_only import for_inference

    source = recognise(path, _configuration(config))
    if config is None:
        source = replace(source, config=for_inference(source.config))
    if vision_tokenizer is not None:
        source = with_part(source, "vision_tokenizer", recognise(vision_tokenizer))
    node = source.config if part is None else _part_of(source.config, part)
    with _named(path) if config is None else nullcontext():
        source.check_depth(node)
        model = _receiver(node)
    if part is None:
        load_weights(model, source, device=device, dtype=dtype, resize=resize)
    else:
        holder, taken = nn.ModuleDict({part: model}), source.parts.get(part, source)
        load_part(holder, part, taken, device=device, dtype=dtype, resize=resize)
    # weights that were random when they were saved stay so: evaluation goes on refusing them
    untrained = source.weights is not None and source.weights.startswith("random")
    with _named(path) if config is None else nullcontext():
        model = attach(model, node, weights=f"{source.weights}, saved" if untrained else str(path))
    return model.to(device).eval()


def _named(path: str | Path) -> AbstractContextManager[None]:
    """What a checkpoint says of its model may be damaged as its weights may: errors in it name the file."""
    from multimodal_zoo.checkpoints.errors import CheckpointError, CorruptCheckpoint
    from multimodal_zoo.files import reading

    what = "description of a model that can be built"
    way_out = (
        "download it again, correct its config.yaml if another version of this library wrote it, or say the model with "
        "config=VARIANT"
    )
    return reading(path, what, way_out, kind=CorruptCheckpoint, passing=(CheckpointError, NotImplementedError))


def _configuration(config: Mapping[str, Any] | str | Path | None) -> Mapping[str, Any] | None:
    """A model node or a publisher's configuration, from a variant's name or the path of a JSON file."""
    if isinstance(config, str) and not config.endswith(".json"):
        return declaration(config)
    if isinstance(config, (str, Path)):
        from multimodal_zoo.checkpoints.configs import node_of

        return node_of(Path(config))
    return config


def _part_of(config: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The node of one part, with what must travel with its weights."""
    from multimodal_zoo.checkpoints.parts import PARTS

    if part not in PARTS or config.get(part) is None:
        there = " or ".join(key for key in PARTS if config.get(key)) or "nothing: the model has no parts"
        raise ValueError(f"part={part!r}: expected {there}")
    return {**config[part], **{key: config[key] for key in ("processor", "card") if key in config}}


def describe(variant: str, overrides: Sequence[str] = ()) -> Card:
    """The card of a variant: system, paper, licence, sizes, weights, published figures, memory; renders in a notebook.

    Raises:
        KeyError: unknown variant, with the nearest names.
    """
    from multimodal_zoo.card import Card

    return Card.of(variant, declaration(variant, overrides))
