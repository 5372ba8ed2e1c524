"""Running a case: every call finds its handler, and every output is compared."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from harness.cases import Call, Case
from torch import Tensor


class Pair(NamedTuple):
    """A value that is expected outside of `io.safetensors`: floats are compared within the tolerance, all else exactly.

    Attributes:
        found: what we compute.
        expected: what the case says.
    """

    found: Any
    expected: Any


#: Stands alone in the file of a case that has no tensors.
NO_TENSOR = "none"
#: What a handler gives: output name -> our tensor (or several, one for each way we have of computing it), or a `Pair`.
Outcome = Mapping[str, "Tensor | tuple[Tensor, ...] | Pair"]


class Request(NamedTuple):
    """What a handler gets.

    Attributes:
        case: configuration, weights, tensors.
        call: what is asked for.
        match: how its pattern fits the call's method.
    """

    case: Case
    call: Call
    match: re.Match[str]


Condition = Callable[[Case, Call], bool]


@dataclass
class System:
    """What the tests understand of one system.

    Attributes:
        name: as in `case.json`.
        fields: further fields of its cases -> a check of what they say about the whole case, or None for mere inputs.
        call_fields: further fields of its calls.
    """

    name: str
    fields: Mapping[str, Callable[[Case], Outcome] | None] = field(default_factory=dict)
    call_fields: frozenset[str] = frozenset()
    handlers: list[tuple[str, Condition, Callable[[Request], Outcome]]] = field(default_factory=list)

    def call(self, pattern: str, when: Condition = lambda case, call: True) -> Callable[..., Any]:
        """Register a handler.

        Args:
            pattern: regular expression that must fit the whole of a call's method.
            when: further condition, where two kinds of case use one word for different things.
        """

        def register(function: Callable[[Request], Outcome]) -> Callable[[Request], Outcome]:
            self.handlers.append((pattern, when, function))
            return function

        return register

    def find(self, case: Case, call: Call) -> tuple[Callable[[Request], Outcome], re.Match[str]]:
        """The one handler of a call.

        Raises:
            AssertionError: there is none, or more than one.
        """
        found = [
            (function, match)
            for pattern, when, function in self.handlers
            if (match := re.fullmatch(pattern, call.method, re.DOTALL)) and when(case, call)
        ]
        if len(found) != 1:
            known = ", ".join(sorted({pattern for pattern, _, _ in self.handlers}))
            raise AssertionError(f"{len(found)} handlers understand this method, one must; {self.name} knows: {known}")
        return found[0]


def load_system(name: str) -> System:
    """The module of `systems` for a case's system.

    Raises:
        AssertionError: there is none.
    """
    known = sorted(file.stem for file in (Path(__file__).parents[1] / "systems").glob("*.py"))
    if name not in known:
        raise AssertionError(f"unknown system {name!r}: the tests understand {', '.join(known)}")
    return importlib.import_module(f"systems.{name}").SYSTEM


def run_case(case: Case, load: Callable[[str], System] = load_system) -> int:
    """Run every call of a case and compare everything that it says.

    Returns:
        how many values, tensors counting one each, were compared.

    Raises:
        AssertionError: with the case, and each call and output that differs or is not understood.
    """
    try:
        system = load(case.system)
    except AssertionError as error:
        raise AssertionError(f"{case.name}: {error}") from None
    problems = list(_misfits(case, system))
    compared = 0
    for name, check in system.fields.items():
        if check is not None and name in case.fields:
            compared += _compare(check(case), Call(f"field {name!r}"), {}, f"{case.name}, field {name!r}", problems)
    for number, call in enumerate(case.calls):
        place = f"{case.name}, call {number} {call.method!r}"
        try:
            function, match = system.find(case, call)
        except AssertionError as error:
            problems.append(f"{place}: {error}")
            continue
        try:
            outcome = function(Request(case, call, match))
        except Exception as error:
            raise AssertionError("\n".join([*problems, f"{place}: {type(error).__name__}: {error}"])) from error
        done = _compare(outcome, call, case.tensors, place, problems)
        if not done:
            problems.append(f"{place}: nothing was compared")
        compared += done
    if problems:
        raise AssertionError("\n".join(problems))
    return compared


def _misfits(case: Case, system: System) -> Iterator[str]:
    """What about a case no handler looks at: fields and tensors that nobody knows, counts that do not add up."""
    if case.system != case.folder.parent.name:
        yield f"{case.name}: its system is {case.system!r}, but it lies in the folder {case.folder.parent.name!r}"
    if not case.calls and not any(check and name in case.fields for name, check in system.fields.items()):
        yield f"{case.name}: no calls, so nothing to compare"
    for name in case.extra.keys() - system.fields.keys():
        yield f"{case.name}: field {name!r} is not understood; {system.name} knows {sorted(system.fields)}"
    named = {name for call in case.calls for name in (*call.inputs, *call.outputs)}
    for name in case.tensors.keys() - named - ({NO_TENSOR} if len(case.tensors) == 1 else set()):
        yield f"{case.name}: tensor {name!r} of io.safetensors belongs to no call"
    for number, call in enumerate(case.calls):
        for name in call.extra.keys() - system.call_fields:
            yield f"{case.name}, call {number} {call.method!r}: field {name!r} is not understood"
    counts = case.fields.get("parameters", {})
    for prefix, count in (counts if isinstance(counts, dict) else {"": counts}).items():
        own = [key for key in case.manifest if not prefix or key.startswith(f"{prefix}.")]
        values = sum(torch.Size(case.manifest[key]).numel() for key in own)
        if values != count:
            yield f"{case.name}: parameters {prefix or 'in all'}: the manifest has {values}, the case says {count}"


def _compare(outcome: Outcome, call: Call, tensors: Mapping[str, Tensor], place: str, problems: list[str]) -> int:
    """Compare each output of a call, and each further pair; returns how many were compared."""
    compared = 0
    for name in dict.fromkeys((*call.outputs, *outcome)):
        value = outcome.get(name)
        if value is None:
            problems.append(f"{place}, output {name!r}: not computed")
            continue
        if name in tensors and isinstance(value, Pair):
            problems.append(f"{place}, output {name!r}: the expected value is a tensor of io.safetensors")
            continue
        if name not in tensors and not isinstance(value, Pair):
            problems.append(f"{place}, output {name!r}: io.safetensors has no such tensor")
            continue
        expected = value.expected if isinstance(value, Pair) else tensors[name]
        found = [value.found] if isinstance(value, Pair) else value if isinstance(value, tuple) else [value]
        for way, one in enumerate(found):
            label = f"{place}, output {name!r}" + (f" (way {way})" if way else "")
            spare = int(call.extra.get("max_mismatched", 0))
            problems.extend(f"{label}: {text}" for text in difference(one, expected, call.atol, call.rtol, spare))
        compared += bool(found)
    return compared


def difference(found: Any, expected: Any, atol: float, rtol: float, spare: int = 0) -> Iterator[str]:
    """What is wrong with a value; nothing if it is within the tolerance, but for `spare` elements of a tensor."""
    if not isinstance(expected, (Tensor, float)):
        if found != expected:
            yield f"found {_short(found)}, expected {_short(expected)}"
        return
    found, expected = torch.as_tensor(found).detach().double(), torch.as_tensor(expected).double()
    if found.shape != expected.shape:
        yield f"shape {list(found.shape)}, expected {list(expected.shape)}"
        return
    same = (found == expected) | (found.isnan() & expected.isnan())
    error = torch.where(same, 0.0, (found - expected).abs()).nan_to_num(nan=torch.inf)
    outside = ~same & ~(error <= atol + rtol * expected.abs())
    if int(outside.sum()) > spare:
        worst = int(torch.where(outside, error, -1.0).argmax())
        where = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), expected.shape)) if found.dim() else ()
        yield (
            f"largest difference {error.flatten()[worst]:.3g} at {where}: found {found.flatten()[worst]:.9g}, expected "
            f"{expected.flatten()[worst]:.9g}; {int(outside.sum())} of {expected.numel()} values are outside of atol "
            f"{atol:g}, rtol {rtol:g}"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."
