"""The registries of parts, and `build`, the only function that turns a configuration into objects.

A part is a class (or function) registered under a snake_case name that is unique in the whole library.
`build` works children first: a constructor receives built modules, never configurations.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any

from mmengine.registry import Registry

from multimodal_zoo.kinds import WORDS, fitted_arguments
from multimodal_zoo.messages import is_ours

#: Packages whose classes `_target_:` may name; parts of this library go by `type:` instead.
EXTERNAL = ("torch.nn.", "torch.optim.", "torchmetrics.", "lightning.", "timm.", "multimodal_zoo.")
#: What torch and others raise at values that a part hands to them unseen.
UNFIT = (ValueError, TypeError, AttributeError, ZeroDivisionError, OverflowError, RuntimeError)
#: Keys of a part's configuration that are not constructor arguments.
NOT_ARGUMENTS = ("type", "_target_", "card")


class PartRegistry(Registry):
    """An mmengine registry whose names are snake_case and unique across all kinds of part.

    Raises:
        KeyError: at registration, when the name is taken by any kind or is not snake_case.
    """

    def _register_module(self, module: type, module_name: str | list[str] | None = None, force: bool = False) -> None:
        names = [module_name] if isinstance(module_name, str) else module_name or [module.__name__]
        for name in names:
            if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
                raise KeyError(f"{name!r} is not snake_case; register {module.__name__} with name='lower_case_words'")
            for registry in KINDS:
                taken = registry.module_dict.get(name)
                if taken is not None and not force:
                    raise KeyError(f"{name!r} already names {taken.__module__}.{taken.__qualname__} ({registry.name})")
        super()._register_module(module=module, module_name=module_name, force=force)


KINDS: list[Registry] = []


def _kind(name: str, locations: list[str]) -> Registry:
    registry = PartRegistry(name, scope="multimodal_zoo", locations=locations, build_func=_build_in_registry)
    KINDS.append(registry)
    return registry


def _build_in_registry(config: Any, registry: Registry | None = None, **runtime: Any) -> Any:
    """What `REGISTRY.build(config)` calls: the library's own `build`."""
    del registry
    return build(config, **runtime)


ENCODERS = _kind("encoder", ["multimodal_zoo.nn.parts", "multimodal_zoo.encoders.parts"])
TOKENIZERS = _kind("tokenizer", ["multimodal_zoo.tokenizers.parts"])
DECODERS = _kind("decoder", ["multimodal_zoo.decoders.parts"])
OBJECTIVES = _kind("objective", ["multimodal_zoo.objectives.parts"])
DATASETS = _kind("dataset", ["multimodal_zoo.data.parts"])
# behind the others, which processors are found among: detectors import torchvision, and with it torch's compiler
BEV = _kind("bev", ["multimodal_zoo.bev.parts"])
EVALUATORS = _kind("evaluator", ["multimodal_zoo.evaluation.parts"])
CAPTIONS = _kind("captions", ["multimodal_zoo.captions.parts"])


@cache
def load_plugins() -> None:
    """Import every module that an installed package names under the entry point group `multimodal_zoo.plugins`."""
    for entry in entry_points(group="multimodal_zoo.plugins"):
        entry.load()


def _load(registry: Registry) -> dict[str, Callable[..., Any]]:
    for location in registry._locations:
        import_module(location)
    return registry.module_dict


def find(name: str, path: str = "") -> Callable[..., Any]:
    """The part registered as `name`, of whatever kind.

    Args:
        name: the value of a `type:` key.
        path: where in the configuration the name stands, for the error.

    Raises:
        KeyError: no part of that name; the message gives the path and the nearest names.
    """
    if not isinstance(name, str):
        raise TypeError(f"{path or 'config'}.type is {name!r}; expected the name of a component")
    for registry in KINDS:  # parts already imported, users' own among them, need no further import
        if name in registry.module_dict:
            return registry.module_dict[name]
    load_plugins()
    known: dict[str, str] = {}
    for registry in KINDS:
        parts = _load(registry)
        if name in parts:
            return parts[name]
        known.update(dict.fromkeys(parts, registry.name))
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"closest: {', '.join(f'{n} ({known[n]})' for n in near)}" if near else f"known: {', '.join(sorted(known))}"
    raise KeyError(f"{path or 'config'}: no component named {name!r}; {hint}")


def build(config: Any, *, path: str = "", **runtime: Any) -> Any:
    """Build what a configuration describes, children first.

    Args:
        config: a mapping (or OmegaConf node) with `type:` (a part of the zoo) or `_target_:` (a class below one of
            `EXTERNAL`); lists and mappings are walked; anything else is returned as it is.
        path: the configuration path of `config`, used in errors.
        **runtime: arguments that only the caller knows (parameters of an optimiser, say).

    Raises:
        KeyError: an unknown name, with the nearest valid ones.
        TypeError: a missing or unexpected argument, with the path and the accepted arguments.
    """
    return _walk(config, path, runtime, _call)


def require_fit(config: Any, *, path: str = "", later: Iterable[str] = ()) -> None:
    """Refuse what `build` would refuse for its names or for the kinds of its values; nothing is built.

    Args:
        config: what will be built.
        path: as for `build`.
        later: names of the arguments that only the caller will know.

    Raises:
        KeyError, TypeError: see `build`.
    """
    _walk(config, path, dict.fromkeys(later), _checked)


def require_part(config: Mapping[str, Any] | None, *, path: str) -> None:
    """`require_fit` of what must name a part, or be null.

    Raises:
        ValueError: it names none.
        KeyError, TypeError: see `build`.
    """
    if config and not {"type", "_target_"} & set(config):
        raise ValueError(f"{path}: {', '.join(map(str, config))} alone name no part; give its type (or _target_)")
    require_fit(config, path=path)


def _walk(config: Any, path: str, runtime: dict[str, Any], make: Callable[..., Any]) -> Any:
    """A configuration in which `make` has taken the place of every part, children first."""
    config = _plain(config)
    if isinstance(config, list):
        return [_walk(child, f"{path}[{i}]", {}, make) for i, child in enumerate(config)]
    if not isinstance(config, dict):
        return config
    is_part = "type" in config or "_target_" in config
    given = {
        key: _walk(child, f"{path}.{key}".lstrip("."), {}, make)
        for key, child in config.items()
        if not (is_part and key in NOT_ARGUMENTS)
    }
    if "_target_" in config:
        return make(_external(config["_target_"], path), config["_target_"], path, given, runtime)
    if "type" in config:
        return make(find(config["type"], path), config["type"], path, given, runtime)
    return given


def _plain(config: Any) -> Any:
    """An OmegaConf node as dicts and lists; anything else as it is."""
    if not type(config).__module__.startswith("omegaconf"):
        return config
    omegaconf: Any = sys.modules["omegaconf"]  # whoever made the node has imported it; parts never need to
    return omegaconf.OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def self_contained(config: Any) -> Any:
    """What rebuilds the parts of a configuration when the files of their initial weights are gone.

    A part that reads initial weights while it is built (and only such a part) has a static method
    `self_contained(node) -> node`: the same part with nothing left to read. It is called with the part's own plain
    node, while the files are still there; everything else is copied as it is.

    Args:
        config: mappings and lists, as `build` takes them.
    """
    return rewritten(config, "self_contained")


def rewritten(config: Any, method: str, *arguments: Any) -> Any:
    """A configuration in which parts have rewritten their own nodes, children first.

    Args:
        config: mappings and lists, as `build` takes them.
        method: name of a static method `(node, *arguments) -> node`; nodes of parts without it are copied as they are.
        *arguments: what the method gets beside the node.
    """
    config = _plain(config)
    if isinstance(config, list):
        return [rewritten(child, method, *arguments) for child in config]
    if not isinstance(config, dict):
        return config
    node = {
        key: child if key in NOT_ARGUMENTS else rewritten(child, method, *arguments) for key, child in config.items()
    }
    settle = getattr(find(node["type"]), method, None) if "type" in node else None
    return node if settle is None else settle(node, *arguments)


def _external(target: str, path: str) -> Callable[..., Any]:
    """Resolve `_target_` to a class of the allowed packages, so that a YAML file cannot run arbitrary code.

    The name alone says too little: modules hold what they import (`torch.os.system`), and a class of another package
    is not made harmless by being reached through an allowed one.

    Raises:
        ValueError: a name outside of the allowed packages, or one that leads out of them or to no class.
        ImportError: nothing of that name.
    """
    allowed = f"it must name a class below {', '.join(EXTERNAL)}"
    if not isinstance(target, str) or not target.startswith(EXTERNAL):
        raise ValueError(f"{path}._target_: {target!r} is not allowed; {allowed}")
    try:
        found = resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise ImportError(f"{path}._target_: {target!r} cannot be imported: {error}") from error
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(EXTERNAL):
        home = f"{getattr(found, '__module__', type(found).__name__)}.{getattr(found, '__qualname__', '')}"
        raise ValueError(f"{path}._target_: {target!r} is not allowed: it is {home}; {allowed}")
    return found


class _Checked(dict[str, Any]):
    """Arguments that fit a part, in the place of the part itself."""


def _checked(
    part: Callable[..., Any], name: str, path: str, given: dict[str, Any], runtime: dict[str, Any]
) -> _Checked:
    """The arguments of a configuration as the part takes them: their names are its own, their values of its kinds."""
    signature = inspect.signature(part)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    unknown = [key for key in given if key not in signature.parameters and not open_ended]
    if unknown:
        hints = [difflib.get_close_matches(key, signature.parameters, n=1) for key in unknown]
        places = ", ".join(
            f"{path}.{key}".lstrip(".") + (f" (did you mean {hint[0]!r}?)" if hint else "")
            for key, hint in zip(unknown, hints, strict=True)
        )
        raise TypeError(f"{places}: {name!r} has no such parameter; it takes {', '.join(signature.parameters)}")
    try:
        signature.bind(**given, **runtime)
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        raise TypeError(f"{path or 'config'}: {name!r}: {error}; it takes {takes}") from None
    return _Checked(fitted_arguments(part, given, path))


def _call(part: Callable[..., Any], name: str, path: str, given: dict[str, Any], runtime: dict[str, Any]) -> Any:
    arguments = _checked(part, name, path, given, runtime)
    try:
        return part(**arguments, **runtime)
    except (ValueError, AssertionError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        if is_ours(error) or type(error) not in UNFIT:
            error.add_note(f"while building {path or 'config'} ({name})") if hasattr(error, "add_note") else None
            raise
        meant = [
            f"{path}.{key}={value!r}".lstrip(".")
            for key, value in given.items()
            if _is_plain(value) and re.search(rf"\b{re.escape(key)}\b", str(error))
        ]
        what = f"{path or 'config'}: {name!r} cannot be built of these values ({type(error).__name__}: {error})"
        said = "; ".join([what, *meant])
        raise (TypeError if isinstance(error, TypeError) else ValueError)(said) from error


def _is_plain(value: Any) -> bool:
    """Whether a value says something in a message: built children fill pages."""
    return all(map(_is_plain, value)) if isinstance(value, list) else isinstance(value, tuple(WORDS))
