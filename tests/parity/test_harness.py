"""The harness notices what it must: made-up cases that are wrong in one way each, and fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness.cases import Case, find_cases, goldens_folder, seeded
from harness.run import Outcome, Pair, Request, System, load_system, run_case
from harness.words import listed_names, take_known, written_call
from safetensors.torch import save_file

TOY = System("toy", fields={"words": lambda case: {"words": Pair(["a", "b"], case.fields["words"])}, "hint": None})


@TOY.call(r"multiply\((?P<factor>\d+)\)")
def multiply(request: Request) -> Outcome:
    (x,) = request.case.take(request.call)
    found = x * request.case.state["weight.w"] * int(request.match["factor"])
    return {"y": (found, found.clone()), "total": found.sum()}


@TOY.call(r"break")
def broken(request: Request) -> Outcome:
    raise RuntimeError("no such part")


@TOY.call(r"say")
def say(request: Request) -> Outcome:
    return {"word": Pair("yes", request.call.extra.get("word", "yes"))}


TOY.call_fields = frozenset({"word"})


def toy_system(name: str) -> System:
    return TOY if name == "toy" else load_system(name)


def write(folder: Path, changes: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None) -> Case:
    """A case that passes, but for the changes; those of `calls` are merged into the first call."""
    changes = changes or {}
    x = torch.tensor([1.0, 2.0, 3.0])
    y = 2 * x * seeded("weight.w", [3])
    call = {"method": "multiply(2)", "inputs": ["x"], "outputs": ["y", "total"], "atol": 1e-6, "rtol": 0, "note": ""}
    case = {
        "system": "toy", "what": "", "reference": {}, "config": {}, "manifest": {"weight.w": [3]}, "fixed": {},
        "parameters": 3, "calls": [{**call, **changes.pop("calls", {})}], **changes,
    }  # fmt: skip
    place = folder / case["system"] / "case"
    place.mkdir(parents=True)
    (place / "case.json").write_text(json.dumps(case))
    save_file({"x": x, "y": y, "total": y.sum(), **(tensors or {})}, place / "io.safetensors")
    (found,) = find_cases(folder)
    return found


def test_a_right_case_passes_and_is_counted(tmp_path: Path) -> None:
    assert run_case(write(tmp_path, {"words": ["a", "b"], "hint": 5, "pitfalls": []}), toy_system) == 3


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown system": ({"system": "clap"}, r"clap/case: unknown system 'clap': the tests understand .*eva_clip"),
    "unknown method": ({"calls": {"method": "divide(2)"}}, r"call 0 'divide\(2\)': 0 handlers .* toy knows: .*break"),
    "method like a known one": ({"calls": {"method": "multiply(2) twice"}}, r"0 handlers"),
    "handler that raises": ({"calls": {"method": "break"}}, r"call 0 'break': RuntimeError: no such part"),
    "output that is not computed": ({"calls": {"outputs": ["y", "total", "z"]}}, r"output 'z': not computed"),
    "output that no call names": ({"calls": {"outputs": ["y"]}}, r"tensor 'total' of io.safetensors belongs to no"),
    "call that compares nothing": ({"calls": {"method": "say", "word": None}}, r"found 'yes', expected None"),
    "changed weight": ({"fixed": {"weight.w": [1, 1, 1]}}, r"output 'y': largest difference .*3 of 3 values"),
    "fixed of another shape": ({"fixed": {"weight.w": 1}}, r"fixed weight.w has shape \[\], not \[3\]"),
    "unknown field": ({"texts": ["a"]}, r"field 'texts' is not understood; toy knows \['hint', 'words'\]"),
    "wrong field": ({"words": ["a", "c"]}, r"field 'words', output 'words': found \['a', 'b'\], expected \['a', 'c'\]"),
    "unknown field of a call": ({"calls": {"timestep": 3}}, r"call 0 'multiply\(2\)': field 'timestep' is not"),
    "wrong count of parameters": ({"parameters": 4}, r"parameters in all: the manifest has 3, the case says 4"),
    "wrong count of one part": ({"parameters": {"weight": 4}}, r"parameters weight: the manifest has 3"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_case_fails(kind: str, tmp_path: Path) -> None:
    changes, message = WRONG[kind]
    with pytest.raises((AssertionError, ValueError), match=f"(?s){message}"):
        run_case(write(tmp_path, dict(changes)), toy_system)


def test_a_wrong_number_is_shown_with_its_place(tmp_path: Path) -> None:
    y = 2 * torch.tensor([1.0, 2.0, 3.0]) * seeded("weight.w", [3])
    y[1] += 0.25
    message = (
        r"toy/case, call 0 'multiply\(2\)', output 'y': largest difference 0\.25 at \(1,\): found .* 1 of 3 values"
    )
    with pytest.raises(AssertionError, match=message):
        run_case(write(tmp_path, tensors={"y": y}), toy_system)


@pytest.mark.parametrize(
    ("y", "message"),
    [(torch.zeros(4), r"shape \[3\], expected \[4\]"), (torch.full((3,), torch.nan), r"largest difference inf")],
)
def test_shapes_and_nan_are_noticed(y: torch.Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=message):
        run_case(write(tmp_path, tensors={"y": y}), toy_system)


def test_every_way_of_computing_an_output_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def two_ways(request: Request) -> Outcome:
        right = multiply(request)
        return {**right, "y": (right["y"][0], right["y"][0] + 1)}  # type: ignore[index]

    system = System("toy", handlers=[(r"multiply\((?P<factor>\d+)\)", lambda case, call: True, two_ways)])
    with pytest.raises(AssertionError, match=r"output 'y' \(way 1\): largest difference 1"):
        run_case(write(tmp_path), lambda name: system)


def test_two_handlers_for_one_method_are_too_many(tmp_path: Path) -> None:
    system = System("toy")
    for pattern in (r"multiply\((?P<factor>\d+)\)", r"multiply\(.*\)"):
        system.call(pattern)(multiply)
    with pytest.raises(AssertionError, match="2 handlers understand this method"):
        run_case(write(tmp_path), lambda name: system)


def test_nothing_compared_fails(tmp_path: Path) -> None:
    system = System("toy")
    system.call(r"multiply\(2\)")(lambda request: {})
    with pytest.raises(AssertionError, match="nothing was compared"):
        run_case(write(tmp_path, {"calls": {"outputs": []}}), lambda name: system)


def test_a_case_without_calls_fails(tmp_path: Path) -> None:
    case = write(tmp_path)
    case.fields["calls"] = []
    with pytest.raises(AssertionError, match="no calls, so nothing to compare"):
        run_case(case, toy_system)
    case.fields["words"] = ["a", "b"]  # a field that is compared is enough
    case.tensors.clear()
    assert run_case(case, toy_system) == 1


def test_a_case_may_say_everything_in_checked_fields(tmp_path: Path) -> None:
    system = System("toy", fields={"x": lambda case: {"x": Pair(case.fields["x"], 1)}})
    for value in (1, 2):
        case = write(tmp_path / str(value), {"x": value, "manifest": {}, "parameters": 0})
        case.fields["calls"] = []
        (case.folder / "io.safetensors").unlink()
        if value == 1:
            assert run_case(case, lambda name: system) == 1
            continue
        with pytest.raises(AssertionError, match="field 'x', output 'x': found 2, expected 1"):
            run_case(case, lambda name: system)


def test_a_case_in_the_folder_of_another_system_fails(tmp_path: Path) -> None:
    case = write(tmp_path)
    (tmp_path / "other").mkdir()
    moved = case.folder.rename(tmp_path / "other" / "case")
    with pytest.raises(AssertionError, match=r"its system is 'toy', but it lies in the folder 'other'"):
        run_case(Case(moved), toy_system)


def test_tensors_without_a_case_are_found_and_fail(tmp_path: Path) -> None:
    case = write(tmp_path)
    (case.folder / "case.json").unlink()
    (found,) = find_cases(tmp_path)
    with pytest.raises(FileNotFoundError):
        run_case(found, toy_system)


def test_the_folder_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMZOO_GOLDENS", str(tmp_path))
    assert goldens_folder() == tmp_path
    monkeypatch.delenv("MMZOO_GOLDENS")
    assert goldens_folder() == Path(__file__).parents[1] / "goldens"


def test_the_rule_for_weights() -> None:
    vector = seeded("a.bias", [100]) / 0.02
    assert abs(vector.mean()) < 0.3
    assert 0.8 < vector.std() < 1.2
    assert (seeded("norm.weight", [100]) - 1).abs().max() < 0.1
    assert 0.08 < seeded("a.weight", [50, 10, 10]).std() < 0.12
    assert seeded("bn.running_var", [9]).min() >= 1
    assert seeded("bn.num_batches_tracked", []).dtype == torch.int64
    assert torch.equal(seeded("a.b", [3, 2]), seeded("a.b", [3, 2]))
    assert not torch.equal(seeded("a.b", [3, 2]), seeded("a.c", [3, 2]))
    assert seeded("visual.cls_token", [1, 1, 2]).flatten().tolist() == pytest.approx([0.3655761, 0.1501040])


def test_reading_words() -> None:
    call = written_call("image_transform(32, is_train=False, mean=(0.5, 1.0), texts)".replace(", texts", ""))
    assert call == ("image_transform", (32,), {"is_train": False, "mean": (0.5, 1.0)})
    assert written_call("tokenize(texts, context_length=16)").args == ("texts",)
    with pytest.raises(AssertionError, match="cannot read 'squash, 32' as a call"):
        written_call("squash, 32")
    with pytest.raises(AssertionError, match=r"config: not understood: \['b'\]"):
        take_known({"a": 1, "b": 2}, {"a"}, "config")


@pytest.mark.parametrize(
    "note",
    [
        "L2 norms for: a.weight, a.b.bias; grad_logit_scale is signed",
        "loss = -mean; L2 norms of the gradient of a.weight, a.b.bias",
        "L2 norms of d loss/d parameter for a.weight, a.b.bias",
        "rows: step 0..total_steps-1; columns: a.weight, a.b.bias",
    ],
)
def test_names_in_a_note(note: str) -> None:
    assert listed_names(note, {"a.weight", "a.b.bias", "c"}) == ["a.weight", "a.b.bias"]
    assert listed_names(note, {"s.a.weight", "s.a.b.bias"}, "s.") == ["s.a.weight", "s.a.b.bias"]
    with pytest.raises(AssertionError, match=r"lists names that the manifest lacks: \['a\.b\.bias'\]"):
        listed_names(note, {"a.weight"})
    with pytest.raises(AssertionError, match="found 0 lists of names"):
        listed_names(note, {"c.d"})
