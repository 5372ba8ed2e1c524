"""Values of the wrong kind end in one plain error that names key, value and what was expected, before all work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from multimodal_zoo.cli import main
from multimodal_zoo.config import compose
from multimodal_zoo.training import initial
from multimodal_zoo.training.values import check_values


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainer.max_steps=notanumber", "trainer.max_steps is 'notanumber'; expected a whole number"),
        ("optim.lr=abc", "optim.lr is 'abc'; expected a number"),
        ("schedule.warmup=x", "schedule.warmup is 'x'; expected a number"),
        ("seed=abc", "seed is 'abc'; expected a whole number"),
    ],
)
def test_the_command_says_what_was_expected(
    word: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(initial, "initial_model", lambda *given, **named: pytest.fail("went on"))
    with pytest.raises(SystemExit) as end:
        main(["train", "quickstart", f"run.dir={tmp_path}", word])
    assert end.value.code == 1
    assert f"mmzoo: {said}\n" in capsys.readouterr().err


@pytest.fixture(scope="module")
def recipe() -> Callable[..., dict[str, Any]]:
    """The quickstart with a value put in at a dotted key."""
    found = compose("quickstart", [])

    def changed(key: str, value: Any) -> dict[str, Any]:
        plain = OmegaConf.create(OmegaConf.to_container(found, resolve=False))
        OmegaConf.update(plain, key, value, force_add=True)
        return OmegaConf.to_container(plain, resolve=True)  # type: ignore[return-value]

    return changed


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("trainer.gradient_clip_val", "abc", r"trainer.gradient_clip_val is 'abc'; expected a number or null"),
        ("trainer.precision", "half", r"trainer.precision is 'half'; expected 64 or .*'32-true'"),
        ("trainer.log_every_n_steps", 1.5, r"trainer.log_every_n_steps is 1.5; expected a whole number"),
        ("trainer.max_step", 3, r"trainer.max_step \(did you mean 'max_steps'\?\)"),
        ("optim.betas", "abc", r"optim.betas is 'abc'; expected a list of 2 \(each a number\)"),
        ("optim.groups", "abc", r"optim.groups is 'abc'; expected a mapping or null"),
        ("optim.groups.no_decay_rank", "abc", r"optim.groups.no_decay_rank is 'abc'; expected a whole number"),
        ("data.batch_size", "abc", r"data.batch_size is 'abc'; expected a whole number"),
        ("data.workers", None, r"data.workers is None; expected a whole number"),
        ("callbacks.checkpoint.every_n_steps", "abc", r"callbacks.checkpoint.every_n_steps is 'abc'; expected a whole"),
        ("callbacks.mine", 5, r"callbacks.mine is 5; expected a mapping or null"),
        ("callbacks.mine", {"every": 5}, r"callbacks.mine: every alone name no part; give its type"),
        (
            "evaluation.mine",
            {"type": "retrieval", "dataset": None, "batch_size": "x"},
            r"evaluation.mine.batch_size is",
        ),
        ("evaluation.mine", {"type": "retreival"}, r"evaluation.mine: no component named 'retreival'; closest: retr"),
        ("optim.lr", -1, r"optim.lr is -1; expected 0 or more"),
        ("optim.weight_decay", -0.1, r"optim.weight_decay is -0.1; expected 0 or more"),
        ("optim.lr", float("nan"), r"optim.lr is nan; expected 0 or more"),
        ("trainer.gradient_clip_val", -1, r"trainer.gradient_clip_val is -1; expected 0 or more"),
        ("trainer.accumulate_grad_batches", 0, r"trainer.accumulate_grad_batches is 0; expected 1 or more"),
        ("trainer.log_every_n_steps", 0, r"trainer.log_every_n_steps is 0; expected 1 or more"),
        ("seed", -1, r"seed is -1; expected 0 to 4294967295"),
        ("threads", "abc", r"threads is 'abc'; expected a whole number or null"),
        ("resume", True, r"resume is True; expected text or null"),
    ],
)
def test_every_node_is_asked(recipe: Callable[..., dict[str, Any]], key: str, value: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError, KeyError), match=said):
        check_values(recipe(key, value))


def test_a_recipe_as_it_is_passes_and_so_does_a_whole_number_with_an_exponent(
    recipe: Callable[..., dict[str, Any]],
) -> None:
    check_values(recipe("trainer.max_steps", 1e3))


def test_processes_that_read_cannot_be_fewer_than_none() -> None:
    from multimodal_zoo.registry import build

    given = dict.fromkeys(("train", "validation", "collate", "plain", "order"))
    with pytest.raises(ValueError, match=r"data.workers is -1; it must be at least 0"):
        build({"_target_": "multimodal_zoo.data.datamodule.ImageTextData"}, batch_size=1, workers=-1, seed=0, **given)


def test_what_lightning_refuses_is_no_traceback(fit: Callable[..., Any]) -> None:
    from multimodal_zoo.training.assemble import fitting

    with pytest.raises(ValueError, match=r"^trainer: .*val_check_interval"), fitting("trainer"):
        fit(trainer={"max_steps": 4, "val_check_interval": 10**6, "limit_val_batches": 1})
