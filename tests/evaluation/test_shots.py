"""Examples for questions: which ones are chosen, and that nothing but the question and the seed decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.evaluation.few_shot import FewShot
from multimodal_zoo.evaluation.picture_features import OwnFeatures
from multimodal_zoo.evaluation.result import Result
from multimodal_zoo.evaluation.shots import AsExamples, RandomShots, RicesShots, in_context
from multimodal_zoo.evaluation.workspace import Workspace

CPU = torch.device("cpu")
Pool = Callable[..., Any]


def keys(rows: list[list[Document]]) -> list[list[str]]:
    return [[one.key for one in row] for row in rows]


def test_random_examples_follow_from_question_and_seed(squares: Pool) -> None:
    pool, questions = squares(shades=4), list(squares(shades=2))[:6]
    shots = RandomShots(pool, 4, seed=3)
    found = keys(shots.chosen(questions))
    assert found == [keys(shots.chosen([one]))[0] for one in questions]  # alone as in a batch
    assert found == keys(RandomShots(pool, 4, seed=3).chosen(questions))
    assert found != keys(RandomShots(pool, 4, seed=4).chosen(questions))
    assert all(len(set(row)) == 4 and one.key not in row for row, one in zip(found, questions, strict=True))
    assert [row[:2] for row in found] == keys(shots.taking(2).chosen(questions))  # fewer are the first of more
    assert len({tuple(row) for row in found}) > 1
    alike = keys(RandomShots(pool, 3, same=True, apart=()).chosen(questions))
    assert all(row == alike[0] for row in alike)


def test_random_examples_are_all_equally_likely(squares: Pool) -> None:
    pool = squares(shades=1)
    questions = [Document([], {"key": str(number)}) for number in range(400)]
    counts = {one.key: 0 for one in pool}
    for row in keys(RandomShots(pool, 2).chosen(questions)):
        for key in row:
            counts[key] += 1
    assert all(abs(count - 100) < 35 for count in counts.values())  # 400 draws of 2 among 8: 100 each


def test_examples_stay_apart_from_the_question(squares: Pool) -> None:
    pool, question = squares(shades=3), squares()[0]
    for row in RandomShots(pool, 20, apart=("concept",)).chosen([question]):
        assert question.meta["concept"] not in {one.meta["concept"] for one in row}
    with pytest.raises(ValueError, match="of 24 examples hardly any differs from question 'red-0' in concept"):
        RandomShots(pool, 22, apart=("concept",)).chosen([question])
    with pytest.raises(ValueError, match=r"random_shots\.count is 25; expected 0 to 24"):
        RandomShots(pool, 25)


def test_rices_takes_the_likest_pictures(squares: Pool, model: nn.Module, processor: Any, tmp_path: Path) -> None:
    pool, own = squares(shades=3), model
    own.processor = processor
    features = OwnFeatures(batch_size=5)
    shots = RicesShots(pool, 3, features)
    with pytest.raises(RuntimeError, match="call ready"):
        shots.chosen([pool[0]])
    shots.ready(own, CPU)
    questions = [pool[0], pool[11]]
    vectors = features.vectors(own, (one.image for one in pool), CPU)
    for question, row in zip((0, 11), shots.chosen(questions), strict=True):
        nearest = (vectors[question] @ vectors.T).argsort(descending=True, stable=True).tolist()
        expected = [pool[number].key for number in nearest if number != question][:3]
        assert [one.key for one in row] == expected[::-1]  # the likest stands next to the question
    assert keys(shots.taking(1).chosen(questions)) == [row[-1:] for row in keys(shots.chosen(questions))]
    assert shots.taking(0).chosen(questions) == [[], []]
    calls: list[int] = []

    class Counted(OwnFeatures):
        def vectors(self, model: nn.Module, pictures: Any, device: torch.device) -> torch.Tensor:
            seen = list(pictures)
            calls.append(len(seen))
            return super().vectors(model, seen, device)

    for _ in range(2):  # another run finds the vectors of the first
        again = RicesShots(pool, 3, Counted())
        again.share(Workspace(tmp_path, "mark"))
        again.ready(own, CPU)
        assert keys(again.chosen(questions)) == keys(shots.chosen(questions))
    assert calls == [24, 2, 2]  # all examples once, and the questions each time

    class Retrained(Counted):
        def mark(self, device: torch.device) -> str:
            return "weights of another run in a folder of the same name"

    other = RicesShots(pool, 3, Retrained())
    other.share(Workspace(tmp_path, "mark"))
    other.ready(own, CPU)
    assert calls == [24, 2, 2, 24]
    far = RicesShots(pool, 22, features, apart=("concept",))
    far.ready(own, CPU)
    with pytest.raises(ValueError, match="21 examples differ from question 'red-0' in concept, 22 are asked for"):
        far.chosen([pool[0]])
    with pytest.raises(TypeError, match="Linear has no image encoder"):
        features.vectors(nn.Linear(1, 1), [], CPU)


def test_examples_and_question_become_one_document(squares: Pool) -> None:
    pool = AsExamples(squares(), question="What colour?")
    whole = in_context([pool[0], pool[1]], Document([Image(pool[2].image), Text("And?", role="user")], {"key": "q"}))
    assert [type(one) for one in whole.segments] == [Image, Text, Text] * 2 + [Image, Text]
    texts = [(one.text, one.role) for one in whole.segments if isinstance(one, Text)]
    assert texts[:3] == [("What colour?", "user"), ("red 0", "assistant"), ("What colour?", "user")]
    assert whole.key == "q"
    bare = in_context([pool[0]], Document([Image(pool[2].image)]), pictures=False)
    assert [type(one) for one in bare.segments] == [Text, Text, Image]
    plain = AsExamples(squares(), ending="\n")[1]
    assert (plain.text, plain.segments[1].role) == ("green 0\n", None)  # type: ignore[union-attr]
    assert len(pool) == 16
    assert pool.facts(3) == pool[3].meta


class Counted:
    """An evaluation that returns how many examples it got."""

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def with_shots(self, count: int) -> Counted:
        return Counted(count)

    def __call__(self, *given: Any) -> Result:
        return Result("counted", {"found": float(self.count), "other": 1.0}, headline=("found",))


def test_few_shot_runs_each_number() -> None:
    result = FewShot(Counted(), counts=(0, 2, 4))(nn.Identity(), None, CPU)
    assert {name: result.metrics[name] for name in result.headline} == {
        "found_0_shots": 0, "found_2_shots": 2, "found_4_shots": 4,
    }  # fmt: skip
    assert list(result.tables[0].rows) == [(0, 0.0), (2, 2.0), (4, 4.0)]
    with pytest.raises(ValueError, match=r"few_shot\.counts is \[1, 1\]"):
        FewShot(Counted(), counts=(1, 1))
