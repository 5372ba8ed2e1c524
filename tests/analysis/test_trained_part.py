"""Plans of models that train in part, against the tensors of a real optimiser after a step."""

from __future__ import annotations

import json

import pytest
import torch

from multimodal_zoo.analysis import DecoderPlan, Setting, decoder_plan
from multimodal_zoo.cli import main
from multimodal_zoo.nn.frozen import freeze
from multimodal_zoo.zoo import build_model, declaration

LAYERS = "[attention.qkv.query, attention.out]"
ADAPTED = [f"+model.decoder.blocks.adapter={{type: low_rank, rank: 2, alpha: 2, dropout: 0.0, layers: {LAYERS}}}"]
SMALL = ["model.image_encoder.blocks.depth=2", "model.decoder.blocks.depth=2"]
TOKENS = 24


def emu(frozen: list[str], only: list[str], device: str = "meta") -> torch.nn.Module:
    model = build_model(declaration("emu_tiny", [*SMALL, *ADAPTED]), device=device)
    freeze(dict(model.named_parameters()), frozen=frozen, only=only, path="")
    return model


def planned(frozen: list[str], only: list[str], **setting: object) -> DecoderPlan:
    return decoder_plan(
        emu(frozen, only),
        name="emu",
        context_length=TOKENS,
        setting=Setting(**{"batch_size": 1, **setting}),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("frozen", "only"),
    [([], []), ([], ["*.adapter.*"]), (["image_encoder.*"], []), (["image_encoder.*", "decoder.*"], [])],
)
def test_bytes_are_those_of_a_real_step(frozen: list[str], only: list[str]) -> None:
    model = emu(frozen, only, "cpu")
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    states = [s for state in optimizer.state.values() for s in state.values() if s.ndim]  # less the scalar counters
    found = planned(frozen, only)
    held = [*model.parameters(), *model.buffers()]
    assert found.training.weights == sum(t.numel() * t.element_size() for t in held)
    assert found.training.gradients == sum(4 * p.grad.numel() for p in model.parameters() if p.grad is not None)
    assert found.training.optimizer == sum(4 * s.numel() for s in states)
    assert sum(found.as_dict()["trained"].values()) == sum(p.numel() for p in trained)


def test_what_trains_decides_activations_and_operations() -> None:
    whole, adapters = planned([], []), planned([], ["*.adapter.*"])
    assert 0 < adapters.training.activations < whole.training.activations
    assert adapters.step_flops < whole.step_flops
    front = planned(["decoder.*", "image_encoder.*"], [])
    assert front.training.activations > 0, "gradients of a connector pass through frozen blocks"


def test_shards_gather_gradients_of_what_trains_alone() -> None:
    words = {"strategy": "fsdp", "devices": 2}
    whole, adapters = planned([], [], **words), planned([], ["*.adapter.*"], **words)
    assert adapters.training.communication < whole.training.communication
    ddp = planned([], ["*.adapter.*"], strategy="ddp", devices=2)
    assert ddp.training.communication == ddp.training.gradients


def test_a_recipe_plans_what_it_trains(capsys) -> None:
    words = ["decoder@model.decoder=emu_tiny", "connector@model.connector=causal_former_tiny", "json=true"]
    words += ["model.connector.context_norm.width=192", "context_length=16", "model.decoder.vocab_size=1033"]
    words += ["tokenizer@model.processor.texts=emu_tiny"]
    assert main(["plan", "emu/emoji_language", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    parts = {name.split(".")[0] for name, count in found["trained"].items() if count}
    assert "connector" in parts
    assert not parts & {"decoder", "image_encoder"}
    assert found["training_bytes"]["gradients"] == 4 * sum(found["trained"].values())
    assert main(["plan", "emu/emoji_language", *words, "optim.groups.frozen=[image_encoder.*]"]) == 0
    assert json.loads(capsys.readouterr().out)["trained"]["decoder.norm"] > 0


def test_the_table_says_what_trains(capsys) -> None:
    assert main(["plan", "clip_tiny", "frozen=[image.*]", "batch_size=2"]) == 0
    shown = capsys.readouterr().out
    assert "trained" in shown
    assert "frozen" in shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["clip_tiny", "only=[imge.*]"], "only: pattern 'imge.*' matches no parameter"),
        (["clip_tiny", "frozen=[image.*, nothing.*]"], "frozen: pattern 'nothing.*' matches no parameter"),
        (["clip_tiny", "frozen=[*]"], "leaves nothing to train"),
        (["quickstart", "optim.groups.frozen=[imge.*]"], "optim.groups.frozen: pattern 'imge.*' matches no"),
        (["quickstart", "only=[image.*]"], "override optim.groups.only"),
        (["emu/emoji"], "plan the recipe of a stage"),
    ],
)
def test_bad_patterns_are_named(words: list[str], expected: str, capsys) -> None:
    assert main(["plan", *words]) == 1
    assert expected in " ".join(capsys.readouterr().err.split())
