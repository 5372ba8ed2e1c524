"""Every command of the documentation is one that tests/docs_commands.py runs, or says why not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def table():
    spec = importlib.util.spec_from_file_location("docs_commands", Path(__file__).parent / "docs_commands.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_has_a_rule_and_every_rule_a_command(table) -> None:
    rules = {words: table.rule_of(words) for words in table.commands()}
    assert not [" ".join(words) for words, rule in rules.items() if rule is None]
    assert not [rule.pattern for rule in table.RULES if rule not in rules.values()]


def test_a_command_of_each_rule_composes_small(table) -> None:
    import multimodal_zoo as zoo
    from multimodal_zoo.commands.app import split

    assert {name for rule in table.RULES for name in rule.needs} <= {*table.FIRST, *table.MADE}
    chosen = [words for words in table.FIRST.values() if words[0] == "train"]
    for rule in table.RULES:
        found = [words for words in table.commands() if table.rule_of(words) is rule]
        trains = [words for words in found if words[0] == "train" and not {"-m", "--cfg"} & {*words}]
        if rule.reason is None and trains and "part:" not in rule.pattern:  # a part is looked up in a run
            chosen.append(table.small(trains[0], rule))
    for words in chosen:
        subject, overrides = split(list(words[1:]))
        zoo.compose(subject or "quickstart", overrides)
