"""Pages made of pairs: how many, which, in which order."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from multimodal_zoo.data.documents import Document, Image, Text, pair
from multimodal_zoo.data.pair_pages import PairPages
from multimodal_zoo.data.skips import UnusableError


class Pairs:
    """Twelve things in two drawings; things of one kind follow one another."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Document:
        thing = index % 12
        picture = np.full((4, 4, 3), index, np.uint8)
        return pair(picture, f"thing {thing}", {"key": str(index), "concept": thing, "kind": thing // 3})


def shown(page: Document) -> list[int]:
    """Numbers of the pictures, in order."""
    return [int(one.image[0, 0, 0]) for one in page.segments if isinstance(one, Image)]  # type: ignore[index,call-overload]


def pages(count: int = 300, **options: Any) -> list[Document]:
    data = Pairs()
    layout = PairPages(data, **options)
    return [layout(data[number % 24], Random(number)) for number in range(count)]


def test_a_page_has_so_many_pairs_each_picture_beside_its_name() -> None:
    counts = []
    for number, page in enumerate(pages(pairs=(2, 4), ending=".")):
        numbers = shown(page)
        counts.append(len(numbers))
        texts = [one.text for one in page.segments if isinstance(one, Text)]
        assert texts == [f"thing {one % 12}." for one in numbers]
        assert numbers[0] == number % 24
        kinds = [type(one) for one in page.segments]
        assert kinds in ([Image, Text] * len(numbers), [Text, Image] * len(numbers))
    assert set(counts) == {2, 3, 4}


@pytest.mark.parametrize("first", [0.0, 1.0])
def test_which_stands_first(first: float) -> None:
    wanted = Image if first else Text
    assert all(isinstance(page.segments[0], wanted) for page in pages(20, first=first))


def test_pages_about_one_kind_and_pages_that_repeat_a_thing() -> None:
    kinds = [{one % 12 // 3 for one in shown(page)} for page in pages(pairs=(4, 4), same="kind")]
    alone = sum(len(one) == 1 for one in kinds) / len(kinds)
    assert 0.4 < alone < 0.6  # half of them, and others by chance
    for page in pages(pairs=(3, 3), again=1.0):
        *before, last = shown(page)
        assert last % 12 in [one % 12 for one in before]
        assert last not in before or before.count(last) < 2
    drawn = [shown(page) for page in pages(pairs=(3, 3), again=1.0)]
    assert any(last not in before for *before, last in drawn)  # the other drawing


def test_a_page_is_the_same_for_the_same_seed() -> None:
    options: dict[str, Any] = {"pairs": (1, 5), "same": "kind", "again": 0.5}
    assert [shown(page) for page in pages(40, **options)] == [shown(page) for page in pages(40, **options)]


def test_a_single_pair_stays_one() -> None:
    assert all(len(shown(page)) == 1 for page in pages(20, pairs=(1, 1), again=1.0))


@pytest.mark.parametrize(
    "options", [{"pairs": (0, 2)}, {"pairs": (3, 2)}, {"pairs": (2,)}, {"again": 1.5}, {"first": -0.1}]
)
def test_bad_settings_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"data.layout.{next(iter(options))}"):
        PairPages(Pairs(), **options)


def test_documents_that_are_like_none_of_the_data_set_get_any_others() -> None:
    """A validation document of a kind that the data set lacks, and one of nothing in particular."""
    strange = pair(np.full((4, 4, 3), 99, np.uint8), "new", {"key": "new", "kind": "none of these"})
    layout = PairPages(Pairs(), pairs=(3, 3), same="kind")
    assert all(len(shown(layout(strange, Random(number)))) == 3 for number in range(20))
    plain = [pair(np.full((4, 4, 3), number, np.uint8), "a", {"key": str(number)}) for number in range(9)]
    page = PairPages(plain, pairs=(2, 2), again=1.0), PairPages(plain, pairs=(2, 2))
    told = [[one(plain[0], Random(number)) for number in range(20)] for one in page]
    assert [shown(one)[1] for one in told[0]] == [shown(one)[1] for one in told[1]]  # nothing is shown again


def test_broken_pairs_of_the_data_set_are_passed_over() -> None:
    class Broken(Pairs):
        def __getitem__(self, index: int) -> Document:
            if index == 5:
                raise UnusableError("broken image", "5")
            return super().__getitem__(index)

    data = Broken()
    layout = PairPages(data, pairs=(4, 4), same="kind", again=1.0)
    made = []
    for number in range(60):
        try:
            made.append(layout(data[number % 5], Random(number)))
        except UnusableError:  # it was drawn itself: the sample is counted and another stands in
            continue
    assert len(made) > 40
