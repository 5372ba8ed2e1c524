"""No key of a YAML file is dead, and no YAML file; what whole recipes come to is looked at in test_zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from config_keys import NAMED, unread
from multimodal_zoo.catalogue import list_group, list_groups
from multimodal_zoo.commands.names import HYDRA_COMMANDS

CONF = Path(__file__).parents[1] / "conf"


def content(path: Path) -> Any:
    return yaml.load(path.read_text(), yaml.CSafeLoader)


@pytest.mark.parametrize("group", sorted({*list_groups()} - {"published"}))
def test_every_key_of_a_group_is_read(group: str) -> None:
    found = []
    for path in (CONF / group).rglob("*.yaml"):
        found += [f"{path.relative_to(CONF)}: {one}" for one in unread(content(path), free=group in NAMED)]
    assert not found


def test_every_base_is_a_commands_and_every_published_table_a_benchmarks() -> None:
    assert {*list_group("base")} - {"stages"} == {*HYDRA_COMMANDS}
    tables = {part["table"] for path in (CONF / "benchmark").glob("*.yaml") for part in parts(content(path))}
    assert tables == {*list_group("published")}


def parts(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Nodes of a benchmark that name a published table."""
    return [one for one in node.values() if isinstance(one, dict) and "table" in one]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"trianer": {}}, "trianer: nothing of this name is read"),
        ({"trainer": {"max_stesp": 3, "max_steps": 3}}, "trainer.max_stesp: lightning.Trainer takes no"),
        ({"optim": {"_target_": "torch.optim.SGD", "lr": 1, "groups": None, "mometum": 0}}, "optim.mometum"),
        ({"model": [{"type": "mlp", "width": 1, "hiden": 2}]}, "model.0.hiden: mlp takes no such parameter"),
        ({"callbacks": {"mine": {"every": {"dept": 1}}}}, ""),
    ],
)
def test_dead_keys_are_found(node: dict[str, Any], message: str) -> None:
    found = list(unread(node))
    assert len(found) == bool(message)
    assert all(one.startswith(message) for one in found)
