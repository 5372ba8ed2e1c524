"""Work as a generator: the last word always comes, errors too, and closing stops the work."""

from __future__ import annotations

import threading

import pytest

from multimodal_zoo.gallery.streaming import StoppedError, streamed


def test_the_last_word_comes() -> None:
    def work(say) -> None:
        for number in range(1000):
            say(number)

    found = list(streamed(work, 60))
    assert found[-1] == 999
    assert found == sorted(found)


def test_errors_come_behind_what_was_said() -> None:
    def work(say) -> None:
        say(1)
        raise ValueError("no more")

    steps = streamed(work, 60)
    assert next(steps) == 1
    with pytest.raises(ValueError, match="no more"):
        next(steps)


def test_closing_ends_the_work_and_nobody_waits_for_that() -> None:
    went_on, stopped = threading.Event(), threading.Event()

    def work(say) -> None:
        say(1)
        went_on.wait(60)
        try:
            say(2)
        except StoppedError:
            stopped.set()
            raise

    steps = streamed(work, 60)
    assert next(steps) == 1
    steps.close()  # whatever the work is at: a server closes in the loop that answers all visitors
    assert not stopped.is_set()
    went_on.set()
    assert stopped.wait(60)


def test_what_takes_too_long_is_stopped() -> None:
    with pytest.raises(TimeoutError, match="stopped after 0 seconds"):
        list(streamed(lambda say: say(1), 0))
