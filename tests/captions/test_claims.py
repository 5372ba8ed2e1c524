"""Claims: one holder at a time, dead ones are seen through, whoever takes over does so alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from multimodal_zoo.captions.claims import Claims, Holder


def dead_holder() -> Holder:
    """A process of this machine that has ended."""
    code = "from multimodal_zoo.captions.claims import *; import json; print(json.dumps(asdict(Holder.this_process())))"
    return Holder(**json.loads(subprocess.check_output([sys.executable, "-c", code])))


@pytest.fixture(scope="module")
def dead() -> Holder:
    return dead_holder()


def write(folder: Path, name: str, holder: Holder, idle: float = 0.0) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(asdict(holder)))
    then = path.stat().st_mtime - idle
    os.utime(path, (then, then))


def test_a_unit_has_one_holder_until_it_is_given_back(tmp_path) -> None:
    one, other = Claims(tmp_path / "claims"), Claims(tmp_path / "claims")
    assert one.take("a-0")
    assert not other.take("a-0")
    assert other.take("a-1")
    assert set(one.holders()) == {"a-0", "a-1"}
    one.release("a-0", finished=True)
    assert other.take("a-0")
    assert other.mine("a-0")
    one.close()
    other.close()
    assert not list((tmp_path / "claims").iterdir())


def test_claims_of_the_dead_are_taken_over_by_one_alone(tmp_path, dead) -> None:
    write(tmp_path / "c", "a-0.0", dead)
    heirs = [Claims(tmp_path / "c") for _ in range(8)]
    won: list[int] = []

    def run(place: int) -> None:
        if heirs[place].take("a-0"):
            won.append(place)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert heirs[won[0]].mine("a-0")
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["a-0.0", "a-0.1"]
    heirs[won[0]].release("a-0", finished=True)
    assert not list((tmp_path / "c").iterdir())


def test_a_number_that_another_process_has_now_is_no_sign_of_life(tmp_path) -> None:
    this = Holder.this_process()
    if this.started == 0:
        pytest.skip("this system does not tell when processes started")
    write(tmp_path / "c", "a-0.0", replace(this, started=this.started - 1))
    claims = Claims(tmp_path / "c")
    assert claims.holders() == {}
    assert claims.take("a-0")


def test_another_machine_holds_its_unit_for_a_lease(tmp_path, dead) -> None:
    write(tmp_path / "c", "a-0.0", replace(dead, host="elsewhere"), idle=50.0)
    assert not Claims(tmp_path / "c", lease=60.0).take("a-0")
    late = Claims(tmp_path / "c", lease=40.0)
    assert late.take("a-0")
    late.release("a-0", finished=False)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["a-0.0"]


def test_who_slept_beyond_the_lease_sees_that_it_has_an_heir(tmp_path) -> None:
    asleep = Claims(tmp_path / "c")
    assert asleep.take("a-0")
    write(tmp_path / "c", "a-0.1", Holder.this_process())
    assert not asleep.mine("a-0")


def test_who_has_an_heir_leaves_its_claim(tmp_path, dead) -> None:
    late, heir = Claims(tmp_path / "c"), Claims(tmp_path / "c")
    assert late.take("a-0")
    assert not late.inherited("a-0")
    write(tmp_path / "c", "a-0.0", dead)
    assert heir.take("a-0")
    assert late.inherited("a-0")
    assert heir.inherited("a-0")
    late.release("a-0", finished=True)
    assert heir.mine("a-0")
    heir.release("a-0", finished=True)
    assert not list((tmp_path / "c").iterdir())


def test_a_half_written_claim_holds_for_a_lease(tmp_path) -> None:
    (tmp_path / "a-0.0").write_text('{"host": "h')
    assert not Claims(tmp_path, lease=60.0).take("a-0")
    os.utime(tmp_path / "a-0.0", (1, 1))
    assert Claims(tmp_path, lease=60.0).take("a-0")


def test_signs_of_life_are_given_while_a_unit_is_held(tmp_path) -> None:
    claims = Claims(tmp_path, lease=0.04)
    assert claims.take("a-0")
    os.utime(tmp_path / "a-0.0", (1, 1))
    for _ in range(500):
        if (tmp_path / "a-0.0").stat().st_mtime > 1:
            break
        threading.Event().wait(0.01)
    assert (tmp_path / "a-0.0").stat().st_mtime > 1
    claims.close()


def test_file_systems_without_hard_links(tmp_path, monkeypatch) -> None:
    def no_links(*paths: object) -> None:
        raise PermissionError("no hard links")

    monkeypatch.setattr("os.link", no_links)
    one, other = Claims(tmp_path), Claims(tmp_path)
    assert one.take("a-0")
    assert not other.take("a-0")


def test_a_lease_is_positive(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"runner\.lease is 0"):
        Claims(tmp_path, lease=0)


def test_a_claim_whose_confirmation_got_lost_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def linked_twice(*paths: Path) -> None:
        link(*paths)
        raise FileExistsError

    monkeypatch.setattr(os, "link", linked_twice)
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("unit")
    assert first.mine("unit")
    assert not second.take("unit")
    first.close()
    assert list(tmp_path.iterdir()) == []
