"""Whole models on disk: writing ours, recognising anybody's, reading back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.checkpoints import emu_sources, recognisers
from multimodal_zoo.checkpoints.branches import Branched, branches_of, require_plain
from multimodal_zoo.checkpoints.configs import node_of
from multimodal_zoo.checkpoints.errors import CheckpointError, CorruptCheckpoint
from multimodal_zoo.checkpoints.files import manifest
from multimodal_zoo.checkpoints.growing import chained, growing
from multimodal_zoo.checkpoints.load import Accounting, account, load_into
from multimodal_zoo.checkpoints.locate import resolve
from multimodal_zoo.checkpoints.parts import part_view, readable, receiver
from multimodal_zoo.checkpoints.recognisers import CONFIG, WEIGHTS
from multimodal_zoo.checkpoints.resizing import fit
from multimodal_zoo.checkpoints.source import Source
from multimodal_zoo.checkpoints.tables import detect_naming
from multimodal_zoo.checkpoints.views import Change, OuterBlocks, Seen, depths_of
from multimodal_zoo.checkpoints.writing import require_floats, write_folder, write_safetensors
from multimodal_zoo.files import reading
from multimodal_zoo.registry import rewritten

#: Short names of types, as training scripts have them.
ALIASES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def save_model(model: nn.Module, folder: str | Path, state: Mapping[str, Tensor] | None = None) -> Path:
    """Write a model so that `recognise` and `zoo.from_pretrained` read it back; the folder appears whole or not at all.

    Args:
        model: as `zoo.create` makes it: its `config` is the model node that rebuilds it, its `variant` and `weights`
            say where it comes from.
        folder: receives `model.safetensors`, `config.yaml` and the files that parts of the model need (a vocabulary);
            replaced if it exists. It can be moved as a whole.
        state: the tensors to write instead of the model's own (averaged or gathered ones), under the same names.

    Raises:
        ValueError: a quantised model, one without `config`, or tensors that are not the model's.
        OSError: a full disk or an unwritable folder; an older version in `folder` survives.
    """
    from omegaconf import OmegaConf

    require_floats(model, "save_model")
    config = getattr(model, "config", None)
    if not isinstance(config, Mapping):
        raise ValueError("save_model needs model.config, the node that rebuilds the model; zoo.create attaches it")
    tensors = dict(state) if state is not None else model.state_dict()
    account(model, tensors).require("the state given to save_model")
    facts = {
        "format": 1,
        "version": version("multimodal_zoo"),
        "variant": getattr(model, "variant", None),
        "weights": str(getattr(model, "weights", "unknown")),
        "model": config,
    }

    def write(temporary: Path) -> None:
        """Weights first: a folder with a configuration is complete."""
        write_safetensors(temporary / WEIGHTS, tensors)
        carried = {**facts, "model": rewritten(config, "carry", temporary)}
        (temporary / CONFIG).write_text(OmegaConf.to_yaml(OmegaConf.create(carried)), encoding="utf-8")

    return write_folder(folder, write)


def recognise(path: str | Path, config: Mapping[str, Any] | None = None, *, average: bool = True) -> Source:
    """Find out what a file or folder holds and what model it needs.

    Known are: a folder by `save_model`, a training run, a checkpoint of our training, a Hugging Face `CLIPModel`
    folder, an open_clip folder, OpenAI's CLIP files, the Hub's `EvaCLIPModel` folders, EVA-CLIP's published files and
    other original files with their JSON configuration beside them, files of DeCLIP's repository, folders of Emu3,
    EVE, Emu, Emu2 and decoders like LLaMA, GGUF files of such decoders; and, with `config`, any file in a published
    naming or ours.

    Args:
        path: local, `hf://organisation/repository[/file]`, or `package:NAME[/file]`.
        config: the model node or a publisher's configuration (`configs.node_of`), for files that do not say what they
            hold; wins over what they say.
        average: read the averaged weights of a training checkpoint, if it has any.

    Raises:
        MissingCheckpoint, CorruptCheckpoint, UnsafeCheckpoint: see there.
        UnknownCheckpoint: nothing known; the message lists what was looked for.
    """
    local = resolve(path)
    config = node_of(config) if config is not None else None
    kinds = recognisers.OWN if config is not None else (*recognisers.OWN, *recognisers.PUBLISHED)
    with reading(local, "checkpoint that is understood", kind=CorruptCheckpoint, passing=(CheckpointError,)):
        found = next((source for kind in kinds if (source := kind(local)) is not None), None)
        if found is None:
            if config is None:
                found = recognisers.by_names(local)
            else:
                found = emu_sources.pieces_of(local, config) or Source("a weight file", local, {})
        if found.kind == recognisers.SAVED:
            found = replace(found, config=rewritten(found.config, "carried", found.path.parent))
    if config is not None:
        found = replace(found, config=dict(config), variant=None)
    if found.average is not None:
        return replace(found, average=found.average and average)
    if found.parts or found.pieces:
        return found
    shapes = manifest(found.path)
    naming = None if found.kind == recognisers.SAVED else found.naming or detect_naming(shapes)
    return replace(found, naming=naming, known=shapes)


def load_weights(
    model: nn.Module,
    source: Source | str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    resize: bool = False,
    copy_vision_branch: bool = False,
    new_tokens: str | None = None,
    sharing: bool = False,
) -> Accounting:
    """Load a recognised checkpoint, or one of any known naming, into a model; errors as for `load_into`.

    Args:
        model: built on `meta` (then the tensors are assigned, shard by shard) or with weights (then they are copied).
        source: from `recognise`, or a path.
        device: where a meta-built model's tensors go; None is the CPU. Other models stay where they are.
        dtype: of the floating-point tensors, whatever the file's: a torch type or its name, or "auto" for the file's
            own, with which a model on `meta` copies nothing. None keeps the model's: float32, so that a file of half
            precision is widened.
        resize: whether positions and patch kernels of other sizes are interpolated to the model's.
        copy_vision_branch: whether the weights that pictures have for themselves (`decoupled_block`) are a copy of the
            text's, which are all that the file holds.
        new_tokens: how rows of a larger vocabulary than the file's begin, a name of `growing.NEW_TOKENS`; None refuses
            such a file.
        sharing: whether such a copy may share memory with the text's where a model on `meta` is filled: for one that is
            split over processes next.

    Raises:
        ValueError: `copy_vision_branch` with a file that holds these weights, or a model that has none.
        CheckpointMismatch: tensors that do not fit, all listed.
    """
    if not isinstance(source, Source):
        source = recognise(source, getattr(model, "config", None) or {})
    assign, dtype = any(parameter.is_meta for parameter in model.parameters()), find_dtype(dtype, source)
    change, branches = _changes(model, resize, new_tokens), branches_of(model)
    if not copy_vision_branch:
        state, naming = readable(model, source, change)
        return load_into(model, state, naming, assign=assign, dtype=dtype, device=device)
    if not branches:
        raise ValueError("initial_weights.copy_vision_branch=true: no block of the model is a decoupled_block")
    require_plain(readable(model, source, None, lambda view: view)[0].shapes(), str(source.path))
    state, naming = readable(model, source, change, lambda view: Branched(view, branches, own=assign and not sharing))
    return load_into(model, state, naming, assign=assign, dtype=dtype, device=device)


def _changes(model: nn.Module, resize: bool, new_tokens: str | None) -> Change | None:
    """What fits a file's tensors to a model of other sizes."""
    grown = None if new_tokens is None else growing(model, new_tokens)
    return chained(fit(model) if resize else None, grown)


def find_dtype(dtype: str | torch.dtype | None, source: Source | None = None) -> torch.dtype | None:
    """The type that a caller means.

    Args:
        dtype: a torch type, its name or an alias (fp32, fp16, bf16), "auto" for the type of most of the file's
            values, None for the model's own.
        source: the file; without one there is no "auto".

    Raises:
        ValueError: no floating-point type of that name.
    """
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto" and source is not None:
        sizes: Counter[torch.dtype] = Counter()
        for tensor in source.shapes().values():
            sizes[tensor.dtype] += tensor.numel() if tensor.is_floating_point() else 0
        return sizes.most_common(1)[0][0]
    found = getattr(torch, ALIASES.get(dtype, dtype), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype={dtype!r}: expected float32, float16, bfloat16 or auto (the file's own)")
    return found


def load_part(
    model: nn.Module,
    part: str,
    source: Source | str | Path,
    *,
    projection: bool = False,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    resize: bool = False,
    outer_blocks: bool = False,
    new_tokens: str | None = None,
    sharing: bool = False,
) -> Accounting:
    """Fill one part of a model from any recognised file: of a whole model, or of such a part alone.

    Every tensor is accounted for: the part's exactly, the file's others as `left_out`; the rest of the model is
    untouched. Tensors that are left out are not read. The blocks of a plain decoder fill both the text's and the
    pictures' weights of decoupled blocks (EVE v2, after its first stage).

    Args:
        model: holds the part under the name `part`, on `meta` or with weights.
        part: a name of `parts.PARTS`.
        source: from `recognise`, or a path.
        projection: whether the tower's projection is filled too.
        device: as in `load_weights`.
        dtype: as in `load_weights`, for what is filled.
        resize: as in `load_weights`.
        outer_blocks: whether a stack of blocks takes the first and the last half of its own number from a deeper one.
        new_tokens: as in `load_weights`.
        sharing: as in `load_weights`.

    Raises:
        ValueError: the model has no such part.
        CheckpointMismatch: tensors that do not fit, all listed.
    """
    wanted = [part, f"{part}_projection"] if projection else [part]
    filled = receiver(model, wanted)
    if not isinstance(source, Source):
        source = recognise(source, {})
    assign = any(parameter.is_meta for parameter in filled.parameters())
    branches, depths = branches_of(filled), depths_of(filled)

    def wrap(view: Seen) -> Seen:
        """The blocks that are wanted, for the blocks that there are."""
        seen: Seen = OuterBlocks(view, depths) if outer_blocks else view
        return Branched(seen, branches, own=assign and not sharing) if branches else seen

    view = part_view(filled, source, wanted, _changes(filled, resize, new_tokens), wrap)
    result = load_into(filled, view, assign=assign, dtype=find_dtype(dtype, source), device=device)
    return replace(result, left_out=view.left_out)
