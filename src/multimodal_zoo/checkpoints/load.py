"""Loading tensors into a model with every one of them accounted for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from multimodal_zoo.checkpoints.errors import CheckpointError, CheckpointMismatch
from multimodal_zoo.checkpoints.files import State, iterate_shards, manifest
from multimodal_zoo.checkpoints.listing import listed
from multimodal_zoo.checkpoints.naming import Naming, Translator, in_ours

log = logging.getLogger(__name__)

__all__ = ["Accounting", "CheckpointMismatch", "account", "load_into"]


@runtime_checkable
class Shards(Protocol):
    """A checkpoint whose shapes are known before its tensors are read (`source.Source`)."""

    @property
    def path(self) -> Path:
        """Where it is, for errors."""
        ...

    def shapes(self) -> State:
        """Names and shapes, on the meta device."""
        ...

    def shards(self, passing: Callable[[str], bool] | None = None) -> Iterator[State]:
        """The tensors, one file at a time; `passing` as in `files.iterate_shards`."""
        ...


@dataclass(frozen=True)
class Accounting:
    """Which tensors of a file fit which of a model.

    Attributes:
        matched: the model's names that the file fills with the right shape.
        unexpected: names, in the file's naming, that the model has no place for.
        missing: the model's names that the file does not fill.
        misshapen: the model's name, the shape in the file, the shape in the model.
        left_out: names, in the file's naming, that belong to parts of a model which were not asked for.
    """

    matched: tuple[str, ...]
    unexpected: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether everything fits and nothing is left over."""
        return not (self.unexpected or self.missing or self.misshapen)

    def require(self, what: str = "checkpoint", hint: str = "") -> None:
        """Raise unless `exact`.

        Args:
            what: the file, for the message.
            hint: what the file looks like instead.

        Raises:
            CheckpointMismatch: with all names, grouped and shortened where many differ by a number only.
        """
        if self.exact:
            return
        shapes = [f"{name} {list(found)}, the model has {list(wanted)}" for name, found, wanted in self.misshapen]
        groups = (
            ("unexpected (in the file, no place in the model)", list(self.unexpected)),
            ("missing (in the model, not in the file)", list(self.missing)),
            ("misshapen", shapes),
        )
        lines = [f"{what} does not fit the model: {len(self.matched)} tensors fit"]
        lines += [listed(title, names) for title, names in groups if names]
        message = "\n".join([*lines, hint] if hint else lines)
        raise CheckpointMismatch(message, self.unexpected, self.missing, self.misshapen)


def account(model: nn.Module, shapes: Mapping[str, Tensor], naming: Naming | None = None) -> Accounting:
    """Compare a manifest with a model without any data.

    Args:
        model: may be on the meta device.
        shapes: name -> tensor (meta tensors will do), in the file's naming.
        naming: the table from the file's names to the model's; None if they are the same.
    """
    named, unexpected = in_ours(shapes, naming)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    unexpected += [name for name in named if name not in wanted]
    found = {name: tuple(tensor.shape) for name, tensor in named.items() if name in wanted}
    return Accounting(
        matched=tuple(name for name, shape in found.items() if shape == wanted[name]),
        unexpected=tuple(unexpected),
        missing=tuple(name for name in wanted if name not in found),
        misshapen=tuple((name, shape, wanted[name]) for name, shape in found.items() if shape != wanted[name]),
    )


def load_into(
    model: nn.Module,
    state: str | Path | Mapping[str, Tensor] | Shards | Iterable[State],
    naming: Naming | None = None,
    *,
    assign: bool = False,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    deliver: Callable[[str, Tensor], Tensor] | None = None,
) -> Accounting:
    """Load a checkpoint into a model; the model is untouched unless all names and shapes fit.

    Args:
        model: the receiver. A model built on `meta` needs `assign=True`.
        state: a path (read shard by shard), tensors by name, a recognised `Source`, or an iterable of shards (whose
            fit is only known at their end).
        naming: the table from the file's names to the model's; None if they are the same.
        assign: put the file's tensors in the place of the model's parameters instead of copying into them; with a
            memory-mapped file nothing is read before it is used.
        dtype: of the floating-point tensors; None keeps the model's own.
        device: where assigned tensors go; None is the CPU.
        deliver: with `assign`, makes what the model gets of each tensor, given its name in the model: on another
            device, or in fewer bits. It sees one tensor after another, so that no two are there in both forms.

    Raises:
        CheckpointMismatch: unexpected, missing or misshapen tensors, all listed, with the variant that the file looks
            like.
        CheckpointError: the model is on `meta` and `assign` is off, buffers that no file holds stay on `meta`, or a
            value is not the one that the naming stands for; the shards before it are in the model then.
    """
    if not assign and any(p.is_meta for p in model.parameters()):
        raise CheckpointError("the model is on the meta device: load with assign=True")
    translator = Translator(naming) if naming is not None else None
    what, shards, shapes = _opened(state, translator.copies if translator is not None and assign else None)
    if shapes is not None:
        result = account(model, shapes, naming)
        result.require(what, "" if result.exact else _hint(result, model, shapes, naming))
    if dtype is not None:
        model.to(dtype)
    wanted = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    seen: dict[str, Tensor] = {}
    move = _mover(wanted, device, deliver) if assign else None
    for shard in shards:
        ours = translator.feed(shard) if translator is not None else dict(shard)
        del shard  # its pages may go as soon as the last of its tensors is in the model
        seen.update(_put(model, ours, move))
    if translator is not None:
        seen.update(_put(model, translator.finish(), move))
        if translator.filled:
            log.warning("%s", listed(f"{what} lacks tensors, which were filled in", translator.filled))
    result = account(model, seen)
    if translator is not None and (translator.unexpected or translator.incomplete):
        left = (*translator.unexpected, *translator.incomplete)
        result = Accounting(result.matched, result.unexpected + left, result.missing, result.misshapen)
    result.require(what)
    still = [name for name in unsaved(model) if model.get_buffer(name).is_meta]
    if still:
        raise CheckpointError(f"{what}: no file holds these tensors, which stay on meta: {', '.join(still[:8])}")
    return result


def _opened(
    state: str | Path | Mapping[str, Tensor] | Shards | Iterable[State], passing: Callable[[str], bool] | None
) -> tuple[str, Iterable[Mapping[str, Tensor]], Mapping[str, Tensor] | None]:
    """What to call the checkpoint, its shards, and its shapes where they are known beforehand."""
    if isinstance(state, (str, Path)):
        return str(state), iterate_shards(state, passing=passing), manifest(state)
    if isinstance(state, Mapping):
        return "the given state", [state], state
    if isinstance(state, Shards):
        return str(state.path), state.shards(passing), state.shapes()
    return "the given shards", state, None


def _mover(
    wanted: Mapping[str, torch.dtype],
    device: str | torch.device | None,
    deliver: Callable[[str, Tensor], Tensor] | None,
) -> Callable[[str, Tensor], Tensor]:
    """What makes the model's tensor of a file's, given the model's dtypes."""

    def move(name: str, tensor: Tensor) -> Tensor:
        """The tensor in the model's dtype, where and how it is wanted."""
        if name not in wanted:
            return tensor
        dtype = wanted[name] if tensor.is_floating_point() else tensor.dtype
        moved = tensor.to(device=device, dtype=dtype)
        return moved if deliver is None else deliver(name, moved)

    return move


def _put(model: nn.Module, ours: State, move: Callable[[str, Tensor], Tensor] | None) -> State:
    """Hand one shard to the model, which takes it in place if there is a `move`; gives back its shapes."""
    shapes = {name: tensor.detach().to("meta") for name, tensor in ours.items()}
    if move is not None:
        for name in list(ours):
            ours[name] = move(name, ours[name])
    try:
        model.load_state_dict(ours, strict=False, assign=move is not None)
    except RuntimeError as error:  # only for shards without a manifest: misshapen tensors, listed by torch
        raise CheckpointMismatch(str(error)) from error
    return shapes


def unsaved(model: nn.Module) -> list[str]:
    """Buffers that no file holds (tables made when a model is built): a model with any must not be built on meta."""
    saved = model.state_dict()
    return [name for name, _ in model.named_buffers() if name not in saved]


def _hint(result: Accounting, model: nn.Module, shapes: Mapping[str, Tensor], naming: Naming | None) -> str:
    """What the file looks like instead, and whether resizing would make it fit."""
    from multimodal_zoo.checkpoints.guess import guess_variant
    from multimodal_zoo.checkpoints.parts import PARTS
    from multimodal_zoo.checkpoints.resizing import resizable
    from multimodal_zoo.checkpoints.tables import eve
    from multimodal_zoo.checkpoints.tables.declip_config import OPENAI_ROWS, OPENAI_VOCABULARY

    lines = []
    names = {name for name, _, _ in result.misshapen}
    if names and names <= resizable(model).keys() and not (result.unexpected or result.missing):
        why = "these follow from the image size and the patch size"
        lines.append(f"{why}; resize=True interpolates them, on the command line resize=true")
    first, lacking = ({name.split(".")[0] for name in group} for group in (result.matched, result.missing))
    if others := sorted((lacking - first) & set(PARTS)) if first & set(PARTS) else []:
        places = ", ".join(f'"{part}": PLACE' for part in sorted((lacking | first) & set(PARTS)))
        lines.append(
            f"it holds nothing of {' and '.join(others)}; pretrained={{{places}}} takes parts from several files"
        )
    if any(found[:1] == (OPENAI_ROWS,) and wanted[0] == OPENAI_ROWS + 1 for _, found, wanted in result.misshapen):
        lines.append(OPENAI_VOCABULARY)
    if (other := eve.mismatch(in_ours(shapes, naming)[0], model.state_dict())) is not None:
        lines.append(other)
    try:
        guess = guess_variant(shapes, naming)
    except Exception as error:  # the listing matters more than the hint
        return f"(no variant could be guessed: {type(error).__name__}: {error})"
    if guess:
        lines.append(f"its shapes are those of {guess}: config={guess!r}")
    return "\n".join(lines)
