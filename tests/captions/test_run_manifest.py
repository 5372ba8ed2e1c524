"""What a folder was made with: written once, the same again is fine, a change is refused by name."""

from __future__ import annotations

import json
import threading

import pytest

from multimodal_zoo.captions.run_manifest import differences, settle

FACTS = {"library": "1.0", "prompt": {"template_sha256": "ab", "limit": 256}, "files": [{"name": "a", "bytes": 7}]}


def test_the_same_facts_again_change_nothing(tmp_path) -> None:
    path = tmp_path / "out" / "manifest.json"
    settle(path, FACTS)
    before = path.read_bytes()
    settle(path, FACTS)
    assert path.read_bytes() == before
    assert json.loads(before) == FACTS
    assert [one.name for one in path.parent.iterdir()] == ["manifest.json"]


def test_a_change_is_refused_with_its_key_and_both_values(tmp_path) -> None:
    path = tmp_path / "manifest.json"
    settle(path, FACTS)
    changed = {**FACTS, "prompt": {"template_sha256": "cd", "limit": 256}, "files": [{"name": "a", "bytes": 8}]}
    with pytest.raises(ValueError, match="other settings") as caught:
        settle(path, changed)
    text = str(caught.value)
    assert 'prompt.template_sha256: was "ab", is "cd"' in text
    assert "files[0].bytes: was 7, is 8" in text
    assert "accept_changes=[prompt,files]" in text
    assert json.loads(path.read_text()) == FACTS


def test_an_accepted_change_is_noted(tmp_path) -> None:
    path = tmp_path / "manifest.json"
    settle(path, FACTS)
    newer = {**FACTS, "library": "1.1"}
    settle(path, newer, accepted=["library"])
    assert json.loads(path.read_text()) == {**newer, "changes": [{"key": "library", "was": "1.0"}]}
    settle(path, newer)
    with pytest.raises(ValueError, match="library: was"):
        settle(path, FACTS)


def test_keys_that_came_and_went_are_changes() -> None:
    found = list(differences({"a": 1, "b": {"c": [1, 2]}}, {"b": {"c": [1, 2, 3], "d": None}}))
    assert found == [("a", 1, "nothing"), ("b.c", [1, 2], [1, 2, 3]), ("b.d", "nothing", None)]


def test_several_processes_settle_at_once_and_one_writes(tmp_path) -> None:
    path, refused = tmp_path / "manifest.json", []

    def run(number: int) -> None:
        try:
            settle(path, {"engine": number % 2})
        except ValueError:
            refused.append(number % 2)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stands = json.loads(path.read_text())["engine"]
    assert refused == [1 - stands] * 4


def test_a_damaged_manifest_is_named(tmp_path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        settle(tmp_path / "manifest.json", FACTS)


def test_some_keys_may_never_differ(tmp_path) -> None:
    settle(tmp_path / "m.json", {"rows": 7, "a": 1}, fixed=["rows"])
    with pytest.raises(ValueError, match=r"rows: was 7, is 8\)\. Go on with the same ones or choose another out$"):
        settle(tmp_path / "m.json", {"rows": 8, "a": 1}, ["rows"], fixed=["rows"])
    settle(tmp_path / "m.json", {"rows": 7, "a": 2}, ["a"], fixed=["rows"])
