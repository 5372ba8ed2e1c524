"""Models whose large weights are drawn only where they are needed, to the very values that an ordinary build gives.

While a model is built under `deferred_model`, its matrices stay on the meta device. What would have been done to each
of them (filled, drawn, scaled, copied) is noted together with the state of the random generator, which moves on as
usual. Any weight can then be computed by itself, so that no process of a sharded run ever holds the whole model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
#: Operations that leave nothing of what was in a tensor before.
OVERWRITING = (aten.normal_.default, aten.uniform_.default, aten.zero_.default, aten.fill_.Scalar, aten.copy_.default)
CREATING = (aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default, aten.empty_strided.default)
COPYING = (aten.clone.default, aten._to_copy.default)


class Geometry(NamedTuple):
    """How a tensor lies in its storage."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @staticmethod
    def of(tensor: Tensor) -> Geometry:
        """The geometry of a tensor."""
        return Geometry(tuple(tensor.size()), tuple(tensor.stride()), int(tensor.storage_offset()))


class Operation(NamedTuple):
    """One thing done to a storage: in-place, on a part of it, from a state of the random generator if it draws."""

    call: Any
    place: Geometry
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    random: Tensor | None


class Recipe:
    """How the values of one storage come about.

    Args:
        values: how many it holds.
        dtype: their type.
    """

    def __init__(self, values: int, dtype: torch.dtype) -> None:
        self.values, self.dtype = values, dtype
        self.operations: list[Operation] = []

    def add(self, operation: Operation) -> None:
        """Note an operation; what it overwrites as a whole is forgotten."""
        if operation.call in OVERWRITING and torch.Size(operation.place.size).numel() == self.values:
            self.operations.clear()
        self.operations.append(operation)

    def copy(self) -> Recipe:
        """The same so far."""
        other = Recipe(self.values, self.dtype)
        other.operations = list(self.operations)
        return other

    def make(self, place: Geometry) -> Tensor:
        """The values, computed now; the random generator is left as it was."""
        storage = torch.empty(self.values, dtype=self.dtype)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            for call, where, arguments, options, random in self.operations:
                if random is not None:
                    torch.set_rng_state(random)
                call(storage.as_strided(*where), *tree_map(_made, arguments), **tree_map(_made, options))
        return storage.as_strided(*place)


@dataclass(frozen=True)
class Reading:
    """A deferred tensor: what its storage will hold, and how it lies in it."""

    recipe: Recipe
    place: Geometry


def _made(argument: Any) -> Any:
    return argument.recipe.make(argument.place) if isinstance(argument, Reading) else argument


class StartValues:
    """The weights that a deferred model starts from, by name; each is computed when it is asked for.

    Args:
        deferred: recipe and place of the deferred ones.
        small: the values of the others.
    """

    def __init__(self, deferred: Mapping[str, Reading], small: Mapping[str, Tensor]) -> None:
        self._deferred, self._small = dict(deferred), dict(small)

    def __contains__(self, name: str) -> bool:
        return name in self._deferred or name in self._small

    def __call__(self, name: str) -> Tensor:
        """The whole tensor on the CPU, as an ordinary build would have given it."""
        return _made(self._deferred[name]) if name in self._deferred else self._small[name]


class _NotMeta(TorchFunctionMode):
    """Says of every tensor that it is not on the meta device: `torch.nn.init` leaves out some drawing there."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch as it is, but for that question."""
        return False if func == torch.Tensor.is_meta.__get__ else func(*args, **(kwargs or {}))  # type: ignore[attr-defined]


class _Notes(TorchDispatchMode):
    """Keeps matrices on the meta device and notes what is done to them.

    Args:
        draw: False leaves out all drawing, where a checkpoint will give every value.
    """

    def __init__(self, draw: bool) -> None:
        super().__init__()
        self.draw = draw
        self.recipes: dict[int, Recipe] = {}

    def reading(self, tensor: Any) -> Reading | None:
        """Recipe and place of a deferred tensor; None for anything else."""
        if not isinstance(tensor, Tensor) or tensor.device.type != "meta":
            return None
        recipe = self.recipes.get(tensor.untyped_storage()._cdata)
        return None if recipe is None else Reading(recipe, Geometry.of(tensor))

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation, or note it."""
        kwargs = kwargs or {}
        if func in CREATING:
            return self._create(func, args, kwargs)
        first = self.reading(args[0]) if args else None
        others = any(self.reading(leaf) is not None for leaf in tree_leaves((args[1:], kwargs)))
        if first is None and not others:
            return func(*args, **kwargs)
        if first is not None and not others and func in COPYING:
            return self._copy(func(*args, **{**kwargs, **({"device": "meta"} if "device" in kwargs else {})}), first)
        if first is not None and func.is_view:
            return func(*args, **kwargs)
        if first is not None and func._schema.name.endswith("_"):
            return self._note(func, args, kwargs, first)
        raise NotImplementedError(f"{func} reads a weight while the model is built")

    def _create(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        made: Tensor = func(*args, **{**kwargs, "device": "meta"})
        if made.ndim < 2 or not made.is_floating_point():
            return torch.empty_strided(made.size(), made.stride(), dtype=made.dtype)
        self._register(made)
        return made

    def _register(self, tensor: Tensor) -> Recipe:
        storage = tensor.untyped_storage()
        recipe = Recipe(storage.nbytes() // tensor.element_size(), tensor.dtype)
        self.recipes[storage._cdata] = recipe
        return recipe

    def _copy(self, made: Tensor, source: Reading) -> Tensor:
        recipe = self._register(made)
        whole = source.recipe.copy()  # what happens to the source later is not part of the copy
        recipe.add(Operation(aten.copy_.default, Geometry.of(made), (Reading(whole, source.place),), {}, None))
        return made

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], target: Reading) -> Tensor:
        draws = torch.Tag.nondeterministic_seeded in func.tags
        if draws and not self.draw:
            return args[0]
        random = torch.get_rng_state() if draws else None
        rest, options = tree_map(self._freeze, (args[1:], kwargs))
        target.recipe.add(Operation(func, target.place, rest, options, random))
        if draws:  # the generator moves on exactly as if the values were kept
            func(torch.empty_strided(*target.place[:2], dtype=args[0].dtype), *args[1:], **kwargs)
        return args[0]

    def _freeze(self, argument: Any) -> Any:
        found = self.reading(argument)
        if found is not None:
            return Reading(found.recipe.copy(), found.place)
        return argument.clone() if isinstance(argument, Tensor) else argument


def deferred_model(build: Callable[[], nn.Module], draw: bool = True) -> tuple[nn.Module, StartValues]:
    """Build a model with its matrices on the meta device.

    Args:
        build: makes the model.
        draw: False leaves every deferred value undefined, which costs no time: for a model that a checkpoint fills.

    Returns:
        the model, and what computes each of its parameters and buffers.

    Raises:
        NotImplementedError: a constructor computes with weights (borrowed backbones may); build it whole instead.
    """
    notes = _Notes(draw)
    with notes, _NotMeta():
        model = build()
    deferred, small = {}, {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found = notes.reading(tensor)
        if found is None:
            small[name] = tensor.detach().clone()
        else:
            deferred[name] = found
    return model, StartValues(deferred, small)
