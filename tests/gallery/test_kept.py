"""Things that are kept in memory: one visitor has one at a time, and what is in use is not thrown away."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from multimodal_zoo.gallery.kept import Kept


def made(kept: Kept[list[str]], name: str) -> list[str]:
    """The thing of a name, which is made where it is not there."""
    with kept.lent(name, lambda: [name]) as thing:
        return thing


def test_the_one_used_longest_ago_goes() -> None:
    kept: Kept[list[str]] = Kept(2)
    first, second = made(kept, "a"), made(kept, "b")
    assert made(kept, "a") is first
    made(kept, "c")
    assert made(kept, "a") is first
    assert made(kept, "b") is not second


def test_what_somebody_has_stays() -> None:
    kept: Kept[list[str]] = Kept(1)
    with ExitStack() as held:
        first = held.enter_context(kept.lent("a", lambda: ["a"]))
        made(kept, "b")  # does not wait
    assert made(kept, "a") is first


def test_two_who_want_the_same_wait_for_each_other_and_it_is_made_once() -> None:
    kept: Kept[list[str]] = Kept(1)
    count, most, makes = [0], [0], []

    def use() -> None:
        with kept.lent("a", lambda: makes.append(1) or ["a"]):  # type: ignore[func-returns-value]
            count[0] += 1
            most[0] = max(most[0], count[0])
            threading.Event().wait(0.01)
            count[0] -= 1

    users = [threading.Thread(target=use) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert (most[0], len(makes)) == (1, 1)


def test_what_cannot_be_made_is_tried_again() -> None:
    kept: Kept[list[str]] = Kept(1)
    with pytest.raises(ZeroDivisionError), kept.lent("a", lambda: [str(1 / 0)]):
        pass
    assert made(kept, "a") == ["a"]
