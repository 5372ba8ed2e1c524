from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from multimodal_zoo.checkpoints.errors import CheckpointError, CheckpointMismatch
from multimodal_zoo.checkpoints.files import iterate_shards
from multimodal_zoo.checkpoints.load import account, load_into
from multimodal_zoo.checkpoints.naming import Naming, Translator
from multimodal_zoo.checkpoints.rules import Fallback, constant, drop, filled, pack, rename, reshape, transpose, unpack

NAMING = Naming(
    "example",
    [
        rename("blocks.{}.norm1.*", "stack.{}.norm_1.*"),
        pack([f"blocks.{{}}.{p}_proj.weight" for p in "qkv"], "stack.{}.attention.qkv.weight"),
        pack(["blocks.{}.q_bias", None, "blocks.{}.v_bias"], "stack.{}.attention.qkv.bias"),
        unpack("blocks.{}.gates.weight", ["stack.{}.gate.weight", "stack.{}.up.weight"]),
        unpack("blocks.{}.grouped", ["stack.{}.q", "stack.{}.k", "stack.{}.v"], sizes=[4, 1, 1]),
        transpose("projection", "projection.weight"),
        reshape("cls", "class_token", shape=(-1,), their_shape=(1, 1, -1)),
        drop("*.rope.freqs_cos"),
        constant("context_length", 77),
        filled("scale", 2.5),
    ],
)


def theirs() -> dict[str, torch.Tensor]:
    state = {"projection": torch.randn(4, 6), "cls": torch.randn(1, 1, 8), "context_length": torch.tensor(77)}
    for i in (0, 11):
        state |= {f"blocks.{i}.norm1.{n}": torch.randn(8) for n in ("weight", "bias")}
        state |= {f"blocks.{i}.{p}_proj.weight": torch.randn(8, 8) for p in "qkv"}
        state |= {f"blocks.{i}.{p}_bias": torch.randn(8) for p in "qv"}
        state |= {f"blocks.{i}.gates.weight": torch.randn(10, 8), f"blocks.{i}.grouped": torch.randn(12, 3)}
    return state


def test_round_trip_both_ways():
    state = theirs()
    ours = NAMING.load({**state, "blocks.0.rope.freqs_cos": torch.ones(3)})
    assert ours["stack.11.attention.qkv.weight"].shape == (24, 8)
    torch.testing.assert_close(ours["stack.11.attention.qkv.weight"][8:16], state["blocks.11.k_proj.weight"])
    torch.testing.assert_close(ours["stack.0.attention.qkv.bias"][8:16], torch.zeros(8))
    assert [ours[f"stack.0.{n}"].shape[0] for n in "qkv"] == [8, 2, 2]
    torch.testing.assert_close(ours["projection.weight"], state["projection"].T)
    assert ours["class_token"].shape == (8,)
    assert ours["scale"] == 2.5
    back = NAMING.save(ours)
    assert set(back) == set(state)  # the dropped table stays away, the constant is written
    for name in state:
        torch.testing.assert_close(back[name], state[name], rtol=0, atol=0)
    again = NAMING.load(back)
    assert set(again) == set(ours)
    for name in ours:
        torch.testing.assert_close(again[name], ours[name], rtol=0, atol=0)


def test_unpacking_copies_nothing():
    packed = torch.randn(10, 8)
    ours = Naming("x", [unpack("a", ["b", "c"])]).load({"a": packed})
    assert ours["c"].untyped_storage().data_ptr() == packed.untyped_storage().data_ptr()


def test_works_on_shapes_alone():
    ours = NAMING.load({name: tensor.to("meta") for name, tensor in theirs().items()})
    assert all(tensor.is_meta for name, tensor in ours.items() if name != "scale")
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in NAMING.load(theirs()).items()}


def test_every_name_is_consumed_exactly_once():
    state = theirs()
    del state["blocks.11.k_proj.weight"]
    with pytest.raises(CheckpointError, match=r"(?s)3 names.*unknown: what.*incomplete: blocks\.11\.q_proj\.weight"):
        NAMING.load({**state, "what": torch.ones(1)})
    twice = Naming("twice", [rename("a.*", "b.*"), rename("a.{}", "c.{}")])
    with pytest.raises(CheckpointError, match=r"a\.1 is claimed by 2 rules: a\.\* <-> b\.\*; a\.\{\} <-> c\.\{\}"):
        twice.load({"a.1": torch.ones(1)})
    same = Naming("same", [rename("a", "c"), rename("b", "c")])
    with pytest.raises(CheckpointError, match=r"b would give \['c'\]"):
        same.load({"a": torch.ones(1), "b": torch.ones(1)})


def test_wrong_tensors_name_the_rule():
    with pytest.raises(CheckpointError, match=r"context_length must be 77.*found 64"):
        NAMING.load({"context_length": torch.tensor(64)})
    with pytest.raises(CheckpointError, match="does not split"):
        Naming("x", [unpack("a", ["b", "c"])]).load({"a": torch.ones(3)})
    with pytest.raises(CheckpointError, match=r"cls .*does not fit cls <-> class_token"):
        Naming("x", [reshape("cls", "class_token", (2, -1), (1, -1))]).load({"cls": torch.ones(1, 3)})
    with pytest.raises(CheckpointError, match="must be zero"):
        NAMING.save({"stack.0.attention.qkv.bias": torch.ones(24)})
    with pytest.raises(CheckpointError, match=r"scale must be 2\.5"):
        NAMING.save({"scale": torch.tensor(3.0)})
    with pytest.raises(ValueError, match="placeholders"):
        rename("a.{}", "b")
    with pytest.raises(ValueError, match="as many sizes"):
        pack(["a", "b"], "c", sizes=[1])


def test_parts_of_a_tensor_may_come_in_different_shards():
    state = theirs()
    names = sorted(state)
    translator = Translator(NAMING)
    ours = {}
    for i in range(0, len(names), 3):
        ours.update(translator.feed({name: state[name] for name in names[i : i + 3]}))
    ours.update(translator.finish())
    assert not translator.unexpected
    assert not translator.incomplete
    whole = NAMING.load(state)
    assert set(ours) == set(whole)
    for name in whole:
        torch.testing.assert_close(ours[name], whole[name], rtol=0, atol=0)


def test_prefixes_and_sums():
    tower = Naming("tower", [rename("a.*", "b.*")])
    both = tower.under("visual.", "image.") + tower.under("text.", "text.")
    assert set(both.load({"visual.a.x": torch.ones(1), "text.a.x": torch.ones(1)})) == {"image.b.x", "text.b.x"}


def model(width: int = 4, depth: int = 12) -> nn.Module:
    return nn.ModuleDict({"layers": nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)])})


def test_mismatch_lists_everything_and_changes_nothing():
    receiver = model()
    before = {name: tensor.clone() for name, tensor in receiver.state_dict().items()}
    state = {name.replace("layers.3", "layers.12"): torch.zeros_like(tensor) for name, tensor in before.items()}
    state["layers.0.weight"] = torch.ones(5, 4)
    state |= {f"layers.{i}.extra": torch.ones(1) for i in range(12)}
    with pytest.raises(CheckpointMismatch) as caught:
        load_into(receiver, state)
    error = caught.value
    assert len(error.unexpected) == 14
    assert set(error.missing) == {"layers.3.weight", "layers.3.bias"}
    assert error.misshapen == (("layers.0.weight", (5, 4), (4, 4)),)
    assert "layers.{}.extra  (12: 0-11)" in str(error)
    assert "layers.0.weight [5, 4], the model has [4, 4]" in str(error)
    for name, tensor in receiver.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_thousands_of_names_stay_short():
    receiver = model(1, 1)
    state = {**receiver.state_dict(), **{f"x.{i}.y.{k}": torch.ones(1) for i in range(100) for k in range(30)}}
    state |= {f"name{i}": torch.ones(1) for i in range(500)}
    with pytest.raises(CheckpointMismatch, match=r"unexpected.*3500") as caught:
        load_into(receiver, state)
    assert len(str(caught.value).splitlines()) < 30
    assert len(caught.value.unexpected) == 3500


@pytest.mark.parametrize("assign", [False, True])
def test_loading_keeps_dtype_and_frozen_parameters(assign):
    source, receiver = model().half(), model()
    receiver["layers"][0].weight.requires_grad_(False)
    assert load_into(receiver, source.state_dict(), assign=assign).exact
    for name, parameter in receiver.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.requires_grad == (name != "layers.0.weight")
        torch.testing.assert_close(parameter, source.get_parameter(name).float(), rtol=0, atol=0)
    load_into(receiver, source.state_dict(), assign=assign, dtype=torch.float16)
    assert all(parameter.dtype == torch.float16 for parameter in receiver.parameters())


def test_meta_models_take_shards_by_assignment(tmp_path):
    source = model()
    with torch.device("meta"):
        receiver = model()
    with pytest.raises(CheckpointError, match="assign=True"):
        load_into(receiver, source.state_dict())
    state = source.state_dict()
    shards = ({name: state[name]} for name in state)
    load_into(receiver, shards, assign=True)
    assert all(torch.equal(receiver.get_parameter(n), p) for n, p in source.named_parameters())
    torch.save(state, tmp_path / "x.pt")
    with torch.device("meta"):
        receiver = model()
    load_into(receiver, tmp_path / "x.pt", assign=True)
    assert all(torch.equal(receiver.get_parameter(n), p) for n, p in source.named_parameters())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_what_is_copied_leaves_no_second_mapping(suffix, tmp_path):
    state = {f"{part}.weight": torch.randn(4, 4) for part in "qkvo"}
    file = tmp_path / f"model.{suffix}"
    save_file(state, file) if suffix == "safetensors" else torch.save(state, file)

    def mappings() -> int:
        return Path("/proc/self/maps").read_text().count(str(file))

    naming = Naming("hub", [pack(["q.weight", "k.weight", "v.weight"], "qkv.weight"), rename("o.weight", "o.weight")])
    with torch.device("meta"):
        model = nn.ModuleDict({"qkv": nn.Linear(4, 12, bias=False), "o": nn.Linear(4, 4, bias=False)})
    shards = iterate_shards(file, passing=Translator(naming).copies)
    one = next(shards)
    assert mappings() >= 2
    assert all(torch.equal(one[name], tensor) for name, tensor in state.items())
    del one, shards
    load_into(model, file, naming, assign=True)
    assert mappings() == 1
    assert torch.equal(model["qkv"].weight, torch.cat([state[f"{part}.weight"] for part in "qkv"]))


def test_buffers_left_on_meta_are_told():
    with torch.device("meta"):
        receiver = nn.Linear(2, 2)
        receiver.register_buffer("table", torch.ones(3), persistent=False)
    with pytest.raises(CheckpointError, match="table"):
        load_into(receiver, nn.Linear(2, 2).state_dict(), assign=True)


def test_account_needs_no_data():
    with torch.device("meta"):
        receiver = model()
    shapes = {f"their.{n}": t for n, t in receiver.state_dict().items()}
    assert account(receiver, shapes, Naming("x", [rename("their.*", "*")])).exact


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_fixed_value_may_have_been_rounded_in_a_file(dtype):
    naming = Naming("example", [filled("scale", 4.605170185988092), constant("size", 49409)])
    rounded = torch.tensor(4.605170185988092).to(dtype)
    naming.save({"scale": rounded})
    naming.save({"scale": rounded.float()})
    with pytest.raises(CheckpointError, match="scale must be"):
        naming.save({"scale": torch.tensor(4.7)})
    with pytest.raises(CheckpointError, match="size must be 49409"):
        naming.load({"size": torch.tensor(49408)})


def test_what_old_files_lack_is_filled_in_beside_what_they_have() -> None:
    naming = Naming(
        "old",
        [rename("*", "model.*")],
        [Fallback("*.steps", "*.mean", lambda shape: torch.zeros((), dtype=torch.long))],
    )
    old = {"a.mean": torch.ones(2), "b.mean": torch.ones(2), "b.steps": torch.tensor(5)}
    found = naming.load(old)
    assert {name: tensor.tolist() for name, tensor in found.items() if name.endswith("steps")} == {
        "model.a.steps": 0,
        "model.b.steps": 5,
    }
    assert naming.load({"c.weight": torch.ones(1)}).keys() == {"model.c.weight"}, "nothing beside, nothing filled in"
    assert naming.save(found).keys() == {"a.mean", "a.steps", "b.mean", "b.steps"}, "saving writes everything"
    moved = naming.under("theirs.", "ours.").load({"theirs.a.mean": torch.ones(2)})
    assert moved.keys() == {"ours.model.a.mean", "ours.model.a.steps"}
    translator = Translator(naming)
    translator.feed({"a.mean": torch.ones(2)})
    translator.feed({"a.steps": torch.tensor(3)})
    assert translator.finish() == {}, "a later shard had it"
